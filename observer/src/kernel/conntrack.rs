//! Asking conntrack for one entry, by ctnetlink (`net/netfilter/nf_conntrack_netlink.c`).
//!
//! The programs cannot tell an opening packet that a hook dropped from one that a socket of this
//! node took and left unanswered; conntrack can. Needs `CAP_NET_ADMIN` and the caller's network
//! namespace to be the node's.

use std::fs;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};

use netlink_packet_core::{DefaultNla, NetlinkPayload, Nla as _};
use netlink_packet_netfilter::conntrack::{
    ConntrackAttribute, ConntrackMessage, IPTuple, ProtoInfo, ProtoInfoTCP, ProtoTuple, Protocol,
    Status, Tuple as TupleNla,
};
use netlink_packet_netfilter::nftables::{ChainAttribute, ChainMessage, NfTablesMessage};
use netlink_packet_netfilter::{NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily};

use super::netfilter::{Line, NetfilterError, dump};
use crate::cluster::{self, Family};
use crate::observation::{Entry, Identity, Tuple};

/// `CTA_ZONE` (`include/uapi/linux/netfilter/nfnetlink_conntrack.h`), big-endian 16 bits.
const CTA_ZONE: u16 = 18;
// enum tcp_conntrack, include/uapi/linux/netfilter/nf_conntrack_tcp.h
const TCP_CONNTRACK_TIME_WAIT: u8 = 7;
const TCP_CONNTRACK_CLOSE: u8 = 8;
/// What the kernel answers of an entry that is not there.
const NO_SUCH_ENTRY: i32 = -2;
/// So long a namespace is taken not to track after it was found so.
const ASK_AGAIN: Duration = Duration::from_millis(500);
/// The chain type that makes a namespace track connections.
const NAT: &str = "nat";

/// A line to conntrack.
#[derive(Debug)]
pub struct Conntrack {
    line: Line,
    tracks: Tracks,
    partly: bool,
    /// When it was last found that this namespace does not track IPv4, and IPv6.
    untracked: [Option<Instant>; 2],
}

/// The families in which this namespace was seen to track connections.
#[derive(Clone, Copy, Debug, Default)]
struct Tracks {
    v4: bool,
    v6: bool,
}

impl Conntrack {
    /// Opens a socket in the calling thread's network namespace.
    pub fn open() -> Result<Self, NetfilterError> {
        Ok(Self {
            line: Line::open()?,
            tracks: Tracks::default(),
            partly: false,
            untracked: [None; 2],
        })
    }

    /// What conntrack holds of a connection's original tuple; `None` if this namespace may not
    /// track that family at all, so that the lack of an entry says nothing; or if what has this
    /// tuple are the replies of another connection.
    pub fn look_up(&mut self, identity: &Identity) -> Result<Option<Entry>, NetfilterError> {
        let family = Family::of(identity.original.source.ip());
        let question = ConntrackMessage::Get(question(identity));
        match self.line.ask(proto(family), question)? {
            NetlinkPayload::InnerMessage(NetfilterMessage {
                inner: NetfilterMessageInner::Conntrack(ConntrackMessage::New(attributes)),
                ..
            }) => {
                let is_it = original(&attributes) == Some(identity.original);
                let entry = entry(&attributes).ok_or(NetfilterError::Unexpected)?;
                Ok(is_it.then_some(entry))
            }
            NetlinkPayload::Error(error) if error.raw_code() == NO_SUCH_ENTRY => {
                let absent = || Entry::Absent {
                    table_full: table_is_full(),
                };
                Ok((!self.partly && self.tracks_lately(family)?).then(absent))
            }
            NetlinkPayload::Error(error) => Err(NetfilterError::Refused(error.to_io())),
            _ => Err(NetfilterError::Unexpected),
        }
    }

    /// Some connections here are in zones of their own, or exempted from tracking. What arrived
    /// and never left does not tell which it is, so the lack of an entry says nothing from now on.
    pub const fn tracks_partly(&mut self) {
        self.partly = true;
    }

