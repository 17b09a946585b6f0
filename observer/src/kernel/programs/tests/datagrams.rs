//! UDP flows and SCTP associations.
//!
//! A test run's packet has no conntrack entry, so that the directions are told by what arrived.

use super::*;

/// A port that the programs follow, and one that they do not.
const FOLLOWED: u16 = DOOR_PORT;
const IGNORED: u16 = 9;

fn load_following(test: &str) -> Option<(Programs, RingBuf<MapData>)> {
    let (mut programs, ring) = load(test)?;
    programs
        .follow_udp(&Ports::Only([FOLLOWED].into()))
        .expect("set");
    Some((programs, ring))
}

/// A datagram from the client.
pub(super) fn datagram(mut ip: IpHeaders, to: u16, payload: &[u8]) -> Vec<u8> {
    ip.set_next_headers(IpNumber::UDP);
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6])
        .ip(ip)
        .udp(CLIENT_PORT, to);
    let mut packet = Vec::with_capacity(builder.size(payload.len()));
    builder.write(&mut packet, payload).expect("fits");
    packet
}

/// The reply to [`datagram`], in IPv4.
fn reply() -> Vec<u8> {
    let ip = v4_with(|header| {
        std::mem::swap(&mut header.source, &mut header.destination);
    });
    let mut packet = Vec::new();
    PacketBuilder::ethernet2([4; 6], [2; 6])
        .ip(ip)
        .udp(FOLLOWED, CLIENT_PORT)
        .write(&mut packet, &[0; 20])
        .expect("fits");
    packet
}

/// `error` about what it quotes, by IPv4.
fn port_unreachable(quoted: &[u8]) -> Vec<u8> {
    let mut error = vec![3, 3, 0, 0, 0, 0, 0, 0];
    error.extend(quoted);
    let mut packet = Vec::new();
    PacketBuilder::ethernet2([2; 6], [4; 6])
        .ip(v4())
        .write(&mut packet, IpNumber::ICMP, &error)
        .expect("fits");
    packet
}

fn of_udp(original: Tuple) -> Identity {
    Identity {
        protocol: Protocol::Udp,
        sequence: 0,
        ..identity(original)
    }
}

fn passages(ring: &mut RingBuf<MapData>) -> Vec<Passage> {
    let mut passages = Vec::new();
    while let Some(item) = ring.next() {
        match Observation::decode(&item) {
            Ok(Observation::Passage(passage)) => passages.push(passage),
            other => panic!("{other:?} in the ring buffer"),
        }
    }
    passages
}

#[rstest]
#[case::ipv4(v4(), &[0; 40])]
#[case::ipv4_without_payload(v4(), &[])]
#[case::ipv4_first_fragment(v4_with(|header| header.more_fragments = true), &[0; 40])]
#[case::ipv6(v6(Ipv6Extensions::default()), &[0; 40])]
#[case::ipv6_with_extensions(
    v6(Ipv6Extensions { hop_by_hop_options: Some(options()), ..Ipv6Extensions::default() }),
    &[0; 40],
)]
fn a_first_datagram_is_noted(#[case] ip: IpHeaders, #[case] payload: &[u8]) {
    let Some((mut programs, _)) = load_following("a_first_datagram_is_noted") else {
        return;
    };
    let original = tuple(&ip);
    let packet = datagram(ip, FOLLOWED, payload);
    run(&mut programs, ETHERNET[0], &packet);
    let [Observation::Arrival { identity, arrival }] = arrivals(&mut programs)[..] else {
        panic!("one arrival")
    };
    assert_eq!(identity, of_udp(original));
    assert_eq!(arrival.ttl.0, HOP_LIMIT);
}

