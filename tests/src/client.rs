//! The client: opens one connection and tells both ends' view of it, or how it failed.

use std::{
    io::{self, Read as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    os::fd::{AsFd as _, AsRawFd as _},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{
        AddressFamily, SockFlag, SockaddrStorage, bind, connect as start_connecting, getsockopt,
        socket, sockopt::SocketError,
    },
};

use crate::{backend::Line, netns::Namespace, protocol::Protocol};

/// No answer is longer; a client reads no more.
const ANSWER_BYTES_MAX: usize = 4096;
/// What a datagram asks a backend.
const QUESTION: &[u8] = b"who am I?";

/// A connection that a pod answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The client's own end.
    pub local: SocketAddr,
    /// The client's end as the pod's own socket saw it.
    pub peer_seen: SocketAddr,
    /// The pod's end, in the pod.
    pub backend: SocketAddr,
    /// The pod that answered.
    pub pod: String,
}

/// A connection that no pod answered.
#[derive(Debug, thiserror::Error)]
#[error("{failure}")]
pub struct ConnectError {
    /// The client's own end, if it got that far.
    pub local: Option<SocketAddr>,
    /// What went wrong.
    pub failure: Failure,
}

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// `ECONNREFUSED`: a RST, or an ICMP error that says so.
    #[error("connection refused")]
    Refused,
    /// Nobody answered in time.
    #[error("timed out")]
    TimedOut,
    /// Somebody accepted, and said nothing in time.
    #[error("accepted, and then nothing came")]
    Silent,
    /// `ECONNRESET`: the connection was ended from outside.
    #[error("connection reset")]
    Reset,
    /// The network says that there is no way there.
    #[error("unreachable: {0}")]
    Unreachable(io::Error),
    /// Any other error of the socket.
    #[error("failed: {0}")]
    Other(io::Error),
    /// What answered is no backend of the lab.
    #[error("the answer {line:?} is not a backend's: {source}")]
    NotABackend {
        /// What came.
        line: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The connection could not even be tried.
    #[error("{0:#}")]
    Lab(anyhow::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Self::TimedOut,
            io::ErrorKind::ConnectionReset => Self::Reset,
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
                Self::Unreachable(error)
            }
            _ => Self::Other(error),
        }
    }
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        io::Error::from(errno).into()
    }
}

/// Opens a TCP connection from inside a namespace, reads the backend's line, and closes.
/// `timeout` is for all of it.
pub fn connect(
    from: &Namespace,
    to: SocketAddr,
    timeout: Duration,
) -> Result<Answer, ConnectError> {
    connect_by(Protocol::Tcp, from, to, timeout)
}

/// The same by any protocol. One datagram is all that a UDP client sends.
pub fn connect_by(
    protocol: Protocol,
    from: &Namespace,
    to: SocketAddr,
    timeout: Duration,
) -> Result<Answer, ConnectError> {
    let tried = from.run(|| connect_from_here(protocol, None, to, timeout));
    tried.unwrap_or_else(|error| Err(ConnectError::of_lab(error)))
}

/// The same from the namespace the calling thread is in, and from `source` if it is given.
pub fn connect_from_here(
    protocol: Protocol,
    source: Option<IpAddr>,
    to: SocketAddr,
    timeout: Duration,
) -> Result<Answer, ConnectError> {
    if protocol == Protocol::Udp {
        return Udp::open_here(source, to)?.exchange(timeout);
    }
    let deadline = Instant::now() + timeout;
    let source = match protocol {
        Protocol::Sctp => source.or_else(|| usual_source(to)),
        Protocol::Tcp | Protocol::Udp => source,
    };
    let stream = open(protocol, source, to).map_err(ConnectError::at_once)?;
    let started = start_connecting(stream.as_raw_fd(), &SockaddrStorage::from(to));
    // Known from here on, so that also a connection that fails can be found again by its port.
    let local = stream.local_addr().ok();
    let answered = match started {
        Ok(()) | Err(Errno::EINPROGRESS) => finish(stream, deadline),
        Err(errno) => Err(errno.into()),
    };
    Answer::of(local, answered)
}

/// A UDP socket that talks to one front door: what it sends is one flow, for as long as it lives.
#[derive(Debug)]
pub struct Udp {
    socket: UdpSocket,
    local: SocketAddr,
}

impl Udp {
    /// Opens one inside a namespace; it may be used from anywhere. Nothing is sent yet.
    pub fn open(from: &Namespace, to: SocketAddr) -> Result<Self, ConnectError> {
        let opened = from.run(|| Self::open_here(None, to));
        opened.unwrap_or_else(|error| Err(ConnectError::of_lab(error)))
    }

