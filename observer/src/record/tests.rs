//! The record against its schema: what is printed is what is promised, and nothing is forgotten.

use jsonschema::Validator;
use rstest::rstest;
use serde_json::{Value, json};

use super::*;
use crate::verdict::{Basis, CauseCode, FindingCode, Hider, OutcomeCauseCode};

const SCHEMA_FILE: &str = include_str!("../../schema/observer.connection.v1.json");

fn schema() -> Value {
    serde_json::from_str(SCHEMA_FILE).expect("the schema is JSON")
}

fn validator() -> Validator {
    jsonschema::options()
        .should_validate_formats(true)
        .build(&schema())
        .expect("the schema is one")
}

/// The first part of a way through a proxy.
fn through() -> Through {
    let ip = |text: &str| text.parse().expect("the test's address parses");
    Through {
        proxy: Proxy {
            ip: ip("10.244.1.9"),
            pod: Some("ingress-5d4c".into()),
            node: "node1".into(),
        },
        client: Some(ThroughClient {
            ip: ip("203.0.113.50"),
            port: Some(49507),
            kind: ClientKind::External,
        }),
        front_door: Some(FrontDoor {
            kind: Some(FrontDoorKind::NodePort),
            ip: ip("172.31.0.11"),
            port: 30443,
        }),
        service: Some(Service {
            namespace: "ingress".into(),
            name: "nginx".into(),
            port: None,
            external_traffic_policy: Some(TrafficPolicy::Cluster),
        }),
        source_ip: SourceIp::Lost,
        lost_at: Some(LostAt {
            node: Some("node1".into()),
            interface: Some("cali1".into()),
            by: RewriteOwner::KubeProxy,
        }),
        cause: Some(Cause {
            code: CauseCode::ExternalTrafficPolicyCluster,
            basis: Basis::Observed,
            explanation: "because".to_owned(),
        }),
        extra_hops: Some(0),
        opened_before_ns: Some(1_500_000),
        confidence: Confidence::Exact,
        candidates: 1,
    }
}

/// A record with every part.
pub(crate) fn whole() -> Record {
    let ip = |text: &str| text.parse().expect("the test's address parses");
    let loss = Loss {
        at: LostAt {
            node: Some("node1".into()),
            interface: Some("eth0".into()),
            by: RewriteOwner::KubeProxy,
        },
        cause: Cause {
            code: CauseCode::ExternalTrafficPolicyCluster,
            basis: Basis::Observed,
            explanation: "because".to_owned(),
        },
    };
    Record {
        schema: SCHEMA,
        observed_at: Some("2026-11-23T12:00:42.123456Z".to_owned()),
        node: "node1".into(),
        from: From::Start,
        protocol: Protocol::Tcp,
        service: Some(Service {
            namespace: "shop".into(),
            name: "web".into(),
            port: Some("http".into()),
            external_traffic_policy: Some(TrafficPolicy::Cluster),
        }),
        front_door: FrontDoor {
            kind: Some(FrontDoorKind::NodePort),
            ip: ip("172.31.0.11"),
            port: 30080,
        },
        client: Client {
            ip: ip("203.0.113.50"),
            port: 49508,
            kind: ClientKind::External,
            recovered: None,
            recovered_from: None,
            hops_listed: None,
            not_recovered: None,
            server_name: None,
        },
        through: Some(through()),
        backend: Some(Backend {
            ip: ip("10.244.2.5"),
            port: 8080,
            pod: Some("web-7f9c".into()),
            node: Some("node2".into()),
        }),
        source_seen: Some(Endpoint {
            ip: ip("172.31.0.11"),
            port: 50513,
        }),
        source_ip: SourceIp::Lost,
        lost_at: Some(loss.at.clone()),
        cause: Some(loss.cause.clone()),
        losses: vec![loss],
        beyond: Some(Beyond {
            by: Hider::Sidecar,
            explanation: "because".to_owned(),
        }),
        outcome: Outcome::Answered,
        outcome_cause: Some(OutcomeCause {
            code: OutcomeCauseCode::Unknown,
            explanation: "because".to_owned(),
        }),
        extra_hops: Some(1),
        extra_hop_ns: Some(1),
        hop_check: Some(HopCheck {
            forwards: 2,
            expected: 2,
        }),
        path: vec![Step {
            node: "node1".into(),
            r#in: Some("eth0".into()),
            out: Some("eth0".into()),
            ttl_in: Some(64),
            ttl_out: Some(63),
            reply_ttl_in: Some(63),
            forward_ns: Some(41_200),
            reply_ns: Some(700_000),
        }],
        round_trip_ns: Some(810_000),
        expected: Some(Expected {
            source_ip: SourceIp::Lost,
            outcome: Outcome::Answered,
        }),
        as_expected: Some(true),
        cluster_stale_s: None,
        advice: vec![Advice {
            change: "this".into(),
            trade_off: "that".into(),
        }],
        findings: vec![Finding {
            code: FindingCode::ProxyHeaderMissing,
            explanation: "because".to_owned(),
            change: "this".to_owned(),
        }],
    }
}

fn printed() -> Value {
    serde_json::to_value(whole()).expect("a record is JSON")
}

