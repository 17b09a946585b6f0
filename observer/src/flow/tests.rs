//! What comes out of the flow, and when; and that no order of observations makes it invent or
//! repeat a connection.

use std::collections::HashSet;
use std::net::SocketAddr;

use proptest::prelude::*;
use rstest::rstest;

use super::*;
use crate::cluster::Protocol;
use crate::observation::{Entry, IfIndex, Ttl};

mod datagrams;

pub(super) const TIMEOUT: u64 = 3_000;
const UPLINK: IfIndex = IfIndex(2);
const VETH: IfIndex = IfIndex(7);

fn socket(text: &str) -> SocketAddr {
    text.parse().expect("the test's address parses")
}

/// The connection of a client's port through a node port.
fn identity(client_port: u16, sequence: u32) -> Identity {
    Identity {
        protocol: Protocol::Tcp,
        zone: 0,
        original: Tuple {
            source: SocketAddr::new([203, 0, 113, 50].into(), client_port),
            destination: socket("172.31.0.11:30080"),
        },
        sequence,
    }
}

/// As a masquerade answers to it, one port for each client port.
fn reply(identity: &Identity) -> Tuple {
    Tuple {
        source: socket("10.244.2.5:8080"),
        destination: SocketAddr::new([172, 31, 0, 11].into(), identity.original.source.port()),
    }
}

fn arrived(at: u64, interface: IfIndex) -> Arrival {
    Arrival {
        at: Moment(at),
        interface,
        ttl: Ttl(64),
    }
}

fn passage(kind: Kind, identity: Identity, arrival: Option<Arrival>, left_at: u64) -> Passage {
    Passage {
        kind,
        identity,
        reply: reply(&identity),
        conntrack: Conntrack::Entry,
        arrival,
        departure: Departure {
            at: Moment(left_at),
            interface: VETH,
            ttl: Ttl(63),
        },
        opening: None,
    }
}

fn forward(identity: Identity, at: u64) -> Observation {
    let arrival = arrived(at, UPLINK);
    Observation::Passage(passage(Kind::Forward, identity, Some(arrival), at + 1))
}

fn answer(kind: Kind, identity: Identity, at: u64) -> Observation {
    Observation::Passage(passage(kind, identity, Some(arrived(at, VETH)), at + 1))
}

/// An answer that this node sent itself, to an opening packet it never forwarded.
fn own_answer(kind: Kind, identity: Identity, opened_at: u64) -> Observation {
    Observation::Passage(Passage {
        opening: Some(arrived(opened_at, UPLINK)),
        ..passage(kind, identity, None, opened_at + 1)
    })
}

/// Conntrack gives a packet its zone after it arrived.
#[test]
fn an_arrival_without_a_zone_is_of_the_connection_in_one() {
    let bare = identity(1, 7);
    let zoned = Identity { zone: 5, ..bare };
    let stayed = Observation::Arrival {
        identity: bare,
        arrival: arrived(150, UPLINK),
    };
    let mut flow = Flow::new(TIMEOUT);
    flow.observe(forward(zoned, 100));
    assert_eq!(flow.observe(stayed), None, "a retransmission that stayed");
    let connection = flow.observe(answer(Kind::Reply, zoned, 200));
    assert_eq!(connection.expect("one").identity, zoned);
    assert_eq!(flow.observe(stayed), None, "a late retransmission");
    assert_eq!(flow.finish(), []);
}

#[test]
fn the_first_reply_brings_the_connection_out() {
    let mut flow = Flow::new(TIMEOUT);
    let one = identity(1, 7);
    assert_eq!(flow.observe(forward(one, 100)), None);
    let connection = flow.observe(answer(Kind::Reply, one, 200)).expect("one");
    assert_eq!(
        connection,
        Connection {
            identity: one,
            opened_at: Some(Moment(100)),
            arrival: Some(arrived(100, UPLINK)),
            departure: Some(Departure {
                at: Moment(101),
                interface: VETH,
                ttl: Ttl(63),
            }),
            translation: Some(Translation {
                reply: reply(&one),
                conntrack: Conntrack::Entry,
            }),
            answer: Answer::Accepted(Answered {
                at: Moment(201),
                arrival: Some(arrived(200, VETH)),
            }),
            stray: None,
            doubtful: false,
            entry: None,
            drop_reason: None,
            repeated: false,
            first_bytes: None,
        }
    );
    assert_eq!(flow.observe(answer(Kind::Reply, one, 300)), None, "once");
    assert_eq!(flow.observe(forward(one, 400)), None, "a late repetition");
    assert_eq!(flow.finish(), [], "nothing is left");
}

