//! A header that names an address alone: of all that have it.

use super::*;

#[test]
fn the_address_alone_is_enough_for_one() {
    let mut node = Node::new(Whose::Known);
    node.comes(socket(CLIENT), LOCAL_DOOR, socket(CLIENT));
    node.comes(socket(OTHER_CLIENT), LOCAL_DOOR, socket(OTHER_CLIENT));
    let record = node.dials(PROXY, CLUSTER_IP, forwarded_for(&["203.0.113.50"]));
    let part = through(&record);
    assert_eq!(part.confidence, Confidence::Likely);
    assert_eq!(client(&record).as_deref(), Some(CLIENT));
    assert_eq!(part.source_ip, SourceIp::Preserved);
    let kind = part.front_door.and_then(|door| door.kind);
    assert_eq!(kind, Some(FrontDoorKind::NodePort));
    assert_eq!(recovered(&record).as_deref(), Some("203.0.113.50"));
    assert_eq!(record.client.recovered_from, Some(Carrier::XForwardedFor));
}

/// Their ports differ, and so which it was is not known; all else is.
#[test]
fn several_of_one_client_tell_what_they_have_in_common() {
    let mut node = Node::new(Whose::Known);
    for port in 40_000..40_050 {
        let client = at("203.0.113.50", port);
        node.comes(client, LOCAL_DOOR, client);
    }
    let record = node.dials(PROXY, CLUSTER_IP, forwarded_for(&["203.0.113.50"]));
    let part = through(&record);
    assert_eq!(part.confidence, Confidence::Ambiguous);
    assert_eq!(part.candidates, 50);
    assert_eq!(client(&record).as_deref(), Some("203.0.113.50"));
    assert_eq!(part.source_ip, SourceIp::Preserved);
    assert!(part.front_door.is_some());
    // By another door in between.
    let other = at("203.0.113.50", 39_999);
    node.comes(other, CLUSTER_DOOR, at(NODE, 50_001));
    node.comes(other, "10.244.1.9:80", other);
    let record = node.dials(PROXY, CLUSTER_IP, forwarded_for(&["203.0.113.50"]));
    assert_eq!(through(&record).front_door, None);
    assert_eq!(client(&record).as_deref(), Some("203.0.113.50"));
}

#[test]
fn behind_a_masquerade_the_address_alone_is_not_enough() {
    let mut node = Node::new(Whose::On).knows_all();
    node.comes(socket(CLIENT), CLUSTER_DOOR, at(NODE, 50_001));
    let masquerade = || forwarded_for(&[NODE]);
    let record = node.dials(PROXY, CLUSTER_IP, masquerade());
    assert_eq!(client(&record).as_deref(), Some(CLIENT));
    assert_eq!(recovered(&record).as_deref(), Some("203.0.113.50"));
    node.comes(socket(OTHER_CLIENT), CLUSTER_DOOR, at(NODE, 50_002));
    let record = node.dials(PROXY, CLUSTER_IP, masquerade());
    let part = through(&record);
    assert_eq!((client(&record), recovered(&record)), (None, None));
    assert_eq!(
        record.client.not_recovered,
        Some(Reason::Masqueraded),
        "as without"
    );
    assert_eq!(part.candidates, 2);
    // What became of both is known.
    assert_eq!(part.source_ip, SourceIp::Lost);
    assert!(part.lost_at.is_some());
}

#[test]
fn who_may_be_behind_a_masquerade_unseen_is_thought_of() {
    let masquerade = || forwarded_for(&[NODE]);
    // Nobody told what was before.
    let mut node = Node::new(Whose::On);
    node.comes(socket(CLIENT), CLUSTER_DOOR, at(NODE, 50_001));
    let record = node.dials(PROXY, CLUSTER_IP, masquerade());
    assert_eq!((client(&record), recovered(&record)), (None, None));
    // Somebody was.
    let mut node = Node::new(Whose::On);
    let before = Identity {
        sequence: 0,
        ..node.identity(socket(OTHER_CLIENT), socket(CLUSTER_DOOR))
    };
    let reply = Tuple {
        source: at(PROXY, 80),
        destination: at(NODE, 50_009),
    };
    node.observer
        .handle(Event::Rewritten(vec![(before, reply)]));
    let record = node.dials(PROXY, CLUSTER_IP, masquerade());
    assert_eq!(client(&record).as_deref(), Some(OTHER_CLIENT));
    node.comes(socket(CLIENT), CLUSTER_DOOR, at(NODE, 50_001));
    let record = node.dials(PROXY, CLUSTER_IP, masquerade());
    assert_eq!(client(&record), None);
    // Something was missed.
    node.observer.handle(Event::Lost(Moment(node.now)));
    let record = node.dials(PROXY, CLUSTER_IP, masquerade());
    assert_eq!(record.through, None);
    node.comes(socket(CLIENT), CLUSTER_DOOR, at(NODE, 50_002));
    let record = node.dials(PROXY, CLUSTER_IP, masquerade());
    assert_eq!(client(&record), None);
}

