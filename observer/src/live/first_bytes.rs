//! What clients send first, put together and read. The bytes end here: what goes on is the parser's
//! word.

use hashlink::LruCache;

use crate::observation::{Identity, Segment};
use crate::payload::{Reading, Reason, Stream};

/// Connections whose first bytes are kept at once, 4 KiB each at most (in their place, and ahead of
/// it); those touched least recently
/// make room.
const STREAMS_MAX: usize = 1 << 12;

/// First bytes of connections.
#[derive(Debug)]
pub(super) struct FirstBytes {
    streams: LruCache<Identity, Progress>,
}

#[derive(Debug)]
enum Progress {
    /// What is there, and why it tells nothing so far, as was said.
    Stream(Stream, Option<Reason>),
    /// It is read, and its bytes are gone.
    Read,
}

/// What a segment told.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// Nothing that was not told before.
    Nothing,
    /// Why there is nothing to tell so far.
    SoFar(Reason),
    /// All that there is to tell.
    All(Reading),
}

impl FirstBytes {
    pub(super) fn new() -> Self {
        Self {
            streams: LruCache::new(STREAMS_MAX),
        }
    }

    /// Takes a segment in.
    pub(super) fn segment(&mut self, segment: Segment) -> Told {
        let Segment {
            key: _,
            identity,
            offset,
            bytes,
        } = segment;
        let progress = self
            .streams
            .entry(identity)
            .or_insert_with(|| Progress::Stream(Stream::default(), None));
        let Progress::Stream(stream, said) = progress else {
            return Told::Nothing;
        };
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        if let Some(reading) = stream.segment(offset, bytes) {
            *progress = Progress::Read;
            return Told::All(reading);
        }
        let so_far = stream.unread();
        if said.replace(so_far) == Some(so_far) {
            return Told::Nothing;
        }
        Told::SoFar(so_far)
    }
}

#[cfg(test)]
mod tests {
    use observer_ebpf::WaitingKey;

    use super::*;
    use crate::cluster::Protocol;
    use crate::observation::Tuple;

    #[test]
    fn each_thing_is_told_once() {
        let socket = |text: &str| text.parse().expect("an address");
        let identity = Identity {
            protocol: Protocol::Tcp,
            zone: 0,
            original: Tuple {
                source: socket("203.0.113.50:49508"),
                destination: socket("172.31.0.11:30080"),
            },
            sequence: 7,
        };
        let mut first_bytes = FirstBytes::new();
        let mut told = |offset, bytes| {
            first_bytes.segment(Segment {
                key: WaitingKey {
                    tuple: identity.opening_key().identity.original,
                    family: 4,
                    side: 1,
                    padding: [0; 2],
                },
                identity,
                offset,
                bytes,
            })
        };
        assert_eq!(told(16, b"\r\n"), Told::SoFar(Reason::NotSeen));
        assert_eq!(told(0, b"GET "), Told::SoFar(Reason::Unfinished));
        assert_eq!(told(0, b"GET "), Told::Nothing);
        assert_eq!(told(4, b"/ HTT"), Told::Nothing);
        assert_eq!(
            told(9, b"P/1.1\r\n"),
            Told::All(Reading::Nothing(Reason::NoHeader))
        );
        assert_eq!(told(18, b"more"), Told::Nothing);
    }
}
