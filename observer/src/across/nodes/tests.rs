//! What is said of nodes, and once.

use super::*;

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn followed() -> What {
    What::Followed {
        version: "0.1.0".to_owned(),
    }
}

fn lost(why: AgentError, was_followed: bool) -> What {
    What::Lost { why, was_followed }
}

/// Two nodes, of which the first is followed.
fn begun(start: Instant) -> Nodes {
    let mut nodes = Nodes::new("0.1.0");
    nodes.have_agents(&names(&["node1", "node2"]), start);
    assert!(!nodes.are_settled());
    assert_eq!(nodes.heard("node1", &followed(), start), None);
    let why = lost(AgentError::Token, false);
    assert_eq!(nodes.heard("node2", &why, start), None);
    assert!(nodes.are_settled());
    let (is_followed, others) = nodes.begin(start);
    assert_eq!(is_followed, ["node1"]);
    assert_eq!(others, [("node2".to_owned(), AgentError::Token)]);
    nodes
}

#[test]
fn what_does_not_change_is_said_once() {
    let start = Instant::now();
    let mut nodes = begun(start);
    // Told at the beginning.
    let again = lost(AgentError::Token, false);
    assert_eq!(nodes.heard("node2", &again, start), None);
    let said = nodes.heard("node1", &lost(AgentError::BrokeOff, true), start);
    let said = said.expect("it was followed");
    assert!(
        said.contains("node1: the connection to its agent broke off"),
        "{said}"
    );
    let again = lost(AgentError::BrokeOff, false);
    assert_eq!(nodes.heard("node1", &again, start), None);
    let later = start + Duration::from_millis(1_500);
    let said = nodes
        .heard("node1", &followed(), later)
        .expect("it is back");
    assert_eq!(said, "node1 is followed again, after 1.5 s");
    let said = nodes.heard("node2", &followed(), later).expect("it is new");
    assert_eq!(said, "node2 is followed, too");
    assert_eq!(
        nodes.summary(later),
        [
            "node1: 0 records; not followed for 1.5 s",
            "node2: 0 records; not followed for 1.5 s"
        ]
    );
}

/// As a `DaemonSet` with a surge does it.
#[test]
fn one_agent_after_another_is_no_gap() {
    let start = Instant::now();
    let mut nodes = begun(start);
    assert_eq!(nodes.heard("node1", &followed(), start), None);
    let ended = lost(AgentError::Ended, true);
    assert_eq!(nodes.heard("node1", &ended, start), None);
    assert!(nodes.followed().contains("node1"));
    let said = nodes
        .heard("node1", &ended, start)
        .expect("that was the last");
    assert!(said.contains("node1: its agent has ended"), "{said}");
    assert!(!nodes.followed().contains("node1"));
}

#[test]
fn the_summary_says_what_is_missing_and_why() {
    let start = Instant::now();
    let mut nodes = begun(start);
    let cut_off = AgentError::CutOff { missed: 120 };
    let _said = nodes.heard("node1", &lost(cut_off, true), start);
    let unreadable = What::Unreadable("no".to_owned());
    assert!(nodes.heard("node1", &unreadable, start).is_some());
    assert_eq!(nodes.heard("node1", &unreadable, start), None);
    let later = start + Duration::from_secs(2);
    let _said = nodes.heard("node1", &followed(), later);
    nodes.have_agents(&names(&["node1"]), later);
    assert_eq!(
        nodes.without_agents(names(&["node1", "node3"]).into_iter()),
        ["node3"]
    );
    assert_eq!(
        nodes.summary(later),
        [
            "node1: 0 records; 120 missing, read too slowly; 2 unreadable; not followed for 2.0 s",
            "node2: no agent",
            "node3: no agent",
        ]
    );
}

#[test]
fn only_another_major_version_is_told_of() {
    let start = Instant::now();
    for (ours, theirs, is_told) in [
        ("0.1.0", "0.9.3", false),
        ("1.2.0", "1.0.0", false),
        ("1.2.0", "2.0.0", true),
        ("0.1.0", "", true),
    ] {
        let mut nodes = Nodes::new(ours);
        let version = theirs.to_owned();
        let said = nodes.heard("node1", &What::Followed { version }, start);
        assert_eq!(said.is_some(), is_told, "{said:?}");
    }
}