    /// The same as [`Conntrack::tracks`], which where it does not takes milliseconds, for the whole
    /// table is walked: so that is asked once in a while, and not for each of a flood. Meanwhile the
    /// lack of an entry says nothing.
    fn tracks_lately(&mut self, family: Family) -> Result<bool, NetfilterError> {
        let place = usize::from(family == Family::V6);
        if self.untracked[place].is_some_and(|asked| asked.elapsed() < ASK_AGAIN) {
            return Ok(false);
        }
        let tracks = self.tracks(family)?;
        self.untracked[place] = (!tracks).then(Instant::now);
        Ok(tracks)
    }

    /// Whether this namespace tracks connections of that family. It does while a rule needs it:
    /// there is an entry, or a chain for NAT.
    pub fn tracks(&mut self, family: Family) -> Result<bool, NetfilterError> {
        let tracks = match family {
            Family::V4 => &mut self.tracks.v4,
            Family::V6 => &mut self.tracks.v6,
        };
        if !*tracks {
            *tracks = has_entry(family)? || has_nat_chain(family)? || has_legacy_nat(family);
        }
        Ok(*tracks)
    }
}

fn has_entry(family: Family) -> Result<bool, NetfilterError> {
    let mut found = false;
    dump(proto(family), ConntrackMessage::Get(Vec::new()), |_| {
        found = true;
        Ok::<_, NetfilterError>(ControlFlow::Break(()))
    })?;
    Ok(found)
}