/// Every field of `value`, by its JSON pointer in the schema's own nesting.
fn fields(value: &Value, at: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                let at = format!("{at}/{name}");
                found.push(at.clone());
                fields(value, &at, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| fields(item, at, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The same of a schema: what `properties` names, through the alternatives of a nullable and what
/// is defined once for several.
fn described(schema: &Value, at: &str, found: &mut Vec<String>) {
    if let Some(defined) = schema["$ref"].as_str() {
        let whole = self::schema();
        let defined = whole.pointer(defined.trim_start_matches('#'));
        described(defined.expect("defined"), at, found);
    }
    for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
        let at = format!("{at}/{name}");
        found.push(at.clone());
        described(schema, &at, found);
    }
    for alternative in schema["oneOf"].as_array().into_iter().flatten() {
        described(alternative, at, found);
    }
    if schema["items"].is_object() {
        described(&schema["items"], at, found);
    }
}

#[test]
fn the_schema_names_every_field_and_only_those() {
    let (mut printed_fields, mut schema_fields) = (Vec::new(), Vec::new());
    fields(&printed(), "", &mut printed_fields);
    described(&schema(), "", &mut schema_fields);
    printed_fields.sort();
    schema_fields.sort();
    assert_eq!(printed_fields, schema_fields);
}

#[test]
fn the_fields_are_printed_in_the_order_of_the_schema() {
    let text = serde_json::to_string(&whole()).expect("a record is JSON");
    let start = r#"{"schema":"observer.connection/v1","observed_at":"2026-11-23T12:00:42.123456Z","node":"node1","from":"start","protocol":"TCP","service":{"namespace":"shop","name":"web","port":"http","external_traffic_policy":"Cluster"},"front_door":{"kind":"NodePort","ip":"172.31.0.11","port":30080},"#;
    assert!(text.starts_with(start), "{text}");
}

#[test]
fn a_whole_record_is_valid() {
    let errors: Vec<_> = validator()
        .iter_errors(&printed())
        .map(|error| error.to_string())
        .collect();
    assert_eq!(errors, [] as [String; 0]);
}

#[rstest]
#[case::a_guess_for_null("/source_ip", Value::Null)]
#[case::a_word_of_no_vocabulary("/outcome", json!("fine"))]
#[case::a_mapped_address("/client/ip", json!("::ffff:203.0.113.50"))]
#[case::a_bracket("/client/ip", json!("[2001:db8::1]"))]
#[case::no_address("/client/ip", json!("here"))]
#[case::a_loss_without_a_place("/lost_at", Value::Null)]
#[case::a_loss_at_no_stage("/losses", json!([]))]
#[case::a_source_seen_by_nobody("/backend", Value::Null)]
#[case::seconds("/observed_at", json!("2026-11-23T12:00:42Z"))]
#[case::a_port_too_high("/front_door/port", json!(70_000))]
fn what_is_not_promised_is_invalid(#[case] field: &str, #[case] wrong: Value) {
    let mut record = printed();
    *record.pointer_mut(field).expect("a field") = wrong;
    assert!(!validator().is_valid(&record));
}

#[test]
fn a_record_without_a_field_is_invalid() {
    let validator = validator();
    let whole = printed();
    for name in whole.as_object().expect("an object").keys() {
        let mut record = whole.clone();
        record.as_object_mut().expect("an object").remove(name);
        assert!(!validator.is_valid(&record), "{name}");
    }
}

/// Of a proxy's connection: the client was lost on the way to it, by it, and by the node behind it.
#[test]
fn a_connections_own_loss_is_not_what_came_before_its_proxy() {
    let mut record = whole();
    let loss = |by, code| {
        let mut loss = record.losses[0].clone();
        (loss.at.by, loss.cause.code) = (by, code);
        loss
    };
    let balancer = loss(RewriteOwner::LoadBalancer, CauseCode::UpstreamLoadBalancer);
    let to_proxy = loss(
        RewriteOwner::KubeProxy,
        CauseCode::ExternalTrafficPolicyCluster,
    );
    let proxy = loss(RewriteOwner::Proxy, CauseCode::L7Proxy);
    let node = loss(RewriteOwner::Cni, CauseCode::CniMasquerade);
    let mut told = |is_through: bool, losses: &[&Loss]| {
        record.through = is_through.then(through);
        record.losses = losses.iter().map(|loss| (*loss).clone()).collect();
        record.cause = record.losses.first().map(|loss| loss.cause.clone());
        let code = |cause: Option<&Cause>| cause.map(|cause| cause.code);
        (code(record.own_cause()), code(record.node_cause()))
    };
    let (own, of_node) = (Some(CauseCode::L7Proxy), Some(CauseCode::CniMasquerade));
    let way = [&balancer, &to_proxy, &proxy, &node];
    assert_eq!(told(true, &way), (own, of_node));
    assert_eq!(told(true, &way[..3]), (own, None));
    assert_eq!(told(false, &way[2..]), (own, of_node));
    let (front, policy) = (Some(balancer.cause.code), Some(to_proxy.cause.code));
    assert_eq!(told(false, &way[..2]), (front, policy));
    assert_eq!(told(false, &way[..1]), (front, None));
    assert_eq!(told(false, &way[1..2]), (policy, policy));
    assert_eq!(told(false, &[]), (None, None));
}
