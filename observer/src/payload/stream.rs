//! Segments joined to the beginning of what a client sends.

use super::{BYTES_MAX, Reading, Reason, read};

/// Segments that are kept while one before them is missing.
const AHEAD_MAX: usize = 8;

/// The first bytes of one connection, until they tell something.
#[derive(Clone, Debug, Default)]
pub struct Stream {
    /// From the first byte on, without a gap.
    start: Vec<u8>,
    /// What came too early: where it belongs, and what it is.
    ahead: Vec<(usize, Vec<u8>)>,
}

impl Stream {
    /// Takes the bytes at an offset from the first one in. Gives what the beginning is, once that
    /// can be told.
    pub fn segment(&mut self, offset: usize, bytes: &[u8]) -> Option<Reading> {
        if offset > self.start.len() {
            let kept: usize = self.ahead.iter().map(|(_, bytes)| bytes.len()).sum();
            let is_new = self.ahead.iter().all(|(other, _)| *other != offset);
            // What lies beyond the bound is never read.
            let room = BYTES_MAX.saturating_sub(offset);
            let bytes = bytes.get(..room).unwrap_or(bytes);
            let fits = kept.saturating_add(bytes.len()) <= BYTES_MAX;
            if is_new && fits && !bytes.is_empty() && self.ahead.len() < AHEAD_MAX {
                self.ahead.push((offset, bytes.to_vec()));
            }
            return None;
        }
        self.append(offset, bytes);
        while let Some(at) = self
            .ahead
            .iter()
            .position(|(offset, _)| *offset <= self.start.len())
        {
            let (offset, bytes) = self.ahead.swap_remove(at);
            self.append(offset, &bytes);
        }
        read(&self.start)
    }

    /// Why nothing has been told, if no more comes.
    pub const fn unread(&self) -> Reason {
        match (self.start.is_empty(), self.ahead.is_empty()) {
            (true, true) => Reason::Silent,
            (true, false) => Reason::NotSeen,
            (false, _) => Reason::Unfinished,
        }
    }

    /// What is new of a segment that begins where the beginning ends, or before: bytes that were
    /// there already are sent again, and the first ones count.
    fn append(&mut self, offset: usize, bytes: &[u8]) {
        let known = self.start.len().saturating_sub(offset);
        let room = BYTES_MAX.saturating_sub(self.start.len());
        let new = bytes.get(known..).unwrap_or_default();
        self.start.extend_from_slice(new.get(..room).unwrap_or(new));
    }
}
