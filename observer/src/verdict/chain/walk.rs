//! A way, walked stage by stage.

use std::ops::RangeInclusive;
use std::sync::Arc;

use super::{Door, Loser, Seen, Stage, StageKind, Way};
use crate::cluster::front::{Carrier, Delivers, Keeps, LoadBalancer, Setting};
use crate::cluster::plane::{Dataplane, Found, Mesh};
use crate::cluster::proxy::{Controller, Route};
use crate::cluster::{Protocol, ServiceEntry, ServiceRef};
use crate::verdict::predict::Prediction;
use crate::verdict::vocabulary::{CauseCode, ClientKind, Outcome, OutcomeCauseCode, SourceIp};

/// Where a connection is on its way.
#[derive(Clone, Debug)]
pub(super) struct Walk {
    stages: Vec<Stage>,
    source: Seen,
    /// By what the client can be found.
    carriers: Vec<Carrier>,
    lost_by: Option<Loser>,
    hops: Option<RangeInclusive<u8>>,
    outcome: Outcome,
    outcome_cause: Option<OutcomeCauseCode>,
    cause: Option<CauseCode>,
    prediction: Option<Prediction>,
    lost_with: Option<Prediction>,
    /// The Service whose rule lost the address first, or let nothing through.
    decided_by: Option<ServiceRef>,
    goes_on: bool,
    /// Whether all stages are known.
    is_whole: bool,
}

/// What a stage does.
struct Step {
    kind: StageKind,
    who: String,
    source: Seen,
    changed_by: Option<Loser>,
    hops: Option<RangeInclusive<u8>>,
    because: Vec<Setting>,
}

impl Walk {
    /// At the client.
    pub(super) fn from(client: ClientKind) -> Self {
        let who = match client {
            ClientKind::Pod => "pod",
            ClientKind::Node => "node",
            _ => "external",
        };
        let mut walk = Self {
            stages: Vec::new(),
            source: Seen::Client,
            carriers: Vec::new(),
            lost_by: None,
            hops: Some(0..=0),
            outcome: Outcome::Answered,
            outcome_cause: None,
            cause: None,
            prediction: None,
            lost_with: None,
            decided_by: None,
            goes_on: true,
            is_whole: true,
        };
        walk.unchanged(StageKind::Client, who.to_owned());
        walk
    }

    fn unchanged(&mut self, kind: StageKind, who: String) {
        self.step(Step {
            kind,
            who,
            source: self.source,
            changed_by: None,
            hops: Some(0..=0),
            because: Vec::new(),
        });
    }

    fn step(&mut self, step: Step) {
        let Step {
            kind,
            who,
            source,
            changed_by,
            hops,
            because,
        } = step;
        if matches!(self.source, Seen::Client | Seen::Unknown) {
            self.lost_by = self.lost_by.or(changed_by);
        }
        self.source = source;
        self.hops = self
            .hops
            .take()
            .zip(hops.as_ref())
            .map(|(before, more)| before.start() + more.start()..=before.end() + more.end());
        self.stages.push(Stage {
            kind,
            who,
            source,
            changed_by,
            recoverable: self.carriers.clone(),
            hops,
            because,
        });
    }

    /// Through a load balancer in front of the nodes.
    pub(super) fn load_balancer(mut self, front: &LoadBalancer) -> Self {
        let LoadBalancer {
            delivers,
            keeps,
            adds,
            because,
            ..
        } = front;
        if self.source == Seen::Client {
            self.carriers.extend(adds);
        }
        let relays = *delivers == Delivers::Relay;
        let (source, changed_by) = match keeps {
            Keeps::Client => (self.source, None),
            Keeps::Own if relays => (Seen::Relay, Some(Loser::LoadBalancer)),
            Keeps::Own => (Seen::LoadBalancer, Some(Loser::LoadBalancer)),
            Keeps::Unknown => (Seen::Unknown, None),
        };
        self.step(Step {
            kind: if relays {
                StageKind::Relay
            } else {
                StageKind::LoadBalancer
            },
            who: front.name(),
            source,
            changed_by,
            hops: Some(0..=0),
            because: because.clone(),
        });
        if *delivers == Delivers::Nothing {
            return self.ends();
        }
        self
    }

    /// Through the first node, by kube-proxy's rules or those of what stands in its place.
    pub(super) fn node(
        mut self,
        who: String,
        prediction: &Prediction,
        dataplane: &Found<Dataplane>,
        entry: &ServiceEntry,
    ) -> Self {
        if !self.goes_on {
            return self;
        }
        let Prediction {
            cause,
            outcome,
            outcome_cause,
            extra_hops,
            ..
        } = prediction;
        self.outcome = *outcome;
        self.outcome_cause = *outcome_cause;
        self.goes_on = matches!(
            outcome,
            Outcome::Answered | Outcome::Unknown | Outcome::Unanswered
        );
        self.prediction = Some(prediction.clone());
        let service = &entry.service.reference;
        if !self.goes_on {
            self.decided_by = Some(service.clone());
            self.unchanged(StageKind::Node, who);
            return self;
        }
        let (fate, by) = fate(prediction, dataplane.what, entry.protocol);
        let source = match fate {
            SourceIp::Preserved => self.source,
            SourceIp::Lost => Seen::EntryNode,
            SourceIp::Unknown => Seen::Unknown,
        };
        if fate != SourceIp::Preserved && self.cause.is_none() {
            self.cause = *cause;
            self.lost_with = Some(prediction.clone());
            self.decided_by = Some(service.clone());
        }
        self.step(Step {
            kind: StageKind::Node,
            who,
            source,
            changed_by: (fate == SourceIp::Lost).then_some(by),
            hops: extra_hops.clone(),
            because: dataplane.because.clone(),
        });
        self
    }

