//! `observer trace`: follow connections live on this node, or on all ([`across`]).

mod across;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use jiff::SignedDuration;
use tokio::time::Instant;

use self::across::AgentOptions;
use super::filter::FILTERS;
use super::payload::PayloadOptions;
use super::report::{Report, ReportOptions};
use super::sizes::SizeOptions;
use super::source::ClusterSource;
use super::{Ending, block_on, host_name, names};
use crate::kernel::capabilities;
use crate::kernel::layout::SYSFS;
use crate::kernel::programs::Hook;
use crate::live::{self, Attached, Begin, Ended, Setup, Sink};
use crate::notice::say;
use crate::observation::Moment;
use crate::observe::{Asking, Settings};
use crate::record::Record;
use crate::recording::{Header, Writer};

/// How long the API server has to tell of the cluster before anything is observed without it.
const PATIENCE: Duration = Duration::from_secs(10);
/// How many interfaces the line of readiness names.
const NAMES_SHOWN: usize = 8;

#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    report: ReportOptions,
    /// Also connections that are none of a Service's: from pods to outside the cluster, to
    /// listeners of the host, between pods, the outer packets of tunnels; and those that existed
    /// before.
    #[arg(long, conflicts_with_all = ["unexpected", "cluster"], help_heading = FILTERS)]
    all: bool,
    #[command(flatten)]
    agents: AgentOptions,
    /// Name of this node, as the cluster calls it [default: the host name].
    #[arg(long, env = "NODE_NAME", value_name = "NAME")]
    node: Option<String>,
    #[command(flatten)]
    source: ClusterSource,
    /// Interface to observe; may be repeated [default: chosen by addresses and routes].
    #[arg(long = "interface", value_name = "NAME", conflicts_with = "cluster")]
    interfaces: Vec<String>,
    /// Stop after this long, counted from readiness: `30s`, `5m`.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    duration: Option<Duration>,
    /// How long after its opening packet a connection counts as unanswered. With --cluster: what
    /// the agents were given; for so long and two seconds a record waits for its other half.
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = answer_timeout)]
    answer_timeout: Duration,
    #[command(flatten)]
    payload: PayloadOptions,
    #[command(flatten)]
    sizes: SizeOptions,
    /// Record what the verdicts rest on, for `observer replay`. The file holds clients' addresses.
    #[arg(long, value_name = "FILE", conflicts_with = "cluster")]
    record: Option<PathBuf>,
    /// Attach by this hook or not at all.
    #[arg(long, value_enum, hide = true)]
    hook: Option<Hook>,
    /// Where the kernel shows itself and its types, if its own sysfs is mounted elsewhere.
    #[arg(long, hide = true, value_name = "DIRECTORY", default_value = SYSFS)]
    sysfs: PathBuf,
    /// Print the BPF programs' own debug lines to stderr.
    #[arg(long, hide = true)]
    debug_programs: bool,
}

/// A shorter one would end what is still on its way through the node.
const ANSWER_TIMEOUT_MIN: Duration = Duration::from_millis(100);
/// After a longer one conntrack may have forgotten what was not answered (UDP: 30 s, TCP: 120 s),
/// which would then look as if a rule had dropped it.
const ANSWER_TIMEOUT_MAX: Duration = Duration::from_secs(25);

pub(super) fn answer_timeout(text: &str) -> Result<Duration, String> {
    let timeout = duration(text)?;
    if !(ANSWER_TIMEOUT_MIN..=ANSWER_TIMEOUT_MAX).contains(&timeout) {
        return Err(format!(
            "it must be from {ANSWER_TIMEOUT_MIN:?} to {ANSWER_TIMEOUT_MAX:?}"
        ));
    }
    Ok(timeout)
}

fn duration(text: &str) -> Result<Duration, String> {
    let duration: SignedDuration = text
        .parse()
        .map_err(|error: jiff::Error| error.to_string())?;
    Duration::try_from(duration).map_err(|_negative| format!("{text} is negative"))
}

pub(super) fn run(options: Options) -> anyhow::Result<Ending> {
    block_on(trace(options))
}

async fn trace(options: Options) -> anyhow::Result<Ending> {
    let Options {
        report,
        all,
        agents,
        node,
        source,
        interfaces,
        duration,
        answer_timeout,
        payload,
        sizes,
        record,
        hook,
        sysfs,
        debug_programs,
    } = options;
    if agents.cluster {
        return across::across(agents, &source, report, answer_timeout, duration).await;
    }
    // Told before anything is asked.
    capabilities::check()?;
    let node = node.map_or_else(host_name, Ok)?;
    let first_bytes = Asking::from(payload);
    let knowledge = source
        .knowledge(&node, first_bytes.reads(), PATIENCE)
        .await?;
    let known = knowledge.cluster.as_deref();
    let objects = known.and_then(|cluster| cluster.objects.as_ref());
    names::node(&node, objects)?;
    if let Some(but) = report.unusual_service(objects)? {
        say(&format!("warning: {but}"));
    }
    let settings = Settings {
        node: node.clone(),
        epoch: live::epoch()?,
        answer_timeout_ns: u64::try_from(answer_timeout.as_nanos()).unwrap_or(u64::MAX),
        all,
        follows_cluster: knowledge.changes.is_some(),
        first_bytes,
    };
    let recorder = record
        .map(|path| {
            let kube_proxy = known.and_then(|cluster| cluster.kube_proxy.clone());
            let mut header = Header::new(settings.clone(), kube_proxy, objects);
            header.readers = known.map_or_else(Vec::new, |cluster| cluster.readers.clone());
            Writer::create(&path, &header)
        })
        .transpose()?;
    if debug_programs {
        env_logger::builder()
            .filter_level(log::LevelFilter::Debug)
            .init();
    }
    let setup = Setup {
        interfaces,
        hook,
        sysfs,
        debug_programs,
        sizes: sizes.into(),
    };
    let (session, ring, Attached { interfaces, hook }) = setup
        .attach(settings, knowledge, recorder, Report::new(report))
        .await?;
    let ready = Instant::now();
    say(&format!(
        "observing {} on {node} by {}",
        listed(&interfaces),
        hook.as_ref().map_or_else(String::new, Hook::to_string)
    ));
    let until = duration.map(|duration| ready + duration);
    let begin = if all { Begin::WithExisting } else { Begin::Now };
    let Ended {
        sink: report,
        missed,
        ..
    } = session.follow(ring, begin, until).await?;
    say(&report.summary(Some(missed)));
    Ok(report.ending())
}

impl Sink for Report {
    fn take(&mut self, _opened_at: Option<Moment>, record: Arc<Record>) -> anyhow::Result<()> {
        Self::take(self, &record)
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        Self::flush(self)
    }

    fn is_done(&self) -> bool {
        Self::is_done(self)
    }
}

/// The first few of `names`: a node may have hundreds.
fn listed(names: &[String]) -> String {
    match names.get(NAMES_SHOWN..) {
        Some(more @ [_, ..]) => {
            format!(
                "{} and {} more",
                names[..NAMES_SHOWN].join(", "),
                more.len()
            )
        }
        _ => names.join(", "),
    }
}