#[rstest]
#[case::another_port(datagram(v4(), IGNORED, &[0; 40]))]
#[case::another_port_without_payload(datagram(v4(), IGNORED, &[]))]
#[case::ipv4_later_fragment(datagram(
    v4_with(|header| header.fragment_offset = IpFragOffset::try_new(100).expect("an offset")),
    FOLLOWED,
    &[0; 40],
))]
#[case::ipv6_later_fragment(datagram(
    v6(Ipv6Extensions { fragment: Some(fragment(100)), ..Ipv6Extensions::default() }),
    FOLLOWED,
    &[0; 40],
))]
fn datagrams_that_nobody_asks_about_leave_no_trace(#[case] packet: Vec<u8>) {
    let Some((mut programs, mut ring)) =
        load_following("datagrams_that_nobody_asks_about_leave_no_trace")
    else {
        return;
    };
    for program in ETHERNET {
        run(&mut programs, program, &packet);
    }
    assert_eq!(arrivals(&mut programs), []);
    assert_eq!(passages(&mut ring), []);
    let counters = programs.counters().expect("counted");
    assert_eq!(counters.get(Counter::FlowsWritten), 0);
}

/// Request and reply, three times.
#[test]
fn of_a_flow_the_first_datagram_and_the_first_reply_are_told() {
    let Some((mut programs, mut ring)) =
        load_following("of_a_flow_the_first_datagram_and_the_first_reply_are_told")
    else {
        return;
    };
    let original = tuple(&v4());
    for _ in 0..3 {
        for packet in [datagram(v4(), FOLLOWED, &[0; 40]), reply()] {
            for program in ETHERNET {
                run(&mut programs, program, &packet);
            }
        }
    }
    let passages = passages(&mut ring);
    let told: Vec<_> = passages
        .iter()
        .map(|passage| (passage.kind, passage.identity, passage.reply))
        .collect();
    let (flow, back) = (of_udp(original), reversed(original));
    assert_eq!(
        told,
        [(Kind::Forward, flow, back), (Kind::Reply, flow, back)]
    );
    assert!(passages.iter().all(|passage| passage.arrival.is_some()));
    assert_eq!(arrivals(&mut programs), []);
    assert_eq!(programs.usage().expect("counted").flows_evicted, 0);
}

/// A datagram that came to stay, and this node's own reply.
#[test]
fn an_own_reply_takes_the_opening_along() {
    let Some((mut programs, mut ring)) = load_following("an_own_reply_takes_the_opening_along")
    else {
        return;
    };
    let request = datagram(v4(), FOLLOWED, &[0; 40]);
    for _ in 0..2 {
        run(&mut programs, ETHERNET[0], &request);
        run(&mut programs, ETHERNET[1], &reply());
    }
    let passages = passages(&mut ring);
    let [passage] = &passages[..] else {
        panic!("one reply: {passages:?}")
    };
    assert_eq!(
        (passage.kind, passage.identity, passage.arrival),
        (Kind::Reply, of_udp(tuple(&v4())), None)
    );
    assert!(passage.opening.is_some());
    assert_eq!(arrivals(&mut programs), []);
}

/// So that a later datagram that passes has an arrival.
#[test]
fn what_is_dropped_is_noted_until_it_passes() {
    let Some((mut programs, mut ring)) = load_following("what_is_dropped_is_noted_until_it_passes")
    else {
        return;
    };
    let packet = datagram(v4(), FOLLOWED, &[0; 40]);
    for _ in 0..2 {
        for _ in 0..2 {
            run(&mut programs, ETHERNET[0], &packet);
        }
        assert_eq!(arrivals(&mut programs).len(), 1, "noted once, and again");
    }
    for program in ETHERNET {
        run(&mut programs, program, &packet);
    }
    let [passage] = passages(&mut ring)[..] else {
        panic!("it passed once")
    };
    assert!(passage.arrival.is_some());
}

/// The error quotes no more than it must: the IP header and eight bytes.
#[rstest]
#[case::followed(FOLLOWED, true)]
#[case::ignored(IGNORED, false)]
fn a_port_unreachable_error_is_about_the_flow(#[case] to: u16, #[case] is_noted: bool) {
    let Some((mut programs, _)) = load_following("a_port_unreachable_error_is_about_the_flow")
    else {
        return;
    };
    let error = port_unreachable(&datagram(v4(), to, &[])[14..]);
    run(&mut programs, ETHERNET[0], &error);
    let arrivals = arrivals(&mut programs);
    if !is_noted {
        assert_eq!(arrivals, []);
        return;
    }
    let [
        Observation::AnswerArrival {
            kind,
            protocol,
            reply,
            sequence,
            ..
        },
    ] = arrivals[..]
    else {
        panic!("one answer: {arrivals:?}")
    };
    assert_eq!(
        (kind, protocol, reply, sequence),
        (Kind::IcmpError, Protocol::Udp, reversed(tuple(&v4())), 0)
    );
}

