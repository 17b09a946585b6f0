//! What is not followed: both hooks and every packet of a handshake agree on it, and all is counted.

use std::collections::BTreeSet;

use observer_ebpf::{OBSERVATIONS_SIZE, Sampling, openings_mark};

use super::datagrams::datagram;
use super::*;

/// One in eight.
const SHIFT: u8 = 3;
const OPENINGS: u32 = 2_000;

fn sampled(test: &str) -> Option<(Programs, RingBuf<MapData>)> {
    let (mut programs, ring) = load(test)?;
    let sampling = Sampling {
        ingress: SHIFT,
        egress: SHIFT,
        changing: false,
    };
    programs.sample(sampling).expect("set");
    Some((programs, ring))
}

/// A segment whose headers are plain, or have options, so that they are read another way.
pub(super) fn segment(has_options: bool, tcp: TcpHeader) -> Vec<u8> {
    let mut ip = if has_options {
        v4_with(|header| {
            header.options = Ipv4Options::try_from([1; 8].as_slice()).expect("no-operations");
        })
    } else {
        v4()
    };
    ip.set_next_headers(IpNumber::TCP);
    packet(ip, tcp)
}

pub(super) fn opening(sequence_number: u32) -> TcpHeader {
    TcpHeader {
        sequence_number,
        ..syn()
    }
}

fn answer(sequence: u32) -> TcpHeader {
    TcpHeader {
        ack: true,
        acknowledgment_number: sequence.wrapping_add(1),
        ..syn()
    }
}

/// The client's sequence numbers of what arrived.
fn arrived(programs: &mut Programs) -> BTreeSet<u32> {
    let sequence = |observation| match observation {
        Observation::Arrival { identity, .. } => identity.sequence,
        Observation::AnswerArrival { sequence, .. } => sequence,
        Observation::Passage(_) => panic!("it left"),
    };
    arrivals(programs).into_iter().map(sequence).collect()
}

/// And of what left.
fn left(ring: &mut RingBuf<MapData>) -> BTreeSet<u32> {
    let mut left = BTreeSet::new();
    while let Some(item) = ring.next() {
        let Ok(Observation::Passage(passage)) = Observation::decode(&item) else {
            panic!("a passage")
        };
        left.insert(passage.identity.sequence);
    }
    left
}

#[test]
fn every_packet_of_a_handshake_is_followed_or_none() {
    let test = "every_packet_of_a_handshake_is_followed_or_none";
    let Some((mut programs, mut ring)) = sampled(test) else {
        return;
    };
    let [ingress, egress] = ETHERNET;
    let sequences = || (0..OPENINGS).map(|number| number.wrapping_mul(0x0123_4567));
    let mut followed: Option<BTreeSet<u32>> = None;
    for (has_options, make) in [
        (false, opening as fn(u32) -> TcpHeader),
        (true, opening),
        (false, answer),
        (true, answer),
    ] {
        let what = |sequence| segment(has_options, make(sequence));
        for sequence in sequences() {
            run(&mut programs, ingress, &what(sequence));
        }
        let arrived = arrived(&mut programs);
        assert_eq!(followed.get_or_insert_with(|| arrived.clone()), &arrived);
        let mut gone = BTreeSet::new();
        for sequence in sequences() {
            run(&mut programs, egress, &what(sequence));
            gone.extend(left(&mut ring));
        }
        assert_eq!(gone, arrived);
    }
    let followed = followed.expect("some").len();
    let share = OPENINGS as usize >> SHIFT;
    assert!(
        (share * 3 / 4..share * 5 / 4).contains(&followed),
        "{followed} of {OPENINGS}"
    );
    // At both hooks, since what these runs hand to the programs came by no interface; twice.
    let shed = 4 * (u64::from(OPENINGS) - followed as u64);
    let counters = programs.counters().expect("counted");
    assert_eq!(counters.get(Counter::NotFollowed), shed);
}

#[test]
fn a_flow_is_followed_both_ways_or_not_at_all() {
    let test = "a_flow_is_followed_both_ways_or_not_at_all";
    let Some((mut programs, mut ring)) = sampled(test) else {
        return;
    };
    programs.follow_udp(&Ports::All).expect("set");
    let flow = |port: u32| {
        let mut packet = datagram(v4(), DOOR_PORT, &[0; 8]);
        let port = u16::try_from(10_000 + port).expect("a port");
        packet[34..36].copy_from_slice(&port.to_be_bytes());
        packet
    };
    let reply = |port| {
        let mut packet = flow(port);
        let (source, destination) = packet[26..34].split_at_mut(4);
        source.swap_with_slice(destination);
        let (source, destination) = packet[34..38].split_at_mut(2);
        source.swap_with_slice(destination);
        packet
    };
    let [ingress, egress] = ETHERNET;
    let mut reported = 0;
    for port in 0..OPENINGS {
        run(&mut programs, ingress, &flow(port));
        run(&mut programs, egress, &flow(port));
        let opened = ring.next().is_some();
        run(&mut programs, ingress, &reply(port));
        run(&mut programs, egress, &reply(port));
        let answered = ring.next().is_some();
        assert_eq!(opened, answered, "{port}");
        reported += u32::from(opened);
    }
    let share = OPENINGS >> SHIFT;
    assert!(
        (share * 3 / 4..share * 5 / 4).contains(&reported),
        "{reported}"
    );
    assert_eq!(arrivals(&mut programs), [], "nothing is left behind");
}

#[rstest]
#[case::the_default(OBSERVATIONS_SIZE)]
#[case::another(1 << 18)]
fn while_nobody_reads_openings_are_refused_as_they_arrive(#[case] ring_buffer: u32) {
    let test = "while_nobody_reads_openings_are_refused_as_they_arrive";
    let load = Load {
        sizes: Sizes {
            ring_buffer,
            ..Sizes::default()
        },
        ..Load::default()
    };
    let Some((mut programs, rings)) = load_to(test, load) else {
        return;
    };
    let mut ring = rings.observations;
    let [ingress, egress] = ETHERNET;
    // A record is 128 bytes, and eight before it.
    let room = u32::try_from(openings_mark(ring_buffer) / 136 + 1).expect("few");
    let all = ring_buffer / 136 + 100;
    for sequence in 0..all {
        let packet = segment(false, opening(sequence));
        run(&mut programs, ingress, &packet);
        if sequence < room {
            run(&mut programs, egress, &packet);
        }
    }
    let counters = programs.counters().expect("counted");
    assert_eq!(counters.get(Counter::ArrivalsWritten), u64::from(room));
    assert_eq!(counters.get(Counter::OpeningsLost), u64::from(all - room));
    assert_eq!(left(&mut ring).len(), room as usize);
    run(&mut programs, ingress, &segment(false, opening(all)));
    assert_eq!(arrived(&mut programs), [all].into());
}
