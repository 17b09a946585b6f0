//! What is done from time to time, or when something around the connections has changed.

use std::ops::ControlFlow;
use std::sync::Arc;

use anyhow::Context as _;
use aya::maps::{MapData, RingBuf};
use jiff::SignedDuration;

use super::{Awaited, LOOK_UPS_PER_TICK, Parts, Segments, Session, open_conntrack};
use crate::cluster::{IPVS_DEVICE, LocalAddresses};
use crate::kernel::conntrack;
use crate::kernel::layout::LayoutError;
use crate::kernel::links::Links;
use crate::kernel::netfilter::NetfilterError;
use crate::kubernetes::Cluster;
use crate::live::asked::Asked;
use crate::live::clock::{epoch, moment, now};
use crate::live::missed::{Missed, Standing};
use crate::live::rewritten::rewritten;
use crate::live::{Sink, udp_ports};
use crate::notice::say;
use crate::observation;
use crate::observe::Event;

/// A clock that is off by less since it was last told of is not told.
const CLOCK_STEP: SignedDuration = SignedDuration::from_millis(50);

impl<S: Sink> Session<S> {
    /// Tells the observer of the connections that exist already; there are none while conntrack's
    /// module is not loaded. What came while they were read is told before them, so that none is
    /// told twice.
    pub(super) fn read_existing(
        &mut self,
        ring: &mut RingBuf<MapData>,
        segments: &mut Segments,
    ) -> anyhow::Result<()> {
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
        self.read(ring, segments)?;
        existing.into_iter().try_for_each(|event| self.feed(event))
    }

    /// Tells the observer of all connections whose source is rewritten, once it is time.
    pub(super) fn read_rewritten(
        &mut self,
        ring: &mut RingBuf<MapData>,
        segments: &mut Segments,
    ) -> anyhow::Result<()> {
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
        self.read(ring, segments)?;
        self.feed(Event::Rewritten(rewritten))
    }

    /// Another interface has an address that a process of this node may connect from.
    pub(super) fn interfaces_changed(
        &mut self,
        interfaces: observation::Interfaces,
    ) -> anyhow::Result<()> {
        let local = self.parts.local.node();
        self.parts.local = LocalAddresses::new(local, interfaces.addresses.iter().copied());
        self.ask_for_first_bytes()?;
        self.feed(Event::Interfaces(interfaces))
    }

    /// Tells the programs whose first bytes are asked for now.
    pub(super) fn ask_for_first_bytes(&mut self) -> anyhow::Result<()> {
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

    /// The cluster is another, or its API was lost or found.
    pub(super) fn cluster_changed(&mut self) -> anyhow::Result<()> {
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
    pub(super) fn look_for_conntrack(&mut self) -> anyhow::Result<()> {
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

    pub(super) async fn tick(
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
        let now = self.read(ring, segments)?.moment();
        self.read_segments(segments)?;
        self.notice_losses()?;
        self.read_rewritten(ring, segments)?;
        self.expire(now, self.parts.answer_timeout_ns)?;
        self.feed(Event::Tick(now))?;
        self.look_at_the_clock()?;
        if let Some(recorder) = &mut self.parts.recorder {
            recorder.flush()?;
        }
        Ok(())
    }

    /// Without a word of kube-proxy's configuration its default mode is expected.
    pub(super) fn look_for_ipvs(&mut self, links: &Links) {
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
    pub(super) fn look_at_the_clock(&mut self) -> anyhow::Result<()> {
        let epoch = epoch()?;
        let off = epoch.0.duration_since(self.parts.epoch.0).abs();
        if off > CLOCK_STEP {
            self.parts.epoch = epoch;
            self.feed(Event::Clock(epoch))?;
        }
        Ok(())
    }

    pub(super) fn standing(&mut self) -> anyhow::Result<Standing> {
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
            ring_buffer_used: self.found.most(),
            interfaces: self.parts.interfaces.names(),
        })
    }
}
