//! The programs: loaded, attached, read, and gone when [`Programs`] is dropped.
//!
//! Minimum kernel: 5.10. Attaches by TCX where the kernel has it (6.6, some 5.14 of RHEL), else
//! by clsact; which, is decided by trying.

mod attach;
mod counters;
mod error;
mod heartbeat;
mod settings;
mod sizes;
mod sweep;
mod tally;
#[cfg(test)]
mod tests;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::time::Instant;

use aya::maps::{Array, HashMap as BpfHashMap, MapData, MapError, RingBuf};
use aya::programs::{RawTracePoint, SchedClassifier};
use aya::{Ebpf, EbpfLoader};
use aya_log::EbpfLogger;
use nix::net::if_::if_nametoindex;
use observer_ebpf::{Arrival, ArrivalKey, DropLayout, Flow, FlowKey, KernelLayout};

use self::attach::Attachment;
pub use self::attach::{AttachError, Hook};
pub use self::counters::{Counters, NotTold, Usage};
pub use self::error::ProgramsError;
use self::heartbeat::Heartbeat;
use self::settings::Payload;
pub use self::settings::{FirstBytes, Ports};
pub use self::sizes::{Memory, Sizes};
pub use self::sweep::{SweepError, sweep};
use self::tally::{Outstanding, Reader};
use crate::kernel::drops::DropReasons;
use crate::kernel::links::LinkHeader;
use crate::observation::{DecodeError, DropReason, Identity, IfIndex, Moment, Observation};

/// The object that `build.rs` made.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/observer-programs"));

/// Ingress and egress, for interfaces whose packets begin with an Ethernet header.
const ETHERNET: [&str; 2] = ["observer_in", "observer_out"];
/// The same for interfaces whose packets begin with the IP header.
const BARE: [&str; 2] = ["observer_in_ip", "observer_out_ip"];

/// All that are put on interfaces.
const PROGRAMS: [[&str; 2]; 2] = [ETHERNET, BARE];

/// For what the kernel drops.
const DROP: &str = "observer_drop";

/// `aya_log::Level`s that the programs print: none, or up to debug.
const LOG_OFF: u8 = 0;
const LOG_DEBUG: u8 = 4;

/// The least that a ring buffer may have: a page, of whatever size.
const PAGE: u32 = 1 << 16;

/// The programs in the kernel.
///
/// The fields are in the order of the dismantling: no program is attached without a heartbeat.
pub struct Programs {
    attached: BTreeMap<IfIndex, Attachment>,
    /// The one to attach by; none is by trying.
    hook: Option<Hook>,
    _heartbeat: Heartbeat,
    ebpf: Ebpf,
    arrivals: BpfHashMap<MapData, ArrivalKey, Arrival>,
    counters: Reader,
    /// Arrivals taken out because they never left.
    expired: u64,
    outstanding: Outstanding,
    layout: Array<MapData, KernelLayout>,
    sampling: Array<MapData, u64>,
    flows: BpfHashMap<MapData, FlowKey, Flow>,
    udp_ports: Array<MapData, u64>,
    drops: BpfHashMap<MapData, ArrivalKey, u32>,
    drop_layout: Array<MapData, DropLayout>,
    /// Set while the kernel is asked why it drops.
    drop_reasons: Option<DropReasons>,
    /// Set if first bytes are handed on.
    payload: Option<Payload>,
}

/// What the programs fill.
pub struct Rings {
    /// With [`Observation`]s.
    pub observations: RingBuf<MapData>,
    /// With [`Segment`]s, if they were asked for.
    ///
    /// [`Segment`]: crate::observation::Segment
    pub segments: Option<RingBuf<MapData>>,
}

/// What the programs are to do, beside observing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Load {
    /// Write debug lines, for [`Programs::logger`].
    pub debug_lines: bool,
    /// Hand on what clients send first; see [`Programs::hand_on`].
    pub first_bytes: bool,
    /// How large the maps are.
    pub sizes: Sizes,
}

