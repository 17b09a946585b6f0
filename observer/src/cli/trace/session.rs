//! One run of `observer trace`, from readiness to the summary.

use std::collections::VecDeque;
use std::future;
use std::pin::pin;
use std::time::Duration;

use anyhow::Context as _;
use aya::maps::{MapData, RingBuf};
use observer_ebpf::{ArrivalKey, ROLE_OPENING};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::interfaces::Interfaces;
use super::{now, say, warn};
use crate::cli::report::Report;
use crate::kernel::conntrack::{self, Conntrack};
use crate::kernel::layout::{LayoutError, Resolver};
use crate::kernel::links::Links;
use crate::kernel::netfilter::NetfilterError;
use crate::kernel::programs::{Hook, Programs};
use crate::kernel::wait::readable;
use crate::observation::Conntrack::Untracked;
use crate::observation::{Entry, Identity, Moment, Observation};
use crate::observe::{Event, Observer, Output};
use crate::output::{Lost, Missed};
use crate::recording::Writer;

/// How often what waits is looked at: the grain of the answer time-out.
const TICK: Duration = Duration::from_millis(100);
/// How often conntrack's module is looked for while it is not loaded.
const MODULE_TICK: Duration = Duration::from_secs(1);
/// After this long an answer that arrived and did not leave is taken as meant for this node: the
/// way through a node takes microseconds.
const ANSWER_DELIVERED_NS: u64 = 50_000_000;
/// Questions to conntrack in one tick, so that a flood of dropped packets does not become a
/// flood of questions. One takes some ten microseconds.
const LOOK_UPS_PER_TICK: u32 = 500;
/// Observations read at a stretch, so that a flood of them keeps nothing else waiting: a whole
/// ring buffer.
const READ_MAX: u32 = 8_192;

/// What is missing while conntrack's module is not loaded.
pub(super) enum Awaited {
    /// Only the module: its types are the kernel's own.
    Module(Resolver),
    /// Its types too.
    Types(Resolver),
}

/// What a run works with.
pub(super) struct Parts {
    pub(super) programs: Programs,
    pub(super) observer: Observer,
    pub(super) report: Report,
    pub(super) recorder: Option<Writer>,
    /// Set while conntrack's module is not loaded. Asking conntrack would load it.
    pub(super) awaited: Option<Awaited>,
    /// As the observer's.
    pub(super) answer_timeout_ns: u64,
}

/// The signals that end a run cleanly; from its making on, they no longer kill.
pub(super) struct Stop {
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
pub(super) enum Begin {
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
pub(super) struct Session {
    parts: Parts,
    interfaces: Interfaces,
    conntrack: Option<Conntrack>,
    look_ups_left: u32,
    observations_lost: u64,
    lost: Lost,
}

impl Session {
    pub(super) fn new(parts: Parts, interfaces: Interfaces) -> Self {
        let conntrack = match parts.awaited {
            None => open_conntrack(),
            Some(_) => None,
        };
        Self {
            parts,
            interfaces,
            conntrack,
            look_ups_left: LOOK_UPS_PER_TICK,
            observations_lost: 0,
            lost: Lost::default(),
        }
    }

    /// Attaches to the chosen ones of `links`; gives their names and the hook that they run by.
    pub(super) fn attach(&mut self, links: &Links) -> anyhow::Result<(Vec<String>, Option<Hook>)> {
        let attached = self.interfaces.attach(&mut self.parts.programs, links)?;
        self.feed(Event::Interfaces(links.interfaces()))?;
        Ok(attached)
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
            Ok::<_, NetfilterError>(())
        })
        .context("cannot read the connections that exist already")?;
        self.read(ring)?;
        existing.into_iter().try_for_each(|event| self.feed(event))
    }

    /// Until Ctrl-C, SIGTERM, a closed terminal, the duration, the count, or a closed stdout.
    pub(super) async fn follow(
        &mut self,
        ring: RingBuf<MapData>,
        begin: Begin,
        until: Option<Instant>,
        stop: Stop,
        debug_programs: bool,
    ) -> anyhow::Result<()> {
        let mut ring = readable(ring).context("cannot wait on the ring buffer")?;
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
        while !self.parts.report.is_done() {
            tokio::select! {
                ready = ring.readable_mut() => {
                    let mut ready = ready.context("the ring buffer failed")?;
                    if let Read::Whole(_) = self.read(ready.get_inner_mut())? {
                        ready.clear_ready();
                    }
                }
                _ = tick.tick() => self.tick(ring.get_mut()).await?,
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
        }
        self.read_to_the_end(ring.get_mut())
    }

    /// Everything of before this moment is read.
    fn read_to_the_end(&mut self, ring: &mut RingBuf<MapData>) -> anyhow::Result<()> {
        let end = now()?;
        self.look_ups_left = LOOK_UPS_PER_TICK;
        while self.read(ring)?.moment() < end {}
        self.notice_losses()?;
        self.expire(end, 0)
    }

    /// What is pending comes out, then the summary.
    pub(super) fn end(mut self) -> anyhow::Result<Report> {
        self.feed(Event::End)?;
        if let Some(recorder) = &mut self.parts.recorder {
            recorder.flush()?;
        }
        let counters = self.parts.programs.counters()?;
        self.lost.evicted = self.parts.programs.evicted()?;
        self.lost.flows_evicted = self.parts.programs.flows_evicted()?;
        self.lost.pending_full = self.parts.observer.losses().pending_full;
        let missed = Missed {
            counters: &counters,
            lost: self.lost,
        };
        say(&self.parts.report.summary(Some(missed)));
        Ok(self.parts.report)
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

    async fn tick(&mut self, ring: &mut RingBuf<MapData>) -> anyhow::Result<()> {
        self.look_ups_left = LOOK_UPS_PER_TICK;
        if let Some(links) = self.interfaces.changed(&mut self.parts.programs).await {
            self.feed(Event::Interfaces(links.interfaces()))?;
        }
        // However late this is: silence is judged as of what was read, or the answer of many
        // would lie unread.
        let now = self.read(ring)?.moment();
        self.notice_losses()?;
        self.expire(now, self.parts.answer_timeout_ns)?;
        self.feed(Event::Tick(now))?;
        if let Some(recorder) = &mut self.parts.recorder {
            recorder.flush()?;
        }
        Ok(())
    }

    /// Before the silence of a connection is judged: its answer may be among what was lost.
    fn notice_losses(&mut self) -> anyhow::Result<()> {
        let lost = self.parts.programs.observations_lost()?;
        if lost > self.observations_lost {
            self.observations_lost = lost;
            self.feed(Event::Lost(now()?))?;
        }
        Ok(())
    }

    /// Reads observations, [`READ_MAX`] at most.
    fn read(&mut self, ring: &mut RingBuf<MapData>) -> anyhow::Result<Read> {
        let mut until = now()?;
        let whole = Read::Whole(until);
        for _ in 0..READ_MAX {
            let Some(item) = ring.next() else {
                return Ok(whole);
            };
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
        Ok(Read::Until(until))
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
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
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
                    Output::Record(record) => self.parts.report.take(&record)?,
                    Output::Ask(identity) => {
                        let entry = self.look_up(&identity);
                        // Taken out in any case: it is of this connection only.
                        let reason = self.parts.programs.drop_reason(&identity);
                        let reason = reason.filter(|_| matches!(entry, Some(Entry::Absent { .. })));
                        events.push_back(Event::LookedUp(identity, entry, reason));
                    }
                }
            }
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
