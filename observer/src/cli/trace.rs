//! `observer trace`: follow connections live on this node.

mod session;

use std::error::Error;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use jiff::{SignedDuration, Timestamp};
use nix::time::{ClockId, clock_gettime};
use observer_ebpf::KernelLayout;

use self::session::Session;
use crate::cluster::{Index, LocalAddresses, file};
use crate::kernel::layout;
use crate::kernel::links::Links;
use crate::kernel::programs::{Hook, Programs};
use crate::observation::Moment;
use crate::observe::{Epoch, Observer};
use crate::output::{Format, Printer};

#[derive(Debug, Args)]
pub(super) struct Options {
    /// Name of this node, as the cluster calls it [default: the host name].
    #[arg(long, env = "NODE_NAME", value_name = "NAME")]
    node: Option<String>,
    /// A List of the cluster's objects, as `kubectl get services,endpointslices,nodes,pods -A -o
    /// json` prints it. Without it only rewritten connections are reported, and no names.
    #[arg(long, value_name = "FILE")]
    cluster_state: Option<PathBuf>,
    /// Interface to observe; may be repeated [default: chosen by addresses and routes].
    #[arg(long = "interface", value_name = "NAME")]
    interfaces: Vec<String>,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
    /// Stop after this long, counted from readiness: `30s`, `5m`.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    duration: Option<Duration>,
    /// Stop after this many connections.
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// How long after its opening packet a connection counts as unanswered.
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = duration)]
    answer_timeout: Duration,
    /// Print the BPF programs' own debug lines to stderr.
    #[arg(long, hide = true)]
    debug_programs: bool,
}

fn duration(text: &str) -> Result<Duration, String> {
    let duration: SignedDuration = text
        .parse()
        .map_err(|error: jiff::Error| error.to_string())?;
    Duration::try_from(duration).map_err(|_negative| format!("{text} is negative"))
}

pub(super) fn run(options: Options) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?
        .block_on(trace(options))
}

async fn trace(options: Options) -> anyhow::Result<()> {
    let Options {
        node,
        cluster_state,
        interfaces,
        output,
        duration,
        count,
        answer_timeout,
        debug_programs,
    } = options;
    let index = cluster_state
        .map(|path| file::read(&path).map(|objects| Index::build(&objects)))
        .transpose()?;
    if !nix::unistd::geteuid().is_root() {
        bail!("observing needs root, or CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN: run it with sudo");
    }
    let node = node.map_or_else(host_name, Ok)?;
    let links = Links::read().await?;
    let interfaces = choose(&links, interfaces, index.as_ref())?;
    if debug_programs {
        env_logger::builder()
            .filter_level(log::LevelFilter::Debug)
            .init();
    }
    let layout = layout::from_kernel().unwrap_or_else(|error| {
        warn(&error, "no rewrite can be followed");
        KernelLayout::UNKNOWN
    });
    let (mut programs, ring) = Programs::load(&layout, debug_programs)?;
    let mut hook = None;
    for interface in &interfaces {
        hook = Some(programs.attach(interface)?);
    }
    let answer_timeout_ns = u64::try_from(answer_timeout.as_nanos()).unwrap_or(u64::MAX);
    let observer = Observer::new(
        index,
        LocalAddresses::new(node.as_str(), links.addresses()),
        links.names(),
        epoch()?,
        answer_timeout_ns,
    );
    let printer = Printer::new(output);
    let mut session = Session::new(programs, observer, printer, count, answer_timeout_ns);
    say(&format!(
        "observing {} on {node} by {}",
        interfaces.join(", "),
        hook.as_ref().map_or_else(String::new, Hook::to_string)
    ));
    session.follow(ring, duration, debug_programs).await?;
    say(&session.end()?);
    Ok(())
}

/// The interfaces asked for, if they exist; else those that the node's routes point out.
fn choose(links: &Links, asked: Vec<String>, index: Option<&Index>) -> anyhow::Result<Vec<String>> {
    let names = || {
        let names: Vec<_> = links.iter().map(|(_, link)| link.name.as_str()).collect();
        names.join(", ")
    };
    if let Some(unknown) = asked.iter().find(|name| !links.contains(name)) {
        bail!("there is no interface {unknown}; this node has {}", names());
    }
    if !asked.is_empty() {
        return Ok(asked);
    }
    let is_node =
        |ip| index.is_some_and(|index| index.nodes().any(|node| node.addresses.contains(&ip)));
    let chosen: Vec<_> = links
        .chosen(is_node)
        .into_iter()
        .map(|(name, _)| name.to_owned())
        .collect();
    if chosen.is_empty() {
        bail!(
            "no interface carries a default route, a Node address or a route to a pod; choose \
             with --interface from {}",
            names()
        );
    }
    Ok(chosen)
}

fn host_name() -> anyhow::Result<String> {
    let name = nix::unistd::gethostname().context("cannot read the host name; give --node")?;
    name.into_string()
        .ok()
        .context("the host name is not UTF-8; give --node")
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

/// What does not work, and what follows from that.
fn warn(error: &(dyn Error + 'static), so: &str) {
    let causes: Vec<_> = std::iter::successors(Some(error), |&error| error.source())
        .map(ToString::to_string)
        .collect();
    say(&format!("warning: {}: {so}", causes.join(": ")));
}

/// One line to stderr; where stderr is closed, nobody reads it.
fn say(line: &str) {
    drop(writeln!(io::stderr(), "{line}"));
}
