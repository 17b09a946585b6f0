//! What becomes of the way when it is known through whom it went.

use super::*;

#[test]
fn without_an_endpoint_only_the_way_to_the_proxy_is_told() {
    let mut node = Node::new(Whose::On);
    node.comes(socket(CLIENT), CLUSTER_DOOR, at(NODE, 50_001));
    let identity = node.identity(at(PROXY, 20_000), socket(CLUSTER_IP));
    let mut connection = Connection::existing(
        identity,
        Tuple {
            source: socket(CLUSTER_IP),
            destination: at(PROXY, 20_000),
        },
        true,
    );
    connection.opened_at = Some(Moment(node.now));
    connection.first_bytes = Some(proxy_header(at(NODE, 50_001)));
    let mut record = node.dials(PROXY, CLUSTER_IP, Reading::Nothing(Reason::Silent));
    record.backend = None;
    record.source_ip = SourceIp::Unknown;
    (record.lost_at, record.cause) = (None, None);
    record.losses.clear();
    node.observer.link(&connection, &mut record);
    assert_eq!(client(&record).as_deref(), Some(CLIENT));
    assert_eq!(record.source_ip, SourceIp::Unknown);
    assert_eq!((record.lost_at, record.cause), (None, None));
    assert_eq!(record.losses, []);
}

#[test]
fn a_proxy_in_the_nodes_network() {
    let mut node = Node::new(Whose::Known);
    assert_eq!(node.comes_to_host(socket(CLIENT)), [], "no front door");
    node.comes(socket(OTHER_CLIENT), CLUSTER_DOOR, at(NODE, 50_001));
    // To the Service, and straight to the pod, as ingress-nginx does.
    for to in [CLUSTER_IP, POD] {
        let reading = forwarded_for(&["198.51.100.66", "203.0.113.50"]);
        let record = node.dials(NODE, to, reading);
        assert_eq!(client(&record).as_deref(), Some(CLIENT));
        assert_eq!(through(&record).confidence, Confidence::Likely);
        assert_eq!(through(&record).source_ip, SourceIp::Preserved);
        assert_eq!(recovered(&record).as_deref(), Some("203.0.113.50"));
    }
}

/// Another node's masquerade came in: that is as far as this node can tell.
#[test]
fn what_was_rewritten_before_this_node_stays_so() {
    let mut node = Node::new(Whose::On).knows_all();
    let seen = at(OTHER_NODE, 50_001);
    node.comes(seen, "10.244.1.9:80", seen);
    let record = node.dials(PROXY, CLUSTER_IP, proxy_header(seen));
    let part = through(&record);
    assert_eq!(part.confidence, Confidence::Exact);
    assert_eq!(part.source_ip, SourceIp::Unknown);
    assert_eq!(client(&record).as_deref(), Some("172.31.0.12:50001"));
    assert_eq!(recovered(&record), None);
    assert_eq!(record.client.not_recovered, Some(Reason::Masqueraded));
}

/// One that is in front wrote a header, which the proxy believes and goes by.
#[test]
fn a_proxy_may_go_by_the_header_that_it_got() {
    const BALANCER: &str = "198.51.100.7:30000";
    let mut node = Node::new(Whose::On);
    node.observer.settings.first_bytes.trusted = ["198.51.100.7", "pods"]
        .map(|one| one.parse().expect("one"))
        .to_vec();
    let identity = node.identity(socket(BALANCER), socket(CLUSTER_DOOR));
    let reply = Tuple {
        source: at(PROXY, 80),
        destination: at(NODE, 50_001),
    };
    assert_eq!(node.opened(identity, reply, false), []);
    let header = proxy_header(socket(CLIENT));
    node.observer.handle(Event::FirstBytes(identity, header));
    for (reading, confidence) in [
        (proxy_header(socket(CLIENT)), Confidence::Exact),
        (forwarded_for(&["203.0.113.50"]), Confidence::Likely),
        (proxy_header(at(NODE, 50_001)), Confidence::Exact),
    ] {
        let record = node.dials(PROXY, CLUSTER_IP, reading);
        assert_eq!(client(&record).as_deref(), Some(BALANCER));
        assert_eq!(through(&record).confidence, confidence);
    }
}

#[test]
fn headers_that_name_different_hops_are_no_link() {
    let mut node = Node::new(Whose::On);
    node.comes(socket(CLIENT), LOCAL_DOOR, socket(CLIENT));
    node.comes(socket(OTHER_CLIENT), LOCAL_DOOR, socket(OTHER_CLIENT));
    let chain = |carrier, hop: &str| Chain {
        carrier,
        hops: vec![hop.parse().ok()],
        port: None,
        to: None,
    };
    for other in ["203.0.113.51", "unknown"] {
        let record = node.dials(
            PROXY,
            CLUSTER_IP,
            Reading::Found(vec![
                chain(Carrier::XForwardedFor, "203.0.113.50"),
                chain(Carrier::Forwarded, other),
            ]),
        );
        assert_eq!(record.through, None);
    }
}