impl Programs {
    /// Loads the programs. Needs `CAP_BPF`, `CAP_PERFMON` and `CAP_NET_ADMIN`, or root.
    ///
    /// Also gives the ring buffers that they fill.
    pub fn load(load: Load) -> Result<(Self, Rings), ProgramsError> {
        let Load {
            debug_lines,
            first_bytes,
            sizes,
        } = load;
        let log_level = if debug_lines { LOG_DEBUG } else { LOG_OFF };
        let payload = u8::from(first_bytes);
        // What the standard library draws at random for its hash maps.
        let [a, b, c, d, ..] = RandomState::new().hash_one(0).to_ne_bytes();
        let secret = u32::from_ne_bytes([a, b, c, d]);
        let marks = sizes.marks();
        let mut loader = EbpfLoader::new();
        sizes.set(&marks, &mut loader);
        loader
            .override_global("AYA_LOG_LEVEL", &log_level, true)
            .override_global("SECRET", &secret, true)
            .override_global("PAYLOAD", &payload, true);
        if !first_bytes {
            loader
                .map_max_entries("WAITING", 1)
                .map_max_entries("SEGMENTS", PAGE);
        }
        let mut ebpf = loader.load(OBJECT)?;
        for program in PROGRAMS.into_iter().flatten() {
            classifier(&mut ebpf, program)?
                .load()
                .map_err(|source| ProgramsError::Program {
                    program,
                    source: Box::new(source),
                })?;
        }
        let observations = map(&mut ebpf, "OBSERVATIONS")?;
        let segments = if first_bytes {
            Some(map(&mut ebpf, "SEGMENTS")?)
        } else {
            None
        };
        let failed = |source| ProgramsError::Map {
            map: heartbeat::MAP,
            source,
        };
        let sweep_again = || {
            // An error would be that of the sweep at the start again.
            let _said_then = sweep();
        };
        let heartbeat =
            Heartbeat::start(map(&mut ebpf, heartbeat::MAP)?, sweep_again).map_err(failed)?;
        let programs = Self {
            attached: BTreeMap::new(),
            hook: None,
            _heartbeat: heartbeat,
            arrivals: map(&mut ebpf, "ARRIVALS")?,
            counters: Reader::new(map(&mut ebpf, "COUNTERS")?),
            expired: 0,
            outstanding: Outstanding::default(),
            layout: map(&mut ebpf, "LAYOUT")?,
            sampling: map(&mut ebpf, "SAMPLING")?,
            flows: map(&mut ebpf, "FLOWS")?,
            udp_ports: map(&mut ebpf, "UDP_PORTS")?,
            drops: map(&mut ebpf, "DROPS")?,
            drop_layout: map(&mut ebpf, "DROP_LAYOUT")?,
            drop_reasons: None,
            payload: if first_bytes {
                Some(Payload {
                    ports: map(&mut ebpf, "TCP_PORTS")?,
                    sources: map(&mut ebpf, "SOURCES")?,
                    known: BTreeSet::new(),
                    waiting: map(&mut ebpf, "WAITING")?,
                })
            } else {
                None
            },
            ebpf,
        };
        let rings = Rings {
            observations,
            segments,
        };
        Ok((programs, rings))
    }

    /// Attaches by this hook or not at all.
    pub fn only_by(&mut self, hook: Hook) {
        self.hook = Some(hook);
    }

    /// Notes from now on why the kernel drops openings. Only this loads the program for it; a kernel
    /// that does not take it, or has no `CONFIG_BPF_EVENTS`, changes nothing else.
    ///
    /// Minimum kernel: 5.17, as `reasons` found.
    pub fn note_drops(&mut self, reasons: DropReasons) -> Result<(), ProgramsError> {
        self.drop_layout
            .set(0, reasons.layout, 0)
            .map_err(|source| ProgramsError::Map {
                map: "DROP_LAYOUT",
                source,
            })?;
        let program: &mut RawTracePoint = self
            .ebpf
            .program_mut(DROP)
            .and_then(|program| program.try_into().ok())
            .ok_or(ProgramsError::Missing(DROP))?;
        program
            .load()
            .and_then(|()| program.attach("kfree_skb"))
            .map_err(|source| ProgramsError::Program {
                program: DROP,
                source: Box::new(source),
            })?;
        self.drop_reasons = Some(reasons);
        Ok(())
    }

