//! Servers that are as fast as they can be, and count what their sockets really got.

use std::{
    io::{self, Write as _},
    net::{Ipv4Addr, TcpListener, UdpSocket},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
};

use anyhow::{Context as _, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::place::Place;
use crate::netns::Namespace;

/// The longest datagram that is sent back.
const DATAGRAM_MAX: usize = 2_048;

/// A server in a pod, until it is dropped.
#[derive(Debug)]
pub(super) struct Server {
    /// Closing it ends the thread.
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Accepts each connection, writes a byte and closes it: so the port that is busy for a minute
    /// after is the server's, and clients do not run out of theirs.
    pub(super) fn gate(pod: &Namespace, port: u16, accepted: &Arc<AtomicU64>) -> Result<Self> {
        let accepted = Arc::clone(accepted);
        Self::start(
            pod,
            move || {
                let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?;
                listener.set_nonblocking(true)?;
                Ok(listener)
            },
            move |listener| {
                while let Ok((mut connection, _)) = listener.accept() {
                    accepted.fetch_add(1, Ordering::Relaxed);
                    // Who is gone already wants no byte.
                    let _gone = connection.write_all(b".");
                }
            },
        )
    }

    /// Sends each datagram back.
    pub(super) fn echo(pod: &Namespace, port: u16, echoed: &Arc<AtomicU64>) -> Result<Self> {
        let echoed = Arc::clone(echoed);
        Self::start(
            pod,
            move || {
                let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))?;
                socket.set_nonblocking(true)?;
                Ok(socket)
            },
            move |socket| {
                let mut datagram = [0; DATAGRAM_MAX];
                while let Ok((length, from)) = socket.recv_from(&mut datagram) {
                    if socket.send_to(&datagram[..length], from).is_ok() {
                        echoed.fetch_add(1, Ordering::Relaxed);
                    }
                }
            },
        )
    }

    /// `serve` takes all that is there, whenever something is.
    fn start<S: AsFd + 'static>(
        pod: &Namespace,
        open: impl FnOnce() -> io::Result<S> + Send + 'static,
        serve: impl Fn(&S) + Send + 'static,
    ) -> Result<Self> {
        let (stop, stopped) =
            UnixStream::pair().context("failed to make the pipe that stops a server")?;
        let thread = pod.spawn(move || {
            Place::Servers.stay()?;
            let socket = open().context("failed to open a server's socket")?;
            Ok(move || {
                while wait(socket.as_fd(), stopped.as_fd()) {
                    serve(&socket);
                }
            })
        })?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

/// Waits until there is something to take; not if it is time to stop.
fn wait(socket: BorrowedFd<'_>, stopped: BorrowedFd<'_>) -> bool {
    let mut watched = [socket, stopped].map(|one| PollFd::new(one, PollFlags::POLLIN));
    // A signal only makes it look once more.
    let _interrupted = poll(&mut watched, PollTimeout::NONE);
    watched[1].any() != Some(true)
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // Whatever it died of, there is nothing to mend.
            let _died = thread.join();
        }
    }
}

/// nginx as one process that keeps nothing: small answers over connections that are kept.
pub(super) fn nginx(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr crit;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen {port};
        location / {{ return 200 \"ok\"; }}
    }}
}}
",
        port = super::cluster::WEB.port,
    )
}
