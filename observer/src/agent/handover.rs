//! One agent of a node counts at a time: the next one takes over where it stopped.
//!
//! An agent holds a name among the abstract sockets of the node's network namespace
//! (`man 7 unix`): the kernel frees it when the process ends, however it ends, and nothing is left
//! in any file system. Who finds the name taken observes already, but counts nothing: it connects,
//! and waits. An agent that ends says up to when it counts. One that was killed says nothing, but
//! its end of the connection is closed: what is opened from then on is the next one's.
//!
//! Any process in the namespace may take a name, or connect to it: root's alone are heeded.

use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Shutdown, SockFlag, SockType, UnixAddr, connect, getsockopt, shutdown, socket,
    sockopt,
};
use tokio::sync::watch;

use super::hub::Turn;
use crate::live;
use crate::notice::{say, warn};
use crate::observation::Moment;

/// The name; `\0source-ip-observer/agent` in the kernel's words.
const NAME: &[u8] = b"source-ip-observer/agent";
/// How long a name that was just freed may look taken, and how often that is looked at.
const FREED: Duration = Duration::from_millis(10);
const ATTEMPTS: u32 = 50;
/// Agents that may wait.
const SUCCESSORS_MAX: usize = 8;

/// The agents that wait.
type Successors = Arc<Mutex<Vec<UnixStream>>>;

/// What an agent holds while it counts: the name, unless a stranger has it.
#[derive(Debug)]
pub(super) struct Held(Option<Name>);

#[derive(Debug)]
struct Name {
    listener: Arc<UnixListener>,
    successors: Successors,
    accepting: JoinHandle<()>,
}

/// Whose turn it is to count.
#[derive(Debug)]
pub(super) enum Succession {
    /// This agent's.
    Mine(Held),
    /// Another's; this one waits for its word.
    Next(JoinHandle<Held>),
}

/// How it was found.
enum Found {
    Nobody(Held),
    Another(UnixStream),
}

impl Succession {
    /// Takes the name, or waits for the agent that has it. `turn` is told when it is this agent's.
    pub(super) fn begin(turn: watch::Sender<Turn>) -> io::Result<Self> {
        Ok(match look()? {
            Found::Nobody(held) => {
                turn.send_replace(Turn::From(Moment(0)));
                Self::Mine(held)
            }
            Found::Another(stream) => {
                let waiting = thread::Builder::new().name("await-turn".to_owned());
                Self::Next(waiting.spawn(move || wait(stream, &turn))?)
            }
        })
    }

    /// Whether another agent counts.
    pub(super) fn waits(&self) -> bool {
        matches!(self, Self::Next(waiting) if !waiting.is_finished())
    }

    /// Ends this agent's turn: tells those who wait up to when it counts. Whether anybody did.
    pub(super) fn hand_over(self, until: Moment) -> bool {
        let held = match self {
            Self::Mine(held) => Some(held),
            Self::Next(waiting) if waiting.is_finished() => waiting.join().ok(),
            // It never was this agent's turn.
            Self::Next(_) => None,
        };
        held.is_some_and(|held| held.hand_over(until))
    }
}

/// Waits for the last word of the other agent, and of any that takes its place first.
fn wait(stream: UnixStream, turn: &watch::Sender<Turn>) -> Held {
    let mut stream = stream;
    loop {
        // One that was killed has counted what came out by now.
        let from = last_word(stream).or_else(|| live::now().ok());
        match look() {
            Ok(Found::Another(other)) => stream = other,
            Ok(Found::Nobody(held)) => {
                turn.send_replace(Turn::From(from.unwrap_or(Moment(0))));
                return held;
            }
            Err(error) => {
                warn(&error, "the next agent of this node will not find this one");
                turn.send_replace(Turn::From(from.unwrap_or(Moment(0))));
                return Held(None);
            }
        }
    }
}

fn look() -> io::Result<Found> {
    let address = SocketAddr::from_abstract_name(NAME)?;
    for _ in 0..ATTEMPTS {
        match UnixListener::bind_addr(&address) {
            Ok(listener) => return Held::new(listener).map(Found::Nobody),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(error) => return Err(error),
        }
        match reach() {
            Ok(stream) if is_root(&stream) => return Ok(Found::Another(stream)),
            // A stranger.
            Ok(_) | Err(Errno::EAGAIN) => break,
            // It ends just now, or does not listen.
            Err(_) => thread::sleep(FREED),
        }
    }
    say(
        "warning: a process that is no agent holds the name by which agents find each other: if \
         another agent runs on this node, connections are counted twice",
    );
    Ok(Found::Nobody(Held(None)))
}

/// Without waiting for one who does not answer.
fn reach() -> Result<UnixStream, Errno> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket: OwnedFd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect(socket.as_raw_fd(), &UnixAddr::new_abstract(NAME)?)?;
    let stream = UnixStream::from(socket);
    stream
        .set_nonblocking(false)
        .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or_default()))?;
    Ok(stream)
}

/// Up to when it counts; `None` if it ended without a word.
fn last_word(mut stream: UnixStream) -> Option<Moment> {
    let mut word = [0; size_of::<u64>()];
    stream.read_exact(&mut word).ok()?;
    Some(Moment(u64::from_be_bytes(word)))
}

fn is_root(stream: &impl AsFd) -> bool {
    getsockopt(stream, sockopt::PeerCredentials).is_ok_and(|peer| peer.uid() == 0)
}

impl Held {
    fn new(listener: UnixListener) -> io::Result<Self> {
        let listener = Arc::new(listener);
        let successors = Successors::default();
        let accepting = thread::Builder::new()
            .name("successors".to_owned())
            .spawn({
                let (listener, successors) = (Arc::clone(&listener), Arc::clone(&successors));
                move || accept(&listener, &successors)
            })?;
        Ok(Self(Some(Name {
            listener,
            successors,
            accepting,
        })))
    }

    fn hand_over(self, Moment(until): Moment) -> bool {
        let Self(Some(name)) = self else {
            return false;
        };
        let Name {
            listener,
            successors,
            accepting,
        } = name;
        // It wakes who accepts (`net/unix/af_unix.c`, `unix_shutdown`).
        if shutdown(listener.as_raw_fd(), Shutdown::Both).is_err() || accepting.join().is_err() {
            return false;
        }
        // First, so that whoever is told finds the name free.
        drop(listener);
        let mut successors = successors.lock().unwrap_or_else(PoisonError::into_inner);
        let told = successors
            .iter_mut()
            .filter_map(|successor| successor.write_all(&until.to_be_bytes()).ok());
        told.count() > 0
    }
}

/// Keeps root's connections, until the socket is shut down.
fn accept(listener: &UnixListener, successors: &Successors) {
    for stream in listener.incoming() {
        let Ok(stream) = stream else { return };
        let mut successors = successors.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that are gone make room.
        successors.retain(|successor| !has_ended(successor));
        if is_root(&stream) && successors.len() < SUCCESSORS_MAX {
            successors.push(stream);
        }
    }
}

/// A successor never writes: what can be read is its end.
fn has_ended(successor: &UnixStream) -> bool {
    let mut end = [0];
    let read = successor
        .set_nonblocking(true)
        .and_then(|()| (&mut &*successor).read(&mut end));
    let _blocks_again = successor.set_nonblocking(false);
    !matches!(read, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}
