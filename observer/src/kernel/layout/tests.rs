//! The layout of descriptions made for it, and of the running kernel.

use std::fs;
use std::path::Path;

use insta::assert_snapshot;
use observer_ebpf::KernelLayout;
use rstest::rstest;

use super::super::btf::Btf;
use super::super::btf::builder::{Builder, kind};
use super::super::btf::tests::bpftool_dump;
use super::{from_file, resolve};

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
    nf_conn: kind::STRUCT,
};

impl Kernel {
    fn write(&self) -> Vec<u8> {
        let mut b = Builder::new();
        let nfct = b.int("long unsigned int", self.nfct_size);
        let u8 = b.int("u8", 1);
        let u16 = b.int("u16", 2);
        let u32 = b.int("u32", 4);
        // _nfct stood in an anonymous union once, and may again.
        let union = b.compound(kind::UNION, "", 8, &[(self.nfct, nfct, 0)]);
        b.compound(
            kind::STRUCT,
            "sk_buff",
            224,
            &[("len", u32, 0), ("", union, self.nfct_bit)],
        );

        let words = b.array(u32, 4);
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
        if self.nf_conn == kind::STRUCT {
            b.compound(kind::STRUCT, "nf_conn", 248, &[("tuplehash", hashes, 128)]);
        } else {
            b.other(self.nf_conn, "nf_conn", 0);
        }
        b.bytes()
    }
}

#[test]
fn a_usual_kernel() {
    let bytes = USUAL.write();
    let layout = resolve(&Btf::parse(&bytes).expect("it is sound")).expect("it is usual");
    assert_eq!(
        layout,
        KernelLayout {
            nfct: 104,
            original: 32,
            reply: 88,
            known: 1
        }
    );
}

#[rstest]
#[case::nfct_of_another_size(
    Kernel { nfct_size: 4, ..USUAL },
    "this kernel's struct sk_buff: size of _nfct is 4, not 8; please report it, with the output of `uname -a`",
)]
#[case::no_connection_tracking(
    Kernel { nfct: "other", ..USUAL },
    "this kernel is built without connection tracking (CONFIG_NF_CONNTRACK): its struct sk_buff has no field _nfct; verdicts go by the packets alone",
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
    "the kernel's BTF has no struct nf_conn: connection tracking is a module here, and its types, in /sys/kernel/btf/nf_conntrack, are not read yet; verdicts go by the packets alone",
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
    let directory = std::env::temp_dir().join(format!("observer-layout-{}", std::process::id()));
    fs::create_dir_all(&directory).expect("a directory");
    let path = directory.join("vmlinux");
    let error = || from_file(&path).expect_err("it is wrong").to_string();

    let missing = error();
    fs::write(&path, "ELF").expect("a file");
    let other = error();
    fs::write(&path, Builder::new().bytes()).expect("a file");
    let empty = error();
    fs::remove_dir_all(&directory).expect("removed");

    let shown = [missing, other, empty].join("\n");
    assert_snapshot!(shown.replace(&directory.display().to_string(), "DIR"), @r"
    DIR/vmlinux: No such file or directory (os error 2); the kernel must be built with CONFIG_DEBUG_INFO_BTF=y, and a container needs the host's /sys/kernel/btf
    the kernel's BTF starts with 0x4c45, not with the magic number 0xeb9f; `bpftool btf dump file /sys/kernel/btf/vmlinux` shows whether others can read it
    the kernel's BTF has no struct sk_buff; please report it, with the output of `uname -a`
    ");
}

/// Goal: the running kernel's layout is right. Method: bpftool's dump, read by its own means.
#[test]
fn the_running_kernel() {
    const FILE: &str = "/sys/kernel/btf/vmlinux";
    let Some(dump) = bpftool_dump(FILE) else {
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
    let Some(tuplehash) = member("nf_conn", "tuplehash") else {
        // A module here: there is no layout yet, and the error says why.
        let error = from_file(Path::new(FILE)).expect_err("there is no nf_conn");
        assert!(error.to_string().contains("nf_conntrack"), "{error}");
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
        known: 1,
    };
    assert_eq!(
        from_file(Path::new(FILE)).expect("bpftool read it"),
        expected
    );
}
