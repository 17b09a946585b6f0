//! `--bundle`: what was seen and what it came to, for a bug report.
//!
//! The facts hold no addresses by construction. Errors and names come from elsewhere, so whatever
//! reads as an address in them is taken out as well.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use anyhow::Context as _;
use serde_json::{Value, json};

use super::facts::Facts;
use super::report::Report;

const SCHEMA: &str = "observer.bundle/v1";
/// Stands for an address.
const REMOVED: &str = "[address]";

/// Writes the file.
pub(super) fn write(path: &Path, facts: &Facts, report: &Report) -> anyhow::Result<()> {
    let failed = || format!("cannot write the bundle {}", path.display());
    let mut bundle = json!({"schema": SCHEMA, "report": report, "facts": facts});
    scrub(&mut bundle);
    let text = serde_json::to_string_pretty(&bundle).with_context(failed)?;
    fs::write(path, text + "\n").with_context(failed)
}

/// Takes the addresses out of every text.
fn scrub(value: &mut Value) {
    match value {
        Value::String(text) => *text = without_addresses(text),
        Value::Array(items) => items.iter_mut().for_each(scrub),
        Value::Object(fields) => fields.values_mut().for_each(scrub),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// `text` with every address in it replaced, also before a port or a prefix length.
fn without_addresses(text: &str) -> String {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | ':');
    let mut scrubbed = String::new();
    let mut rest = text;
    while let Some(start) = rest.find(is_part) {
        let (before, word) = rest.split_at(start);
        let end = word.find(|c| !is_part(c)).unwrap_or(word.len());
        let (word, after) = word.split_at(end);
        scrubbed.push_str(before);
        scrubbed.push_str(&scrubbed_word(word));
        rest = after;
    }
    scrubbed.push_str(rest);
    scrubbed
}

/// A word without its address. Behind it may stand a port, or the end of a sentence.
fn scrubbed_word(word: &str) -> String {
    let ends = (1..=word.len()).rev().filter(|end| {
        let behind = &word[*end..];
        behind.is_empty() || behind.starts_with(['.', ':'])
    });
    // Everybody has the loopback addresses.
    let mut addresses = ends.filter(|end| {
        let address = word[..*end].parse::<IpAddr>();
        address.is_ok_and(|address| !address.is_loopback())
    });
    match addresses.next() {
        Some(end) => REMOVED.to_owned() + &word[end..],
        None => word.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_go_and_everything_else_stays() {
        for (text, scrubbed) in [
            ("via 203.0.113.50.", "via [address]."),
            ("203.0.113.50:443: refused", "[address]:443: refused"),
            ("[2001:db8::1]:443", "[[address]]:443"),
            ("fd00:10:244::/64", "[address]/64"),
            ("Linux 6.18.44-fc", "Linux 6.18.44-fc"),
            ("aya::programs: no", "aya::programs: no"),
            ("ip6 raw PREROUTING", "ip6 raw PREROUTING"),
            ("at 127.0.0.1:10249", "at 127.0.0.1:10249"),
            ("12:30", "12:30"),
        ] {
            assert_eq!(without_addresses(text), scrubbed);
        }
    }
}
