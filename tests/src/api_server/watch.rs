//! A watch, line by line.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::Stream;
use serde_json::{Value, json};
use tokio::{
    sync::broadcast,
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until},
};

use super::{
    BETWEEN_BOOKMARKS, Order, Shared,
    answer::{Parameters, failure},
    objects::Selection,
};

/// For how long a watch goes on that is asked for without an end.
const SECONDS: u64 = 1_800;

/// How long what was written takes to leave.
const FLUSH: Duration = Duration::from_millis(50);

/// The version that it is to go on from is too old.
#[derive(Debug)]
pub(super) struct TooOld;

/// Where a watch is.
struct Watch {
    shared: Arc<Shared>,
    selection: Selection,
    version: u64,
    changes: tokio::sync::watch::Receiver<u64>,
    orders: broadcast::Receiver<Order>,
    bookmarks: Option<tokio::time::Interval>,
    until: Instant,
    /// Lines that are due.
    due: Vec<String>,
    is_over: bool,
    /// Not as it should.
    breaks_off: bool,
}

/// What comes next.
enum Next {
    Change,
    Bookmark,
    Order(Order),
    End,
}

/// The lines of a watch, from where the parameters say.
pub(super) fn events(
    shared: &Arc<Shared>,
    selection: Selection,
    parameters: &Parameters,
) -> Result<impl Stream<Item = io::Result<Bytes>> + use<>, TooOld> {
    // Before the state is looked at, so that no change is missed.
    let mut changes = shared.changes.subscribe();
    changes.mark_unchanged();
    let state = shared.state();
    let mut due = Vec::new();
    let version = match parameters.resource_version.as_str() {
        "" | "0" => {
            let all = state.objects.all(&selection);
            due.extend(all.iter().map(|object| line("ADDED", object)));
            state.objects.version()
        }
        version => version.parse().unwrap_or(0),
    };
    let since = state.objects.since(&selection, version);
    for (event, object) in since.map_err(|_gone| TooOld)? {
        due.push(line(event, &object));
    }
    let version = state.objects.version();
    let sends_bookmarks = parameters.allow_watch_bookmarks && !state.faults.no_bookmarks;
    drop(state);
    if parameters.send_initial_events {
        let annotations = json!({"k8s.io/initial-events-end": "true"});
        due.push(bookmark(&selection, version, &annotations));
    }
    let seconds = parameters.timeout_seconds.unwrap_or(SECONDS);
    let watch = Watch {
        shared: Arc::clone(shared),
        selection,
        version,
        changes,
        orders: shared.orders.subscribe(),
        bookmarks: sends_bookmarks.then(|| {
            let mut bookmarks = interval(BETWEEN_BOOKMARKS);
            bookmarks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            bookmarks.reset();
            bookmarks
        }),
        until: Instant::now() + Duration::from_secs(seconds),
        due,
        is_over: false,
        breaks_off: false,
    };
    Ok(futures_util::stream::unfold(watch, |mut watch| async {
        Some((watch.next().await?, watch))
    }))
}

impl Watch {
    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        loop {
            if !self.due.is_empty() {
                let lines = std::mem::take(&mut self.due).concat();
                return Some(Ok(Bytes::from(lines)));
            }
            if self.breaks_off {
                // What was sent must leave first.
                sleep(FLUSH).await;
                return Some(Err(io::ErrorKind::ConnectionAborted.into()));
            }
            if self.is_over {
                return None;
            }
            match self.wait().await {
                Next::Change => self.catch_up(),
                Next::Bookmark => {
                    let line = bookmark(&self.selection, self.version, &json!({}));
                    self.due.push(line);
                }
                Next::End | Next::Order(Order::End) => self.is_over = true,
                Next::Order(Order::Garbage) => self.due.push("{\"type\": \u{1}garb\n".to_owned()),
                Next::Order(Order::Expire) => self.expire(),
                Next::Order(Order::BreakOff) => {
                    self.due.push("{\"type\":\"ADDED\",\"obj".to_owned());
                    self.breaks_off = true;
                }
            }
        }
    }

    async fn wait(&mut self) -> Next {
        let Self {
            changes,
            orders,
            bookmarks,
            until,
            ..
        } = self;
        let bookmark = async {
            match bookmarks {
                Some(bookmarks) => bookmarks.tick().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = changes.changed() => match changed {
                Ok(()) => Next::Change,
                Err(_) => Next::End,
            },
            order = orders.recv() => order.map_or(Next::End, Next::Order),
            _ = bookmark => Next::Bookmark,
            () = sleep_until(*until) => Next::End,
        }
    }

    fn catch_up(&mut self) {
        let state = self.shared.state();
        match state.objects.since(&self.selection, self.version) {
            Ok(events) => {
                self.version = state.objects.version();
                let lines = events.iter().map(|(event, object)| line(event, object));
                self.due.extend(lines);
            }
            Err(_gone) => {
                drop(state);
                self.expire();
            }
        }
    }

    fn expire(&mut self) {
        let status = failure(410, "Expired", "too old resource version");
        self.due.push(line("ERROR", &status));
        self.is_over = true;
    }
}

fn line(event: &str, object: &Value) -> String {
    format!("{}\n", json!({"type": event, "object": object}))
}

fn bookmark(selection: &Selection, version: u64, annotations: &Value) -> String {
    let (kind, api_version) = selection.kind();
    let object = json!({
        "kind": kind, "apiVersion": api_version,
        "metadata": {
            "resourceVersion": version.to_string(), "annotations": annotations,
            "creationTimestamp": null,
        },
    });
    line("BOOKMARK", &object)
}
