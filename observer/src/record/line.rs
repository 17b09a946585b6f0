//! A record as a line of JSON.
//!
//! Half of what a connection costs is its line, and most of a line is names of fields and words,
//! none of which needs an escape. What does, and whatever else is not as in most records,
//! `serde_json` writes, so that the bytes are always its own.

use serde::Serialize;
use serde::ser::{Error as _, Impossible, SerializeSeq, SerializeStruct, Serializer};
use serde_json::Error;

use super::Record;

/// Adds a record and a line end; nothing, if there is an error.
pub fn write_line(bytes: &mut Vec<u8>, record: &Record) -> Result<(), Error> {
    let start = bytes.len();
    write(bytes, record).inspect_err(|_| bytes.truncate(start))?;
    bytes.push(b'\n');
    Ok(())
}

/// What `serde_json` writes of a value.
fn write(bytes: &mut Vec<u8>, value: &impl Serialize) -> Result<(), Error> {
    let start = bytes.len();
    if value.serialize(Writer(bytes)).is_ok() {
        return Ok(());
    }
    bytes.truncate(start);
    serde_json::to_writer(bytes, value)
}

/// Whether a string is written as it is (RFC 8259, 7). Without a way out of the loop, so that many
/// bytes are looked at at once.
#[expect(
    clippy::needless_bitwise_bool,
    reason = "the others would be ways out of the loop"
)]
fn is_plain(text: &str) -> bool {
    let escaped = |byte: u8| (byte < 0x20) | (byte == b'"') | (byte == b'\\');
    !text
        .bytes()
        .fold(false, |found, byte| found | escaped(byte))
}

/// Writes what records are made of; an error where something else is met.
struct Writer<'a>(&'a mut Vec<u8>);

/// Elements of an array, or fields of an object.
struct Elements<'a> {
    bytes: &'a mut Vec<u8>,
    is_first: bool,
}

impl<'a> Elements<'a> {
    fn begin(bytes: &'a mut Vec<u8>, by: u8) -> Self {
        bytes.push(by);
        Self {
            bytes,
            is_first: true,
        }
    }

    fn separate(&mut self) {
        if !self.is_first {
            self.bytes.push(b',');
        }
        self.is_first = false;
    }
}

impl SerializeSeq for Elements<'_> {
    type Ok = ();
    type Error = Error;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        self.separate();
        value.serialize(Writer(self.bytes))
    }

    fn end(self) -> Result<(), Error> {
        self.bytes.push(b']');
        Ok(())
    }
}

impl SerializeStruct for Elements<'_> {
    type Ok = ();
    type Error = Error;

    // The names' lengths are known where it is called: copying them is a few moves there.
    #[inline(always)]
    #[expect(
        clippy::inline_always,
        reason = "a constant is copied by moves only where it is known"
    )]
    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        key: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        self.separate();
        // The name of a field.
        self.bytes.push(b'"');
        self.bytes.extend_from_slice(key.as_bytes());
        self.bytes.extend_from_slice(b"\":");
        value.serialize(Writer(self.bytes))
    }

    fn end(self) -> Result<(), Error> {
        self.bytes.push(b'}');
        Ok(())
    }
}

/// No record has such.
fn not_in_a_record<T>() -> Result<T, Error> {
    Err(Error::custom("no record has such a value"))
}

macro_rules! by_serde_json {
    ($($method:ident($value:ty);)*) => {
        $(fn $method(self, value: $value) -> Result<(), Error> {
            serde_json::Serializer::new(self.0).$method(value)
        })*
    };
}

impl<'a> Serializer for Writer<'a> {
    type Ok = ();
    type Error = Error;
    type SerializeSeq = Elements<'a>;
    type SerializeTuple = Impossible<(), Error>;
    type SerializeTupleStruct = Impossible<(), Error>;
    type SerializeTupleVariant = Impossible<(), Error>;
    type SerializeMap = Impossible<(), Error>;
    type SerializeStruct = Elements<'a>;
    type SerializeStructVariant = Impossible<(), Error>;

