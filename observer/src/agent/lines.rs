//! Records as lines of JSON, some at a time.

use std::sync::Arc;
use std::time::Duration;
use std::vec;

use axum::body::Bytes;
use futures_util::stream::{Stream, unfold};
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, timeout_at};

use super::api::Api;
use super::followed::{Followed, Next};
use super::query::Query;
use super::serve::ended;
use crate::record::filter::Filter;
use crate::record::{Record, write_line};

/// After so many bytes a chunk is full.
const CHUNK_BYTES: usize = 16 * 1024;
/// After so long without a record an empty line says that the agent lives.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// The schema of a line that is no record.
const NOTICE_SCHEMA: &str = "observer.notice/v1";

/// The recent records that are asked for, made lines only when they are read.
#[derive(Debug)]
pub(super) struct Lines(vec::IntoIter<Arc<Record>>);

impl Lines {
    pub(super) fn new(query: &Query, recent: Vec<Arc<Record>>) -> Self {
        let mut recent = if query.recent { recent } else { Vec::new() };
        recent.retain(|record| query.filter.passes(record));
        if let Some(limit) = query.limit {
            recent.drain(..recent.len().saturating_sub(limit));
        }
        Self(recent.into_iter())
    }

    /// These, then those that come, until the agent ends or the reader falls behind.
    pub(super) fn followed_by(
        self,
        filter: Filter,
        queue: Followed,
        api: Arc<Api>,
        permit: OwnedSemaphorePermit,
    ) -> impl Stream<Item = Result<Bytes, std::convert::Infallible>> + Send + 'static {
        api.metrics.followers.inc();
        let follower = Follower {
            recent: self,
            filter,
            queue,
            stop: api.stop.clone(),
            has_ended: false,
            api,
            _permit: permit,
        };
        unfold(follower, async |mut follower| {
            let chunk = follower.chunk().await?;
            Some((Ok(chunk), follower))
        })
    }
}

impl Iterator for Lines {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let Self(records) = self;
        let mut chunk = Vec::new();
        while chunk.len() < CHUNK_BYTES
            && let Some(record) = records.next()
        {
            // A record is JSON; half a line would be none.
            let _none = write_line(&mut chunk, &record);
        }
        (!chunk.is_empty()).then(|| chunk.into())
    }
}

/// One who follows.
struct Follower {
    recent: Lines,
    filter: Filter,
    queue: Followed,
    stop: watch::Receiver<bool>,
    has_ended: bool,
    api: Arc<Api>,
    _permit: OwnedSemaphorePermit,
}

impl Follower {
    async fn chunk(&mut self) -> Option<Bytes> {
        if self.has_ended {
            return None;
        }
        if let Some(recent) = self.recent.next() {
            return Some(recent);
        }
        // From the last chunk on, whatever passes by the filter meanwhile.
        let heartbeat = Instant::now() + HEARTBEAT;
        loop {
            let Self { queue, stop, .. } = self;
            let next = tokio::select! {
                // What has come is told before the end is.
                biased;
                next = timeout_at(heartbeat, queue.next()) => next,
                () = ended(stop) => Ok(Next::Ended),
            };
            let lines = match next {
                Ok(Next::Batch(batch)) => batch.lines(&self.filter),
                Ok(Next::Lagged(missed)) => {
                    self.api.metrics.cut_off.inc();
                    self.end(&json!({"kind": "lagged", "missed": missed}))
                }
                Ok(Next::Ended) => self.end(&json!({"kind": "ending"})),
                Err(_) => Bytes::from_static(b"\n"),
            };
            if !lines.is_empty() {
                return Some(lines);
            }
        }
    }

    /// A last line, which is no record.
    fn end(&mut self, notice: &Value) -> Bytes {
        self.has_ended = true;
        let mut line = json!({"schema": NOTICE_SCHEMA, "node": self.api.node});
        if let (Some(line), Some(notice)) = (line.as_object_mut(), notice.as_object()) {
            line.extend(notice.clone());
        }
        format!("{line}\n").into()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.api.metrics.followers.dec();
    }
}
