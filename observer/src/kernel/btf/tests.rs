//! What is read from descriptions made for it; from broken ones, [`hostile`]; and from the running
//! kernel's, [`bpftool`].

use rstest::rstest;

use super::builder::{Builder, kind};
use super::{Btf, BtfError, Kind, Member, TypeId};

pub(crate) mod bpftool;
mod hostile;

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

/// A later version may have more in its header.
#[test]
fn a_longer_header_is_skipped() {
    let mut bytes = every_kind().bytes();
    bytes[4] = 40;
    // No layout section, and what is not known yet.
    bytes.splice(24..24, [[0; 8], [0xaa; 8]].concat());
    let btf = Btf::parse(&bytes).expect("it is sound");
    assert_eq!(btf.size(id(&btf, Kind::Struct, "outer")), Ok(24));
}

#[test]
fn more_members_than_16_bits_count() {
    let mut b = Builder::new();
    let int = b.int("int", 4);
    let mut members: Vec<_> = (0..70_000).map(|n| ("", int, n * 32)).collect();
    members[69_999].0 = "last";
    b.compound(kind::STRUCT, "s", 280_000, &members);
    assert_eq!(place(&b, "last"), Some((69_999 * 32, 0)));
}

/// A layout section tells how long types are whose kind came later.
#[test]
fn later_kinds_are_stepped_over() {
    const LATER: u32 = 40;
    let mut b = Builder::new();
    let int = b.int("int", 4);
    // One number, and then two for each of three.
    b.add("site", [LATER, 0, 3], 0, &[0; 7]);
    b.compound(kind::STRUCT, "s", 4, &[("x", int, 0)]);
    let parsed = |b: &Builder| {
        let bytes = b.bytes();
        let btf = Btf::parse(&bytes)?;
        let later = btf.find(Kind::Other(40), "site");
        btf.size(later.expect("it is there"))
    };
    let error = parsed(&b).expect_err("its length is not known");
    assert_eq!(
        error.to_string(),
        "type 2 at offset 16 is of the unknown kind 40"
    );
    b.layout(LATER, [4, 8]);
    assert_eq!(place(&b, "x"), Some((0, 0)));
    let error = parsed(&b).expect_err("it may have none");
    assert_eq!(
        error.to_string(),
        "type 2 is of an unknown kind, not a type with a size"
    );
    // There is no kind 0, whatever a layout says of it.
    b.add("nothing", [0, 0, 0], 0, &[]);
    let error = parsed(&b).expect_err("no kind");
    assert_eq!(
        error.to_string(),
        "type 4 at offset 80 is of the unknown kind 0"
    );
}