#[test]
fn an_error_of_this_node_refuses_what_was_never_forwarded() {
    let mut flow = Flow::new(TIMEOUT);
    let one = identity(1, 7);
    let connection = flow
        .observe(own_answer(Kind::IcmpError, one, 100))
        .expect("one");
    assert_eq!(connection.opened_at, Some(Moment(100)));
    assert_eq!(connection.departure, None);
    assert!(matches!(
        connection.answer,
        Answer::Refused(Refusal::IcmpError, Answered { arrival: None, .. })
    ));
}

#[test]
fn an_answer_to_what_was_never_seen_is_older_than_the_observation() {
    let mut flow = Flow::new(TIMEOUT);
    assert_eq!(flow.observe(answer(Kind::Reply, identity(1, 7), 100)), None);
    assert_eq!(flow.finish(), []);
}

#[test]
fn a_repeated_opening_is_the_same_connection_and_a_new_sequence_number_another() {
    let mut flow = Flow::new(TIMEOUT);
    let one = identity(1, 7);
    for at in [100, 1_100] {
        assert_eq!(flow.observe(forward(one, at)), None);
    }
    let connection = flow.observe(answer(Kind::Reply, one, 1_200)).expect("one");
    assert_eq!(
        connection.opened_at,
        Some(Moment(100)),
        "the first one opened it"
    );

    let next = identity(1, 8);
    assert_eq!(flow.observe(forward(next, 1_300)), None);
    let connection = flow.observe(answer(Kind::Reply, next, 1_400)).expect("two");
    assert_eq!(connection.identity, next);
}

#[test]
fn a_repetition_that_was_translated_anew_counts_with_its_own_translation() {
    let mut flow = Flow::new(TIMEOUT);
    let one = identity(1, 7);
    flow.observe(forward(one, 100));
    let mut again = passage(Kind::Forward, one, Some(arrived(1_100, UPLINK)), 1_101);
    again.reply.source = socket("10.244.1.5:8080");
    again.departure.interface = IfIndex(9);
    flow.observe(Observation::Passage(again));
    let connection = flow.observe(answer(Kind::Reply, one, 1_200)).expect("one");
    assert_eq!(connection.opened_at, Some(Moment(100)));
    assert_eq!(
        connection.translation.map(|translation| translation.reply),
        Some(again.reply)
    );
    assert_eq!(connection.departure, Some(again.departure));
}

#[test]
fn of_stacked_devices_the_first_arrival_and_the_last_egress_count() {
    let mut flow = Flow::new(TIMEOUT);
    let one = identity(1, 7);
    let on_bridge = passage(Kind::Forward, one, Some(arrived(100, UPLINK)), 101);
    let mut on_port = passage(Kind::Forward, one, None, 102);
    on_port.departure.interface = IfIndex(9);
    flow.observe(Observation::Passage(on_bridge));
    flow.observe(Observation::Passage(on_port));
    let connection = flow.observe(answer(Kind::Reply, one, 200)).expect("one");
    assert_eq!(connection.arrival, Some(arrived(100, UPLINK)));
    let departure = connection.departure.expect("it left");
    assert_eq!(departure.interface, IfIndex(9));
}

#[test]
fn a_repetition_on_stacked_devices_moves_no_departure() {
    let mut flow = Flow::new(TIMEOUT);
    let one = identity(1, 7);
    for at in [100, 1_100] {
        let first = passage(Kind::Forward, one, Some(arrived(at, UPLINK)), at + 1);
        let second = passage(Kind::Forward, one, None, at + 2);
        flow.observe(Observation::Passage(first));
        flow.observe(Observation::Passage(second));
    }
    let [unanswered] = &flow.finish()[..] else {
        panic!("one waits for its answer")
    };
    let departure = unanswered.departure.expect("it left");
    assert_eq!(departure.at, Moment(102), "the first one's last egress");
}

#[test]
fn what_nobody_answers_comes_out_at_the_time_out_oldest_first() {
    let mut flow = Flow::new(TIMEOUT);
    for (port, at) in [(1, 200), (2, 100)] {
        flow.observe(forward(identity(port, 7), at));
    }
    assert_eq!(flow.tick(Moment(99 + TIMEOUT)), []);
    let ports = |connections: Vec<Connection>| -> Vec<u16> {
        let port = |connection: &Connection| connection.identity.original.source.port();
        connections.iter().map(port).collect()
    };
    assert_eq!(ports(flow.tick(Moment(200 + TIMEOUT))), [2, 1]);
}

