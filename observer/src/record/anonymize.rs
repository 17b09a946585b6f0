//! Records that name no client: its address is cut to its network.
//!
//! PURE. The addresses of the cluster stay: they are what is asked about.

use std::net::IpAddr;

use ipnet::IpNet;

use super::Record;
use crate::verdict::{CauseCode, ClientKind};

/// What is left of an address: so much of the world that nobody is meant by it (the prefixes that
/// web analytics settled on).
const KEPT_BITS: (u8, u8) = (24, 48);

/// Shortens what is a client's own address, wherever the record has it.
pub fn anonymize(record: &mut Record) {
    // Whoever speaks for it: behind a proxy that is a pod or a node, too.
    if let Some(whole) = record.client.recovered {
        record.client.recovered = Some(shortened(whole));
        rename(record, whole);
    }
    if let Some(through) = &mut record.through
        && let Some(client) = &mut through.client
        && !is_of_cluster(client.kind)
    {
        let whole = client.ip;
        client.ip = shortened(whole);
        rename(record, whole);
    }
    // What another node put in the client's place, and the other half is found by.
    let is_masquerade = record
        .cause
        .as_ref()
        .is_some_and(|cause| cause.code == CauseCode::MasqueradedBeforeThisNode);
    if is_of_cluster(record.client.kind) || is_masquerade {
        return;
    }
    let whole = record.client.ip;
    record.client.ip = shortened(whole);
    if let Some(seen) = &mut record.source_seen
        && seen.ip == whole
    {
        seen.ip = shortened(whole);
    }
    rename(record, whole);
}

/// The sentences name addresses too.
fn rename(record: &mut Record, whole: IpAddr) {
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
    let sentences = causes
        .map(|cause| &mut cause.explanation)
        .chain(beyond.iter_mut().map(|it| &mut it.explanation))
        .chain(outcome_cause.iter_mut().map(|it| &mut it.explanation))
        .chain(findings.iter_mut().map(|it| &mut it.explanation));
    for sentence in sentences {
        *sentence = without(sentence, whole);
    }
}

/// A load balancer is no person, and is asked about as the cluster is.
const fn is_of_cluster(kind: ClientKind) -> bool {
    matches!(
        kind,
        ClientKind::Pod | ClientKind::Node | ClientKind::LoadBalancer
    )
}

/// A sentence in which an address is cut, wherever it stands by itself: not as the beginning of a
/// longer one.
fn without(sentence: &str, address: IpAddr) -> String {
    let (whole, cut) = (address.to_string(), shortened(address).to_string());
    let is_part = |c: char| c.is_ascii_hexdigit() || matches!(c, '.' | ':');
    let mut words = String::new();
    let mut rest = sentence;
    while let Some(start) = rest.find(is_part) {
        let (between, word) = rest.split_at(start);
        let end = word.find(|c| !is_part(c)).unwrap_or(word.len());
        let (word, after) = word.split_at(end);
        words.push_str(between);
        // Behind it may stand a colon, or the end of the sentence.
        match word.strip_prefix(&*whole) {
            Some(behind) if behind.is_empty() || behind.starts_with([':', '.']) => {
                words.push_str(&cut);
                words.push_str(behind);
            }
            _ => words.push_str(word),
        }
        rest = after;
    }
    words.push_str(rest);
    words
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
    fn no_other_address_is_touched() {
        let address = "10.0.0.1".parse().expect("an address");
        let sentence =
            "10.0.0.12 got it from 10.0.0.1, at 10.0.0.1:80; not 110.0.0.1, but 10.0.0.1.";
        assert_eq!(
            without(sentence, address),
            "10.0.0.12 got it from 10.0.0.0, at 10.0.0.0:80; not 110.0.0.1, but 10.0.0.0."
        );
    }

    #[test]
    fn ipv6_keeps_its_site() {
        let ip = "2001:db8:1:2:3:4:5:6".parse().expect("an address");
        assert_eq!(shortened(ip).to_string(), "2001:db8:1::");
    }
}
