//! Where rules differ by settings, which the recordings show in one way only.

use std::path::Path;

use super::*;
use crate::kubeproxy::{DetectLocal, Mode, NodePortAddresses};

/// The table of node1 of the demo cluster: every line and element, with its object.
fn lines(family: Family, settings: &Settings) -> Vec<String> {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("clusters/demo.json");
    let cluster = Cluster::read(&demo).expect("the demo cluster");
    let rules = render(&cluster, "node1", family, settings).expect("renders");
    let of_object = |(_, name, object): (Kind, &str, &super::super::Object)| {
        let parts = object.lines.iter().chain(&object.elements);
        parts
            .map(|part| format!("{name} {part}"))
            .collect::<Vec<_>>()
    };
    rules.objects().flat_map(of_object).collect()
}

fn has(lines: &[String], line: &str) -> bool {
    lines.iter().any(|known| known == line)
}

fn nftables() -> Settings {
    Settings::of(Mode::Nftables)
}

#[test]
fn what_a_pod_sends_to_a_cluster_ip_is_masqueraded_on_demand_only() {
    let marks = |settings: &Settings| -> Vec<String> {
        let mut lines = lines(Family::V4, settings);
        lines.retain(|line| line.starts_with("services ") && line.contains(MARK));
        lines
    };
    let [default] = &marks(&nftables())[..] else {
        panic!("one rule marks")
    };
    assert!(default.contains("ip saddr != 10.244.0.0/16"), "{default}");
    let all = Settings {
        masquerade_all: true,
        ..nftables()
    };
    let [all] = &marks(&all)[..] else {
        panic!("one rule marks")
    };
    assert!(!all.contains("saddr"), "{all}");
    let no_detector = Settings {
        cluster_cidrs: Vec::new(),
        ..nftables()
    };
    assert_eq!(marks(&no_detector), [] as [String; 0]);
}

#[test]
fn pods_may_be_known_by_their_interface() {
    for (detect_local, matches) in [
        (DetectLocal::BridgeInterface("cni0".to_owned()), "\"cni0\""),
        (
            DetectLocal::InterfaceNamePrefix("cali".to_owned()),
            "\"cali*\"",
        ),
        (DetectLocal::NodeCidr, "10.244.1.0/24"),
    ] {
        let settings = Settings {
            detect_local,
            ..nftables()
        };
        let lines = lines(Family::V4, &settings);
        let starts = |what: &str| lines.iter().filter(|line| line.contains(what)).count();
        assert_eq!(starts(&format!("!= {matches} {MARK}")), 1, "{matches}");
        assert!(starts(&format!("{matches} goto service-")) > 0, "{matches}");
    }
}

#[test]
fn node_ports_are_served_where_the_settings_say() {
    let everywhere = Settings {
        node_port_addresses: NodePortAddresses::Within(vec![
            "0.0.0.0/0".parse().expect("a range"),
            "::/0".parse().expect("a range"),
        ]),
        ..nftables()
    };
    for (family, rule, address) in [
        (
            Family::V4,
            "services fib daddr type local ip daddr != 127.0.0.0/8 meta l4proto . th dport vmap @service-nodeports",
            "nodeport-ips 172.31.0.11",
        ),
        (
            Family::V6,
            "services fib daddr type local ip6 daddr != ::1 meta l4proto . th dport vmap @service-nodeports",
            "nodeport-ips fd00:172:31::11",
        ),
    ] {
        assert!(has(&lines(family, &everywhere), rule), "{family:?}");
        assert!(!has(&lines(family, &everywhere), address), "{family:?}");
        assert!(!has(&lines(family, &nftables()), rule), "{family:?}");
        assert!(has(&lines(family, &nftables()), address), "{family:?}");
    }
}

#[test]
fn durations_and_ranges_are_printed_as_nft_prints_them() {
    for (seconds, text) in [(10_800, "3h"), (600, "10m"), (90_061, "1d1h1m1s")] {
        assert_eq!(duration(seconds), text);
    }
    let ranges = ["198.51.100.0/24", "10.99.0.0/24", "10.99.0.202/32"]
        .map(|range| range.parse().expect("a range"));
    assert_eq!(in_braces(&ranges), "{ 10.99.0.0/24, 198.51.100.0/24 }");
    assert_eq!(in_braces(&ranges[2..]), "{ 10.99.0.202 }");
}
