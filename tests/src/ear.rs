//! A backend that listens: it keeps what it got, from whom, and answers like a web server.
//!
//! Beside the peer of its socket that is the other fact that nobody need believe: the bytes that
//! really came.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::{fd::AsFd as _, unix::net::UnixStream},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

use crate::netns::Namespace;

/// Whoever has said nothing for so long is answered.
const PATIENCE: Duration = Duration::from_millis(300);
/// How long a connection is kept for its first byte.
const IDLE: Duration = Duration::from_secs(5);
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n";

/// What came by one connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// The peer of the socket.
    pub peer: SocketAddr,
    /// What it sent, up to the end of the first head, or until it paused.
    pub bytes: Vec<u8>,
}

/// A listening backend, until it is dropped.
#[derive(Debug)]
pub struct Ear {
    heard: Arc<Mutex<Vec<Heard>>>,
    /// Closing it ends the thread.
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

impl Ear {
    /// Listens in a namespace.
    pub fn start(namespace: &Namespace, at: SocketAddr) -> Result<Self> {
        let heard = Arc::<Mutex<Vec<Heard>>>::default();
        let (stop, stopped) = UnixStream::pair().context("failed to make a pipe")?;
        let keeps = Arc::clone(&heard);
        let thread = namespace.spawn(move || {
            let listener =
                TcpListener::bind(at).with_context(|| format!("failed to listen at {at}"))?;
            listener.set_nonblocking(true)?;
            Ok(move || {
                while let Some((stream, peer)) = next(&listener, &stopped) {
                    let keeps = Arc::clone(&keeps);
                    thread::spawn(move || serve(stream, peer, &keeps));
                }
            })
        })?;
        Ok(Self {
            heard,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// What came so far.
    pub fn heard(&self) -> Vec<Heard> {
        locked(&self.heard).clone()
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        drop(self.stop.take());
        let _its_panic_was_told = self.thread.take().map(JoinHandle::join);
    }
}

/// The next connection; none once all is to end.
fn next(listener: &TcpListener, stopped: &UnixStream) -> Option<(TcpStream, SocketAddr)> {
    loop {
        let watched = |of| PollFd::new(of, PollFlags::POLLIN);
        let mut watched = [watched(listener.as_fd()), watched(stopped.as_fd())];
        match poll(&mut watched, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return None,
        }
        if watched[1].any() == Some(true) {
            return None;
        }
        // It may be gone already.
        if let Ok(accepted) = listener.accept() {
            return Some(accepted);
        }
    }
}

fn serve(mut stream: TcpStream, peer: SocketAddr, heard: &Mutex<Vec<Heard>>) {
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    // Whoever is gone is its own affair.
    if let Ok(bytes) = first_bytes(&mut stream) {
        locked(heard).push(Heard { peer, bytes });
        let _gone = stream.write_all(ANSWER);
        // Whatever else it says is answered, too.
        let mut rest = [0; 4_096];
        while let Ok(1..) = stream.read(&mut rest) {
            let _gone = stream.write_all(ANSWER);
        }
    }
}

fn first_bytes(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(IDLE))?;
    let mut bytes = Vec::new();
    let mut more = [0; 4_096];
    loop {
        match stream.read(&mut more) {
            Ok(0) => return Ok(bytes),
            Ok(length) => bytes.extend(&more[..length]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(bytes),
            Err(error) => return Err(error),
        }
        if bytes.windows(4).skip(1).any(|end| end == b"\r\n\r\n") {
            return Ok(bytes);
        }
        stream.set_read_timeout(Some(PATIENCE))?;
    }
}

fn locked(heard: &Mutex<Vec<Heard>>) -> std::sync::MutexGuard<'_, Vec<Heard>> {
    heard.lock().unwrap_or_else(PoisonError::into_inner)
}
