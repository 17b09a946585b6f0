//! One run, from readiness to the summary.

use std::collections::VecDeque;
use std::future;
use std::mem;
use std::ops::ControlFlow;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use aya::maps::{MapData, RingBuf};
use jiff::SignedDuration;
use observer_ebpf::{ArrivalKey, ROLE_OPENING};
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};

use super::asked::Asked;
use super::clock::{epoch, moment, now};
use super::first_bytes::{FirstBytes, Told};
use super::interfaces::Interfaces;
use super::missed::{Lost, Missed, Standing};
use super::pace::Pace;
use super::rewritten::{Rewritten, rewritten};
use super::sampling::{Load, Sampler};
use super::{Sink, udp_ports};
use crate::cluster::{IPVS_DEVICE, LocalAddresses, Snapshot};
use crate::kernel::conntrack::{self, Conntrack};
use crate::kernel::layout::{LayoutError, Resolver};
use crate::kernel::links::Links;
use crate::kernel::netfilter::NetfilterError;
use crate::kernel::programs::{Counters, Hook, NotTold, Programs};
use crate::kernel::wait::readable;
use crate::kubernetes::Cluster;
use crate::notice::{say, warn};
use crate::observation::Conntrack::Untracked;
use crate::observation::{self, Entry, Identity, Moment, Observation, Segment};
use crate::observe::{Asking, Epoch, Event, Observer, Output, Whose};
use crate::payload::Reading;
use crate::recording::Writer;

/// How often what waits is looked at: the grain of the answer time-out.
const TICK: Duration = Duration::from_millis(100);
/// How often conntrack's module is looked for while it is not loaded.
const MODULE_TICK: Duration = Duration::from_secs(1);
/// After this long an answer that arrived and did not leave is taken as meant for this node: the
/// way through a node takes microseconds, mostly. One that leaves later is told all the same.
const ANSWER_DELIVERED_NS: u64 = 50_000_000;
/// Questions to conntrack in one tick, so that a flood of dropped packets does not become a
/// flood of questions. One takes some ten microseconds.
const LOOK_UPS_PER_TICK: u32 = 500;
/// Observations read at a stretch, so that a flood of them keeps nothing else waiting: a whole
/// ring buffer.
const READ_MAX: u32 = 8_192;

