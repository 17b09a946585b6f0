//! Addresses that are on no interface, answered for by one node: what `MetalLB` does in layer 2 mode.
//!
//! From its sources: `internal/layer2/arp.go` answers requests for the address, and, where one comes
//! to a node, broadcasts a gratuitous request and a gratuitous reply; `internal/layer2/ndp.go` does
//! the same by advertisements, the unsolicited ones with the override flag and to all nodes.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::{
        fd::{AsFd as _, AsRawFd as _, OwnedFd},
        unix::net::UnixStream,
    },
    thread::JoinHandle,
};

use anyhow::{Context as _, Result};
use etherparse::{
    ArpHardwareId, ArpOperation, ArpPacket, EtherType, Icmpv6Type, NetSlice, PacketBuilder,
    SlicedPacket, TransportSlice, icmpv6::NeighborAdvertisementHeader,
};
use nix::{
    errno::Errno,
    ifaddrs::getifaddrs,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{
        AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind, recv, send,
        socket,
    },
};

use crate::netns::Namespace;

type Mac = [u8; 6];

const BROADCAST: Mac = [0xff; 6];
/// Every node of the link (RFC 4291, 2.7.1), and its link address (RFC 2464, 7).
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: Mac = [0x33, 0x33, 0, 0, 0, 1];
/// Whatever came further would not be believed (RFC 4861, 7.1).
const HOP_LIMIT: u8 = 255;
/// The option of the target's link address (RFC 4861, 4.6.1), and its length in units of eight.
const TARGET_LINK_ADDRESS: [u8; 2] = [2, 1];
const NEIGHBOUR_SOLICITATION: u8 = 135;
const FRAME_MAX: usize = 2_048;

/// A node that answers for addresses, until it is dropped.
#[derive(Debug)]
pub struct Announced {
    /// Closing it ends the thread.
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

struct Speaker {
    socket: OwnedFd,
    mac: Mac,
    addresses: Vec<IpAddr>,
}

impl Announced {
    /// Answers from now on, and tells everybody on the link of `interface` so.
    pub fn at(namespace: &Namespace, interface: &str, addresses: &[IpAddr]) -> Result<Self> {
        let (stop, stopped) = UnixStream::pair().context("failed to make a pipe")?;
        let (interface, addresses) = (interface.to_owned(), addresses.to_vec());
        let thread = namespace.spawn(move || {
            let speaker = Speaker::on(&interface, addresses)?;
            speaker.tell()?;
            Ok(move || speaker.answer_until(&stopped))
        })?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        drop(self.stop.take());
        let _its_panic_was_told = self.thread.take().map(JoinHandle::join);
    }
}

impl Speaker {
    /// In the namespace that the calling thread is in.
    fn on(interface: &str, addresses: Vec<IpAddr>) -> Result<Self> {
        let link = link_of(interface)?;
        let mac = link.addr().context("no link address")?;
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let (family, all) = (AddressFamily::Packet, SockProtocol::EthAll);
        let socket = socket(family, SockType::Raw, flags, all)?;
        bind(socket.as_raw_fd(), &link)?;
        Ok(Self {
            socket,
            mac,
            addresses,
        })
    }

    /// Tells everybody where the addresses are now.
    fn tell(&self) -> Result<()> {
        for address in &self.addresses {
            match address {
                IpAddr::V4(address) => {
                    for operation in [ArpOperation::REQUEST, ArpOperation::REPLY] {
                        self.arp(operation, *address, (BROADCAST, *address))?;
                    }
                }
                IpAddr::V6(address) => {
                    self.advertise(*address, (ALL_NODES_MAC, ALL_NODES), false)?;
                }
            }
        }
        Ok(())
    }

    fn answer_until(&self, stopped: &UnixStream) {
        let mut frame = [0; FRAME_MAX];
        loop {
            let watched = |of| PollFd::new(of, PollFlags::POLLIN);
            let mut watched = [watched(self.socket.as_fd()), watched(stopped.as_fd())];
            match poll(&mut watched, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(_) => return,
            }
            if watched[1].any() == Some(true) {
                return;
            }
            while let Ok(length) = recv(self.socket.as_raw_fd(), &mut frame, MsgFlags::empty()) {
                // Who is not answered asks again.
                let _unanswered = self.answer(&frame[..length]);
            }
        }
    }

    /// Answers whoever asks for one of the addresses.
    fn answer(&self, frame: &[u8]) -> Option<()> {
        let packet = SlicedPacket::from_ethernet(frame).ok()?;
        let asker: Mac = frame.get(6..12)?.try_into().ok()?;
        match packet.net? {
            NetSlice::Arp(arp) if arp.operation() == ArpOperation::REQUEST => {
                let [target, sender] = [arp.target_protocol_addr(), arp.sender_protocol_addr()]
                    .map(|address| <[u8; 4]>::try_from(address).ok().map(Ipv4Addr::from));
                let target = target.filter(|target| self.has(IpAddr::V4(*target)))?;
                self.arp(ArpOperation::REPLY, target, (asker, sender?)).ok()
            }
            NetSlice::Ipv6(ip) => {
                let Some(TransportSlice::Icmpv6(icmp)) = packet.transport else {
                    return None;
                };
                if icmp.type_u8() != NEIGHBOUR_SOLICITATION {
                    return None;
                }
                let target = icmp.payload().first_chunk::<16>()?;
                let target = Ipv6Addr::from(*target);
                let sender = ip.header().source_addr();
                self.has(IpAddr::V6(target))
                    .then(|| self.advertise(target, (asker, sender), true).ok())?
            }
            _ => None,
        }
    }

    fn has(&self, address: IpAddr) -> bool {
        self.addresses.contains(&address)
    }

    fn arp(&self, operation: ArpOperation, of: Ipv4Addr, to: (Mac, Ipv4Addr)) -> Result<()> {
        let (hardware, protocol) = (ArpHardwareId::ETHERNET, EtherType::IPV4);
        let packet = ArpPacket::new(
            hardware,
            protocol,
            operation,
            &self.mac,
            &of.octets(),
            &to.0,
            &to.1.octets(),
        )?;
        let builder = PacketBuilder::ethernet2(self.mac, to.0).arp(packet);
        let mut frame = Vec::new();
        builder.write(&mut frame)?;
        self.send(&frame)
    }

    fn advertise(&self, of: Ipv6Addr, to: (Mac, Ipv6Addr), solicited: bool) -> Result<()> {
        let header = NeighborAdvertisementHeader {
            router: false,
            solicited,
            r#override: !solicited,
        };
        let builder = PacketBuilder::ethernet2(self.mac, to.0)
            .ipv6(of.octets(), to.1.octets(), HOP_LIMIT)
            .icmpv6(Icmpv6Type::NeighborAdvertisement(header));
        let payload = [&of.octets()[..], &TARGET_LINK_ADDRESS, &self.mac].concat();
        let mut frame = Vec::new();
        builder.write(&mut frame, &payload)?;
        self.send(&frame)
    }

    fn send(&self, frame: &[u8]) -> Result<()> {
        send(self.socket.as_raw_fd(), frame, MsgFlags::empty())
            .map(drop)
            .map_err(io::Error::from)
            .context("failed to tell where an address is")
    }
}

fn link_of(interface: &str) -> Result<LinkAddr> {
    let all = getifaddrs().context("failed to ask for the addresses of interfaces")?;
    let of_it = all.filter(|entry| entry.interface_name == interface);
    let mut links = of_it.filter_map(|entry| entry.address?.as_link_addr().copied());
    links
        .next()
        .with_context(|| format!("there is no {interface}"))
}
