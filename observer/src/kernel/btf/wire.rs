//! How a description is written: the header, its sections, and where one type ends.

use bytes::Buf as _;

use super::{BtfError, Kind};

/// `BTF_MAGIC`.
pub(super) const MAGIC: u16 = 0xeb9f;
/// `BTF_VERSION`.
pub(super) const VERSION: u8 = 1;
/// The length of the header that every version has. `hdr_len` may be more.
pub(super) const HEADER_LEN: usize = 24;
/// The length of a header that also tells where the layout section is (in Linux 7.2).
pub(super) const HEADER_LEN_LAYOUT: usize = 32;
/// `sizeof(struct btf_member)`.
pub(super) const MEMBER_LEN: usize = 12;

/// `struct btf_type`, without the name's text.
pub(super) struct TypeHeader {
    pub(super) name: u32,
    pub(super) kind: Kind,
    pub(super) kind_flag: bool,
    pub(super) size_or_target: u32,
    /// How many bytes follow the common part.
    pub(super) trailing_len: usize,
}

impl TypeHeader {
    /// Reads the type `id`, which starts at `offset`. The kind was of four bits, then five,
    /// then seven (by Linux 7.2), the length of 16, then 24 (likewise); unused ones were zero.
    pub(super) fn read(
        rest: &mut &[u8],
        layout: Layout<'_>,
        id: u32,
        offset: usize,
    ) -> Result<Self, BtfError> {
        let name = u32_of(rest, "a type", offset)?;
        let info = u32_of(rest, "a type", offset)?;
        let size_or_target = u32_of(rest, "a type", offset)?;
        let [number, ..] = (info & 0x7fff_ffff).to_be_bytes();
        // How many members, values, parameters or variables there are.
        let len = (info & 0x00ff_ffff) as usize;
        let kind = Kind::from_number(number);
        let trailing_len = trailing_len(kind, len)
            .or_else(|| layout.trailing_len(number, len))
            .ok_or(BtfError::UnknownKind {
                id,
                offset,
                kind: number,
            })?;
        Ok(Self {
            name,
            kind,
            kind_flag: info >> 31 == 1,
            size_or_target,
            trailing_len,
        })
    }
}

/// How many bytes follow the common part of a type; `None` if this reader does not know its kind.
fn trailing_len(kind: Kind, len: usize) -> Option<usize> {
    Some(match kind {
        Kind::Int | Kind::Var | Kind::DeclTag => 4,
        Kind::Array => 12,
        Kind::Struct | Kind::Union => MEMBER_LEN * len,
        Kind::Datasec | Kind::Enum64 => 12 * len,
        Kind::Enum | Kind::FuncProto => 8 * len,
        Kind::Ptr
        | Kind::Fwd
        | Kind::Typedef
        | Kind::Volatile
        | Kind::Const
        | Kind::Restrict
        | Kind::Func
        | Kind::Float
        | Kind::TypeTag => 0,
        Kind::Other(_) => return None,
    })
}

/// The layout section: how long the types of each kind are, so that a reader can step over kinds
/// that came after it. Empty where there is none.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout<'a>(&'a [u8]);

impl Layout<'_> {
    /// As [`trailing_len`], by `struct btf_layout` of that kind; `None` if there is none.
    fn trailing_len(self, kind: u8, len: usize) -> Option<usize> {
        const ENTRY_LEN: usize = 4;
        // There is no kind 0.
        let start = (kind != 0).then_some(usize::from(kind) * ENTRY_LEN)?;
        let entry = self.0.get(start..start + ENTRY_LEN)?;
        let &[info_size, element_size, _, _] = entry else {
            return None;
        };
        Some(usize::from(info_size) + usize::from(element_size) * len)
    }
}

/// The parts of a description.
pub(super) struct Sections<'a> {
    pub(super) types: &'a [u8],
    pub(super) strings: &'a [u8],
    pub(super) layout: Layout<'a>,
}

impl<'a> Sections<'a> {
    /// Finds them as the header tells.
    pub(super) fn find(bytes: &'a [u8]) -> Result<Self, BtfError> {
        const EARLY: BtfError = BtfError::Truncated {
            what: "the header",
            offset: 0,
        };
        let mut header = bytes;
        let magic = header.try_get_u16_le().ok().ok_or(EARLY)?;
        if magic == MAGIC.swap_bytes() {
            return Err(BtfError::ByteOrder);
        }
        if magic != MAGIC {
            return Err(BtfError::Magic(magic));
        }
        let version = header.try_get_u8().ok().ok_or(EARLY)?;
        if version != VERSION {
            return Err(BtfError::Version(version));
        }
        let _flags = header.try_get_u8().ok().ok_or(EARLY)?;
        let mut number = || Ok(u32_of(&mut header, "the header", 0)? as usize);
        let header_len = number()?;
        let types = (number()?, number()?);
        let strings = (number()?, number()?);
        let layout = if header_len >= HEADER_LEN_LAYOUT {
            (number()?, number()?)
        } else {
            (0, 0)
        };
        let body = (header_len >= HEADER_LEN)
            .then(|| bytes.get(header_len..))
            .flatten()
            .ok_or(EARLY)?;
        let section = |what, (offset, len): (usize, usize)| {
            body.get(offset..)
                .and_then(|rest| rest.get(..len))
                .ok_or(BtfError::Truncated { what, offset })
        };
        Ok(Self {
            types: section("the type section", types)?,
            strings: section("the string section", strings)?,
            layout: Layout(section("the layout section", layout)?),
        })
    }
}

/// The next number; the error says of what, and where that starts.
pub(super) fn u32_of(rest: &mut &[u8], what: &'static str, offset: usize) -> Result<u32, BtfError> {
    rest.try_get_u32_le()
        .ok()
        .ok_or(BtfError::Truncated { what, offset })
}
