//! All entries of a map, many with each system call: what waits is looked at ten times a second, and
//! in a flood it is a whole map.
//!
//! Minimum kernel: 5.6 (`BPF_MAP_LOOKUP_BATCH` of hash maps, `kernel/bpf/hashtab.c`); 5.13 for arrays
//! per CPU (`kernel/bpf/arraymap.c`).

use std::mem::zeroed;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::{io, ptr};

use aya::Pod;
use aya::maps::MapData;
use nix::errno::Errno;
use nix::libc;

/// `include/uapi/linux/bpf.h`.
const BPF_MAP_LOOKUP_BATCH: i64 = 24;
/// Entries of a call; a bucket must fit.
const ENTRIES: usize = 512;

/// The part of `union bpf_attr` that such calls read and write.
#[repr(C)]
struct Attributes {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

/// Hands every entry of a hash map to `visit`. What comes or goes meanwhile may be among them or
/// not.
pub(super) fn walk<K: Pod, V: Pod>(map: &MapData, mut visit: impl FnMut(K, V)) -> io::Result<()> {
    let mut keys: Vec<K> = blank();
    let mut values: Vec<V> = blank();
    let mut place = [0_u32; 2];
    let mut is_first = true;
    loop {
        let [from, to] = &mut place;
        let mut attributes = Attributes {
            in_batch: if is_first { 0 } else { address(from) },
            out_batch: address(to),
            keys: address(keys.as_mut_slice()),
            values: address(values.as_mut_slice()),
            count: u32::try_from(ENTRIES).unwrap_or(u32::MAX),
            map: u32::try_from(map.fd().as_fd().as_raw_fd()).unwrap_or(u32::MAX),
            element_flags: 0,
            flags: 0,
        };
        let result = look_up(&mut attributes);
        // The kernel says how many there are, also with the last.
        let is_last = match result {
            Ok(()) => false,
            Err(Errno::ENOENT) => true,
            Err(error) => return Err(error.into()),
        };
        let count = attributes.count as usize;
        for (key, value) in keys.iter().zip(&values).take(count) {
            visit(*key, *value);
        }
        if is_last || count == 0 {
            return Ok(());
        }
        place[0] = place[1];
        is_first = false;
    }
}

/// The values of an array per CPU, `N` of them, each summed over so many CPUs. An error also where the
/// kernel has no such call for arrays.
pub(super) fn sums<const N: usize>(map: &MapData, cpus: usize) -> io::Result<[u64; N]> {
    let mut keys = [0_u32; N];
    let mut values = vec![0_u64; N * cpus];
    let mut place = 0_u32;
    let mut attributes = Attributes {
        in_batch: 0,
        out_batch: address(&mut place),
        keys: address(keys.as_mut_slice()),
        values: address(values.as_mut_slice()),
        count: u32::try_from(N).unwrap_or(u32::MAX),
        map: u32::try_from(map.fd().as_fd().as_raw_fd()).unwrap_or(u32::MAX),
        element_flags: 0,
        flags: 0,
    };
    match look_up(&mut attributes) {
        Ok(()) | Err(Errno::ENOENT) if attributes.count as usize == N => {}
        Ok(()) | Err(Errno::ENOENT) => return Err(Errno::EINVAL.into()),
        Err(error) => return Err(error.into()),
    }
    let mut sums = [0; N];
    for (key, of_cpus) in keys.iter().zip(values.chunks_exact(cpus)) {
        if let Some(sum) = sums.get_mut(*key as usize) {
            *sum = of_cpus.iter().sum();
        }
    }
    Ok(sums)
}

/// Room for entries.
#[expect(unsafe_code, reason = "the kernel fills it")]
fn blank<T: Pod>() -> Vec<T> {
    // SAFETY: any bytes are a value (`Pod`).
    vec![unsafe { zeroed() }; ENTRIES]
}

fn address<T: ?Sized>(of: &mut T) -> u64 {
    ptr::from_mut(of).cast::<u8>().expose_provenance() as u64
}

#[expect(unsafe_code, reason = "bpf(2) has no other way in")]
fn look_up(attributes: &mut Attributes) -> Result<(), Errno> {
    // SAFETY: the attributes point to as many keys and values as they say, and to two words, which
    // the caller holds; any bytes are a key or a value (`Pod`).
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_MAP_LOOKUP_BATCH,
            ptr::from_mut(attributes),
            size_of::<Attributes>(),
        )
    };
    Errno::result(result).map(drop)
}