/// A clock that is off by less since it was last told of is not told.
const CLOCK_STEP: SignedDuration = SignedDuration::from_millis(50);
/// Of each item in a ring buffer, beside what is in it (`BPF_RINGBUF_HDR_SZ`).
const ITEM_HEADER_BYTES: u64 = 8;

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
    /// The most bytes that one reading found, since it was last told.
    ring_buffer_used: u64,
    /// The same since the last tick.
    used_in_tick: u64,
    /// What the last reading found.
    last_found: u64,
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
        Self {
            parts,
            conntrack,
            look_ups_left: LOOK_UPS_PER_TICK,
            not_told: NotTold::default(),
            undecodable: 0,
            ring_buffer_used: 0,
            used_in_tick: 0,
            last_found: 0,
            sampler: Sampler::new(),
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

    /// Another interface has an address that a process of this node may connect from.
    fn interfaces_changed(&mut self, interfaces: observation::Interfaces) -> anyhow::Result<()> {
        let local = self.parts.local.node();
        self.parts.local = LocalAddresses::new(local, interfaces.addresses.iter().copied());
        self.ask_for_first_bytes()?;
        self.feed(Event::Interfaces(interfaces))
    }

    /// Tells the programs whose first bytes are asked for now.
    fn ask_for_first_bytes(&mut self) -> anyhow::Result<()> {
        let Parts {
            asking,
            cluster,
            all,
            local,
            ..
        } = &self.parts;
        let asked = Asked::of(asking, cluster.as_deref(), *all, local);
        asked.tell(self.parts.sources_left_out);
        self.parts.sources_left_out = asked.left_out;
        self.parts.programs.hand_on(&asked.first_bytes)?;
        Ok(())
    }

    /// Tells the observer of the connections that exist already; there are none while conntrack's
    /// module is not loaded. What came while they were read is told before them, so that none is
    /// told twice.
    fn read_existing(&mut self, ring: &mut RingBuf<MapData>) -> anyhow::Result<()> {
        if self.parts.awaited.is_some() {
            return Ok(());
        }
        let mut existing = Vec::new();
        conntrack::existing(|identity, reply, replied| {
            existing.push(Event::Existing {
                identity,
                reply,
                replied,
            });
            Ok::<_, NetfilterError>(ControlFlow::Continue(()))
        })
        .context("cannot read the connections that exist already")?;
        self.read(ring)?;
        existing.into_iter().try_for_each(|event| self.feed(event))
    }

    /// Tells the observer of all connections whose source is rewritten, once it is time.
    fn read_rewritten(&mut self, ring: &mut RingBuf<MapData>) -> anyhow::Result<()> {
        if self.parts.observer.asks_for_rewritten() {
            self.rewritten.ask();
        }
        if !self.rewritten.is_due() {
            return Ok(());
        }
        // Without conntrack's module nothing is.
        let rewritten = match self.parts.awaited {
            Some(_) => Some(Vec::new()),
            None => rewritten(),
        };
        // Without their word fewer connections are linked, and that is all.
        let Some(rewritten) = rewritten else {
            self.rewritten.failed();
            return Ok(());
        };
        self.read(ring)?;
        self.feed(Event::Rewritten(rewritten))
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
            self.read_existing(ring.get_mut())?;
        }
        let standing_interval = self.parts.sink.standing_interval();
        let mut standing_tick = interval(standing_interval.unwrap_or(MODULE_TICK));
        standing_tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut pace = Pace::new();
        while !self.parts.sink.is_done() {
            tokio::select! {
                ready = ring.readable_mut() => {
                    let mut ready = ready.context("the ring buffer failed")?;
                    if let Read::Whole(_) = self.read(ready.get_inner_mut())? {
                        ready.clear_ready();
                        pace.read(self.last_found);
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
        while self.read(ring)?.moment() < end {}
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

    fn standing(&mut self) -> anyhow::Result<Standing> {
        let usage = self.parts.programs.usage()?;
        self.lost.evicted = usage.arrivals_evicted;
        self.lost.flows_evicted = usage.flows_evicted;
        self.lost.pending_full = self.parts.observer.losses().pending_full;
        self.lost.waiting_full = self.parts.observer.waiting_full();
        Ok(Standing {
            missed: Missed {
                counters: self.parts.programs.counters()?,
                lost: self.lost,
                sampled: self.sampler.sampled(now()?),
            },
            usage,
            ring_buffer_used: mem::take(&mut self.ring_buffer_used),
            interfaces: self.parts.interfaces.names(),
        })
    }

    /// The cluster is another, or its API was lost or found.
    fn cluster_changed(&mut self) -> anyhow::Result<()> {
        let Some(changes) = &mut self.parts.changes else {
            return Ok(());
        };
        let Cluster {
            snapshot,
            away_since,
            ..
        } = changes.borrow_and_update().clone();
        let away_since = away_since.map(moment).transpose()?;
        if let Some(snapshot) = snapshot
            && self
                .parts
                .cluster
                .as_ref()
                .is_none_or(|known| !Arc::ptr_eq(known, &snapshot))
        {
            let ports = udp_ports(Some(&snapshot), self.parts.all);
            self.parts.programs.follow_udp(&ports)?;
            self.parts.interfaces.know(Arc::clone(&snapshot));
            self.parts.cluster = Some(Arc::clone(&snapshot));
            self.ask_for_first_bytes()?;
            self.feed(Event::Cluster(now()?, snapshot))?;
        }
        if self.parts.away_since != away_since {
            self.parts.away_since = away_since;
            self.feed(Event::ClusterHeard(away_since))?;
        }
        Ok(())
    }

    /// Once conntrack's module is loaded, rewrites are followed, and conntrack can be asked.
    fn look_for_conntrack(&mut self) -> anyhow::Result<()> {
        let awaited = &mut self.parts.awaited;
        match awaited.take_if(|awaited| awaited.resolver().is_loaded()) {
            None => return Ok(()),
            Some(Awaited::Module(_)) => {}
            Some(Awaited::Types(resolver)) => match resolver.resolve() {
                Ok(layout) => {
                    self.parts.programs.set_layout(&layout)?;
                    say("nf_conntrack is loaded now: rewrites are followed from here on");
                }
                // Unloaded in between.
                Err(LayoutError::NotLoaded) => {
                    *awaited = Some(Awaited::Types(resolver));
                    return Ok(());
                }
                // A rewrite that cannot be followed would be told as no rewrite.
                Err(error) => return Err(error.into()),
            },
        }
        self.conntrack = open_conntrack();
        Ok(())
    }

    async fn tick(
        &mut self,
        ring: &mut RingBuf<MapData>,
        segments: &mut Segments,
    ) -> anyhow::Result<()> {
        self.look_ups_left = LOOK_UPS_PER_TICK;
        let Parts {
            interfaces,
            programs,
            ..
        } = &mut self.parts;
        if let Some(links) = interfaces.changed(programs).await {
            self.look_for_ipvs(&links);
            self.interfaces_changed(links.interfaces())?;
        }
        // However late this is: silence is judged as of what was read, or the answer of many
        // would lie unread.
        let now = self.read(ring)?.moment();
        self.read_segments(segments)?;
        self.notice_losses()?;
        self.read_rewritten(ring)?;
        self.expire(now, self.parts.answer_timeout_ns)?;
        self.feed(Event::Tick(now))?;
        self.look_at_the_clock()?;
        if let Some(recorder) = &mut self.parts.recorder {
            recorder.flush()?;
        }
        Ok(())
    }

    /// Without a word of kube-proxy's configuration its default mode is expected.
    fn look_for_ipvs(&mut self, links: &Links) {
        let cluster = self.parts.cluster.as_ref();
        if !self.is_ipvs_told
            && cluster.is_some_and(|cluster| cluster.kube_proxy.is_none())
            && links.find(IPVS_DEVICE).is_some()
        {
            self.is_ipvs_told = true;
            say(&format!(
                "warning: {IPVS_DEVICE} is here, as in kube-proxy's IPVS mode, but its \
                 configuration is not known: iptables mode is expected; give --kube-proxy-config"
            ));
        }
    }

    /// A node may start with a wrong clock, or be suspended.
    fn look_at_the_clock(&mut self) -> anyhow::Result<()> {
        let epoch = epoch()?;
        let off = epoch.0.duration_since(self.parts.epoch.0).abs();
        if off > CLOCK_STEP {
            self.parts.epoch = epoch;
            self.feed(Event::Clock(epoch))?;
        }
        Ok(())
    }

    /// Before the silence of a connection is judged: its answer may be among what was lost.
    fn notice_losses(&mut self) -> anyhow::Result<Counters> {
        let counters = self.parts.programs.counters()?;
        let not_told = counters.not_told();
        let before = mem::replace(&mut self.not_told, not_told);
        let undecodable = mem::replace(&mut self.undecodable, self.lost.undecodable);
        if not_told.lost > before.lost {
            self.feed(Event::Lost(now()?))?;
        } else if self.parts.asking.whose != Whose::Off
            && (not_told != before || self.lost.undecodable > undecodable)
        {
            self.feed(Event::Unseen)?;
        }
        Ok(counters)
    }

    /// Follows fewer openings of too many, and all again after that. Beside the tick, which a flood
    /// of observations keeps waiting.
    fn sample(&mut self) -> anyhow::Result<()> {
        let now = now()?;
        if !self.sampler.is_due(now) {
            return Ok(());
        }
        let counters = self.notice_losses()?;
        let load = Load {
            packets: counters.handshakes(),
            lost: self.not_told.lost,
            used: mem::take(&mut self.used_in_tick),
        };
        let Some(change) = self.sampler.step(now, load) else {
            return Ok(());
        };
        self.parts.programs.sample(change.sampling)?;
        match change.told {
            None => {}
            Some(1) => say("every connection is followed again"),
            Some(one_in) => say(&format!(
                "warning: more connections open than can be followed: now one in {one_in} is"
            )),
        }
        // Of one that was followed the answer may not be.
        self.feed(Event::Lost(now))
    }

    /// Reads observations, [`READ_MAX`] at most.
    fn read(&mut self, ring: &mut RingBuf<MapData>) -> anyhow::Result<Read> {
        if self.parts.asking.whose != Whose::Off {
            // Before what came after it: a whole ring is more than is read at a stretch, and a proxy
            // may speak for one that was lost.
            self.notice_losses()?;
        }
        let mut until = now()?;
        let whole = Read::Whole(until);
        let mut bytes = 0;
        for _ in 0..READ_MAX {
            let Some(item) = ring.next() else {
                self.found(bytes);
                self.sample()?;
                return Ok(whole);
            };
            bytes += ITEM_HEADER_BYTES + item.len() as u64;
            match Observation::decode(&item) {
                Ok(observation) => {
                    if let Observation::Passage(passage) = observation {
                        until = passage.departure.at;
                    }
                    self.feed(Event::Observation(observation))?;
                }
                Err(_) => self.lost.undecodable += 1,
            }
        }
        self.found(bytes);
        self.sample()?;
        Ok(Read::Until(until))
    }

    /// So much was in the ring buffer.
    fn found(&mut self, bytes: u64) {
        self.ring_buffer_used = self.ring_buffer_used.max(bytes);
        self.used_in_tick = self.used_in_tick.max(bytes);
        self.last_found = bytes;
    }

    /// Reads what clients sent first, [`READ_MAX`] segments at most.
    fn read_segments(&mut self, segments: &mut Segments) -> anyhow::Result<()> {
        let Some(segments) = segments else {
            return Ok(());
        };
        for _ in 0..READ_MAX {
            let Some(item) = segments.get_mut().next() else {
                return Ok(());
            };
            let Ok(segment) = Segment::decode(&item) else {
                self.lost.undecodable += 1;
                continue;
            };
            let Segment { key, identity, .. } = segment;
            let reading = match self.first_bytes.segment(segment) {
                Told::Nothing => continue,
                Told::SoFar(reason) => Reading::Nothing(reason),
                Told::All(reading) => {
                    self.parts.programs.let_go(&key);
                    reading
                }
            };
            // Before anything is done that may wait.
            drop(item);
            self.feed(Event::FirstBytes(identity, reading))?;
        }
        Ok(())
    }

    /// Hands on what arrived at least `answer_timeout_ns` before `now` and never left.
    fn expire(&mut self, Moment(now): Moment, answer_timeout_ns: u64) -> anyhow::Result<()> {
        let until = |key: &ArrivalKey| {
            let age = if key.role == ROLE_OPENING {
                answer_timeout_ns
            } else {
                ANSWER_DELIVERED_NS.min(answer_timeout_ns)
            };
            Moment(now.saturating_sub(age))
        };
        for observation in self.parts.programs.expire(until)? {
            match observation {
                Ok(observation) => self.feed(Event::Observation(observation))?,
                Err(_) => self.lost.undecodable += 1,
            }
        }
        Ok(())
    }

    /// Hands an event to the observer, and what conntrack answers to what that asks.
    fn feed(&mut self, event: Event) -> anyhow::Result<()> {
        // Mostly one, and nothing is asked.
        let mut events = VecDeque::new();
        let mut next = Some(event);
        while let Some(event) = next {
            if let Some(recorder) = &mut self.parts.recorder {
                recorder.event(&event)?;
            }
            if let Event::Observation(Observation::Passage(passage)) = &event
                && (passage.identity.zone != 0 || passage.conntrack == Untracked)
                && let Some(conntrack) = &mut self.conntrack
            {
                conntrack.tracks_partly();
            }
            for output in self.parts.observer.handle(event) {
                match output {
                    Output::Record(opened_at, record) => self.parts.sink.take(opened_at, record)?,
                    Output::Ask(identity) => {
                        let entry = self.look_up(&identity);
                        // Taken out in any case: it is of this connection only.
                        let reason = self.parts.programs.drop_reason(&identity);
                        let reason = reason.filter(|_| matches!(entry, Some(Entry::Absent { .. })));
                        events.push_back(Event::LookedUp(identity, entry, reason));
                    }
                }
            }
            next = events.pop_front();
        }
        Ok(())
    }

    fn look_up(&mut self, identity: &Identity) -> Option<Entry> {
        let conntrack = self.conntrack.as_mut()?;
        if self.look_ups_left == 0 {
            self.lost.not_looked_up += 1;
            return None;
        }
        self.look_ups_left -= 1;
        let answer = conntrack.look_up(identity);
        self.lost.not_looked_up += u64::from(answer.is_err());
        answer.ok().flatten()
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
