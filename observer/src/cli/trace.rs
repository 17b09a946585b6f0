//! `observer trace`: follow connections live on this node.

mod interfaces;
mod session;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use jiff::{SignedDuration, Timestamp};
use nix::time::{ClockId, clock_gettime};
use observer_ebpf::KernelLayout;
use tokio::time::Instant;

pub(super) use self::interfaces::Whereabouts;
use self::interfaces::{Choice, Interfaces};
use self::session::{Awaited, Begin, Parts, Session, Stop};
use super::filter::FILTERS;
use super::report::{Report, ReportOptions};
use super::{Ending, ask, host_name, names, say, warn};
use crate::cluster::{IPVS_DEVICE, Index, KubeProxy, Objects, Protocol, file};
use crate::kernel::capabilities;
use crate::kernel::drops::DropReasons;
use crate::kernel::layout::{LayoutError, Resolver, SYSFS};
use crate::kernel::links::Links;
use crate::kernel::programs::{self, Hook, Programs, UdpPorts};
use crate::observation::Moment;
use crate::observe::{Epoch, Observer, Settings};
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

fn answer_timeout(text: &str) -> Result<Duration, String> {
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
    let index = objects
        .as_ref()
        .map(|objects| Arc::new(Index::build(objects)));
    capabilities::check()?;
    let answer_timeout_ns = u64::try_from(answer_timeout.as_nanos()).unwrap_or(u64::MAX);
    let settings = Settings {
        node: node.clone(),
        epoch: epoch()?,
        answer_timeout_ns,
        all,
    };
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
    let (layout, awaited) = layout(Resolver::new(sysfs.clone()))?;
    // Before anything is attached, so that nothing stays when the run is ended early.
    let stop = Stop::new()?;
    match programs::sweep() {
        Ok(0) => {}
        Ok(swept) => say(&format!(
            "removed {swept} filters of an observer that was killed"
        )),
        Err(error) => warn(&error, "filters of an observer that was killed may remain"),
    }
    let (mut programs, ring) = Programs::load(debug_programs)?;
    if let Some(hook) = hook {
        programs.only_by(hook);
    }
    if let Some(layout) = &layout {
        programs.set_layout(layout)?;
    }
    note_drops(&mut programs, &sysfs);
    programs.follow_udp(&match &index {
        Some(index) if !all => UdpPorts::Only(index.ports(Protocol::Udp)),
        // What is a front door, nobody knows; or all is asked for.
        _ => UdpPorts::All,
    })?;
    let interfaces = Interfaces::new(Choice(interfaces), index.clone());
    let links = Links::read().await?;
    if index.is_some() && kube_proxy.is_none() {
        warn_of_ipvs(&links);
    }
    let parts = Parts {
        programs,
        observer: Observer::new(settings, index, kube_proxy),
        report: Report::new(report),
        recorder,
        awaited,
        answer_timeout_ns,
    };
    let mut session = Session::new(parts, interfaces);
    let (names, hook) = session.attach(&links)?;
    let ready = Instant::now();
    say(&format!(
        "observing {} on {node} by {}",
        listed(&names),
        hook.as_ref().map_or_else(String::new, Hook::to_string)
    ));
    let until = duration.map(|duration| ready + duration);
    let begin = if all { Begin::WithExisting } else { Begin::Now };
    session
        .follow(ring, begin, until, stop, debug_programs)
        .await?;
    let report = session.end()?;
    Ok(report.ending())
}

/// kube-proxy's configuration as the cluster's objects have it.
fn configured(objects: &Objects) -> Option<KubeProxy> {
    KubeProxy::of_cluster(&objects.config_maps).unwrap_or_else(|error| {
        warn(
            &error,
            "the ConfigMap of kube-proxy is not taken into account",
        );
        None
    })
}

/// kube-proxy's configuration as it tells it itself, on this node.
fn asked() -> Option<KubeProxy> {
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

/// Without a word of kube-proxy's configuration its default mode is expected.
fn warn_of_ipvs(links: &Links) {
    if links.find(IPVS_DEVICE).is_some() {
        say(&format!(
            "warning: {IPVS_DEVICE} is here, as in kube-proxy's IPVS mode, but its configuration is \
             not known: iptables mode is expected; give --kube-proxy-config"
        ));
    }
}

/// Evidence only, and no condition: where it is not to be had, `observer doctor` says why.
fn note_drops(programs: &mut Programs, sysfs: &Path) {
    if let Ok(reasons) = DropReasons::read(sysfs) {
        let _doctor_says_why = programs.note_drops(reasons);
    }
}

/// Where conntrack keeps its entries, and what is missing until its module is loaded.
fn layout(resolver: Resolver) -> anyhow::Result<(Option<KernelLayout>, Option<Awaited>)> {
    match resolver.resolve() {
        Ok(layout) => {
            let is_loaded = resolver.is_loaded();
            let awaited = (!is_loaded).then_some(Awaited::Module(resolver));
            Ok((Some(layout), awaited))
        }
        Err(error @ LayoutError::NotLoaded) => {
            warn(&error, "until it is, nothing is rewritten here");
            Ok((None, Some(Awaited::Types(resolver))))
        }
        Err(error) if error.is_harmless() => {
            warn(&error, "nothing is rewritten here");
            Ok((None, None))
        }
        // A rewrite that cannot be followed would be told as no rewrite.
        Err(error) => Err(error.into()),
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

fn now() -> anyhow::Result<Moment> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).context("cannot read the clock")?;
    let nanoseconds = Duration::from(now).as_nanos();
    Ok(Moment(u64::try_from(nanoseconds).unwrap_or(u64::MAX)))
}

/// The wall clock at the kernel's moment 0.
fn epoch() -> anyhow::Result<Epoch> {
    let Moment(monotonic) = now()?;
    let elapsed = SignedDuration::from_nanos(i64::try_from(monotonic).unwrap_or(i64::MAX));
    let epoch = Timestamp::now()
        .checked_sub(elapsed)
        .context("the clock reads before 1970")?;
    Ok(Epoch(epoch))
}
