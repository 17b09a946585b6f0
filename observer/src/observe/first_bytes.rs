//! Whose first bytes are asked for, and who is trusted to write a header.

use std::collections::{BTreeSet, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use clap::ValueEnum;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::sources::LeftOut;
use super::through::{Key, Memory, Proxy};
use crate::cluster::{
    AddressKind, Family, FrontDoorKind, Index, LocalAddresses, Protocol, ServiceEntry, ServiceType,
};
use crate::flow::{Answer, Connection};
use crate::observation::{Identity, Moment};
use crate::payload::{Reading, Reason, Recovered, Trust, recover};
use crate::verdict::{self, LoadBalancers, Said};

/// Pods of a node that are asked for as proxies; a node runs a few hundred.
const REACHED_MAX: usize = 1 << 10;

/// Whose first bytes are asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Whose {
    /// Nobody's.
    #[default]
    Off,
    /// Those of known load balancers, of nodes, of the trusted networks, and of this node's pods
    /// that outsiders reach by a Service.
    Known,
    /// Everybody's.
    On,
}

/// Whom a header is believed from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trusted {
    /// The addresses of Nodes. Not if the connection comes straight to a pod: another node's
    /// masquerade sends from the same addresses, and passes on what anybody wrote. A process of this
    /// node as far as a pod.
    Nodes,
    /// The addresses that Pods are known to have: as far as they name whom they were seen to get a
    /// connection from. A pod that is no proxy may pass on what anybody wrote.
    Pods,
    /// The addresses in the status of Services.
    LoadBalancerStatus,
    /// Those, and the networks that were named as load balancers'. Not by default: through one that
    /// forwards TCP as it is, its clients write what they like.
    LoadBalancers,
    /// A network.
    Network(IpNet),
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asking {
    /// Of whom.
    pub whose: Whose,
    /// Who is believed.
    pub trusted: Vec<Trusted>,
    /// The networks of load balancers, besides the addresses in the status of Services.
    #[serde(default)]
    pub load_balancers: Vec<IpNet>,
}

impl Default for Asking {
    fn default() -> Self {
        Self {
            whose: Whose::Off,
            trusted: vec![Trusted::Nodes, Trusted::Pods, Trusted::LoadBalancerStatus],
            load_balancers: Vec::new(),
        }
    }
}

impl FromStr for Trusted {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "nodes" => Ok(Self::Nodes),
            "pods" => Ok(Self::Pods),
            "load-balancer-status" => Ok(Self::LoadBalancerStatus),
            "load-balancers" => Ok(Self::LoadBalancers),
            _ => network(text).map(Self::Network).map_err(|_neither| {
                "expected a network or an address, as in 10.0.0.0/8, or nodes, pods, \
                 load-balancer-status, load-balancers"
            }),
        }
    }
}

/// A network, or a single address as one.
pub fn network(text: &str) -> Result<IpNet, &'static str> {
    let address = || text.parse().map(|address: IpAddr| address.to_canonical());
    text.parse()
        .or_else(|_no_network: ipnet::AddrParseError| address().map(IpNet::from))
        .map_err(|_neither| "expected a network or an address, as in 10.0.0.0/24")
}

impl Asking {
    /// Whether anybody's are asked for.
    pub fn reads(&self) -> bool {
        self.whose != Whose::Off
    }

    /// The networks whose connections' first bytes are asked for, on a node.
    pub fn sources(&self, index: Option<&Index>, local: &LocalAddresses) -> BTreeSet<IpNet> {
        match self.whose {
            Whose::Off => BTreeSet::new(),
            Whose::On => everybody().into(),
            Whose::Known => {
                let mut sources: BTreeSet<IpNet> = self.networks().copied().collect();
                sources.extend(&self.load_balancers);
                // A process in this node's network may have any of them.
                sources.extend(local.addresses().map(IpNet::from));
                if let Some(index) = index {
                    sources.extend(of_services(index).into_iter().map(IpNet::from));
                    sources.extend(reached(index, local.node()).into_iter().map(IpNet::from));
                    let nodes = index.nodes().flat_map(|node| node.addresses.iter());
                    sources.extend(nodes.map(|address| IpNet::from(*address)));
                }
                sources
            }
        }
    }

    fn networks(&self) -> impl Iterator<Item = &IpNet> {
        self.trusted.iter().filter_map(|trusted| match trusted {
            Trusted::Network(network) => Some(network),
            Trusted::Nodes
            | Trusted::Pods
            | Trusted::LoadBalancerStatus
            | Trusted::LoadBalancers => None,
        })
    }
}

fn everybody() -> [IpNet; 2] {
    [
        IpNet::V4(ipnet::Ipv4Net::default()),
        IpNet::V6(ipnet::Ipv6Net::default()),
    ]
}

