//! The lab's rules against those that a real kube-proxy 1.36 left on two nodes.
//!
//! Goal: a lab that lies would make every other test worthless. Method: render the rules of the
//! recorded cluster's objects and compare them with the recorded iptables-save, once as text and
//! once after a trip through this kernel.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rstest::rstest;
use tests::{
    cluster::Cluster,
    kubeproxy::{self, Family, Ruleset, Settings, differences, render},
    netns::Namespace,
    privilege,
};

/// The recordings, which belong to the developers' tree and not to a user's.
fn captures() -> Option<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/captures");
    if directory.is_dir() {
        return Some(directory);
    }
    let why = format!("there are no recordings at {}", directory.display());
    privilege::skipped("the comparison with a real kube-proxy", &why);
    None
}

/// The settings of the recorded kube-proxy; its IPv6 cluster CIDR is as wrong as it was there.
fn settings() -> Settings {
    let cidrs = ["10.244.0.0/16", "fd00:244::/48"];
    Settings {
        cluster_cidrs: cidrs.map(|cidr| cidr.parse().expect("a range")).to_vec(),
        ..Settings::default()
    }
}

fn recorded(captures: &Path, node: &str, family: Family) -> Ruleset {
    let folder = if node == "node1" {
        "iptables"
    } else {
        "iptables-node2"
    };
    let file = if family == Family::V4 {
        "iptables-save.txt"
    } else {
        "ip6tables-save.txt"
    };
    let path = captures.join(folder).join(file);
    fs::read_to_string(&path)
        .expect("a recording")
        .parse()
        .expect("a rule set")
}

fn ours(captures: &Path, node: &str, family: Family) -> Ruleset {
    let cluster = Cluster::read(&captures.join("objects.json")).expect("the recorded objects");
    render(&cluster, node, family, &settings()).expect("renders")
}

/// Nothing may differ: not a chain, not a rule, not the order. The list of allowed differences
/// is empty.
#[rstest]
fn rules_are_those_of_a_real_kube_proxy(
    #[values("node1", "node2")] node: &str,
    #[values(Family::V4, Family::V6)] family: Family,
) {
    let Some(captures) = captures() else { return };
    let found = differences(
        &ours(&captures, node, family),
        &recorded(&captures, node, family),
    );
    assert!(
        found.is_empty(),
        "{} differences:\n{}",
        found.len(),
        found.join("\n")
    );
}

/// The kernel takes the rules and gives back what it gave back to the real kube-proxy.
#[rstest]
fn the_kernel_holds_what_it_held_for_a_real_kube_proxy(
    #[values("node1", "node2")] node: &str,
    #[values(Family::V4, Family::V6)] family: Family,
) {
    if !privilege::granted("the_kernel_holds_what_it_held_for_a_real_kube_proxy") {
        return;
    }
    let Some(captures) = captures() else { return };
    let cluster = Cluster::read(&captures.join("objects.json")).expect("the recorded objects");
    let namespace = Namespace::create("rules").expect("a namespace");
    kubeproxy::program(&namespace, &cluster, node, &settings()).expect("programmed");
    let held = kubeproxy::save(&namespace, family).expect("saved");
    let found = differences(&held, &recorded(&captures, node, family));
    assert!(
        found.is_empty(),
        "{} differences:\n{}",
        found.len(),
        found.join("\n")
    );
}

/// A comparison that cannot fail proves nothing: each changed rule must be reported.
#[test]
fn a_changed_rule_is_reported() {
    let Some(captures) = captures() else { return };
    let recorded = recorded(&captures, "node1", Family::V4);
    let chains: Vec<(String, String, usize)> = recorded
        .chains()
        .map(|(table, chain, rules)| (table.to_owned(), chain.to_owned(), rules.len()))
        .collect();
    let mut changed = 0;
    for (table, chain, length) in chains {
        for number in 0..length {
            let mut ours = ours(&captures, "node1", Family::V4);
            ours.rules(&table, &chain)[number].push_str(" -m changed");
            let found = differences(&ours, &recorded);
            assert!(
                !found.is_empty(),
                "{table} {chain}: the change of rule {} went unseen",
                number + 1
            );
            changed += 1;
        }
    }
    assert!(changed > 150, "only {changed} rules were changed");
}
