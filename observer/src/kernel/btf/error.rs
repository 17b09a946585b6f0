//! What can be wrong.

use super::Kind;
use super::wire::{MAGIC, VERSION};

/// What is wrong with a description, or why it does not answer. Offsets are in bytes, from the
/// start of the section that is named.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BtfError {
    /// It does not start with the magic number.
    #[error("starts with {0:#06x}, not with the magic number {MAGIC:#06x}")]
    Magic(u16),
    /// It comes from a machine with the other byte order.
    #[error("is in the byte order of another machine")]
    ByteOrder,
    /// A version of the future.
    #[error("is of version {0}, not {VERSION}")]
    Version(u8),
    /// The bytes end early, or a length is wrong.
    #[error("{what} at offset {offset} reaches beyond the end")]
    Truncated {
        /// What could not be read.
        what: &'static str,
        /// Where it starts.
        offset: usize,
    },
    /// A kind of the future, without the layout section that would tell its length, or none at
    /// all; what follows cannot be found.
    #[error("type {id} at offset {offset} is of the unknown kind {kind}")]
    UnknownKind {
        /// The type's number.
        id: u32,
        /// Where it starts in the type section.
        offset: usize,
        /// The number of the kind.
        kind: u8,
    },
    /// More types than there are numbers.
    #[error("has more types than numbers for them")]
    TooManyTypes,
    /// A string that is not there, or is no text.
    #[error("there is no string at offset {0}")]
    NoString(u32),
    /// A type number that no type has.
    #[error("there is no type {0}")]
    NoType(u32),
    /// A type of another kind than the question makes sense for.
    #[error("type {id} is {found}, not {expected}")]
    Unexpected {
        /// The type's number.
        id: u32,
        /// What it is.
        found: Kind,
        /// What it should be.
        expected: &'static str,
    },
    /// Types that refer to each other in a circle, or nearly.
    #[error("type {0} is too deeply nested")]
    TooDeep(u32),
    /// A size that no type can have.
    #[error("type {0} is too large")]
    TooLarge(u32),
}
