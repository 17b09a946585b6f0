//! How a description is written: the header, its sections, and where one type ends.

use bytes::Buf as _;

use super::{BtfError, Kind};

/// `BTF_MAGIC`.
pub(super) const MAGIC: u16 = 0xeb9f;
/// `BTF_VERSION`.
pub(super) const VERSION: u8 = 1;
/// The length of the header that every version has. `hdr_len` may be more.
pub(super) const HEADER_LEN: usize = 24;
/// `sizeof(struct btf_member)`.
pub(super) const MEMBER_LEN: usize = 12;

/// `struct btf_type`, without the name's text.
pub(super) struct TypeHeader {
    pub(super) name: u32,
    pub(super) kind: Kind,
    pub(super) kind_flag: bool,
    /// How many members, values, parameters or variables follow.
    pub(super) len: usize,
    pub(super) size_or_target: u32,
}

impl TypeHeader {
    pub(super) fn read(rest: &mut &[u8], id: u32, offset: usize) -> Result<Self, BtfError> {
        let name = u32_of(rest, "a type", offset)?;
        let info = u32_of(rest, "a type", offset)?;
        let size_or_target = u32_of(rest, "a type", offset)?;
        let number = (info >> 24) & 0x1f;
        let kind = Kind::from_number(number).ok_or(BtfError::UnknownKind {
            id,
            offset,
            kind: number,
        })?;
        let kind_flag = info >> 31 == 1;
        Ok(Self {
            name,
            kind,
            kind_flag,
            len: (info & 0xffff) as usize,
            size_or_target,
        })
    }

    /// How many bytes follow the common part.
    pub(super) fn trailing_len(&self) -> usize {
        match self.kind {
            Kind::Int | Kind::Var | Kind::DeclTag => 4,
            Kind::Array => 12,
            Kind::Struct | Kind::Union => MEMBER_LEN * self.len,
            Kind::Datasec | Kind::Enum64 => 12 * self.len,
            Kind::Enum | Kind::FuncProto => 8 * self.len,
            Kind::Ptr
            | Kind::Fwd
            | Kind::Typedef
            | Kind::Volatile
            | Kind::Const
            | Kind::Restrict
            | Kind::Func
            | Kind::Float
            | Kind::TypeTag => 0,
        }
    }
}

/// The type section and the string section, as the header tells.
pub(super) fn sections(bytes: &[u8]) -> Result<(&[u8], &[u8]), BtfError> {
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
    let body = (header_len >= HEADER_LEN)
        .then(|| bytes.get(header_len..))
        .flatten()
        .ok_or(EARLY)?;
    let section = |what, (offset, len): (usize, usize)| {
        body.get(offset..)
            .and_then(|rest| rest.get(..len))
            .ok_or(BtfError::Truncated { what, offset })
    };
    Ok((
        section("the type section", types)?,
        section("the string section", strings)?,
    ))
}

/// The next number; the error says of what, and where that starts.
pub(super) fn u32_of(rest: &mut &[u8], what: &'static str, offset: usize) -> Result<u32, BtfError> {
    rest.try_get_u32_le()
        .ok()
        .ok_or(BtfError::Truncated { what, offset })
}
