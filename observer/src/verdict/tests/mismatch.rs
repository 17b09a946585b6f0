//! What does not fit together on a connection's way.

use super::*;
use crate::cluster::proxy::HeaderReader;
use crate::payload::{Carrier, Chain, Reading, Reason};

const BALANCER: &str = "192.0.2.7:40000";
/// Under policy Local, with a pod here.
const LOCAL_DOOR: &str = "172.31.0.11:30086";

/// What is found of a connection through shop/web or shop/api from a load balancer that is known.
fn found(connection: &Connection, said: Said, readers: &[HeaderReader]) -> Vec<FindingCode> {
    found_if(connection, said, true, readers)
}

/// The same, of a client that is trusted to write headers or is not.
fn found_if(
    connection: &Connection,
    said: Said,
    is_believed: bool,
    readers: &[HeaderReader],
) -> Vec<FindingCode> {
    let (index, local) = (index(), node1());
    let known = LoadBalancers {
        networks: vec!["192.0.2.0/24".parse().expect("a network")],
        ..LoadBalancers::default()
    };
    let before = Before {
        load_balancers: Some(&known),
        said,
        is_believed,
        ..Before::default()
    };
    let knowledge = Knowledge {
        readers,
        ..knowing(Some(&index), &local, before)
    };
    let verdict = judge(connection, knowledge).expect("reported");
    let findings = verdict.findings.iter();
    findings
        .inspect(|found| {
            assert!(!found.explanation.is_empty() && !found.change.is_empty());
        })
        .map(|found| found.code)
        .collect()
}

fn with(mut connection: Connection, reading: Reading) -> Connection {
    connection.first_bytes = Some(reading);
    connection
}

fn listing(carrier: Carrier, hops: &[&str]) -> Reading {
    Reading::Found(vec![Chain {
        carrier,
        hops: hops.iter().map(|hop| hop.parse().ok()).collect(),
        port: None,
        to: None,
    }])
}

fn reader(reads: bool, demands: bool) -> HeaderReader {
    HeaderReader {
        namespace: "shop".to_owned(),
        name: "web".to_owned(),
        who: "ingress-nginx".to_owned(),
        reads,
        demands,
    }
}

fn names(carrier: Carrier, client: &str) -> Said {
    Said::For {
        carrier,
        client: client.parse().ok(),
    }
}

fn through_web(client: &str) -> Connection {
    answered(client, WEB, LOCAL_POD, NODE1_MASQUERADE)
}

#[rstest]
#[case::a_proxy_that_does_not_read(BALANCER, reader(false, false), true)]
#[case::one_that_does(BALANCER, reader(true, true), false)]
#[case::a_client_that_writes_one_itself(CLIENT, reader(false, false), false)]
#[case::another_service(BALANCER, HeaderReader { name: "api".to_owned(), ..reader(false, false) }, false)]
fn a_header_that_is_not_understood(
    #[case] client: &str,
    #[case] reader: HeaderReader,
    #[case] is_found: bool,
) {
    let readers = [reader];
    let expected: &[_] = if is_found {
        &[FindingCode::ProxyHeaderNotUnderstood]
    } else {
        &[]
    };
    for reading in [
        listing(Carrier::ProxyV1, &["203.0.113.50"]),
        listing(Carrier::ProxyV2, &["203.0.113.50"]),
        Reading::Nothing(Reason::Local),
    ] {
        let connection = with(through_web(client), reading);
        assert_eq!(found(&connection, Said::Nothing, &readers), expected);
        // Through a load balancer of plain TCP anybody sends one.
        assert_eq!(found_if(&connection, Said::Nothing, false, &readers), []);
    }
    let other = with(through_web(client), Reading::Nothing(Reason::NoHeader));
    let codes = found(&other, Said::Nothing, &readers);
    assert!(!codes.contains(&FindingCode::ProxyHeaderNotUnderstood));
}

#[rstest]
#[case::tls(Reading::TlsTo("shop.example".to_owned()), true)]
#[case::a_request(Reading::Nothing(Reason::NoHeader), true)]
#[case::a_list(listing(Carrier::XForwardedFor, &["203.0.113.50"]), true)]
#[case::one(listing(Carrier::ProxyV2, &["203.0.113.50"]), false)]
#[case::one_of_its_own(Reading::Nothing(Reason::Local), false)]
#[case::nothing_yet(Reading::Nothing(Reason::Unfinished), false)]
#[case::silence(Reading::Nothing(Reason::Silent), false)]
#[case::not_seen(Reading::Nothing(Reason::NotSeen), false)]
fn a_header_that_is_missing(#[case] reading: Reading, #[case] is_missing: bool) {
    for client in [CLIENT, BALANCER] {
        let connection = with(through_web(client), reading.clone());
        let expected: &[_] = if is_missing {
            &[FindingCode::ProxyHeaderMissing]
        } else {
            &[]
        };
        let demands = [reader(true, true)];
        assert_eq!(found(&connection, Said::Nothing, &demands), expected);
        let takes_both = [reader(true, false)];
        assert_eq!(found(&connection, Said::Nothing, &takes_both), []);
        assert_eq!(found(&connection, Said::Nothing, &[]), []);
    }
}

