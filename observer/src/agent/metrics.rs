//! What the agent counts, as Prometheus reads it.
//!
//! Every label comes from a closed set: words of the vocabulary, and the cluster's Services. No
//! address is ever a label.

mod collected;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::encoding::{EncodeLabelSet, prometheus_text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Metric, Registry, Unit};
use serde::Serialize;
use tokio::sync::watch;

use self::collected::{Followed, Process};
use crate::kernel::programs::Sizes;
use crate::kubernetes::Cluster;
use crate::live::Standing;
use crate::record::{ByFate, Record};
use crate::verdict::Cause;

/// In front of every name.
const PREFIX: &str = "source_ip_observer";
/// Label sets of connections; Prometheus pays for each. Services beyond are counted together.
const LABEL_SETS_MAX: u64 = 5_000;
/// The Service of what is counted together.
const OTHER: &str = "(other)";
const NANOSECONDS: f64 = 1e9;

/// What connections are told apart by. What a record does not have is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Connections {
    namespace: String,
    service: String,
    front_door: String,
    external_traffic_policy: String,
    source_ip: String,
    cause: String,
    node_cause: String,
    outcome: String,
    outcome_cause: String,
    extra_hops: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Unexpected {
    namespace: String,
    service: String,
    front_door: String,
}

/// To which counters connections of one Service and fate count.
#[derive(Debug)]
struct Counting {
    connections: Counter,
    labels: Unexpected,
    /// That one is there only once there was such.
    unexpected: Option<Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Mismatch {
    namespace: String,
    service: String,
    finding: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

/// Of what is absent until it is known.
type NoLabel = [(&'static str, &'static str); 0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Map {
    map: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Build {
    version: &'static str,
    node: String,
    hook: String,
}

/// Everything that is counted.
#[derive(Debug)]
pub(super) struct Metrics {
    registry: Registry,
    build: Family<Build, Gauge>,
    connections: Family<Connections, Counter>,
    label_sets: AtomicU64,
    /// The counters that connections count to, so that their labels are made once. One thread
    /// counts.
    counters: Mutex<ByFate<Counting>>,
    unexpected: Family<Unexpected, Counter>,
    mismatches: Family<Mismatch, Counter>,
    round_trip: Histogram,
    forward: Histogram,
    lost: Family<Reason, Counter>,
    ring_buffer_used: Gauge,
    map_entries: Family<Map, Gauge>,
    followed_one_in: Gauge,
    interfaces: Gauge,
    gap: Family<NoLabel, Gauge<f64, AtomicU64>>,
    pub(super) followers: Gauge,
    pub(super) cut_off: Counter,
    refused: Family<Reason, Counter>,
}

impl Metrics {
    /// `cluster`: where objects are followed; `sizes`: those of the maps in the kernel.
    pub(super) fn new(cluster: Option<watch::Receiver<Cluster>>, sizes: Sizes) -> Self {
        let mut whole = Registry::default();
        whole.register_collector(Box::new(Process));
        let registry = whole.sub_registry_with_prefix(PREFIX);
        if let Some(cluster) = cluster {
            registry.register_collector(Box::new(Followed(cluster)));
        }
        room(registry, sizes);
        Self {
            build: registered(
                registry,
                ("build_info", None),
                "The agent's version, its node, and the hook that its programs run by",
                Family::default(),
            ),
            connections: registered(
                registry,
                ("connections", None),
                "Connections whose outcome is known, by Service, front door and verdict",
                Family::default(),
            ),
            label_sets: AtomicU64::new(0),
            counters: Mutex::default(),
            unexpected: registered(
                registry,
                ("unexpected_connections", None),
                "Connections that came out otherwise than the cluster's objects promise",
                Family::default(),
            ),
            mismatches: registered(
                registry,
                ("mismatched_connections", None),
                "Connections on whose way something does not fit together, by finding",
                Family::default(),
            ),
            round_trip: registered(
                registry,
                ("round_trip", Some(Unit::Seconds)),
                "From a connection's opening packet to its first reply leaving",
                Histogram::new(exponential_buckets(0.000_1, 2.0, 16)),
            ),
            forward: registered(
                registry,
                ("forward", Some(Unit::Seconds)),
                "From a connection's opening packet arriving at this node to its leaving it",
                Histogram::new(exponential_buckets(0.000_002, 2.0, 14)),
            ),
            lost: registered(
                registry,
                ("observations_lost", None),
                "Observations that were lost, by reason",
                Family::default(),
            ),
            ring_buffer_used: registered(
                registry,
                ("ring_buffer_used", Some(Unit::Bytes)),
                "The most that was found in the ring buffer at one reading, since the last look",
                Gauge::default(),
            ),
            map_entries: registered(
                registry,
                ("map_entries", None),
                "Entries in a map of the programs",
                Family::default(),
            ),
            followed_one_in: followed_one_in(registry),
            interfaces: registered(
                registry,
                ("attached_interfaces", None),
                "Interfaces that are observed",
                Gauge::default(),
            ),
            gap: registered(
                registry,
                ("gap", Some(Unit::Seconds)),
                "For how long nobody observed this node before this agent did; absent if not known",
                Family::default(),
            ),
            followers: registered(
                registry,
                ("followers", None),
                "Readers that follow the connections",
                Gauge::default(),
            ),
            cut_off: registered(
                registry,
                ("followers_cut_off", None),
                "Readers that were cut off because they read too slowly",
                Counter::default(),
            ),
            refused: registered(
                registry,
                ("requests_refused", None),
                "Requests that were refused, by reason",
                Family::default(),
            ),
            registry: whole,
        }
    }

    /// Who counts.
    pub(super) fn built(&self, node: &str, hook: &str) {
        let build = Build {
            version: env!("CARGO_PKG_VERSION"),
            node: node.to_owned(),
            hook: hook.to_owned(),
        };
        self.build.get_or_create(&build).set(1);
        self.followed_one_in.set(1);
    }

    /// Counts a connection.
    pub(super) fn count(&self, record: &Record) {
        let mut counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        let counting = counters.of(record, || self.counting(record));
        counting.connections.inc();
        if record.as_expected == Some(false) {
            let family = || self.unexpected.get_or_create(&counting.labels).clone();
            counting.unexpected.get_or_insert_with(family).inc();
        }
        for finding in &record.findings {
            let mismatch = Mismatch {
                namespace: counting.labels.namespace.clone(),
                service: counting.labels.service.clone(),
                finding: word(&finding.code),
            };
            self.mismatches.get_or_create(&mismatch).inc();
        }
        if let Some(round_trip) = record.round_trip_ns {
            self.round_trip.observe(seconds(round_trip));
        }
        for forward in record.path.iter().filter_map(|step| step.forward_ns) {
            self.forward.observe(seconds(forward));
        }
    }

    /// To which counters such connections count.
    fn counting(&self, record: &Record) -> Counting {
        let mut labels = Connections::of(record);
        if self.connections.get(&labels).is_none() {
            // One thread counts: nobody adds a set in between.
            if self.label_sets.load(Ordering::Relaxed) < LABEL_SETS_MAX {
                self.label_sets.fetch_add(1, Ordering::Relaxed);
            } else {
                labels = Connections {
                    service: OTHER.to_owned(),
                    source_ip: labels.source_ip,
                    outcome: labels.outcome,
                    ..Connections::default()
                };
            }
        }
        let connections = self.connections.get_or_create(&labels).clone();
        let Connections {
            namespace,
            service,
            front_door,
            ..
        } = labels;
        Counting {
            connections,
            labels: Unexpected {
                namespace,
                service,
                front_door,
            },
            unexpected: None,
        }
    }

    /// How the run stands now.
    pub(super) fn stands(&self, standing: &Standing) {
        for loss in standing.missed.losses() {
            let counter = self.lost.get_or_create(&Reason {
                reason: loss.reason,
            });
            counter.inc_by(loss.count.saturating_sub(counter.get()));
        }
        let gauge = |value| i64::try_from(value).unwrap_or(i64::MAX);
        self.ring_buffer_used.set(gauge(standing.ring_buffer_used));
        let usage = standing.usage;
        for (map, entries) in [("arrivals", usage.arrivals), ("flows", usage.flows)] {
            self.map_entries
                .get_or_create(&Map { map })
                .set(gauge(entries));
        }
        self.followed_one_in
            .set(i64::from(standing.missed.sampled.one_in()));
        self.interfaces.set(gauge(standing.interfaces.len() as u64));
    }

    /// For how long nobody observed.
    pub(super) fn gap(&self, nanoseconds: u64) {
        self.gap.get_or_create(&[]).set(seconds(nanoseconds));
    }

    /// Counts a request that was refused.
    pub(super) fn refuse(&self, reason: &'static str) {
        self.refused.get_or_create(&Reason { reason }).inc();
    }

    /// All of it in the text format of Prometheus, version 0.0.4.
    pub(super) fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        prometheus_text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

fn registered<M: Metric + Clone>(
    registry: &mut Registry,
    (name, unit): (&str, Option<Unit>),
    help: &str,
    metric: M,
) -> M {
    match unit {
        Some(unit) => registry.register_with_unit(name, help, unit, metric.clone()),
        None => registry.register(name, help, metric.clone()),
    }
    metric
}

/// How many are followed while there are too many.
fn followed_one_in(registry: &mut Registry) -> Gauge {
    registered(
        registry,
        ("followed_one_in", None),
        "Of so many connections that open one is followed: 1, unless there are too many",
        Gauge::default(),
    )
}

/// What the kernel side has room for.
fn room(registry: &mut Registry, sizes: Sizes) {
    let ring_buffer: Gauge = registered(
        registry,
        ("ring_buffer", Some(Unit::Bytes)),
        "The size of the ring buffer between kernel and agent",
        Gauge::default(),
    );
    ring_buffer.set(i64::from(sizes.ring_buffer));
    let map_max_entries: Family<Map, Gauge> = registered(
        registry,
        ("map_max_entries", None),
        "Entries that a map has room for",
        Family::default(),
    );
    for (map, max) in [("arrivals", sizes.pending), ("flows", sizes.flow_entries())] {
        map_max_entries
            .get_or_create(&Map { map })
            .set(i64::from(max));
    }
}

impl Connections {
    fn of(record: &Record) -> Self {
        let service = record.service.as_ref();
        let code = |cause: &Cause| word(&cause.code);
        Self {
            namespace: service.map_or_else(String::new, |service| service.namespace.to_string()),
            service: service.map_or_else(String::new, |service| service.name.to_string()),
            front_door: record
                .front_door
                .kind
                .map_or_else(String::new, |kind| kind.to_string()),
            external_traffic_policy: service
                .and_then(|service| service.external_traffic_policy)
                .map_or_else(String::new, |policy| policy.to_string()),
            source_ip: word(&record.source_ip),
            cause: record.own_cause().map_or_else(String::new, code),
            node_cause: record.node_cause().map_or_else(String::new, code),
            outcome: word(&record.outcome),
            outcome_cause: record
                .outcome_cause
                .as_ref()
                .map_or_else(String::new, |cause| word(&cause.code)),
            extra_hops: record
                .extra_hops
                .map_or_else(String::new, |hops| hops.to_string()),
        }
    }
}

/// A word of the vocabulary, as it is in records.
fn word(word: &impl Serialize) -> String {
    match serde_json::to_value(word) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "nanoseconds below 2^53 are exact, and a latency of a hundred days is none"
)]
fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / NANOSECONDS
}

/// Shared by the thread that observes and the one that serves.
pub(super) type SharedMetrics = Arc<Metrics>;
