//! From what was seen to how it stands.

use std::collections::BTreeSet;

use rstest::rstest;

use super::bundle;
use super::checks;
use super::cluster::Source;
use super::facts::{Btf, Facts, Interface};
use super::kube_proxy::LegacyRules;
use super::report::{Check, Report, Status};
use crate::kernel::environment::Environment;
use crate::kernel::nftables::{Flowtable, RuleFamily, Ruleset};
use crate::kernel::programs::Memory;
use crate::output::Page;

fn interface(name: &str, observed: bool, uplink: bool, why: &str) -> Interface {
    Interface {
        name: name.to_owned(),
        observed,
        uplink,
        why: why.to_owned(),
    }
}

/// A node on which everything is as it should be.
fn healthy() -> Facts {
    let mut interfaces = vec![
        interface("lo", false, false, "loopback"),
        interface("eth0", true, true, "uplink"),
    ];
    interfaces
        .extend((1..=10).map(|n| interface(&format!("veth{n}"), true, false, "towards a pod")));
    Facts {
        environment: Environment {
            release: "6.12.0-1-amd64".to_owned(),
            machine: "x86_64".to_owned(),
            in_first_user_namespace: Some(true),
            lockdown: Some("integrity".to_owned()),
            conntrack_count: Some(100),
            conntrack_max: Some(1_000),
            ..Environment::default()
        },
        missing_capabilities: Ok(Vec::new()),
        btf: Btf::Known("…".to_owned()),
        tracked: Ok([true, true]),
        programs: Some(Ok(Some(Memory {
            all: 18_350_080,
            pending: 8_388_608,
            udp_flows: 8_388_608,
            ring_buffer: 1_052_672,
        }))),
        drop_reasons: Some(Ok(())),
        first_bytes: Some(Ok(None)),
        tcx: Some(Ok(true)),
        interfaces: Ok(interfaces),
        all_programs: Ok(vec!["sd_fw_egress".to_owned()]),
        rules: Ok(Ruleset {
            kube_services_chains: BTreeSet::from([RuleFamily::Ip, RuleFamily::Ip6]),
            ..Ruleset::default()
        }),
        legacy_rules: LegacyRules {
            kube_services: Ok(false),
            notrack: Ok(false),
        },
        proxy_mode: Ok("iptables".to_owned()),
        cluster: Source::Api {
            missing: Vec::new(),
        },
        node: Some(Ok(())),
    }
}

/// What is not as it should be, by name.
fn found(facts: &Facts) -> Vec<(&'static str, Status)> {
    let checks = checks::all(facts).into_iter();
    checks
        .filter(|check| check.status != Status::Ok)
        .map(|check| (check.name, check.status))
        .collect()
}

