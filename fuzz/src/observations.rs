//! What comes up the ring buffer, and the verdicts on it.

use std::sync::{Arc, LazyLock};

use observer::cluster::Snapshot;
use observer::observation::{Entry, Moment, Observation};
use observer::observe::{Asking, Epoch, Event, Observer, Output, Settings};
use observer::record::Record;

use crate::cluster;

const RECORD_LEN: usize = size_of::<observer_ebpf::Observation>();
/// A tick's first byte, where a record has the first of its addresses.
const TICK: u8 = 0xff;
const ANSWER_TIMEOUT_NS: u64 = 1_000;

/// A cluster for verdicts to speak of, and that a fuzzer can hit the addresses of.
static CLUSTER: LazyLock<Arc<Snapshot>> = LazyLock::new(|| {
    let objects = cluster::read(include_bytes!("../seeds/cluster/shop.json"));
    let index = objects.expect("the seed is a List");
    Arc::new(Snapshot::new(index, None))
});

/// Decodes the bytes as they are; and as one record after the other, which go on to the verdicts.
pub fn run(bytes: &[u8]) {
    let _ = Observation::decode(bytes);
    let records = judged(bytes);
    let chunks = bytes.len().div_ceil(RECORD_LEN);
    assert!(records.len() <= chunks, "records of nothing");
}

/// The records that an observer makes of the observations, and of the ticks between them.
pub fn judged(bytes: &[u8]) -> Vec<Record> {
    let settings = Settings {
        node: "node1".to_owned(),
        epoch: Epoch(jiff::Timestamp::UNIX_EPOCH),
        answer_timeout_ns: ANSWER_TIMEOUT_NS,
        all: true,
        follows_cluster: false,
        first_bytes: Asking::default(),
    };
    let mut observer = Observer::new(settings, Some(Arc::clone(&CLUSTER)));
    let mut records = Vec::new();
    let events = bytes.chunks(RECORD_LEN).filter_map(|chunk| match chunk {
        [TICK, rest @ ..] => {
            let now = rest.first_chunk::<8>()?;
            Some(Event::Tick(Moment(u64::from_le_bytes(*now))))
        }
        _ => Observation::decode(chunk).ok().map(Event::Observation),
    });
    for event in events.chain([Event::End]) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            for output in observer.handle(event) {
                match output {
                    Output::Record(_, record) => records.push(Arc::unwrap_or_clone(record)),
                    Output::Ask(identity) => {
                        let entry = match identity.sequence % 3 {
                            0 => None,
                            1 => Some(Entry::Absent { table_full: false }),
                            _ => Some(Entry::Present {
                                reply: identity.original,
                                replied: identity.sequence.is_multiple_of(2),
                            }),
                        };
                        events.push(Event::LookedUp(identity, entry, None));
                    }
                }
            }
        }
    }
    records
}
