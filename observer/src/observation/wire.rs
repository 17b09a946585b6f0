//! Between the programs' bytes and observations: total over any bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::Buf as _;
use observer_ebpf as wire;

use super::{
    Arrival, Conntrack, Departure, Identity, IfIndex, Kind, Moment, Observation, Passage, Segment,
    Ttl, Tuple,
};
use crate::cluster::{Protocol, UnknownProtocol};

/// A record that no version of the programs writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Of another size than the wire type.
    #[error("an observation of {found} bytes, where the programs write {expected}")]
    Size {
        /// Bytes found.
        found: usize,
        /// Bytes of the wire type.
        expected: usize,
    },
    /// A field that holds a value it cannot have.
    #[error("an observation whose field {field} is {value}")]
    Field {
        /// Its name in the wire type.
        field: &'static str,
        /// What it holds.
        value: u32,
    },
    /// A protocol that no Service has.
    #[error(transparent)]
    Protocol(#[from] UnknownProtocol),
}

impl Identity {
    /// The key of the arrival of its opening packet.
    pub fn opening_key(&self) -> wire::ArrivalKey {
        let Tuple {
            source,
            destination,
        } = self.original;
        let bytes = |ip: IpAddr| match ip {
            IpAddr::V4(ip) => {
                let mut bytes = [0; 16];
                bytes[..4].copy_from_slice(&ip.octets());
                bytes
            }
            IpAddr::V6(ip) => ip.octets(),
        };
        wire::ArrivalKey {
            identity: wire::Identity {
                original: wire::Tuple {
                    source: bytes(source.ip()),
                    destination: bytes(destination.ip()),
                    source_port: source.port(),
                    destination_port: destination.port(),
                },
                family: if source.is_ipv4() {
                    wire::FAMILY_IPV4
                } else {
                    wire::FAMILY_IPV6
                },
                protocol: self.protocol.number(),
                zone: 0,
                sequence: self.sequence,
            },
            role: wire::ROLE_OPENING,
        }
    }
}

impl Observation {
    /// Reads one record of the ring buffer.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let record = record(bytes)?;
        let wire::Observation {
            identity: wire_identity,
            reply,
            kind,
            conntrack,
            ttl,
            padding: _,
            ifindex,
            time_ns,
            arrival,
            opening,
        } = record;
        let kind = match kind {
            wire::KIND_FORWARD => Kind::Forward,
            wire::KIND_REPLY => Kind::Reply,
            wire::KIND_RESET => Kind::Reset,
            wire::KIND_ICMP_ERROR => Kind::IcmpError,
            other => return Err(field("kind", other)),
        };
        let conntrack = match conntrack {
            wire::CONNTRACK_NONE => Conntrack::None,
            wire::CONNTRACK_ENTRY => Conntrack::Entry,
            wire::CONNTRACK_UNTRACKED => Conntrack::Untracked,
            other => return Err(field("conntrack", other)),
        };
        Ok(Self::Passage(Passage {
            kind,
            identity: identity(&wire_identity)?,
            reply: tuple(&reply, wire_identity.family)?,
            conntrack,
            arrival: noted(arrival),
            departure: Departure {
                at: Moment(time_ns),
                interface: IfIndex(ifindex),
                ttl: Ttl(ttl),
            },
            opening: noted(opening),
        }))
    }

    /// Reads an entry that stayed in the map of arrivals.
    pub fn expired(key: &wire::ArrivalKey, value: wire::Arrival) -> Result<Self, DecodeError> {
        let identity = identity(&key.identity)?;
        let arrival = present(value);
        let kind = match key.role {
            wire::ROLE_OPENING => return Ok(Self::Arrival { identity, arrival }),
            wire::ROLE_ACCEPT => Kind::Reply,
            wire::ROLE_RESET => Kind::Reset,
            wire::ROLE_ICMP_ERROR => Kind::IcmpError,
            value => {
                return Err(DecodeError::Field {
                    field: "role",
                    value,
                });
            }
        };
        Ok(Self::AnswerArrival {
            kind,
            protocol: identity.protocol,
            reply: identity.original,
            sequence: identity.sequence,
            arrival,
        })
    }
}

