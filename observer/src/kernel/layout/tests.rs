//! The layout of descriptions made for it, and of the running kernel.

use std::fs;
use std::path::Path;

use insta::assert_snapshot;
use observer_ebpf::{KernelLayout, NO_ZONES};
use rstest::rstest;
use tempfile::TempDir;

use super::super::btf::Btf;
use super::super::btf::builder::{Builder, kind};
use super::super::btf::tests::bpftool;
use super::{LOADED, LayoutError, MODULE, Resolver, SYSFS, VMLINUX, resolve};

/// What differs from a kernel as it is.
#[derive(Clone)]
struct Kernel {
    nfct: &'static str,
    nfct_size: u32,
    nfct_bit: u32,
    hashes: u32,
    u3_size: u32,
    l3num_bit: u32,
    dir: &'static str,
    zone: &'static str,
    zone_dir_bit: u32,
    nf_conn: u32,
}

const USUAL: Kernel = Kernel {
    nfct: "_nfct",
    nfct_size: 8,
    nfct_bit: 832,
    hashes: 2,
    u3_size: 16,
    l3num_bit: 144,
    dir: "dir",
    zone: "zone",
    zone_dir_bit: 24,
    nf_conn: kind::STRUCT,
};

/// As [`USUAL`] has it.
const USUAL_LAYOUT: KernelLayout = KernelLayout {
    nfct: 104,
    original: 32,
    reply: 88,
    zone: 12,
};

impl Kernel {
    /// All in one.
    fn write(&self) -> Vec<u8> {
        let mut b = self.built_in();
        self.conntrack(&mut b);
        b.bytes()
    }

    /// Connection tracking in a module: the kernel's own, and the module's.
    fn write_split(&self) -> [Vec<u8>; 2] {
        let mut kernel = self.built_in();
        // Who only passes pointers on knows no more.
        kernel.other(kind::FWD, "nf_conn", 0);
        let mut module = kernel.split();
        self.conntrack(&mut module);
        [kernel.bytes(), module.bytes()]
    }

    fn built_in(&self) -> Builder {
        let mut b = Builder::new();
        let nfct = b.int("long unsigned int", self.nfct_size);
        let u32 = b.int("u32", 4);
        // _nfct stood in an anonymous union once, and may again.
        let union = b.compound(kind::UNION, "", 8, &[(self.nfct, nfct, 0)]);
        b.compound(
            kind::STRUCT,
            "sk_buff",
            224,
            &[("len", u32, 0), ("", union, self.nfct_bit)],
        );
        b
    }

    fn conntrack(&self, b: &mut Builder) {
        let u8 = b.int("u8", 1);
        let u16 = b.int("u16", 2);
        let words = b.array(u16, 8);
        let u3 = b.compound(
            kind::UNION,
            "nf_inet_addr",
            self.u3_size,
            &[("all", words, 0)],
        );
        let u = b.compound(kind::UNION, "", 2, &[("all", u16, 0)]);
        let man = [("u3", u3, 0), ("u", u, 128), ("l3num", u16, self.l3num_bit)];
        let man = b.compound(kind::STRUCT, "nf_conntrack_man", 20, &man);
        let dst = [
            ("u3", u3, 0),
            ("u", u, 128),
            ("protonum", u8, 144),
            (self.dir, u8, 152),
        ];
        let dst = b.compound(kind::STRUCT, "", 20, &dst);
        let tuple = [("src", man, 0), ("dst", dst, 160)];
        let tuple = b.compound(kind::STRUCT, "nf_conntrack_tuple", 40, &tuple);
        let node = b.compound(kind::STRUCT, "hlist_nulls_node", 16, &[]);
        let hash = [("hnnode", node, 0), ("tuple", tuple, 128)];
        let hash = b.compound(kind::STRUCT, "nf_conntrack_tuple_hash", 56, &hash);
        let hashes = b.array(hash, self.hashes);
        let zone = [
            ("id", u16, 0),
            ("flags", u8, 16),
            ("dir", u8, self.zone_dir_bit),
        ];
        let zone = b.compound(kind::STRUCT, "nf_conntrack_zone", 4, &zone);
        if self.nf_conn == kind::STRUCT {
            let members = [(self.zone, zone, 96), ("tuplehash", hashes, 128)];
            b.compound(kind::STRUCT, "nf_conn", 248, &members);
        } else {
            b.other(self.nf_conn, "nf_conn", 0);
        }
    }
}

/// A sysfs made for a test.
struct Sysfs(TempDir);

impl Sysfs {
    fn new() -> Self {
        let root = tempfile::tempdir().expect("a directory");
        fs::create_dir_all(root.path().join("kernel/btf")).expect("a directory");
        Self(root)
    }

    fn with(self, file: &str, bytes: impl AsRef<[u8]>) -> Self {
        let path = self.0.path().join(file);
        fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        fs::write(path, bytes).expect("a file");
        self
    }

