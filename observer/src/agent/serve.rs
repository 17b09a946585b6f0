//! Connections from the network: few at a time, none of them for long in vain.

use std::collections::{BTreeSet, HashMap};
use std::error::Error as _;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_io_timeout::TimeoutStream;

use super::metrics::SharedMetrics;
use crate::notice::say;

/// Connections at a time, to one address.
const CONNECTIONS_MAX: usize = 256;
/// Of them, from beyond this host: probes of the kubelet and port-forwards always find room.
const REMOTE_MAX: usize = 192;
/// And from one host of those.
const PEER_MAX: usize = 32;
/// A request's head must have come within this time, and a connection may be idle for as long.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// A reader that takes nothing for so long is cut off.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// After so long a connection is closed with its next answer, and soon after that in any case;
/// unless somebody follows by it.
const LIFETIME: Duration = Duration::from_secs(30);
/// The largest head of a request, and the most that waits for one reader.
const BUFFER_BYTES: usize = 16 * 1024;
const HEADERS_MAX: usize = 64;
/// While there are no more file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long what is under way may take once all is to end: the agent that comes next waits.
const DRAIN: Duration = Duration::from_millis(500);

/// Counts what is refused, and says the first of each kind aloud.
#[derive(Debug)]
pub(super) struct Refusals {
    metrics: SharedMetrics,
    said: Mutex<BTreeSet<&'static str>>,
}

/// What becomes of one connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Life {
    has_asked: Arc<AtomicBool>,
    follows: Arc<AtomicBool>,
}

/// How many connections there are, from whom.
#[derive(Debug, Default)]
struct Peers {
    all: usize,
    remote: usize,
    /// By host; a host has a whole network of IPv6 to choose from.
    by_host: HashMap<IpAddr, usize>,
}

impl Refusals {
    pub(super) fn new(metrics: SharedMetrics) -> Self {
        Self {
            metrics,
            said: Mutex::default(),
        }
    }

    /// `reason` as metrics name it.
    pub(super) fn refuse(&self, reason: &'static str) {
        self.metrics.refuse(reason);
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.insert(reason) {
            say(&format!(
                "warning: a request was refused: {reason}; from now on such are only counted \
                 (source_ip_observer_requests_refused_total)"
            ));
        }
    }
}

impl Life {
    /// A request came.
    pub(super) fn asks(&self) {
        self.has_asked.store(true, Ordering::Relaxed);
    }

    /// It may last.
    pub(super) fn follows(&self) {
        self.follows.store(true, Ordering::Relaxed);
    }
}

impl Peers {
    fn admit(&mut self, host: IpAddr) -> bool {
        let is_remote = !host.is_loopback();
        let of_host = self.by_host.get(&host).copied().unwrap_or_default();
        if self.all >= CONNECTIONS_MAX
            || (is_remote && (self.remote >= REMOTE_MAX || of_host >= PEER_MAX))
        {
            return false;
        }
        self.all += 1;
        self.remote += usize::from(is_remote);
        *self.by_host.entry(host).or_default() += 1;
        true
    }

    fn leave(&mut self, host: IpAddr) {
        self.all -= 1;
        self.remote -= usize::from(!host.is_loopback());
        if let Some(of_host) = self.by_host.get_mut(&host) {
            *of_host -= 1;
            if *of_host == 0 {
                self.by_host.remove(&host);
            }
        }
    }
}

/// Serves until `stop` is true, or its sender gone; then ends what is under way.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    refusals: Arc<Refusals>,
    stop: watch::Receiver<bool>,
) {
    let mut peers = Peers::default();
    let mut tasks = JoinSet::new();
    let mut stopped = stop.clone();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(left) = tasks.join_next() => {
                // None of them panics; if one did, its place would be lost.
                if let Ok(host) = left {
                    peers.leave(host);
                }
                continue;
            }
            () = ended(&mut stopped) => break,
        };
        let Ok((stream, peer)) = accepted else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let host = host(peer.ip());
        if !peers.admit(host) {
            refusals.refuse("too_many_connections");
            continue;
        }
        let connection = converse(stream, router.clone(), Arc::clone(&refusals), stop.clone());
        tasks.spawn(async move {
            connection.await;
            host
        });
    }
    drop(listener);
    let all = async { while tasks.join_next().await.is_some() {} };
    // Whoever still reads then is cut off.
    let _in_time = timeout(DRAIN, all).await;
}

fn host(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(ip) if !ip.is_loopback() => {
            IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64))
        }
        other => other,
    }
}

async fn converse(
    stream: TcpStream,
    router: Router,
    refusals: Arc<Refusals>,
    mut stop: watch::Receiver<bool>,
) {
    let life = Life::default();
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(WRITE_TIMEOUT));
    let router = router.layer(Extension(life.clone()));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(BUFFER_BYTES)
        .max_headers(HEADERS_MAX)
        .serve_connection(
            TokioIo::new(Box::pin(stream)),
            TowerToHyperService::new(router),
        );
    let mut connection = pin!(connection);
    let mut is_old = false;
    let result = loop {
        tokio::select! {
            result = &mut connection => break result,
            () = ended(&mut stop) => {
                connection.as_mut().graceful_shutdown();
                break connection.await;
            }
            () = sleep(LIFETIME) => {
                if life.follows.load(Ordering::Relaxed) {
                    continue;
                }
                if is_old {
                    refusals.metrics.cut_off.inc();
                    return;
                }
                is_old = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    };
    let Err(error) = result else {
        return;
    };
    if error.is_parse() || error.is_parse_too_large() {
        refusals.refuse("malformed");
    } else if error.is_timeout() && !life.has_asked.load(Ordering::Relaxed) {
        refusals.refuse("slow");
    } else if is_stuck(&error) {
        refusals.metrics.cut_off.inc();
    }
}

/// Until all is to end.
pub(super) async fn ended(stop: &mut watch::Receiver<bool>) {
    // Without its sender it has ended too.
    let _ended = stop.wait_for(|stop| *stop).await;
}

/// Whether the reader took nothing for too long.
fn is_stuck(error: &hyper::Error) -> bool {
    error
        .source()
        .and_then(|source| source.downcast_ref::<io::Error>())
        .is_some_and(|error| error.kind() == io::ErrorKind::TimedOut)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_takes_the_place_of_this_hosts_own() {
        let mut peers = Peers::default();
        let from = |number: u8| IpAddr::from([192, 0, 2, number]);
        let admitted = (0..=u8::MAX).filter(|_| peers.admit(from(1))).count();
        assert_eq!(admitted, PEER_MAX);
        let admitted = (0..=u8::MAX)
            .filter(|number| peers.admit(from(*number)))
            .count();
        assert_eq!(admitted, REMOTE_MAX - PEER_MAX);
        let local = IpAddr::from([127, 0, 0, 1]);
        let admitted = (0..=u8::MAX).filter(|_| peers.admit(local)).count();
        assert_eq!(admitted, CONNECTIONS_MAX - REMOTE_MAX);
        peers.leave(from(1));
        assert!(!peers.admit(from(1)) || peers.by_host[&from(1)] == PEER_MAX);
    }

    #[test]
    fn a_network_of_ipv6_is_one_host() {
        let ip = |text: &str| host(text.parse().expect("an address"));
        assert_eq!(ip("2001:db8:1:2:3::4"), ip("2001:db8:1:2:ffff::"));
        assert_ne!(ip("2001:db8:1:2::"), ip("2001:db8:1:3::"));
        assert_eq!(ip("::ffff:192.0.2.1"), IpAddr::from([192, 0, 2, 1]));
    }
}