impl<'ring> Segment<'ring> {
    /// Reads one record of the ring buffer of segments.
    pub fn decode(bytes: &'ring [u8]) -> Result<Self, DecodeError> {
        let expected = size_of::<wire::Segment>();
        let size = |expected| DecodeError::Size {
            found: bytes.len(),
            expected,
        };
        let (mut header, bytes) = bytes
            .split_at_checked(expected)
            .ok_or_else(|| size(expected))?;
        let key = wire::WaitingKey {
            tuple: wire_tuple(&mut header),
            family: header.get_u8(),
            side: header.get_u8(),
            padding: [header.get_u8(), header.get_u8()],
        };
        let identity = identity(&wire_identity(&mut header))?;
        let offset = header.get_u32_ne();
        // When: of the segment, not of what it tells.
        header.advance(size_of::<u64>());
        let length = header.get_u32_ne();
        if usize::try_from(length) != Ok(bytes.len()) {
            return Err(size(expected.saturating_add(length as usize)));
        }
        Ok(Self {
            key,
            identity,
            offset,
            bytes,
        })
    }
}

/// The wire type's bytes, one field after the other in the order of its declaration.
fn record(mut bytes: &[u8]) -> Result<wire::Observation, DecodeError> {
    let expected = size_of::<wire::Observation>();
    if bytes.len() != expected {
        return Err(DecodeError::Size {
            found: bytes.len(),
            expected,
        });
    }
    Ok(wire::Observation {
        identity: wire_identity(&mut bytes),
        reply: wire_tuple(&mut bytes),
        kind: bytes.get_u8(),
        conntrack: bytes.get_u8(),
        ttl: bytes.get_u8(),
        padding: bytes.get_u8(),
        ifindex: bytes.get_u32_ne(),
        time_ns: bytes.get_u64_ne(),
        arrival: wire_arrival(&mut bytes),
        opening: wire_arrival(&mut bytes),
    })
}

fn wire_identity(bytes: &mut &[u8]) -> wire::Identity {
    wire::Identity {
        original: wire_tuple(bytes),
        family: bytes.get_u8(),
        protocol: bytes.get_u8(),
        zone: bytes.get_u16_ne(),
        sequence: bytes.get_u32_ne(),
    }
}

fn wire_address(bytes: &mut &[u8]) -> [u8; 16] {
    let mut address = [0; 16];
    bytes.copy_to_slice(&mut address);
    address
}

fn wire_tuple(bytes: &mut &[u8]) -> wire::Tuple {
    wire::Tuple {
        source: wire_address(bytes),
        destination: wire_address(bytes),
        source_port: bytes.get_u16_ne(),
        destination_port: bytes.get_u16_ne(),
    }
}

fn wire_arrival(bytes: &mut &[u8]) -> wire::Arrival {
    let time_ns = bytes.get_u64_ne();
    let ifindex = bytes.get_u32_ne();
    let ttl = bytes.get_u8();
    bytes.advance(3);
    wire::Arrival {
        time_ns,
        ifindex,
        ttl,
        padding: [0; 3],
    }
}

fn field(field: &'static str, value: u8) -> DecodeError {
    DecodeError::Field {
        field,
        value: value.into(),
    }
}

fn identity(wire: &wire::Identity) -> Result<Identity, DecodeError> {
    Ok(Identity {
        protocol: Protocol::try_from(wire.protocol)?,
        zone: wire.zone,
        original: tuple(&wire.original, wire.family)?,
        sequence: wire.sequence,
    })
}

fn tuple(wire: &wire::Tuple, family: u8) -> Result<Tuple, DecodeError> {
    let address = |bytes: [u8; 16]| match family {
        wire::FAMILY_IPV4 => {
            let [a, b, c, d, ..] = bytes;
            Ok(IpAddr::V4(Ipv4Addr::new(a, b, c, d)))
        }
        wire::FAMILY_IPV6 => Ok(IpAddr::V6(Ipv6Addr::from(bytes))),
        other => Err(field("family", other)),
    };
    Ok(Tuple {
        source: SocketAddr::new(address(wire.source)?, wire.source_port),
        destination: SocketAddr::new(address(wire.destination)?, wire.destination_port),
    })
}

