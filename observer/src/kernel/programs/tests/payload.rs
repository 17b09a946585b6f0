//! Clients' first bytes: handed on once, in their place, of whom they are asked for, and no more
//! than are asked for.

use observer_ebpf::{PAYLOAD_MAX, SEGMENTS_MAX, SIDE_IN, SIDE_OUT};

use super::*;
use crate::observation::Segment;

/// Everybody.
const ALL: [&str; 2] = ["0.0.0.0/0", "::/0"];

/// What was handed on: of which connection, where it belongs, and the bytes.
type HandedOn = Vec<(Identity, u32, Vec<u8>)>;

fn load_asking(test: &str, sources: &[&str]) -> Option<(Programs, Rings)> {
    let load = Load {
        first_bytes: true,
        ..Load::default()
    };
    let (mut programs, rings) = load_to(test, load)?;
    let sources = sources
        .iter()
        .map(|source| source.parse().expect("a network"));
    programs
        .hand_on(&FirstBytes {
            ports: Ports::Only([DOOR_PORT].into()),
            sources: sources.collect(),
        })
        .expect("set");
    Some((programs, rings))
}

fn handed_on(rings: &mut Rings) -> HandedOn {
    let mut segments = Vec::new();
    let ring = rings.segments.as_mut().expect("asked for");
    while let Some(item) = ring.next() {
        let Segment {
            key: _,
            identity,
            offset,
            bytes,
        } = Segment::decode(&item).expect("decodes");
        segments.push((identity, offset, bytes.to_vec()));
    }
    segments
}

/// By what a connection of the client waits.
fn key(ip: &IpHeaders, side: u8) -> WaitingKey {
    let ArrivalKey { identity, .. } = identity(tuple(ip)).opening_key();
    WaitingKey {
        tuple: identity.original,
        family: identity.family,
        side,
        padding: [0; 2],
    }
}

fn opens(programs: &mut Programs, ip: &IpHeaders) {
    let mut ip = ip.clone();
    ip.set_next_headers(IpNumber::TCP);
    run(programs, ETHERNET[0], &packet(ip, syn()));
}

/// A segment with data at an offset from the first byte.
fn segment(ip: &IpHeaders, offset: u32, data: &[u8]) -> Vec<u8> {
    let mut ip = ip.clone();
    ip.set_next_headers(IpNumber::TCP);
    let tcp = TcpHeader {
        syn: false,
        ack: true,
        psh: true,
        sequence_number: SEQUENCE.wrapping_add(1).wrapping_add(offset),
        ..syn()
    };
    packet_of(ip, tcp, data)
}

fn sends(programs: &mut Programs, ip: &IpHeaders, offset: u32, data: &[u8]) {
    run(programs, ETHERNET[0], &segment(ip, offset, data));
}

#[rstest]
#[case::ipv4(v4())]
#[case::ipv4_with_options(v4_with(|header| {
    header.options = Ipv4Options::try_from([1; 8].as_slice()).expect("no-operations");
}))]
#[case::ipv6(v6(Ipv6Extensions::default()))]
#[case::ipv6_with_extensions(v6(Ipv6Extensions {
    hop_by_hop_options: Some(options()),
    ..Ipv6Extensions::default()
}))]
fn first_bytes_are_handed_on_once_and_in_their_place(#[case] ip: IpHeaders) {
    let test = "first_bytes_are_handed_on_once_and_in_their_place";
    let Some((mut programs, mut rings)) = load_asking(test, &ALL) else {
        return;
    };
    opens(&mut programs, &ip);
    sends(&mut programs, &ip, 0, b"PROXY ");
    // An acknowledgement, the same again, and what comes too early.
    sends(&mut programs, &ip, 6, b"");
    sends(&mut programs, &ip, 0, b"PROXY ");
    sends(&mut programs, &ip, 10, b" 203.0.113.50");
    sends(&mut programs, &ip, 6, b"TCP4");
    // A retransmitted opening packet changes nothing.
    opens(&mut programs, &ip);
    sends(&mut programs, &ip, 0, b"PROXY ");
    let of = identity(tuple(&ip));
    let expected: HandedOn = vec![
        (of, 0, b"PROXY ".to_vec()),
        (of, 10, b" 203.0.113.50".to_vec()),
        (of, 6, b"TCP4".to_vec()),
    ];
    assert_eq!(handed_on(&mut rings), expected);
    // What is let go is no longer looked at.
    programs.let_go(&key(&ip, SIDE_IN));
    sends(&mut programs, &ip, 23, b"more");
    assert_eq!(handed_on(&mut rings), []);
}

