//! One agent of a node counts at a time: the next one takes over where it stopped.
//!
//! An agent holds a name among the abstract sockets of the node's network namespace
//! (`man 7 unix`): the kernel frees it when the process ends, however it ends, and nothing is left
//! in any file system. Who finds the name taken observes already, but counts nothing: it connects,
//! and waits. An agent that ends says up to when it counted. One that was killed says nothing, but
//! its end of the connection is closed: what it told before that is its own.

use std::io::{self, Read as _, Write as _};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::thread;
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt};
use tokio::sync::watch;

use super::hub::Turn;
use crate::notice::{say, warn};
use crate::observation::Moment;

/// The name; `\0source-ip-observer/agent` in the kernel's words.
const NAME: &[u8] = b"source-ip-observer/agent";
/// How long a name that was just freed may look taken.
const FREED: Duration = Duration::from_millis(20);
const ATTEMPTS: u32 = 250;
/// Successors that are told.
const SUCCESSORS_MAX: usize = 8;

/// What an agent holds while it counts.
#[derive(Debug)]
pub(super) struct Held(Option<UnixListener>);

/// How an agent begins.
#[derive(Debug)]
pub(super) enum Start {
    /// Nobody else counts.
    Alone(Held),
    /// Another does, and this is the line to it.
    After(UnixStream),
}

/// Takes the name, or finds the agent that has it.
pub(super) fn start() -> io::Result<Start> {
    let address = SocketAddr::from_abstract_name(NAME)?;
    for _ in 0..ATTEMPTS {
        match UnixListener::bind_addr(&address) {
            Ok(listener) => return Ok(Start::Alone(Held(Some(listener)))),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(error) => return Err(error),
        }
        match UnixStream::connect_addr(&address) {
            Ok(stream) if is_root(&stream) => return Ok(Start::After(stream)),
            // Anybody on the node may take a name.
            Ok(_) => {
                say(
                    "warning: a process that is not root's holds the name by which agents find each \
                     other: if another agent runs on this node, connections are counted twice",
                );
                return Ok(Start::Alone(Held(None)));
            }
            // It ended between the two.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                thread::sleep(FREED);
            }
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}

/// Waits, in a thread of its own, for the other agent's last word, then takes the name. Ends when
/// nobody asks any more.
pub(super) fn wait(stream: UnixStream, turn: watch::Sender<Turn>) -> thread::JoinHandle<Held> {
    thread::spawn(move || {
        turn.send_replace(last_word(stream).map_or(Turn::Found, Turn::From));
        match start() {
            Ok(Start::Alone(held)) => held,
            Ok(Start::After(_)) => {
                say("warning: two agents wait on this node: connections are counted twice");
                Held(None)
            }
            Err(error) => {
                warn(&error, "the next agent of this node will not find this one");
                Held(None)
            }
        }
    })
}

/// Up to when it counted; `None` if it ended without a word.
fn last_word(stream: UnixStream) -> Option<Moment> {
    let mut word = [0; size_of::<u64>()];
    let mut stream = stream;
    stream.read_exact(&mut word).ok()?;
    Some(Moment(u64::from_be_bytes(word)))
}

impl Held {
    /// Tells those who wait up to when this agent counted, and gives up the name.
    pub(super) fn hand_over(self, Moment(until): Moment) {
        let Self(Some(listener)) = self else {
            return;
        };
        if listener.set_nonblocking(true).is_err() {
            return;
        }
        let waiting: Vec<_> = listener
            .incoming()
            .map_while(Result::ok)
            .take(SUCCESSORS_MAX)
            .collect();
        // First, so that whoever is told finds it free.
        drop(listener);
        for mut successor in waiting {
            // One that has ended meanwhile needs no word.
            let _ended = successor.write_all(&until.to_be_bytes());
        }
    }
}

fn is_root(stream: &UnixStream) -> bool {
    getsockopt(stream, sockopt::PeerCredentials).is_ok_and(|peer| peer.uid() == 0)
}
