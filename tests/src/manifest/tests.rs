//! What an expectation takes, and what it finds.

use serde_json::json;

use super::*;

const FILE: &str = "\
apiVersion: observer/tests
kind: Expectation
says: A sentence.
source: A document.
expect:
  - { service: shop/web, door: NodePort, client: external, nodes: [node-a], source_ip: lost,
      seen: entry-node, recoverable: [proxy-v2, x-forwarded-for], extra_hops: { least: 0, most: 1 } }
  - { service: shop/web, door: NodePort, client: external, source_ip: lost }
hosts:
  - { workload: DaemonSet edge/gateway, protocol: TCP, port: 80, host_network: true,
      source_ip: preserved }
findings: [no-endpoints]
---
apiVersion: v1
kind: Service
metadata:
  name: web
";

/// What agrees with it.
fn explanation() -> Value {
    json!({
        "services": [{
            "service": {"namespace": "shop", "name": "web"},
            "ways": [
                {"door": "NodePort", "client": "external", "nodes": ["node-a", "node-c"],
                 "source_ip": "lost", "seen": "entry-node", "outcome": "answered",
                 "recoverable": ["x-forwarded-for", "proxy-v2"],
                 "extra_hops": {"least": 0, "most": 1}},
                {"door": "NodePort", "client": "external", "nodes": ["node-b"],
                 "source_ip": "unknown", "outcome": "dropped"},
                {"door": "NodePort", "client": "external", "nodes": ["node-d"],
                 "source_ip": "preserved", "outcome": "answered", "left_out": true},
            ],
            "findings": [{"severity": "broken", "code": "no-endpoints"}],
        }],
        "hosts": [{"workload": "DaemonSet edge/gateway", "protocol": "TCP", "port": 80,
                   "host_network": true, "source_ip": "preserved"}],
        "findings": [{"severity": "note", "code": "headless"}],
    })
}

fn manifest() -> Manifest {
    Manifest::parse("file", FILE).expect("an expectation")
}

#[test]
fn what_is_said_in_any_order_and_with_notes_agrees() {
    let disagreements = manifest().disagreements(&explanation());
    assert!(disagreements.is_empty(), "{disagreements:?}");
}

#[rstest::rstest]
#[case("/services/0/ways/0/seen", json!("load-balancer"), "seen: expected \"entry-node\"")]
#[case("/services/0/ways/0/extra_hops/most", json!(2), "extra_hops")]
#[case("/services/0/ways/0/recoverable", json!([]), "recoverable")]
#[case("/services/0/ways/0/nodes", json!(["node-e"]), "no such way")]
#[case("/services/0/ways/1/outcome", json!("answered"), "source_ip")]
#[case("/services/0/ways/2/left_out", json!(false), "source_ip")]
#[case("/services/0/service/name", json!("other"), "not explained")]
#[case("/services/0/findings", json!([]), "no-endpoints is not found")]
#[case("/findings/0/severity", json!("loses"), "unexpectedly")]
#[case("/hosts/0/source_ip", json!("lost"), "source_ip")]
#[case("/hosts/0/port", json!(81), "not explained")]
fn each_difference_is_told(#[case] at: &str, #[case] said: Value, #[case] told: &str) {
    let mut explanation = explanation();
    *explanation.pointer_mut(at).expect("a place") = said;
    let disagreements = manifest().disagreements(&explanation);
    assert!(
        disagreements.iter().any(|line| line.contains(told)),
        "{disagreements:?}"
    );
}

#[rstest::rstest]
#[case("seen: entry-node", "seen: entry_node", "entry_node")]
#[case("client: external, s", "client: external, sauce: none, s", "sauce")]
#[case("door: NodePort", "door: nodeport", "nodeport")]
#[case("---\n", "", "nothing after")]
#[case("kind: Expectation", "kind: Service", "Service")]
fn what_is_misspelt_is_refused(#[case] from: &str, #[case] to: &str, #[case] told: &str) {
    let error = Manifest::parse("file", &FILE.replacen(from, to, 1)).expect_err("refused");
    assert!(format!("{error:#}").contains(told), "{error:#}");
}

#[test]
fn what_the_api_does_not_take_is_found() {
    manifest().check().expect("taken");
    for (extra, told) in [
        ("spec: {typ: NodePort}\n", "/spec/typ"),
        (
            "---\napiVersion: v1\nkind: Secret\nmetadata: {name: a}\n",
            "Secret",
        ),
    ] {
        let manifest = Manifest::parse("file", &format!("{FILE}{extra}")).expect("parsed");
        let error = format!("{:#}", manifest.check().expect_err("not taken"));
        assert!(error.contains(told), "{error}");
    }
}