/// An SCTP packet from the client with one chunk: its type, its flags and what follows.
fn sctp(mut ip: IpHeaders, tag: u32, kind: u8, flags: u8, more: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + more.len()).expect("short");
    let mut body = Vec::new();
    body.extend(CLIENT_PORT.to_be_bytes());
    body.extend(DOOR_PORT.to_be_bytes());
    body.extend(tag.to_be_bytes());
    body.extend([0; 4]);
    body.extend([kind, flags]);
    body.extend(length.to_be_bytes());
    body.extend(more);
    ip.set_next_headers(IpNumber::SCTP);
    let mut packet = Vec::new();
    PacketBuilder::ethernet2([2; 6], [4; 6])
        .ip(ip)
        .write(&mut packet, IpNumber::SCTP, &body)
        .expect("fits");
    packet
}

/// INIT (RFC 9260, 3.3.2): initiate tag, window, streams, first TSN.
fn init(ip: IpHeaders) -> Vec<u8> {
    let mut fields = SEQUENCE.to_be_bytes().to_vec();
    fields.extend([0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 9]);
    sctp(ip, 0, 1, 0, &fields)
}

#[rstest]
#[case::ipv4(v4())]
#[case::ipv6(v6(Ipv6Extensions::default()))]
fn an_init_opens_an_association(#[case] ip: IpHeaders) {
    let Some((mut programs, mut ring)) = load("an_init_opens_an_association") else {
        return;
    };
    let expected = Identity {
        protocol: Protocol::Sctp,
        ..identity(tuple(&ip))
    };
    let packet = init(ip);
    for program in ETHERNET {
        run(&mut programs, program, &packet);
    }
    let [passage] = passages(&mut ring)[..] else {
        panic!("it passed")
    };
    assert_eq!((passage.kind, passage.identity), (Kind::Forward, expected));
    assert!(passage.arrival.is_some());
    assert_eq!(arrivals(&mut programs), []);
}

/// Whoever answers an INIT gives its initiate tag back as verification tag.
#[rstest]
#[case::init_ack(2, 0, Some(Kind::Reply))]
#[case::abort(6, 0, Some(Kind::Reset))]
#[case::abort_with_a_reflected_tag(6, 1, None)]
#[case::data(0, 3, None)]
#[case::shutdown(7, 0, None)]
fn an_association_is_answered_by_its_tag(
    #[case] chunk: u8,
    #[case] flags: u8,
    #[case] expected: Option<Kind>,
) {
    let Some((mut programs, _)) = load("an_association_is_answered_by_its_tag") else {
        return;
    };
    let packet = sctp(v4(), SEQUENCE, chunk, flags, &[0; 16]);
    run(&mut programs, ETHERNET[0], &packet);
    let answers: Vec<_> = arrivals(&mut programs)
        .into_iter()
        .map(|arrival| match arrival {
            Observation::AnswerArrival {
                kind,
                protocol: Protocol::Sctp,
                reply,
                sequence: SEQUENCE,
                ..
            } if reply == tuple(&v4()) => kind,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(answers, expected.into_iter().collect::<Vec<_>>());
}

/// An error that quotes enough names the INIT; one that quotes as little as it may does not.
#[rstest]
#[case::whole(usize::MAX, 1)]
#[case::as_little_as_allowed(28, 0)]
fn an_icmp_error_about_an_init_is_noted(#[case] quoted: usize, #[case] expected: usize) {
    let Some((mut programs, _)) = load("an_icmp_error_about_an_init_is_noted") else {
        return;
    };
    let init: Vec<u8> = init(v4()).into_iter().skip(14).take(quoted).collect();
    run(&mut programs, ETHERNET[0], &port_unreachable(&init));
    let arrivals = arrivals(&mut programs);
    assert_eq!(arrivals.len(), expected, "{arrivals:?}");
}
