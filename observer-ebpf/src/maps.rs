//! All that the programs keep: arrivals that wait for their egress, UDP flows that are known, the
//! ring buffer to userspace, counters of everything that could not be kept, and the heartbeat of
//! userspace.

use aya_ebpf::{
    Global,
    bindings::{
        BPF_F_RDONLY_PROG, BPF_NOEXIST, BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP,
    },
    helpers::bpf_ktime_get_ns,
    macros::map,
    maps::{Array, LruHashMap, PerCpuArray, RingBuf},
    programs::TcContext,
};
use observer_ebpf::{
    ARRIVALS_MAX, Arrival, ArrivalKey, Counter, DROPS_MAX, DropLayout, FLOW_IDLE_NS, FLOWS_MAX,
    Flow, FlowKey, KernelLayout, LAYOUT_KEY, OBSERVATIONS_SIZE, Observation, PORT_WORDS,
    SILENCE_NS, Tuple, WAKE_NS, WaitingKey, wake_mark,
};

use crate::{
    conntrack::Conntrack,
    packet::{Packet, Role},
};

#[map]
static ARRIVALS: LruHashMap<ArrivalKey, Arrival> = LruHashMap::with_max_entries(ARRIVALS_MAX, 0);

/// UDP flows whose first datagrams were looked at.
#[map]
static FLOWS: LruHashMap<FlowKey, Flow> = LruHashMap::with_max_entries(FLOWS_MAX, 0);

/// The UDP ports that are observed, a bit each; set by userspace.
#[map]
static UDP_PORTS: Array<u64> = Array::with_max_entries(PORT_WORDS, BPF_F_RDONLY_PROG);

#[map]
static OBSERVATIONS: RingBuf = RingBuf::with_byte_size(OBSERVATIONS_SIZE, 0);

/// [`wake_mark`] of the ring buffer; set before the object is loaded.
#[unsafe(no_mangle)]
static WAKE_MARK: Global<u64> = Global::new(wake_mark(OBSERVATIONS_SIZE));

/// When userspace was last woken, on the clock of [`now_ns`].
#[map]
static WOKEN: Array<u64> = Array::with_max_entries(1, 0);

#[map]
static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Counter::COUNT, 0);

/// When userspace last showed that it lives, on the clock of [`now_ns`].
#[map]
static HEARTBEAT: Array<u64> = Array::with_max_entries(1, 0);

#[map]
static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

/// Set by userspace, once, perhaps long after the programs run: conntrack may be a module that is
/// not loaded yet. An element is copied into place while programs read it; so userspace sets all
/// but `nfct` first, and `nfct` with the same again.
#[map]
static LAYOUT: Array<KernelLayout> = Array::with_max_entries(1, BPF_F_RDONLY_PROG);

/// Why openings that arrived were dropped, by the kernel's own number.
#[map]
static DROPS: LruHashMap<ArrivalKey, u32> = LruHashMap::with_max_entries(DROPS_MAX, 0);

/// Set by userspace before the program that reads it is attached.
#[map]
static DROP_LAYOUT: Array<DropLayout> = Array::with_max_entries(1, BPF_F_RDONLY_PROG);

/// What one run of a program works on: more than the 512 bytes of a BPF stack hold.
pub(crate) struct Scratch {
    pub(crate) packet: Packet,
    pub(crate) conntrack: Conntrack,
    pub(crate) opening_key: ArrivalKey,
    pub(crate) answer_key: ArrivalKey,
    pub(crate) flow_key: FlowKey,
    pub(crate) waiting_key: WaitingKey,
    /// Backend → source seen, once it is known.
    pub(crate) reply: Tuple,
    /// Whether a packet that leaves may lack an arrival because it was not followed. Kept here because
    /// the verifier would go every way from here on twice if it knew it.
    pub(crate) may_lack: u8,
    /// Whether this node itself sends what leaves.
    pub(crate) is_own: u8,
    /// When the run began.
    now_ns: u64,
}

/// What [`take`] gives when nothing arrived.
pub(crate) const NO_ARRIVAL: Arrival = Arrival {
    time_ns: 0,
    ifindex: 0,
    ttl: 0,
    padding: [0; 3],
};

