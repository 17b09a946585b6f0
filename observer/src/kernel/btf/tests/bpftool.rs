//! Against bpftool's own dump of the running kernel.

use std::collections::HashMap;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use super::super::builder::{Builder, kind};
use super::super::{Btf, Kind, Member, TypeId};

const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// What bpftool prints of a type: its line, then those of its members.
fn printed(btf: &Btf<'_>, id: TypeId) -> Vec<String> {
    let found = btf.get(id).expect("the kernel's BTF is sound");
    let name = |name: &str| {
        if name.is_empty() {
            "(anon)".to_owned()
        } else {
            name.to_owned()
        }
    };
    let kind = match found.kind {
        Kind::Int => "INT",
        Kind::Ptr => "PTR",
        Kind::Array => "ARRAY",
        Kind::Struct => "STRUCT",
        Kind::Union => "UNION",
        Kind::Enum => "ENUM",
        Kind::Fwd => "FWD",
        Kind::Typedef => "TYPEDEF",
        Kind::Volatile => "VOLATILE",
        Kind::Const => "CONST",
        Kind::Restrict => "RESTRICT",
        Kind::Func => "FUNC",
        Kind::FuncProto => "FUNC_PROTO",
        Kind::Var => "VAR",
        Kind::Datasec => "DATASEC",
        Kind::Float => "FLOAT",
        Kind::DeclTag => "DECL_TAG",
        Kind::TypeTag => "TYPE_TAG",
        Kind::Enum64 => "ENUM64",
        Kind::Other(_) => "UNKNOWN",
    };
    let head = format!("[{}] {kind} '{}'", id.0, name(found.name));
    match found.kind {
        Kind::Array => {
            let array = btf.array(id).expect("it is an array");
            vec![format!(
                "{head} type_id={} nr_elems={}",
                array.element.0, array.len
            )]
        }
        Kind::Struct | Kind::Union => {
            let members = btf.members(id).expect("the kernel's BTF is sound");
            let size = btf.size(id).expect("it has a size");
            let mut lines = vec![format!("{head} size={size} vlen={}", members.len())];
            lines.extend(members.iter().map(|member| {
                let bits = match member.bitfield_size {
                    0 => String::new(),
                    bits => format!(" bitfield_size={bits}"),
                };
                let Member {
                    type_id,
                    bit_offset,
                    ..
                } = member;
                let name = name(member.name);
                format!(
                    "\t'{name}' type_id={} bits_offset={bit_offset}{bits}",
                    type_id.0
                )
            }));
            lines
        }
        _ => vec![head],
    }
}

/// Goal: this reader sees in a real kernel's BTF what bpftool sees. Method: every type's kind and
/// name, every array, and every struct and union with all members, against bpftool's dump.
#[test]
fn the_running_kernels_types_are_as_bpftool_prints_them() {
    let Some(dump) = dump(Path::new(VMLINUX), None) else {
        return;
    };
    let bytes = fs::read(VMLINUX).expect("bpftool read it");
    let btf = Btf::parse(&bytes).expect("the kernel's BTF is sound");
    compare(&btf, &dump);
}

/// Goal: the same of modules, whose types continue the kernel's. Method: the modules loaded here,
/// which may be none, and one that is made for the running kernel.
#[test]
fn modules_types_are_as_bpftool_prints_them() {
    let vmlinux = Path::new(VMLINUX);
    let Ok(bytes) = fs::read(vmlinux) else {
        // Says that there is nothing to compare.
        dump(vmlinux, None);
        return;
    };
    let kernel = Btf::parse(&bytes).expect("the kernel's BTF is sound");
    let directory = tempfile::tempdir().expect("a directory");
    let made = directory.path().join("made");
    fs::write(&made, module(&kernel)).expect("a file");

    let loaded = fs::read_dir(vmlinux.parent().expect("a directory")).expect("it is there");
    let loaded = loaded
        .map(|entry| entry.expect("it is there").path())
        .filter(|path| path != vmlinux);
    // Each takes bpftool a third of a second.
    for path in loaded.take(10).chain([made]) {
        let Some(dump) = dump(&path, Some(vmlinux)) else {
            return;
        };
        let bytes = fs::read(&path).expect("bpftool read it");
        let btf = Btf::parse_split(&kernel, &bytes).expect("the module's BTF is sound");
        compare(&btf, &dump);
    }
}

