//! What became of a connection to a proxy, as far as the record of what the proxy opens tells it.

use std::net::IpAddr;

use crate::record::{FrontDoor, Loss, LostAt, Record, Service};
use crate::verdict::{Cause, ClientKind, SourceIp};

/// One connection's, or what several have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::observe) struct Stage {
    pub(super) client: Option<IpAddr>,
    pub(super) kind: Option<ClientKind>,
    pub(super) front_door: Option<FrontDoor>,
    pub(super) service: Option<Service>,
    pub(super) source_ip: SourceIp,
    pub(super) lost_at: Option<LostAt>,
    pub(super) cause: Option<Cause>,
    /// Every stage at which the address was replaced; `None` if that is not known.
    pub(super) losses: Option<Vec<Loss>>,
    pub(super) extra_hops: Option<u8>,
}

impl Default for Stage {
    /// Nothing is known.
    fn default() -> Self {
        Self {
            client: None,
            kind: None,
            front_door: None,
            service: None,
            source_ip: SourceIp::Unknown,
            lost_at: None,
            cause: None,
            losses: None,
            extra_hops: None,
        }
    }
}

impl Stage {
    /// That of a connection's record.
    pub(super) fn of(record: &Record) -> Self {
        Self {
            client: Some(record.client.ip),
            kind: Some(record.client.kind),
            front_door: Some(record.front_door),
            service: record.service.clone(),
            source_ip: record.source_ip,
            lost_at: record.lost_at.clone(),
            cause: record.cause.clone(),
            losses: Some(record.losses.clone()),
            extra_hops: record.extra_hops,
        }
    }

    /// That of one that nothing is known of but its client.
    pub(super) fn from_client(client: IpAddr) -> Self {
        Self {
            client: Some(client),
            ..Self::default()
        }
    }

    /// What is the same in both.
    pub(super) fn in_common(self, other: &Self) -> Self {
        fn same<T: PartialEq>(one: Option<T>, other: Option<&T>) -> Option<T> {
            one.filter(|one| other == Some(one))
        }
        let source_ip = if self.source_ip == other.source_ip {
            self.source_ip
        } else {
            SourceIp::Unknown
        };
        Self {
            client: same(self.client, other.client.as_ref()),
            kind: same(self.kind, other.kind.as_ref()),
            front_door: same(self.front_door, other.front_door.as_ref()),
            service: same(self.service, other.service.as_ref()),
            source_ip,
            lost_at: same(self.lost_at, other.lost_at.as_ref()),
            cause: same(self.cause, other.cause.as_ref()),
            losses: same(self.losses, other.losses.as_ref()),
            extra_hops: same(self.extra_hops, other.extra_hops.as_ref()),
        }
    }
}
