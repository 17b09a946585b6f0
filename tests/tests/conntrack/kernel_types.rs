//! The running kernel's own types, as if its connection tracking were a module.

use std::{fs, path::Path};

const HEADER: usize = 24;
/// `struct btf_type`, without what follows it.
const TYPE: usize = 12;
// BTF_KIND_*, include/uapi/linux/btf.h
const STRUCT: u32 = 4;

/// The types of the kernel without `struct nf_conn`, and those of a module with it: as they are
/// where it is a module, else made from the kernel's.
pub(crate) fn apart(directory: &Path) -> [Vec<u8>; 2] {
    let mut kernel = fs::read(directory.join("vmlinux")).expect("the kernel's types");
    let Some(place) = find(&kernel, "nf_conn") else {
        let module = fs::read(directory.join("nf_conntrack"));
        return [kernel, module.expect("the lab's rules have loaded it")];
    };
    let end = place + TYPE + trailing(word(&kernel, place + 4));
    let module = kernel[place..end].to_vec();
    // Without a name it is found no longer.
    kernel[place..place + 4].fill(0);
    let mut split = kernel[..HEADER].to_vec();
    // The header's length; where the types are and how long; the same of the strings: none.
    let len = u32::try_from(module.len()).expect("short");
    for (at, value) in [(4, 24), (8, 0), (12, len), (16, len), (20, 0)] {
        split[at..at + 4].copy_from_slice(&u32::to_le_bytes(value));
    }
    [kernel, [split, module].concat()]
}

/// Where the struct of this name starts.
fn find(btf: &[u8], name: &str) -> Option<usize> {
    let [header, types, types_len, strings] =
        [4, 8, 12, 16].map(|at| usize::try_from(word(btf, at)).expect("64 bits"));
    let end = header + types + types_len;
    let mut at = header + types;
    while at < end {
        let info = word(btf, at + 4);
        let start = header + strings + usize::try_from(word(btf, at)).expect("64 bits");
        if kind(info) == STRUCT && btf[start..].starts_with(format!("{name}\0").as_bytes()) {
            return Some(at);
        }
        at += TYPE + trailing(info);
    }
    None
}

fn kind(info: u32) -> u32 {
    info >> 24 & 0x1f
}

/// How many bytes follow a type.
fn trailing(info: u32) -> usize {
    let len = usize::try_from(info & 0xffff).expect("64 bits");
    match kind(info) {
        // An integer, a variable, a tag of a declaration.
        1 | 14 | 17 => 4,
        // An array.
        3 => 12,
        // A struct, a union, a section, a wide enumeration.
        4 | 5 | 15 | 19 => 12 * len,
        // An enumeration, a function's parameters.
        6 | 13 => 8 * len,
        _ => 0,
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    let word = bytes[at..at + 4].try_into().expect("four bytes");
    u32::from_le_bytes(word)
}
