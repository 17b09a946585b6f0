//! Where this kernel keeps what the egress program reads, found in its BTF.
//!
//! The kernel moves the fields of `sk_buff` and `nf_conn` from release to release and from
//! configuration to configuration; its BTF tells where they are. The connection tuple itself has
//! not changed since it was written, so it is read whole, and only checked here.
//!
//! Where connection tracking is a module, its types are with the kernel's own if anything built in
//! needed them (Debian), else with the module, and only while that is loaded. kube-proxy's first
//! rule loads it, perhaps after us: so a [`Resolver`] can be asked again.

use std::fs;
use std::io;
use std::mem::{offset_of, size_of};
use std::path::PathBuf;

use observer_ebpf::{KernelLayout, NO_ZONES, NfConntrackTuple, NfConntrackZone};

use super::btf::{Btf, BtfError, Kind, TypeId};

#[cfg(test)]
mod tests;

/// Where the kernel shows itself.
pub const SYSFS: &str = "/sys";
/// Its BTF, since Linux 5.4 (`CONFIG_DEBUG_INFO_BTF`).
pub(super) const VMLINUX: &str = "kernel/btf/vmlinux";
/// The module's, since Linux 5.11 (`CONFIG_DEBUG_INFO_BTF_MODULES`).
const MODULE: &str = "kernel/btf/nf_conntrack";
/// There while the module is loaded, after [`MODULE`] has come; and where it is built in, for it
/// has parameters.
const LOADED: &str = "module/nf_conntrack";

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
    /// The kernel's BTF, or the module's on top of it, cannot be read.
    #[error(
        "{}: {reason}; `bpftool btf dump file {}` shows whether others can read it",
        path.display(),
        path.display()
    )]
    Parse {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: BtfError,
    },
    /// Types in it make no sense.
    #[error(
        "the kernel's BTF {0}; `bpftool btf dump file {SYSFS}/{VMLINUX}` shows whether others can \
         read it"
    )]
    Btf(#[from] BtfError),
    /// There is no connection tracking in it.
    #[error(
        "this kernel is built without connection tracking (CONFIG_NF_CONNTRACK): its struct \
         sk_buff has no field _nfct"
    )]
    NoConntrack,
    /// Connection tracking is in a module that is not loaded: there is nothing to read yet.
    #[error("this kernel's connection tracking is a module, nf_conntrack, and not loaded")]
    NotLoaded,
    /// The module is loaded, and its types are not shown.
    #[error(
        "this kernel's connection tracking is a module, nf_conntrack, and does not show its types \
         at {SYSFS}/{MODULE}; the kernel must be Linux 5.11 or later, built with \
         CONFIG_DEBUG_INFO_BTF_MODULES=y"
    )]
    NotShown,
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

const SK_BUFF: &str = "sk_buff";
const NF_CONN: &str = "nf_conn";

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

impl LayoutError {
    /// Whether nothing is rewritten on this kernel while it says so; of any other, a rewrite that
    /// cannot be followed would be told as none.
    pub const fn is_harmless(&self) -> bool {
        matches!(self, Self::NoConntrack | Self::NotLoaded)
    }
}

/// The struct that [`NfConntrackZone`] mirrors, and its fields as above.
const ZONE: &str = "nf_conntrack_zone";
const ZONE_FIELDS: [(&str, usize, usize); 2] = [
    ("id", offset_of!(NfConntrackZone, id), 2),
    ("dir", offset_of!(NfConntrackZone, dir), 1),
];

/// A field of a struct.
struct Field {
    in_struct: &'static str,
    path: &'static str,
    type_id: TypeId,
    /// Bytes from the start of the struct.
    offset: u64,
}

/// Finds the layout of a kernel where it shows itself, now or later.
#[derive(Clone, Debug)]
pub struct Resolver {
    sysfs: PathBuf,
}

impl Resolver {
    /// `sysfs`: [`SYSFS`], or where else the kernel's own is mounted.
    pub const fn new(sysfs: PathBuf) -> Self {
        Self { sysfs }
    }

