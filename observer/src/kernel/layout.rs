//! Where this kernel keeps what the egress program reads, found in its BTF.
//!
//! The kernel moves the fields of `sk_buff` and `nf_conn` from release to release and from
//! configuration to configuration; its BTF tells where they are. The connection tuple itself has
//! not changed since it was written, so it is read whole, and only checked here.

use std::fs;
use std::io;
use std::mem::{offset_of, size_of};
use std::path::{Path, PathBuf};

use observer_ebpf::{KernelLayout, NfConntrackTuple};

use super::btf::{Btf, BtfError, Kind, TypeId};

#[cfg(test)]
mod tests;

/// Where the kernel shows its BTF, since Linux 5.4 (`CONFIG_DEBUG_INFO_BTF`).
const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// Why conntrack entries cannot be read. One line each, which says what to do.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// The kernel's BTF is missing, or may not be read.
    #[error(
        "{}: {reason}; the kernel must be built with CONFIG_DEBUG_INFO_BTF=y, and a container \
         needs the host's /sys/kernel/btf",
        path.display()
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: io::Error,
    },
    /// The kernel's BTF makes no sense.
    #[error(
        "the kernel's BTF {0}; `bpftool btf dump file {VMLINUX}` shows whether others can read it"
    )]
    Btf(#[from] BtfError),
    /// There is no connection tracking in it.
    #[error(
        "this kernel is built without connection tracking (CONFIG_NF_CONNTRACK): its struct \
         sk_buff has no field _nfct; verdicts go by the packets alone"
    )]
    NoConntrack,
    /// Connection tracking is in a module.
    #[error(
        "the kernel's BTF has no struct nf_conn: connection tracking is a module here, and its \
         types, in /sys/kernel/btf/nf_conntrack, are not read yet; verdicts go by the packets alone"
    )]
    ConntrackModule,
    /// A struct is not in it.
    #[error("the kernel's BTF has no struct {0}; {REPORT}")]
    NoStruct(&'static str),
    /// A struct does not have a field, or has it at no byte.
    #[error(
        "this kernel's struct {in_struct} has no field {field} that starts at a byte; {REPORT}"
    )]
    NoField {
        /// The struct.
        in_struct: &'static str,
        /// The field, as a path.
        field: &'static str,
    },
    /// A struct is laid out in another way than ours.
    #[error(
        "this kernel's struct {in_struct}: {what} of {field} is {found}, not {expected}; {REPORT}"
    )]
    Mismatch {
        /// The struct.
        in_struct: &'static str,
        /// The field, as a path.
        field: &'static str,
        /// `offset`, `size` or `length`.
        what: &'static str,
        /// What it must be, in bytes or elements.
        expected: u64,
        /// What it is.
        found: u64,
    },
}

/// What to do about a kernel that is unlike all known ones.
const REPORT: &str = "please report it, with the output of `uname -a`";

/// The struct that [`NfConntrackTuple`] mirrors.
const TUPLE: &str = "nf_conntrack_tuple";

/// Its fields, where they are in [`NfConntrackTuple`], and their size in bytes.
const TUPLE_FIELDS: [(&str, usize, usize); 7] = [
    ("src.u3", offset_of!(NfConntrackTuple, source), 16),
    ("src.u", offset_of!(NfConntrackTuple, source_port), 2),
    ("src.l3num", offset_of!(NfConntrackTuple, l3num), 2),
    ("dst.u3", offset_of!(NfConntrackTuple, destination), 16),
    ("dst.u", offset_of!(NfConntrackTuple, destination_port), 2),
    ("dst.protonum", offset_of!(NfConntrackTuple, protonum), 1),
    ("dst.dir", offset_of!(NfConntrackTuple, dir), 1),
];

/// A field of a struct.
struct Field {
    in_struct: &'static str,
    path: &'static str,
    type_id: TypeId,
    /// Bytes from the start of the struct.
    offset: u64,
}

/// Finds the layout of the running kernel.
pub fn from_kernel() -> Result<KernelLayout, LayoutError> {
    from_file(Path::new(VMLINUX))
}

