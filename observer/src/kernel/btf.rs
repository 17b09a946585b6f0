//! A reader of BTF, the kernel's description of its own types.
//!
//! It answers where the fields of a struct are, what a function takes and what the values of an
//! enumeration are called, and reads no more than that takes.
//! The format is described in the kernel's `Documentation/bpf/btf.rst` and
//! `include/uapi/linux/btf.h`. The bytes may be anything: every function returns, with an error
//! that tells what was wrong and where.
//!
//! The types of a module (`/sys/kernel/btf/<module>`) build on those of the kernel: their numbers
//! and strings continue the kernel's. [`Btf::parse_split`] reads them.

use std::collections::HashSet;

use bytes::Buf as _;

use self::wire::{Layout, MEMBER_LEN, Sections, TypeHeader, u32_of};

#[cfg(test)]
pub(crate) mod builder;
mod error;
mod kind;
#[cfg(test)]
pub(crate) mod tests;
mod wire;

pub use error::BtfError;
pub use kind::Kind;

/// How many modifiers or array dimensions may stand between a name and its type: as many as the
/// kernel lets pass (`MAX_RESOLVE_DEPTH`, `kernel/bpf/btf.c`).
const MAX_DEPTH: usize = 32;
/// The size of a pointer, in bytes. eBPF knows 64-bit kernels, and 32-bit ones that we do not.
const POINTER_SIZE: u64 = 8;

/// A parsed description, borrowed from the bytes it was parsed from.
#[derive(Clone, Debug)]
pub struct Btf<'a> {
    base: Option<&'a Btf<'a>>,
    /// The number of the first type here: 1, or what follows the base's last.
    first_type: u32,
    /// The offset of the first string here: 0, or what follows the base's last.
    first_string: u32,
    types: &'a [u8],
    strings: &'a [u8],
    layout: Layout<'a>,
    /// Where in `types` each type starts.
    starts: Vec<u32>,
}

/// The number of a type. 0 is `void`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TypeId(pub u32);

/// A type, without what it refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Type<'a> {
    /// Its name; empty if it has none.
    pub name: &'a str,
    /// What it is.
    pub kind: Kind,
    /// `kind_flag`: of a struct or union, that its members may be bit fields; of a forward
    /// declaration, that it is a union.
    kind_flag: bool,
    /// `size`, or the number of the type it refers to, as the kind has it.
    size_or_target: u32,
    /// What follows the common part.
    trailing: &'a [u8],
}

/// A member of a struct or union.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member<'a> {
    /// Its name; empty for an anonymous struct or union.
    pub name: &'a str,
    /// Its type.
    pub type_id: TypeId,
    /// Where it starts, in bits from the start of the struct that was asked.
    pub bit_offset: u64,
    /// Its width in bits if it is a bit field, else 0.
    pub bitfield_size: u8,
}

/// An array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Array {
    /// The type of its elements.
    pub element: TypeId,
    /// How many it has.
    pub len: u32,
}