/// A module's description that takes types and strings from the kernel's, and adds to both.
fn module(kernel: &Btf<'_>) -> Vec<u8> {
    let next_type = kernel.end_of_types().expect("few types");
    let first_string = kernel.end_of_strings().expect("few strings");
    let sk_buff = kernel.find(Kind::Struct, "sk_buff").expect("every kernel");
    let mut b = Builder::on(next_type, first_string);
    let TypeId(sk_buff) = sk_buff;
    let pointer = b.other(kind::PTR, "", sk_buff);
    let pair = b.array(pointer, 2);
    let inner = b.compound(kind::UNION, "", 8, &[("one", pointer, 0), ("", pair, 0)]);
    let flag = b.int("flag_type", 4);
    b.flagged(
        kind::STRUCT,
        1,
        "observer_made",
        24,
        &[
            ("", inner, 0),
            ("flags", flag, 0x0300_0080),
            ("more", flag, 0x1d00_0083),
            ("whole", flag, 160),
        ],
    );
    b.other(kind::FWD, "observer_declared", 0);
    b.add("colours", [kind::ENUM64, 0, 1], 8, &[0, 1, 0]);
    b.add("note", [kind::DECL_TAG, 0, 0], flag, &[u32::MAX]);
    b.bytes()
}

/// Every type of `btf`, without its base's, against the lines of a dump of it.
fn compare(btf: &Btf<'_>, dump: &str) {
    let mut theirs: HashMap<u32, Vec<&str>> = HashMap::new();
    let mut current = 0;
    for line in dump.lines() {
        if let Some((id, _)) = line.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            current = id.parse().expect("a number");
        }
        theirs.entry(current).or_default().push(line);
    }
    assert_eq!(theirs.len(), btf.ids().count());
    for id in btf.ids() {
        let ours = printed(btf, id);
        let theirs = &theirs[&id.0];
        let is_compound = ours[0].contains(" vlen=");
        if is_compound {
            assert_eq!(&ours, theirs);
        } else if let Some((start, end)) = ours[0].split_once(" nr_elems=") {
            assert!(theirs[0].starts_with(start), "{} {}", ours[0], theirs[0]);
            assert!(
                theirs[0].ends_with(&format!(" nr_elems={end}")),
                "{} {}",
                ours[0],
                theirs[0]
            );
        } else {
            assert!(theirs[0].starts_with(&ours[0]), "{} {}", ours[0], theirs[0]);
        }
    }
}

/// What bpftool prints of a file; `None`, loudly, where there is no bpftool or no BTF.
pub(crate) fn dump(file: &Path, base: Option<&Path>) -> Option<String> {
    let mut command = Command::new("bpftool");
    command.args(["btf", "dump"]);
    if let Some(base) = base {
        command.arg("--base-btf").arg(base);
    }
    command.arg("file").arg(file).args(["format", "raw"]);
    let why = match command.output() {
        Ok(output) if output.status.success() => {
            return Some(String::from_utf8(output.stdout).expect("bpftool prints text"));
        }
        Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
        Err(error) => error.to_string(),
    };
    let message = format!(
        "SKIPPED: bpftool cannot dump {}: {}\n",
        file.display(),
        why.trim()
    );
    assert!(
        std::env::var_os("OBSERVER_REQUIRE_PRIVILEGED").is_none(),
        "{message}"
    );
    // Past the test harness, which would keep it to itself.
    std::io::stderr()
        .write_all(message.as_bytes())
        .expect("stderr takes it");
    None
}