    /// By a way of which nothing is known.
    pub(super) fn by_unknown_way(mut self) -> Self {
        self.source = Seen::Unknown;
        self.hops = None;
        self.is_whole = false;
        self
    }

    /// No further: nothing leads on from here.
    pub(super) const fn ends(mut self) -> Self {
        self.outcome = Outcome::Unanswered;
        self.goes_on = false;
        self
    }

    /// Through a proxy in the cluster, which opens a connection of its own: to a pod, at most a
    /// node further.
    pub(super) fn proxy(mut self, route: &Route) -> Self {
        if !self.goes_on {
            return self;
        }
        let is_told = self
            .carriers
            .iter()
            .any(|carrier| route.believes.contains(carrier));
        let keeps_the_list = route.appends && self.carriers.contains(&Carrier::XForwardedFor);
        let knows = self.source == Seen::Client || is_told || keeps_the_list;
        self.carriers = if knows {
            route.adds.clone()
        } else {
            Vec::new()
        };
        // That it is a proxy at all does not follow from an object of a controller that is not
        // known.
        let is_known = route.controller != Controller::Unknown;
        self.step(Step {
            kind: StageKind::Proxy,
            who: route.object(),
            source: if is_known { Seen::Proxy } else { Seen::Unknown },
            changed_by: is_known.then_some(Loser::Proxy),
            // By the cluster address the node's stage tells.
            hops: Some(0..=u8::from(route.to_pods)),
            because: route.because.clone(),
        });
        self
    }

    /// Into the pod, where a sidecar may take it over.
    pub(super) fn pod(mut self, mesh: Option<(&Found<Mesh>, bool)>) -> Self {
        if !self.goes_on {
            return self;
        }
        if let Some((Found { what, because }, in_all_pods)) = mesh {
            let changes = matches!(what, Mesh::IstioRedirect | Mesh::Linkerd);
            let source = match (changes, in_all_pods) {
                (false, _) => self.source,
                (true, true) => Seen::Loopback,
                (true, false) => Seen::Unknown,
            };
            self.step(Step {
                kind: StageKind::Mesh,
                who: what.to_string(),
                source,
                changed_by: (source == Seen::Loopback).then_some(Loser::Mesh),
                hops: Some(0..=0),
                because: because.clone(),
            });
        }
        self.unchanged(StageKind::Pod, "pod".to_owned());
        self
    }

    /// The way that was walked, and what came of it.
    pub(super) fn way(self, entry: &ServiceEntry, door: Door, client: ClientKind) -> Way<'_> {
        let Self {
            stages,
            source,
            carriers,
            lost_by,
            hops,
            outcome,
            outcome_cause,
            cause,
            prediction,
            lost_with,
            decided_by,
            goes_on: is_through,
            is_whole,
        } = self;
        let source_ip = match source {
            _ if !is_through => SourceIp::Unknown,
            Seen::Client => SourceIp::Preserved,
            Seen::Unknown => SourceIp::Unknown,
            _ => SourceIp::Lost,
        };
        Way {
            entry,
            door,
            by: None,
            system: None,
            addresses: Arc::default(),
            to_port: None,
            nodes: Arc::default(),
            client,
            source_ip,
            seen: is_through.then_some(source),
            lost_by: lost_by.filter(|_| is_through),
            cause,
            outcome,
            outcome_cause,
            extra_hops: hops.filter(|_| is_through),
            recoverable: if is_through { carriers } else { Vec::new() },
            left_out: false,
            decided_by,
            is_whole,
            lost_with,
            prediction,
            stages,
        }
    }
}

/// What becomes of the source on the first node, and who would have changed it.
///
/// Cilium's kube-proxy replacement keeps it for an endpoint on the node itself under either policy
/// (cilium/cilium#33574), and for others by direct server return; Calico's eBPF dataplane always
/// (projectcalico/calico#8812). Antrea is alike in its two modes. Of others than clients outside, no object tells more than what
/// kube-proxy would do.
fn fate(prediction: &Prediction, dataplane: Dataplane, protocol: Protocol) -> (SourceIp, Loser) {
    let by_kube_proxy = prediction.source_ip;
    let is_for_clients_outside = prediction.cause == Some(CauseCode::ExternalTrafficPolicyCluster);
    let hops = prediction.extra_hops.as_ref();
    let by_masquerade = match hops.map(|hops| (*hops.start(), *hops.end())) {
        Some((0, 0)) => SourceIp::Preserved,
        Some((1.., _)) => SourceIp::Lost,
        _ => SourceIp::Unknown,
    };
    let source_ip = match dataplane {
        Dataplane::KubeProxy => return (by_kube_proxy, Loser::KubeProxy),
        // Which of them serves cluster addresses to clients outside, and how, is their setting.
        _ if prediction.cause == Some(CauseCode::OutsideClusterCidr) => SourceIp::Unknown,
        _ if !is_for_clients_outside => by_kube_proxy,
        Dataplane::CiliumDsr | Dataplane::AntreaDsr | Dataplane::CalicoEbpf => SourceIp::Preserved,
        Dataplane::CiliumHybrid if protocol == Protocol::Tcp => SourceIp::Preserved,
        Dataplane::CiliumSnat | Dataplane::CiliumHybrid | Dataplane::AntreaNat => by_masquerade,
        Dataplane::Cilium | Dataplane::GkeDataplaneV2 if by_masquerade == SourceIp::Preserved => {
            SourceIp::Preserved
        }
        _ => SourceIp::Unknown,
    };
    (source_ip, Loser::Cni)
}
