//! The lab's rules against those that a real kube-proxy 1.36 left on two nodes.
//!
//! Goal: a lab that lies would make every other test worthless. Method: render the rules of the
//! recorded cluster's objects and compare them with what was recorded, once as text and once
//! after a trip through this kernel.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rstest::rstest;
use tests::{
    cluster::Cluster,
    kubeproxy::{
        self, Backend, Family, Mode, Settings, iptables,
        nftables::{self, Kind},
    },
    netns::Namespace,
    privilege, recording,
    scene::Scene,
};

/// What a kube-proxy programs, in either of its modes.
enum Rules {
    Iptables(iptables::Ruleset),
    Nftables(nftables::Ruleset),
}

/// What was recorded of a node.
fn recorded(captures: &Path, mode: Mode, node: &str, family: Family) -> Rules {
    let folder = match node {
        "node1" => mode.to_string(),
        _ => format!("{mode}-{node}"),
    };
    let read = |file: &str| fs::read_to_string(captures.join(folder).join(file)).expect("recorded");
    match (mode, family) {
        (Mode::Iptables(_), Family::V4) => {
            Rules::Iptables(read("iptables-save.txt").parse().expect("a rule set"))
        }
        (Mode::Iptables(_), Family::V6) => {
            Rules::Iptables(read("ip6tables-save.txt").parse().expect("a rule set"))
        }
        (Mode::Ipvs, _) => panic!("nothing was recorded of it"),
        (Mode::Nftables, _) => {
            Rules::Nftables(nftables::Ruleset::parse(&read("nft.txt"), family).expect("a table"))
        }
    }
}

fn rendered(cluster: &Cluster, settings: &Settings, node: &str, family: Family) -> Rules {
    match settings.mode {
        Mode::Iptables(_) => {
            Rules::Iptables(iptables::render(cluster, node, family, settings).expect("renders"))
        }
        Mode::Ipvs => panic!("nothing was recorded to compare with"),
        Mode::Nftables => {
            Rules::Nftables(nftables::render(cluster, node, family, settings).expect("renders"))
        }
    }
}

/// What the kernel gives back of what it was given.
fn held(namespace: &Namespace, mode: Mode, family: Family) -> Rules {
    match mode {
        Mode::Iptables(backend) => {
            Rules::Iptables(iptables::save(namespace, backend, family).expect("saved"))
        }
        Mode::Ipvs => panic!("nothing was recorded to compare with"),
        Mode::Nftables => Rules::Nftables(nftables::list(namespace, family).expect("listed")),
    }
}

fn differences(ours: &Rules, recorded: &Rules) -> Vec<String> {
    match (ours, recorded) {
        (Rules::Iptables(ours), Rules::Iptables(recorded)) => iptables::differences(ours, recorded),
        (Rules::Nftables(ours), Rules::Nftables(recorded)) => nftables::differences(ours, recorded),
        _ => panic!("rules of two modes cannot be compared"),
    }
}

fn assert_same(ours: &Rules, recorded: &Rules) {
    let found = differences(ours, recorded);
    assert!(
        found.is_empty(),
        "{} differences:\n{}",
        found.len(),
        found.join("\n")
    );
}

fn captures() -> Option<PathBuf> {
    recording::captures("the comparison with a real kube-proxy")
}

/// Nothing may differ: not a chain, not a rule, not an element, not the order where it counts.
/// The list of allowed differences is empty.
#[rstest]
fn rules_are_those_of_a_real_kube_proxy(
    #[values(Mode::Iptables(Backend::Nft), Mode::Nftables)] mode: Mode,
    #[values("node1", "node2")] node: &str,
    #[values(Family::V4, Family::V6)] family: Family,
) {
    let Some(captures) = captures() else { return };
    let cluster = Scene::recorded(&captures)
        .cluster()
        .expect("the recorded objects");
    let ours = rendered(
        &cluster,
        &Scene::recorded(&captures).settings(mode),
        node,
        family,
    );
    assert_same(&ours, &recorded(&captures, mode, node, family));
}

/// The kernel takes the rules and gives back what it gave back to the real kube-proxy, by either
/// of its backends.
#[rstest]
fn the_kernel_holds_what_it_held_for_a_real_kube_proxy(
    #[values(
        Mode::Iptables(Backend::Nft),
        Mode::Iptables(Backend::Legacy),
        Mode::Nftables
    )]
    mode: Mode,
    #[values("node1", "node2")] node: &str,
) {
    if !privilege::granted("the_kernel_holds_what_it_held_for_a_real_kube_proxy") {
        return;
    }
    let Some(captures) = captures() else { return };
    let cluster = Scene::recorded(&captures)
        .cluster()
        .expect("the recorded objects");
    let namespace = Namespace::create("rules").expect("a namespace");
    kubeproxy::program(
        &namespace,
        &cluster,
        node,
        &Scene::recorded(&captures).settings(mode),
    )
    .expect("programmed");
    for family in Family::ALL {
        assert_same(
            &held(&namespace, mode, family),
            &recorded(&captures, mode, node, family),
        );
    }
}

