//! Records that name no client: its address is cut to its network.
//!
//! PURE. The addresses of the cluster stay: they are what is asked about.

use std::collections::HashSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::Record;
use crate::verdict::{CauseCode, ClientKind};

/// What is left of an address: so much of the world that nobody is meant by it (the prefixes that
/// web analytics settled on).
const KEPT_BITS: (u8, u8) = (24, 48);

/// Shortens what is a client's own address, wherever the record has it. Sentences may name one that
/// no field has: in them only the addresses stay that a field keeps.
pub fn anonymize(record: &mut Record) {
    let client = record.client.ip;
    // Whoever speaks for it: behind a proxy that is a pod or a node, too.
    if let Some(recovered) = &mut record.client.recovered {
        *recovered = shortened(*recovered);
    }
    let through = record.through.as_mut();
    if let Some(came) = through.and_then(|through| through.client.as_mut())
        && !is_of_cluster(came.kind)
    {
        came.ip = shortened(came.ip);
    }
    // What another node put in the client's place, and the other half is found by.
    let is_masquerade = record
        .cause
        .as_ref()
        .is_some_and(|cause| cause.code == CauseCode::MasqueradedBeforeThisNode);
    if !is_of_cluster(record.client.kind) && !is_masquerade {
        record.client.ip = shortened(client);
        if let Some(seen) = &mut record.source_seen
            && seen.ip == client
        {
            seen.ip = shortened(client);
        }
    }
    let kept = kept(record);
    for sentence in sentences(record) {
        *sentence = without_others(sentence, &kept);
    }
}

/// The addresses that the record's fields have now.
fn kept(record: &Record) -> HashSet<IpAddr> {
    let through = record.through.iter();
    let of_through = through.flat_map(|through| {
        let door = through.front_door.map(|door| door.ip);
        let client = through.client.map(|client| client.ip);
        [Some(through.proxy.ip), door, client].into_iter().flatten()
    });
    [record.client.ip, record.front_door.ip]
        .into_iter()
        .chain(record.backend.iter().map(|backend| backend.ip))
        .chain(record.source_seen.map(|seen| seen.ip))
        .chain(of_through)
        .collect()
}

fn sentences(record: &mut Record) -> impl Iterator<Item = &mut String> {
    let Record {
        cause,
        losses,
        beyond,
        outcome_cause,
        findings,
        through,
        ..
    } = record;
    let of_through = through.iter_mut().filter_map(|it| it.cause.as_mut());
    let causes = cause
        .iter_mut()
        .chain(of_through)
        .chain(losses.iter_mut().map(|it| &mut it.cause));
    causes
        .map(|cause| &mut cause.explanation)
        .chain(beyond.iter_mut().map(|it| &mut it.explanation))
        .chain(outcome_cause.iter_mut().map(|it| &mut it.explanation))
        .chain(findings.iter_mut().map(|it| &mut it.explanation))
}

/// A load balancer is no person, and is asked about as the cluster is.
const fn is_of_cluster(kind: ClientKind) -> bool {
    matches!(
        kind,
        ClientKind::Pod | ClientKind::Node | ClientKind::LoadBalancer
    )
}

/// A sentence in which every address is cut but these. Networks stay.
fn without_others(sentence: &str, kept: &HashSet<IpAddr>) -> String {
    let is_part = |c: char| c.is_ascii_hexdigit() || matches!(c, '.' | ':');
    let mut words = String::new();
    let mut rest = sentence;
    while let Some(start) = rest.find(is_part) {
        let (between, word) = rest.split_at(start);
        let end = word.find(|c| !is_part(c)).unwrap_or(word.len());
        let (word, after) = word.split_at(end);
        words.push_str(between);
        match address(word).filter(|(ip, _)| !kept.contains(ip) && !after.starts_with('/')) {
            Some((ip, behind)) => {
                words.push_str(&shortened(ip).to_string());
                words.push_str(behind);
            }
            None => words.push_str(word),
        }
        rest = after;
    }
    words.push_str(rest);
    words
}

/// The address that a word begins with, and what is behind it: a port, a colon, or the end of the
/// sentence.
fn address(word: &str) -> Option<(IpAddr, &str)> {
    let ends = word.char_indices().rev();
    let ends = ends
        .filter(|(_, c)| matches!(c, '.' | ':'))
        .map(|(at, _)| at);
    [word.len()].into_iter().chain(ends).find_map(|end| {
        let (ip, behind) = word.split_at(end);
        Some((ip.parse().ok()?, behind))
    })
}

