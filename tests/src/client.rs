//! The client: opens one connection and tells both ends' view of it, or how it failed.

use std::{
    io::{self, Read as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    os::fd::{AsFd as _, AsRawFd as _},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{
        AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect as start_connecting,
        getsockopt, socket, sockopt::SocketError,
    },
};

use crate::{backend::Line, netns::Namespace};

/// No answer is longer; a client reads no more.
const ANSWER_BYTES_MAX: u64 = 4096;

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

/// Opens a connection from inside a namespace, reads the backend's line, and closes. `timeout`
/// is for all of it.
pub fn connect(
    from: &Namespace,
    to: SocketAddr,
    timeout: Duration,
) -> Result<Answer, ConnectError> {
    let tried = from.run(|| connect_from_here(None, to, timeout));
    tried.unwrap_or_else(|error| {
        Err(ConnectError {
            local: None,
            failure: Failure::Lab(error),
        })
    })
}

/// The same from the namespace the calling thread is in, and from `source` if it is given.
pub fn connect_from_here(
    source: Option<IpAddr>,
    to: SocketAddr,
    timeout: Duration,
) -> Result<Answer, ConnectError> {
    let deadline = Instant::now() + timeout;
    let stream = open(source, to).map_err(|failure| ConnectError {
        local: None,
        failure,
    })?;
    let started = start_connecting(stream.as_raw_fd(), &SockaddrStorage::from(to));
    // Known from here on, so that also a connection that fails can be found again by its port.
    let local = stream.local_addr().ok();
    let answered = match started {
        Ok(()) | Err(Errno::EINPROGRESS) => finish(stream, deadline),
        Err(errno) => Err(errno.into()),
    };
    match (local, answered) {
        (
            Some(local),
            Ok(Line {
                pod,
                peer,
                local: backend,
            }),
        ) => Ok(Answer {
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

/// A socket that has its port already.
fn open(source: Option<IpAddr>, to: SocketAddr) -> Result<TcpStream, Failure> {
    let (family, any): (_, IpAddr) = match to {
        SocketAddr::V4(_) => (AddressFamily::Inet, Ipv4Addr::UNSPECIFIED.into()),
        SocketAddr::V6(_) => (AddressFamily::Inet6, Ipv6Addr::UNSPECIFIED.into()),
    };
    let local: SocketAddr = (source.unwrap_or(any), 0).into();
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket(family, SockType::Stream, flags, None)?;
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
    stream
        .by_ref()
        .take(ANSWER_BYTES_MAX)
        .read_to_string(&mut line)?;
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