#[test]
fn local_keeps_a_load_balancers_address() {
    let told = names(Carrier::ProxyV2, "203.0.113.50");
    let does_not = [HeaderReader {
        name: "api".to_owned(),
        ..reader(false, false)
    }];
    let reads = [HeaderReader {
        name: "api".to_owned(),
        ..reader(true, true)
    }];
    let found = |connection: &Connection, said, readers: &[HeaderReader]| {
        let mut found = found(connection, said, readers);
        found.retain(|code| *code == FindingCode::LocalBehindReplacingLoadBalancer);
        found
    };
    let kept = answered(BALANCER, LOCAL_DOOR, LOCAL_POD, BALANCER);
    let in_vain = [FindingCode::LocalBehindReplacingLoadBalancer];
    assert_eq!(found(&kept, told, &does_not), in_vain);
    // What carries the client is read, or may be.
    assert_eq!(found(&kept, told, &reads), []);
    assert_eq!(found(&kept, told, &[]), []);
    let listed = names(Carrier::XForwardedFor, "203.0.113.50");
    assert_eq!(found(&kept, listed, &does_not), []);
    // It may be a health check.
    assert_eq!(found(&kept, Said::Nothing, &does_not), []);
    assert_eq!(found(&kept, Said::Itself, &does_not), []);
    // Under Cluster nothing promises to keep anything.
    assert_eq!(found(&through_web(BALANCER), told, &does_not), []);
    let itself = answered(CLIENT, LOCAL_DOOR, LOCAL_POD, CLIENT);
    assert_eq!(found(&itself, told, &does_not), []);
    // Straight to the pod no policy counts.
    let straight = answered(BALANCER, LOCAL_POD, LOCAL_POD, BALANCER);
    assert_eq!(found(&straight, told, &does_not), []);
}

#[rstest]
#[case::the_client_twice(&["203.0.113.50", "203.0.113.50"], false)]
#[case::a_hop_twice(&["203.0.113.50", "10.0.0.1", "10.0.0.1"], true)]
#[case::not_in_succession(&["203.0.113.50", "10.0.0.1", "10.0.0.2"], false)]
#[case::left_of_the_client(&["192.0.2.1", "192.0.2.1", "203.0.113.50"], false)]
#[case::hidden_twice(&["203.0.113.50", "unknown", "unknown"], false)]
#[case::once(&["203.0.113.50"], false)]
fn an_address_that_is_listed_twice(#[case] hops: &[&str], #[case] is_twice: bool) {
    let reading = listing(Carrier::XForwardedFor, hops);
    let connection = with(through_web(BALANCER), reading);
    let told = names(Carrier::XForwardedFor, "203.0.113.50");
    let expected: &[_] = if is_twice {
        &[FindingCode::ForwardedForAppendedTwice]
    } else {
        &[]
    };
    assert_eq!(found(&connection, told, &[]), expected);
    assert_eq!(found(&connection, Said::Nothing, &[]), [], "not believed");
}

#[test]
fn a_list_that_was_replaced() {
    let reading = listing(Carrier::XForwardedFor, &["192.0.2.7"]);
    let proxy = "10.244.1.5:40000";
    let connection = with(answered(proxy, "10.96.0.1:80", REMOTE_POD, proxy), reading);
    let (index, local) = (index(), node1());
    for replaces in [true, false] {
        let before = Before {
            said: names(Carrier::XForwardedFor, "192.0.2.7"),
            replaces,
            ..Before::default()
        };
        let knowledge = knowing(Some(&index), &local, before);
        let findings = judge(&connection, knowledge).expect("reported").findings;
        let codes: Vec<_> = findings.iter().map(|found| found.code).collect();
        let expected: &[_] = if replaces {
            &[FindingCode::ForwardedForOverwritten]
        } else {
            &[]
        };
        assert_eq!(codes, expected);
    }
}

/// Within the pod the application sees the sidecar, whatever the pod gets.
#[rstest]
#[case::istio("istio-proxy", LOCAL_POD, Some("127.0.0.6"))]
#[case::linkerd("linkerd-proxy", LOCAL_POD, Some("the pod's own address"))]
#[case::nothing("app", LOCAL_POD, None)]
#[case::another_pod("istio-proxy", REMOTE_POD, None)]
fn what_a_sidecar_hides(
    #[case] container: &str,
    #[case] backend: &str,
    #[case] hidden: Option<&str>,
) {
    let mut items = items();
    items.push(json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": "shop", "name": "pod-10-244-1-5"},
        "spec": {"nodeName": "node1", "containers": [{"name": container, "image": "x"}]},
        "status": {"phase": "Running", "podIP": "10.244.1.5"},
    }));
    let index = built(&items);
    let connection = answered(CLIENT, WEB, backend, NODE1_MASQUERADE);
    let verdict = judged_with(&connection, Some(&index)).expect("reported");
    let beyond = verdict.beyond;
    assert_eq!(beyond.is_some(), hidden.is_some(), "{beyond:?}");
    for (beyond, hidden) in beyond.iter().zip(hidden) {
        assert_eq!(beyond.by, Hider::Sidecar);
        assert!(beyond.explanation.contains(hidden), "{beyond:?}");
    }
    assert_eq!(verdict.source_seen, Some(socket(NODE1_MASQUERADE)));
}
