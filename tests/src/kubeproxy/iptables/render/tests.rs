//! Where rules differ by settings, which the recordings show in one way only.

use std::path::Path;

use super::*;
use crate::kubeproxy::NodePortAddresses;

/// The rules of node1 of the demo cluster, as lines with their chain.
fn rules(family: Family, settings: &Settings) -> Vec<String> {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("clusters/demo.json");
    let cluster = Cluster::read(&demo).expect("the demo cluster");
    let rules = render(&cluster, "node1", family, settings).expect("renders");
    let lines = rules
        .chains()
        .flat_map(|(_, chain, rules)| rules.iter().map(move |rule| format!("{chain} {rule}")));
    lines.collect()
}

fn count(rules: &[String], parts: &[&str]) -> usize {
    rules
        .iter()
        .filter(|rule| parts.iter().all(|part| rule.contains(part)))
        .count()
}

#[test]
fn what_a_pod_sends_to_a_cluster_ip_is_masqueraded_on_demand_only() {
    let to_web = ["10.96.80.11/32", "KUBE-MARK-MASQ"];
    let default = rules(Family::V4, &Settings::default());
    assert_eq!(
        count(&default, &["! -s 10.244.0.0/16", to_web[0], to_web[1]]),
        1
    );
    let all = rules(
        Family::V4,
        &Settings {
            masquerade_all: true,
            ..Settings::default()
        },
    );
    assert_eq!(count(&all, &to_web), 1);
    assert_eq!(count(&all, &["! -s 10.244.0.0/16"]), 0);
}

#[test]
fn without_a_cluster_cidr_nothing_counts_as_a_pod() {
    let settings = Settings {
        cluster_cidrs: Vec::new(),
        ..Settings::default()
    };
    let rules = rules(Family::V4, &settings);
    assert_eq!(count(&rules, &["pod traffic for"]), 0);
    assert_eq!(count(&rules, &["10.96.80.11/32", "KUBE-MARK-MASQ"]), 0);
}

#[test]
fn node_ports_are_served_where_the_settings_say() {
    let serving = |family, node_port_addresses, localhost_node_ports| {
        let settings = Settings {
            node_port_addresses,
            localhost_node_ports,
            ..Settings::default()
        };
        let rules = rules(family, &settings);
        let to_node_ports = rules
            .into_iter()
            .filter(|rule| rule.ends_with("-j KUBE-NODEPORTS") && rule.contains("last rule"));
        to_node_ports
            .map(|rule| rule.split(" -m ").next().expect("a word").to_owned())
            .collect::<Vec<_>>()
    };
    let within = |range: &str| NodePortAddresses::Within(vec![range.parse().expect("a range")]);
    assert_eq!(
        serving(Family::V4, NodePortAddresses::ModeDefault, true),
        ["KUBE-SERVICES"]
    );
    assert_eq!(
        serving(Family::V4, NodePortAddresses::ModeDefault, false),
        ["KUBE-SERVICES ! -d 127.0.0.0/8"]
    );
    assert_eq!(
        serving(Family::V6, NodePortAddresses::ModeDefault, true),
        ["KUBE-SERVICES ! -d ::1/128"]
    );
    assert_eq!(
        serving(Family::V4, NodePortAddresses::Primary, true),
        ["KUBE-SERVICES -d 172.31.0.11/32"]
    );
    assert_eq!(
        serving(Family::V4, within("172.31.0.0/16"), true),
        ["KUBE-SERVICES -d 172.31.0.11/32"]
    );
    assert_eq!(
        serving(Family::V4, within("10.0.0.0/8"), true),
        [] as [String; 0]
    );
}

#[test]
fn a_service_without_endpoints_refuses_and_one_without_local_ones_drops() {
    let rules = rules(Family::V6, &Settings::default());
    assert_eq!(
        count(
            &rules,
            &[
                "shop/empty:http has no endpoints",
                "--dport 30084",
                "REJECT"
            ]
        ),
        1
    );
    assert_eq!(
        count(
            &rules,
            &[
                "shop/far:http has no local endpoints",
                "--dport 30085",
                "DROP"
            ]
        ),
        1
    );
    assert_eq!(
        count(&rules, &["KUBE-NODEPORTS", "--dport 30085", "KUBE-EXT-"]),
        1
    );
}
