//! Writes BTF, for tests.

use super::wire::{HEADER_LEN, HEADER_LEN_LAYOUT, MAGIC, VERSION};

/// The kind numbers of `include/uapi/linux/btf.h`.
pub(crate) mod kind {
    pub(crate) const INT: u32 = 1;
    pub(crate) const PTR: u32 = 2;
    pub(crate) const ARRAY: u32 = 3;
    pub(crate) const STRUCT: u32 = 4;
    pub(crate) const UNION: u32 = 5;
    pub(crate) const ENUM: u32 = 6;
    pub(crate) const FWD: u32 = 7;
    pub(crate) const TYPEDEF: u32 = 8;
    pub(crate) const VOLATILE: u32 = 9;
    pub(crate) const CONST: u32 = 10;
    pub(crate) const RESTRICT: u32 = 11;
    pub(crate) const FUNC: u32 = 12;
    pub(crate) const FUNC_PROTO: u32 = 13;
    pub(crate) const VAR: u32 = 14;
    pub(crate) const DATASEC: u32 = 15;
    pub(crate) const FLOAT: u32 = 16;
    pub(crate) const DECL_TAG: u32 = 17;
    pub(crate) const TYPE_TAG: u32 = 18;
    pub(crate) const ENUM64: u32 = 19;
}

/// A description while it is written.
#[derive(Clone)]
pub(crate) struct Builder {
    types: Vec<u8>,
    strings: Vec<u8>,
    layout: Vec<u8>,
    next_type: u32,
    first_string: u32,
}

impl Builder {
    /// One that stands alone.
    pub(crate) fn new() -> Self {
        Self {
            types: Vec::new(),
            strings: vec![0],
            layout: Vec::new(),
            next_type: 1,
            first_string: 0,
        }
    }

    /// One that continues this one.
    pub(crate) fn split(&self) -> Self {
        Self::on(self.next_type, self.first_string + len(&self.strings))
    }

    /// One that continues a description with these numbers after its last type and string.
    pub(crate) fn on(next_type: u32, first_string: u32) -> Self {
        Self {
            types: Vec::new(),
            strings: Vec::new(),
            layout: Vec::new(),
            next_type,
            first_string,
        }
    }

    /// Tells how long types of a kind are: what follows once, and what for each of its elements.
    pub(crate) fn layout(&mut self, kind: u32, [info_size, element_size]: [u8; 2]) {
        let start = kind as usize * 4;
        self.layout.resize(self.layout.len().max(start + 4), 0);
        self.layout[start..start + 2].copy_from_slice(&[info_size, element_size]);
    }

    /// The offset of a string, which is added.
    pub(crate) fn string(&mut self, text: &str) -> u32 {
        if text.is_empty() {
            return 0;
        }
        let offset = self.first_string + len(&self.strings);
        self.strings.extend(text.bytes().chain([0]));
        offset
    }

    /// Adds a type: `info` is its kind, with flag and length if any; `trailing` what follows.
    pub(crate) fn add(
        &mut self,
        name: &str,
        info: [u32; 3],
        size_or_target: u32,
        trailing: &[u32],
    ) -> u32 {
        let [kind, flag, len] = info;
        let name = self.string(name);
        for word in [name, flag << 31 | kind << 24 | len, size_or_target]
            .iter()
            .chain(trailing)
        {
            self.types.extend(word.to_le_bytes());
        }
        self.next_type += 1;
        self.next_type - 1
    }

    pub(crate) fn int(&mut self, name: &str, bytes: u32) -> u32 {
        self.add(name, [kind::INT, 0, 0], bytes, &[bytes * 8])
    }

    /// A type that is another one: a modifier, pointer, type definition, function or variable.
    pub(crate) fn other(&mut self, kind: u32, name: &str, of: u32) -> u32 {
        self.add(name, [kind, 0, 0], of, &[])
    }

    pub(crate) fn array(&mut self, element: u32, len: u32) -> u32 {
        self.add("", [kind::ARRAY, 0, 0], 0, &[element, 0, len])
    }

    /// A struct or union; members are name, type and bit offset.
    pub(crate) fn compound(
        &mut self,
        kind: u32,
        name: &str,
        bytes: u32,
        members: &[(&str, u32, u32)],
    ) -> u32 {
        self.flagged(kind, 0, name, bytes, members)
    }

    /// As [`Builder::compound`], with `kind_flag`.
    pub(crate) fn flagged(
        &mut self,
        kind: u32,
        flag: u32,
        name: &str,
        bytes: u32,
        members: &[(&str, u32, u32)],
    ) -> u32 {
        let words: Vec<u32> = members
            .iter()
            .flat_map(|&(name, type_id, offset)| [self.string(name), type_id, offset])
            .collect();
        let len = u32::try_from(members.len()).expect("few members");
        self.add(name, [kind, flag, len], bytes, &words)
    }

    /// The bytes, header first.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let header_len = if self.layout.is_empty() {
            HEADER_LEN
        } else {
            HEADER_LEN_LAYOUT
        };
        let mut bytes = Vec::new();
        bytes.extend(MAGIC.to_le_bytes());
        bytes.extend([VERSION, 0]);
        bytes.extend(u32::try_from(header_len).expect("small").to_le_bytes());
        let (types, strings) = (len(&self.types), len(&self.strings));
        for word in [0, types, types, strings, types + strings, len(&self.layout)] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.truncate(header_len);
        bytes.extend(&self.types);
        bytes.extend(&self.strings);
        bytes.extend(&self.layout);
        bytes
    }
}

fn len(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("a test's BTF is small")
}
