//! The words of an explanation against its schema: exactly those of the types.

use std::collections::BTreeSet;
use std::fmt;

use rstest::rstest;
use serde::de::{self, DeserializeOwned, Visitor};
use serde::forward_to_deserialize_any;
use serde_json::{Value, json};
use strum::VariantNames as _;

use crate::cluster::finding::{Finding, Severity};
use crate::cluster::front::{Carrier, Delivers, Keeps, System};
use crate::cluster::patch::PatchedKind;
use crate::cluster::plane::Dataplane;
use crate::cluster::{Protocol, ServiceType, TrafficPolicy};
use crate::verdict::advice::ChangeCode;
use crate::verdict::chain::{Door, Loser, Seen, StageKind, Word};
use crate::verdict::{Basis, CauseCode, Outcome, OutcomeCauseCode, SourceIp};

const SCHEMA_FILE: &str = include_str!("../../../schema/observer.explanation.v1.json");

/// Ends the reading of an enum with the words that it has.
struct Words;

/// The words that an enum is read from.
#[derive(Debug)]
struct Told(Vec<&'static str>);

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl std::error::Error for Told {}

impl de::Error for Told {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self(Vec::new())
    }
}

impl<'de> de::Deserializer<'de> for Words {
    type Error = Told;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Told> {
        Err(Told(Vec::new()))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Told> {
        Err(Told(variants.to_vec()))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

fn words<T: DeserializeOwned>() -> Vec<&'static str> {
    T::deserialize(Words).map_or_else(|told| told.0, |_| Vec::new())
}

/// What the schema has at a place, but for null.
fn promised(place: &str) -> BTreeSet<String> {
    let schema: Value = serde_json::from_str(SCHEMA_FILE).expect("the schema is JSON");
    let place = schema.pointer(place).expect("a place of the schema");
    let words = place["enum"].as_array().expect("words").iter();
    words
        .filter_map(|word| word.as_str().map(str::to_owned))
        .collect()
}

const SERVICE: &str = "/$defs/service/properties";
const LOAD_BALANCER: &str = "/$defs/service/properties/load_balancer/oneOf/1/properties";
const WAY: &str = "/$defs/way/properties";

#[rstest]
#[case::type_(&[SERVICE, "type"], words::<ServiceType>())]
#[case::policy(&["/$defs/policy"], words::<TrafficPolicy>())]
#[case::protocol(&["/$defs/protocol"], words::<Protocol>())]
#[case::source_ip(&["/$defs/source_ip"], words::<SourceIp>())]
#[case::cause(&["/$defs/cause"], words::<CauseCode>())]
#[case::outcome(&["/$defs/outcome"], words::<Outcome>())]
#[case::outcome_cause(&["/$defs/outcome_cause"], words::<OutcomeCauseCode>())]
#[case::basis(&[WAY, "kube_proxy/oneOf/1/properties/basis"], words::<Basis>())]
#[case::patched(
    &[SERVICE, "advice/items/properties/patches/items/properties/kind"], words::<PatchedKind>()
)]
#[case::change(&[SERVICE, "advice/items/properties/code"], ChangeCode::VARIANTS.to_vec())]
#[case::finding(&["/$defs/findings/items/properties/code"], Finding::VARIANTS.to_vec())]
#[case::verdict(&[SERVICE, "verdict/properties/code"], Word::VARIANTS.to_vec())]
#[case::delivers(&[LOAD_BALANCER, "delivers"], Delivers::VARIANTS.to_vec())]
#[case::keeps(&["/$defs/keeps"], Keeps::VARIANTS.to_vec())]
#[case::carrier(&["/$defs/carriers/items"], Carrier::VARIANTS.to_vec())]
#[case::system(&["/$defs/system"], System::VARIANTS.to_vec())]
#[case::dataplane(&["/properties/dataplane/properties/what"], Dataplane::VARIANTS.to_vec())]
#[case::door(&[WAY, "door"], Door::VARIANTS.to_vec())]
#[case::seen(&["/$defs/seen"], Seen::VARIANTS.to_vec())]
#[case::loser(&["/$defs/loser"], Loser::VARIANTS.to_vec())]
#[case::stage(&[WAY, "stages/items/properties/kind"], StageKind::VARIANTS.to_vec())]
fn the_schema_has_the_words_of_the_type(#[case] place: &[&str], #[case] words: Vec<&str>) {
    let words: BTreeSet<_> = words.into_iter().map(str::to_owned).collect();
    assert!(words.len() > 1, "{words:?}");
    assert_eq!(promised(&place.join("/")), words);
}

#[test]
fn the_schema_has_the_severities() {
    let all = [Severity::Broken, Severity::Loses, Severity::Note];
    let words = all
        .iter()
        .filter_map(|it| json!(it).as_str().map(str::to_owned));
    let place = "/$defs/findings/items/properties/severity";
    assert_eq!(promised(place), words.collect());
}
