//! What the programs are told, and may be told again while they run.

use std::collections::BTreeSet;
use std::net::IpAddr;

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap as BpfHashMap, MapData};
use ipnet::IpNet;
use observer_ebpf::{
    FAMILY_IPV4, FAMILY_IPV6, KernelLayout, LAYOUT_KEY, PORT_WORDS, Sampling, SourceKey, Waiting,
    WaitingKey,
};

use super::{Programs, ProgramsError};

/// Of which ports something is followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ports {
    /// Of every port.
    All,
    /// Of these: of front doors, and those behind them. All others pass at once.
    Only(BTreeSet<u16>),
}

impl Ports {
    /// A bit for each.
    fn words(&self) -> [u64; PORT_WORDS as usize] {
        let mut words = [0; PORT_WORDS as usize];
        match self {
            Self::All => words.fill(u64::MAX),
            Self::Only(ports) => {
                for &port in ports {
                    words[usize::from(port / 64)] |= 1 << (port % 64);
                }
            }
        }
        words
    }
}

/// Whose connections' first bytes the programs hand on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirstBytes {
    /// Of those to these TCP ports.
    pub ports: Ports,
    /// And from these networks.
    pub sources: BTreeSet<IpNet>,
}

/// The maps of the part that hands first bytes on.
pub(super) struct Payload {
    pub(super) ports: Array<MapData, u64>,
    pub(super) sources: LpmTrie<MapData, SourceKey, u8>,
    /// What is in `sources`.
    pub(super) known: BTreeSet<IpNet>,
    pub(super) waiting: BpfHashMap<MapData, WaitingKey, Waiting>,
}

impl Programs {
    /// Tells the programs where conntrack's entries are; from the next packet on they read them.
    /// To be told once: a layout is of a kernel, and does not change while that runs.
    pub fn set_layout(&mut self, layout: &KernelLayout) -> Result<(), ProgramsError> {
        // An element is copied into place while programs read it; they read none whose `nfct` is zero.
        for layout in [KernelLayout { nfct: 0, ..*layout }, *layout] {
            self.layout
                .set(LAYOUT_KEY, layout, 0)
                .map_err(|source| ProgramsError::Map {
                    map: "LAYOUT",
                    source,
                })?;
        }
        Ok(())
    }

    /// Follows the UDP flows of these ports from the next datagram on; before, of none.
    pub fn follow_udp(&mut self, ports: &Ports) -> Result<(), ProgramsError> {
        set_ports(&mut self.udp_ports, ports, "UDP_PORTS")
    }

    /// Of how many openings one is followed from now on.
    pub fn sample(&mut self, sampling: Sampling) -> Result<(), ProgramsError> {
        self.sampling
            .set(0, sampling.to_word(), 0)
            .map_err(|source| ProgramsError::Map {
                map: "SAMPLING",
                source,
            })
    }

    /// Hands on, from the next opening packet on, what these connections' clients send first;
    /// before, of none. Does nothing where the programs were loaded without.
    pub fn hand_on(&mut self, first_bytes: &FirstBytes) -> Result<(), ProgramsError> {
        let Some(payload) = &mut self.payload else {
            return Ok(());
        };
        let FirstBytes { ports, sources } = first_bytes;
        set_ports(&mut payload.ports, ports, "TCP_PORTS")?;
        let failed = |source| ProgramsError::Map {
            map: "SOURCES",
            source,
        };
        for gone in payload.known.difference(sources) {
            payload.sources.remove(&source_key(*gone)).map_err(failed)?;
        }
        payload.known.retain(|known| sources.contains(known));
        for new in sources.difference(&payload.known.clone()) {
            payload
                .sources
                .insert(&source_key(*new), 1, 0)
                .map_err(failed)?;
            payload.known.insert(*new);
        }
        Ok(())
    }

    /// The first bytes of a connection are known, and no more are handed on.
    pub fn let_go(&mut self, key: &WaitingKey) {
        if let Some(payload) = &mut self.payload {
            // It may be gone by itself: after so many bytes, or for newer ones.
            let _gone = payload.waiting.remove(key);
        }
    }
}

fn set_ports(
    map: &mut Array<MapData, u64>,
    ports: &Ports,
    name: &'static str,
) -> Result<(), ProgramsError> {
    for (index, word) in (0..PORT_WORDS).zip(ports.words()) {
        map.set(index, word, 0)
            .map_err(|source| ProgramsError::Map { map: name, source })?;
    }
    Ok(())
}

/// A network in the trie, behind its family.
fn source_key(network: IpNet) -> Key<SourceKey> {
    let (family, address) = match network.network() {
        IpAddr::V4(address) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&address.octets());
            (FAMILY_IPV4, bytes)
        }
        IpAddr::V6(address) => (FAMILY_IPV6, address.octets()),
    };
    let prefix = u8::BITS + u32::from(network.prefix_len());
    Key::new(prefix, SourceKey { family, address })
}
