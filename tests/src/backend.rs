//! The backend in a pod: answers every connection with what its own socket saw.
//!
//! The peer that `accept()` returned is the one fact about a connection that nobody needs to
//! believe: it is the oracle of every test.

use std::{
    collections::BTreeSet,
    io::{self, Write as _},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    os::{fd::AsFd as _, unix::net::UnixStream},
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use serde::{Deserialize, Serialize};

use crate::netns::Namespace;

/// How long a client may take to receive its line.
const WRITE_TIMEOUT: Duration = Duration::from_secs(1);

/// The line a backend answers with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// The pod that answers.
    pub pod: String,
    /// The peer as `accept()` returned it, never IPv4-mapped.
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

impl Backend {
    /// Listens on `ports` of every address in the namespace, in both families, and returns once
    /// connections are accepted.
    pub fn start(namespace: &Namespace, pod: &str, ports: &BTreeSet<u16>) -> Result<Self> {
        let (stop, stopped) =
            UnixStream::pair().context("failed to make the pipe that stops a backend")?;
        let (name, ports) = (pod.to_owned(), ports.clone());
        let thread = namespace.spawn(move || {
            let listeners = listen(&ports)?;
            Ok(move || serve(&name, &listeners, &stopped))
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

fn listen(ports: &BTreeSet<u16>) -> Result<Vec<TcpListener>> {
    let mut listeners = Vec::new();
    for &port in ports {
        // One listener for each family: a dual stack one would see IPv4 peers as IPv6 addresses,
        // and in the host's own namespace, where bindv6only is off, could not be beside the other.
        let dual_stack: SocketAddr = (Ipv6Addr::UNSPECIFIED, port).into();
        let listener = TcpListener::bind(dual_stack)
            .with_context(|| format!("failed to listen on {dual_stack}"))?;
        listeners.push(listener);
        let v4_only: SocketAddr = (Ipv4Addr::UNSPECIFIED, port).into();
        match TcpListener::bind(v4_only) {
            Ok(listener) => listeners.push(listener),
            // The first listener serves both families here, and `to_canonical` sees to the form.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(error) => {
                return Err(error).with_context(|| format!("failed to listen on {v4_only}"));
            }
        }
    }
    for listener in &listeners {
        // A connection may be gone between `poll` and `accept`, which must then not wait.
        listener
            .set_nonblocking(true)
            .context("failed to make a listener non-blocking")?;
    }
    Ok(listeners)
}

fn serve(pod: &str, listeners: &[TcpListener], stopped: &UnixStream) {
    loop {
        let mut watched: Vec<PollFd<'_>> = listeners
            .iter()
            .map(|listener| PollFd::new(listener.as_fd(), PollFlags::POLLIN))
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
        for (listener, _) in listeners
            .iter()
            .zip(&watched)
            .filter(|(_, watched)| is_ready(watched))
        {
            match listener.accept() {
                // The client may be gone; that is its own affair, and it will say so.
                Ok((connection, peer)) => drop(answer(pod, connection, peer)),
                Err(_nobody_there_any_more) => {}
            }
        }
    }
}

fn answer(pod: &str, mut connection: TcpStream, peer: SocketAddr) -> io::Result<()> {
    // Accepted sockets do not inherit the listener's mode on Linux, but it costs nothing to say so.
    connection.set_nonblocking(false)?;
    connection.set_write_timeout(Some(WRITE_TIMEOUT))?;
    let local = canonical(connection.local_addr()?);
    let line = Line {
        pod: pod.to_owned(),
        peer: canonical(peer),
        local,
    };
    connection.write_all(format!("{}\n", serde_json::to_string(&line)?).as_bytes())
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
