//! A backend's UDP socket.

use std::{
    io::{self, IoSlice, IoSliceMut},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
};

use nix::{
    cmsg_space, libc,
    sys::socket::{
        ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg,
        setsockopt,
        sockopt::{Ipv4PacketInfo, Ipv6RecvPacketInfo},
    },
};

use super::Line;

/// A bound socket that learns which of the host's addresses each datagram was for, so that the
/// answer comes from there: where a host has several, routing may choose another.
pub(super) struct Datagrams {
    socket: OwnedFd,
    port: u16,
}

impl Datagrams {
    pub(super) fn of(socket: OwnedFd, at: SocketAddr) -> io::Result<Self> {
        match at {
            SocketAddr::V4(_) => setsockopt(&socket, Ipv4PacketInfo, &true)?,
            SocketAddr::V6(_) => setsockopt(&socket, Ipv6RecvPacketInfo, &true)?,
        }
        Ok(Self {
            socket,
            port: at.port(),
        })
    }

    /// Answers one datagram.
    pub(super) fn answer(&self, pod: &str) -> io::Result<()> {
        let (peer, address) = self.receive()?;
        let line = Line::written(pod, peer, (address, self.port).into())?;
        let line = [IoSlice::new(line.as_bytes())];
        let send = |from: ControlMessage<'_>| {
            let to = SockaddrStorage::from(peer);
            let fd = self.socket.as_raw_fd();
            sendmsg(fd, &line, &[from], MsgFlags::empty(), Some(&to)).map(drop)
        };
        match address {
            IpAddr::V4(address) => send(ControlMessage::Ipv4PacketInfo(&libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr {
                    s_addr: u32::from_ne_bytes(address.octets()),
                },
                ipi_addr: libc::in_addr { s_addr: 0 },
            }))?,
            IpAddr::V6(address) => send(ControlMessage::Ipv6PacketInfo(&libc::in6_pktinfo {
                ipi6_addr: libc::in6_addr {
                    s6_addr: address.octets(),
                },
                ipi6_ifindex: 0,
            }))?,
        }
        Ok(())
    }

    /// Takes a datagram; gives who sent it and the address it was for.
    fn receive(&self) -> io::Result<(SocketAddr, IpAddr)> {
        let mut data = [0; 64];
        let mut data = [IoSliceMut::new(&mut data)];
        let mut control = cmsg_space!(libc::in_pktinfo, libc::in6_pktinfo);
        let received = recvmsg::<SockaddrStorage>(
            self.socket.as_raw_fd(),
            &mut data,
            Some(&mut control),
            MsgFlags::empty(),
        )?;
        let peer = received.address.as_ref().and_then(socket_address);
        let destination = received.cmsgs()?.find_map(|message| match message {
            ControlMessageOwned::Ipv4PacketInfo(info) => {
                Some(Ipv4Addr::from(info.ipi_addr.s_addr.to_ne_bytes()).into())
            }
            ControlMessageOwned::Ipv6PacketInfo(info) => {
                Some(Ipv6Addr::from(info.ipi6_addr.s6_addr).into())
            }
            _ => None,
        });
        peer.zip(destination)
            .ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

impl AsFd for Datagrams {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn socket_address(storage: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = storage
        .as_sockaddr_in()
        .map(|v4| (v4.ip(), v4.port()).into());
    v4.or_else(|| {
        storage
            .as_sockaddr_in6()
            .map(|v6| (v6.ip(), v6.port()).into())
    })
}