/// The API was away for long: one was judged by nothing, and is not kept.
#[test]
fn who_came_before_the_cluster_was_known_is_thought_of() {
    let masquerade = || forwarded_for(&[NODE]);
    let mut node = Node::knowing(Whose::On, None);
    assert!(!node.observer.asks_for_rewritten(), "nothing can be kept");
    node.observer.handle(Event::Rewritten(Vec::new()));
    node.comes(socket(CLIENT), CLUSTER_DOOR, at(NODE, 50_001));
    node.observer
        .handle(Event::Cluster(Moment(node.now), cluster()));
    node.comes(socket(OTHER_CLIENT), CLUSTER_DOOR, at(NODE, 50_002));
    let record = node.dials(PROXY, CLUSTER_IP, masquerade());
    assert_eq!((client(&record), recovered(&record)), (None, None));
    assert!(node.observer.asks_for_rewritten());
    assert!(!node.observer.asks_for_rewritten(), "once");
    // One that was in the way is over.
    node.observer.handle(Event::Rewritten(Vec::new()));
    let record = node.dials(PROXY, CLUSTER_IP, masquerade());
    assert_eq!(client(&record).as_deref(), Some(OTHER_CLIENT));
    // Packets that nobody understood may have been a connection's.
    node.observer.handle(Event::Unseen);
    assert!(node.observer.asks_for_rewritten());
    let record = node.dials(PROXY, CLUSTER_IP, masquerade());
    assert_eq!(record.through, None);
}

/// What is let go at a flood may be answered all the same.
#[test]
fn where_too_many_wait_for_their_answer_everything_is_forgotten() {
    let mut node = Node::new(Whose::On).knows_all();
    assert!(node.observer.asks_for_rewritten(), "at first");
    node.comes(socket(CLIENT), CLUSTER_DOOR, at(NODE, 50_001));
    for number in 0..=100_000_u32 {
        let [_, second, third, fourth] = number.to_be_bytes();
        let client = SocketAddr::from(([10, second, third, fourth], 1_000));
        let identity = node.identity(client, socket(LOCAL_DOOR));
        let at = Moment(node.now);
        let passage = Passage {
            kind: Kind::Forward,
            identity,
            reply: Tuple {
                source: socket(POD),
                destination: client,
            },
            conntrack: Conntrack::Entry,
            arrival: None,
            departure: Departure {
                at,
                interface: VETH,
                ttl: Ttl(63),
            },
            opening: None,
        };
        let observation = Observation::Passage(passage);
        node.observer.handle(Event::Observation(observation));
    }
    assert_ne!(node.observer.losses().pending_full, 0);
    assert_eq!(node.observer.memory.len(), 0);
    assert!(node.observer.asks_for_rewritten());
}

/// Who stood before is older than who was seen to come, and goes first.
#[test]
fn what_stood_before_makes_room_first() {
    let mut node = Node::new(Whose::On);
    for port in 50_000..50_032 {
        node.comes(at("203.0.113.50", port), CLUSTER_DOOR, at(NODE, port));
    }
    let stood = (51_000..51_032).map(|port| {
        let before = Identity {
            sequence: 0,
            ..node.identity(at("203.0.113.50", port), socket(CLUSTER_DOOR))
        };
        let reply = Tuple {
            source: at(PROXY, 80),
            destination: at(NODE, port),
        };
        (before, reply)
    });
    let stood = stood.collect();
    node.observer.handle(Event::Rewritten(stood));
    let record = node.dials(PROXY, CLUSTER_IP, proxy_header(at(NODE, 50_000)));
    assert_eq!(client(&record).as_deref(), Some("203.0.113.50:50000"));
    let record = node.dials(PROXY, CLUSTER_IP, forwarded_for(&[NODE]));
    assert_eq!(through(&record).candidates, 64);
    assert_eq!(through(&record).source_ip, SourceIp::Lost);
    assert_eq!(client(&record).as_deref(), Some("203.0.113.50"));
}