    /// Why the kernel dropped a connection's opening packet, if it said so; to be asked once.
    pub fn drop_reason(&mut self, identity: &Identity) -> Option<DropReason> {
        let reasons = self.drop_reasons.as_ref()?;
        let key = identity.opening_key();
        let reason = self.drops.get(&key, 0).ok()?;
        // One that is gone by itself is no error.
        let _gone = self.drops.remove(&key);
        reasons.name(reason)
    }

    /// Puts both programs on an interface of the calling thread's network namespace, those for
    /// its link header. One that has them keeps them.
    pub fn attach(&mut self, interface: &str, header: LinkHeader) -> Result<Hook, ProgramsError> {
        let failed = |source| ProgramsError::Attach {
            interface: interface.to_owned(),
            source,
        };
        let index =
            if_nametoindex(interface).map_err(|_no_such_name| failed(AttachError::NoInterface))?;
        let vacant = match self.attached.entry(IfIndex(index)) {
            Entry::Occupied(attached) => return Ok(attached.get().hook),
            Entry::Vacant(vacant) => vacant,
        };
        let programs = match header {
            LinkHeader::Ethernet => ETHERNET,
            LinkHeader::None | LinkHeader::Other(_) => BARE,
        };
        let mut put = |hook| {
            let mut attachment = Attachment::new(IfIndex(index), interface, programs, hook);
            attachment.put(&mut self.ebpf).map(|()| attachment)
        };
        let attachment = match self.hook {
            Some(hook) => put(hook),
            None => match put(Hook::Tcx) {
                Err(error) if error.lacks_tcx() => put(Hook::Clsact),
                put => put,
            },
        };
        Ok(vacant.insert(attachment.map_err(failed)?).hook)
    }

    /// Takes the programs off an interface, if they are there. One that is gone, and took them
    /// along, is no error: its number may then serve for another.
    pub fn detach(&mut self, interface: IfIndex) -> Result<(), ProgramsError> {
        let Some(mut attachment) = self.attached.remove(&interface) else {
            return Ok(());
        };
        attachment
            .take_off()
            .map_err(|source| ProgramsError::Detach {
                interface: attachment.interface.clone(),
                source,
            })
    }

    /// Takes out of the map what arrived by `until` and never left. What came of each key.
    ///
    /// The map is bounded, and what leaves is taken out by the programs, so this reads little; and
    /// nothing, mostly, while nothing is in it.
    pub fn expire(
        &mut self,
        until: impl Fn(&ArrivalKey) -> Moment,
    ) -> Result<Vec<Result<Observation, DecodeError>>, ProgramsError> {
        let before = self.counters()?;
        if !self
            .outstanding
            .is_due(&before, self.expired, Instant::now())
        {
            return Ok(Vec::new());
        }
        let mut expired = Vec::new();
        let mut present = 0;
        self.walk_arrivals(|key, arrival| {
            present += 1;
            if Moment(arrival.time_ns) <= until(&key) {
                expired.push((key, arrival));
            }
        })?;
        let after = self.counters()?;
        self.outstanding
            .walked([&before, &after], self.expired, present);
        // Whoever removes a key has it: a packet that left in between took its own along.
        expired.retain(|(key, _)| self.arrivals.remove(key).is_ok());
        self.expired += expired.len() as u64;
        Ok(expired
            .into_iter()
            .map(|(key, arrival)| Observation::expired(&key, arrival))
            .collect())
    }

    /// The reader of the programs' debug lines.
    pub fn logger(&mut self) -> Result<EbpfLogger<&'static dyn log::Log>, aya_log::Error> {
        EbpfLogger::init(&mut self.ebpf)
    }
}

impl fmt::Debug for Programs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Programs").finish_non_exhaustive()
    }
}

fn classifier<'a>(
    ebpf: &'a mut Ebpf,
    name: &'static str,
) -> Result<&'a mut SchedClassifier, ProgramsError> {
    ebpf.program_mut(name)
        .and_then(|program| program.try_into().ok())
        .ok_or(ProgramsError::Missing(name))
}

fn map<T: TryFrom<aya::maps::Map, Error = MapError>>(
    ebpf: &mut Ebpf,
    map: &'static str,
) -> Result<T, ProgramsError> {
    ebpf.take_map(map)
        .ok_or(ProgramsError::Missing(map))?
        .try_into()
        .map_err(|source| ProgramsError::Map { map, source })
}
