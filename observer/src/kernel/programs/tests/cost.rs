//! What a packet costs, measured by the kernel itself and held against a packet that returns at
//! once: `cargo test -p observer --lib cost -- --nocapture` prints it.

use std::io::Write as _;

use super::datagrams::datagram;
use super::*;

/// How often a packet is run at a stretch, and how many stretches there are: the least of them is
/// the one that nothing disturbed.
const REPEAT: u32 = 200_000;
const STRETCHES: u32 = 5;
/// How many times the packet that returns at once one may cost that is nobody's affair. Twice is
/// far from what it is, and from what a map or a helper would make of it.
const NOTHING: u64 = 2;
/// How many flows are opened: each has a first datagram but once.
const FLOWS: u16 = 10_000;

/// Nanoseconds per packet.
fn cost(programs: &mut Programs, program: &'static str, packet: &[u8], repeat: u32) -> u64 {
    let run = classifier(&mut programs.ebpf, program)
        .expect("there")
        .test_run(TestRunOptions {
            data_in: Some(packet),
            repeat,
            ..TestRunOptions::new()
        });
    u64::try_from(run.expect("runs").duration.as_nanos()).expect("short")
}

/// The mean of packets that are run once each, at ingress and at egress.
fn alone(programs: &mut Programs, packets: impl Iterator<Item = Vec<u8>>) -> [u64; 2] {
    let mut sums = [0; 2];
    for packet in packets {
        for (program, sum) in ETHERNET.into_iter().zip(&mut sums) {
            *sum += cost(programs, program, &packet, 1);
        }
    }
    sums.map(|sum| sum / u64::from(FLOWS))
}

#[test]
fn what_is_nobodys_affair_costs_next_to_nothing() {
    let test = "what_is_nobodys_affair_costs_next_to_nothing";
    let Some((mut programs, _ring)) = load(test) else {
        return;
    };
    programs
        .follow_udp(&Ports::Only([DOOR_PORT].into()))
        .expect("set");
    let tcp = |tcp| {
        let mut ip = v4();
        ip.set_next_headers(IpNumber::TCP);
        packet(ip, tcp)
    };
    // The protocol of LLDP.
    let mut no_ip = tcp(syn());
    no_ip[12..14].copy_from_slice(&[0x88, 0xcc]);
    let established = TcpHeader {
        syn: false,
        ack: true,
        ..syn()
    };
    let known = datagram(v4(), DOOR_PORT, &[0; 40]);
    for program in ETHERNET {
        run(&mut programs, program, &known);
    }
    let say = |what: &str, [ingress, egress]: [u64; 2]| {
        let mut out = std::io::stdout().lock();
        writeln!(out, "{what:<32}{ingress:>6} ns in {egress:>6} ns out").expect("printed");
    };
    let mut least = |what: &str, packet: &[u8]| {
        let costs = ETHERNET.map(|program| {
            let stretches = (0..STRETCHES).map(|_| cost(&mut programs, program, packet, REPEAT));
            stretches.min().expect("some")
        });
        say(what, costs);
        costs
    };
    let floor = least("no IP, returns at once", &no_ip);
    let established = least("TCP, established", &tcp(established));
    let another = least("UDP, another port", &datagram(v4(), 9, &[0; 40]));
    least("UDP, a known flow", &known);
    for costs in [established, another] {
        for (cost, floor) in costs.into_iter().zip(floor) {
            assert!(
                cost <= NOTHING * floor,
                "{cost} ns, where {floor} is the floor"
            );
        }
    }
    let same = (0..FLOWS).map(|_| no_ip.clone());
    say("no IP, run alone", alone(&mut programs, same));
    let syns = (0..u32::from(FLOWS)).map(|sequence_number| {
        tcp(TcpHeader {
            sequence_number,
            ..syn()
        })
    });
    say("TCP, a SYN, run alone", alone(&mut programs, syns));
    let firsts = (0..FLOWS).map(|port| {
        let mut packet = datagram(v4(), DOOR_PORT, &[0; 40]);
        packet[34..36].copy_from_slice(&(10_000 + port).to_be_bytes());
        packet
    });
    say("UDP, a first one, run alone", alone(&mut programs, firsts));
}

/// The same with clients' first bytes asked for: of a connection that nobody waits for, and of one
/// whose port was noted seconds ago.
#[test]
fn asking_for_first_bytes_costs_others_little() {
    let test = "asking_for_first_bytes_costs_others_little";
    let established = |port: u16, data: &[u8]| {
        let mut ip = v4();
        ip.set_next_headers(IpNumber::TCP);
        let tcp = TcpHeader {
            source_port: port,
            syn: false,
            ack: true,
            ..syn()
        };
        packet_of(ip, tcp, data)
    };
    let packets = [
        ("acknowledgement", established(1, &[])),
        ("data", established(1, &[0; 1_000])),
        (
            "data, its port just noted",
            established(CLIENT_PORT, &[0; 1_000]),
        ),
    ];
    let (mut measured, mut openings) = (Vec::new(), Vec::new());
    for first_bytes in [false, true] {
        let load = Load {
            first_bytes,
            ..Load::default()
        };
        let Some((mut programs, _rings)) = load_to(test, load) else {
            return;
        };
        programs
            .hand_on(&FirstBytes {
                ports: Ports::All,
                sources: ["0.0.0.0/0".parse().expect("a network")].into(),
            })
            .expect("set");
        let mut ip = v4();
        ip.set_next_headers(IpNumber::TCP);
        let syns = (0..u32::from(FLOWS)).map(|sequence_number| {
            let tcp = TcpHeader {
                sequence_number,
                ..syn()
            };
            packet(ip.clone(), tcp)
        });
        let [opening, _] = alone(&mut programs, syns);
        openings.push(opening);
        run(&mut programs, ETHERNET[0], &packet(ip, syn()));
        let ArrivalKey { identity, .. } = identity(tuple(&v4())).opening_key();
        programs.let_go(&WaitingKey {
            tuple: identity.original,
            family: identity.family,
            side: observer_ebpf::SIDE_IN,
            padding: [0; 2],
        });
        let costs = packets.each_ref().map(|(_, packet)| {
            let stretches =
                (0..STRETCHES).map(|_| cost(&mut programs, ETHERNET[0], packet, REPEAT));
            stretches.min().expect("some")
        });
        measured.push(costs);
    }
    let mut out = std::io::stdout().lock();
    for (index, (what, _)) in packets.iter().enumerate() {
        let [off, on] = [0, 1].map(|on| measured[on][index]);
        writeln!(out, "{what:<32}{off:>6} ns off {on:>6} ns on").expect("printed");
    }
    let what = "a SYN, run alone, in";
    writeln!(
        out,
        "{what:<32}{:>6} ns off {:>6} ns on",
        openings[0], openings[1]
    )
    .expect("printed");
}
