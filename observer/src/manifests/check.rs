//! What the API server would refuse, or no controller could follow: of the objects alone, and of
//! the objects together.

mod service;
mod target;
mod workload;

use std::net::IpAddr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{Fault, Key};
use crate::cluster::{FieldPath, Objects, is_dns_label};

pub use target::missing;

/// All of them.
pub(super) fn faults(objects: &Objects) -> Vec<Fault> {
    let mut faults = Vec::new();
    for object in &objects.services {
        service::check(object, &mut faults);
    }
    service::check_together(&objects.services, &mut faults);
    workload::check(objects, &mut faults);
    workload::check_target_ports(objects, &mut faults);
    target::check(objects, &mut faults);
    faults
}

impl Key {
    fn of(kind: &str, metadata: &ObjectMeta) -> Self {
        let name = metadata.name.as_ref().or(metadata.generate_name.as_ref());
        Self {
            kind: kind.to_owned(),
            namespace: metadata.namespace.clone(),
            name: name.cloned().unwrap_or_default(),
        }
    }
}

/// Where the faults of one object are written down.
struct Report<'a> {
    object: Key,
    faults: &'a mut Vec<Fault>,
}

impl Report<'_> {
    /// What is wrong with a field.
    fn at(&mut self, path: FieldPath, what: impl Into<String>) {
        self.faults.push(Fault {
            object: self.object.clone(),
            path,
            what: what.into(),
        });
    }

    /// The same for a field that has this way to it.
    fn field(&mut self, names: &str, what: impl Into<String>) {
        self.at(FieldPath::fields(names), what);
    }

    /// A word that is none of those that the field knows.
    fn word(&mut self, path: FieldPath, value: Option<&str>, known: &[&str]) {
        // The API takes an empty word for none.
        if let Some(value) = value.filter(|value| !value.is_empty() && !known.contains(value)) {
            let what = format!("{} is none of {}", quoted(value), known.join(", "));
            self.at(path, what);
        }
    }

    /// A port number.
    fn port(&mut self, path: FieldPath, number: i32) {
        if !is_port(number) {
            self.at(
                path,
                format!("{number} is no port; ports go from 1 to 65535"),
            );
        }
    }
}

fn is_port(number: i32) -> bool {
    u16::try_from(number).is_ok_and(|port| port != 0)
}

/// A value as it may be written, on one line.
fn quoted(value: &str) -> String {
    format!("\"{}\"", value.escape_debug())
}

/// A network with the length of its prefix, as `ParseCIDR` of Go takes it.
fn is_network(text: &str) -> bool {
    text.split_once('/').is_some_and(|(address, length)| {
        let most = match address.parse::<IpAddr>() {
            Ok(IpAddr::V4(_)) => 32,
            Ok(IpAddr::V6(_)) => 128,
            Err(_) => return false,
        };
        length.parse::<u8>().is_ok_and(|length| length <= most)
    })
}

/// Whether a text is a name of a port of a container (`apimachinery`, `IsValidPortName`; RFC
/// 6335); else why not.
fn port_name(name: &str) -> Result<(), String> {
    const LONGEST: usize = 15;
    let is_known = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let why = if name.len() > LONGEST {
        "a port's name has at most 15 characters"
    } else if !name.chars().all(is_known) {
        "a port's name has only a-z, 0-9 and hyphens"
    } else if !name.contains(|c: char| c.is_ascii_lowercase()) {
        "a port's name has at least one letter"
    } else if name.starts_with('-') || name.ends_with('-') || name.contains("--") {
        "in a port's name hyphens stand between others, and singly"
    } else {
        return Ok(());
    };
    Err(format!("{}: {why}", quoted(name)))
}
