//! What holds of the flow whatever comes, in whatever order, doubled or lost.
//!
//! Connections share nothing but the flow's bounds. So each must come out of any mixture as it
//! comes out of its own observations alone, and be made of nothing else.

use std::collections::{BTreeSet, HashSet};

use proptest::prelude::*;

use super::tests::{TIMEOUT, observation};
use super::*;

/// An observation, and what time it is said to be afterwards, if that is said.
type Step = (Observation, Option<Moment>);

/// Steps of a few connections whose observations are mixed, doubled and missing, while time goes
/// on.
fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (observation(), proptest::option::of(0..600_u64));
    proptest::collection::vec(step, 0..80).prop_map(|steps| {
        let mut now = 0;
        steps
            .into_iter()
            .map(|(observation, later)| {
                now += later.unwrap_or_default();
                (observation, later.map(|_| Moment(now)))
            })
            .collect()
    })
}

/// Which of the few connections: the port of its client, which its masquerade keeps, and its
/// sequence number.
fn whose(observation: &Observation) -> (u16, u32) {
    match observation {
        Observation::Passage(Passage { identity, .. }) | Observation::Arrival { identity, .. } => {
            (identity.original.source.port(), identity.sequence)
        }
        Observation::AnswerArrival {
            reply, sequence, ..
        } => (reply.destination.port(), *sequence),
    }
}

/// All that comes out of the observations that `are_taken`, in the order of their clients.
fn out_of(steps: &[Step], are_taken: impl Fn(&Observation) -> bool) -> Vec<Connection> {
    let mut flow = Flow::new(TIMEOUT);
    let mut out = Vec::new();
    for (observation, now) in steps {
        if are_taken(observation) {
            out.extend(flow.observe(*observation));
        }
        out.extend(now.iter().flat_map(|now| flow.tick(*now)));
    }
    out.extend(flow.finish());
    out.sort_by_key(|connection| {
        let identity = connection.identity;
        (identity.original.source.port(), identity.sequence)
    });
    out
}

/// When and where the packets were that a connection tells of.
fn moments(connection: &Connection) -> Vec<(Moment, u32)> {
    let Connection {
        arrival,
        departure,
        answer,
        stray,
        ..
    } = connection;
    let answered = match answer {
        Answer::Accepted(answered) | Answer::Refused(_, answered) => answered.arrival,
        Answer::None => None,
    };
    let arrivals = [arrival, stray, &answered];
    let arrivals = arrivals.into_iter().flatten();
    let arrivals = arrivals.map(|arrival| (arrival.at, arrival.interface.0));
    let departures = departure
        .iter()
        .map(|departure| (departure.at, departure.interface.0));
    arrivals.chain(departures).collect()
}

/// Those of an observation.
fn moments_of(observation: &Observation) -> Vec<(Moment, u32)> {
    match observation {
        Observation::Passage(Passage {
            arrival,
            departure,
            opening,
            ..
        }) => [arrival, opening]
            .into_iter()
            .flatten()
            .map(|arrival| (arrival.at, arrival.interface.0))
            .chain([(departure.at, departure.interface.0)])
            .collect(),
        Observation::Arrival { arrival, .. } | Observation::AnswerArrival { arrival, .. } => {
            vec![(arrival.at, arrival.interface.0)]
        }
    }
}

proptest! {
    #[test]
    fn each_comes_out_of_a_mixture_as_it_does_alone(steps in steps()) {
        let clients: BTreeSet<_> = steps.iter().map(|(observation, _)| whose(observation)).collect();
        let alone: Vec<Connection> = clients
            .into_iter()
            .flat_map(|client| out_of(&steps, |observation| whose(observation) == client))
            .collect();
        prop_assert_eq!(out_of(&steps, |_| true), alone);
    }

    #[test]
    fn one_is_made_of_its_own_observations(steps in steps()) {
        for connection in out_of(&steps, |_| true) {
            let Identity { original, sequence, .. } = connection.identity;
            let its = || {
                let all = steps.iter().map(|(observation, _)| observation);
                all.filter(|observation| whose(observation) == (original.source.port(), sequence))
            };
            let seen: BTreeSet<_> = its().flat_map(moments_of).collect();
            for moment in moments(&connection) {
                prop_assert!(seen.contains(&moment), "{:?} of {:?}", moment, connection);
            }
            let told = |tuple: Tuple| {
                its().any(|observation| match observation {
                    Observation::Passage(passage) => passage.reply == tuple,
                    Observation::Arrival { .. } | Observation::AnswerArrival { .. } => false,
                })
            };
            prop_assert!(connection.translation.is_none_or(|known| told(known.reply)));
        }
    }

    #[test]
    fn it_holds_no_more_than_what_waits_and_nothing_for_longer_than_it_waits(steps in steps()) {
        let mut flow = Flow::new(TIMEOUT);
        let mut opened = HashSet::new();
        let mut latest = Moment(0);
        for (observation, now) in steps {
            for (at, _) in moments_of(&observation) {
                latest = latest.max(at);
            }
            opened.insert(whose(&observation));
            flow.observe(observation);
            if let Some(now) = now {
                flow.tick(now);
            }
            prop_assert!(flow.pending.len() <= opened.len());
            prop_assert!(flow.reported.len() <= opened.len());
        }
        flow.tick(Moment(latest.0 + TIMEOUT));
        prop_assert!(flow.pending.is_empty());
        prop_assert_eq!(flow.losses(), Losses::default());
        prop_assert_eq!(flow.finish(), []);
    }
}
