//! Observations through an observer's own ring buffer, as if its programs had made them.
//!
//! A program of a few instructions, loaded beside the observer's and never attached, copies what it
//! is run on (`BPF_PROG_TEST_RUN`) into the map `OBSERVATIONS` of another process. It numbers the
//! connections and tells their times, so that one call makes many.

use std::ffi::c_long;
use std::io;
use std::mem::offset_of;
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::path::Path;
use std::{fs, ptr};

use anyhow::{Context as _, bail};
use aya::maps::{MapData, loaded_maps};
use nix::libc;
use observer_ebpf::{Arrival, Identity, Observation, Tuple};

use crate::wire::{self, Answered, connection};

/// In front of the observations: a link header, whose type is none, and padding.
const HEAD: usize = 16;
/// The failures' place in it.
const FAILED: usize = 4;
const FORWARD: usize = HEAD;
const REPLY: usize = HEAD + wire::BYTES;
const FRAME: usize = REPLY + wire::BYTES;

// `include/uapi/linux/bpf.h`.
const BPF_PROG_LOAD: c_long = 5;
const BPF_PROG_TEST_RUN: c_long = 10;
const BPF_PROG_TYPE_SCHED_CLS: u32 = 3;
const BPF_FUNC_KTIME_GET_NS: i32 = 5;
const BPF_FUNC_RINGBUF_OUTPUT: i32 = 130;
const BPF_PSEUDO_MAP_FD: u8 = 1;

/// `struct bpf_insn`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// The beginning of `union bpf_attr` for `BPF_PROG_LOAD`.
#[repr(C)]
struct LoadAttributes {
    program_type: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

/// That for `BPF_PROG_TEST_RUN`.
#[repr(C)]
struct RunAttributes {
    program: u32,
    value: u32,
    size_in: u32,
    size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
}

/// The program, and whose ring buffer it fills.
#[derive(Debug)]
pub(crate) struct Feed {
    program: OwnedFd,
    _ring: MapData,
    next: u32,
    frame: [u8; FRAME],
}

impl Feed {
    /// Into the ring buffer of this process; of connections to Services of a bench's cluster.
    pub(crate) fn into(process: u32, services: usize, answered: Answered) -> anyhow::Result<Self> {
        let ring = ring_of(process)?;
        let program = load(ring.fd().as_fd().as_raw_fd(), answered)?;
        let mut frame = [0; FRAME];
        // A local one, whose addresses are kept.
        let one = connection(1, services, Answered::Yes);
        for (place, bytes) in [FORWARD, REPLY].into_iter().zip(one) {
            frame[place..place + wire::BYTES].copy_from_slice(&bytes);
        }
        Ok(Self {
            program,
            _ring: ring,
            next: 1,
            frame,
        })
    }

