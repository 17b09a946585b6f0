//! Whose first bytes are asked for, who is trusted to write a header, and connections that wait
//! for theirs.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use clap::ValueEnum;
use hashlink::LruCache;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::cluster::{
    AddressKind, Family, FrontDoorKind, Index, LocalAddresses, Protocol, ServiceEntry, ServiceType,
};
use crate::flow::{Answer, Connection};
use crate::observation::{Identity, Moment};
use crate::payload::{Reading, Reason, Recovered, Trust, recover};
use crate::verdict::{self, LoadBalancers, Said};

/// For so long after its opening packet a client's first bytes are waited for at most: the programs
/// look no longer. And no longer than for an answer.
const WAIT_NS: u64 = 4_000_000_000;
/// Connections that wait for their first bytes, and first bytes that wait for their connection;
/// what is more is judged without.
const UNREAD_MAX: usize = 1 << 14;

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
    /// that outsiders reach by a Service: whose header would be believed.
    Known,
    /// Everybody's.
    On,
}

/// Whom a header is believed from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trusted {
    /// The addresses of Nodes. Not if the connection comes straight to a pod: another node's
    /// masquerade sends from the same addresses, and passes on what anybody wrote.
    Nodes,
    /// The addresses that Pods are known to have.
    Pods,
    /// The addresses in the status of Services, and the networks that were named as load
    /// balancers'.
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
            trusted: vec![Trusted::Nodes, Trusted::Pods, Trusted::LoadBalancers],
            load_balancers: Vec::new(),
        }
    }
}

impl FromStr for Trusted {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let address = || text.parse().map(|address: IpAddr| address.to_canonical());
        match text {
            "nodes" => Ok(Self::Nodes),
            "pods" => Ok(Self::Pods),
            "load-balancers" => Ok(Self::LoadBalancers),
            _ => text
                .parse()
                .or_else(|_no_network: ipnet::AddrParseError| address().map(IpNet::from))
                .map(Self::Network)
                .map_err(|_neither| {
                    "expected a network or an address, as in 10.0.0.0/8, or nodes, pods, \
                     load-balancers"
                }),
        }
    }
}