fn shortened(ip: IpAddr) -> IpAddr {
    let (v4, v6) = KEPT_BITS;
    let bits = if ip.is_ipv4() { v4 } else { v6 };
    IpNet::new(ip, bits).map_or(ip, |network| network.network())
}

#[cfg(test)]
mod tests {
    use super::super::tests::whole;
    use super::*;

    #[test]
    fn no_trace_of_a_client_is_left() {
        let mut record = whole();
        let seen = record.source_seen.as_mut().expect("a source");
        seen.ip = record.client.ip;
        let cause = record.cause.as_mut().expect("a cause");
        cause.explanation = format!("{} was rewritten", record.client.ip);
        record.losses[0].cause.explanation = cause.explanation.clone();
        let finding = &mut record.findings[0].explanation;
        *finding = format!("{} is listed twice", record.client.ip);
        let address = record.client.ip.to_string();
        anonymize(&mut record);
        let text = serde_json::to_string(&record).expect("JSON");
        assert!(!text.contains(&address), "{text}");
        assert_eq!(record.client.ip.to_string(), "203.0.113.0");
    }

    #[test]
    fn the_clusters_own_addresses_stay() {
        let mut record = whole();
        record.client.kind = ClientKind::Pod;
        let through = record.through.as_mut().expect("a proxy");
        through.client.as_mut().expect("a client").kind = ClientKind::Pod;
        let before = record.clone();
        anonymize(&mut record);
        assert_eq!(record, before);
    }

    #[test]
    fn a_load_balancer_stays_and_whom_it_speaks_for_does_not() {
        let mut record = whole();
        let balancer = record.client.ip;
        record.client.kind = ClientKind::LoadBalancer;
        record.client.recovered = Some("198.51.100.77".parse().expect("an address"));
        record.findings[0].explanation = "it lists 198.51.100.77 twice".to_owned();
        anonymize(&mut record);
        assert_eq!(record.client.ip, balancer);
        let text = serde_json::to_string(&record).expect("JSON");
        assert!(!text.contains("198.51.100.77"), "{text}");
    }

    #[test]
    fn whom_a_pod_speaks_for_is_shortened() {
        let mut record = whole();
        record.client.kind = ClientKind::Pod;
        record.client.recovered = Some("198.51.100.77".parse().expect("an address"));
        anonymize(&mut record);
        let recovered = record.client.recovered.map(|address| address.to_string());
        assert_eq!(recovered.as_deref(), Some("198.51.100.0"));
    }

    #[test]
    fn in_sentences_only_addresses_of_fields_stay() {
        let kept = HashSet::from(["10.0.0.12".parse().expect("an address")]);
        let sentence = "10.0.0.12 got it from 10.0.0.1, at 10.0.0.1:80; not 10.0.0.12:80, but \
                        10.0.0.7. In 10.0.0.128/25; at 2001:db8:1:2::7: [2001:db8:1:2::7]:80, \
                        port 80: a bad day.";
        assert_eq!(
            without_others(sentence, &kept),
            "10.0.0.12 got it from 10.0.0.0, at 10.0.0.0:80; not 10.0.0.12:80, but 10.0.0.0. In \
             10.0.0.128/25; at 2001:db8:1::: [2001:db8:1::]:80, port 80: a bad day."
        );
    }

    /// Behind a masquerade it is not certain who it was; the sentences name who it may have been.
    #[test]
    fn who_is_withheld_is_not_named_by_a_sentence() {
        let mut record = whole();
        let sentence = "203.0.113.77 came to 172.31.0.11, which is masqueraded";
        let through = record.through.as_mut().expect("a proxy");
        through.client = None;
        through.cause.as_mut().expect("a cause").explanation = sentence.to_owned();
        record.losses[0].cause.explanation = sentence.to_owned();
        record.cause.as_mut().expect("a cause").explanation = sentence.to_owned();
        anonymize(&mut record);
        let text = serde_json::to_string(&record).expect("JSON");
        assert!(!text.contains("203.0.113.77"), "{text}");
        assert!(text.contains("203.0.113.0 came to 172.31.0.11,"), "{text}");
    }

    #[test]
    fn ipv6_keeps_its_site() {
        let ip = "2001:db8:1:2:3:4:5:6".parse().expect("an address");
        assert_eq!(shortened(ip).to_string(), "2001:db8:1::");
    }
}