/// `EEXIST` as a helper returns it.
const EXISTS: i32 = -17;

/// This CPU's scratch, and what time it is; none while nobody is there to read what would come of
/// it. The clock costs, so one reading serves a whole run.
#[inline(always)]
pub(crate) fn scratch() -> Option<(&'static mut Scratch, u64)> {
    let now_ns = now_ns();
    if !is_attended(now_ns) {
        count(Counter::Unattended);
        return None;
    }
    let scratch = SCRATCH.get_ptr_mut(0)?;
    // SAFETY: the slot is this CPU's own, and TC programs run to their end with softirqs off, so
    // none interrupts another on one CPU. The kernel zeroed it, and zero is a value of each field.
    let scratch = unsafe { &mut *scratch };
    scratch.now_ns = now_ns;
    Some((scratch, now_ns))
}

/// The same again, in a function that the run has called.
#[inline(always)]
pub(crate) fn scratch_of_run() -> Option<(&'static mut Scratch, u64)> {
    let scratch = SCRATCH.get_ptr_mut(0)?;
    // SAFETY: as above; who calls has none left.
    let scratch = unsafe { &mut *scratch };
    let now_ns = scratch.now_ns;
    Some((scratch, now_ns))
}

/// Filters outlive an observer that is killed; they must not go on to collect addresses.
#[inline(always)]
pub(crate) fn is_attended(now_ns: u64) -> bool {
    HEARTBEAT
        .get(0)
        .is_some_and(|beat| now_ns.saturating_sub(*beat) < SILENCE_NS)
}

/// Userspace's last sign of life, as a number of 2^`shift` ns; it comes round again.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "so it comes round again")]
pub(crate) fn generation(shift: u32) -> Option<u8> {
    HEARTBEAT.get(0).map(|beat| (*beat >> shift) as u8)
}

/// Where the kernel keeps conntrack's entries, if that is known.
#[inline(always)]
pub(crate) fn layout() -> Option<&'static KernelLayout> {
    LAYOUT.get(LAYOUT_KEY).filter(|layout| layout.nfct != 0)
}

/// Where the kernel keeps what the program for drops reads.
#[inline(always)]
pub(crate) fn drop_layout() -> Option<&'static DropLayout> {
    DROP_LAYOUT.get(0)
}

/// Keeps why an opening was dropped; of one that was repeated, the last reason.
#[inline(always)]
pub(crate) fn note_drop(key: &ArrivalKey, reason: u32) {
    // Evidence only: what cannot be kept is not told.
    let _not_told = DROPS.insert(key, reason, 0);
}

#[inline(always)]
pub(crate) fn now_ns() -> u64 {
    // SAFETY: takes no argument and has no precondition.
    unsafe { bpf_ktime_get_ns() }
}

#[inline(always)]
pub(crate) fn ifindex(context: &TcContext) -> u32 {
    // SAFETY: the context is a valid __sk_buff for the life of the program.
    unsafe { (*context.skb.skb).ifindex }
}

#[inline(always)]
pub(crate) fn count(counter: Counter) {
    if let Some(value) = COUNTERS.get_ptr_mut(counter as u32) {
        // SAFETY: as in `scratch`.
        unsafe { *value += 1 }
    }
}

/// Whether a UDP port is observed.
#[inline(always)]
pub(crate) fn is_observed(port: u16) -> bool {
    UDP_PORTS
        .get(u32::from(port / 64))
        .is_some_and(|word| word >> (port % 64) & 1 != 0)
}

/// The known flow of a key.
#[inline(always)]
pub(crate) fn flow(key: &FlowKey) -> Option<&'static mut Flow> {
    let flow = FLOWS.get_ptr_mut(key)?;
    // SAFETY: entries of a hash map stay where they are; one that is let go meanwhile is another
    // flow's then, whose time is at worst a datagram's too late.
    Some(unsafe { &mut *flow })
}

/// Whether a flow has been silent since, so that conntrack may have forgotten it.
#[inline(always)]
pub(crate) fn is_idle(flow: &Flow, now_ns: u64) -> bool {
    now_ns.saturating_sub(flow.time_ns) >= FLOW_IDLE_NS
}

