//! Seeds and findings, replayed; and that the seeds lead where they are meant to.

use std::fs;
use std::path::Path;

use observer::payload::Reason;
use observer::verdict::{Outcome, SourceIp};

use crate::{btf, cluster, manifests, observations, payload, scenario};

/// What lies in the seeds of a target; of scenarios, all there are.
fn seeds(target: &str) -> Vec<(String, Vec<u8>)> {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let directory = match target {
        "scenario" => package.join("../tests/scenarios"),
        _ => package.join("seeds").join(target),
    };
    fs::read_dir(&directory)
        .expect("a directory")
        .map(|entry| {
            let path = entry.expect("it is there").path();
            let bytes = fs::read(&path).expect("a seed");
            (path.display().to_string(), bytes)
        })
        .collect()
}

fn seed(target: &str, name: &str) -> Vec<u8> {
    let mut seeds = seeds(target);
    seeds.retain(|(path, _)| path.ends_with(name));
    seeds.pop().expect("such a seed").1
}

#[test]
fn nothing_known_breaks_what_must_hold() {
    replay("btf", btf::run);
    replay("cluster", cluster::run);
    replay("manifests", manifests::run);
    replay("observations", observations::run);
    replay("payload", payload::run);
    replay("scenario", scenario::run);
}

fn replay(target: &str, run: fn(&[u8])) {
    let seeds = seeds(target);
    assert!(!seeds.is_empty(), "{target} has no seeds");
    for (_, bytes) in seeds {
        run(&bytes);
    }
}

#[test]
fn the_seed_of_types_tells_a_layout() {
    assert!(btf::split(&seed("btf", "module")).is_some());
}

#[test]
fn the_seed_of_objects_is_a_cluster() {
    let index = cluster::read(&seed("cluster", "shop.json")).expect("a List");
    assert!(index.entries().len() >= 2 && index.nodes().count() == 2);
}

#[test]
fn the_seeds_of_manifests_are_clusters() {
    for name in ["shop.yaml", "list.json"] {
        let index = manifests::read(&seed("manifests", name)).expect("nothing is wrong");
        assert!(
            index.entries().len() >= 2 && index.nodes().count() == 2,
            "{name}"
        );
    }
}

#[test]
fn the_seed_of_observations_is_a_rewritten_and_answered_connection() {
    let records = observations::judged(&seed("observations", "node_port"));
    let [record] = &records[..] else {
        panic!("one connection: {records:?}")
    };
    assert_eq!(record.source_ip, SourceIp::Lost);
    assert_eq!(record.outcome, Outcome::Answered);
}

#[test]
fn the_seeds_of_payload_name_their_client() {
    let client = Some(Ok([203, 0, 113, 50].into()));
    for name in [
        "proxy_v1",
        "proxy_v2_checked",
        "x_forwarded_for",
        "forwarded",
    ] {
        assert_eq!(payload::told(&seed("payload", name)), client, "{name}");
    }
    let tls = payload::told(&seed("payload", "tls"));
    assert_eq!(tls, Some(Err(Reason::Tls)));
}
