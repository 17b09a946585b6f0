//! Packets of each class that the observer's programs tell apart, made for `BPF_PROG_TEST_RUN`.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::Result;
use etherparse::{PacketBuilder, PacketBuilderStep};

use super::cluster::{ECHO, GATE};

const MAC: [[u8; 6]; 2] = [[2; 6], [4; 6]];
const CLIENT: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 50);
const CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x113, 0, 0, 0, 0, 0x50);
const DOOR_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x172, 0x31, 0, 0, 0, 0, 0x11);
const CLIENT_PORT: u16 = 49_508;
/// Nobody's.
const ANOTHER_PORT: u16 = 9;
const HOPS: u8 = 61;
/// The type of LLDP.
const NO_IP: [u8; 2] = [0x88, 0xcc];
/// A segment of a bulk transfer.
const DATA: usize = 1_400;

/// A class of packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// A segment of a connection, with data.
    Established,
    /// The same in IPv6.
    EstablishedV6,
    /// With FIN.
    Closing,
    /// No IP at all.
    NoIp,
    /// A datagram of a port that nobody asks about.
    AnotherPort,
    /// A datagram of a flow whose first one was looked at.
    KnownFlow,
    /// A SYN. Each is another.
    Opening,
    /// The same in IPv6.
    OpeningV6,
    /// The first datagram of a flow. Each is another.
    FirstDatagram,
}

impl Class {
    /// Those of which one is as good as the next.
    pub const SAME: [Self; 6] = [
        Self::Established,
        Self::EstablishedV6,
        Self::Closing,
        Self::NoIp,
        Self::AnotherPort,
        Self::KnownFlow,
    ];
    /// Those that must differ, so that each is the first of its kind.
    pub const DIFFERENT: [Self; 3] = [Self::Opening, Self::OpeningV6, Self::FirstDatagram];

    /// As tables and files have it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Established => "established",
            Self::EstablishedV6 => "established-v6",
            Self::Closing => "closing",
            Self::NoIp => "no-ip",
            Self::AnotherPort => "udp-another-port",
            Self::KnownFlow => "udp-later",
            Self::Opening => "opening",
            Self::OpeningV6 => "opening-v6",
            Self::FirstDatagram => "udp-first",
        }
    }

    /// The packet of this number, as it comes from a client.
    pub fn packet(self, number: u32) -> Result<Vec<u8>> {
        let ethernet = || PacketBuilder::ethernet2(MAC[0], MAC[1]);
        let v4 = || ethernet().ipv4(CLIENT.octets(), GATE.address().ip().octets(), HOPS);
        let v6 = || ethernet().ipv6(CLIENT_V6.octets(), DOOR_V6.octets(), HOPS);
        let tcp = |ip: PacketBuilderStep<etherparse::IpHeaders>, sequence| {
            ip.tcp(CLIENT_PORT, GATE.node_port, sequence, 64_240)
        };
        let mut packet = Vec::new();
        match self {
            Self::Established => tcp(v4(), 1).ack(2).write(&mut packet, &[0; DATA])?,
            Self::EstablishedV6 => tcp(v6(), 1).ack(2).write(&mut packet, &[0; DATA])?,
            Self::Closing => tcp(v4(), 1).ack(2).fin().write(&mut packet, &[])?,
            Self::NoIp => {
                tcp(v4(), 1).ack(2).write(&mut packet, &[])?;
                packet[12..14].copy_from_slice(&NO_IP);
            }
            Self::AnotherPort => v4()
                .udp(CLIENT_PORT, ANOTHER_PORT)
                .write(&mut packet, &[0; 40])?,
            Self::KnownFlow => v4()
                .udp(CLIENT_PORT, ECHO.node_port)
                .write(&mut packet, &[0; 40])?,
            Self::Opening => tcp(v4(), number).syn().write(&mut packet, &[])?,
            Self::OpeningV6 => tcp(v6(), number).syn().write(&mut packet, &[])?,
            Self::FirstDatagram => {
                let [high, low, ..] = number.to_le_bytes();
                // Another client for each 256 ports.
                let client = Ipv4Addr::new(198, 18, high, low);
                ethernet()
                    .ipv4(client.octets(), ECHO.address().ip().octets(), HOPS)
                    .udp(CLIENT_PORT, ECHO.node_port)
                    .write(&mut packet, &[0; 40])?;
            }
        }
        Ok(packet)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn what_must_differ_differs_and_what_must_not_does_not() {
        let packets = |class: Class| -> BTreeSet<Vec<u8>> {
            (0..1_000)
                .map(|number| class.packet(number).expect("made"))
                .collect()
        };
        for class in Class::DIFFERENT {
            assert_eq!(packets(class).len(), 1_000, "{}", class.name());
        }
        for class in Class::SAME {
            assert_eq!(packets(class).len(), 1, "{}", class.name());
        }
    }
}
