//! Observations, byte for byte as the programs write them.

use std::net::Ipv4Addr;

use observer_ebpf::{
    Arrival, CONNTRACK_ENTRY, FAMILY_IPV4, Identity, KIND_FORWARD, KIND_REPLY, Observation, Tuple,
};

use crate::cluster;

/// Of one.
pub(crate) const BYTES: usize = size_of::<Observation>();
/// Where clients come in.
pub(crate) const UPLINK: u32 = 2;
/// Where pods are.
pub(crate) const POD: u32 = 7;

const TCP: u8 = 6;
const NOBODY: Arrival = Arrival {
    time_ns: 0,
    ifindex: 0,
    ttl: 0,
    padding: [0; 3],
};
/// Connections of one client.
const PORTS: u32 = 28_000;

/// Whether the opening packet is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answered {
    Yes,
    No,
}

/// Who opens a connection.
pub(crate) fn client(number: u32) -> (Ipv4Addr, u16) {
    let address = Ipv4Addr::new(203, 0, 113, 50).to_bits() + number / PORTS;
    let port = u16::try_from(32_000 + number % PORTS).expect("a port");
    (Ipv4Addr::from_bits(address), port)
}

/// What the programs tell of a connection to the node port of some Service: to its pod here, its
/// address kept, if the Service is a local one; else to that on the other node, masqueraded.
pub(crate) fn connection(
    number: u32,
    services: usize,
    answered: Answered,
) -> impl Iterator<Item = [u8; BYTES]> {
    let service = number as usize % services;
    let is_local = !service.is_multiple_of(2);
    let (address, port) = client(number);
    let pod = cluster::pod(service, usize::from(!is_local));
    let seen = if is_local { address } else { cluster::NODE };
    let out = if is_local { POD } else { UPLINK };
    let at = u64::from(number) * 10_000;
    let arrival = |time_ns, ifindex, ttl| Arrival {
        time_ns,
        ifindex,
        ttl,
        padding: [0; 3],
    };
    let observation = |kind, ttl, ifindex, time_ns, arrival| Observation {
        identity: Identity {
            original: tuple(
                (address, port),
                (cluster::NODE, cluster::node_port(service)),
            ),
            family: FAMILY_IPV4,
            protocol: TCP,
            zone: 0,
            sequence: number.wrapping_mul(0x9e37_79b9),
        },
        reply: tuple((pod, cluster::POD_PORT), (seen, port)),
        kind,
        conntrack: CONNTRACK_ENTRY,
        ttl,
        padding: 0,
        ifindex,
        time_ns,
        arrival,
        opening: NOBODY,
    };
    let forward = observation(KIND_FORWARD, 63, out, at + 9_000, arrival(at, UPLINK, 64));
    let reply = observation(
        KIND_REPLY,
        62,
        UPLINK,
        at + 400_000,
        arrival(at + 390_000, out, 63),
    );
    let reply = (answered == Answered::Yes).then_some(reply);
    [Some(forward), reply]
        .into_iter()
        .flatten()
        .map(|it| bytes(&it))
}

fn tuple(source: (Ipv4Addr, u16), destination: (Ipv4Addr, u16)) -> Tuple {
    let address = |address: Ipv4Addr| {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&address.octets());
        bytes
    };
    Tuple {
        source: address(source.0),
        destination: address(destination.0),
        source_port: source.1,
        destination_port: destination.1,
    }
}

/// In the order of the fields' declaration.
fn bytes(observation: &Observation) -> [u8; BYTES] {
    let mut bytes = Vec::with_capacity(BYTES);
    let put_tuple = |bytes: &mut Vec<u8>, tuple: &Tuple| {
        bytes.extend(tuple.source);
        bytes.extend(tuple.destination);
        bytes.extend(tuple.source_port.to_ne_bytes());
        bytes.extend(tuple.destination_port.to_ne_bytes());
    };
    let put_arrival = |bytes: &mut Vec<u8>, arrival: &Arrival| {
        bytes.extend(arrival.time_ns.to_ne_bytes());
        bytes.extend(arrival.ifindex.to_ne_bytes());
        bytes.push(arrival.ttl);
        bytes.extend(arrival.padding);
    };
    let Identity {
        original,
        family,
        protocol,
        zone,
        sequence,
    } = &observation.identity;
    put_tuple(&mut bytes, original);
    bytes.extend([*family, *protocol]);
    bytes.extend(zone.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    put_tuple(&mut bytes, &observation.reply);
    bytes.extend([
        observation.kind,
        observation.conntrack,
        observation.ttl,
        observation.padding,
    ]);
    bytes.extend(observation.ifindex.to_ne_bytes());
    bytes.extend(observation.time_ns.to_ne_bytes());
    put_arrival(&mut bytes, &observation.arrival);
    put_arrival(&mut bytes, &observation.opening);
    bytes.try_into().expect("every field is in it")
}
