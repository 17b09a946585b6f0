//! Where in a document each value is. Read only of a document with which something is wrong.

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

use super::document::options;
use super::problem::Place;
use crate::cluster::Step;

/// A value's place, and those of what is in it.
#[derive(Debug)]
struct Tree(Spanned<Inside>);

#[derive(Debug)]
enum Inside {
    Nothing,
    Items(Vec<Tree>),
    Fields(Vec<(String, Tree)>),
}

/// The places of all values of a document.
#[derive(Debug)]
pub(super) struct Places(Tree);

impl Places {
    /// Those of a document of this text, if it can be read so.
    pub(super) fn of(text: &str) -> Option<Self> {
        serde_saphyr::from_str_with_options(text, options())
            .ok()
            .map(Self)
    }

    /// The place of the value at the end of a path, or of what comes nearest to it.
    pub(super) fn find(&self, path: &[Step]) -> Option<Place> {
        let mut at = &self.0;
        for step in path {
            let Some(next) = at.step(step) else { break };
            at = next;
        }
        let location = at.0.referenced;
        Some(Place {
            line: usize::try_from(location.line()).ok()?,
            column: usize::try_from(location.column()).ok()?,
        })
        .filter(|place| place.line > 0)
    }
}

impl Tree {
    fn step(&self, step: &Step) -> Option<&Self> {
        match (step, &self.0.value) {
            (Step::Field(name), Inside::Fields(fields)) => {
                let field = fields.iter().find(|(field, _)| field == name);
                field.map(|(_, value)| value)
            }
            (Step::Item(index), Inside::Items(items)) => items.get(*index),
            _ => None,
        }
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        Spanned::deserialize(reader).map(Self)
    }
}

impl<'de> Deserialize<'de> for Inside {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        reader.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Inside;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Inside, A::Error> {
        let mut all = Vec::new();
        while let Some(item) = items.next_element()? {
            all.push(item);
        }
        Ok(Inside::Items(all))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Inside, A::Error> {
        let mut all = Vec::new();
        while let Some(field) = fields.next_entry()? {
            all.push(field);
        }
        Ok(Inside::Fields(all))
    }

    fn visit_some<D: Deserializer<'de>>(self, reader: D) -> Result<Inside, D::Error> {
        IgnoredAny::deserialize(reader).map(|IgnoredAny| Inside::Nothing)
    }

    fn visit_unit<E>(self) -> Result<Inside, E> {
        Ok(Inside::Nothing)
    }

    fn visit_none<E>(self) -> Result<Inside, E> {
        Ok(Inside::Nothing)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Inside, E> {
        Ok(Inside::Nothing)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Inside, E> {
        Ok(Inside::Nothing)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Inside, E> {
        Ok(Inside::Nothing)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Inside, E> {
        Ok(Inside::Nothing)
    }

    fn visit_str<E>(self, _: &str) -> Result<Inside, E> {
        Ok(Inside::Nothing)
    }
}
