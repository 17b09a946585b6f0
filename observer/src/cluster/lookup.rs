//! The two containers of the index: what objects agree on, and which network holds an address.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::Family;

/// What several objects say of one thing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Agreed<T> {
    /// None says anything.
    #[default]
    Silent,
    /// All that say something say this.
    On(T),
    /// They contradict each other.
    Contradiction,
}

/// Values by network. Looks up the network with the longest prefix that holds an address.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct CidrMap<T> {
    /// The prefix lengths in use, longest first: a look-up tries each once, however many networks
    /// there are.
    prefixes: Vec<(Family, u8)>,
    networks: HashMap<IpNet, T>,
}

impl<T: PartialEq> Agreed<T> {
    /// What another object says.
    pub(super) fn add(&mut self, value: T) {
        match self {
            Self::Silent => *self = Self::On(value),
            Self::On(other) if *other == value => {}
            Self::On(_) | Self::Contradiction => *self = Self::Contradiction,
        }
    }

    /// What all of `values` that are there agree on.
    pub(super) fn of(values: impl IntoIterator<Item = Option<T>>) -> Option<T> {
        let mut agreed = Self::Silent;
        values
            .into_iter()
            .flatten()
            .for_each(|value| agreed.add(value));
        agreed.get()
    }
}

impl<T> Agreed<T> {
    pub(super) fn as_ref(&self) -> Agreed<&T> {
        match self {
            Self::Silent => Agreed::Silent,
            Self::On(value) => Agreed::On(value),
            Self::Contradiction => Agreed::Contradiction,
        }
    }

    /// What they agree on, if they do.
    pub(super) fn get(self) -> Option<T> {
        match self {
            Self::On(value) => Some(value),
            Self::Silent | Self::Contradiction => None,
        }
    }

    /// Asks `other` if nothing was said. A contradiction stands.
    pub(super) fn or_else(self, other: impl FnOnce() -> Self) -> Self {
        match self {
            Self::Silent => other(),
            Self::On(_) | Self::Contradiction => self,
        }
    }

    /// What follows from it; silence if nothing does.
    pub(super) fn and_then<U>(self, follow: impl FnOnce(T) -> Option<U>) -> Agreed<U> {
        match self {
            Self::Silent => Agreed::Silent,
            Self::On(value) => follow(value).map_or(Agreed::Silent, Agreed::On),
            Self::Contradiction => Agreed::Contradiction,
        }
    }
}

impl<T> Default for CidrMap<T> {
    fn default() -> Self {
        Self {
            prefixes: Vec::new(),
            networks: HashMap::new(),
        }
    }
}

impl<T> CidrMap<T> {
    /// The network with the longest prefix that holds `ip`, and its value.
    pub(super) fn get(&self, ip: IpAddr) -> Option<(IpNet, &T)> {
        self.prefixes
            .iter()
            .filter(|(family, _)| *family == Family::of(ip))
            .filter_map(|&(_, length)| IpNet::new(ip, length).ok())
            .find_map(|network| {
                let (network, value) = self.networks.get_key_value(&network.trunc())?;
                Some((*network, value))
            })
    }

    /// Whether it has any network of this family.
    pub(super) fn has_family(&self, family: Family) -> bool {
        self.prefixes.iter().any(|(its, _)| *its == family)
    }
}

impl<T: Default> CidrMap<T> {
    /// The value of `network`, made if it is new. Host bits are dropped.
    pub(super) fn entry(&mut self, network: IpNet) -> &mut T {
        let prefix = (Family::of(network.addr()), network.prefix_len());
        if !self.prefixes.contains(&prefix) {
            self.prefixes.push(prefix);
            self.prefixes
                .sort_by_key(|&(_, length)| std::cmp::Reverse(length));
        }
        self.networks.entry(network.trunc()).or_default()
    }
}
