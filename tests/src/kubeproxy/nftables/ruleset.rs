//! A table as text: what `nft -f` takes and `nft list` gives, object by object.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use anyhow::{Context as _, Result, bail, ensure};

use super::{TABLE, word};
use crate::kubeproxy::Family;

/// The table of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruleset {
    family: Family,
    /// What the table says of itself.
    properties: Vec<String>,
    objects: BTreeMap<(Kind, String), Object>,
}

/// What a table holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Keys.
    Set,
    /// Keys and what they lead to.
    Map,
    /// Rules in order.
    Chain,
}

/// One set, map or chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Object {
    /// A chain's rules, and what it or a set says of itself, one a line and in order.
    pub lines: Vec<String>,
    /// What a set or a map holds, in no order.
    pub elements: BTreeSet<Element>,
}

/// A key of a set; of a map, with what it leads to.
pub type Element = String;

impl Kind {
    const ALL: [Self; 3] = [Self::Set, Self::Map, Self::Chain];

    fn as_str(self) -> &'static str {
        match self {
            Self::Set => "set",
            Self::Map => "map",
            Self::Chain => "chain",
        }
    }
}

impl Ruleset {
    /// A table with nothing in it but what it says of itself.
    pub fn new(family: Family, comment: &str) -> Self {
        Self {
            family,
            properties: vec![format!("comment \"{comment}\"")],
            objects: BTreeMap::new(),
        }
    }

    /// Its family.
    pub fn family(&self) -> Family {
        self.family
    }

    /// An object, to be changed; made if it is not there.
    pub fn object(&mut self, kind: Kind, name: &str) -> &mut Object {
        self.objects.entry((kind, name.to_owned())).or_default()
    }

    /// Every object, by kind and name.
    pub fn objects(&self) -> impl Iterator<Item = (Kind, &str, &Object)> {
        self.objects
            .iter()
            .map(|((kind, name), object)| (*kind, name.as_str(), object))
    }

    /// Reads the table of a family from what `nft list` printed, maybe among others.
    pub fn parse(text: &str, family: Family) -> Result<Self> {
        let start = format!("table {} {TABLE} {{", word(family));
        let mut lines = text.lines().map(str::trim);
        lines
            .find(|line| *line == start)
            .with_context(|| format!("there is no {start:?}"))?;
        let mut rules = Self {
            family,
            properties: Vec::new(),
            objects: BTreeMap::new(),
        };
        while let Some(line) = lines.next() {
            if line == "}" {
                return Ok(rules);
            }
            if line.is_empty() {
                continue;
            }
            let Some(opened) = line.strip_suffix(" {") else {
                rules.properties.push(line.to_owned());
                continue;
            };
            let kind = |word: &str| Kind::ALL.into_iter().find(|kind| kind.as_str() == word);
            let (kind, name) = opened
                .split_once(' ')
                .and_then(|(word, name)| Some((kind(word)?, name)))
                .with_context(|| format!("{line:?} begins no set, map or chain"))?;
            let object = Object::parse(&mut lines)
                .with_context(|| format!("the {} {name}", kind.as_str()))?;
            rules.objects.insert((kind, name.to_owned()), object);
        }
        bail!("the table has no end");
    }
}

impl Object {
    fn parse<'text>(lines: &mut impl Iterator<Item = &'text str>) -> Result<Self> {
        let mut object = Self::default();
        while let Some(line) = lines.next() {
            if line == "}" {
                return Ok(object);
            }
            let Some(first) = line.strip_prefix("elements = {") else {
                object.lines.push(line.to_owned());
                continue;
            };
            let mut elements = first.to_owned();
            while !elements.ends_with('}') {
                elements.push_str(lines.next().context("its elements have no end")?);
            }
            elements.pop();
            // Nothing that kube-proxy writes into a comment has a comma in it.
            for element in elements.split(',').map(str::trim) {
                ensure!(
                    object.elements.insert(element.to_owned()),
                    "{element:?} is in it twice"
                );
            }
        }
        bail!("it has no end");
    }
}

/// The input of `nft -f` that replaces the table.
impl fmt::Display for Ruleset {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            family,
            properties,
            objects,
        } = self;
        let table = format!("table {} {TABLE}", word(*family));
        // Adding it first makes the deletion safe where it does not exist.
        writeln!(formatter, "add {table}\ndelete {table}\n{table} {{")?;
        for property in properties {
            writeln!(formatter, "\t{property}")?;
        }
        for ((kind, name), Object { lines, elements }) in objects {
            writeln!(formatter, "\t{} {name} {{", kind.as_str())?;
            for line in lines {
                writeln!(formatter, "\t\t{line}")?;
            }
            if !elements.is_empty() {
                let elements: Vec<&str> = elements.iter().map(String::as_str).collect();
                writeln!(
                    formatter,
                    "\t\telements = {{ {} }}",
                    elements.join(",\n\t\t\t     ")
                )?;
            }
            writeln!(formatter, "\t}}")?;
        }
        writeln!(formatter, "}}")
    }
}