/// All zero is the wire's `None`; no packet arrives at the moment of boot.
fn noted(wire: wire::Arrival) -> Option<Arrival> {
    (wire.time_ns != 0).then(|| present(wire))
}

fn present(wire: wire::Arrival) -> Arrival {
    Arrival {
        at: Moment(wire.time_ns),
        interface: IfIndex(wire.ifindex),
        ttl: Ttl(wire.ttl),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A record byte by byte as the programs lay it out, little endian, built without the types.
    fn bytes() -> Vec<u8> {
        let mut bytes = Vec::new();
        let address = |a: [u8; 4]| [&a[..], &[0; 12]].concat();
        bytes.extend(address([203, 0, 113, 50]));
        bytes.extend(address([172, 31, 0, 11]));
        bytes.extend(49508_u16.to_ne_bytes());
        bytes.extend(30080_u16.to_ne_bytes());
        bytes.extend([4, 6, 0, 0]);
        bytes.extend(0xdead_beef_u32.to_ne_bytes());
        bytes.extend(address([10, 244, 2, 5]));
        bytes.extend(address([172, 31, 0, 11]));
        bytes.extend(8080_u16.to_ne_bytes());
        bytes.extend(50513_u16.to_ne_bytes());
        bytes.extend([1, 1, 63, 0]);
        bytes.extend(7_u32.to_ne_bytes());
        bytes.extend(2_000_u64.to_ne_bytes());
        bytes.extend(1_000_u64.to_ne_bytes());
        bytes.extend(2_u32.to_ne_bytes());
        bytes.extend([64, 0, 0, 0]);
        bytes.extend([0; 16]);
        bytes
    }

    #[test]
    fn a_forward_decodes_field_by_field() {
        let expected = Passage {
            kind: Kind::Forward,
            identity: Identity {
                protocol: Protocol::Tcp,
                zone: 0,
                original: Tuple {
                    source: "203.0.113.50:49508".parse().unwrap(),
                    destination: "172.31.0.11:30080".parse().unwrap(),
                },
                sequence: 0xdead_beef,
            },
            reply: Tuple {
                source: "10.244.2.5:8080".parse().unwrap(),
                destination: "172.31.0.11:50513".parse().unwrap(),
            },
            conntrack: Conntrack::Entry,
            arrival: Some(Arrival {
                at: Moment(1_000),
                interface: IfIndex(2),
                ttl: Ttl(64),
            }),
            departure: Departure {
                at: Moment(2_000),
                interface: IfIndex(7),
                ttl: Ttl(63),
            },
            opening: None,
        };
        assert_eq!(
            Observation::decode(&bytes()),
            Ok(Observation::Passage(expected))
        );
    }

    #[test]
    fn the_key_of_an_opening_is_that_of_its_connection_in_any_zone() {
        for (source, destination) in [
            ("203.0.113.50:49508", "172.31.0.11:30080"),
            ("[2001:db8::1]:49508", "[2001:db8::2]:30080"),
        ] {
            let connection = Identity {
                protocol: Protocol::Sctp,
                zone: 7,
                original: Tuple {
                    source: source.parse().unwrap(),
                    destination: destination.parse().unwrap(),
                },
                sequence: 0xdead_beef,
            };
            let key = connection.opening_key();
            assert_eq!(key.role, wire::ROLE_OPENING);
            assert_eq!(identity(&key.identity), Ok(connection.on_arrival()));
        }
    }

    #[test]
    fn a_value_no_program_writes_is_an_error_that_names_the_field() {
        let mut unknown_kind = bytes();
        unknown_kind[80] = 9;
        let error = Observation::decode(&unknown_kind).unwrap_err();
        assert_eq!(error.to_string(), "an observation whose field kind is 9");
        let error = Observation::decode(&bytes()[1..]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "an observation of 127 bytes, where the programs write 128"
        );
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Observation::decode(&bytes);
        }

        #[test]
        fn no_bytes_of_a_segment_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Segment::decode(&bytes);
        }

        #[test]
        fn no_bytes_of_the_right_size_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 128)) {
            let _ = Observation::decode(&bytes);
        }
    }
}