/// What this node itself sends comes by no interface, as a test run's packet.
#[test]
fn a_nodes_own_first_bytes_are_handed_on_as_they_leave() {
    let test = "a_nodes_own_first_bytes_are_handed_on_as_they_leave";
    let Some((mut programs, mut rings)) = load_asking(test, &ALL) else {
        return;
    };
    let ip = v4();
    run(&mut programs, ETHERNET[1], &packet(ip.clone(), syn()));
    run(&mut programs, ETHERNET[1], &segment(&ip, 0, b"GET /"));
    // As it arrives elsewhere it is another's.
    sends(&mut programs, &ip, 0, b"GET /");
    let of = identity(tuple(&ip));
    assert_eq!(handed_on(&mut rings), [(of, 0, b"GET /".to_vec())]);
    programs.let_go(&key(&ip, SIDE_OUT));
    run(&mut programs, ETHERNET[1], &segment(&ip, 5, b"more"));
    assert_eq!(handed_on(&mut rings), []);
}

#[test]
fn no_more_is_handed_on_than_is_asked_for() {
    let test = "no_more_is_handed_on_than_is_asked_for";
    let Some((mut programs, mut rings)) = load_asking(test, &ALL) else {
        return;
    };
    let ip = v4();
    opens(&mut programs, &ip);
    let bytes: Vec<u8> = (0..=u8::MAX).cycle().take(1_400).collect();
    let mut offset = 0;
    for _ in 0..4 {
        sends(&mut programs, &ip, offset, &bytes);
        offset += 1_400;
    }
    let segments = handed_on(&mut rings);
    let lengths: Vec<_> = segments.iter().map(|(_, _, bytes)| bytes.len()).collect();
    assert_eq!(lengths, [1_400, 648]);
    let all: Vec<u8> = segments
        .into_iter()
        .flat_map(|(_, _, bytes)| bytes)
        .collect();
    let sent: Vec<u8> = bytes.iter().chain(&bytes).copied().collect();
    assert_eq!(all, &sent[..PAYLOAD_MAX as usize]);

    // Nor in more pieces.
    programs.let_go(&key(&ip, SIDE_IN));
    opens(&mut programs, &ip);
    for offset in 0..SEGMENTS_MAX + 20 {
        sends(&mut programs, &ip, offset, b"a");
    }
    assert_eq!(handed_on(&mut rings).len(), SEGMENTS_MAX as usize);
}

/// A client that is not of interest, a port that is none, bytes of before the opening or of
/// nobody, and all where nobody asks.
#[test]
fn of_others_nothing_is_handed_on() {
    let test = "of_others_nothing_is_handed_on";
    let Some((mut programs, mut rings)) = load_asking(test, &["203.0.113.0/24"]) else {
        return;
    };
    let theirs = v4_with(|header| header.source = [203, 0, 114, 50]);
    // The same first bytes of an address, in the other family.
    let other_family = v6(Ipv6Extensions::default());
    for ip in [&theirs, &other_family] {
        opens(&mut programs, ip);
        sends(&mut programs, ip, 0, b"GET /");
    }
    sends(&mut programs, &v4(), 0, b"GET /");
    let mut elsewhere = packet(v4(), syn());
    elsewhere[36..38].copy_from_slice(&9_u16.to_be_bytes());
    run(&mut programs, ETHERNET[0], &elsewhere);
    assert_eq!(handed_on(&mut rings), []);
    let counters = programs.counters().expect("counted");
    assert_eq!(counters.get(Counter::WaitingWritten), 0);

    opens(&mut programs, &v4());
    sends(&mut programs, &v4(), u32::MAX, b"a");
    sends(&mut programs, &v4(), PAYLOAD_MAX, b"a");
    assert_eq!(handed_on(&mut rings), []);
    programs
        .hand_on(&FirstBytes {
            ports: Ports::All,
            sources: BTreeSet::new(),
        })
        .expect("set");
    programs.let_go(&key(&v4(), SIDE_IN));
    opens(&mut programs, &v4());
    sends(&mut programs, &v4(), 0, b"GET /");
    assert_eq!(handed_on(&mut rings), []);
}