/// Settings that no recording shows must at least be what the kernel understands, and come back
/// as they were written.
#[rstest]
fn the_kernel_takes_every_setting(
    #[values(
        Mode::Iptables(Backend::Nft),
        Mode::Iptables(Backend::Legacy),
        Mode::Nftables
    )]
    mode: Mode,
) {
    if !privilege::granted("the_kernel_takes_every_setting") {
        return;
    }
    let cluster = Scene::demo().cluster().expect("the demo cluster");
    for settings in other_settings(mode) {
        let namespace = Namespace::create("settings").expect("a namespace");
        kubeproxy::program(&namespace, &cluster, "node1", &settings).expect("programmed");
        for family in Family::ALL {
            let rendered = rendered(&cluster, &settings, "node1", family);
            assert_same(&held(&namespace, mode, family), &rendered);
        }
    }
}

fn other_settings(mode: Mode) -> Vec<Settings> {
    use kubeproxy::{DetectLocal, NodePortAddresses};
    let default = Settings::of(mode);
    let everywhere = ["0.0.0.0/0", "::/0"].map(|range| range.parse().expect("a range"));
    let detect = |detect_local| Settings {
        detect_local,
        ..default.clone()
    };
    let node_ports = |node_port_addresses| Settings {
        node_port_addresses,
        ..default.clone()
    };
    vec![
        Settings {
            masquerade_all: true,
            ..default.clone()
        },
        Settings {
            cluster_cidrs: Vec::new(),
            localhost_node_ports: false,
            ..default.clone()
        },
        detect(DetectLocal::NodeCidr),
        detect(DetectLocal::BridgeInterface("cni0".to_owned())),
        detect(DetectLocal::InterfaceNamePrefix("cali".to_owned())),
        node_ports(NodePortAddresses::Primary),
        node_ports(NodePortAddresses::Within(everywhere.to_vec())),
    ]
}

/// A comparison that cannot fail proves nothing: each changed rule must be reported.
#[test]
fn a_changed_rule_is_reported() {
    let Some(captures) = captures() else { return };
    let mode = Mode::Iptables(Backend::Nft);
    let Rules::Iptables(recorded) = recorded(&captures, mode, "node1", Family::V4) else {
        panic!("rules of iptables")
    };
    let chains: Vec<(String, String, usize)> = recorded
        .chains()
        .map(|(table, chain, rules)| (table.to_owned(), chain.to_owned(), rules.len()))
        .collect();
    let mut changed = 0;
    for (table, chain, length) in chains {
        for number in 0..length {
            let mut ours = recorded.clone();
            ours.rules(&table, &chain)[number].push_str(" -m changed");
            assert!(
                !iptables::differences(&ours, &recorded).is_empty(),
                "{table} {chain}: the change of rule {} went unseen",
                number + 1
            );
            changed += 1;
        }
    }
    assert!(changed > 150, "only {changed} rules were changed");
}

/// The same in nftables mode, for lines and elements.
#[test]
fn a_changed_line_or_element_is_reported() {
    let Some(captures) = captures() else { return };
    let Rules::Nftables(recorded) = recorded(&captures, Mode::Nftables, "node1", Family::V6) else {
        panic!("a table of nftables")
    };
    let objects: Vec<(Kind, String, nftables::Object)> = recorded
        .objects()
        .map(|(kind, name, object)| (kind, name.to_owned(), object.clone()))
        .collect();
    let mut changed = 0;
    for (kind, name, object) in objects {
        let mut see = |change: &dyn Fn(&mut nftables::Object)| {
            let mut ours = recorded.clone();
            change(ours.object(kind, &name));
            assert!(
                !nftables::differences(&ours, &recorded).is_empty(),
                "{name}: the change {changed} went unseen"
            );
            changed += 1;
        };
        for number in 0..object.lines.len() {
            see(&|object| object.lines[number].push_str(" changed"));
        }
        for element in &object.elements {
            see(&|object| drop(object.elements.take(element)));
        }
    }
    assert!(
        changed > 100,
        "only {changed} lines and elements were changed"
    );
}