    /// Reads what there is: some megabytes, so after [`LayoutError::NotLoaded`] ask
    /// [`Resolver::is_loaded`] first.
    pub fn resolve(&self) -> Result<KernelLayout, LayoutError> {
        let kernel = self.read(VMLINUX)?;
        let kernel = Btf::parse(&kernel).map_err(|reason| self.wrong(VMLINUX, reason))?;
        if kernel.find(Kind::Struct, NF_CONN).is_some() {
            return resolve(&kernel);
        }
        match self.read(MODULE) {
            Ok(module) => {
                let module = Btf::parse_split(&kernel, &module)
                    .map_err(|reason| self.wrong(MODULE, reason))?;
                resolve(&module)
            }
            Err(LayoutError::Read { reason, .. }) if reason.kind() == io::ErrorKind::NotFound => {
                // The one question that the kernel itself answers better than its modules.
                check_nfct(&kernel)?;
                Err(if self.is_loaded() {
                    LayoutError::NotShown
                } else {
                    LayoutError::NotLoaded
                })
            }
            Err(error) => Err(error),
        }
    }

    /// Whether connection tracking is there: built in, or its module loaded. While it is not,
    /// there is no entry, and whoever asks for one over netlink loads the module.
    pub fn is_loaded(&self) -> bool {
        self.sysfs.join(LOADED).exists()
    }

    fn read(&self, file: &str) -> Result<Vec<u8>, LayoutError> {
        let path = self.sysfs.join(file);
        fs::read(&path).map_err(|reason| LayoutError::Read { path, reason })
    }

    fn wrong(&self, file: &str, reason: BtfError) -> LayoutError {
        let path = self.sysfs.join(file);
        LayoutError::Parse { path, reason }
    }
}

/// Finds the layout that `btf` tells, and checks that conntrack's tuple and zone are ours.
pub fn resolve(btf: &Btf<'_>) -> Result<KernelLayout, LayoutError> {
    let nfct = check_nfct(btf)?;
    let nf_conn = btf
        .find(Kind::Struct, NF_CONN)
        .ok_or(LayoutError::NoStruct(NF_CONN))?;
    let tuplehash = Field::find(btf, nf_conn, NF_CONN, "tuplehash")?;
    let hashes = btf.array(tuplehash.type_id)?;
    tuplehash.check("length", 2, hashes.len.into())?;
    let stride = btf.size(hashes.element)?;
    let tuple = Field::find(btf, hashes.element, "nf_conntrack_tuple_hash", "tuple")?;
    check_whole(
        btf,
        tuple.type_id,
        TUPLE,
        size_of::<NfConntrackTuple>(),
        &TUPLE_FIELDS,
    )?;

    let original = tuplehash.offset.saturating_add(tuple.offset);
    let reply = original.saturating_add(stride);
    Ok(KernelLayout {
        nfct: nfct.at(nfct.offset)?,
        original: tuplehash.at(original)?,
        reply: tuplehash.at(reply)?,
        zone: zone(btf, nf_conn)?,
    })
}

/// Finds `sk_buff._nfct`.
fn check_nfct(btf: &Btf<'_>) -> Result<Field, LayoutError> {
    let sk_buff = btf
        .find(Kind::Struct, SK_BUFF)
        .ok_or(LayoutError::NoStruct(SK_BUFF))?;
    if btf.member(sk_buff, "_nfct")?.is_none() {
        return Err(LayoutError::NoConntrack);
    }
    let nfct = Field::find(btf, sk_buff, SK_BUFF, "_nfct")?;
    nfct.check("size", size_of::<u64>(), btf.size(nfct.type_id)?)?;
    Ok(nfct)
}

/// Finds `nf_conn.zone`, where the kernel has one.
fn zone(btf: &Btf<'_>, nf_conn: TypeId) -> Result<u32, LayoutError> {
    if btf.member(nf_conn, "zone")?.is_none() {
        return Ok(NO_ZONES);
    }
    let zone = Field::find(btf, nf_conn, NF_CONN, "zone")?;
    check_whole(
        btf,
        zone.type_id,
        ZONE,
        size_of::<NfConntrackZone>(),
        &ZONE_FIELDS,
    )?;
    zone.at(zone.offset)
}

/// Checks that a struct of the kernel is its mirror here, byte for byte.
fn check_whole(
    btf: &Btf<'_>,
    type_id: TypeId,
    in_struct: &'static str,
    size: usize,
    fields: &[(&'static str, usize, usize)],
) -> Result<(), LayoutError> {
    let whole = Field {
        in_struct,
        path: "the whole",
        type_id,
        offset: 0,
    };
    whole.check("size", size, btf.size(type_id)?)?;
    for &(path, offset, size) in fields {
        let field = Field::find(btf, type_id, in_struct, path)?;
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

    /// An offset, of this field or next to it, in the width that the programs take.
    fn at(&self, offset: u64) -> Result<u32, LayoutError> {
        u32::try_from(offset)
            .ok()
            .ok_or_else(|| self.mismatch("offset", u32::MAX.into(), offset))
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
