//! What the observer leaves behind: nothing.
//!
//! Goal: after its end no program, filter, map or qdisc of it remains. Method: while it runs,
//! list what is attached in the node's namespace; after its end, look for each of them.

use std::{collections::BTreeSet, process::Command, time::Duration};

use serde_json::Value;
use tests::{
    child::poll_until, command, demo, netns::Namespace, observer_process::ObserverProcess,
    privilege,
};

/// The kernel frees programs and maps a moment after their last user is gone.
const PATIENCE: Duration = Duration::from_secs(5);

/// Every `id` below `value`, under any of the names that bpftool gives to the id of a program.
fn program_ids(value: &Value, ids: &mut BTreeSet<u64>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value.as_u64() {
                    Some(id) if name == "prog_id" || name == "id" => {
                        ids.insert(id);
                    }
                    _ => program_ids(value, ids),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| program_ids(value, ids)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The programs attached to the interfaces of a namespace, by TCX or by clsact.
fn attached(namespace: &Namespace) -> BTreeSet<u64> {
    let text = command::run(namespace.command("bpftool").args(["--json", "net", "show"]))
        .expect("bpftool net");
    let shown: Value = serde_json::from_str(&text).expect("JSON");
    let mut ids = BTreeSet::new();
    for network in shown.as_array().expect("a list") {
        for kind in ["tc", "xdp"] {
            program_ids(network.get(kind).unwrap_or(&Value::Null), &mut ids);
        }
    }
    ids
}

fn maps_of(program: u64) -> BTreeSet<u64> {
    let text = command::run(Command::new("bpftool").args([
        "--json",
        "prog",
        "show",
        "id",
        &program.to_string(),
    ]))
    .expect("bpftool prog");
    let shown: Value = serde_json::from_str(&text).expect("JSON");
    let maps = shown
        .get("map_ids")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    maps.filter_map(Value::as_u64).collect()
}

fn is_gone(what: &str, id: u64) -> bool {
    command::run(Command::new("bpftool").args([what, "show", "id", &id.to_string()])).is_err()
}

fn clsact(namespace: &Namespace) -> Vec<String> {
    let text = command::run(namespace.command("tc").args(["qdisc", "show"])).expect("tc qdisc");
    text.lines()
        .filter(|line| line.contains("clsact") || line.contains("ingress"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn nothing_of_an_observer_outlives_it() {
    if !privilege::granted("nothing_of_an_observer_outlives_it") {
        return;
    }
    let lab = demo::raise().expect("raised");
    let node = lab.node("node1").expect("a node");
    assert_eq!(
        attached(&node.namespace),
        BTreeSet::new(),
        "a fresh node has nothing attached"
    );

    let observer = ObserverProcess::start(node, &demo::cluster_file(), &[]).expect("observes");
    let programs = attached(&node.namespace);
    assert!(
        !programs.is_empty(),
        "an observer at work has programs attached"
    );
    let maps: BTreeSet<u64> = programs
        .iter()
        .flat_map(|program| maps_of(*program))
        .collect();
    assert!(!maps.is_empty(), "its programs have maps");
    let finished = observer.stop().expect("stops");
    assert!(
        finished.status.success(),
        "{}: {}",
        finished.status,
        finished.stderr
    );

    assert_eq!(
        attached(&node.namespace),
        BTreeSet::new(),
        "attached after its end"
    );
    assert_eq!(
        clsact(&node.namespace),
        [] as [String; 0],
        "a qdisc after its end"
    );
    for (what, ids) in [("prog", programs), ("map", maps)] {
        for id in ids {
            let gone = poll_until(PATIENCE, || is_gone(what, id).then_some(()));
            assert!(gone.is_some(), "the {what} {id} outlived the observer");
        }
    }
}
