//! What is no scenario is refused with what is wrong with it.

use rstest::rstest;

use super::*;

const GOOD: &str = r#"
row: "2"
says: A node port.
source: a file
service: { type: NodePort }
endpoints: [{ node: node2 }]
connection: { client: external, door: NodePort, node: node1 }
expect: { source_ip: lost, source_seen: node1, cause: external-traffic-policy-cluster, outcome: answered, extra_hops: 1 }
"#;

#[test]
fn a_scenario_is_read_with_its_defaults() {
    let scenario = Scenario::parse("02-a-node-port", GOOD).expect("a scenario");
    assert_eq!(scenario.name, "02-a-node-port");
    assert_eq!(scenario.modes, Proxy::all());
    assert_eq!(scenario.families, [IpFamily::IPv4, IpFamily::IPv6]);
    assert_eq!(scenario.connection.times, 1);
    assert!(scenario.expect.reported);
    assert_eq!(scenario.expect.in_short(), "lost +1");
}

#[rstest]
#[case::an_unknown_field("row:", "rwo: 1\nrow:", "rwo")]
#[case::an_unknown_field_deep_inside(
    "type: NodePort",
    "type: NodePort, externalTrafficPolice: Local",
    "externalTrafficPolice"
)]
#[case::a_word_that_is_none("client: external", "client: extern", "extern")]
#[case::no_yaml("service: {", "service: [", "line 5")]
#[case::no_such_node("node: node1 }", "node: node3 }", "there is no node \"node3\"")]
#[case::no_such_pod("{ node: node2 }", "{ node: node2, replica: 3 }", "replica is 3")]
#[case::a_door_that_the_service_has_not("type: NodePort", "type: ClusterIP", "door is NodePort")]
#[case::no_load_balancer("door: NodePort", "door: LoadBalancer", "door is LoadBalancer")]
#[case::a_policy_without_a_door(
    "type: NodePort }",
    "type: ClusterIP, externalTrafficPolicy: Local }",
    "NodePort"
)]
#[case::localhost_from_afar(
    "node: node1 }",
    "node: node1, at: localhost }",
    "only the client node"
)]
#[case::the_wrong_endpoint("client: external", "client: endpoint", "the first endpoint")]
#[case::answered_by_nobody("source_ip: lost", "source_ip: unknown", "expect.source_ip is unknown")]
#[case::lost_without_a_cause("cause: external-traffic-policy-cluster, ", "", "expect.cause")]
#[case::no_hops(", extra_hops: 1", "", "extra_hops")]
#[case::an_answer_with_an_excuse(
    "outcome: answered",
    "outcome: answered, outcome_cause: no-endpoints",
    "outcome_cause"
)]
fn what_cannot_be_is_refused_with_the_reason(
    #[case] from: &str,
    #[case] to: &str,
    #[case] says: &str,
) {
    assert!(GOOD.contains(from), "{from:?} changes nothing");
    let text = GOOD.replacen(from, to, 1);
    let error = Scenario::parse("bad", &text).expect_err("no scenario");
    let error = format!("{error:#}");
    assert!(error.contains(says), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
}

#[test]
fn a_file_that_is_none_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("Big.yaml"), GOOD).expect("written");
    let error = format!(
        "{:#}",
        Scenario::read_all(folder.path()).expect_err("a bad name")
    );
    assert!(
        error.contains("Big.yaml") && error.contains("small letters"),
        "{error}"
    );
}

/// Every file of the repository can be read without a lab.
#[test]
fn the_scenarios_of_the_repository_are_scenarios() {
    let scenarios = Scenario::read_all(&Scenario::folder()).expect("scenarios");
    assert!(scenarios.len() >= 60, "{}", scenarios.len());
}
