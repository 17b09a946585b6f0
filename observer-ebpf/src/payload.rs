//! The first bytes that clients send, handed to userspace, where they are asked for.
//!
//! Off unless userspace says otherwise before it loads the object: then the kernel removes all of
//! this as unreachable. On, an opening of interest begins to be waited for ([`open`]). A segment of
//! an established connection costs a look into a table of ports ([`passes`]), and only one whose
//! client's port opened something seconds ago is looked for in the map. Its bytes are copied once,
//! by sequence number, until there are [`PAYLOAD_MAX`]; or until userspace has seen enough, and
//! takes the connection out.
//!
//! The table forgets by itself: an entry is the generation in which a port was last noted, and the
//! generation is that of the heartbeat. So nobody has to remove one, and no removal can meet an
//! insertion.

use aya_ebpf::{
    Global,
    bindings::{__sk_buff, BPF_F_RDONLY_PROG},
    helpers::generated::bpf_skb_load_bytes,
    macros::map,
    maps::{
        Array, LruHashMap, PerCpuArray, RingBuf,
        lpm_trie::{Key, LpmTrie},
    },
    programs::TcContext,
};
use observer_ebpf::{
    ArrivalKey, Counter, PAYLOAD_MAX, PORT_WORDS, SEGMENTS_MAX, SEGMENTS_SIZE, SIDE_OUT,
    SOURCES_MAX, Segment, SourceKey, WAITING_MAX, Waiting, WaitingKey,
};

use crate::{
    is_own,
    maps::{self, Scratch},
    packet::{self, Packet, Role, TCP},
    reader,
};

/// Whether anybody asks; set before the object is loaded.
#[unsafe(no_mangle)]
static PAYLOAD: Global<u8> = Global::new(0);

/// Whose connections are asked for; set by userspace.
#[map]
static SOURCES: LpmTrie<SourceKey, u8> = LpmTrie::with_max_entries(SOURCES_MAX, 0);

/// The TCP ports whose connections are asked for, a bit each; set by userspace.
#[map]
static TCP_PORTS: Array<u64> = Array::with_max_entries(PORT_WORDS, BPF_F_RDONLY_PROG);

#[map]
static WAITING: LruHashMap<WaitingKey, Waiting> = LruHashMap::with_max_entries(WAITING_MAX, 0);

/// For each port of a client, the generation in which it last opened a connection of interest.
#[map]
static RECENT: Array<[u8; 1 << 16]> = Array::with_max_entries(1, 0);

#[map]
static SEGMENTS: RingBuf = RingBuf::with_byte_size(SEGMENTS_SIZE, 0);

/// What one run of a program hands on.
#[map]
static SEGMENT: PerCpuArray<Whole> = PerCpuArray::with_max_entries(1, 0);

#[repr(C)]
struct Whole {
    header: Segment,
    bytes: [u8; PAYLOAD_MAX as usize],
}

/// A heartbeat's high bits: a generation is 4.3 s, so that a port is known for 4.3 s at least.
const GENERATION_SHIFT: u32 = 32;

/// Whether anything here is asked for.
#[inline(always)]
pub(crate) fn is_on() -> bool {
    PAYLOAD.load() != 0
}

/// Of a packet that opens a connection, at ingress, or at egress if this node sends it: its first
/// bytes are waited for from now on, if they are asked for. Whether they are.
///
/// A function of its own, as [`segment`], so that what is off has no place in what is on.
#[inline(never)]
pub(crate) fn open(packet: &Packet, opening: &ArrivalKey, side: u8, key: &mut WaitingKey) -> bool {
    wait(packet, opening, side, key).is_some()
}

#[inline(always)]
fn wait(packet: &Packet, opening: &ArrivalKey, side: u8, key: &mut WaitingKey) -> Option<()> {
    if packet.protocol != TCP || packet.role != Role::Opening {
        return None;
    }
    let original = &opening.identity.original;
    let door = original.destination_port;
    let word = TCP_PORTS.get(u32::from(door / 64))?;
    if word >> (door % 64) & 1 == 0 {
        return None;
    }
    let source = SourceKey {
        family: packet.family,
        address: original.source,
    };
    SOURCES.get(Key::new(u8::BITS + u128::BITS, source))?;
    point(key, packet, side);
    let is_repeated = WAITING.get_ptr(*key).is_some_and(|waiting| {
        // SAFETY: entries of a hash map stay where they are; of one that is let go meanwhile this
        // may be another's.
        unsafe { (*waiting).identity.sequence == opening.identity.sequence }
    });
    if !is_repeated {
        let waiting = Waiting {
            identity: opening.identity,
            next: 0,
            segments: 0,
        };
        maps::count(match WAITING.insert(*key, waiting, 0) {
            Ok(()) => Counter::WaitingWritten,
            Err(_) => Counter::WaitingLost,
        });
    }
    let (table, generation) = (RECENT.get_ptr_mut(0)?, maps::generation(GENERATION_SHIFT)?);
    // SAFETY: it lies in the table. Whoever else writes writes a byte, too.
    unsafe { *slot(table, packet.tuple.source_port) = generation };
    Some(())
}

