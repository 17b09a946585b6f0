//! From a connection to its verdict.
//!
//! Verdicts come from the two tuples, never from conntrack's status bits, which mislead under
//! IPVS and where only a port changed (`net/netfilter/nf_nat_core.c`, `nf_nat_setup_info`).

use std::cell::LazyCell;
use std::net::SocketAddr;

use super::advice::{self, Seen};
use super::parts::{Backend, Client, FrontDoor, Knowledge, Verdict};
use super::predict::{Prediction, Question, Terms, predict};
use super::source::Source;
use super::vocabulary::{ClientKind, Expected, SourceIp};
use crate::cluster::{AddressKind, Family, FrontDoorKind, Node, ServiceEntry, ServiceType};
use crate::flow::Connection;
use crate::observation::Conntrack;

/// What the objects say of one connection's ends.
pub(super) struct Scene<'a> {
    pub(super) connection: &'a Connection,
    pub(super) knowledge: Knowledge<'a>,
    pub(super) client: Client,
    pub(super) front_door: FrontDoor,
    pub(super) entry: Option<&'a ServiceEntry>,
    /// Backend → source seen, of a connection for which an endpoint was chosen.
    pub(super) chosen: Option<(SocketAddr, SocketAddr)>,
}

/// Judges a connection. `None`: not one that people ask about (design: a front door, or
/// rewritten, or to a pod from outside the pods or for a client that the pod speaks for; not a pod's
/// way out of the cluster).
pub fn judge(connection: &Connection, knowledge: Knowledge<'_>) -> Option<Verdict> {
    let scene = Scene::new(connection, knowledge);
    if !knowledge.all && !scene.reported() {
        return None;
    }
    let backend = scene.backend();
    let here = scene.here();
    let outcome = scene.outcome();
    let outcome_cause = scene.outcome_cause(outcome);
    let why = outcome_cause.as_ref().map(|cause| cause.code);
    let extra_hops = scene.extra_hops(here.fate, backend.as_ref());
    let expected = scene.expected();
    let as_expected = expected.map(|expected| expected.is_met_by(here.fate, outcome, why));
    let Source {
        fate: source_ip,
        losses,
        cause,
    } = scene.whole(here);
    // What stands before this node, no rule of its undoes.
    let expected = expected.map(|expected| match source_ip {
        SourceIp::Lost if scene.loss_before().is_some() => Expected {
            source_ip,
            ..expected
        },
        SourceIp::Unknown if scene.doubt_before().is_some() => Expected {
            source_ip,
            ..expected
        },
        _ => expected,
    });
    let advice = scene.entry.zip(knowledge.index).map(|(entry, index)| {
        advice::of_connection(Seen {
            index,
            service: &entry.service,
            door: scene.front_door.kind,
            losses: &losses,
            outcome_cause: why,
            reading: connection.first_bytes.as_ref(),
            carrier: scene.speaks_by(),
        })
    });
    let advice = advice.unwrap_or_default();
    let findings = scene.findings(&losses);
    let beyond = scene.beyond(backend.as_ref());
    Some(Verdict {
        service: scene.entry.map(ServiceEntry::service_port),
        external_traffic_policy: scene.entry.and_then(|entry| {
            let service = &entry.service;
            let has_one =
                service.service_type != ServiceType::ClusterIP || !service.external_ips.is_empty();
            has_one.then_some(service.external_traffic_policy)
        }),
        front_door: scene.front_door,
        client: scene.client,
        source_seen: scene.chosen.map(|(_, source)| source),
        backend,
        source_ip,
        losses,
        cause,
        outcome,
        outcome_cause,
        extra_hops,
        expected,
        as_expected,
        advice,
        beyond,
        findings,
    })
}

/// A connection's client and front door, as they are before anything is judged.
pub fn arrived(connection: &Connection, knowledge: Knowledge<'_>) -> (Client, FrontDoor) {
    let scene = Scene::new(connection, knowledge);
    (scene.client, scene.front_door)
}

impl<'a> Scene<'a> {
    fn new(connection: &'a Connection, knowledge: Knowledge<'a>) -> Self {
        let original = connection.identity.original;
        let protocol = connection.identity.protocol;
        let client = Client {
            address: original.source,
            kind: client_kind(connection, knowledge),
        };
        let door = knowledge.index.and_then(|index| {
            let door = original.destination;
            index.front_door(protocol, door.ip(), door.port(), knowledge.local)
        });
        let kind = door.as_ref().map(|door| door.kind);
        let entry = door.and_then(|door| door.entry);
        let chosen = connection.translation.and_then(|translation| {
            let reply = translation.reply;
            let rewritten = reply.source != original.destination;
            // A Service's own address is no endpoint: unless the destination was rewritten, or
            // the front door is the endpoint itself, none was chosen.
            let direct = matches!(
                kind,
                None | Some(FrontDoorKind::Pod | FrontDoorKind::HostPort)
            );
            (rewritten || direct).then_some((reply.source, reply.destination))
        });
        let mut scene = Self {
            connection,
            knowledge,
            client,
            front_door: FrontDoor {
                kind,
                address: original.destination,
            },
            entry,
            chosen,
        };
        scene.client.kind = scene.kind_before();
        scene
    }