#[test]
fn a_healthy_node_is_told_in_a_dozen_lines() {
    let report = Report::new(checks::all(&healthy()));
    assert!(report.can_observe());
    assert_eq!(found(&healthy()), []);
    insta::assert_snapshot!(report.table(Page::plain(100)), @r"
    ok       kernel        Linux 6.12.0-1-amd64 on x86_64
    ok       BTF           tells where conntrack keeps its entries
    ok       capabilities  all that observing needs are in force
    ok       programs      the kernel takes them (loaded, attached to nothing; their maps take 17.5 MiB
                           of its memory: 8.0 MiB what is pending, 8.0 MiB UDP flows, 1.0 MiB the ring
                           buffer)
    ok       hook          TCX
    ok       drop reasons  the kernel says why it drops a packet
    ok       first bytes   not read unless asked for: --payload known, or on: that costs 2 to 5 ns a
                           segment of an established connection, 0.15 µs one of a connection opened
                           seconds ago
    ok       conntrack     tracks IPv4 and IPv6
    ok       interfaces    eth0 observed: uplink
    ok       interfaces    veth1, veth2, veth3, veth4, veth5, veth6, veth7, veth8 and 2 more observed:
                           towards a pod
    ok       interfaces    lo not observed: loopback
    ok       kube-proxy    iptables mode, and its rules are here
    ok       dataplane     nothing that bypasses conntrack was found
    ok       cluster       its API server gives all that is asked of it
    ok       node          the cluster's objects have it

    observing can work here
    ");
}

#[test]
fn a_kernel_without_drop_reasons_is_no_finding_and_says_why() {
    let mut facts = healthy();
    facts.drop_reasons = Some(Err("the tracepoint gives none".to_owned()));
    assert_eq!(found(&facts), []);
    let table = Report::new(checks::all(&facts)).table(Page::plain(100));
    assert!(table.contains("none: the tracepoint gives none"), "{table}");
}

#[rstest]
#[case::an_old_kernel(
    |facts: &mut Facts| facts.environment.release = "5.4.0".to_owned(),
    "kernel",
    Status::Missing
)]
#[case::no_btf(
    |facts: &mut Facts| facts.btf = Btf::None("no such file".to_owned()),
    "BTF",
    Status::Missing
)]
#[case::conntrack_unknown(
    |facts: &mut Facts| facts.btf = Btf::Unknown("a module".to_owned()),
    "BTF",
    Status::Warning
)]
#[case::a_capability_is_missing(
    |facts: &mut Facts| facts.missing_capabilities = Ok(vec!["CAP_PERFMON".to_owned()]),
    "capabilities",
    Status::Missing
)]
#[case::root_of_a_user_namespace(
    |facts: &mut Facts| facts.environment.in_first_user_namespace = Some(false),
    "capabilities",
    Status::Missing
)]
#[case::lockdown(
    |facts: &mut Facts| facts.environment.lockdown = Some("confidentiality".to_owned()),
    "lockdown",
    Status::Missing
)]
#[case::programs_are_refused(
    |facts: &mut Facts| facts.programs = Some(Err("Permission denied\nlog\nlog".to_owned())),
    "programs",
    Status::Missing
)]
#[case::no_conntrack(
    |facts: &mut Facts| facts.environment.conntrack_max = None,
    "conntrack",
    Status::Warning
)]
#[case::conntrack_is_nearly_full(
    |facts: &mut Facts| facts.environment.conntrack_count = Some(990),
    "conntrack",
    Status::Warning
)]
#[case::nothing_is_tracked(
    |facts: &mut Facts| facts.tracked = Ok([false, false]),
    "conntrack",
    Status::Warning
)]
#[case::no_uplink(
    |facts: &mut Facts| {
        for interface in facts.interfaces.iter_mut().flatten() {
            interface.uplink = false;
        }
    },
    "interfaces",
    Status::Warning
)]
#[case::nothing_to_observe(
    |facts: &mut Facts| facts.interfaces = Ok(vec![interface("lo", false, false, "loopback")]),
    "interfaces",
    Status::Missing
)]
#[case::no_kube_proxy(
    |facts: &mut Facts| {
        facts.proxy_mode = Err("refused".to_owned());
        facts.rules = Ok(Ruleset::default());
    },
    "kube-proxy",
    Status::Warning
)]
#[case::cilium(
    |facts: &mut Facts| facts.all_programs = Ok(vec!["cil_from_netdev".to_owned()]),
    "dataplane",
    Status::Warning
)]
#[case::open_vswitch(
    |facts: &mut Facts| {
        let switch = interface("ovs-system", false, false, "it is down");
        facts.interfaces.as_mut().expect("interfaces").push(switch);
    },
    "dataplane",
    Status::Warning
)]
#[case::untracked(
    |facts: &mut Facts| {
        let rules = facts.rules.as_mut().expect("rules");
        rules.notrack.insert("ip raw PREROUTING".to_owned());
    },
    "NOTRACK",
    Status::Warning
)]
#[case::no_api_server(
    |facts: &mut Facts| facts.cluster = Source::Unreachable("the API server: connection refused".into()),
    "cluster", Status::Warning
)]
#[case::a_kind_may_not_be_read(
    |facts: &mut Facts| facts.cluster = Source::Api { missing: vec!["nodes: forbidden".into()] },
    "cluster", Status::Warning
)]
#[case::another_node(
    |facts: &mut Facts| facts.node = Some(Err("there is no Node x".to_owned())),
    "node",
    Status::Missing
)]
fn each_fault_is_one_finding(
    #[case] fault: fn(&mut Facts),
    #[case] name: &'static str,
    #[case] status: Status,
) {
    let mut facts = healthy();
    fault(&mut facts);
    assert_eq!(found(&facts), [(name, status)]);
    let can_observe = Report::new(checks::all(&facts)).can_observe();
    assert_eq!(can_observe, status != Status::Missing);
}

#[test]
fn whatever_is_not_ok_says_what_it_means_or_what_to_do() {
    let mut facts = healthy();
    facts.environment = Environment::default();
    facts.btf = Btf::None("no such file".to_owned());
    facts.missing_capabilities = Ok(vec!["CAP_BPF".to_owned()]);
    facts.programs = None;
    facts.tcx = None;
    facts.tracked = Err("refused".to_owned());
    facts.all_programs = Err("refused".to_owned());
    facts.rules = Err("refused".to_owned());
    for Check {
        name,
        status,
        found,
        means,
        remedy,
    } in checks::all(&facts)
    {
        assert!(
            status == Status::Ok || means.is_some() || remedy.is_some(),
            "{name}: {found}"
        );
    }
}

#[test]
fn a_hardware_flowtable_is_a_warning_and_a_software_one_is_none() {
    let mut facts = healthy();
    let rules = facts.rules.as_mut().expect("rules");
    rules.flowtables.insert(Flowtable {
        name: "inet filter f".to_owned(),
        in_hardware: false,
    });
    assert_eq!(found(&facts), []);
    let rules = facts.rules.as_mut().expect("rules");
    rules.flowtables.insert(Flowtable {
        name: "inet filter g".to_owned(),
        in_hardware: true,
    });
    assert_eq!(found(&facts), [("offload", Status::Warning)]);
}

#[test]
fn the_verifiers_log_is_for_the_bundle_alone() {
    let mut facts = healthy();
    facts.programs = Some(Err("refused by 203.0.113.7\nthe log".to_owned()));
    let report = Report::new(checks::all(&facts));
    assert!(!report.table(Page::plain(100)).contains("the log"));
    let directory = tempfile::TempDir::new().expect("a directory");
    let path = directory.path().join("bundle.json");
    bundle::write(&path, &facts, &report).expect("written");
    let bundle = std::fs::read_to_string(&path).expect("a bundle");
    assert!(bundle.contains("the log"), "{bundle}");
    assert!(!bundle.contains("203.0.113.7"), "{bundle}");
    let bundle: serde_json::Value = serde_json::from_str(&bundle).expect("JSON");
    assert_eq!(bundle["schema"], "observer.bundle/v1");
    assert_eq!(bundle["report"]["schema"], "observer.doctor/v1");
    assert_eq!(bundle["report"]["can_observe"], false);
}