/// Whether a segment's bytes are nobody's concern. `false` only says that [`segment`] must look.
#[inline(always)]
pub(crate) fn passes<const LINK: usize>(context: &TcContext) -> bool {
    let Some(port) = packet::source_port_of_data::<LINK>(context) else {
        return true;
    };
    let (Some(table), Some(generation)) =
        (RECENT.get_ptr_mut(0), maps::generation(GENERATION_SHIFT))
    else {
        return true;
    };
    // SAFETY: as in `open`.
    let noted = unsafe { *slot(table, port) };
    generation.wrapping_sub(noted) > 1
}

/// A port's place in the table.
#[inline(always)]
fn slot(table: *mut [u8; 1 << 16], port: u16) -> *mut u8 {
    let port = u32::from(port);
    // The compiler knows that a port is none too large. Verifiers before 5.11 forget that of one that
    // lay on the stack, and want to see it where the place is computed.
    // SAFETY: the place is a variable.
    let port = unsafe { core::ptr::read_volatile(&raw const port) } & u32::from(u16::MAX);
    // SAFETY: every port is an index of the table.
    unsafe { table.cast::<u8>().add(port as usize) }
}

/// Hands the bytes of a segment on, if its connection waits for them. Whether it does.
#[inline(never)]
pub(crate) fn segment<const LINK: usize>(skb: *mut __sk_buff, side: u8) -> bool {
    hand_on::<LINK>(&TcContext::new(skb), side).is_some()
}

#[inline(always)]
fn hand_on<const LINK: usize>(context: &TcContext, side: u8) -> Option<()> {
    // What another sends was looked at as it arrived.
    if side == SIDE_OUT && !is_own(context) {
        return None;
    }
    let (scratch, _) = maps::scratch()?;
    let Scratch {
        packet,
        waiting_key: key,
        ..
    } = scratch;
    let data = reader::data::<LINK>(context, packet)?;
    point(key, packet, side);
    let waiting = WAITING.get_ptr_mut(*key)?;
    // SAFETY: entries of a hash map stay where they are; of one that is let go meanwhile this may
    // be another's, of which too little is handed on then.
    let waiting = unsafe { &mut *waiting };
    // The sequence number of the opening packet counts as one (RFC 9293, 3.4).
    let offset = packet
        .sequence
        .wrapping_sub(waiting.identity.sequence)
        .wrapping_sub(1);
    if offset >= PAYLOAD_MAX {
        return None;
    }
    let room = PAYLOAD_MAX - offset;
    let length = if data.length < room {
        data.length
    } else {
        room
    };
    let end = offset + length;
    // Sent again, or the same on the next device of a stack.
    if end <= waiting.next {
        return None;
    }
    let whole = SEGMENT.get_ptr_mut(0)?;
    // SAFETY: the slot is this CPU's own, as in `maps::scratch`.
    unsafe {
        (*whole).header.key = *key;
        (*whole).header.identity = waiting.identity;
    }
    if send(context.skb.skb, whole, offset, data.start, length) && offset <= waiting.next {
        waiting.next = end;
    }
    waiting.segments += 1;
    if waiting.next >= PAYLOAD_MAX || waiting.segments >= SEGMENTS_MAX {
        // Userspace may have been faster.
        let _gone = WAITING.remove(*key);
    }
    Some(())
}

/// Copies `length` bytes at `start` to userspace, behind what `whole` says of their connection.
///
/// A function of its own, so that `length` stays in a register from its test to its uses: until 6.8
/// the verifier forgets what was found out of a copy of what lies on the stack.
#[inline(never)]
fn send(skb: *mut __sk_buff, whole: *mut Whole, offset: u32, start: u32, length: u32) -> bool {
    // The compiler knows what it may be, and would leave the test out that the verifier asks for.
    // Less one, because older verifiers do not learn from a comparison with zero that it is more.
    let last = length.wrapping_sub(1);
    // SAFETY: the place is a variable.
    let last = unsafe { core::ptr::read_volatile(&raw const last) };
    if last >= PAYLOAD_MAX {
        return false;
    }
    let length = last + 1;
    // SAFETY: `whole` is this CPU's own slot, as in `maps::scratch`; the helper writes no more than
    // `length` bytes, which `bytes` has room for.
    let loaded = unsafe {
        (*whole).header.offset = offset;
        (*whole).header.time_ns = maps::now_ns();
        (*whole).header.length = length;
        (*whole).header.padding = 0;
        bpf_skb_load_bytes(
            skb.cast_const().cast(),
            start,
            (&raw mut (*whole).bytes).cast(),
            length,
        )
    };
    if loaded != 0 {
        maps::count(Counter::Truncated);
        return false;
    }
    let size = size_of::<Segment>() + length as usize;
    // SAFETY: as above; header and bytes lie one behind the other without a gap.
    let bytes = unsafe { core::slice::from_raw_parts(whole.cast::<u8>(), size) };
    let is_sent = SEGMENTS.output::<[u8]>(bytes, 0).is_ok();
    maps::count(if is_sent {
        Counter::SegmentsSent
    } else {
        Counter::SegmentsLost
    });
    is_sent
}

#[inline(always)]
fn point(key: &mut WaitingKey, packet: &Packet, side: u8) {
    key.tuple = packet.tuple;
    key.family = packet.family;
    key.side = side;
    key.padding = [0; 2];
}
