//! What two nodes saw of one connection, joined.
//!
//! PURE: records in, records out. Two records are the halves of one connection if the second
//! node's original tuple is the first node's reply tuple reversed: the same protocol, the client
//! of the one is the source that the backend of the other sees, and its front door that backend.
//! Nothing else is compared but the time, since ports are used again. What fits more than once is
//! not joined: a record that is left as it was says less, and nothing wrong.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::{Backend, Endpoint, HopCheck, Record, Step};
use crate::cluster::{FrontDoorKind, Protocol};
use crate::verdict::SourceIp;

/// How far apart the opening packet may be on two nodes: for clocks that disagree and for an
/// opening packet that was lost between them and sent again. A port is not used again so soon.
const APART_MAX: SignedDuration = SignedDuration::from_secs(5);

/// What both halves have: backend and source seen.
pub type Key = (Protocol, Endpoint, Endpoint);

/// Records by their place in a list, as either half.
#[derive(Default)]
struct Halves {
    first: Vec<(usize, Timestamp)>,
    second: Vec<(usize, Timestamp)>,
}

/// Joins the records of several nodes: of two halves one record is made, which says what the first
/// node said, with both on the path, what the way between them cost, and what TTLs count. All
/// others stay as they are. Oldest first; the order of `records` makes no difference.
pub fn join(records: Vec<Record>) -> Vec<Record> {
    let mut pairs = pairs(&records);
    // What belongs to two pairs is ambiguous, and so are both.
    let mut number = vec![0_u32; records.len()];
    for &(first, second) in &pairs {
        number[first] += 1;
        number[second] += 1;
    }
    pairs.retain(|&(first, second)| number[first] == 1 && number[second] == 1);

    let mut records: Vec<Option<Record>> = records.into_iter().map(Some).collect();
    let mut joined: Vec<Record> = pairs
        .into_iter()
        .filter_map(|(first, second)| Some(whole(records[first].take()?, records[second].take()?)))
        .collect();
    joined.extend(records.into_iter().flatten());
    joined.sort_by_cached_key(|record| {
        let Record {
            observed_at,
            node,
            protocol,
            client,
            front_door,
            ..
        } = record;
        let ends = [client.ip, front_door.ip];
        let ports = [client.port, front_door.port];
        (
            observed_at.clone(),
            Arc::clone(node),
            *protocol,
            ends,
            ports,
        )
    });
    joined
}

/// By what the other half of a record is found, if it may be half of a connection at all.
pub fn half(record: &Record) -> Option<Key> {
    let at_all = observed_at(record).is_some() && (is_first(record) || is_second(record));
    // One that is joined has two.
    key(record).filter(|_| at_all && record.path.len() == 1)
}

/// The node that must have the other half of a record, as far as the record tells.
pub fn node_of_other_half(record: &Record) -> Option<&str> {
    node_of_backend(record).filter(|_| is_first(record))
}

/// All pairs that may be halves of one connection.
fn pairs(records: &[Record]) -> Vec<(usize, usize)> {
    let mut halves: HashMap<Key, Halves> = HashMap::new();
    for (place, record) in records.iter().enumerate() {
        let (Some(key), Some(at)) = (half(record), observed_at(record)) else {
            continue;
        };
        let halves = halves.entry(key).or_default();
        if is_first(record) {
            halves.first.push((place, at));
        }
        if is_second(record) {
            halves.second.push((place, at));
        }
    }
    let mut pairs = Vec::new();
    for Halves { first, second } in halves.values_mut() {
        // Sorted, so that of many under one key only those of about the same time are tried.
        second.sort_unstable_by_key(|(_, at)| *at);
        for &mut (first, at) in first {
            let start = second.partition_point(|(_, its)| at.duration_since(*its) > APART_MAX);
            let about_then = second[start..]
                .iter()
                .take_while(|(_, its)| its.duration_since(at) <= APART_MAX);
            for &(second, _) in about_then {
                if fit(&records[first], &records[second]) {
                    pairs.push((first, second));
                }
            }
        }
    }
    pairs
}

fn key(record: &Record) -> Option<Key> {
    let backend = record.backend.as_ref()?;
    Some((record.protocol, at(backend), record.source_seen?))
}

/// Whether the backend lives elsewhere, or nobody knows where.
fn is_first(record: &Record) -> bool {
    node_of_backend(record) != Some(&*record.node)
}

/// Whether the record is of a node that delivered to the backend what another sent there: nothing
/// was rewritten, so that its original tuple is what the key says.
fn is_second(record: &Record) -> bool {
    let client = Endpoint {
        ip: record.client.ip,
        port: record.client.port,
    };
    let door = Endpoint {
        ip: record.front_door.ip,
        port: record.front_door.port,
    };
    matches!(record.front_door.kind, None | Some(FrontDoorKind::Pod))
        && record.source_seen == Some(client)
        && record.backend.as_ref().map(at) == Some(door)
        && node_of_backend(record).is_none_or(|node| node == &*record.node)
        && record.path.iter().all(|step| step.r#in.is_some())
}

/// Whether the backend, as far as either knows where it lives, is on the second node, and that is
/// another.
fn fit(first: &Record, second: &Record) -> bool {
    first.node != second.node && node_of_backend(first).is_none_or(|node| node == &*second.node)
}

fn whole(first: Record, second: Record) -> Record {
    let (Some(here), Some(there)) = (first.path.first(), second.path.first()) else {
        return first;
    };
    let hop_check = hop_check(here, there);
    // What the answer took beyond the first node, without what it took on the second.
    let extra_hop_ns = here
        .reply_ns
        .zip(second.round_trip_ns)
        .and_then(|(beyond, there)| beyond.checked_sub(there));
    let extra_hops = first
        .extra_hops
        .or_else(|| (first.source_ip != SourceIp::Unknown).then_some(1));
    let mut findings = first.findings;
    for finding in second.findings {
        if findings.iter().all(|known| known.code != finding.code) {
            findings.push(finding);
        }
    }
    Record {
        // Pods are known where they are.
        beyond: first.beyond.or(second.beyond),
        findings,
        backend: first.backend.map(|backend| Backend {
            pod: backend
                .pod
                .or(second.backend.and_then(|backend| backend.pod)),
            node: Some(second.node),
            ..backend
        }),
        extra_hops,
        extra_hop_ns,
        hop_check,
        path: first.path.into_iter().chain(second.path).collect(),
        ..first
    }
}

/// How often TTLs say that the opening packet was forwarded, and how often it must have been: once
/// by each node that it came to and left by an interface.
fn hop_check(first: &Step, second: &Step) -> Option<HopCheck> {
    let start = first.ttl_in.or(first.ttl_out)?;
    let end = second.ttl_out.or(second.ttl_in)?;
    Some(HopCheck {
        forwards: i16::from(start) - i16::from(end),
        expected: u8::from(first.ttl_in.is_some()) + u8::from(second.ttl_out.is_some()),
    })
}

fn node_of_backend(record: &Record) -> Option<&str> {
    record.backend.as_ref()?.node.as_deref()
}

fn observed_at(record: &Record) -> Option<Timestamp> {
    record.observed_at.as_ref()?.parse().ok()
}

fn at(backend: &Backend) -> Endpoint {
    Endpoint {
        ip: backend.ip,
        port: backend.port,
    }
}

#[cfg(test)]
mod tests;
