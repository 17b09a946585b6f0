//! The programs on packets made for them, by `BPF_PROG_TEST_RUN`: what they read from each, and
//! that they change none.

use std::cell::RefCell;
use std::env;

use aya::programs::{TestRun as _, TestRunOptions};
use etherparse::{
    IpFragOffset, IpHeaders, IpNumber, Ipv4Extensions, Ipv4Header, Ipv4Options, Ipv6Extensions,
    Ipv6FlowLabel, Ipv6FragmentHeader, Ipv6Header, Ipv6RawExtHeader, PacketBuilder, TcpHeader,
};
use observer_ebpf::{Counter, WaitingKey};
use proptest::prelude::*;
use rstest::rstest;

use super::*;
use crate::cluster::Protocol;
use crate::observation::{Conntrack, Identity, Kind, Passage, Tuple};

mod cost;
mod datagrams;
mod payload;
mod sampling;
mod sizes;

/// What every program returns: `TCX_NEXT`, so that whatever else is on the hook runs too.
const NEXT: u32 = u32::MAX;

/// A test run takes no frame that ends within its IP header (`net/bpf/test_run.c`, 6.18): with
/// IPv4, and with IPv6.
const TEST_RUN_MIN: [usize; 2] = [14 + 20, 14 + 40];

const CLIENT_PORT: u16 = 49508;
const DOOR_PORT: u16 = 30080;
const SEQUENCE: u32 = 0xdead_beef;
const HOP_LIMIT: u8 = 61;

/// Loads the programs; `None` if this process may not, which is said aloud or fails.
fn load(test: &str) -> Option<(Programs, RingBuf<MapData>)> {
    let (programs, rings) = load_to(test, Load::default())?;
    Some((programs, rings.observations))
}

/// The same, to do more.
fn load_to(test: &str, load: Load) -> Option<(Programs, Rings)> {
    if !nix::unistd::geteuid().is_root() {
        assert!(
            env::var_os("OBSERVER_REQUIRE_PRIVILEGED").is_none(),
            "{test} needs root"
        );
        log_skip(test);
        return None;
    }
    Some(Programs::load(load).expect("the programs load"))
}

fn log_skip(test: &str) {
    use std::io::Write as _;

    let _nobody_reads = writeln!(std::io::stderr(), "SKIPPED: {test}: it needs root");
}

/// Runs a program on a packet, which must come out as it went in.
fn run(programs: &mut Programs, program: &'static str, packet: &[u8]) {
    let mut out = vec![0; packet.len()];
    let result = classifier(&mut programs.ebpf, program)
        .expect("there")
        .test_run(TestRunOptions {
            data_in: Some(packet),
            data_out: Some(&mut out),
            ..TestRunOptions::new()
        })
        .expect("runs");
    assert_eq!(result.return_value, NEXT, "{program} ends the chain");
    assert_eq!(out, packet, "{program} changed the packet");
}

/// All arrivals that wait in the map.
fn arrivals(programs: &mut Programs) -> Vec<Observation> {
    let all = programs.expire(|_| Moment(u64::MAX)).expect("walked");
    all.into_iter()
        .map(|observation| observation.expect("decodes"))
        .collect()
}

fn v4() -> IpHeaders {
    let header = Ipv4Header::new(
        0,
        HOP_LIMIT,
        IpNumber::TCP,
        [203, 0, 113, 50],
        [172, 31, 0, 11],
    );
    IpHeaders::Ipv4(header.expect("a header"), Ipv4Extensions::default())
}

fn v6(extensions: Ipv6Extensions) -> IpHeaders {
    let header = Ipv6Header {
        traffic_class: 0,
        flow_label: Ipv6FlowLabel::ZERO,
        payload_length: 0,
        next_header: IpNumber::TCP,
        hop_limit: HOP_LIMIT,
        source: "2001:db8:113::50"
            .parse::<std::net::Ipv6Addr>()
            .expect("an address")
            .octets(),
        destination: "fd00:172:31::11"
            .parse::<std::net::Ipv6Addr>()
            .expect("an address")
            .octets(),
    };
    IpHeaders::Ipv6(header, extensions)
}

fn v4_with(change: impl FnOnce(&mut Ipv4Header)) -> IpHeaders {
    match v4() {
        IpHeaders::Ipv4(mut header, extensions) => {
            change(&mut header);
            IpHeaders::Ipv4(header, extensions)
        }
        IpHeaders::Ipv6(..) => unreachable!("v4 is IPv4"),
    }
}

fn fragment(offset: u16) -> Ipv6FragmentHeader {
    let offset = IpFragOffset::try_new(offset).expect("an offset");
    Ipv6FragmentHeader::new(IpNumber::TCP, offset, true, 7)
}

fn options() -> Ipv6RawExtHeader {
    // Six bytes of padding (RFC 8200, 4.2).
    Ipv6RawExtHeader::new_raw(IpNumber::TCP, &[1, 4, 0, 0, 0, 0]).expect("a header")
}

fn syn() -> TcpHeader {
    let mut header = TcpHeader::new(CLIENT_PORT, DOOR_PORT, SEQUENCE, 64_240);
    header.syn = true;
    header
}

