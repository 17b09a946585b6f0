//! What those who follow have not read yet.
//!
//! What comes at once is told at once, as the lines that it is: they are made once, by the thread
//! that has just made the records, and shared by all who follow.

use std::collections::VecDeque;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::Bytes;
use tokio::sync::Notify;

use crate::record::filter::Filter;
use crate::record::{Record, write_line};

/// Records that a follower may be behind.
const BEHIND_MAX: usize = 8_192;
/// Of most lines; more room is made as it is needed.
const LINE_BYTES: usize = 1_536;

/// Records that came at once.
#[derive(Debug)]
pub(super) struct Batch {
    number: usize,
    lines: Bytes,
    /// For who asks for some only: of which record each line is, and where it ends.
    parts: Vec<(Arc<Record>, usize)>,
}

impl Batch {
    /// `in_parts`: somebody asks for some of them only.
    pub(super) fn of(records: &[Arc<Record>], in_parts: bool) -> Self {
        let mut lines = Vec::with_capacity(records.len() * LINE_BYTES);
        let mut parts = Vec::new();
        for record in records {
            // A record is JSON; half a line would be none.
            let _none = write_line(&mut lines, record);
            if in_parts {
                parts.push((Arc::clone(record), lines.len()));
            }
        }
        Self {
            number: records.len(),
            lines: lines.into(),
            parts,
        }
    }

    /// The lines of those that are asked for.
    pub(super) fn lines(&self, filter: &Filter) -> Bytes {
        if filter.passes_all() {
            return self.lines.clone();
        }
        let mut lines = Vec::new();
        let mut start = 0;
        for &(ref record, end) in &self.parts {
            if filter.passes(record) {
                lines.extend_from_slice(&self.lines[start..end]);
            }
            start = end;
        }
        lines.into()
    }
}

/// What a follower has not taken yet; both ends hold it.
#[derive(Debug, Default)]
struct Queue {
    untold: Mutex<Untold>,
    /// Something is new in it.
    news: Notify,
}

#[derive(Debug, Default)]
struct Untold {
    batches: VecDeque<Arc<Batch>>,
    /// Records in them.
    records: usize,
    /// Records that are not told, since it fell too far behind.
    missed: u64,
    /// No more come.
    has_ended: bool,
}

/// The observing thread's end of a follower.
#[derive(Debug)]
pub(super) struct Teller {
    /// Whether it asks for some only.
    in_parts: bool,
    queue: Arc<Queue>,
}

/// The serving thread's end.
#[derive(Debug)]
pub(super) struct Followed(Arc<Queue>);

/// What is next for a follower.
#[derive(Debug)]
pub(super) enum Next {
    Batch(Arc<Batch>),
    /// It fell behind: so many records are not told, and no more come.
    Lagged(u64),
    /// No more come.
    Ended,
}

/// The two ends of one who asks for these.
pub(super) fn follow(filter: &Filter) -> (Teller, Followed) {
    let queue = Arc::<Queue>::default();
    let teller = Teller {
        in_parts: !filter.passes_all(),
        queue: Arc::clone(&queue),
    };
    (teller, Followed(queue))
}

impl Queue {
    fn untold(&self) -> MutexGuard<'_, Untold> {
        self.untold.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Teller {
    /// Whether anybody reads at the other end.
    pub(super) fn is_there(&self) -> bool {
        Arc::strong_count(&self.queue) > 1
    }

    /// Whether it asks for some only.
    pub(super) const fn in_parts(&self) -> bool {
        self.in_parts
    }

    /// Tells these, unless it is too far behind. Then it gets nothing any more, also not what waits:
    /// who does not read would keep it for nothing, and each of many something else.
    pub(super) fn tell(&self, batch: &Arc<Batch>) {
        let mut untold = self.queue.untold();
        if untold.missed > 0 || untold.records + batch.number > BEHIND_MAX {
            let waiting = mem::take(&mut untold.records);
            untold.batches = VecDeque::new();
            untold.missed += (waiting + batch.number) as u64;
        } else {
            untold.records += batch.number;
            untold.batches.push_back(Arc::clone(batch));
        }
        drop(untold);
        self.queue.news.notify_one();
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        self.queue.untold().has_ended = true;
        self.queue.news.notify_one();
    }
}

impl Followed {
    /// May be given up at any time: nothing is lost by that.
    pub(super) async fn next(&mut self) -> Next {
        loop {
            if let Some(next) = self.at_once() {
                return next;
            }
            self.0.news.notified().await;
        }
    }

    fn at_once(&self) -> Option<Next> {
        let mut untold = self.0.untold();
        if untold.missed > 0 {
            return Some(Next::Lagged(untold.missed));
        }
        if let Some(batch) = untold.batches.pop_front() {
            untold.records -= batch.number;
            return Some(Next::Batch(batch));
        }
        untold.has_ended.then_some(Next::Ended)
    }
}

#[cfg(test)]
mod tests {
    use std::iter;

    use super::*;
    use crate::record::tests::whole;

    fn batch(records: usize) -> Arc<Batch> {
        let record = Arc::new(whole());
        let records: Vec<_> = iter::repeat_n(record, records).collect();
        Arc::new(Batch::of(&records, false))
    }

    fn next(followed: &mut Followed) -> Next {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.expect("a runtime").block_on(followed.next())
    }

    #[test]
    fn a_filter_leaves_whole_lines() {
        let mut other = whole();
        other.node = "node9".into();
        other.as_expected = Some(false);
        let (other, one) = (Arc::new(other), Arc::new(whole()));
        let batch = Batch::of(&[Arc::clone(&one), other, one], true);
        let lines = |filter: &Filter| {
            let lines = batch.lines(filter);
            let lines = String::from_utf8(lines.to_vec()).expect("text");
            let read = lines
                .lines()
                .map(|line| serde_json::from_str::<Record>(line).expect("a record"));
            read.map(|record| record.node).collect::<Vec<_>>()
        };
        let unexpected = Filter {
            unexpected: true,
            ..Filter::default()
        };
        assert_eq!(lines(&Filter::default()).len(), 3);
        assert_eq!(lines(&unexpected), ["node9".into()]);
    }

    #[test]
    fn who_falls_behind_is_told_how_much_it_misses_and_no_more() {
        let (teller, mut followed) = follow(&Filter::default());
        teller.tell(&batch(3));
        assert!(matches!(next(&mut followed), Next::Batch(_)));
        let many = batch(BEHIND_MAX / 2);
        for _ in 0..3 {
            teller.tell(&many);
        }
        // Who is not told them does not hold them either.
        assert_eq!(Arc::strong_count(&many), 1);
        let missed = BEHIND_MAX as u64 / 2 * 3;
        assert!(matches!(next(&mut followed), Next::Lagged(number) if number == missed));
        drop(followed);
        assert!(!teller.is_there());
    }

    #[test]
    fn who_reads_everything_before_it_lags_is_told_when_it_does() {
        let (teller, mut followed) = follow(&Filter::default());
        teller.tell(&batch(BEHIND_MAX));
        teller.tell(&batch(1));
        let Next::Lagged(missed) = next(&mut followed) else {
            panic!("it fell behind");
        };
        assert_eq!(missed, BEHIND_MAX as u64 + 1);
        let (teller, mut followed) = follow(&Filter::default());
        drop(teller);
        assert!(matches!(next(&mut followed), Next::Ended));
    }
}