    fn resolver(&self) -> Resolver {
        Resolver::new(self.0.path().to_owned())
    }

    fn error(&self) -> String {
        let error = self.resolver().resolve().expect_err("it is wrong");
        error
            .to_string()
            .replace(&self.0.path().display().to_string(), "SYS")
    }
}

#[test]
fn a_usual_kernel() {
    let sysfs = Sysfs::new().with(VMLINUX, USUAL.write());
    assert_eq!(
        sysfs.resolver().resolve().expect("it is usual"),
        USUAL_LAYOUT
    );
}

#[test]
fn a_kernel_without_zones() {
    let bytes = Kernel {
        zone: "mark",
        ..USUAL
    }
    .write();
    let layout = resolve(&Btf::parse(&bytes).expect("it is sound")).expect("it is usual");
    let expected = KernelLayout {
        zone: NO_ZONES,
        ..USUAL_LAYOUT
    };
    assert_eq!(layout, expected);
}

/// kube-proxy's first rule loads the module, perhaps after us.
#[test]
fn a_module_that_comes_later() {
    let [kernel, module] = USUAL.write_split();
    let sysfs = Sysfs::new().with(VMLINUX, kernel);
    let resolver = sysfs.resolver();
    assert!(matches!(resolver.resolve(), Err(LayoutError::NotLoaded)));
    assert!(!resolver.is_loaded());

    let sysfs = sysfs.with(MODULE, module).with(LOADED, "");
    assert!(resolver.is_loaded());
    assert_eq!(resolver.resolve().expect("it is usual"), USUAL_LAYOUT);
    drop(sysfs);
}

/// Older kernels, and those built so, show a module's types nowhere.
#[test]
fn a_module_that_does_not_show_its_types() {
    let [kernel, _] = USUAL.write_split();
    let sysfs = Sysfs::new().with(VMLINUX, kernel).with(LOADED, "");
    assert_snapshot!(sysfs.error(), @"this kernel's connection tracking is a module, nf_conntrack, and does not show its types at /sys/kernel/btf/nf_conntrack; the kernel must be Linux 5.11 or later, built with CONFIG_DEBUG_INFO_BTF_MODULES=y");
}

/// Its types are there, so nothing is missing, loaded or not.
#[test]
fn a_module_whose_types_are_the_kernels() {
    let sysfs = Sysfs::new()
        .with(VMLINUX, USUAL.write())
        .with(MODULE, "no BTF at all");
    let resolver = sysfs.resolver();
    assert_eq!(resolver.resolve().expect("it is usual"), USUAL_LAYOUT);
    assert!(!resolver.is_loaded());
}

#[rstest]
#[case::nfct_of_another_size(
    Kernel { nfct_size: 4, ..USUAL },
    "this kernel's struct sk_buff: size of _nfct is 4, not 8; please report it, with the output of `uname -a`",
)]
#[case::no_connection_tracking(
    Kernel { nfct: "other", ..USUAL },
    "this kernel is built without connection tracking (CONFIG_NF_CONNTRACK): its struct sk_buff has no field _nfct",
)]
#[case::nfct_at_no_byte(
    Kernel { nfct_bit: 835, ..USUAL },
    "this kernel's struct sk_buff has no field _nfct that starts at a byte; please report it, with the output of `uname -a`",
)]
#[case::more_directions(
    Kernel { hashes: 3, ..USUAL },
    "this kernel's struct nf_conn: length of tuplehash is 3, not 2; please report it, with the output of `uname -a`",
)]
#[case::longer_addresses(
    Kernel { u3_size: 20, ..USUAL },
    "this kernel's struct nf_conntrack_tuple: size of src.u3 is 20, not 16; please report it, with the output of `uname -a`",
)]
#[case::a_field_elsewhere(
    Kernel { l3num_bit: 136, ..USUAL },
    "this kernel's struct nf_conntrack_tuple: offset of src.l3num is 17, not 18; please report it, with the output of `uname -a`",
)]
#[case::a_field_by_another_name(
    Kernel { dir: "direction", ..USUAL },
    "this kernel's struct nf_conntrack_tuple has no field dst.dir that starts at a byte; please report it, with the output of `uname -a`",
)]
#[case::only_declared(
    Kernel { nf_conn: kind::FWD, ..USUAL },
    "the kernel's BTF has no struct nf_conn; please report it, with the output of `uname -a`",
)]
#[case::a_zone_of_another_make(
    Kernel { zone_dir_bit: 16, ..USUAL },
    "this kernel's struct nf_conntrack_zone: offset of dir is 2, not 3; please report it, with the output of `uname -a`",
)]
fn an_unusual_kernel(#[case] kernel: Kernel, #[case] expected: &str) {
    let bytes = kernel.write();
    let error = resolve(&Btf::parse(&bytes).expect("it is sound")).expect_err("it is unusual");
    assert_eq!(error.to_string(), expected);
}