fn packet(ip: IpHeaders, tcp: TcpHeader) -> Vec<u8> {
    packet_of(ip, tcp, &[])
}

fn packet_of(ip: IpHeaders, tcp: TcpHeader, data: &[u8]) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6])
        .ip(ip)
        .tcp_header(tcp);
    let mut packet = Vec::with_capacity(builder.size(data.len()));
    builder.write(&mut packet, data).expect("fits");
    packet
}

/// The client's and the front door's ends, in the family of `ip`.
fn tuple(ip: &IpHeaders) -> Tuple {
    let (source, destination) = match ip {
        IpHeaders::Ipv4(..) => ("203.0.113.50", "172.31.0.11"),
        IpHeaders::Ipv6(..) => ("2001:db8:113::50", "fd00:172:31::11"),
    };
    let socket =
        |ip: &str, port| (ip.parse::<std::net::IpAddr>().expect("an address"), port).into();
    Tuple {
        source: socket(source, CLIENT_PORT),
        destination: socket(destination, DOOR_PORT),
    }
}

fn reversed(tuple: Tuple) -> Tuple {
    Tuple {
        source: tuple.destination,
        destination: tuple.source,
    }
}

fn identity(original: Tuple) -> Identity {
    Identity {
        protocol: Protocol::Tcp,
        zone: 0,
        original,
        sequence: SEQUENCE,
    }
}

#[rstest]
#[case::ipv4(v4())]
#[case::ipv4_with_options(v4_with(|header| {
    header.options = Ipv4Options::try_from([1; 8].as_slice()).expect("no-operations");
}))]
#[case::ipv4_first_fragment(v4_with(|header| header.more_fragments = true))]
#[case::ipv6(v6(Ipv6Extensions::default()))]
#[case::ipv6_with_extensions(v6(Ipv6Extensions {
    hop_by_hop_options: Some(options()),
    destination_options: Some(options()),
    ..Ipv6Extensions::default()
}))]
#[case::ipv6_first_fragment(v6(Ipv6Extensions { fragment: Some(fragment(0)), ..Ipv6Extensions::default() }))]
fn an_opening_packet_is_noted_whatever_is_in_front_of_it(#[case] ip: IpHeaders) {
    let Some((mut programs, _)) = load("an_opening_packet_is_noted_whatever_is_in_front_of_it")
    else {
        return;
    };
    let original = tuple(&ip);
    let mut ip = ip;
    ip.set_next_headers(IpNumber::TCP);
    run(&mut programs, ETHERNET[0], &packet(ip, syn()));
    let [
        Observation::Arrival {
            identity: of,
            arrival,
        },
    ] = arrivals(&mut programs)[..]
    else {
        panic!("one arrival")
    };
    assert_eq!(of, identity(original));
    assert_eq!(arrival.ttl.0, HOP_LIMIT);
}

#[rstest]
#[case::ipv4_later_fragment(v4_with(|header| {
    header.fragment_offset = IpFragOffset::try_new(100).expect("an offset");
}), syn())]
#[case::ipv6_later_fragment(v6(Ipv6Extensions { fragment: Some(fragment(100)), ..Ipv6Extensions::default() }), syn())]
#[case::established(v4(), TcpHeader { syn: false, ack: true, ..syn() })]
#[case::closing(v4(), TcpHeader { syn: false, fin: true, ack: true, ..syn() })]
#[case::reset_of_an_established_connection(v4(), TcpHeader { syn: false, rst: true, ..syn() })]
#[case::established_ipv6(v6(Ipv6Extensions::default()), TcpHeader { syn: false, ack: true, psh: true, ..syn() })]
fn what_opens_nothing_and_answers_no_opening_leaves_no_trace(
    #[case] ip: IpHeaders,
    #[case] tcp: TcpHeader,
) {
    let Some((mut programs, mut ring)) =
        load("what_opens_nothing_and_answers_no_opening_leaves_no_trace")
    else {
        return;
    };
    let mut ip = ip;
    ip.set_next_headers(IpNumber::TCP);
    let packet = packet(ip, tcp);
    for program in ETHERNET {
        run(&mut programs, program, &packet);
    }
    assert_eq!(arrivals(&mut programs), []);
    assert!(ring.next().is_none());
}

#[rstest]
#[case::accepts(TcpHeader { ack: true, ..syn() }, Kind::Reply)]
#[case::refuses(TcpHeader { syn: false, rst: true, ack: true, sequence_number: 0, ..syn() }, Kind::Reset)]
fn an_answer_is_noted_by_what_it_acknowledges(#[case] mut tcp: TcpHeader, #[case] kind: Kind) {
    let Some((mut programs, _)) = load("an_answer_is_noted_by_what_it_acknowledges") else {
        return;
    };
    tcp.acknowledgment_number = SEQUENCE.wrapping_add(1);
    run(&mut programs, ETHERNET[0], &packet(v4(), tcp));
    let [
        Observation::AnswerArrival {
            kind: of,
            reply,
            sequence,
            ..
        },
    ] = arrivals(&mut programs)[..]
    else {
        panic!("one arrival")
    };
    assert_eq!((of, reply, sequence), (kind, tuple(&v4()), SEQUENCE));
}