/// The addresses that the status of Services has.
fn of_services(index: &Index) -> HashSet<IpAddr> {
    let services = index.entries().iter().map(|entry| &entry.service);
    let addresses = services.flat_map(|service| {
        service
            .load_balancer_vips
            .iter()
            .chain(&service.load_balancer_proxies)
    });
    addresses.copied().collect()
}

/// The load balancers whose addresses are known.
pub(super) fn load_balancers(index: Option<&Index>, networks: &[IpNet]) -> LoadBalancers {
    LoadBalancers {
        of_services: index.map(of_services).unwrap_or_default(),
        networks: networks.to_vec(),
    }
}

/// The pods of a node that outsiders reach by a Service that has a door for them: ingress
/// controllers and gateways are among those.
pub(super) fn reached(index: &Index, node: &str) -> HashSet<IpAddr> {
    let is_for_outsiders = |entry: &&ServiceEntry| {
        entry.service.service_type != ServiceType::ClusterIP
            || !entry.service.external_ips.is_empty()
    };
    let entries = index.entries().iter().filter(is_for_outsiders);
    let endpoints = entries.flat_map(|entry| {
        let families = [Family::V4, Family::V6].into_iter();
        families.flat_map(|family| entry.endpoints(family))
    });
    let here = endpoints.filter(|endpoint| endpoint.node.as_deref() == Some(node));
    let pods: BTreeSet<_> = here
        .map(|endpoint| endpoint.address)
        .filter(|address| index.is_pod(*address))
        .collect();
    pods.into_iter().take(REACHED_MAX).collect()
}

/// What is known of addresses when a header is read.
#[derive(Clone, Copy)]
pub(super) struct Around<'a> {
    pub(super) asking: &'a Asking,
    pub(super) index: Option<&'a Index>,
    pub(super) local: &'a LocalAddresses,
    pub(super) load_balancers: &'a LoadBalancers,
    /// This node's pods that outsiders reach.
    pub(super) reached: &'a HashSet<IpAddr>,
    /// Whose first bytes the programs have no room for.
    pub(super) left_out: &'a LeftOut,
    /// Connections to proxies on this node.
    pub(super) memory: &'a Memory,
    /// The connection that began with the header.
    pub(super) identity: Identity,
    /// When it was opened.
    pub(super) opened_at: Option<Moment>,
    /// Whether this node itself opened it.
    pub(super) is_own: bool,
    /// Whether it is linked with the one that its header names: that is vouched for.
    pub(super) is_linked: bool,
}

