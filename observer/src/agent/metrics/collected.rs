//! What is looked up only when somebody asks.

use std::fmt;
use std::time::Instant;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;
use tokio::sync::watch;

use crate::kubernetes::Cluster;

/// The objects, and whether their API is heard.
#[derive(Debug)]
pub(super) struct Followed(pub(super) watch::Receiver<Cluster>);

impl Collector for Followed {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Self(cluster) = self;
        let Cluster {
            snapshot,
            away_since,
            rebuilds,
            ..
        } = cluster.borrow().clone();
        let up = ConstGauge::new(i64::from(away_since.is_none() && snapshot.is_some()));
        up.encode(encoder.encode_descriptor(
            "api_up",
            "Whether the API of the cluster's objects is heard",
            None,
            up.metric_type(),
        )?)?;
        let age = away_since.map_or(0.0, |since: Instant| since.elapsed().as_secs_f64());
        let age = ConstGauge::new(age);
        age.encode(encoder.encode_descriptor(
            "index_age",
            "Since when the objects may have changed unnoticed; 0 while they are followed",
            Some(&Unit::Seconds),
            age.metric_type(),
        )?)?;
        let rebuilds = ConstCounter::new(rebuilds);
        rebuilds.encode(encoder.encode_descriptor(
            "index_rebuilds",
            "How often the objects were made an index",
            None,
            rebuilds.metric_type(),
        )?)?;
        let Some(snapshot) = snapshot else {
            return Ok(());
        };
        let counts = snapshot.index.counts();
        let kinds = [
            ("Service", counts.services),
            ("EndpointSlice", counts.endpoint_slices),
            ("Node", counts.nodes),
            ("Pod", counts.pods),
        ];
        let mut family = encoder.encode_descriptor(
            "cluster_objects",
            "Objects that are known",
            None,
            MetricType::Gauge,
        )?;
        for (kind, count) in kinds {
            let gauge = ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX));
            gauge.encode(family.encode_family(&[("kind", kind)])?)?;
        }
        Ok(())
    }
}

/// What the process itself costs, by the names that every exporter uses.
#[derive(Debug)]
pub(super) struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        // Where /proc is hidden, the rest is still worth serving.
        let Ok(stat) = procfs::process::Process::myself().and_then(|process| process.stat()) else {
            return Ok(());
        };
        #[expect(
            clippy::cast_precision_loss,
            reason = "ticks of processor time, a hundred a second"
        )]
        let cpu = (stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64;
        let cpu = ConstCounter::new(cpu);
        cpu.encode(encoder.encode_descriptor(
            "process_cpu",
            "User and system processor time",
            Some(&Unit::Seconds),
            cpu.metric_type(),
        )?)?;
        if let Ok(started) = procfs::boot_time_secs() {
            let ticks = stat.starttime / procfs::ticks_per_second();
            let started = ConstGauge::new(i64::try_from(started + ticks).unwrap_or(i64::MAX));
            started.encode(encoder.encode_descriptor(
                "process_start_time",
                "When the process started, since 1970",
                Some(&Unit::Seconds),
                started.metric_type(),
            )?)?;
        }
        let resident = stat.rss.saturating_mul(procfs::page_size());
        let resident = ConstGauge::new(i64::try_from(resident).unwrap_or(i64::MAX));
        resident.encode(encoder.encode_descriptor(
            "process_resident_memory",
            "Resident memory",
            Some(&Unit::Bytes),
            resident.metric_type(),
        )?)
    }
}