#[test]
fn what_came_and_never_left_waits_for_the_word_of_conntrack() {
    let mut flow = Flow::new(TIMEOUT);
    let one = identity(1, 7);
    let observation = Observation::Arrival {
        identity: one,
        arrival: arrived(100, UPLINK),
    };
    let connection = flow.observe(observation).expect("one");
    assert!(connection.is_silent());
    assert_eq!(connection.translation, None);

    let told = connection.clone().with_entry(Entry::Present {
        reply: reply(&one),
        replied: false,
    });
    assert_eq!(
        told.translation.map(|translation| translation.reply),
        Some(reply(&one))
    );
    let absent = Entry::Absent { table_full: false };
    assert_eq!(connection.with_entry(absent).translation, None);
}

#[test]
fn a_reply_that_stays_answers_a_client_of_this_node_and_nobody_else() {
    let from_here = identity(1, 7);
    let from_outside = identity(2, 7);
    let stays = |identity: &Identity| Observation::AnswerArrival {
        kind: Kind::Reply,
        protocol: Protocol::Tcp,
        reply: reply(identity),
        sequence: identity.sequence,
        arrival: arrived(200, VETH),
    };
    let mut flow = Flow::new(TIMEOUT);
    flow.observe(Observation::Passage(passage(
        Kind::Forward,
        from_here,
        None,
        101,
    )));
    flow.observe(forward(from_outside, 100));
    let connection = flow.observe(stays(&from_here)).expect("one");
    assert_eq!(
        connection.answer,
        Answer::Accepted(Answered {
            at: Moment(200),
            arrival: Some(arrived(200, VETH)),
        })
    );
    assert_eq!(flow.observe(stays(&from_outside)), None);
    let [unanswered] = &flow.finish()[..] else {
        panic!("one waits for its answer")
    };
    assert_eq!(unanswered.answer, Answer::None);
    assert_eq!(unanswered.stray, Some(arrived(200, VETH)), "it went astray");
}

#[rstest]
#[case::as_it_came(Kind::Reply, Kind::Reply, true)]
#[case::as_another_came(Kind::Reply, Kind::Reset, false)]
fn what_was_taken_for_one_that_stays_and_leaves_is_the_answer(
    #[case] came: Kind,
    #[case] left: Kind,
    #[case] is_it: bool,
) {
    let mut flow = Flow::new(TIMEOUT);
    let one = identity(1, 7);
    flow.observe(forward(one, 100));
    flow.observe(Observation::AnswerArrival {
        kind: came,
        protocol: Protocol::Tcp,
        reply: reply(&one),
        sequence: 7,
        arrival: arrived(200, VETH),
    });
    let leaves = Observation::Passage(passage(left, one, None, 900));
    let Connection { answer, stray, .. } = flow.observe(leaves).expect("one");
    let (Answer::Accepted(answered) | Answer::Refused(_, answered)) = answer else {
        panic!("{answer:?}")
    };
    assert_eq!(answered.at, Moment(900));
    let (of_the_answer, of_a_stray) = (answered.arrival, stray);
    let arrival = Some(arrived(200, VETH));
    let expected = if is_it {
        (arrival, None)
    } else {
        (None, arrival)
    };
    assert_eq!((of_the_answer, of_a_stray), expected);
}

#[test]
fn a_reply_past_the_translation_goes_astray_whoever_sends_it() {
    let client = socket("10.244.1.9:40000");
    let mut opening = identity(1, 7);
    opening.original.source = client;
    let mut to_a_service = passage(Kind::Forward, opening, Some(arrived(100, VETH)), 101);
    to_a_service.reply = Tuple {
        source: socket("10.244.1.5:8080"),
        destination: client,
    };
    let reply = to_a_service.reply;
    // Bridged past netfilter, it is of no known connection: the pods talk to each other.
    let untranslated = Passage {
        identity: Identity {
            original: Tuple {
                source: client,
                destination: reply.source,
            },
            ..opening
        },
        conntrack: Conntrack::None,
        ..passage(Kind::Reply, opening, Some(arrived(200, VETH)), 201)
    };
    let untranslated = Passage {
        reply,
        ..untranslated
    };
    let from_another = Observation::AnswerArrival {
        kind: Kind::Reply,
        protocol: Protocol::Tcp,
        reply: Tuple {
            source: socket("10.244.9.9:8080"),
            destination: client,
        },
        sequence: 7,
        arrival: arrived(200, VETH),
    };
    for stray in [Observation::Passage(untranslated), from_another] {
        let mut flow = Flow::new(TIMEOUT);
        flow.observe(Observation::Passage(to_a_service));
        assert_eq!(flow.observe(stray), None);
        let [unanswered] = &flow.tick(Moment(100 + TIMEOUT))[..] else {
            panic!("one waits for its answer")
        };
        assert_eq!(unanswered.stray, Some(arrived(200, VETH)));
    }
}