    fn reported(&self) -> bool {
        let original = self.connection.identity.original;
        match self.front_door.kind {
            // A pod that speaks for another is a part of that one's way.
            Some(FrontDoorKind::Pod) => {
                self.client.kind != ClientKind::Pod
                    || self.rewritten()
                    || self.speaks_by().is_some()
            }
            Some(_) => true,
            None => {
                let leaves_the_cluster = self.client.kind == ClientKind::Pod
                    && self.knowledge.index.is_some_and(|index| {
                        index.address_kind(original.destination.ip(), self.knowledge.local)
                            == AddressKind::External
                    });
                self.rewritten() && !leaves_the_cluster
            }
        }
    }

    /// Whether NAT changed either end.
    pub(super) fn rewritten(&self) -> bool {
        let original = self.connection.identity.original;
        self.connection.translation.is_some_and(|translation| {
            translation.reply.source != original.destination
                || translation.reply.destination != original.source
        })
    }

    fn backend(&self) -> Option<Backend> {
        let (address, _) = self.chosen?;
        // Mostly the endpoint tells all.
        let known = LazyCell::new(|| {
            let index = self.knowledge.index?;
            let protocol = self.connection.identity.protocol;
            Some(index.backend(protocol, address.ip(), address.port()))
        });
        // Several Services may name one address differently: this connection's own comes first.
        let endpoint = self.entry.and_then(|entry| {
            let endpoints = entry.endpoints(Family::of(address.ip()));
            endpoints
                .iter()
                .find(|one| (one.address, one.port) == (address.ip(), address.port()))
        });
        Some(Backend {
            address,
            pod: endpoint
                .and_then(|endpoint| endpoint.pod.clone())
                .or_else(|| known.and_then(|known| known.pod.cloned())),
            node: endpoint
                .and_then(|endpoint| endpoint.node.clone())
                .or_else(|| known.and_then(|known| known.node).map(Into::into)),
        })
    }

    /// What kube-proxy should have done, if it can be told for this client.
    fn expected(&self) -> Option<Expected> {
        let local = self.knowledge.local;
        let is_told = self.client.kind != ClientKind::Unknown
            && !self.is_untracked()
            && self.knowledge.index?.node(local.node()).is_some();
        if !is_told {
            return None;
        }
        let Prediction {
            source_ip, outcome, ..
        } = self.prediction()?;
        Some(Expected { source_ip, outcome })
    }

    /// Whether a pod's packets left this node for what is no pod.
    pub(super) fn leaves_the_pod_network(&self) -> bool {
        let Knowledge { index, local, .. } = self.knowledge;
        self.client.kind == ClientKind::Pod
            && self.chosen.zip(index).is_some_and(|((backend, _), index)| {
                !local.contains(backend.ip())
                    && index.address_kind(backend.ip(), local) != AddressKind::Pod
            })
    }

    /// Whether conntrack was told to leave it alone.
    pub(super) fn is_untracked(&self) -> bool {
        self.connection
            .translation
            .is_some_and(|translation| translation.conntrack == Conntrack::Untracked)
    }

    /// What kube-proxy should have done, if this node is where the connection enters the Service.
    /// A client of whom nothing is known is taken for one from outside.
    pub(super) fn prediction(&self) -> Option<Prediction> {
        let Knowledge {
            index,
            kube_proxy,
            local,
            ..
        } = self.knowledge;
        let door = self.front_door.address.ip();
        let kind = self.front_door.kind?;
        if kind == FrontDoorKind::NodePort && !local.contains(door) {
            return None;
        }
        let question = Question {
            entry: self.entry?,
            door: kind,
            at: Some(door),
            family: Family::of(door),
            client: match self.client.kind {
                // kube-proxy spares a node's own traffic on that node alone (`--src-type LOCAL`).
                ClientKind::Node if self.opened_here() => ClientKind::Node,
                ClientKind::Pod => ClientKind::Pod,
                _ => ClientKind::External,
            },
            address: Some(self.client.address.ip()),
            endpoint: self.chosen.map(|(backend, _)| backend.ip()),
        };
        // Without the Node its name is enough for what is dropped.
        let unknown = Node {
            name: local.node().into(),
            addresses: Vec::new(),
            pod_cidrs: Vec::new(),
            zone: None,
        };
        let terms = Terms {
            node: index?.node(local.node()).unwrap_or(&unknown),
            kube_proxy,
            index,
        };
        predict(&question, terms)
    }

    /// Whether the client is a process in this node's own network namespace.
    pub(super) fn opened_here(&self) -> bool {
        self.connection.arrival.is_none() && self.knowledge.local.contains(self.client.address.ip())
    }

    /// Whether this front door is for clients outside the cluster.
    pub(super) fn is_from_outside(&self) -> bool {
        matches!(
            self.front_door.kind,
            Some(FrontDoorKind::NodePort | FrontDoorKind::LoadBalancer | FrontDoorKind::ExternalIP)
        )
    }

    fn extra_hops(&self, source_ip: SourceIp, backend: Option<&Backend>) -> Option<u8> {
        // On a node that is not the first, the first is not known.
        if source_ip == SourceIp::Unknown {
            return None;
        }
        let node = backend?.node.as_deref()?;
        Some(u8::from(node != self.knowledge.local.node()))
    }
}

fn client_kind(connection: &Connection, knowledge: Knowledge<'_>) -> ClientKind {
    let ip = connection.identity.original.source.ip();
    match knowledge
        .index
        .map(|index| index.address_kind(ip, knowledge.local))
    {
        Some(AddressKind::Pod) => ClientKind::Pod,
        Some(AddressKind::Node(_)) => ClientKind::Node,
        Some(AddressKind::External) => ClientKind::External,
        Some(AddressKind::Unknown) | None => ClientKind::Unknown,
    }
}