impl Asking {
    /// The networks whose connections' first bytes are asked for, on a node.
    pub fn sources(&self, index: Option<&Index>, node: &str) -> BTreeSet<IpNet> {
        match self.whose {
            Whose::Off => BTreeSet::new(),
            Whose::On => everybody().into(),
            Whose::Known => {
                let mut sources: BTreeSet<IpNet> = self.networks().copied().collect();
                sources.extend(&self.load_balancers);
                if let Some(index) = index {
                    sources.extend(of_services(index).into_iter().map(IpNet::from));
                    sources.extend(reached(index, node).into_iter().map(IpNet::from));
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
            Trusted::Nodes | Trusted::Pods | Trusted::LoadBalancers => None,
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
    here.map(|endpoint| endpoint.address)
        .filter(|address| index.is_pod(*address))
        .take(REACHED_MAX)
        .collect()
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
    /// Whether this node itself opened the connection.
    pub(super) is_own: bool,
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
        let recovered = recover(reading, peer, |address| self.trust(address));
        if recovered.is_ok() && !self.believes(peer, door) {
            return Err(Reason::UntrustedPeer);
        }
        recovered
    }

    /// Whether a connection's client speaks for another, as far as it is believed.
    pub(super) fn said(
        self,
        reading: &Reading,
        client: verdict::Client,
        door: &verdict::FrontDoor,
    ) -> Said {
        let peer = client.address.ip().to_canonical();
        if !self.believes(peer, door) {
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

    /// Whether a header of this peer is believed by this door: of one that is only a node not if it
    /// comes straight to an endpoint.
    fn believes(self, peer: IpAddr, door: &verdict::FrontDoor) -> bool {
        let is_straight =
            matches!(door.kind, None | Some(FrontDoorKind::Pod)) || self.is_endpoint(door.address);
        self.is_trusted(peer) && !(is_straight && !self.is_own && self.is_only_a_node(peer))
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
            Trusted::LoadBalancers => self.load_balancers.contains(address),
            Trusted::Network(network) => network.contains(&address),
        })
    }

    /// Whether an address is trusted for nothing else than that it is a node's.
    fn is_only_a_node(self, address: IpAddr) -> bool {
        let is_node = self.index.is_some_and(|index| {
            matches!(
                index.address_kind(address, self.local),
                AddressKind::Node(_)
            )
        });
        // Who names a network need not think of the nodes in it; who names an address does.
        let mut networks = self.asking.networks();
        is_node && !networks.any(|network| *network == IpNet::from(address))
    }

    /// Whether the programs hand on what a connection's client sends first.
    fn hands_on(self, connection: &Connection) -> bool {
        let original = connection.identity.original;
        let source = original.source.ip();
        let is_asked_for = match self.asking.whose {
            Whose::Off => false,
            Whose::On => true,
            Whose::Known => {
                self.load_balancers.contains(source)
                    || self.reached.contains(&source)
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

/// Connections and their first bytes, whichever came first.
#[derive(Debug)]
pub(super) struct Unread {
    wait_ns: u64,
    /// Connections that wait, each until a moment.
    connections: HashMap<Identity, (Moment, Connection)>,
    /// What was read, of connections that have not come out, or that wait for more.
    readings: LruCache<Identity, Reading>,
}

impl Unread {
    pub(super) fn new(answer_timeout_ns: u64) -> Self {
        Self {
            wait_ns: answer_timeout_ns.min(WAIT_NS),
            connections: HashMap::new(),
            readings: LruCache::new(UNREAD_MAX),
        }
    }

    /// A connection came out of the flow. Given back if it waits for nothing, or no longer.
    pub(super) fn waits(
        &mut self,
        mut connection: Connection,
        around: Around<'_>,
        now: Moment,
    ) -> Option<Connection> {
        if around.asking.whose == Whose::Off {
            return Some(connection);
        }
        let key = connection.identity.on_arrival();
        let reading = self.readings.remove(&key);
        if !around.hands_on(&connection) {
            return Some(connection);
        }
        let opened_at = connection.opened_at?;
        let is_final = reading.as_ref().is_some_and(|reading| !is_so_far(reading));
        let until = Moment(opened_at.0.saturating_add(self.wait_ns));
        if is_final || until <= now || self.connections.len() >= UNREAD_MAX {
            connection.first_bytes = Some(reading.unwrap_or(Reading::Nothing(Reason::Silent)));
            return Some(connection);
        }
        connection.first_bytes = reading;
        self.connections.insert(key, (until, connection));
        None
    }

    /// First bytes were read. Gives the connection that waited for that.
    pub(super) fn read(&mut self, identity: Identity, reading: Reading) -> Option<Connection> {
        let key = identity.on_arrival();
        let Some((_, connection)) = self.connections.get_mut(&key) else {
            self.readings.insert(key, reading);
            return None;
        };
        let so_far = is_so_far(&reading);
        connection.first_bytes = Some(reading);
        if so_far {
            return None;
        }
        self.connections
            .remove(&key)
            .map(|(_, connection)| connection)
    }

    /// Those whose time is up, oldest first.
    pub(super) fn due(&mut self, is_due: impl Fn(Moment) -> bool) -> Vec<Connection> {
        let mut due: Vec<_> = self
            .connections
            .extract_if(|_, (until, _)| is_due(*until))
            .map(|(_, due)| due)
            .collect();
        due.sort_by_key(|(until, _)| *until);
        let silent = |(_, mut connection): (Moment, Connection)| {
            connection
                .first_bytes
                .get_or_insert(Reading::Nothing(Reason::Silent));
            connection
        };
        due.into_iter().map(silent).collect()
    }

    /// Those that wait.
    pub(super) fn connections(&self) -> impl Iterator<Item = &Connection> {
        self.connections.values().map(|(_, connection)| connection)
    }
}

/// Whether more may come.
const fn is_so_far(reading: &Reading) -> bool {
    matches!(
        reading,
        Reading::Nothing(Reason::Unfinished | Reason::NotSeen)
    )
}
