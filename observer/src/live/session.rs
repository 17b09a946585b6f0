//! One run, from readiness to the summary.

use std::future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use aya::maps::{MapData, RingBuf};
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};

use super::Sink;
use super::clock::now;
use super::crowded::Crowded;
use super::first_bytes::FirstBytes;
use super::found::Found;
use super::interfaces::Interfaces;
use super::missed::{Lost, Missed, Standing};
use super::pace::Pace;
use super::rewritten::Rewritten;
use super::sampling::Sampler;
use crate::cluster::{LocalAddresses, Snapshot};
use crate::kernel::conntrack::Conntrack;
use crate::kernel::layout::Resolver;
use crate::kernel::links::Links;
use crate::kernel::programs::{Hook, NotTold, Programs};
use crate::kernel::wait::readable;
use crate::kubernetes::Cluster;
use crate::notice::warn;
use crate::observation::Moment;
use crate::observe::{Asking, Epoch, Event, Observer, Whose};
use crate::recording::Writer;

mod reading;
mod ticks;

/// How often what waits is looked at: the grain of the answer time-out.
const TICK: Duration = Duration::from_millis(100);
/// How often conntrack's module is looked for while it is not loaded.
const MODULE_TICK: Duration = Duration::from_secs(1);
/// Questions to conntrack in one tick, so that a flood of dropped packets does not become a
/// flood of questions. One takes some ten microseconds.
const LOOK_UPS_PER_TICK: u32 = 500;

/// What is missing while conntrack's module is not loaded.
pub(super) enum Awaited {
    /// Only the module: its types are the kernel's own.
    Module(Resolver),
    /// Its types too.
    Types(Resolver),
}

/// What a run works with.
pub(super) struct Parts<S> {
    pub(super) programs: Programs,
    pub(super) observer: Observer,
    /// The latest that the observer was told of.
    pub(super) cluster: Option<Arc<Snapshot>>,
    /// How many sources the programs were not told of, by that.
    pub(super) sources_left_out: usize,
    pub(super) away_since: Option<Moment>,
    /// As the observer was last told.
    pub(super) epoch: Epoch,
    pub(super) changes: Option<watch::Receiver<Cluster>>,
    pub(super) interfaces: Interfaces,
    /// The size of the ring buffer in bytes.
    pub(super) ring_buffer: u32,
    pub(super) sink: S,
    /// As the observer's.
    pub(super) all: bool,
    /// As the observer's.
    pub(super) asking: Asking,
    /// As the observer's.
    pub(super) local: LocalAddresses,
    pub(super) recorder: Option<Writer>,
    /// Set while conntrack's module is not loaded. Asking conntrack would load it.
    pub(super) awaited: Option<Awaited>,
    /// As the observer's.
    pub(super) answer_timeout_ns: u64,
}

/// What a run waits on.
pub struct Ring {
    pub(super) observations: RingBuf<MapData>,
    pub(super) segments: Option<RingBuf<MapData>>,
    pub(super) stop: Stop,
    pub(super) debug_programs: bool,
}

/// Where clients' first bytes come, if they are asked for.
type Segments = Option<AsyncFd<RingBuf<MapData>>>;

/// The signals that end a run cleanly; from its making on, they no longer kill.
#[derive(Debug)]
pub struct Stop {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Stop {
    pub(super) fn new() -> anyhow::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).context("cannot listen for Ctrl-C")?,
            terminate: signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?,
            hangup: signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?,
        })
    }
}

/// With what a run begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// With what comes.
    Now,
    /// With the connections that conntrack holds already.
    WithExisting,
}

/// How far the ring buffer is read.
#[derive(Clone, Copy, Debug)]
enum Read {
    /// To its end, at this moment or later.
    Whole(Moment),
    /// To an observation of this moment; more is there.
    Until(Moment),
}

impl Read {
    /// Nothing of before this moment is still to be read.
    const fn moment(self) -> Moment {
        match self {
            Self::Whole(moment) | Self::Until(moment) => moment,
        }
    }
}

/// What is under way.
pub struct Session<S> {
    parts: Parts<S>,
    conntrack: Option<Conntrack>,
    look_ups_left: u32,
    not_told: NotTold,
    /// As many as were known by then.
    undecodable: u64,
    found: Found,
    crowded: Crowded,
    sampler: Sampler,
    is_ipvs_told: bool,
    first_bytes: FirstBytes,
    rewritten: Rewritten,
    lost: Lost,
}

/// How a run ended.
#[derive(Debug)]
pub struct Ended<S> {
    /// Where its records went.
    pub sink: S,
    /// What it missed.
    pub missed: Missed,
}

impl<S: Sink> Session<S> {
    pub(super) fn new(parts: Parts<S>) -> Self {
        let conntrack = match parts.awaited {
            None => open_conntrack(),
            Some(_) => None,
        };
        // Of what passes by another interface nothing is known.
        let is_asked = parts.asking.whose != Whose::Off && parts.interfaces.are_all();
        let sampler = Sampler::new(parts.ring_buffer);
        Self {
            parts,
            conntrack,
            look_ups_left: LOOK_UPS_PER_TICK,
            not_told: NotTold::default(),
            undecodable: 0,
            found: Found::default(),
            crowded: Crowded::new(),
            sampler,
            is_ipvs_told: false,
            first_bytes: FirstBytes::new(),
            rewritten: Rewritten::new(is_asked),
            lost: Lost::default(),
        }
    }