    /// Makes so many connections; how many observations found the ring buffer full.
    pub(crate) fn connections(&mut self, number: u32) -> anyhow::Result<u32> {
        if number == 0 {
            return Ok(0);
        }
        self.frame[FAILED..FAILED + 4].fill(0);
        for place in [FORWARD, REPLY] {
            let sequence =
                place + offset_of!(Observation, identity) + offset_of!(Identity, sequence);
            self.frame[sequence..sequence + 4].copy_from_slice(&self.next.to_ne_bytes());
        }
        let mut out = [0; FRAME];
        let mut attributes = RunAttributes {
            program: u32::try_from(self.program.as_raw_fd())?,
            value: 0,
            size_in: u32::try_from(FRAME)?,
            size_out: u32::try_from(FRAME)?,
            data_in: address(&self.frame),
            data_out: ptr::from_mut(&mut out).addr() as u64,
            repeat: number,
            duration: 0,
        };
        bpf(BPF_PROG_TEST_RUN, &mut attributes).context("the program does not run")?;
        if attributes.value != 0 {
            bail!("the program did not take its frame");
        }
        self.next = self.next.wrapping_add(number);
        let failed = out[FAILED..FAILED + 4].try_into()?;
        Ok(u32::from_ne_bytes(failed))
    }
}

/// The map `OBSERVATIONS` that a process holds (proc(5), `/proc/pid/fdinfo`).
fn ring_of(process: u32) -> anyhow::Result<MapData> {
    let mut held = Vec::new();
    for entry in fs::read_dir(Path::new("/proc").join(process.to_string()).join("fdinfo"))? {
        // One that is closed meanwhile is none.
        let text = fs::read_to_string(entry?.path()).unwrap_or_default();
        let id = text.lines().find_map(|line| line.strip_prefix("map_id:"));
        held.extend(id.and_then(|id| id.trim().parse::<u32>().ok()));
    }
    for map in loaded_maps() {
        // Other processes' come and go.
        let Ok(map) = map else { continue };
        if held.contains(&map.id()) && map.name_as_str() == Some("OBSERVATIONS") {
            return MapData::from_id(map.id()).context("the ring buffer cannot be had");
        }
    }
    bail!("the process {process} has no ring buffer of observations")
}

fn load(ring: RawFd, answered: Answered) -> anyhow::Result<OwnedFd> {
    let program = program(ring, answered)?;
    let mut attributes = LoadAttributes {
        program_type: BPF_PROG_TYPE_SCHED_CLS,
        count: u32::try_from(program.len())?,
        instructions: address(&program[0]),
        license: address(c"GPL".to_bytes_with_nul()),
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
    };
    let program = bpf(BPF_PROG_LOAD, &mut attributes).context("the program does not load")?;
    let program = RawFd::try_from(program)?;
    #[expect(unsafe_code, reason = "the kernel gave a number")]
    // SAFETY: just made, and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(program) })
}

fn address<T: ?Sized>(of: &T) -> u64 {
    ptr::from_ref(of).cast::<u8>().addr() as u64
}

#[expect(unsafe_code, reason = "bpf(2) has no other way in")]
fn bpf<T>(command: c_long, attributes: &mut T) -> io::Result<c_long> {
    // SAFETY: all of what the command reads is in the attributes, which live as long as the call;
    // what they point to belongs to the callers, who hold it until then.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            ptr::from_mut(attributes),
            size_of::<T>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

/// Registers 1 to 5 are a helper's arguments; 6 and on outlast a call.
fn program(ring: RawFd, answered: Answered) -> anyhow::Result<Vec<Instruction>> {
    let at = |place: usize| i16::try_from(place);
    let sequence = offset_of!(Observation, identity) + offset_of!(Identity, sequence);
    let port = offset_of!(Observation, identity)
        + offset_of!(Identity, original)
        + offset_of!(Tuple, source_port);
    let seen = offset_of!(Observation, reply) + offset_of!(Tuple, destination_port);
    let left = offset_of!(Observation, time_ns);
    let arrived = offset_of!(Observation, arrival) + offset_of!(Arrival, time_ns);
    let bytes = i32::try_from(wire::BYTES)?;
    let mut code = vec![
        // r7 = skb->data, r8 = skb->data_end
        load_word(7, 1, 76),
        load_word(8, 1, 80),
        // The frame is whole, or nothing is done.
        copy(2, 7),
        add(2, i32::try_from(FRAME)?),
        set(0, 1),
        // if r2 > r8 goto exit; patched below
        jump_if_above(2, 8, 0),
        // The next number.
        load_word(6, 7, at(FORWARD + sequence)?),
        add(6, 1),
        store_word(7, 6, at(FORWARD + sequence)?),
        store_word(7, 6, at(REPLY + sequence)?),
    ];
    for place in [FORWARD, REPLY] {
        code.push(store_half(7, 6, at(place + port)?));
        code.push(store_half(7, 6, at(place + seen)?));
    }
    code.push(call(BPF_FUNC_KTIME_GET_NS));
    for (place, step) in [
        (FORWARD + arrived, 9_000),
        (FORWARD + left, 40_000),
        (REPLY + arrived, 10_000),
        (REPLY + left, 0),
    ] {
        code.push(store_double(7, 0, at(place)?));
        code.push(add(0, step));
    }
    let told: &[usize] = match answered {
        Answered::Yes => &[FORWARD, REPLY],
        Answered::No => &[FORWARD],
    };
    for &place in told {
        // This helper takes nothing from a packet (`bpf_ringbuf_output_proto`), but from the stack.
        for double in (0..wire::BYTES).step_by(8) {
            code.push(load_double(1, 7, at(place + double)?));
            code.push(store_double(STACK, 1, at(double)? - at(wire::BYTES)?));
        }
        code.extend(map(1, ring));
        code.push(copy(2, STACK));
        code.push(add(2, -bytes));
        code.push(set(3, bytes));
        code.push(set(4, 0));
        code.push(call(BPF_FUNC_RINGBUF_OUTPUT));
        // One more that failed, unless it gave zero.
        code.push(jump_if_zero(0, 3));
        code.push(load_word(1, 7, at(FAILED)?));
        code.push(add(1, 1));
        code.push(store_word(7, 1, at(FAILED)?));
    }
    code.push(set(0, 0));
    code.push(EXIT);
    let exit = i16::try_from(code.len() - 1)?;
    code[5].offset = exit - 6;
    Ok(code)
}

/// The register that points at the stack's end.
const STACK: u8 = 10;
const EXIT: Instruction = instruction(0x95, 0, 0, 0, 0);

const fn instruction(
    code: u8,
    destination: u8,
    source: u8,
    offset: i16,
    immediate: i32,
) -> Instruction {
    Instruction {
        code,
        registers: source << 4 | destination,
        offset,
        immediate,
    }
}

const fn set(register: u8, value: i32) -> Instruction {
    instruction(0xb7, register, 0, 0, value)
}

const fn copy(to: u8, from: u8) -> Instruction {
    instruction(0xbf, to, from, 0, 0)
}

const fn add(register: u8, value: i32) -> Instruction {
    instruction(0x07, register, 0, 0, value)
}

const fn load_word(to: u8, base: u8, offset: i16) -> Instruction {
    instruction(0x61, to, base, offset, 0)
}

const fn load_double(to: u8, base: u8, offset: i16) -> Instruction {
    instruction(0x79, to, base, offset, 0)
}

const fn store_word(base: u8, from: u8, offset: i16) -> Instruction {
    instruction(0x63, base, from, offset, 0)
}

const fn store_half(base: u8, from: u8, offset: i16) -> Instruction {
    instruction(0x6b, base, from, offset, 0)
}

const fn store_double(base: u8, from: u8, offset: i16) -> Instruction {
    instruction(0x7b, base, from, offset, 0)
}

const fn jump_if_above(left: u8, right: u8, over: i16) -> Instruction {
    instruction(0x2d, left, right, over, 0)
}

const fn jump_if_zero(register: u8, over: i16) -> Instruction {
    instruction(0x15, register, 0, over, 0)
}

const fn call(helper: i32) -> Instruction {
    instruction(0x85, 0, 0, 0, helper)
}

const fn map(register: u8, descriptor: RawFd) -> [Instruction; 2] {
    [
        instruction(0x18, register, BPF_PSEUDO_MAP_FD, 0, descriptor),
        instruction(0, 0, 0, 0, 0),
    ]
}
