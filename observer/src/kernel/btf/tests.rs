//! What is read from descriptions made for it, from broken ones, and from the running kernel's.

use std::collections::HashMap;
use std::fs;
use std::io::Write as _;
use std::process::Command;

use proptest::prelude::{any, prop, proptest};
use rstest::rstest;

use super::builder::{Builder, kind};
use super::{Btf, BtfError, Kind, Member, TypeId};

/// One type of every kind, with what its kind adds.
fn every_kind() -> Builder {
    let mut b = Builder::new();
    let int = b.int("int", 4);
    let ptr = b.other(kind::PTR, "", int);
    let array = b.array(int, 3);
    let inner = b.compound(kind::UNION, "", 8, &[("long", ptr, 0), ("ints", array, 0)]);
    b.compound(
        kind::STRUCT,
        "outer",
        24,
        &[("first", int, 0), ("", inner, 64)],
    );
    b.add("colour", [kind::ENUM, 0, 2], 4, &[0, 0, 0, 1]);
    b.other(kind::FWD, "later", 0);
    let alias = b.other(kind::TYPEDEF, "alias", int);
    let volatile = b.other(kind::VOLATILE, "", alias);
    let constant = b.other(kind::CONST, "", volatile);
    b.other(kind::RESTRICT, "", ptr);
    let proto = b.add("", [kind::FUNC_PROTO, 0, 1], int, &[0, int]);
    b.other(kind::FUNC, "main", proto);
    let var = b.add("counter", [kind::VAR, 0, 0], constant, &[1]);
    b.add(".data", [kind::DATASEC, 0, 1], 4, &[var, 0, 4]);
    b.add("float", [kind::FLOAT, 0, 0], 4, &[]);
    b.add("note", [kind::DECL_TAG, 0, 0], int, &[u32::MAX]);
    b.other(kind::TYPE_TAG, "user", int);
    b.add("wide", [kind::ENUM64, 0, 1], 8, &[0, 1, 0]);
    b
}

fn id(btf: &Btf<'_>, kind: Kind, name: &str) -> TypeId {
    btf.find(kind, name)
        .unwrap_or_else(|| panic!("no {kind} {name}"))
}

