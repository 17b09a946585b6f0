//! A header that names the port: of one connection.

use super::*;

#[test]
fn a_proxy_that_names_the_port_speaks_for_one_connection() {
    let mut node = Node::new(Whose::On);
    // Nobody tells of what was before, nor must anybody.
    for (port, client) in (50_001..).zip([CLIENT, OTHER_CLIENT, "10.244.2.7:40000"]) {
        node.comes(socket(client), CLUSTER_DOOR, at(NODE, port));
    }
    let record = node.dials(PROXY, CLUSTER_IP, proxy_header(at(NODE, 50_002)));
    let part = through(&record);
    assert_eq!(part.confidence, Confidence::Exact);
    assert_eq!(part.candidates, 1);
    assert_eq!(client(&record).as_deref(), Some(OTHER_CLIENT));
    assert_eq!(part.source_ip, SourceIp::Lost);
    assert_eq!(
        part.lost_at.as_ref().and_then(|at| at.node.as_deref()),
        Some("node1"),
        "{part:?}"
    );
    assert_eq!(part.proxy.pod.as_deref(), Some("proxy-0"));
    assert_eq!(
        part.service.as_ref().map(|service| &*service.name),
        Some("proxy")
    );
    assert!(part.opened_before_ns.is_some_and(|before| before > 0));
    // Both stages are told.
    let codes: Vec<_> = record.losses.iter().map(|it| it.cause.code).collect();
    let of_both = [CauseCode::ExternalTrafficPolicyCluster, CauseCode::L7Proxy];
    assert_eq!(codes, of_both);
    assert_eq!(record.lost_at, part.lost_at);
    // Who is behind the masquerade, too.
    assert_eq!(recovered(&record).as_deref(), Some("203.0.113.51"));
    let from = record.client.recovered_from;
    assert_eq!(from, Some(Carrier::InboundConnection));
    assert_eq!(record.client.not_recovered, None);
}

#[test]
fn a_port_that_nobody_has_is_no_link() {
    let mut node = Node::new(Whose::On);
    node.comes(socket(CLIENT), CLUSTER_DOOR, at(NODE, 50_001));
    let record = node.dials(PROXY, CLUSTER_IP, proxy_header(at(NODE, 50_002)));
    assert_eq!(record.through, None);
    assert_eq!(record.client.not_recovered, Some(Reason::Masqueraded));
}

#[test]
fn a_port_that_is_used_again_is_the_latest_ones() {
    let mut node = Node::new(Whose::On);
    let seen = at(NODE, 50_001);
    node.comes(socket(CLIENT), CLUSTER_DOOR, seen);
    node.comes(socket(OTHER_CLIENT), CLUSTER_DOOR, seen);
    let record = node.dials(PROXY, CLUSTER_IP, proxy_header(seen));
    assert_eq!(client(&record).as_deref(), Some(OTHER_CLIENT));
    assert_eq!(through(&record).confidence, Confidence::Exact);
}

/// A masquerade may give two clients one port, towards two ports of the proxy.
#[test]
fn a_port_may_be_anothers_at_another_port_of_the_proxy() {
    let mut node = Node::new(Whose::On);
    let seen = at(NODE, 50_001);
    for (client, port) in [(CLIENT, 80), (OTHER_CLIENT, 81)] {
        let identity = node.identity(socket(client), at(PROXY, port));
        let reply = Tuple {
            source: at(PROXY, port),
            destination: seen,
        };
        node.opened(identity, reply, false);
    }
    let Reading::Found(mut chains) = proxy_header(seen) else {
        panic!("a header");
    };
    let record = node.dials(PROXY, CLUSTER_IP, Reading::Found(chains.clone()));
    assert_eq!(through(&record).confidence, Confidence::Ambiguous);
    assert_eq!((client(&record), recovered(&record)), (None, None));
    chains[0].to = Some(at(PROXY, 80));
    let record = node.dials(PROXY, CLUSTER_IP, Reading::Found(chains));
    assert_eq!(through(&record).confidence, Confidence::Exact);
    assert_eq!(client(&record).as_deref(), Some(CLIENT));
}

#[test]
fn what_listens_in_the_nodes_network_is_no_front_door_but_told_of() {
    let mut node = Node::new(Whose::Known);
    for port in 40_000..40_050 {
        node.comes_to_host(at("203.0.113.50", port));
    }
    let record = node.dials(NODE, CLUSTER_IP, forwarded_for(&["203.0.113.50"]));
    let part = through(&record);
    assert_eq!(part.source_ip, SourceIp::Preserved);
    assert_eq!(client(&record).as_deref(), Some("203.0.113.50"));
}

/// What another node's clients send first is read, too, and may be read late: after the proxy has
/// spoken for many of them, and before it speaks for the newest.
#[test]
fn what_is_told_again_does_not_push_out_what_is_newer() {
    const PORTS: std::ops::RangeInclusive<u16> = 50_001..=50_300;
    let mut node = Node::new(Whose::On);
    let mut accepted = Vec::new();
    for port in PORTS {
        let identity = node.identity(at(OTHER_NODE, port), at(PROXY, 80));
        let reply = Tuple {
            source: at(PROXY, 80),
            destination: at(OTHER_NODE, port),
        };
        let outputs = node.opened(identity, reply, false);
        assert_eq!(outputs, [], "it waits");
        accepted.push(identity);
    }
    accepted.pop();
    for identity in accepted {
        let reading = Reading::Nothing(Reason::NoHeader);
        let outputs = node.observer.handle(Event::FirstBytes(identity, reading));
        assert_eq!(outputs.len(), 1, "it came out");
    }
    let newest = at(OTHER_NODE, *PORTS.end());
    let record = node.dials(PROXY, CLUSTER_IP, proxy_header(newest));
    assert_eq!(through(&record).confidence, Confidence::Exact);
    let said = through(&record).client.expect("a client");
    assert_eq!((said.ip, said.port), (newest.ip(), Some(newest.port())));
    // Nor does it count twice.
    let record = node.dials(PROXY, CLUSTER_IP, forwarded_for(&[OTHER_NODE]));
    assert_eq!(through(&record).confidence, Confidence::Ambiguous);
    assert_eq!(through(&record).candidates, PORTS.count() as u64);
}
