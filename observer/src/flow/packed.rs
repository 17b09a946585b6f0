//! Addresses and ports in as few bytes as they need: a hundred thousand connections are kept.
//!
//! What is kept so has lost an IPv6 address's flow label and scope, which no observation has.

use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::cluster::Protocol;
use crate::observation::{Identity, Tuple};

const SOCKET_BYTES: usize = 19;
const TUPLE_BYTES: usize = 2 * SOCKET_BYTES;
const IDENTITY_BYTES: usize = TUPLE_BYTES + 5;

/// A [`Tuple`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PackedTuple([u8; TUPLE_BYTES]);

/// An [`Identity`] as it is on arrival: without its zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PackedIdentity([u8; IDENTITY_BYTES]);

/// An address and a port: the family, the address, the port.
pub(super) fn pack_socket(address: SocketAddr) -> [u8; SOCKET_BYTES] {
    let mut bytes = [0; SOCKET_BYTES];
    let [family, ip @ .., _, _] = &mut bytes;
    match address.ip() {
        IpAddr::V4(address) => {
            *family = 4;
            ip[..4].copy_from_slice(&address.octets());
        }
        IpAddr::V6(address) => {
            *family = 6;
            *ip = address.octets();
        }
    }
    bytes[SOCKET_BYTES - 2..].copy_from_slice(&address.port().to_ne_bytes());
    bytes
}

fn unpack_socket(bytes: &[u8; SOCKET_BYTES]) -> SocketAddr {
    let [family, ip @ .., low, high] = bytes;
    let address = if *family == 4 {
        let [a, b, c, d, ..] = *ip;
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    } else {
        IpAddr::V6(Ipv6Addr::from_octets(*ip))
    };
    SocketAddr::new(address, u16::from_ne_bytes([*low, *high]))
}

impl PackedTuple {
    pub(super) fn of(tuple: Tuple) -> Self {
        let mut bytes = [0; TUPLE_BYTES];
        bytes[..SOCKET_BYTES].copy_from_slice(&pack_socket(tuple.source));
        bytes[SOCKET_BYTES..].copy_from_slice(&pack_socket(tuple.destination));
        Self(bytes)
    }

    pub(super) fn unpack(&self) -> Tuple {
        unpack_tuple(&self.0)
    }
}

fn unpack_tuple(bytes: &[u8; TUPLE_BYTES]) -> Tuple {
    let (sockets, _none) = bytes.as_chunks::<SOCKET_BYTES>();
    let [source, destination] = sockets else {
        unreachable!("a tuple is two sockets");
    };
    Tuple {
        source: unpack_socket(source),
        destination: unpack_socket(destination),
    }
}

impl PackedIdentity {
    pub(super) fn of(identity: &Identity) -> Self {
        let mut bytes = [0; IDENTITY_BYTES];
        let PackedTuple(tuple) = PackedTuple::of(identity.original);
        bytes[..TUPLE_BYTES].copy_from_slice(&tuple);
        bytes[TUPLE_BYTES] = identity.protocol.number();
        bytes[TUPLE_BYTES + 1..].copy_from_slice(&identity.sequence.to_ne_bytes());
        Self(bytes)
    }

    pub(super) fn protocol(&self) -> Protocol {
        match self.0[TUPLE_BYTES] {
            17 => Protocol::Udp,
            132 => Protocol::Sctp,
            _ => Protocol::Tcp,
        }
    }

    pub(super) fn tuple(&self) -> Tuple {
        let [tuple @ .., _, _, _, _, _] = &self.0;
        unpack_tuple(tuple)
    }

    pub(super) fn sequence(&self) -> u32 {
        let [.., a, b, c, d] = self.0;
        u32::from_ne_bytes([a, b, c, d])
    }

    pub(super) fn unpack(&self, zone: u16) -> Identity {
        Identity {
            protocol: self.protocol(),
            zone,
            original: self.tuple(),
            sequence: self.sequence(),
        }
    }
}

impl Hash for PackedIdentity {
    /// In one go, which is most of its worth.
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_packed_comes_out_as_it_was(
            source in any::<(IpAddr, u16)>(),
            destination in any::<(IpAddr, u16)>(),
            zone in any::<u16>(),
            sequence in any::<u32>(),
            protocol in prop::sample::select(vec![Protocol::Tcp, Protocol::Udp, Protocol::Sctp]),
        ) {
            let original = Tuple {
                source: SocketAddr::from(source),
                destination: SocketAddr::from(destination),
            };
            let identity = Identity { protocol, zone, original, sequence };
            prop_assert_eq!(PackedTuple::of(original).unpack(), original);
            let packed = PackedIdentity::of(&identity);
            prop_assert_eq!(packed.unpack(zone), identity);
            prop_assert_eq!(packed, PackedIdentity::of(&identity.on_arrival()));
        }
    }
}