    /// Attaches to the chosen ones of `links`; gives their names and the hook that they run by.
    pub(super) fn attach(&mut self, links: &Links) -> anyhow::Result<(Vec<String>, Option<Hook>)> {
        let Parts {
            interfaces,
            programs,
            ..
        } = &mut self.parts;
        let attached = interfaces.attach(programs, links)?;
        self.parts.sink.attached(now()?);
        self.look_for_ipvs(links);
        self.feed(Event::Interfaces(links.interfaces()))?;
        Ok(attached)
    }

    /// Until Ctrl-C, SIGTERM, a closed terminal, the given moment, or until the sink is done. What
    /// is pending then comes out.
    pub async fn follow(
        mut self,
        ring: Ring,
        begin: Begin,
        until: Option<Instant>,
    ) -> anyhow::Result<Ended<S>> {
        let Ring {
            observations,
            segments,
            stop,
            debug_programs,
        } = ring;
        let mut segments = segments
            .map(readable)
            .transpose()
            .context("cannot wait on the ring buffer of first bytes")?;
        let mut ring = readable(observations).context("cannot wait on the ring buffer")?;
        let mut log = debug_programs
            .then(|| {
                self.parts
                    .programs
                    .logger()
                    .context("cannot read the debug lines")
            })
            .transpose()?
            .map(readable)
            .transpose()
            .context("cannot wait on the debug lines")?;
        let Stop {
            mut interrupt,
            mut terminate,
            mut hangup,
        } = stop;
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut module_tick = interval(MODULE_TICK);
        module_tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut deadline = pin!(async {
            match until {
                Some(until) => sleep_until(until).await,
                None => future::pending().await,
            }
        });
        if begin == Begin::WithExisting {
            self.read_existing(ring.get_mut(), &mut segments)?;
        }
        let standing_interval = self.parts.sink.standing_interval();
        let mut standing_tick = interval(standing_interval.unwrap_or(MODULE_TICK));
        standing_tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut pace = Pace::new(self.parts.ring_buffer);
        while !self.parts.sink.is_done() {
            tokio::select! {
                ready = ring.readable_mut() => {
                    let mut ready = ready.context("the ring buffer failed")?;
                    if let Read::Whole(_) = self.read(ready.get_inner_mut(), &mut segments)? {
                        ready.clear_ready();
                        pace.read(self.found.last());
                    }
                }
                () = has_segments(&mut segments) => self.read_segments(&mut segments)?,
                _ = tick.tick() => self.tick(ring.get_mut(), &mut segments).await?,
                () = changed(&mut self.parts.changes) => self.cluster_changed()?,
                _ = standing_tick.tick(), if standing_interval.is_some() => {
                    let standing = self.standing()?;
                    self.parts.sink.standing(&standing);
                }
                _ = module_tick.tick(), if self.parts.awaited.is_some() => {
                    self.look_for_conntrack()?;
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
                _ = hangup.recv() => break,
            }
            self.parts.sink.flush()?;
            pace.wait();
        }
        let end = now()?;
        if self.parts.sink.ends(end) {
            self.see_through(&mut ring, &mut segments, end).await?;
        }
        self.end(ring.get_mut(), &mut segments)
    }

    /// Goes on until nothing waits any more that was opened before this moment: an answer time-out
    /// at most.
    async fn see_through(
        &mut self,
        ring: &mut AsyncFd<RingBuf<MapData>>,
        segments: &mut Segments,
        end: Moment,
    ) -> anyhow::Result<()> {
        let at_most =
            Instant::now() + Duration::from_nanos(self.parts.answer_timeout_ns) + 2 * TICK;
        while Instant::now() < at_most && !self.parts.observer.is_through_with(end) {
            sleep(TICK).await;
            self.tick(ring.get_mut(), segments).await?;
            self.parts.sink.flush()?;
        }
        Ok(())
    }

    /// Everything of before this moment is read, and what is pending comes out.
    fn end(
        mut self,
        ring: &mut RingBuf<MapData>,
        segments: &mut Segments,
    ) -> anyhow::Result<Ended<S>> {
        let end = now()?;
        self.look_ups_left = LOOK_UPS_PER_TICK;
        while self.read(ring, segments)?.moment() < end {}
        self.read_segments(segments)?;
        self.notice_losses()?;
        self.expire(end, 0)?;
        self.feed(Event::End)?;
        self.parts.sink.flush()?;
        if let Some(recorder) = &mut self.parts.recorder {
            recorder.flush()?;
        }
        let Standing { missed, .. } = self.standing()?;
        Ok(Ended {
            sink: self.parts.sink,
            missed,
        })
    }
}

impl Awaited {
    const fn resolver(&self) -> &Resolver {
        match self {
            Self::Module(resolver) | Self::Types(resolver) => resolver,
        }
    }
}

/// Until clients' first bytes are there to be read; for ever, if they are not asked for.
async fn has_segments(segments: &mut Segments) {
    match segments {
        Some(segments) => match segments.readable_mut().await {
            // A ring buffer tells of each item that comes while all before it were read.
            Ok(mut ready) => ready.clear_ready(),
            Err(_) => future::pending().await,
        },
        None => future::pending().await,
    }
}

/// Until the cluster is another; for ever, if nobody tells of it any more.
async fn changed(changes: &mut Option<watch::Receiver<Cluster>>) {
    if let Some(receiver) = changes
        && receiver.changed().await.is_ok()
    {
        return;
    }
    *changes = None;
    future::pending::<()>().await;
}

fn open_conntrack() -> Option<Conntrack> {
    Conntrack::open()
        .inspect_err(|error| {
            warn(
                error,
                "what was dropped cannot be told from what was not answered",
            );
        })
        .ok()
}