#[test]
fn a_refusal_that_stays_refuses_a_client_of_this_node() {
    let mut flow = Flow::new(TIMEOUT);
    let one = identity(1, 7);
    flow.observe(Observation::Passage(passage(Kind::Forward, one, None, 101)));
    let refusal = Observation::AnswerArrival {
        kind: Kind::Reset,
        protocol: Protocol::Tcp,
        reply: reply(&one),
        sequence: 7,
        arrival: arrived(200, VETH),
    };
    let connection = flow.observe(refusal).expect("one");
    assert!(matches!(
        connection.answer,
        Answer::Refused(Refusal::Reset, _)
    ));
}

#[test]
fn more_than_it_can_hold_is_counted_and_let_go() {
    let mut flow = Flow::new(TIMEOUT);
    let beyond = 3;
    for sequence in 0..PENDING_MAX + beyond {
        let sequence = u32::try_from(sequence).expect("few");
        flow.observe(forward(identity(1, sequence), 100));
    }
    assert_eq!(flow.losses(), Losses { pending_full: 3 });
    assert_eq!(flow.finish().len(), PENDING_MAX);
}

#[test]
fn silence_is_doubtful_while_observations_are_lost() {
    let mut flow = Flow::new(TIMEOUT);
    flow.observe(forward(identity(1, 7), 100));
    flow.lost(Moment(200));
    flow.observe(forward(identity(2, 7), 300));
    let doubtful: Vec<_> = flow
        .finish()
        .iter()
        .map(|connection| connection.doubtful)
        .collect();
    assert_eq!(doubtful, [true, false]);
}

/// Any observation of a few connections at any time, wanted or not.
pub(super) fn observation() -> impl Strategy<Value = Observation> {
    let passing = |kind: Kind| {
        move |(identity, arrival, at, opening): (Identity, bool, u64, bool)| {
            let arrival = arrival.then(|| arrived(at, UPLINK));
            Observation::Passage(Passage {
                opening: opening.then(|| arrived(at, UPLINK)),
                ..passage(kind, identity, arrival, at + 1)
            })
        }
    };
    let who = || (1..4_u16, 1..4_u32).prop_map(|(port, sequence)| identity(port, sequence));
    let any_passage = || (who(), any::<bool>(), 0..10_000_u64, any::<bool>());
    prop_oneof![
        any_passage().prop_map(passing(Kind::Forward)),
        any_passage().prop_map(passing(Kind::Reply)),
        any_passage().prop_map(passing(Kind::Reset)),
        any_passage().prop_map(passing(Kind::IcmpError)),
        (who(), 0..10_000_u64).prop_map(|(identity, at)| Observation::Arrival {
            identity,
            arrival: arrived(at, UPLINK),
        }),
        (who(), 0..10_000_u64).prop_map(|(identity, at)| Observation::AnswerArrival {
            kind: Kind::Reply,
            protocol: Protocol::Tcp,
            reply: reply(&identity),
            sequence: identity.sequence,
            arrival: arrived(at, VETH),
        }),
    ]
}

proptest! {
    /// Duplication, loss and reordering included: a connection comes out once, and only if its
    /// opening packet or this node's own answer to it was seen.
    #[test]
    fn no_order_makes_it_invent_or_repeat(
        steps in proptest::collection::vec((observation(), any::<bool>()), 0..60),
    ) {
        let mut flow = Flow::new(TIMEOUT);
        let mut opened = HashSet::new();
        let mut out = Vec::new();
        for (at, (step, tick)) in (0..).map(|at| at * 400).zip(steps) {
            match step {
                Observation::Passage(passage)
                    if passage.kind == Kind::Forward || passage.opening.is_some() =>
                {
                    opened.insert(passage.identity);
                }
                Observation::Arrival { identity, .. } => {
                    opened.insert(identity);
                }
                Observation::Passage(_) | Observation::AnswerArrival { .. } => {}
            }
            out.extend(flow.observe(step));
            if tick {
                out.extend(flow.tick(Moment(at)));
            }
        }
        out.extend(flow.finish());
        let distinct: HashSet<_> = out.iter().map(|connection| connection.identity).collect();
        prop_assert_eq!(distinct.len(), out.len(), "reported twice");
        prop_assert_eq!(distinct, opened, "what was opened, and nothing else, comes out");
    }
}
