//! UDP, which has no sequence number: when a flow is another one, and whose a reply is.

use super::*;

/// The flow of a client's port through a node port.
fn datagrams(client_port: u16) -> Identity {
    Identity {
        protocol: Protocol::Udp,
        ..identity(client_port, 0)
    }
}

fn stayed(identity: Identity, at: u64) -> Observation {
    Observation::Arrival {
        identity,
        arrival: arrived(at, UPLINK),
    }
}

/// What the programs tell again they were made to forget, or it is noted until it passes.
#[test]
fn a_udp_flow_comes_out_again_only_after_a_long_silence() {
    let one = datagrams(1);
    let mut flow = Flow::new(TIMEOUT);
    assert_eq!(flow.observe(forward(one, 100)), None);
    assert!(flow.observe(answer(Kind::Reply, one, 200)).is_some());
    assert_eq!(flow.observe(forward(one, 100 + FLOW_IDLE_NS / 2)), None);
    assert_eq!(flow.finish(), [], "the same flow");
    let long_after = 100 + 2 * FLOW_IDLE_NS;
    assert_eq!(flow.observe(forward(one, long_after)), None);
    let again = flow.observe(answer(Kind::Reply, one, long_after + 100));
    assert_eq!(again.expect("another").opened_at, Some(Moment(long_after)));
}

/// However long the client goes on asking.
#[test]
fn a_dropped_udp_flow_comes_out_once_until_it_passes() {
    let one = datagrams(1);
    let mut flow = Flow::new(TIMEOUT);
    assert!(flow.observe(stayed(one, 100)).is_some(), "dropped");
    let mut at = 100;
    for _ in 0..5 {
        at += FLOW_IDLE_NS / 2;
        assert_eq!(flow.observe(stayed(one, at)), None, "dropped as before");
    }
    assert_eq!(flow.observe(forward(one, at + 100)), None);
    let passed = flow.observe(answer(Kind::Reply, one, at + 200));
    assert_eq!(
        passed.expect("another").opened_at,
        Some(Moment(at + 100)),
        "the first that passed"
    );
}

/// kube-proxy removes the entries of endpoints that are gone.
#[test]
fn a_udp_flow_to_another_endpoint_is_another() {
    let one = datagrams(1);
    let mut flow = Flow::new(TIMEOUT);
    flow.observe(forward(one, 100));
    assert!(flow.observe(answer(Kind::Reply, one, 200)).is_some());
    let elsewhere = Tuple {
        source: socket("10.244.2.6:8080"),
        ..reply(&one)
    };
    let arrival = Some(arrived(300, UPLINK));
    flow.observe(Observation::Passage(Passage {
        reply: elsewhere,
        ..passage(Kind::Forward, one, arrival, 301)
    }));
    let [other] = &flow.finish()[..] else {
        panic!("another flow")
    };
    let reply = other.translation.expect("it left").reply;
    assert_eq!(reply, elsewhere);
}

/// One socket may ask several servers; nothing but the server's address tells their replies apart.
#[test]
fn replies_to_one_udp_port_are_told_apart_by_who_sends_them() {
    let one = datagrams(1);
    let two = Identity {
        original: Tuple {
            destination: socket("172.31.0.11:30081"),
            ..one.original
        },
        ..one
    };
    let seen = socket("172.31.0.11:1");
    let replies = ["10.244.2.5:53", "10.244.2.6:53"].map(|server| Tuple {
        source: socket(server),
        destination: seen,
    });
    let mut flow = Flow::new(TIMEOUT);
    for (identity, reply) in [one, two].into_iter().zip(replies) {
        // From this node itself.
        flow.observe(Observation::Passage(Passage {
            reply,
            ..passage(Kind::Forward, identity, None, 100)
        }));
    }
    for (identity, reply) in [two, one].into_iter().zip([replies[1], replies[0]]) {
        let answered = flow.observe(Observation::AnswerArrival {
            kind: Kind::Reply,
            protocol: Protocol::Udp,
            reply,
            sequence: 0,
            arrival: arrived(200, UPLINK),
        });
        assert_eq!(answered.expect("answered").identity, identity);
    }
    assert_eq!(flow.finish(), []);
}