    fn open_here(source: Option<IpAddr>, to: SocketAddr) -> Result<Self, ConnectError> {
        let open = || -> io::Result<Self> {
            let socket = UdpSocket::bind((source.unwrap_or(any_like(to)), 0))?;
            // Only a connected socket is told of ICMP errors.
            socket.connect(to)?;
            let local = socket.local_addr()?;
            Ok(Self { socket, local })
        };
        open().map_err(|error| ConnectError::at_once(error.into()))
    }

    /// Sends one datagram and waits for the backend's line.
    pub fn exchange(&self, timeout: Duration) -> Result<Answer, ConnectError> {
        let exchange = || -> Result<Line, Failure> {
            self.socket.set_read_timeout(Some(timeout))?;
            self.socket.send(QUESTION)?;
            let mut line = vec![0; ANSWER_BYTES_MAX];
            let length = loop {
                match self.socket.recv(&mut line) {
                    // A signal meant for another.
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    received => break received?,
                }
            };
            line.truncate(length);
            parse(String::from_utf8_lossy(&line).into_owned())
        };
        Answer::of(Some(self.local), exchange())
    }

    /// The client's own end.
    pub fn local(&self) -> SocketAddr {
        self.local
    }
}

impl Answer {
    /// From the client's own end and what came of it.
    fn of(
        local: Option<SocketAddr>,
        answered: Result<Line, Failure>,
    ) -> Result<Self, ConnectError> {
        match (local, answered) {
            (
                Some(local),
                Ok(Line {
                    pod,
                    peer,
                    local: backend,
                }),
            ) => Ok(Self {
                local,
                peer_seen: peer,
                backend,
                pod,
            }),
            (None, Ok(_)) => Err(ConnectError {
                local,
                failure: Failure::Other(io::ErrorKind::AddrNotAvailable.into()),
            }),
            (_, Err(failure)) => Err(ConnectError { local, failure }),
        }
    }
}

impl ConnectError {
    /// It failed before there was a socket with a port.
    fn at_once(failure: Failure) -> Self {
        Self {
            local: None,
            failure,
        }
    }

    fn of_lab(error: anyhow::Error) -> Self {
        Self::at_once(Failure::Lab(error))
    }
}

/// Every address of the family of `like`.
fn any_like(like: SocketAddr) -> IpAddr {
    match like {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// The address that this host's packets to a place have, for an SCTP socket to be bound to. One that
/// is bound to none tells its peer all addresses of its host (RFC 9260, 5.1.2), which no NAT
/// rewrites: the peer probes the others at a port of the NAT's, where the host knows of no
/// association, and its ABORT (RFC 9260, 8.4) ends the one that there is.
fn usual_source(to: SocketAddr) -> Option<IpAddr> {
    let probe = || -> io::Result<IpAddr> {
        let socket = UdpSocket::bind((any_like(to), 0))?;
        // Sends nothing.
        socket.connect(to)?;
        Ok(socket.local_addr()?.ip())
    };
    // Where there is no way, the connection itself will say so.
    probe().ok()
}

/// A socket of a protocol with connections that has its port already.
fn open(protocol: Protocol, source: Option<IpAddr>, to: SocketAddr) -> Result<TcpStream, Failure> {
    let family = match to {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let (kind, protocol) = protocol.of_socket();
    let local: SocketAddr = (source.unwrap_or(any_like(to)), 0).into();
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket(family, kind, flags, protocol)?;
    bind(socket.as_raw_fd(), &SockaddrStorage::from(local))?;
    Ok(socket.into())
}

/// Waits for the connection, and then for the line.
fn finish(mut stream: TcpStream, deadline: Instant) -> Result<Line, Failure> {
    wait_until_writable(&stream, deadline)?;
    match getsockopt(&stream, SocketError)? {
        0 => {}
        errno => return Err(Errno::from_raw(errno).into()),
    }
    stream.set_nonblocking(false)?;
    // Zero would mean to wait for ever.
    let left = deadline
        .saturating_duration_since(Instant::now())
        .max(Duration::from_millis(1));
    stream.set_read_timeout(Some(left))?;
    let mut line = String::new();
    let read = stream
        .by_ref()
        .take(ANSWER_BYTES_MAX as u64)
        .read_to_string(&mut line);
    match read.map_err(Failure::from) {
        Ok(_) => parse(line),
        Err(Failure::TimedOut) => Err(Failure::Silent),
        Err(other) => Err(other),
    }
}

fn parse(line: String) -> Result<Line, Failure> {
    serde_json::from_str(&line).map_err(|source| Failure::NotABackend { line, source })
}

fn wait_until_writable(stream: &TcpStream, deadline: Instant) -> Result<(), Failure> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(stream.as_fd(), PollFlags::POLLOUT)], left) {
            Ok(0) => return Err(Failure::TimedOut),
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}