/// What differs between what we have and what was recorded: object by object, line by line,
/// element by element. The order of objects and elements means nothing and is free.
pub fn differences(ours: &Ruleset, recorded: &Ruleset) -> Vec<String> {
    let mut found = Vec::new();
    if ours.properties != recorded.properties {
        found.push(format!(
            "the table says {:?}, not {:?}",
            ours.properties, recorded.properties
        ));
    }
    for ((kind, name), object) in &ours.objects {
        let what = format!("{} {name}", kind.as_str());
        match recorded.objects.get(&(*kind, name.clone())) {
            None => found.push(format!("{what}: it is not in the recording")),
            Some(recorded) => found.extend(
                object_differences(object, recorded)
                    .map(|difference| format!("{what}: {difference}")),
            ),
        }
    }
    let missing = recorded
        .objects
        .keys()
        .filter(|key| !ours.objects.contains_key(key));
    found.extend(missing.map(|(kind, name)| format!("{} {name}: it is missing", kind.as_str())));
    found
}

fn object_differences(ours: &Object, recorded: &Object) -> impl Iterator<Item = String> {
    let mut found = Vec::new();
    for number in 0..ours.lines.len().max(recorded.lines.len()) {
        let (ours, recorded) = (ours.lines.get(number), recorded.lines.get(number));
        if ours.map(|line| without_set_of_one(line))
            != recorded.map(|line| without_set_of_one(line))
        {
            let show = |line: Option<&String>| line.map_or("(none)", String::as_str).to_owned();
            found.push(format!(
                "line {}\n    is  {}\n    not {}",
                number + 1,
                show(ours),
                show(recorded)
            ));
        }
    }
    let only = |these: &Object, those: &Object, how: &str| -> Vec<String> {
        let elements = these.elements.difference(&those.elements);
        elements
            .map(|element| format!("the element {element} {how}"))
            .collect()
    };
    found.extend(only(ours, recorded, "is not in the recording"));
    found.extend(only(recorded, ours, "is missing"));
    found.into_iter()
}

/// A line that compares with one address or range as with a set of them. Which of the two nft
/// makes of `{ a }` depends on how many there were before it merged them.
fn without_set_of_one(line: &str) -> String {
    let one = line
        .split_once(" { ")
        .and_then(|(before, rest)| Some((before, rest.split_once(" } ")?)))
        .filter(|(_, (one, _))| !one.contains(' '));
    one.map_or_else(
        || line.to_owned(),
        |(before, (one, after))| format!("{before} {one} {after}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTED: &str = "table ip other {\n}\ntable ip kube-proxy {\n\tcomment \"rules for kube-proxy\"\n\
        \tset cluster-ips {\n\t\ttype ipv4_addr\n\t\tcomment \"Active ClusterIPs\"\n\
        \t\telements = { 10.96.0.1, 10.96.3.155,\n\t\t\t     10.96.16.91 }\n\t}\n\n\
        \tmap service-ips {\n\t\ttype ipv4_addr . inet_proto . inet_service : verdict\n\
        \t\telements = { 10.96.0.1 . tcp . 443 : goto service-A }\n\t}\n\n\
        \tchain services {\n\t\tip daddr . meta l4proto . th dport vmap @service-ips\n\t\tdrop\n\t}\n\n\
        \tchain service-A {\n\t}\n}\ntable ip6 kube-proxy {\n}\n";

    fn listed() -> Ruleset {
        Ruleset::parse(LISTED, Family::V4).expect("parses")
    }

    #[test]
    fn what_is_written_reads_back_the_same() {
        let written = listed().to_string();
        assert_eq!(
            Ruleset::parse(&written, Family::V4).expect("parses"),
            listed()
        );
        assert_eq!(listed().objects().count(), 4);
    }

    #[test]
    fn every_kind_of_difference_is_found() {
        let change: [fn(&mut Ruleset); 6] = [
            |rules| rules.properties.clear(),
            |rules| drop(rules.objects.remove(&(Kind::Set, "cluster-ips".to_owned()))),
            |rules| rules.object(Kind::Chain, "services").lines.swap(0, 1),
            |rules| {
                rules
                    .object(Kind::Chain, "service-A")
                    .lines
                    .push("drop".to_owned());
            },
            |rules| rules.object(Kind::Map, "service-ips").elements.clear(),
            |rules| drop(rules.object(Kind::Set, "cluster-ips").elements.pop_first()),
        ];
        for (number, change) in change.into_iter().enumerate() {
            let mut ours = listed();
            change(&mut ours);
            assert!(!differences(&ours, &listed()).is_empty(), "change {number}");
            assert!(
                !differences(&listed(), &ours).is_empty(),
                "change {number}, the other way"
            );
        }
        assert_eq!(differences(&listed(), &listed()), [] as [String; 0]);
    }

    #[test]
    fn only_a_set_of_one_is_as_good_as_what_is_in_it() {
        for (line, same) in [
            (
                "ip6 saddr != { fd99::/64 } drop",
                "ip6 saddr != fd99::/64 drop",
            ),
            (
                "ip saddr != { 10.0.0.1, 10.0.0.2 } drop",
                "ip saddr != { 10.0.0.1, 10.0.0.2 } drop",
            ),
            (
                "update @affinity { ip saddr }",
                "update @affinity { ip saddr }",
            ),
            (
                "map { 0 : drop } comment \"x\"",
                "map { 0 : drop } comment \"x\"",
            ),
        ] {
            assert_eq!(without_set_of_one(line), same);
        }
    }

    #[test]
    fn what_is_no_table_is_refused() {
        for text in [
            "table ip other {\n}\n",
            "table ip kube-proxy {\n",
            "table ip kube-proxy {\n\tset a {\n",
            "table ip kube-proxy {\n\tcounter a {\n\t}\n}\n",
            "table ip kube-proxy {\n\tset a {\n\t\telements = { b, b }\n\t}\n}\n",
        ] {
            Ruleset::parse(text, Family::V4).expect_err(text);
        }
    }
}