/// Whether nftables, or iptables on top of it, has a chain for NAT.
fn has_nat_chain(family: Family) -> Result<bool, NetfilterError> {
    let mut found = false;
    for proto in [proto(family), NetfilterProtoFamily::Inet] {
        let question = NfTablesMessage::GetChain(ChainMessage {
            attributes: Vec::new(),
        });
        let dumped = dump(proto, question, |message| {
            if let NetfilterMessageInner::NfTables(NfTablesMessage::NewChain(chain)) = message.inner
            {
                let is_nat = |attribute: &ChainAttribute| matches!(attribute, ChainAttribute::Type(kind) if kind == NAT);
                found |= chain.attributes.iter().any(is_nat);
            }
            Ok::<_, NetfilterError>(ControlFlow::Continue(()))
        });
        match dumped {
            // A kernel without nftables says so.
            Ok(()) | Err(NetfilterError::Refused(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// Whether iptables-legacy has its table for NAT.
fn has_legacy_nat(family: Family) -> bool {
    let names = match family {
        Family::V4 => "/proc/net/ip_tables_names",
        Family::V6 => "/proc/net/ip6_tables_names",
    };
    fs::read_to_string(names).is_ok_and(|names| names.lines().any(|name| name == NAT))
}

const fn proto(family: Family) -> NetfilterProtoFamily {
    match family {
        Family::V4 => NetfilterProtoFamily::IPv4,
        Family::V6 => NetfilterProtoFamily::IPv6,
    }
}

/// Reads the connections that conntrack holds now, in both families, and hands each to `each`:
/// its identity (whose sequence number conntrack does not tell), its reply tuple, and whether a
/// reply was seen. Those that are over, and protocols that no Service has, are left out.
pub fn existing<E: From<NetfilterError>>(
    mut each: impl FnMut(Identity, Tuple, bool) -> Result<ControlFlow<()>, E>,
) -> Result<(), E> {
    let mut flow = ControlFlow::Continue(());
    for family in [Family::V4, Family::V6] {
        let all = ConntrackMessage::Get(Vec::new());
        dump(proto(family), all, |message| {
            if let Some((identity, reply, replied)) = alive(message) {
                flow = each(identity, reply, replied)?;
            }
            Ok::<_, E>(flow)
        })?;
        if flow.is_break() {
            break;
        }
    }
    Ok(())
}

/// The connection of an entry, if it is one of a Service's protocols and not over.
fn alive(message: NetfilterMessage) -> Option<(Identity, Tuple, bool)> {
    let NetfilterMessageInner::Conntrack(ConntrackMessage::New(attributes)) = message.inner else {
        return None;
    };
    let mut original = None;
    let mut zone = 0;
    for attribute in &attributes {
        match attribute {
            ConntrackAttribute::CtaTupleOrig(parts) => {
                original = Some((protocol(parts)?, tuple(parts)?));
            }
            ConntrackAttribute::CtaProtoInfo(infos) if is_over(infos) => return None,
            ConntrackAttribute::Other(other) if other.kind() == CTA_ZONE => {
                let mut value = vec![0; other.value_len()];
                other.emit_value(&mut value);
                zone = u16::from_be_bytes(value.try_into().ok()?);
            }
            _ => {}
        }
    }
    let (protocol, original) = original?;
    let Entry::Present { reply, replied } = entry(&attributes)? else {
        return None;
    };
    let identity = Identity {
        protocol,
        zone,
        original,
        sequence: 0,
    };
    Some((identity, reply, replied))
}

fn protocol(parts: &[TupleNla]) -> Option<cluster::Protocol> {
    let fields = parts.iter().find_map(|part| match part {
        TupleNla::Proto(fields) => Some(fields),
        _ => None,
    })?;
    let number = fields.iter().find_map(|field| match field {
        ProtoTuple::Protocol(protocol) => Some(u8::from(*protocol)),
        _ => None,
    })?;
    cluster::Protocol::try_from(number).ok()
}

fn is_over(infos: &[ProtoInfo]) -> bool {
    infos.iter().any(|info| match info {
        ProtoInfo::TCP(parts) => parts.iter().any(|part| {
            matches!(
                part,
                ProtoInfoTCP::State(TCP_CONNTRACK_TIME_WAIT | TCP_CONNTRACK_CLOSE)
            )
        }),
        _ => false,
    })
}

/// Whether there is no room for another entry. Where the kernel does not tell, there is.
fn table_is_full() -> bool {
    let read = |name| {
        let path = Path::new("/proc/sys/net/netfilter").join(name);
        fs::read_to_string(path).ok()?.trim().parse::<u64>().ok()
    };
    read("nf_conntrack_count")
        .zip(read("nf_conntrack_max"))
        // 0 is no limit (Documentation/networking/nf_conntrack-sysctl.rst).
        .is_some_and(|(count, max)| max != 0 && count >= max)
}

fn question(identity: &Identity) -> Vec<ConntrackAttribute> {
    let Tuple {
        source,
        destination,
    } = identity.original;
    let mut attributes = vec![ConntrackAttribute::CtaTupleOrig(vec![
        TupleNla::Ip(vec![
            IPTuple::SourceAddress(source.ip()),
            IPTuple::DestinationAddress(destination.ip()),
        ]),
        TupleNla::Proto(vec![
            ProtoTuple::Protocol(Protocol::from(identity.protocol.number())),
            ProtoTuple::SourcePort(source.port()),
            ProtoTuple::DestinationPort(destination.port()),
        ]),
    ])];
    if identity.zone != 0 {
        let zone = identity.zone.to_be_bytes().to_vec();
        attributes.push(ConntrackAttribute::Other(DefaultNla::new(CTA_ZONE, zone)));
    }
    attributes
}

fn original(attributes: &[ConntrackAttribute]) -> Option<Tuple> {
    attributes.iter().find_map(|attribute| match attribute {
        ConntrackAttribute::CtaTupleOrig(parts) => tuple(parts),
        _ => None,
    })
}

fn entry(attributes: &[ConntrackAttribute]) -> Option<Entry> {
    let reply = attributes.iter().find_map(|attribute| match attribute {
        ConntrackAttribute::CtaTupleReply(parts) => tuple(parts),
        _ => None,
    })?;
    let replied = attributes.iter().any(|attribute| {
        matches!(attribute, ConntrackAttribute::CtaStatus(status)
            if status.contains(Status::SeenReply))
    });
    Some(Entry::Present { reply, replied })
}

fn tuple(parts: &[TupleNla]) -> Option<Tuple> {
    let (mut source, mut destination) = (None, None);
    let (mut source_port, mut destination_port) = (None, None);
    for part in parts {
        match part {
            TupleNla::Ip(addresses) => {
                for address in addresses {
                    match *address {
                        IPTuple::SourceAddress(ip) => source = Some(ip),
                        IPTuple::DestinationAddress(ip) => destination = Some(ip),
                        _ => {}
                    }
                }
            }
            TupleNla::Proto(fields) => {
                for field in fields {
                    match *field {
                        ProtoTuple::SourcePort(port) => source_port = Some(port),
                        ProtoTuple::DestinationPort(port) => destination_port = Some(port),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Some(Tuple {
        source: SocketAddr::new(source?, source_port?),
        destination: SocketAddr::new(destination?, destination_port?),
    })
}
