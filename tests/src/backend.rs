//! The backend in a pod: answers every connection with what its own socket saw.
//!
//! The peer that `accept()` or `recvfrom()` returned is the one fact about a connection that
//! nobody needs to believe: it is the oracle of every test.

use std::{
    collections::BTreeSet,
    io::{self, Write as _},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    os::{
        fd::{AsFd, AsRawFd as _, BorrowedFd},
        unix::net::UnixStream,
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{
        AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt,
        socket,
        sockopt::{Ipv6V6Only, ReuseAddr},
    },
};
use serde::{Deserialize, Serialize};

use crate::{
    netns::Namespace,
    protocol::{Port, Protocol},
};

mod datagram;

use datagram::Datagrams;

/// How long a client may take to receive its line.
const WRITE_TIMEOUT: Duration = Duration::from_secs(1);

/// The line a backend answers with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// The pod that answers.
    pub pod: String,
    /// The peer as `accept()` or `recvfrom()` returned it, never IPv4-mapped.
    pub peer: SocketAddr,
    /// The pod's end of the connection.
    pub local: SocketAddr,
}

/// A backend at work, until it is dropped.
#[derive(Debug)]
pub struct Backend {
    pod: String,
    /// Closing it ends the thread.
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

/// A socket that serves one port in one family.
enum Server {
    /// TCP or SCTP.
    Streams(TcpListener),
    /// UDP.
    Datagrams(Datagrams),
}

impl Backend {
    /// Listens on `ports` of every address in the namespace, in both families, and returns once
    /// connections are accepted. A kernel without sockets for a protocol leaves its ports closed.
    pub fn start(namespace: &Namespace, pod: &str, ports: &BTreeSet<Port>) -> Result<Self> {
        let (stop, stopped) =
            UnixStream::pair().context("failed to make the pipe that stops a backend")?;
        let (name, ports) = (pod.to_owned(), ports.clone());
        let thread = namespace.spawn(move || {
            let servers = serve_ports(&ports)?;
            Ok(move || serve(&name, &servers, &stopped))
        })?;
        Ok(Self {
            pod: pod.to_owned(),
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Backend {
    /// The pod it answers for.
    pub fn pod(&self) -> &str {
        &self.pod
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(Err(panicked)) = self.thread.take().map(JoinHandle::join)
            && !std::thread::panicking()
        {
            std::panic::resume_unwind(panicked);
        }
    }
}

fn serve_ports(ports: &BTreeSet<Port>) -> Result<Vec<Server>> {
    let mut servers = Vec::new();
    for &port in ports
        .iter()
        .filter(|port| port.protocol != Protocol::Sctp || port.protocol.has_sockets())
    {
        // One socket for each family: a dual stack one would see IPv4 peers as IPv6 addresses.
        for any in [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()] {
            let at = SocketAddr::new(any, port.number);
            let server = Server::at(port.protocol, at);
            servers.push(server.with_context(|| {
                let protocol = port.protocol.as_str();
                format!("failed to listen on {at} for {protocol}")
            })?);
        }
    }
    Ok(servers)
}

impl Server {
    fn at(protocol: Protocol, at: SocketAddr) -> Result<Self> {
        let (kind, protocol) = protocol.of_socket();
        let family = match at {
            SocketAddr::V4(_) => AddressFamily::Inet,
            SocketAddr::V6(_) => AddressFamily::Inet6,
        };
        // A connection may be gone between `poll` and `accept`, which must then not wait.
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let socket = socket(family, kind, flags, protocol)?;
        if at.is_ipv6() {
            setsockopt(&socket, Ipv6V6Only, &true)?;
        }
        if kind == SockType::Datagram {
            bind(socket.as_raw_fd(), &SockaddrStorage::from(at))?;
            return Ok(Self::Datagrams(Datagrams::of(socket, at)?));
        }
        // Connections of a backend before this one may still be on their way out.
        setsockopt(&socket, ReuseAddr, &true)?;
        bind(socket.as_raw_fd(), &SockaddrStorage::from(at))?;
        listen(&socket, Backlog::MAXCONN)?;
        Ok(Self::Streams(socket.into()))
    }

    /// Answers whoever came.
    fn answer(&self, pod: &str) {
        // A client may be gone; that is its own affair, and it will say so.
        let _nobody_there_any_more = match self {
            Self::Streams(listener) => listener
                .accept()
                .and_then(|(connection, peer)| answer(pod, connection, peer)),
            Self::Datagrams(datagrams) => datagrams.answer(pod),
        };
    }
}

impl AsFd for Server {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Streams(listener) => listener.as_fd(),
            Self::Datagrams(datagrams) => datagrams.as_fd(),
        }
    }
}

fn serve(pod: &str, servers: &[Server], stopped: &UnixStream) {
    loop {
        let mut watched: Vec<PollFd<'_>> = servers
            .iter()
            .map(|server| PollFd::new(server.as_fd(), PollFlags::POLLIN))
            .collect();
        watched.push(PollFd::new(stopped.as_fd(), PollFlags::POLLIN));
        match poll(&mut watched, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => panic!("the backend of {pod} failed to wait for connections: {errno}"),
        }
        let is_ready = |watched: &PollFd<'_>| watched.any() == Some(true);
        if watched.last().is_some_and(is_ready) {
            return;
        }
        for (server, _) in servers
            .iter()
            .zip(&watched)
            .filter(|(_, watched)| is_ready(watched))
        {
            server.answer(pod);
        }
    }
}

impl Line {
    /// As it goes over the wire.
    fn written(pod: &str, peer: SocketAddr, local: SocketAddr) -> io::Result<String> {
        let line = Self {
            pod: pod.to_owned(),
            peer: canonical(peer),
            local: canonical(local),
        };
        Ok(format!("{}\n", serde_json::to_string(&line)?))
    }
}

fn answer(pod: &str, mut connection: TcpStream, peer: SocketAddr) -> io::Result<()> {
    // Accepted sockets do not inherit the listener's mode on Linux, but it costs nothing to say so.
    connection.set_nonblocking(false)?;
    connection.set_write_timeout(Some(WRITE_TIMEOUT))?;
    let line = Line::written(pod, peer, connection.local_addr()?)?;
    connection.write_all(line.as_bytes())
}

/// The address in its own family.
fn canonical(address: SocketAddr) -> SocketAddr {
    (address.ip().to_canonical(), address.port()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv4_peer_is_never_mapped() {
        let mapped = "[::ffff:203.0.113.50]:49508".parse().expect("an address");
        assert_eq!(canonical(mapped).to_string(), "203.0.113.50:49508");
    }
}
