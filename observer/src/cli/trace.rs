//! `observer trace`: follow connections live on this node.

use std::future;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use anyhow::{Context as _, bail};
use aya::maps::{MapData, RingBuf};
use clap::Args;
use jiff::{SignedDuration, Timestamp};
use nix::time::{ClockId, clock_gettime};
use observer_ebpf::{ArrivalKey, KernelLayout, ROLE_OPENING};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::cluster::{Index, LocalAddresses, file};
use crate::kernel::layout;
use crate::kernel::links::Links;
use crate::kernel::programs::{Hook, Programs};
use crate::kernel::wait::readable;
use crate::observation::{Moment, Observation};
use crate::observe::{Epoch, Observer};
use crate::output::{Format, Printer, Summary};

/// How often what waits is looked at: the grain of the answer time-out.
const TICK: Duration = Duration::from_millis(100);
/// After this long a reply that arrived and did not leave is taken as meant for this node: the
/// way through a node takes microseconds.
const REPLY_DELIVERED_NS: u64 = 50_000_000;

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
    Duration::try_from(duration).map_err(|_| format!("{text} is negative"))
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
    let (layout, layout_missing) = match layout::from_kernel() {
        Ok(layout) => (layout, None),
        Err(error) => (KernelLayout::UNKNOWN, Some(error)),
    };
    let (mut programs, ring) = Programs::load(&layout, debug_programs)?;
    let mut hook = None;
    for interface in &interfaces {
        hook = Some(programs.attach(interface)?);
    }
    let answer_timeout_ns = u64::try_from(answer_timeout.as_nanos()).unwrap_or(u64::MAX);
    let mut session = Session {
        observer: Observer::new(
            index,
            LocalAddresses::new(node.as_str(), links.addresses()),
            links.names(),
            epoch()?,
            answer_timeout_ns,
        ),
        printer: Printer::new(output),
        summary: Summary::default(),
        remaining: count,
        answer_timeout_ns,
        broken_records: 0,
    };
    if let Some(error) = layout_missing {
        say(&format!(
            "warning: {:#}; without it no rewrite can be followed",
            anyhow::Error::new(error)
        ));
    }
    say(&format!(
        "observing {} on {node} by {}",
        interfaces.join(", "),
        hook.as_ref().map_or_else(String::new, Hook::to_string)
    ));
    session
        .follow(&mut programs, ring, duration, debug_programs)
        .await?;
    session.end(&mut programs)
}

/// One run, from readiness to the summary.
struct Session {
    observer: Observer,
    printer: Printer,
    summary: Summary,
    remaining: Option<u64>,
    answer_timeout_ns: u64,
    broken_records: u64,
}

impl Session {
    /// Until Ctrl-C, SIGTERM, the duration, the count, or a closed stdout.
    async fn follow(
        &mut self,
        programs: &mut Programs,
        ring: RingBuf<MapData>,
        duration: Option<Duration>,
        debug_programs: bool,
    ) -> anyhow::Result<()> {
        let mut ring = readable(ring).context("cannot wait on the ring buffer")?;
        let mut log = debug_programs
            .then(|| programs.logger().context("cannot read the debug lines"))
            .transpose()?
            .map(readable)
            .transpose()
            .context("cannot wait on the debug lines")?;
        let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for Ctrl-C")?;
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut deadline = pin!(async {
            match duration {
                Some(duration) => sleep(duration).await,
                None => future::pending().await,
            }
        });
        while self.remaining != Some(0) && self.printer.is_open() {
            tokio::select! {
                ready = ring.readable_mut() => {
                    let mut ready = ready.context("the ring buffer failed")?;
                    self.drain(ready.get_inner_mut())?;
                    ready.clear_ready();
                }
                _ = tick.tick() => {
                    self.expire(programs, self.answer_timeout_ns)?;
                    let records = self.observer.tick(now()?);
                    self.print(records)?;
                }
                () = async {
                    match &mut log {
                        Some(log) => match log.readable_mut().await {
                            Ok(mut ready) => {
                                ready.get_inner_mut().flush();
                                ready.clear_ready();
                            }
                            Err(_) => future::pending().await,
                        },
                        None => future::pending().await,
                    }
                } => {}
                () = &mut deadline => break,
                _ = interrupt.recv() => break,
                _ = terminate.recv() => break,
            }
        }
        self.drain(ring.get_mut())
    }

    /// What is pending comes out, then the summary.
    fn end(mut self, programs: &mut Programs) -> anyhow::Result<()> {
        self.expire(programs, 0)?;
        let records = self.observer.finish();
        self.print(records)?;
        let counters = programs.counters()?;
        say(&self
            .summary
            .render(&counters, self.observer.losses(), self.broken_records));
        Ok(())
    }

    fn drain(&mut self, ring: &mut RingBuf<MapData>) -> anyhow::Result<()> {
        while let Some(item) = ring.next() {
            match Observation::decode(&item) {
                Ok(observation) => {
                    let record = self.observer.observe(observation);
                    self.print(record)?;
                }
                Err(_) => self.broken_records += 1,
            }
        }
        Ok(())
    }

    /// Hands on what arrived at least `answer_timeout_ns` ago and never left.
    fn expire(&mut self, programs: &mut Programs, answer_timeout_ns: u64) -> anyhow::Result<()> {
        let Moment(now) = now()?;
        let until = |key: &ArrivalKey| {
            let age = if key.role == ROLE_OPENING {
                answer_timeout_ns
            } else {
                REPLY_DELIVERED_NS.min(answer_timeout_ns)
            };
            Moment(now.saturating_sub(age))
        };
        for observation in programs.expire(until)? {
            match observation {
                Ok(observation) => {
                    let record = self.observer.observe(observation);
                    self.print(record)?;
                }
                Err(_) => self.broken_records += 1,
            }
        }
        Ok(())
    }

    fn print(
        &mut self,
        records: impl IntoIterator<Item = crate::record::Record>,
    ) -> anyhow::Result<()> {
        for record in records {
            if self.remaining == Some(0) {
                return Ok(());
            }
            self.remaining = self.remaining.map(|remaining| remaining - 1);
            self.summary.add(&record);
            self.printer
                .print(&record)
                .context("cannot write to stdout")?;
        }
        Ok(())
    }
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

/// One line to stderr; where stderr is closed, nobody reads it.
fn say(line: &str) {
    drop(writeln!(io::stderr(), "{line}"));
}
