//! What follows from policies, endpoints and settings. Nothing was recorded to compare with.

use std::path::Path;

use super::*;
use crate::kubeproxy::Mode;

/// All that a node of a cluster in this repository is programmed with, as lines.
fn lines(cluster: &str, node: &str, family: Family, settings: &Settings) -> Vec<String> {
    let clusters = Path::new(env!("CARGO_MANIFEST_DIR")).join("clusters");
    let cluster = Cluster::read(&clusters.join(cluster)).expect("a cluster");
    let program = render(&cluster, node, family, settings).expect("renders");
    let rules = program.rules.chains();
    let rules =
        rules.flat_map(|(_, chain, rules)| rules.iter().map(move |rule| format!("{chain} {rule}")));
    let servers: Vec<String> = program.servers.iter().map(ToString::to_string).collect();
    let addresses = program.addresses.iter().map(|ip| format!("device {ip}"));
    let text = [program.sets.to_string(), servers.concat()].concat();
    let text = text.lines().map(str::to_owned);
    text.chain(rules).chain(addresses).collect()
}

fn demo(family: Family, settings: &Settings) -> Vec<String> {
    lines("demo.json", "node1", family, settings)
}

fn ipvs() -> Settings {
    Settings::of(Mode::Ipvs)
}

fn has(lines: &[String], line: &str) {
    assert!(lines.iter().any(|one| one == line), "{line} in {lines:#?}");
}

fn servers<'lines>(lines: &'lines [String], at: &str) -> Vec<&'lines str> {
    let of = format!("-a -t {at} -r ");
    let endpoints = lines.iter().filter_map(|line| line.strip_prefix(&of));
    endpoints.collect()
}

#[test]
fn policy_local_falls_back_on_the_endpoints_of_other_nodes() {
    let demo = demo(Family::V4, &ipvs());
    assert_eq!(
        servers(&demo, "172.31.0.11:30081"),
        ["10.244.1.7:9000 -m -w 1"],
        "policy Local, an endpoint here and one elsewhere"
    );
    assert_eq!(
        servers(&demo, "172.31.0.11:30085"),
        ["10.244.2.10:8080 -m -w 1"],
        "policy Local, an endpoint elsewhere"
    );
    assert_eq!(servers(&demo, "172.31.0.11:30080").len(), 3);
    has(&demo, "-A -t 172.31.0.11:30084 -s rr");
    assert_eq!(servers(&demo, "172.31.0.11:30084"), [] as [&str; 0]);
}

#[test]
fn inside_the_cluster_it_falls_back_only_where_others_may_come_from_outside() {
    let edges = lines("edges.json", "edge1", Family::V4, &ipvs());
    has(&edges, "-A -t 10.97.0.3:80 -s rr");
    assert_eq!(servers(&edges, "10.97.0.3:80"), [] as [&str; 0]);
}

#[test]
fn what_is_masqueraded_is_in_sets() {
    let demo = demo(Family::V4, &ipvs());
    for line in [
        "add KUBE-NODE-PORT-TCP 30080",
        "add KUBE-NODE-PORT-TCP 30085",
        "add KUBE-NODE-PORT-LOCAL-TCP 30085",
        "add KUBE-LOOP-BACK 10.244.1.5,6:8080,10.244.1.5",
        "add KUBE-LOAD-BALANCER-LOCAL 198.51.100.8,6:443",
        "add KUBE-IPVS-IPS 198.51.100.7",
        "device 198.51.100.7",
        "KUBE-SERVICES ! -s 10.244.0.0/16 -m set --match-set KUBE-CLUSTER-IP dst,dst -j KUBE-MARK-MASQ",
        "KUBE-POSTROUTING -m set --match-set KUBE-LOOP-BACK dst,dst,src -j MASQUERADE",
        "KUBE-NODE-PORT -p tcp -m set --match-set KUBE-NODE-PORT-LOCAL-TCP dst -j RETURN",
    ] {
        has(&demo, line);
    }
    let all = |line: &&String| line.ends_with("-j KUBE-MARK-MASQ");
    // Cluster IPs, load balancers, node ports: no set that is empty.
    assert_eq!(demo.iter().filter(all).count(), 3, "{demo:#?}");
}

#[test]
fn without_a_cluster_cidr_only_the_nodes_own_is_masqueraded_on_its_way_to_a_cluster_ip() {
    let settings = Settings {
        cluster_cidrs: Vec::new(),
        ..ipvs()
    };
    has(
        &demo(Family::V6, &settings),
        "KUBE-SERVICES -m set --match-set KUBE-6-CLUSTER-IP src,dst -j KUBE-MARK-MASQ",
    );
    let settings = Settings {
        masquerade_all: true,
        ..ipvs()
    };
    has(
        &demo(Family::V6, &settings),
        "KUBE-SERVICES -m set --match-set KUBE-6-CLUSTER-IP dst,dst -j KUBE-MARK-MASQ",
    );
}

#[test]
fn a_load_balancer_admits_its_source_ranges_and_not_the_node() {
    let edges = lines("edges.json", "edge1", Family::V4, &ipvs());
    for line in [
        "add KUBE-LOAD-BALANCER-FW 198.18.0.1,6:80",
        "add KUBE-LOAD-BALANCER-SOURCE-CIDR 198.18.0.1,6:80,203.0.113.0/24",
        "KUBE-IPVS-OUT-FILTER -s 198.18.0.1 -m ipvs --vaddr 198.18.0.1 --vproto tcp --vport 80 -j DROP",
    ] {
        has(&edges, line);
    }
    has(&edges, "-A -t 10.97.0.8:80 -s rr -p 10800");
}