/// Finds the layout that a file with BTF tells.
fn from_file(path: &Path) -> Result<KernelLayout, LayoutError> {
    let bytes = fs::read(path).map_err(|reason| LayoutError::Read {
        path: path.to_owned(),
        reason,
    })?;
    resolve(&Btf::parse(&bytes)?)
}

/// Finds the layout that `btf` tells, and checks that conntrack's tuple is ours.
pub fn resolve(btf: &Btf<'_>) -> Result<KernelLayout, LayoutError> {
    let find = |name| btf.find(Kind::Struct, name);
    let sk_buff = find("sk_buff").ok_or(LayoutError::NoStruct("sk_buff"))?;
    if btf.member(sk_buff, "_nfct")?.is_none() {
        return Err(LayoutError::NoConntrack);
    }
    let nfct = Field::find(btf, sk_buff, "sk_buff", "_nfct")?;
    nfct.check("size", size_of::<u64>(), btf.size(nfct.type_id)?)?;

    let nf_conn = find("nf_conn").ok_or(LayoutError::ConntrackModule)?;
    let tuplehash = Field::find(btf, nf_conn, "nf_conn", "tuplehash")?;
    let hashes = btf.array(tuplehash.type_id)?;
    tuplehash.check("length", 2, hashes.len.into())?;
    let stride = btf.size(hashes.element)?;
    let tuple = Field::find(btf, hashes.element, "nf_conntrack_tuple_hash", "tuple")?;
    check_tuple(btf, tuple.type_id)?;

    let original = tuplehash.offset.saturating_add(tuple.offset);
    let reply = original.saturating_add(stride);
    let offset = |field: &Field, offset: u64| {
        u32::try_from(offset)
            .ok()
            .ok_or_else(|| field.mismatch("offset", u32::MAX.into(), offset))
    };
    Ok(KernelLayout {
        nfct: offset(&nfct, nfct.offset)?,
        original: offset(&tuplehash, original)?,
        reply: offset(&tuplehash, reply)?,
        known: 1,
    })
}

/// Checks that the kernel's `nf_conntrack_tuple` is [`NfConntrackTuple`], byte for byte.
fn check_tuple(btf: &Btf<'_>, tuple: TypeId) -> Result<(), LayoutError> {
    let whole = Field {
        in_struct: TUPLE,
        path: "the whole",
        type_id: tuple,
        offset: 0,
    };
    whole.check("size", size_of::<NfConntrackTuple>(), btf.size(tuple)?)?;
    for (path, offset, size) in TUPLE_FIELDS {
        let field = Field::find(btf, tuple, TUPLE, path)?;
        field.check("offset", offset, field.offset)?;
        field.check("size", size, btf.size(field.type_id)?)?;
    }
    Ok(())
}

impl Field {
    /// The field at a path (`src.u3`) inside the struct `id`, which is called `in_struct`.
    fn find(
        btf: &Btf<'_>,
        id: TypeId,
        in_struct: &'static str,
        path: &'static str,
    ) -> Result<Self, LayoutError> {
        let missing = || LayoutError::NoField {
            in_struct,
            field: path,
        };
        let mut type_id = id;
        let mut bits = 0_u64;
        for name in path.split('.') {
            let member = btf.member(type_id, name)?.ok_or_else(missing)?;
            if member.bitfield_size != 0 {
                return Err(missing());
            }
            bits = bits.saturating_add(member.bit_offset);
            type_id = member.type_id;
        }
        if !bits.is_multiple_of(8) {
            return Err(missing());
        }
        Ok(Self {
            in_struct,
            path,
            type_id,
            offset: bits / 8,
        })
    }

    fn check(&self, what: &'static str, expected: usize, found: u64) -> Result<(), LayoutError> {
        let expected = u64::try_from(expected).unwrap_or(u64::MAX);
        if found == expected {
            Ok(())
        } else {
            Err(self.mismatch(what, expected, found))
        }
    }

    fn mismatch(&self, what: &'static str, expected: u64, found: u64) -> LayoutError {
        let Self {
            in_struct,
            path: field,
            ..
        } = *self;
        LayoutError::Mismatch {
            in_struct,
            field,
            what,
            expected,
            found,
        }
    }
}
