//! No client is named that is not the one, whatever comes, goes, is kept alive, used again or
//! missed.

use proptest::prelude::*;

use super::*;

/// How a proxy tells whom it speaks for.
#[derive(Clone, Copy, Debug)]
enum How {
    AddressOnly,
    WithPort,
    Proxy,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// A client connects to the proxy: by a door that masquerades or by one that does not, seen or
    /// unseen.
    Comes {
        client: u8,
        is_masqueraded: bool,
        is_seen: bool,
    },
    /// The proxy opens one for one of those that are open.
    Dials(prop::sample::Index, How),
    /// One of those that are open ends; its port may be another's.
    Ends(prop::sample::Index),
    /// What stands is read from conntrack.
    Read,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    client: SocketAddr,
    seen: SocketAddr,
    identity: Identity,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..3_u8, any::<bool>(), prop::bool::weighted(0.95)).prop_map(
            |(client, is_masqueraded, is_seen)| Step::Comes { client, is_masqueraded, is_seen }
        ),
        5 => (
            any::<prop::sample::Index>(),
            prop_oneof![Just(How::AddressOnly), Just(How::WithPort), Just(How::Proxy)]
        )
            .prop_map(|(which, how)| Step::Dials(which, how)),
        2 => any::<prop::sample::Index>().prop_map(Step::Ends),
        1 => Just(Step::Read),
    ]
}

/// The lowest port that no open connection is seen by.
fn free_port(open: &[Open], from: u16) -> u16 {
    let is_free = |port: &u16| open.iter().all(|open| open.seen.port() != *port);
    (from..=u16::MAX).find(is_free).expect("a port")
}

fn reading(seen: SocketAddr, how: How) -> Reading {
    let ip = seen.ip().to_string();
    match how {
        How::AddressOnly => forwarded_for(&["192.0.2.66", &ip]),
        How::WithPort => header(Carrier::Forwarded, &[&ip], Some(seen.port())),
        How::Proxy => proxy_header(seen),
    }
}

/// How many links named their client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Linked {
    all: usize,
    /// Where the header names no port, and the address is a masquerade's.
    by_masquerade_alone: usize,
}

/// Plays the steps; the cluster is known from step `known_from` on.
fn play(steps: &[Step], before: u8, known_from: usize) -> Result<Linked, TestCaseError> {
    let mut node = if known_from == 0 {
        Node::new(Whose::On)
    } else {
        Node::knowing(Whose::On, None)
    };
    let mut open: Vec<Open> = Vec::new();
    let mut named = Linked::default();
    let unseen = |node: &mut Node, open: &[Open], client: u8, is_masqueraded: bool| {
        let client = at(
            &format!("203.0.113.{}", 50 + client),
            free_port(open, 40_000),
        );
        let (door, seen) = if is_masqueraded {
            (CLUSTER_DOOR, at(NODE, free_port(open, 50_000)))
        } else {
            (LOCAL_DOOR, client)
        };
        let identity = node.identity(client, socket(door));
        Open {
            client,
            seen,
            identity,
        }
    };
    for client in 0..before {
        let one = unseen(&mut node, &open, client, true);
        open.push(one);
    }
    for (number, step) in steps.iter().enumerate() {
        if number == known_from && number > 0 {
            let known = Event::Cluster(Moment(node.now), cluster());
            node.observer.handle(known);
        }
        match *step {
            Step::Comes {
                client,
                is_masqueraded,
                is_seen,
            } => {
                let one = unseen(&mut node, &open, client, is_masqueraded);
                open.push(one);
                if is_seen {
                    node.opened(one.identity, reply(one), false);
                } else {
                    node.observer.handle(Event::Lost(Moment(node.now)));
                }
            }
            Step::Dials(which, how) if !open.is_empty() && number >= known_from => {
                let for_whom = *which.get(&open);
                let record = node.dials(PROXY, CLUSTER_IP, reading(for_whom.seen, how));
                let linked = record.through.as_ref().and_then(|through| through.client);
                if let Some(linked) = linked {
                    named.all += 1;
                    let is_masqueraded = for_whom.seen != for_whom.client;
                    let is_alone = is_masqueraded && matches!(how, How::AddressOnly);
                    named.by_masquerade_alone += usize::from(is_alone);
                    prop_assert_eq!(linked.ip, for_whom.client.ip());
                    let confidence = record.through.as_ref().map(|through| through.confidence);
                    if confidence == Some(Confidence::Exact) {
                        prop_assert_eq!(linked.port, Some(for_whom.client.port()));
                    }
                }
                if let Some(recovered) = record.client.recovered {
                    prop_assert_eq!(recovered, for_whom.client.ip());
                }
            }
            Step::Ends(which) if !open.is_empty() => {
                let index = which.index(open.len());
                open.swap_remove(index);
            }
            Step::Read => {
                let stands = open.iter().filter(|one| one.seen != one.client);
                let stands = stands.map(|one| {
                    let identity = Identity {
                        sequence: 0,
                        ..one.identity
                    };
                    (identity, reply(*one))
                });
                node.observer.handle(Event::Rewritten(stands.collect()));
            }
            Step::Dials(..) | Step::Ends(_) => {}
        }
    }
    Ok(named)
}

fn reply(open: Open) -> Tuple {
    Tuple {
        source: at(PROXY, 80),
        destination: open.seen,
    }
}

proptest! {
    #[test]
    fn nobody_is_taken_for_another(
        steps in prop::collection::vec(step(), 0..60),
        before in 0..3_u8,
        known_from in prop_oneof![2 => Just(0), 1 => 0..20_usize],
    ) {
        play(&steps, before, known_from)?;
    }
}

proptest! {
    /// Where all is seen and what stands is known, the one client behind a masquerade is found by
    /// its address alone.
    #[test]
    fn who_is_alone_behind_a_masquerade_is_found(
        which in any::<prop::sample::Index>(),
        client in 0..3_u8,
        number in 1..40_usize,
        known_from in 0..4_usize,
    ) {
        let comes = Step::Comes { client, is_masqueraded: true, is_seen: true };
        let mut steps = vec![comes; number];
        steps.insert(0, Step::Ends(which));
        steps.extend([Step::Read, Step::Dials(which, How::AddressOnly)]);
        // What is missed is asked for again: the cluster comes before it is read.
        let known_from = known_from.min(number);
        prop_assert_eq!(play(&steps, 0, known_from)?.by_masquerade_alone, 1);
    }

    /// Where all is seen and ports are told, everybody is found.
    #[test]
    fn whoever_comes_is_found_by_the_port(
        which in any::<prop::sample::Index>(),
        is_masqueraded in any::<bool>(),
    ) {
        let comes = |client| Step::Comes { client, is_masqueraded, is_seen: true };
        let mut steps: Vec<_> = (0..3).map(comes).collect();
        steps.extend([How::Proxy, How::WithPort].map(|how| Step::Dials(which, how)));
        prop_assert_eq!(play(&steps, 0, 0)?.all, 2);
    }
}
