//! What is not followed, because there is too much: a flood of openings, or a ring buffer that
//! nobody reads.
//!
//! Userspace sets of how many openings one is followed ([`Sampling`]); the programs choose it by the
//! initial sequence number, which NAT does not change and every packet of a handshake tells, or by
//! the original tuple of a UDP flow. Which is told by nobody outside: the number is mixed with one
//! that is new in every run. So a flooder cannot make its packets those that are followed, and a
//! repeated opening packet is followed if its first was.
//!
//! Nearer than userspace is the ring buffer itself. Openings that arrive when it is nearly full are
//! refused there and then ([`admits`]), before anything is kept of them.

use aya_ebpf::{Global, bindings::BPF_F_RDONLY_PROG, macros::map, maps::Array};
use observer_ebpf::{
    Counter, OBSERVATIONS_SIZE, REFUSED_NS, Refused, Sampling, Tuple, openings_mark,
};

use crate::{maps, packet::Role};

/// Unknown to all others; set before the object is loaded.
#[unsafe(no_mangle)]
static SECRET: Global<u32> = Global::new(0);

/// [`openings_mark`] of the ring buffer; set before the object is loaded.
#[unsafe(no_mangle)]
static OPENINGS_MARK: Global<u64> = Global::new(openings_mark(OBSERVATIONS_SIZE));

/// A [`Sampling`]; set by userspace.
#[map]
static SAMPLING: Array<u64> = Array::with_max_entries(1, BPF_F_RDONLY_PROG);

/// Of all CPUs: who refuses may not be who looks.
#[map]
static REFUSED: Array<Refused> = Array::with_max_entries(1, 0);

/// What holds now.
#[inline(always)]
pub(crate) fn sampling() -> Sampling {
    SAMPLING
        .get(0)
        .map_or_else(Sampling::default, |word| Sampling::from_word(*word))
}

/// Whether the connection of a number is among those that are followed.
#[inline(always)]
pub(crate) fn is_followed(number: u32, shift: u8) -> bool {
    shift == 0 || mixed(number ^ SECRET.load()) >> ((32 - shift) & 31) == 0
}

/// A number for both directions of a UDP flow.
#[inline(always)]
pub(crate) fn number(original: &Tuple) -> u32 {
    end(&original.source, original.source_port)
        .wrapping_add(end(&original.destination, original.destination_port))
}

#[inline(always)]
fn end(address: &[u8; 16], port: u16) -> u32 {
    let mut number = u32::from(port) ^ SECRET.load();
    for word in address.as_chunks::<4>().0 {
        number = mixed(number ^ u32::from_ne_bytes(*word));
    }
    number
}

/// Every bit of a number in every other: the last step of `MurmurHash3` (Austin Appleby, public
/// domain).
#[inline(always)]
const fn mixed(mut number: u32) -> u32 {
    number ^= number >> 16;
    number = number.wrapping_mul(0x85eb_ca6b);
    number ^= number >> 13;
    number = number.wrapping_mul(0xc2b2_ae35);
    number ^ number >> 16
}

/// Whether there is room for what arrives. What is refused is counted.
#[inline(always)]
pub(crate) fn admits(role: Role, now_ns: u64) -> bool {
    let Some(last) = REFUSED.get_ptr_mut(0) else {
        return true;
    };
    // SAFETY: the element stays where it is; other CPUs write words of the same meaning.
    let last = unsafe { &mut *last };
    let is_opening = role == Role::Opening;
    // Answers have what is left, as long as there is anything that they may answer.
    if (is_opening || refusals_of(last, now_ns) == Refusals::All)
        && maps::used() > OPENINGS_MARK.load()
    {
        if !is_recent(last.refused_ns, now_ns) {
            // What was noted until now is still on its way.
            write(&mut last.noted_ns, now_ns);
        }
        write(&mut last.refused_ns, now_ns);
        maps::count(if is_opening {
            Counter::OpeningsLost
        } else {
            Counter::AnswersLost
        });
        return false;
    }
    if is_recent(last.refused_ns, now_ns) {
        write(&mut last.noted_ns, now_ns);
    }
    true
}

/// In the order of the program: other CPUs read both.
#[inline(always)]
fn write(place: &mut u64, value: u64) {
    // SAFETY: it is a reference.
    unsafe { core::ptr::write_volatile(place, value) }
}

/// What may have been refused as it arrived.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusals {
    /// Nothing.
    None,
    /// What has no arrival.
    Some,
    /// Everything.
    All,
}

/// Of what leaves now, which may have been refused.
#[inline(always)]
pub(crate) fn refusals(now_ns: u64) -> Refusals {
    REFUSED
        .get(0)
        .map_or(Refusals::None, |last| refusals_of(last, now_ns))
}

#[inline(always)]
const fn refusals_of(last: &Refused, now_ns: u64) -> Refusals {
    if !is_recent(last.refused_ns, now_ns) {
        Refusals::None
    } else if is_recent(last.noted_ns, now_ns) {
        Refusals::Some
    } else {
        Refusals::All
    }
}

#[inline(always)]
const fn is_recent(then_ns: u64, now_ns: u64) -> bool {
    now_ns.saturating_sub(then_ns) < REFUSED_NS
}
