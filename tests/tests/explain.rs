//! `observer explain`: what is predicted from the objects alone, without privilege.
//!
//! Goal: the prediction says what the lab's rules do. Method: every front door of the demo cluster
//! by every node, as the lab knows its policy and its endpoints, looked up in the matrix.

use std::{fs, process::Command};

use serde_json::{Value, json};
use tempfile::TempDir;
use tests::{
    command, demo, explained,
    kubeproxy::{
        Mode, Settings,
        doors::{Found, FrontDoor, Kind, Policy, front_doors},
    },
    observer_process,
    scene::Scene,
};

fn explain(arguments: &[&str]) -> Command {
    let mut command = Command::new(observer_process::binary().expect("an observer"));
    command
        .arg("explain")
        .args(arguments)
        .arg("--cluster-state");
    command
}

/// What is said of a client from outside at a front door.
fn said<'a>(matrix: &'a [Value], door: &FrontDoor) -> &'a Value {
    let mut cells = matrix.iter().filter(|cell| {
        cell["client"] == "external"
            && cell["node"] == json!(door.entry)
            && cell["front_door"]["ip"] == json!(door.to.ip())
            && cell["front_door"]["port"] == json!(door.to.port())
            && cell["protocol"] == "TCP"
    });
    let cell = cells.next();
    assert!(cells.next().is_none(), "{door:?} is explained once");
    cell.unwrap_or_else(|| panic!("{door:?} is not explained"))
}

#[test]
fn every_front_door_is_explained_as_the_rules_are() {
    let text = command::run(explain(&["-o", "json"]).arg(demo::cluster_file())).expect("explains");
    let matrix = explained::cells(&serde_json::from_str(&text).expect("JSON"));
    let cluster = Scene::demo().cluster().expect("the demo cluster");
    let settings = Settings::of(Mode::Nftables);
    let mut seen = 0;
    for door in front_doors(&cluster, &settings).expect("front doors") {
        let cell = said(&matrix, &door);
        let outcome = match (door.policy, door.endpoints) {
            (_, Found::Nothing) => "refused",
            (Policy::Local, Found::NoneHere) => "dropped",
            _ => "answered",
        };
        assert_eq!(cell["outcome"], outcome, "{door:?}");
        let source_ip = match (outcome, door.kind, door.policy) {
            ("answered", Kind::ClusterIp, _) | ("answered", _, Policy::Cluster) => "lost",
            ("answered", _, Policy::Local) => "preserved",
            _ => "unknown",
        };
        assert_eq!(cell["source_ip"], source_ip, "{door:?}");
        seen += 1;
    }
    assert!(seen > 40, "only {seen} front doors");
}

#[test]
fn the_table_folds_what_is_alike_and_tells_nodes_apart() {
    let text = command::run(explain(&["shop/far"]).arg(demo::cluster_file())).expect("explains");
    let row = |words: &[&str]| {
        let has = |line: &&str| words.iter().all(|word| line.contains(word));
        assert_eq!(text.lines().filter(has).count(), 1, "{words:?} in\n{text}");
    };
    row(&[
        "NodePort 30085",
        "node1",
        "external",
        "dropped",
        "no-local-endpoints",
    ]);
    row(&[
        "NodePort 30085",
        "node2",
        "external",
        "preserved",
        "answered",
    ]);
    assert!(!text.contains("shop/web"), "only what was asked for");
}

#[test]
fn what_cannot_be_explained_says_why() {
    let directory = TempDir::new().expect("a directory");
    let empty = directory.path().join("empty.json");
    fs::write(&empty, r#"{"kind": "List", "items": []}"#).expect("written");
    for (arguments, file, says) in [
        (&["shop/wep"][..], demo::cluster_file(), "shop/web"),
        (&[][..], empty, "no Nodes"),
    ] {
        let output = explain(arguments).arg(file).output().expect("runs");
        let stderr = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(
            stderr.contains(says) && stderr.lines().count() == 1,
            "{stderr}"
        );
    }
}
