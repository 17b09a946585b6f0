//! Opening packets from clients that are nobody: as many as a node can be made to take.
//!
//! They come out of a device of the node's own, whose other end is this process, so that each one
//! that was sent has been at the node's hooks: none is lost on its way.

use std::{
    fmt, io,
    net::{Ipv4Addr, SocketAddrV4},
    time::Instant,
};

use anyhow::{Context as _, Result};
use etherparse::PacketBuilder;
use tun_rs::{DeviceBuilder, Layer, SyncDevice};

use crate::netns::Namespace;

/// The first of the clients' addresses (RFC 2544).
const FIRST_CLIENT: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
/// How many clients there are.
const CLIENTS: u32 = 64;
/// The first of their ports.
const FIRST_PORT: u32 = 1_024;
/// So many of them, then from the beginning: conntrack has an entry for each, and a table that ends.
const PORTS: u32 = 512;
/// An odd number, so that no two of 2^32 packets have one sequence number.
const SEQUENCE_STEP: u32 = 0x9e37_79b1;
/// Without options.
const LENGTH: usize = 40;
/// Where a packet has its sequence number, and the checksum over it (RFC 9293, 3.1).
const SEQUENCE: usize = 20 + 4;
const CHECKSUM: usize = 20 + 16;
const FLAGS: usize = 20 + 13;
const SYN: u8 = 2;
const ACK: u8 = 16;
/// How often the clock is asked.
const BATCH: u32 = 64;

/// The device's name.
pub const DEVICE: &str = "inject0";

type Packet = [u8; LENGTH];

/// A way into a node, and to one of its front doors.
pub struct Flood {
    device: SyncDevice,
    packets: Vec<Packet>,
    sent: u32,
}

impl Flood {
    /// Makes the device in the namespace of a node; it is gone when this is dropped.
    pub fn through(node: &Namespace, door: SocketAddrV4) -> Result<Self> {
        let device = || {
            DeviceBuilder::new()
                .name(DEVICE)
                .layer(Layer::L3)
                .build_sync()
        };
        let device = node.run(device)?.context("failed to make a tun device")?;
        node.ip(&format!(
            "link set {DEVICE} up\nroute add 198.18.0.0/16 dev {DEVICE}\n"
        ))?;
        Ok(Self {
            device,
            packets: (0..CLIENTS * PORTS)
                .map(|number| template(number, door))
                .collect(),
            sent: 0,
        })
    }

    /// How many were sent.
    pub const fn sent(&self) -> u64 {
        self.sent as u64
    }

    /// Sends so many packets.
    pub fn send(&mut self, packets: u32) -> Result<()> {
        for _ in 0..packets {
            let template = self.packets[self.sent as usize % self.packets.len()];
            let packet = number(template, self.sent.wrapping_mul(SEQUENCE_STEP));
            self.put(&packet)?;
            self.sent += 1;
        }
        Ok(())
    }

    /// Sends as many that open nothing: acknowledgements of what never was.
    pub fn acknowledge(&mut self, packets: u32) -> Result<()> {
        for packet in self.packets.iter().cycle().take(packets as usize) {
            let mut packet = *packet;
            packet[FLAGS] = ACK;
            let checksum = u16::from_be_bytes([packet[CHECKSUM], packet[CHECKSUM + 1]]);
            let checksum = adjusted(checksum, u16::from(SYN), u16::from(ACK));
            packet[CHECKSUM..CHECKSUM + 2].copy_from_slice(&checksum.to_be_bytes());
            self.put(&packet)?;
        }
        Ok(())
    }

    fn put(&self, packet: &Packet) -> Result<()> {
        while let Err(error) = self.device.send(packet) {
            if error.kind() != io::ErrorKind::WouldBlock {
                return Err(error).context("failed to send a packet");
            }
        }
        Ok(())
    }

    /// Sends as many as there may be until then.
    pub fn pour(&mut self, until: Instant) -> Result<()> {
        while Instant::now() < until {
            self.send(BATCH)?;
        }
        Ok(())
    }

    /// Whether an address is one of the clients'.
    pub fn is_client(address: Ipv4Addr) -> bool {
        address.to_bits().wrapping_sub(FIRST_CLIENT.to_bits()) < CLIENTS
    }
}

impl fmt::Debug for Flood {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sent, .. } = self;
        f.debug_struct("Flood")
            .field("sent", sent)
            .finish_non_exhaustive()
    }
}

/// The packet of a number, but for its sequence number, which is zero: what is written anew for each
/// should cost little beside what the node does with it.
fn template(number: u32, door: SocketAddrV4) -> Packet {
    let client = Ipv4Addr::from_bits(FIRST_CLIENT.to_bits() + number % CLIENTS);
    let port = FIRST_PORT + number / CLIENTS;
    let port = u16::try_from(port).expect("below 2^16");
    let mut packet = [0; LENGTH];
    PacketBuilder::ipv4(client.octets(), door.ip().octets(), 64)
        .tcp(port, door.port(), 0, 64_240)
        .syn()
        .write(&mut packet.as_mut_slice(), &[])
        .expect("it has this length");
    packet
}

/// A checksum over something in which one word became another (RFC 1624, 3).
fn adjusted(checksum: u16, from: u16, to: u16) -> u16 {
    let sum = u32::from(!checksum) + u32::from(!from) + u32::from(to);
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    !u16::try_from(folded).expect("folded")
}

/// Gives a packet whose sequence number is zero another.
fn number(mut packet: Packet, sequence: u32) -> Packet {
    packet[SEQUENCE..SEQUENCE + 4].copy_from_slice(&sequence.to_be_bytes());
    let checksum = u16::from_be_bytes([packet[CHECKSUM], packet[CHECKSUM + 1]]);
    let [high, low] = [sequence >> 16, sequence & 0xffff];
    let half = |half| u16::try_from(half).expect("sixteen bits");
    let checksum = adjusted(adjusted(checksum, 0, half(high)), 0, half(low));
    packet[CHECKSUM..CHECKSUM + 2].copy_from_slice(&checksum.to_be_bytes());
    packet
}

/// The number behind these words in what an observer said beside; 0 if it did not say them.
pub fn counted(stderr: &str, reason: &str) -> u64 {
    let Some((_, rest)) = stderr.rsplit_once(&format!("{reason}: ")) else {
        return 0;
    };
    let end = rest.find(|c: char| !c.is_ascii_digit());
    rest[..end.unwrap_or(rest.len())].parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_leaves_the_checksum_right() {
        let door = SocketAddrV4::new(Ipv4Addr::new(172, 31, 0, 11), 30_081);
        for sequence in [0, 1, 0xffff, 0x1_0000, 0xdead_beef, u32::MAX] {
            let mut whole = Vec::new();
            PacketBuilder::ipv4(FIRST_CLIENT.octets(), door.ip().octets(), 64)
                .tcp(1_024, door.port(), sequence, 64_240)
                .syn()
                .write(&mut whole, &[])
                .expect("a Vec takes it");
            assert_eq!(number(template(0, door), sequence).as_slice(), whole);
        }
    }
}
