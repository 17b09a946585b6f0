//! Whatever the bytes, an answer or an error comes, and soon.

use proptest::prelude::{any, prop, proptest};

use super::super::builder::{Builder, kind};
use super::super::{Btf, BtfError, Kind, TypeId};
use super::every_kind;

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

#[test]
fn a_layout_section_that_ends_early() {
    let mut b = every_kind();
    b.layout(40, [4, 8]);
    let bytes = b.bytes();
    let error = Btf::parse(&bytes[..bytes.len() - 1]).map(|_| ());
    assert_eq!(
        error,
        Err(BtfError::Truncated {
            what: "the layout section",
            offset: 434
        })
    );
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

/// A module's, whose references reach into the kernel's, with some bytes of either changed.
fn spoiled(mut parts: [Vec<u8>; 2], spoils: &[(prop::sample::Index, u8)], start: usize) {
    for (place, byte) in spoils {
        let part = &mut parts[place.index(2)];
        let place = start + place.index(part.len() - start);
        part[place] = *byte;
    }
    let [kernel, module] = parts;
    let Ok(kernel) = Btf::parse(&kernel) else {
        return;
    };
    ask(&kernel);
    if let Ok(module) = Btf::parse_split(&kernel, &module) {
        ask(&module);
    }
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
        let kernel = every_kind();
        let mut module = kernel.split();
        let own = module.compound(kind::STRUCT, "y", 8, &[("", 4, 0), ("y", 1, 64)]);
        module.array(own, 3);
        module.other(kind::TYPEDEF, "alias", 8);
        spoiled([kernel.bytes(), module.bytes()], &spoils, if whole { 0 } else { 24 });
    }
}