impl<'a> Btf<'a> {
    /// Reads a description that stands alone: the kernel's.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, BtfError> {
        Self::parse_on(None, bytes)
    }

    /// Reads a description that builds on `base`: a module's.
    pub fn parse_split(base: &'a Self, bytes: &'a [u8]) -> Result<Self, BtfError> {
        Self::parse_on(Some(base), bytes)
    }

    fn parse_on(base: Option<&'a Self>, bytes: &'a [u8]) -> Result<Self, BtfError> {
        let Sections {
            types,
            strings,
            layout,
        } = Sections::find(bytes)?;
        let first_type = base.map_or(Ok(1), Btf::end_of_types)?;
        let first_string = base.map_or(Ok(0), Btf::end_of_strings)?;
        let mut btf = Self {
            base,
            first_type,
            first_string,
            types,
            strings,
            layout,
            starts: Vec::new(),
        };
        let mut rest = types;
        while !rest.is_empty() {
            let id = btf.end_of_types()?;
            let offset = types.len() - rest.len();
            let trailing = TypeHeader::read(&mut rest, layout, id, offset)?.trailing_len;
            if trailing > rest.len() {
                return Err(BtfError::Truncated {
                    what: "a type",
                    offset,
                });
            }
            rest.advance(trailing);
            btf.starts
                .push(u32::try_from(offset).ok().ok_or(BtfError::TooManyTypes)?);
        }
        Ok(btf)
    }

    /// The number of the type after the last.
    fn end_of_types(&self) -> Result<u32, BtfError> {
        u32::try_from(self.starts.len())
            .ok()
            .and_then(|count| self.first_type.checked_add(count))
            .ok_or(BtfError::TooManyTypes)
    }

    fn end_of_strings(&self) -> Result<u32, BtfError> {
        u32::try_from(self.strings.len())
            .ok()
            .and_then(|len| self.first_string.checked_add(len))
            .ok_or(BtfError::NoString(self.first_string))
    }

    /// The first type of this kind and name; the base is asked first.
    ///
    /// A struct is never mistaken for a forward declaration of it: those are of kind
    /// [`Kind::Fwd`].
    pub fn find(&self, kind: Kind, name: &str) -> Option<TypeId> {
        self.base
            .and_then(|base| base.find(kind, name))
            .or_else(|| {
                self.ids().find(|&id| {
                    self.get(id)
                        .is_ok_and(|found| found.kind == kind && found.name == name)
                })
            })
    }

    /// The types of this description, without its base's.
    pub fn ids(&self) -> impl Iterator<Item = TypeId> {
        (self.first_type..).take(self.starts.len()).map(TypeId)
    }

    /// The type of this number.
    pub fn get(&self, id: TypeId) -> Result<Type<'a>, BtfError> {
        let Some(index) = id.0.checked_sub(self.first_type) else {
            return self.base.ok_or(BtfError::NoType(id.0))?.get(id);
        };
        let start = usize::try_from(index)
            .ok()
            .and_then(|index| self.starts.get(index));
        let offset = *start.ok_or(BtfError::NoType(id.0))? as usize;
        let truncated = BtfError::Truncated {
            what: "a type",
            offset,
        };
        let mut rest = self.types.get(offset..).ok_or_else(|| truncated.clone())?;
        let TypeHeader {
            name,
            kind,
            kind_flag,
            size_or_target,
            trailing_len,
        } = TypeHeader::read(&mut rest, self.layout, id.0, offset)?;
        Ok(Type {
            name: self.string(name)?,
            kind,
            kind_flag,
            size_or_target,
            trailing: rest.get(..trailing_len).ok_or(truncated)?,
        })
    }

    /// The string at this offset.
    fn string(&self, offset: u32) -> Result<&'a str, BtfError> {
        let missing = BtfError::NoString(offset);
        let Some(start) = offset.checked_sub(self.first_string) else {
            return self.base.ok_or(missing)?.string(offset);
        };
        // The empty name is at 0, even where there are no strings.
        if offset == 0 {
            return Ok("");
        }
        let rest = self
            .strings
            .get(start as usize..)
            .ok_or_else(|| missing.clone())?;
        let end = rest
            .iter()
            .position(|&byte| byte == 0)
            .ok_or_else(|| missing.clone())?;
        std::str::from_utf8(&rest[..end]).ok().ok_or(missing)
    }

    /// The type behind type definitions and modifiers.
    pub fn resolve(&self, id: TypeId) -> Result<TypeId, BtfError> {
        let mut at = id;
        for _ in 0..MAX_DEPTH {
            let found = self.get(at)?;
            match found.kind {
                Kind::Typedef | Kind::Volatile | Kind::Const | Kind::Restrict | Kind::TypeTag => {
                    at = TypeId(found.size_or_target);
                }
                _ => return Ok(at),
            }
        }
        Err(BtfError::TooDeep(id.0))
    }

    /// The size of a type, in bytes.
    pub fn size(&self, id: TypeId) -> Result<u64, BtfError> {
        let mut at = id;
        let mut elements = 1_u64;
        for _ in 0..MAX_DEPTH {
            at = self.resolve(at)?;
            let found = self.get(at)?;
            let size = match found.kind {
                Kind::Int
                | Kind::Struct
                | Kind::Union
                | Kind::Enum
                | Kind::Enum64
                | Kind::Float
                | Kind::Datasec => found.size_or_target.into(),
                Kind::Ptr => POINTER_SIZE,
                Kind::Array => {
                    let array = self.array(at)?;
                    at = array.element;
                    elements = elements
                        .checked_mul(array.len.into())
                        .ok_or(BtfError::TooLarge(id.0))?;
                    continue;
                }
                _ => return Err(at.is_not("a type with a size", found.kind)),
            };
            return elements.checked_mul(size).ok_or(BtfError::TooLarge(id.0));
        }
        Err(BtfError::TooDeep(id.0))
    }

    /// The elements of an array, behind type definitions and modifiers.
    pub fn array(&self, id: TypeId) -> Result<Array, BtfError> {
        let id = self.resolve(id)?;
        let found = self.get(id)?;
        if found.kind != Kind::Array {
            return Err(id.is_not("an array", found.kind));
        }
        let mut rest = found.trailing;
        let element = TypeId(u32_of(&mut rest, "an array", 0)?);
        let _index_type = u32_of(&mut rest, "an array", 4)?;
        Ok(Array {
            element,
            len: u32_of(&mut rest, "an array", 8)?,
        })
    }

    /// The types of the parameters of a function, behind type definitions, modifiers and a pointer.
    pub fn parameters(&self, id: TypeId) -> Result<Vec<TypeId>, BtfError> {
        let mut id = self.resolve(id)?;
        let mut found = self.get(id)?;
        if found.kind == Kind::Ptr {
            id = self.resolve(TypeId(found.size_or_target))?;
            found = self.get(id)?;
        }
        if found.kind != Kind::FuncProto {
            return Err(id.is_not("a function's type", found.kind));
        }
        let parameters = found.words().map(|(_name, of)| TypeId(of));
        Ok(parameters.collect())
    }

    /// The names and values of an enumeration of up to 32 bits, behind type definitions and
    /// modifiers, in order.
    pub fn enumerators(&self, id: TypeId) -> Result<Vec<(&'a str, u32)>, BtfError> {
        let id = self.resolve(id)?;
        let found = self.get(id)?;
        if found.kind != Kind::Enum {
            return Err(id.is_not("an enumeration of up to 32 bits", found.kind));
        }
        let named = |(name, value)| Ok((self.string(name)?, value));
        found.words().map(named).collect()
    }

    /// The members of a struct or union, behind type definitions and modifiers, in order;
    /// anonymous ones unopened.
    pub fn members(&self, id: TypeId) -> Result<Vec<Member<'a>>, BtfError> {
        let id = self.resolve(id)?;
        let found = self.get(id)?;
        if !matches!(found.kind, Kind::Struct | Kind::Union) {
            return Err(id.is_not("a struct or union", found.kind));
        }
        let mut rest = found.trailing;
        let mut members = Vec::with_capacity(rest.len() / MEMBER_LEN);
        while !rest.is_empty() {
            let at = found.trailing.len() - rest.len();
            let name = self.string(u32_of(&mut rest, "a member", at)?)?;
            let type_id = TypeId(u32_of(&mut rest, "a member", at)?);
            let offset = u32_of(&mut rest, "a member", at)?;
            // With the flag, the upper 8 bits are the width of a bit field.
            let (bit_offset, [.., bitfield_size]) = if found.kind_flag {
                (offset & 0x00ff_ffff, (offset >> 24).to_be_bytes())
            } else {
                (offset, [0; 4])
            };
            members.push(Member {
                name,
                type_id,
                bit_offset: bit_offset.into(),
                bitfield_size,
            });
        }
        Ok(members)
    }

    /// The member of this name, in the struct or union itself or in an anonymous one inside it.
    pub fn member(&self, id: TypeId, name: &str) -> Result<Option<Member<'a>>, BtfError> {
        // What was opened once and did not have the name does not have it a second time: without
        // this, types that hold each other many times over would take for ever.
        let mut opened = HashSet::new();
        let mut waiting = vec![(self.resolve(id)?, 0_u64)];
        while let Some((id, start)) = waiting.pop() {
            if !opened.insert(id) {
                continue;
            }
            let mut anonymous = Vec::new();
            for member in self.members(id)? {
                let bit_offset = start.saturating_add(member.bit_offset);
                if member.name == name && !name.is_empty() {
                    return Ok(Some(Member {
                        bit_offset,
                        ..member
                    }));
                }
                if member.name.is_empty() {
                    let inner = self.resolve(member.type_id)?;
                    // An anonymous bit field is a gap.
                    if matches!(self.get(inner)?.kind, Kind::Struct | Kind::Union) {
                        anonymous.push((inner, bit_offset));
                    }
                }
            }
            waiting.extend(anonymous.into_iter().rev());
        }
        Ok(None)
    }
}

impl Type<'_> {
    /// What follows, two words at a time.
    fn words(&self) -> impl Iterator<Item = (u32, u32)> {
        let (pairs, _) = self.trailing.as_chunks::<8>();
        pairs.iter().map(|&[a, b, c, d, e, f, g, h]| {
            let name = u32::from_le_bytes([a, b, c, d]);
            (name, u32::from_le_bytes([e, f, g, h]))
        })
    }
}

impl TypeId {
    fn is_not(self, expected: &'static str, found: Kind) -> BtfError {
        BtfError::Unexpected {
            id: self.0,
            found,
            expected,
        }
    }
}
