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
/// How often the clock is asked.
const BATCH: u32 = 64;

/// A way into a node.
pub struct Flood {
    device: SyncDevice,
    sent: u32,
}

impl Flood {
    /// Makes the device in the namespace of a node; it is gone when this is dropped.
    pub fn into(node: &Namespace) -> Result<Self> {
        let device = || {
            DeviceBuilder::new()
                .name("inject0")
                .layer(Layer::L3)
                .build_sync()
        };
        let device = node.run(device)?.context("failed to make a tun device")?;
        node.ip("link set inject0 up\nroute add 198.18.0.0/16 dev inject0\n")?;
        Ok(Self { device, sent: 0 })
    }

    /// How many were sent.
    pub const fn sent(&self) -> u64 {
        self.sent as u64
    }

    /// Sends so many packets to a front door.
    pub fn send(&mut self, door: SocketAddrV4, packets: u32) -> Result<()> {
        for _ in 0..packets {
            let packet = syn(self.sent, door);
            while let Err(error) = self.device.send(&packet) {
                if error.kind() != io::ErrorKind::WouldBlock {
                    return Err(error).context("failed to send a packet");
                }
            }
            self.sent += 1;
        }
        Ok(())
    }

    /// Sends as many as there may be until then.
    pub fn pour(&mut self, door: SocketAddrV4, until: Instant) -> Result<()> {
        while Instant::now() < until {
            self.send(door, BATCH)?;
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
        let Self { device: _, sent } = self;
        f.debug_struct("Flood")
            .field("sent", sent)
            .finish_non_exhaustive()
    }
}

/// One of these packets.
fn syn(number: u32, door: SocketAddrV4) -> Vec<u8> {
    let client = Ipv4Addr::from_bits(FIRST_CLIENT.to_bits() + number % CLIENTS);
    let port = FIRST_PORT + number / CLIENTS % PORTS;
    let port = u16::try_from(port).expect("below 2^16");
    let mut packet = Vec::with_capacity(40);
    PacketBuilder::ipv4(client.octets(), door.ip().octets(), 64)
        .tcp(
            port,
            door.port(),
            number.wrapping_mul(SEQUENCE_STEP),
            64_240,
        )
        .syn()
        .write(&mut packet, &[])
        .expect("a Vec takes it");
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
