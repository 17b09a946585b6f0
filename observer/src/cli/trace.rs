//! `observer trace`: follow connections live on this node.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use jiff::SignedDuration;
use tokio::time::Instant;

use super::filter::FILTERS;
use super::report::{Report, ReportOptions};
use super::{Ending, ask, host_name, names};
use crate::cluster::{Index, KubeProxy, Objects, Snapshot, file};
use crate::kernel::capabilities;
use crate::kernel::layout::SYSFS;
use crate::kernel::programs::Hook;
use crate::live::{self, Attached, Begin, Ended, Knowledge, Setup, Sink};
use crate::notice::{say, warn};
use crate::observation::Moment;
use crate::observe::Settings;
use crate::record::Record;
use crate::recording::{Header, Writer};

/// How many interfaces the line of readiness names.
const NAMES_SHOWN: usize = 8;

#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    report: ReportOptions,
    /// Also connections that are none of a Service's: from pods to outside the cluster, to
    /// listeners of the host, between pods, the outer packets of tunnels; and those that existed
    /// before.
    #[arg(long, conflicts_with = "unexpected", help_heading = FILTERS)]
    all: bool,
    /// Name of this node, as the cluster calls it [default: the host name].
    #[arg(long, env = "NODE_NAME", value_name = "NAME")]
    node: Option<String>,
    /// A List of the cluster's objects, as `kubectl get
    /// services,endpointslices,nodes,pods,configmaps -A -o json` prints it. Without it only
    /// rewritten connections are reported, and no names.
    #[arg(long, value_name = "FILE")]
    cluster_state: Option<PathBuf>,
    /// kube-proxy's configuration, a `KubeProxyConfiguration` [default: the `ConfigMap` in the
    /// cluster state, else what kube-proxy itself serves at 127.0.0.1:10249].
    #[arg(long, value_name = "FILE")]
    kube_proxy_config: Option<PathBuf>,
    /// Interface to observe; may be repeated [default: chosen by addresses and routes].
    #[arg(long = "interface", value_name = "NAME")]
    interfaces: Vec<String>,
    /// Stop after this long, counted from readiness: `30s`, `5m`.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    duration: Option<Duration>,
    /// How long after its opening packet a connection counts as unanswered.
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = answer_timeout)]
    answer_timeout: Duration,
    /// Record what the verdicts rest on, for `observer replay`. The file holds clients' addresses.
    #[arg(long, value_name = "FILE")]
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
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?
        .block_on(trace(options))
}

async fn trace(options: Options) -> anyhow::Result<Ending> {
    let Options {
        report,
        all,
        node,
        cluster_state,
        kube_proxy_config,
        interfaces,
        duration,
        answer_timeout,
        record,
        hook,
        sysfs,
        debug_programs,
    } = options;
    let objects = cluster_state.map(|path| file::objects(&path)).transpose()?;
    let node = node.map_or_else(host_name, Ok)?;
    names::node(&node, objects.as_ref())?;
    if let Some(but) = report.unusual_service(objects.as_ref())? {
        say(&format!("warning: {but}"));
    }
    let kube_proxy = match (&kube_proxy_config, &objects) {
        (Some(path), _) => Some(file::kube_proxy(path)?),
        (None, Some(objects)) => configured(objects).or_else(asked),
        // Nothing is judged by it.
        (None, None) => None,
    };
    let settings = Settings {
        node: node.clone(),
        epoch: live::epoch()?,
        answer_timeout_ns: u64::try_from(answer_timeout.as_nanos()).unwrap_or(u64::MAX),
        all,
        follows_cluster: false,
    };
    // Told before anything is made.
    capabilities::check()?;
    let recorder = record
        .map(|path| {
            let header = Header::new(settings.clone(), kube_proxy.clone(), objects.as_ref());
            Writer::create(&path, &header)
        })
        .transpose()?;
    if debug_programs {
        env_logger::builder()
            .filter_level(log::LevelFilter::Debug)
            .init();
    }
    let cluster = objects.map(|objects| {
        let index = Index::build(&objects);
        Arc::new(Snapshot::new(index, kube_proxy))
    });
    let setup = Setup {
        interfaces,
        hook,
        sysfs,
        debug_programs,
    };
    let knowledge = Knowledge {
        cluster,
        changes: None,
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
    fn take(&mut self, _opened_at: Option<Moment>, record: Box<Record>) -> anyhow::Result<()> {
        Self::take(self, &record)
    }

    fn is_done(&self) -> bool {
        Self::is_done(self)
    }
}

/// kube-proxy's configuration as the cluster's objects have it.
pub(super) fn configured(objects: &Objects) -> Option<KubeProxy> {
    KubeProxy::of_cluster(&objects.config_maps).unwrap_or_else(|error| {
        warn(
            &error,
            "the ConfigMap of kube-proxy is not taken into account",
        );
        None
    })
}

/// kube-proxy's configuration as it tells it itself, on this node.
pub(super) fn asked() -> Option<KubeProxy> {
    match ask::configuration(ask::METRICS_ADDRESS) {
        Ok(configuration) => {
            if configuration.is_some() {
                say(&format!(
                    "kube-proxy's configuration is the one that it serves at {}",
                    ask::METRICS_ADDRESS
                ));
            }
            configuration
        }
        Err(error) => {
            say(&format!(
                "warning: kube-proxy at {}: {error}: its configuration is not taken into account",
                ask::METRICS_ADDRESS
            ));
            None
        }
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
