//! The containers of the index: what objects agree on, which network holds an address, and maps
//! that indexes share.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hash};
use std::net::IpAddr;
use std::sync::Arc;

use foldhash::fast::{FixedState, RandomState};
use ipnet::IpNet;

use super::Family;

/// A map whose keys are the cluster's own: nobody outside chooses them, so that a fast hash, with a
/// secret of the process, is safe enough. Connections look here a dozen times each.
pub(super) type Map<K, V> = HashMap<K, V, RandomState>;

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
    networks: Map<IpNet, T>,
}

/// Into how many parts a [`SharedMap`] is cut: a change costs one of them.
const PARTS: usize = 256;

/// A map in parts, so that the indexes before and after a change have in common what is the same
/// in both.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SharedMap<K: Eq + Hash, V> {
    /// By the keys' hash; none while it is empty.
    parts: Vec<Arc<Map<K, V>>>,
}

impl<K: Eq + Hash, V> Default for SharedMap<K, V> {
    fn default() -> Self {
        Self { parts: Vec::new() }
    }
}

impl<K: Eq + Hash, V> SharedMap<K, V> {
    /// The value of a key.
    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.parts.get(part_of(key))?.get(key)
    }

    /// All keys, in any order.
    pub(super) fn keys(&self) -> impl Iterator<Item = &K> {
        self.parts.iter().flat_map(|part| part.keys())
    }
}

impl<K: Clone + Eq + Hash, V: Clone + Default> SharedMap<K, V> {
    /// The value of a key, made if it is new.
    pub(super) fn entry(&mut self, key: K) -> &mut V {
        if self.parts.is_empty() {
            self.parts.resize_with(PARTS, Arc::default);
        }
        let part = &mut self.parts[part_of(&key)];
        Arc::make_mut(part).entry(key).or_default()
    }
}

impl<K: Eq + Hash, V: PartialEq> SharedMap<K, V> {
    /// Takes the other's parts where they are equal.
    pub(super) fn share(&mut self, other: &Self) {
        for (part, other) in self.parts.iter_mut().zip(&other.parts) {
            if part == other {
                *part = Arc::clone(other);
            }
        }
    }
}

/// The same in every map.
fn part_of(key: &impl Hash) -> usize {
    let hash = FixedState::default().hash_one(key);
    usize::from(hash.to_le_bytes()[0])
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
            networks: Map::default(),
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
