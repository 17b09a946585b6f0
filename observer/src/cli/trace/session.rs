//! One run of `observer trace`, from readiness to the summary.

use std::future;
use std::pin::pin;
use std::time::Duration;

use anyhow::Context as _;
use aya::maps::{MapData, RingBuf};
use observer_ebpf::{ArrivalKey, ROLE_OPENING};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::{now, warn};
use crate::flow::Connection;
use crate::kernel::conntrack::Conntrack;
use crate::kernel::programs::Programs;
use crate::kernel::wait::readable;
use crate::observation::{Moment, Observation};
use crate::observe::Observer;
use crate::output::{Lost, Printer, Summary};

/// How often what waits is looked at: the grain of the answer time-out.
const TICK: Duration = Duration::from_millis(100);
/// After this long a reply that arrived and did not leave is taken as meant for this node: the
/// way through a node takes microseconds.
const REPLY_DELIVERED_NS: u64 = 50_000_000;
/// Questions to conntrack in one tick, so that a flood of dropped packets does not become a
/// flood of questions. One takes some ten microseconds.
const LOOK_UPS_PER_TICK: u32 = 500;

/// What is under way.
pub(super) struct Session {
    programs: Programs,
    observer: Observer,
    printer: Printer,
    summary: Summary,
    conntrack: Option<Conntrack>,
    look_ups_left: u32,
    remaining: Option<u64>,
    answer_timeout_ns: u64,
    lost: Lost,
}

impl Session {
    /// `count`: how many connections to print at most. `answer_timeout_ns`: as the observer's.
    pub(super) fn new(
        programs: Programs,
        observer: Observer,
        printer: Printer,
        count: Option<u64>,
        answer_timeout_ns: u64,
    ) -> Self {
        let conntrack = Conntrack::open()
            .inspect_err(|error| {
                warn(
                    error,
                    "what was dropped cannot be told from what was not answered",
                );
            })
            .ok();
        Self {
            programs,
            observer,
            printer,
            summary: Summary::default(),
            conntrack,
            look_ups_left: LOOK_UPS_PER_TICK,
            remaining: count,
            answer_timeout_ns,
            lost: Lost::default(),
        }
    }

    /// Until Ctrl-C, SIGTERM, the duration, the count, or a closed stdout.
    pub(super) async fn follow(
        &mut self,
        ring: RingBuf<MapData>,
        duration: Option<Duration>,
        debug_programs: bool,
    ) -> anyhow::Result<()> {
        let mut ring = readable(ring).context("cannot wait on the ring buffer")?;
        let mut log = debug_programs
            .then(|| {
                self.programs
                    .logger()
                    .context("cannot read the debug lines")
            })
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
                _ = tick.tick() => self.tick()?,
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

    /// What is pending comes out; gives the summary.
    pub(super) fn end(mut self) -> anyhow::Result<String> {
        self.look_ups_left = LOOK_UPS_PER_TICK;
        self.expire(0)?;
        let connections = self.observer.finish();
        self.report(connections)?;
        let counters = self.programs.counters()?;
        self.lost.pending_full = self.observer.losses().pending_full;
        Ok(self.summary.render(&counters, self.lost))
    }

    fn tick(&mut self) -> anyhow::Result<()> {
        self.look_ups_left = LOOK_UPS_PER_TICK;
        self.expire(self.answer_timeout_ns)?;
        let connections = self.observer.tick(now()?);
        self.report(connections)
    }

    fn drain(&mut self, ring: &mut RingBuf<MapData>) -> anyhow::Result<()> {
        while let Some(item) = ring.next() {
            match Observation::decode(&item) {
                Ok(observation) => {
                    let connection = self.observer.observe(observation);
                    self.report(connection)?;
                }
                Err(_) => self.lost.undecodable += 1,
            }
        }
        Ok(())
    }

    /// Hands on what arrived at least `answer_timeout_ns` ago and never left.
    fn expire(&mut self, answer_timeout_ns: u64) -> anyhow::Result<()> {
        let Moment(now) = now()?;
        let until = |key: &ArrivalKey| {
            let age = if key.role == ROLE_OPENING {
                answer_timeout_ns
            } else {
                REPLY_DELIVERED_NS.min(answer_timeout_ns)
            };
            Moment(now.saturating_sub(age))
        };
        for observation in self.programs.expire(until)? {
            match observation {
                Ok(observation) => {
                    let connection = self.observer.observe(observation);
                    self.report(connection)?;
                }
                Err(_) => self.lost.undecodable += 1,
            }
        }
        Ok(())
    }

    fn report(&mut self, connections: impl IntoIterator<Item = Connection>) -> anyhow::Result<()> {
        for connection in connections {
            if self.remaining == Some(0) {
                return Ok(());
            }
            let connection = self.looked_up(connection);
            let Some(record) = self.observer.judge(&connection) else {
                continue;
            };
            self.remaining = self.remaining.map(|remaining| remaining - 1);
            self.summary.add(&record);
            self.printer
                .print(&record)
                .context("cannot write to stdout")?;
        }
        Ok(())
    }

    /// Asks conntrack, where only conntrack can tell.
    fn looked_up(&mut self, connection: Connection) -> Connection {
        let Some(conntrack) = self.conntrack.as_mut().filter(|_| connection.is_silent()) else {
            return connection;
        };
        if self.look_ups_left == 0 {
            self.lost.not_looked_up += 1;
            return connection;
        }
        self.look_ups_left -= 1;
        match conntrack.look_up(&connection.identity) {
            Ok(Some(entry)) => connection.with_entry(entry),
            Ok(None) => connection,
            Err(_) => {
                self.lost.not_looked_up += 1;
                connection
            }
        }
    }
}