impl Around<'_> {
    /// The client of a connection, by what it began with.
    pub(super) fn client(
        self,
        reading: &Reading,
        client: verdict::Client,
        door: &verdict::FrontDoor,
    ) -> Result<Recovered, Reason> {
        let peer = client.address.ip().to_canonical();
        let recovered = recover(reading, peer, |address| self.trust(address))?;
        if self.believes(reading, peer, door) && self.is_vouched(reading) {
            Ok(recovered)
        } else {
            Err(Reason::UntrustedPeer)
        }
    }

    /// Whether a connection's client speaks for another, as far as it is believed.
    pub(super) fn said(
        self,
        reading: &Reading,
        client: verdict::Client,
        door: &verdict::FrontDoor,
    ) -> Said {
        if !self.is_believed(reading, client, door) {
            return Said::Nothing;
        }
        match reading {
            Reading::Found(chains) => chains.first().map_or(Said::Nothing, |chain| Said::For {
                carrier: chain.carrier,
                client: self
                    .client(reading, client, door)
                    .ok()
                    .map(|recovered| recovered.address),
            }),
            Reading::Nothing(Reason::Local) => Said::Itself,
            Reading::Nothing(_) | Reading::TlsTo(_) => Said::Nothing,
        }
    }

    /// Whether a connection's client is trusted to speak for others as it does.
    pub(super) fn is_believed(
        self,
        reading: &Reading,
        client: verdict::Client,
        door: &verdict::FrontDoor,
    ) -> bool {
        self.believes(reading, client.address.ip().to_canonical(), door)
    }

    /// Whether a header of this peer is believed by this door: of one that is only a node not if it
    /// comes straight to an endpoint; of a pod, or a process of this node, if it names whom it was
    /// spoken to from.
    fn believes(self, reading: &Reading, peer: IpAddr, door: &verdict::FrontDoor) -> bool {
        let is_straight =
            matches!(door.kind, None | Some(FrontDoorKind::Pod)) || self.is_endpoint(door.address);
        self.is_trusted(peer)
            && !(is_straight && !self.is_own && self.is_only_a_node(peer))
            && self.names_whom_it_saw(reading, peer)
    }

    /// Whether whoever may pass on what anybody wrote names whom it was spoken to from.
    fn names_whom_it_saw(self, reading: &Reading, peer: IpAddr) -> bool {
        let Some(proxy) = self.may_pass_on(peer) else {
            return true;
        };
        let Reading::Found(chains) = reading else {
            return false;
        };
        let mut last = chains.iter().map(|chain| chain.hops.last());
        self.is_linked
            || last.all(|last| {
                last.copied()
                    .flatten()
                    .is_some_and(|ip| self.saw(proxy, ip))
            })
    }

    /// Whether each pod in a list, as far as that is believed, names whom it was spoken to from.
    fn is_vouched(self, reading: &Reading) -> bool {
        let Reading::Found(chains) = reading else {
            return false;
        };
        chains.iter().all(|chain| {
            let hops: Vec<_> = chain.hops.iter().rev().map_while(|hop| *hop).collect();
            let is_trusted = |pair: &&[IpAddr]| self.trust(pair[0]) == Trust::Full;
            hops.windows(2).take_while(is_trusted).all(|pair| {
                self.may_pass_on(pair[0])
                    .is_none_or(|proxy| self.saw(proxy, pair[1]))
            })
        })
    }

    fn saw(self, proxy: Proxy, shown: IpAddr) -> bool {
        let key = Key { proxy, shown };
        self.memory.knows(&key, &self.identity, self.opened_at)
    }

    /// Which proxy has an address that is trusted as a pod's alone, or as that of a process of this
    /// node: an application there may pass on what its client wrote.
    fn may_pass_on(self, address: IpAddr) -> Option<Proxy> {
        if self.is_own && self.local.contains(address) {
            return (!self.is_named_itself(address)).then_some(Proxy::Host);
        }
        let is_pod = self.index.is_some_and(|index| index.is_pod(address));
        let mut networks = self.asking.networks();
        let is_named = networks.any(|network| network.contains(&address));
        (is_pod && !is_named).then_some(Proxy::Pod(address))
    }

    pub(super) fn trust(self, address: IpAddr) -> Trust {
        match (self.is_trusted(address), self.is_only_a_node(address)) {
            (false, _) => Trust::None,
            (true, false) => Trust::Full,
            (true, true) => Trust::Node,
        }
    }

    /// Whether a connection came to an endpoint itself, whatever else has its address.
    fn is_endpoint(self, address: SocketAddr) -> bool {
        self.index
            .is_some_and(|index| index.is_endpoint(Protocol::Tcp, address.ip(), address.port()))
    }

    fn is_trusted(self, address: IpAddr) -> bool {
        let kind = self
            .index
            .map(|index| index.address_kind(address, self.local));
        self.asking.trusted.iter().any(|trusted| match trusted {
            Trusted::Nodes => matches!(kind, Some(AddressKind::Node(_))),
            // That it lies in a pod CIDR is not enough: so do bridges and tunnels, whose addresses
            // masquerades take.
            Trusted::Pods => self.index.is_some_and(|index| index.is_pod(address)),
            Trusted::LoadBalancerStatus => self.load_balancers.is_in_status(address),
            Trusted::LoadBalancers => self.load_balancers.contains(address),
            Trusted::Network(network) => network.contains(&address),
        })
    }

    /// Whether an address is trusted for nothing else than that it is a node's, or lies where bridges
    /// and tunnels of nodes have theirs, which masquerades take.
    fn is_only_a_node(self, address: IpAddr) -> bool {
        let is_node =
            self.index
                .is_some_and(|index| match index.address_kind(address, self.local) {
                    AddressKind::Node(_) => true,
                    AddressKind::Unknown => index.is_in_pod_cidr(address),
                    AddressKind::Pod | AddressKind::External => false,
                });
        is_node && !self.is_named_itself(address)
    }

    /// Who names a network need not think of the nodes in it; who names an address does.
    fn is_named_itself(self, address: IpAddr) -> bool {
        let mut networks = self.asking.networks();
        networks.any(|network| *network == IpNet::from(address))
    }

    /// Whether the programs had no room for a connection's client.
    pub(super) fn is_left_out(self, connection: &Connection) -> bool {
        self.left_out
            .contains(connection.identity.original.source.ip())
    }

    /// Whether what a connection's client sends first is wanted.
    pub(super) fn hands_on(self, connection: &Connection) -> bool {
        let original = connection.identity.original;
        let source = original.source.ip();
        let is_asked_for = match self.asking.whose {
            Whose::Off => false,
            Whose::On => true,
            Whose::Known => {
                self.load_balancers.contains(source)
                    || self.reached.contains(&source)
                    || self.local.contains(source)
                    || self
                        .index
                        .is_some_and(|index| index.has_node_address(source))
                    || self
                        .asking
                        .networks()
                        .any(|network| network.contains(&source))
            }
        };
        let door = original.destination;
        is_asked_for
            && connection.identity.protocol == Protocol::Tcp
            && matches!(connection.answer, Answer::Accepted(_))
            && self.index.is_none_or(|index| {
                index
                    .front_door(Protocol::Tcp, door.ip(), door.port(), self.local)
                    .is_some()
            })
    }
}
