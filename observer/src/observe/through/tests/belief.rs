//! Who is believed, and what is kept.

use super::*;

#[test]
fn who_is_not_trusted_is_not_linked() {
    let mut node = Node::new(Whose::On);
    node.observer.settings.first_bytes.trusted = Vec::new();
    node.comes(socket(CLIENT), LOCAL_DOOR, socket(CLIENT));
    let record = node.dials(PROXY, CLUSTER_IP, forwarded_for(&["203.0.113.50"]));
    assert_eq!(record.through, None);
    assert_eq!(record.client.not_recovered, Some(Reason::UntrustedPeer));
}

/// An application is no proxy: it may pass on what anybody wrote.
#[test]
fn a_header_is_believed_of_whom_its_writer_was_seen_to_get_a_connection_from() {
    for proxy in [PROXY, NODE] {
        let mut node = Node::new(Whose::Known);
        node.comes(socket(CLIENT), LOCAL_DOOR, socket(CLIENT));
        node.comes_to_host(socket(CLIENT));
        let named = |node: &mut Node, hops| {
            let client = node.dials(proxy, CLUSTER_IP, forwarded_for(hops)).client;
            (client.recovered, client.not_recovered)
        };
        let forged = named(&mut node, &["192.0.2.66"]);
        assert_eq!(forged, (None, Some(Reason::UntrustedPeer)), "{proxy}");
        let client = (Some(socket(CLIENT).ip()), None);
        let seen = named(&mut node, &["192.0.2.66", "203.0.113.50"]);
        assert_eq!(seen, client, "{proxy}");
        // A pod that this one heard is not believed of others, either.
        let pod = at("10.244.1.5", 40_000);
        node.comes(pod, "10.244.1.9:80", pod);
        if proxy == PROXY {
            let passed_on = named(&mut node, &["192.0.2.66", "10.244.1.5"]);
            assert_eq!(passed_on, (None, Some(Reason::UntrustedPeer)));
        }
        let itself = if proxy == PROXY { PROXY } else { NODE };
        node.observer.settings.first_bytes.trusted = vec![itself.parse().expect("an address")];
        let by_name = named(&mut node, &["192.0.2.66"]);
        assert_eq!(by_name, (Some(at("192.0.2.66", 0).ip()), None), "{proxy}");
    }
}

#[test]
fn nothing_is_kept_that_nobody_asks_for() {
    let mut node = Node::new(Whose::Off);
    node.comes(socket(CLIENT), LOCAL_DOOR, socket(CLIENT));
    assert_eq!(node.observer.memory.len(), 0);
}

#[test]
fn what_is_kept_is_bounded() {
    let mut node = Node::new(Whose::Known);
    for number in 0..40_000_u32 {
        let [_, _, third, fourth] = (number / 4).to_be_bytes();
        let client = SocketAddr::from(([198, 18, third, fourth], 1_000));
        let client = SocketAddr::new(client.ip(), 1_000 + u16::try_from(number % 4).expect("few"));
        node.comes(client, LOCAL_DOOR, client);
    }
    assert!(node.observer.memory.len() <= super::super::INBOUND_MAX);
    // The latest are there.
    let record = node.dials(PROXY, CLUSTER_IP, forwarded_for(&["198.18.39.15"]));
    assert_eq!(through(&record).candidates, 4);
}

/// An application may answer somebody's first request by the name of who came since.
#[test]
fn who_came_later_is_not_whom_a_header_can_speak_for() {
    for (is_before, expected) in [(true, None), (false, Some(Reason::UntrustedPeer))] {
        let mut node = Node::new(Whose::Known);
        node.comes(socket(OTHER_CLIENT), LOCAL_DOOR, socket(OTHER_CLIENT));
        let comes = |node: &mut Node| node.comes(socket(CLIENT), LOCAL_DOOR, socket(CLIENT));
        if is_before {
            comes(&mut node);
        }
        let dialled = node.identity(at(PROXY, 41_000), socket(CLUSTER_IP));
        let reply = Tuple {
            source: socket(POD),
            destination: dialled.original.source,
        };
        assert_eq!(node.opened(dialled, reply, false), []);
        if !is_before {
            comes(&mut node);
        }
        let reading = forwarded_for(&["203.0.113.50"]);
        let told = node.observer.handle(Event::FirstBytes(dialled, reading));
        let [Output::Record(_, record)] = &told[..] else {
            panic!("{told:?}");
        };
        assert_eq!(record.client.not_recovered, expected);
        let expected_client = is_before.then_some("203.0.113.50".to_owned());
        assert_eq!(recovered(record), expected_client);
    }
}
