//! Whether what is explained is what documents say.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::{Map, Value};

use super::{Expectation, Host, Outcome, Way};

/// Where an explanation disagrees with what documents say.
pub(super) fn disagreements(expectation: &Expectation, explanation: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for way in &expectation.expect {
        way.compare(explanation, &mut found);
    }
    for host in &expectation.hosts {
        host.compare(explanation, &mut found);
    }
    findings(&expectation.findings, explanation, &mut found);
    found
}

impl Way {
    fn compare(&self, explanation: &Value, found: &mut Vec<String>) {
        let is_it = |service: &&Value| named(&service["service"]) == self.service;
        let Some(service) = all(&explanation["services"]).find(is_it) else {
            found.push(format!("{self}: the Service is not explained"));
            return;
        };
        let meant: Vec<&Value> = all(&service["ways"])
            .filter(|way| self.means(way))
            .collect();
        if meant.is_empty() {
            let ways: Vec<String> = all(&service["ways"]).map(in_short).collect();
            found.push(format!(
                "{self}: no such way; there are:{}",
                lines(ways.iter().map(String::as_str))
            ));
        }
        for node in self.nodes.iter().flatten() {
            if !meant.is_empty() && !meant.iter().any(|way| enters(way, node)) {
                found.push(format!("{self}: no way enters by {node}"));
            }
        }
        for way in meant {
            let wrong = differences(&self.expected, way);
            if !wrong.is_empty() {
                let wrong = lines(wrong.iter().map(String::as_str));
                found.push(format!("{self}:{wrong}\n    of {}", in_short(way)));
            }
        }
    }

    fn means(&self, way: &Value) -> bool {
        let is = |name: &str, word: Option<&str>| word.is_none_or(|word| way[name] == word);
        let word = |word: &Value| word.as_str().map(str::to_owned);
        let (door, client) = (word(&value(&self.door)), word(&value(&self.client)));
        let is_here = match &self.nodes {
            Some(nodes) => nodes.iter().any(|node| enters(way, node)),
            None => {
                way["left_out"] != true
                    && (self.expected.outcome.is_some()
                        || way["outcome"] == value(&Outcome::Answered))
            }
        };
        is_here
            && is("door", door.as_deref())
            && is("client", client.as_deref())
            && is("by", self.by.as_deref())
            && is("protocol", self.protocol.as_deref())
    }
}

impl std::fmt::Display for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let word = |word: Value| word.as_str().unwrap_or_default().to_owned();
        let (door, client) = (word(value(&self.door)), word(value(&self.client)));
        write!(f, "{} by {door} from {client}", self.service)?;
        for (name, word) in [("by", &self.by), ("protocol", &self.protocol)] {
            if let Some(word) = word {
                write!(f, ", {name} {word}")?;
            }
        }
        match &self.nodes {
            Some(nodes) => write!(f, ", at {}", nodes.join(" and ")),
            None => Ok(()),
        }
    }
}

impl Host {
    fn compare(&self, explanation: &Value, found: &mut Vec<String>) {
        let is_it = |host: &&Value| {
            host["workload"] == self.workload.as_str()
                && host["protocol"] == self.protocol.as_str()
                && host["port"] == self.port
        };
        let this = format!("{}, {} {}", self.workload, self.protocol, self.port);
        let Some(host) = all(&explanation["hosts"]).find(is_it) else {
            found.push(format!(
                "{this}: not explained; there are: {}",
                explanation["hosts"]
            ));
            return;
        };
        let wrong = differences(self, host);
        if !wrong.is_empty() {
            found.push(format!(
                "{this}:{}",
                lines(wrong.iter().map(String::as_str))
            ));
        }
    }
}

/// What is expected must be found; what breaks or loses must be expected.
fn findings(expected: &[String], explanation: &Value, found: &mut Vec<String>) {
    let of_services = all(&explanation["services"]).flat_map(|service| all(&service["findings"]));
    let said: Vec<&Value> = of_services.chain(all(&explanation["findings"])).collect();
    let codes: BTreeSet<&str> = said
        .iter()
        .filter_map(|finding| finding["code"].as_str())
        .collect();
    for code in expected {
        if !codes.contains(code.as_str()) {
            found.push(format!("{code} is not found, but {codes:?}"));
        }
    }
    for finding in said {
        let is_expected = expected.iter().any(|code| finding["code"] == code.as_str());
        if finding["severity"] != "note" && !is_expected {
            found.push(format!("found unexpectedly: {finding}"));
        }
    }
}

/// In which fields something said is not what is expected. The order of what is in a list does
/// not matter.
fn differences(expected: &impl Serialize, said: &Value) -> Vec<String> {
    let Value::Object(expected) = value(expected) else {
        return Vec::new();
    };
    let mut wrong = Vec::new();
    for (name, expected) in &expected {
        let said = said.get(name).unwrap_or(&Value::Null);
        if sorted(expected) != sorted(said) {
            wrong.push(format!("{name}: expected {expected}, said {said}"));
        }
    }
    wrong
}

fn sorted(value: &Value) -> Value {
    let mut value = value.clone();
    if let Value::Array(items) = &mut value {
        items.sort_by_key(Value::to_string);
    }
    value
}

/// A way without what led to it.
fn in_short(way: &Value) -> String {
    let fields = way.as_object().into_iter().flatten();
    let short = |(name, _): &(&String, &Value)| name.as_str() != "stages";
    let short = fields.filter(short);
    let short: Map<String, Value> = short
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    Value::Object(short).to_string()
}

fn lines<'line>(lines: impl Iterator<Item = &'line str>) -> String {
    lines.flat_map(|line| ["\n    ", line]).collect()
}

fn enters(way: &Value, node: &str) -> bool {
    all(&way["nodes"]).any(|name| name == node)
}

fn named(service: &Value) -> String {
    let part = |name: &str| service[name].as_str().unwrap_or_default();
    format!("{}/{}", part("namespace"), part("name"))
}

fn all(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn value(of: &impl Serialize) -> Value {
    serde_json::to_value(of).unwrap_or_default()
}
