//! The kinds of types.

use std::fmt;

/// What kind of thing a type is (`BTF_KIND_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// An integer.
    Int,
    /// A pointer.
    Ptr,
    /// An array.
    Array,
    /// A struct with its members.
    Struct,
    /// A union with its members.
    Union,
    /// An enumeration of up to 32 bits.
    Enum,
    /// A struct or union of which only the name is told.
    Fwd,
    /// Another name for a type.
    Typedef,
    /// A modifier.
    Volatile,
    /// A modifier.
    Const,
    /// A modifier.
    Restrict,
    /// A function.
    Func,
    /// A function's parameters and result.
    FuncProto,
    /// A global variable.
    Var,
    /// A section of an object file.
    Datasec,
    /// A floating point number.
    Float,
    /// A tag of a declaration.
    DeclTag,
    /// A tag of a type; a modifier.
    TypeTag,
    /// An enumeration of up to 64 bits.
    Enum64,
    /// A kind that came after this reader: its number.
    Other(u8),
}

impl Kind {
    /// The kind of this number (`BTF_KIND_*`).
    pub(super) const fn from_number(number: u8) -> Self {
        match number {
            1 => Self::Int,
            2 => Self::Ptr,
            3 => Self::Array,
            4 => Self::Struct,
            5 => Self::Union,
            6 => Self::Enum,
            7 => Self::Fwd,
            8 => Self::Typedef,
            9 => Self::Volatile,
            10 => Self::Const,
            11 => Self::Restrict,
            12 => Self::Func,
            13 => Self::FuncProto,
            14 => Self::Var,
            15 => Self::Datasec,
            16 => Self::Float,
            17 => Self::DeclTag,
            18 => Self::TypeTag,
            19 => Self::Enum64,
            other => Self::Other(other),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Int => "an integer",
            Self::Ptr => "a pointer",
            Self::Array => "an array",
            Self::Struct => "a struct",
            Self::Union => "a union",
            Self::Enum | Self::Enum64 => "an enumeration",
            Self::Fwd => "a forward declaration",
            Self::Typedef => "a type definition",
            Self::Volatile | Self::Const | Self::Restrict => "a modifier",
            Self::Func | Self::FuncProto => "a function",
            Self::Var => "a variable",
            Self::Datasec => "a section",
            Self::Float => "a floating point number",
            Self::DeclTag | Self::TypeTag => "a tag",
            Self::Other(_) => "of an unknown kind",
        })
    }
}