#[test]
fn every_kind_is_read() {
    let bytes = every_kind().bytes();
    let btf = Btf::parse(&bytes).expect("it is sound");
    let read: Vec<_> = btf
        .ids()
        .map(|id| {
            let found = btf.get(id).expect("it is sound");
            let size = btf
                .size(id)
                .map_or_else(|error| error.to_string(), |size| size.to_string());
            format!("{} {:?} {:?} {size}", id.0, found.kind, found.name)
        })
        .collect();
    insta::assert_snapshot!(read.join("\n"), @r#"
    1 Int "int" 4
    2 Ptr "" 8
    3 Array "" 12
    4 Union "" 8
    5 Struct "outer" 24
    6 Enum "colour" 4
    7 Fwd "later" type 7 is a forward declaration, not a type with a size
    8 Typedef "alias" 4
    9 Volatile "" 4
    10 Const "" 4
    11 Restrict "" 8
    12 FuncProto "" type 12 is a function, not a type with a size
    13 Func "main" type 13 is a function, not a type with a size
    14 Var "counter" type 14 is a variable, not a type with a size
    15 Datasec ".data" 4
    16 Float "float" 4
    17 DeclTag "note" type 17 is a tag, not a type with a size
    18 TypeTag "user" 4
    19 Enum64 "wide" 8
    "#);
}

#[rstest]
#[case::a_struct(Kind::Struct, "outer", true)]
#[case::another_kind(Kind::Union, "outer", false)]
#[case::a_beginning(Kind::Struct, "out", false)]
#[case::a_forward_declaration(Kind::Struct, "later", false)]
#[case::as_such(Kind::Fwd, "later", true)]
fn types_are_found(#[case] kind: Kind, #[case] name: &str, #[case] there: bool) {
    let bytes = every_kind().bytes();
    let btf = Btf::parse(&bytes).expect("it is sound");
    assert_eq!(btf.find(kind, name).is_some(), there);
}

/// A struct whose declaration comes first, as a pointer to it leaves one.
#[test]
fn the_complete_struct_is_found() {
    let mut b = Builder::new();
    b.other(kind::FWD, "late", 0);
    let complete = b.compound(kind::STRUCT, "late", 8, &[]);
    let bytes = b.bytes();
    let btf = Btf::parse(&bytes).expect("it is sound");
    assert_eq!(btf.find(Kind::Struct, "late"), Some(TypeId(complete)));
}

/// Members of the struct `s`, by name: bit offset and width of a bit field.
fn place(builder: &Builder, name: &str) -> Option<(u64, u8)> {
    let bytes = builder.bytes();
    let btf = Btf::parse(&bytes).expect("it is sound");
    let member = btf
        .member(id(&btf, Kind::Struct, "s"), name)
        .expect("it is sound");
    member.map(
        |Member {
             bit_offset,
             bitfield_size,
             ..
         }| (bit_offset, bitfield_size),
    )
}

#[test]
fn members_are_found_in_anonymous_ones() {
    let mut b = Builder::new();
    let int = b.int("int", 4);
    let deep = b.compound(kind::STRUCT, "", 8, &[("x", int, 0), ("y", int, 32)]);
    let deep = b.other(kind::CONST, "", deep);
    let middle = b.compound(kind::UNION, "", 8, &[("all", int, 0), ("", deep, 0)]);
    let named = b.compound(kind::STRUCT, "", 4, &[("hidden", int, 0)]);
    let members = [
        ("a", int, 0),
        ("", middle, 64),
        ("named", named, 128),
        ("", int, 160),
        ("y2", int, 192),
    ];
    b.compound(kind::STRUCT, "s", 28, &members);
    assert_eq!(place(&b, "a"), Some((0, 0)));
    assert_eq!(place(&b, "all"), Some((64, 0)));
    assert_eq!(place(&b, "y"), Some((96, 0)));
    assert_eq!(place(&b, "y2"), Some((192, 0)));
    assert_eq!(place(&b, "hidden"), None);
    assert_eq!(place(&b, ""), None);
}

#[rstest]
#[case::flag(1, 0x0300_0041, (0x41, 3))]
#[case::flag_and_no_bit_field(1, 64, (64, 0))]
#[case::no_flag(0, 0x0300_0040, (0x0300_0040, 0))]
fn kind_flag(#[case] flag: u32, #[case] offset: u32, #[case] expected: (u64, u8)) {
    let mut b = Builder::new();
    let int = b.int("int", 4);
    b.flagged(kind::STRUCT, flag, "s", 16, &[("x", int, offset)]);
    assert_eq!(place(&b, "x"), Some(expected));
}

#[test]
fn arrays_have_a_stride() {
    let mut b = Builder::new();
    let hash = b.compound(kind::STRUCT, "hash", 56, &[]);
    let pair = b.array(hash, 2);
    let pairs = b.array(pair, 3);
    let alias = b.other(kind::TYPEDEF, "pairs", pairs);
    let bytes = b.bytes();
    let btf = Btf::parse(&bytes).expect("it is sound");
    let array = btf.array(TypeId(alias)).expect("an array");
    assert_eq!((array.element, array.len), (TypeId(pair), 3));
    assert_eq!(btf.size(array.element), Ok(112));
    assert_eq!(btf.size(TypeId(alias)), Ok(336));
}

#[test]
fn a_module_continues_the_kernel() {
    let kernel = every_kind();
    let mut module = kernel.split();
    let mut bytes = (kernel.bytes(), Vec::new());
    let base = Btf::parse(&bytes.0).expect("it is sound");
    let int = id(&base, Kind::Int, "int");
    let own = module.compound(kind::STRUCT, "s", 8, &[("x", int.0, 0), ("y", int.0, 32)]);
    module.other(kind::TYPEDEF, "alias", own);
    bytes.1 = module.bytes();

    let btf = Btf::parse_split(&base, &bytes.1).expect("it is sound");
    assert_eq!(own, 20);
    assert_eq!(id(&btf, Kind::Struct, "s"), TypeId(own));
    assert_eq!(id(&btf, Kind::Int, "int"), int);
    // The kernel's own of that name comes first.
    assert_eq!(btf.resolve(id(&btf, Kind::Typedef, "alias")), Ok(int));
    let member = btf
        .member(TypeId(own), "y")
        .expect("it is sound")
        .expect("it is there");
    assert_eq!((member.bit_offset, member.type_id), (32, int));
    assert_eq!(btf.size(member.type_id), Ok(4));
    assert_eq!(btf.get(TypeId(22)), Err(BtfError::NoType(22)));
    assert_eq!(base.find(Kind::Struct, "s"), None);
}

#[test]
fn headers_that_are_wrong() {
    let sound = every_kind().bytes();
    let with = |at: usize, bytes: &[u8]| {
        let mut spoiled = sound.clone();
        spoiled[at..at + bytes.len()].copy_from_slice(bytes);
        Btf::parse(&spoiled)
            .map(|_| ())
            .expect_err("it is wrong")
            .to_string()
    };
    let errors = [
        Btf::parse(b"")
            .map(|_| ())
            .expect_err("it is wrong")
            .to_string(),
        with(0, b"\x7fE"),
        with(0, b"\xeb\x9f"),
        with(2, &[2]),
        with(4, &[23]),
        with(4, &[255; 4]),
        with(8, &[255; 4]),
        with(12, &[255; 4]),
        with(20, &[255; 4]),
        // The kind of the first type.
        with(31, &[0]),
        with(31, &[20]),
    ];
    insta::assert_snapshot!(errors.join("\n"), @r"
    the header at offset 0 reaches beyond the end
    starts with 0x457f, not with the magic number 0xeb9f
    is in the byte order of another machine
    is of version 2, not 1
    the header at offset 0 reaches beyond the end
    the header at offset 0 reaches beyond the end
    the type section at offset 4294967295 reaches beyond the end
    the type section at offset 0 reaches beyond the end
    the string section at offset 348 reaches beyond the end
    type 1 at offset 0 is of the unknown kind 0
    type 1 at offset 0 is of the unknown kind 20
    ");
}

/// A later version may have more in its header.
#[test]
fn a_longer_header_is_skipped() {
    let mut bytes = every_kind().bytes();
    bytes[4] = 32;
    bytes.splice(24..24, [0xaa; 8]);
    let btf = Btf::parse(&bytes).expect("it is sound");
    assert_eq!(btf.size(id(&btf, Kind::Struct, "outer")), Ok(24));
}

/// Asks everything there is to ask, of every type.
fn ask(btf: &Btf<'_>) {
    for id in btf.ids().chain([TypeId(0), TypeId(u32::MAX)]) {
        let _ = btf.get(id);
        let _ = btf.resolve(id);
        let _ = btf.size(id);
        let _ = btf.array(id);
        let _ = btf.members(id);
        let _ = btf.member(id, "y");
    }
    let _ = btf.find(Kind::Struct, "outer");
}

#[test]
fn every_truncation_returns() {
    let sound = every_kind().bytes();
    let types_len = u32::from_le_bytes([sound[12], sound[13], sound[14], sound[15]]);
    let strings_start = 24 + types_len as usize;
    for len in 0..sound.len() {
        assert!(
            Btf::parse(&sound[..len]).is_err(),
            "{len} of {} bytes",
            sound.len()
        );
        // As if the sections were meant to be that short.
        let mut shorter = sound.clone();
        if len < 24 {
            continue;
        }
        if len < strings_start {
            let types = u32::try_from(len - 24).expect("small");
            shorter[12..16].copy_from_slice(&types.to_le_bytes());
        } else {
            let strings = u32::try_from(len - strings_start).expect("small");
            shorter[20..24].copy_from_slice(&strings.to_le_bytes());
        }
        if let Ok(btf) = Btf::parse(&shorter) {
            ask(&btf);
        }
    }
}

#[test]
fn circles_are_left() {
    let mut b = Builder::new();
    b.other(kind::TYPEDEF, "a", 2);
    b.other(kind::CONST, "", 1);
    b.array(3, 7);
    let own = b.compound(kind::STRUCT, "s", 8, &[("", 4, 0), ("", 4, 64)]);
    assert_eq!(own, 4);
    let bytes = b.bytes();
    let btf = Btf::parse(&bytes).expect("it is sound");
    assert_eq!(btf.resolve(TypeId(1)), Err(BtfError::TooDeep(1)));
    assert_eq!(btf.size(TypeId(2)), Err(BtfError::TooDeep(2)));
    assert!(btf.size(TypeId(3)).is_err());
    assert_eq!(btf.member(TypeId(4), "x"), Ok(None));
    ask(&btf);
}

/// Each holds the next twice: 2 to the power of 64 paths.
#[test]
fn what_holds_each_other_many_times_is_opened_once() {
    let mut b = Builder::new();
    for n in 1..64 {
        b.compound(kind::STRUCT, "s", 8, &[("", n + 1, 0), ("", n + 1, 64)]);
    }
    let int = b.int("int", 4);
    b.compound(kind::STRUCT, "s", 8, &[("x", int, 0)]);
    let bytes = b.bytes();
    let btf = Btf::parse(&bytes).expect("it is sound");
    assert_eq!(btf.member(TypeId(1), "y"), Ok(None));
}

#[test]
fn sizes_that_overflow_are_errors() {
    let mut b = Builder::new();
    let mut at = b.int("int", u32::MAX / 8);
    for _ in 0..3 {
        at = b.array(at, u32::MAX);
    }
    let bytes = b.bytes();
    let btf = Btf::parse(&bytes).expect("it is sound");
    assert_eq!(btf.size(TypeId(at)), Err(BtfError::TooLarge(at)));
}

proptest! {
    #[test]
    fn any_bytes_return(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
        if let Ok(btf) = Btf::parse(&bytes) {
            ask(&btf);
        }
    }

    #[test]
    fn spoiled_bytes_return(
        spoils in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        whole in any::<bool>(),
    ) {
        let mut bytes = every_kind().bytes();
        let start = if whole { 0 } else { 24 };
        for (place, byte) in spoils {
            let place = start + place.index(bytes.len() - start);
            bytes[place] = byte;
        }
        if let Ok(btf) = Btf::parse(&bytes) {
            ask(&btf);
        }
    }
}

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
    const FILE: &str = "/sys/kernel/btf/vmlinux";
    let Some(dump) = bpftool_dump(FILE) else {
        return;
    };
    let bytes = fs::read(FILE).expect("bpftool read it");
    let btf = Btf::parse(&bytes).expect("the kernel's BTF is sound");

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
        let ours = printed(&btf, id);
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

/// What `bpftool btf dump` prints; `None`, loudly, where there is no bpftool or no BTF.
pub(crate) fn bpftool_dump(file: &str) -> Option<String> {
    let output = Command::new("bpftool")
        .args(["btf", "dump", "file", file, "format", "raw"])
        .output();
    let why = match output {
        Ok(output) if output.status.success() => {
            return Some(String::from_utf8(output.stdout).expect("bpftool prints text"));
        }
        Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
        Err(error) => error.to_string(),
    };
    let message = format!("SKIPPED: bpftool cannot dump {file}: {}\n", why.trim());
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