/// Keeps what is known of a flow now, in place of what was.
#[inline(always)]
pub(crate) fn keep(key: &FlowKey, flow: Flow) {
    // Most are new.
    count(match FLOWS.insert(key, flow, u64::from(BPF_NOEXIST)) {
        Ok(()) => Counter::FlowsWritten,
        Err(EXISTS) => {
            if let Some(known) = self::flow(key) {
                *known = flow;
            }
            return;
        }
        Err(_) => Counter::FlowsLost,
    });
}

/// Whether an arrival of this key waits.
#[inline(always)]
pub(crate) fn waits(key: &ArrivalKey) -> bool {
    // SAFETY: nothing of the entry is read.
    unsafe { ARRIVALS.get(key) }.is_some()
}

/// Keeps the first arrival of a key: a retransmission, or the same packet on the next device of
/// a stack, changes nothing.
#[inline(always)]
pub(crate) fn note(key: &ArrivalKey, arrival: &Arrival) {
    let counter = match ARRIVALS.insert(key, arrival, u64::from(BPF_NOEXIST)) {
        Ok(()) => Counter::ArrivalsWritten,
        Err(EXISTS) => Counter::ArrivalsRepeated,
        Err(_) => Counter::ArrivalsLost,
    };
    count(counter);
}

/// Takes an arrival out, so that what stays in the map never left this node.
#[inline(always)]
pub(crate) fn take(key: &ArrivalKey) -> Arrival {
    // SAFETY: copied at once; only a removal at the same moment could reuse the entry, and a
    // key has but one packet under way.
    let Some(arrival) = unsafe { ARRIVALS.get(key) }.copied() else {
        return NO_ARRIVAL;
    };
    if ARRIVALS.remove(key).is_ok() {
        count(Counter::ArrivalsJoined);
    }
    arrival
}

/// How many bytes of the ring buffer wait for userspace.
#[inline(always)]
pub(crate) fn used() -> u64 {
    OBSERVATIONS.query(BPF_RB_AVAIL_DATA.into())
}

/// The flags by which a record wakes userspace, or not. The kernel's own rule, to wake whoever has read
/// everything, would wake it for each packet.
#[inline(always)]
fn wake(role: Role, now_ns: u64) -> u64 {
    if let Some(woken) = WOKEN.get_ptr_mut(0) {
        // SAFETY: the element stays where it is; at worst two CPUs wake at once.
        unsafe {
            if now_ns.saturating_sub(*woken) >= WAKE_NS
                && (role != Role::Opening || used() > WAKE_MARK.load())
            {
                *woken = now_ns;
                return BPF_RB_FORCE_WAKEUP.into();
            }
        }
    }
    BPF_RB_NO_WAKEUP.into()
}

/// Hands a finished observation of `scratch` to userspace.
#[inline(always)]
pub(crate) fn send(
    context: &TcContext,
    scratch: &Scratch,
    now_ns: u64,
    arrival: Arrival,
    opening: Arrival,
) {
    let Some(mut record) = OBSERVATIONS.reserve::<Observation>(0) else {
        let is_first = scratch.packet.role == Role::Opening || opening.time_ns != 0;
        count(if is_first {
            Counter::OpeningsLost
        } else {
            Counter::AnswersLost
        });
        return;
    };
    let place = record.as_mut_ptr();
    // SAFETY: `place` is the reserved record, writable and aligned to eight bytes; every field is
    // written before it is submitted. In place, because a copy on the stack would not fit.
    unsafe {
        (*place).identity = scratch.opening_key.identity;
        // Not in the key: the arrival, which it joined, knew no zone.
        (*place).identity.zone = scratch.conntrack.zone;
        (*place).reply = scratch.reply;
        (*place).kind = scratch.packet.role.kind();
        (*place).conntrack = scratch.conntrack.state;
        (*place).ttl = scratch.packet.ttl;
        (*place).padding = 0;
        (*place).ifindex = ifindex(context);
        (*place).time_ns = now_ns;
        (*place).arrival = arrival;
        (*place).opening = opening;
    }
    record.submit(wake(scratch.packet.role, now_ns));
    count(Counter::ObservationsSent);
}