/// An error about the opening packet, as its quoted packet tells.
#[rstest]
#[case::ipv4(v4(), &[3, 3])]
#[case::ipv6(v6(Ipv6Extensions::default()), &[1, 4])]
#[case::ipv6_with_extensions(v6(Ipv6Extensions { destination_options: Some(options()), ..Ipv6Extensions::default() }), &[1, 4])]
fn an_icmp_error_is_noted_as_the_answer_it_stands_for(
    #[case] mut ip: IpHeaders,
    #[case] kind_and_code: &[u8],
) {
    let Some((mut programs, _)) = load("an_icmp_error_is_noted_as_the_answer_it_stands_for") else {
        return;
    };
    let original = tuple(&ip);
    ip.set_next_headers(IpNumber::TCP);
    let quoted = packet(ip.clone(), syn());
    let mut error = kind_and_code.to_vec();
    error.extend([0; 6]);
    error.extend(&quoted[14..]);
    let (outer, protocol) = match ip {
        IpHeaders::Ipv4(..) => (v4(), IpNumber::ICMP),
        IpHeaders::Ipv6(..) => (v6(Ipv6Extensions::default()), IpNumber::IPV6_ICMP),
    };
    let mut packet = Vec::new();
    PacketBuilder::ethernet2([2; 6], [4; 6])
        .ip(outer)
        .write(&mut packet, protocol, &error)
        .expect("fits");
    run(&mut programs, ETHERNET[0], &packet);
    let [
        Observation::AnswerArrival {
            kind,
            reply,
            sequence,
            ..
        },
    ] = arrivals(&mut programs)[..]
    else {
        panic!("one arrival")
    };
    assert_eq!(
        (kind, reply, sequence),
        (Kind::IcmpError, reversed(original), SEQUENCE)
    );
}

#[test]
fn what_leaves_takes_its_arrival_along() {
    let Some((mut programs, mut ring)) = load("what_leaves_takes_its_arrival_along") else {
        return;
    };
    let packet = packet(v4(), syn());
    for program in ETHERNET {
        run(&mut programs, program, &packet);
    }
    let item = ring.next().expect("an observation");
    let Ok(Observation::Passage(passage)) = Observation::decode(&item) else {
        panic!("a passage")
    };
    let Passage {
        kind,
        identity: of,
        reply,
        conntrack,
        arrival,
        departure,
        opening,
    } = passage;
    assert_eq!((kind, conntrack), (Kind::Forward, Conntrack::None));
    assert_eq!(of, identity(tuple(&v4())));
    assert_eq!(reply, reversed(tuple(&v4())));
    let arrival = arrival.expect("it arrived");
    assert!(departure.at >= arrival.at);
    assert_eq!((arrival.ttl.0, departure.ttl.0), (HOP_LIMIT, HOP_LIMIT));
    assert_eq!(opening, None);
    drop(item);
    assert_eq!(arrivals(&mut programs), [], "taken along");
}

#[test]
fn a_repetition_keeps_the_first_arrival() {
    let Some((mut programs, _)) = load("a_repetition_keeps_the_first_arrival") else {
        return;
    };
    let first = packet(v4(), syn());
    let later = packet(v4_with(|header| header.time_to_live = HOP_LIMIT - 1), syn());
    for packet in [first, later] {
        run(&mut programs, ETHERNET[0], &packet);
    }
    let [Observation::Arrival { arrival, .. }] = arrivals(&mut programs)[..] else {
        panic!("one arrival")
    };
    assert_eq!(arrival.ttl.0, HOP_LIMIT);
    let counters = programs.counters().expect("counted");
    assert_eq!(counters.get(Counter::ArrivalsWritten), 1);
    assert_eq!(counters.get(Counter::ArrivalsRepeated), 1);
}

/// Headers that end early, and any other bytes: counted or passed by, and never changed.
#[test]
fn no_bytes_are_too_strange() {
    let Some((mut programs, _)) = load("no_bytes_are_too_strange") else {
        return;
    };
    let whole = packet(v4(), syn());
    for end in TEST_RUN_MIN[0]..whole.len() {
        for program in PROGRAMS.into_iter().flatten() {
            run(&mut programs, program, &whole[..end]);
        }
    }
    assert_eq!(arrivals(&mut programs), []);
    let programs = RefCell::new(programs);
    let mut runner = proptest::test_runner::TestRunner::default();
    let bytes = proptest::collection::vec(any::<u8>(), TEST_RUN_MIN[1]..200);
    runner
        .run(&(bytes, 0..4_usize), |(mut bytes, kind)| {
            // Mostly what gets past the first look.
            match kind {
                0 => {}
                1 => bytes[12..14].copy_from_slice(&[0x86, 0xdd]),
                _ => bytes[12..14].copy_from_slice(&[0x08, 0x00]),
            }
            for program in PROGRAMS.into_iter().flatten() {
                run(&mut programs.borrow_mut(), program, &bytes);
            }
            Ok(())
        })
        .expect("passes");
}