#[test]
fn every_truncation_returns() {
    let sound = USUAL.write();
    for len in 0..sound.len() {
        assert!(Btf::parse(&sound[..len]).is_err());
    }
    // The type section cut short, the strings where they were.
    let types = u32::from_le_bytes([sound[12], sound[13], sound[14], sound[15]]);
    for len in 0..types {
        let mut shorter = sound.clone();
        shorter[12..16].copy_from_slice(&len.to_le_bytes());
        assert!(Btf::parse(&shorter).map_or(true, |btf| resolve(&btf).is_err()));
    }
}

#[test]
fn files_that_are_wrong() {
    let [kernel, module] = USUAL.write_split();
    let [no_conntrack, _] = Kernel {
        nfct: "other",
        ..USUAL
    }
    .write_split();
    let wrong = [
        Sysfs::new(),
        Sysfs::new().with(VMLINUX, "ELF"),
        Sysfs::new().with(VMLINUX, Builder::new().bytes()),
        Sysfs::new().with(VMLINUX, no_conntrack),
        Sysfs::new().with(VMLINUX, &kernel).with(MODULE, "ELF"),
        Sysfs::new()
            .with(VMLINUX, &kernel)
            .with(MODULE, &module[..module.len() - 1]),
        Sysfs::new().with(VMLINUX, &kernel).with(MODULE, &kernel),
    ];
    let shown: Vec<_> = wrong.iter().map(Sysfs::error).collect();
    assert_snapshot!(shown.join("\n"), @r"
    SYS/kernel/btf/vmlinux: No such file or directory (os error 2); the kernel must be built with CONFIG_DEBUG_INFO_BTF=y, and a container needs the host's /sys/kernel/btf
    SYS/kernel/btf/vmlinux: starts with 0x4c45, not with the magic number 0xeb9f; `bpftool btf dump file SYS/kernel/btf/vmlinux` shows whether others can read it
    the kernel's BTF has no struct sk_buff; please report it, with the output of `uname -a`
    this kernel is built without connection tracking (CONFIG_NF_CONNTRACK): its struct sk_buff has no field _nfct
    SYS/kernel/btf/nf_conntrack: starts with 0x4c45, not with the magic number 0xeb9f; `bpftool btf dump file SYS/kernel/btf/nf_conntrack` shows whether others can read it
    SYS/kernel/btf/nf_conntrack: the string section at offset 404 reaches beyond the end; `bpftool btf dump file SYS/kernel/btf/nf_conntrack` shows whether others can read it
    the kernel's BTF has no struct nf_conn; please report it, with the output of `uname -a`
    ");
}

/// Goal: the running kernel's layout is right. Method: bpftool's dump, read by its own means.
#[test]
fn the_running_kernel() {
    let file = Path::new(SYSFS).join(VMLINUX);
    let Some(dump) = bpftool::dump(&file, None) else {
        return;
    };
    let member = |in_struct: &str, name: &str| -> Option<u32> {
        let head = format!("STRUCT '{in_struct}' ");
        let mut lines = dump
            .lines()
            .skip_while(|line| !line.contains(&head))
            .skip(1);
        let line = lines
            .by_ref()
            .take_while(|line| line.starts_with('\t'))
            .find(|line| line.starts_with(&format!("\t'{name}' ")))?;
        line.rsplit_once("bits_offset=")?
            .1
            .parse::<u32>()
            .ok()
            .map(|bits| bits / 8)
    };
    let size = |of: &str| -> Option<u32> {
        let (_, rest) = dump.split_once(&format!("STRUCT '{of}' size="))?;
        rest.split_whitespace().next()?.parse().ok()
    };
    let found = Resolver::new(SYSFS.into()).resolve();
    let Some(tuplehash) = member("nf_conn", "tuplehash") else {
        // In a module, which may be loaded or not; what is found there, the lab proves.
        match found {
            Ok(layout) => assert!(layout.reply > layout.original, "{layout:?}"),
            Err(error) => assert!(matches!(error, LayoutError::NotLoaded), "{error}"),
        }
        return;
    };
    let tuple = member("nf_conntrack_tuple_hash", "tuple").expect("it has a tuple");
    let stride = size("nf_conntrack_tuple_hash").expect("it has a size");
    // Directly in sk_buff on the kernels that this runs on.
    let nfct = member("sk_buff", "_nfct").expect("it has a conntrack entry");
    let expected = KernelLayout {
        nfct,
        original: tuplehash + tuple,
        reply: tuplehash + tuple + stride,
        zone: member("nf_conn", "zone").unwrap_or(NO_ZONES),
    };
    assert_eq!(found.expect("bpftool read it"), expected);
}