    by_serde_json! {
        serialize_bool(bool);
        serialize_i8(i8);
        serialize_i16(i16);
        serialize_i32(i32);
        serialize_i64(i64);
        serialize_u8(u8);
        serialize_u16(u16);
        serialize_u32(u32);
        serialize_u64(u64);
        serialize_f32(f32);
        serialize_f64(f64);
        serialize_char(char);
        serialize_bytes(&[u8]);
    }

    fn serialize_str(self, text: &str) -> Result<(), Error> {
        let Self(bytes) = self;
        if !is_plain(text) {
            return serde_json::to_writer(bytes, text);
        }
        bytes.push(b'"');
        bytes.extend_from_slice(text.as_bytes());
        bytes.push(b'"');
        Ok(())
    }

    fn serialize_none(self) -> Result<(), Error> {
        self.serialize_unit()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), Error> {
        self.0.extend_from_slice(b"null");
        Ok(())
    }

    fn serialize_unit_struct(self, _name: &'static str) -> Result<(), Error> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
    ) -> Result<(), Error> {
        // A word of the vocabulary needs no escape either.
        let Self(bytes) = self;
        bytes.push(b'"');
        bytes.extend_from_slice(variant.as_bytes());
        bytes.push(b'"');
        Ok(())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        _index: u32,
        _variant: &'static str,
        _value: &T,
    ) -> Result<(), Error> {
        not_in_a_record()
    }

    fn serialize_seq(self, _length: Option<usize>) -> Result<Elements<'a>, Error> {
        Ok(Elements::begin(self.0, b'['))
    }

    fn serialize_tuple(self, _length: usize) -> Result<Self::SerializeTuple, Error> {
        not_in_a_record()
    }

    fn serialize_tuple_struct(
        self,
        _name: &'static str,
        _length: usize,
    ) -> Result<Self::SerializeTupleStruct, Error> {
        not_in_a_record()
    }

    fn serialize_tuple_variant(
        self,
        _name: &'static str,
        _index: u32,
        _variant: &'static str,
        _length: usize,
    ) -> Result<Self::SerializeTupleVariant, Error> {
        not_in_a_record()
    }

    fn serialize_map(self, _length: Option<usize>) -> Result<Self::SerializeMap, Error> {
        not_in_a_record()
    }

    fn serialize_struct(self, _name: &'static str, _length: usize) -> Result<Elements<'a>, Error> {
        Ok(Elements::begin(self.0, b'{'))
    }

    fn serialize_struct_variant(
        self,
        _name: &'static str,
        _index: u32,
        _variant: &'static str,
        _length: usize,
    ) -> Result<Self::SerializeStructVariant, Error> {
        not_in_a_record()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::IpAddr;

    use proptest::prelude::*;

    use super::*;

    /// Of everything that a record may have, and of what none has.
    #[derive(Debug, Serialize)]
    #[serde(rename_all = "kebab-case")]
    struct Sample {
        some_text: String,
        number: Option<i64>,
        ip: IpAddr,
        list: Vec<Inner>,
        map: Option<BTreeMap<String, String>>,
        word: Word,
    }

    #[derive(Debug, Serialize)]
    struct Inner {
        is: bool,
        letter: char,
        ratio: f64,
    }

    #[derive(Debug, Serialize)]
    #[serde(rename_all = "kebab-case")]
    enum Word {
        OfTwo,
        With(u8),
    }

    proptest! {
        #[test]
        fn the_bytes_are_serde_jsons(
            text in any::<String>(),
            number in any::<Option<i64>>(),
            ip in any::<IpAddr>(),
            list in prop::collection::vec((any::<bool>(), any::<char>(), any::<f64>()), 0..3),
            map in prop::option::weighted(
                0.2,
                prop::collection::btree_map(any::<String>(), any::<String>(), 0..3),
            ),
            with in prop::option::weighted(0.2, any::<u8>()),
        ) {
            let list = list.into_iter().map(|(is, letter, ratio)| Inner { is, letter, ratio });
            let sample = Sample {
                some_text: text,
                number,
                ip,
                list: list.collect(),
                map,
                word: with.map_or(Word::OfTwo, Word::With),
            };
            let mut bytes = b"before".to_vec();
            write(&mut bytes, &sample).expect("JSON");
            let expected = serde_json::to_string(&sample).expect("JSON");
            prop_assert_eq!(String::from_utf8_lossy(&bytes), format!("before{expected}"));
        }
    }
}
