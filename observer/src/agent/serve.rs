//! Connections from the network: few at a time, none of them for long in vain.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_io_timeout::TimeoutStream;

use super::metrics::SharedMetrics;
use crate::notice::say;

/// Connections at a time, to one address.
const CONNECTIONS_MAX: usize = 256;
/// A request's head must have come within this time, and a connection may be idle for as long.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// A reader that takes nothing for so long is cut off.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest head of a request, and the most that waits for one reader.
const BUFFER_BYTES: usize = 16 * 1024;
const HEADERS_MAX: usize = 64;
/// While there are no more file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long what is under way may take once all is to end.
const DRAIN: Duration = Duration::from_secs(2);

/// Counts what is refused, and says the first of each kind aloud.
#[derive(Debug)]
pub(super) struct Refusals {
    metrics: SharedMetrics,
    said: Mutex<BTreeSet<&'static str>>,
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

/// Serves until `stop` is true, or its sender gone; then ends what is under way.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    refusals: Arc<Refusals>,
    stop: watch::Receiver<bool>,
) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut tasks = JoinSet::new();
    let mut stopped = stop.clone();
    loop {
        // What has ended is forgotten.
        while tasks.try_join_next().is_some() {}
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = ended(&mut stopped) => break,
        };
        let Ok((stream, _)) = accepted else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let Ok(permit) = Arc::clone(&connections).try_acquire_owned() else {
            refusals.refuse("too_many_connections");
            continue;
        };
        let connection = converse(stream, router.clone(), Arc::clone(&refusals), stop.clone());
        tasks.spawn(async move {
            connection.await;
            drop(permit);
        });
    }
    drop(listener);
    let all = async { while tasks.join_next().await.is_some() {} };
    // Whoever still reads then is cut off.
    let _in_time = timeout(DRAIN, all).await;
}

async fn converse(
    stream: TcpStream,
    router: Router,
    refusals: Arc<Refusals>,
    mut stop: watch::Receiver<bool>,
) {
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(WRITE_TIMEOUT));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(BUFFER_BYTES)
        .max_headers(HEADERS_MAX)
        .serve_connection(
            TokioIo::new(Box::pin(stream)),
            TowerToHyperService::new(router),
        );
    let mut connection = std::pin::pin!(connection);
    let result = tokio::select! {
        result = &mut connection => result,
        () = ended(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    let Err(error) = result else {
        return;
    };
    if error.is_parse() || error.is_parse_too_large() {
        refusals.refuse("malformed");
    } else if error.is_timeout() {
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
    let source = std::error::Error::source(error);
    source
        .and_then(|source| source.downcast_ref::<io::Error>())
        .is_some_and(|error| error.kind() == io::ErrorKind::TimedOut)
}
