//! Connections through front doors: from outside the cluster, from pods, from the nodes.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, Result};

use crate::{
    client::{Answer, ConnectError, Failure, Udp, connect_from_here},
    kubeproxy::doors::FrontDoor,
    lab::Lab,
    netns::Namespace,
    protocol::Protocol,
    threads::at_once,
};

mod steady;

pub use steady::{Pace, steadily};

/// How long a connection is tried. Longer than the second between a SYN and its first
/// repetition, since IPv6 takes only the second ICMP error for a refusal.
pub const CONNECT_TIMEOUT: Duration = Duration::from_millis(2_500);

/// The same for SCTP, which repeats what got lost only after three seconds (RFC 9260, 16:
/// RTO.Initial), and needs four packets before there is data. What overtakes the last of them is
/// lost (`net/sctp/sm_statetable.c`, `TYPE_SCTP_DATA`), and overtaking is usual between the
/// processors of a busy machine.
pub const SCTP_TIMEOUT: Duration = Duration::from_secs(8);

/// Who connects.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Client {
    /// The external client, by one of its addresses.
    External(IpAddr),
    /// A process in a pod.
    Pod {
        /// The pod's name.
        name: String,
        /// The node that it lives on.
        node: String,
    },
    /// A process in a node's own network.
    Node(String),
}

/// Who connects where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    /// Who.
    pub client: Client,
    /// Where.
    pub door: FrontDoor,
}

/// A connection that was opened, and what became of it.
#[derive(Debug)]
pub struct Opened {
    /// Who connected where.
    pub way: Way,
    /// The client's own end.
    pub client: SocketAddr,
    /// The pod's answer, or how it failed.
    pub result: Result<Answer, Failure>,
}

impl Client {
    /// Every client there is in a lab: the external one by each of its addresses, each pod, each
    /// node.
    pub fn all(lab: &Lab) -> Vec<Self> {
        let pods = lab.pods().iter().map(|pod| Self::Pod {
            name: pod.plan.name.clone(),
            node: pod.plan.node.clone(),
        });
        let nodes = lab.nodes().iter();
        Self::external(lab)
            .into_iter()
            .chain(pods)
            .chain(nodes.map(|node| Self::Node(node.plan.name.clone())))
            .collect()
    }

    /// The external client, by each of its addresses.
    pub fn external(lab: &Lab) -> Vec<Self> {
        lab.client_addresses()
            .into_iter()
            .map(Self::External)
            .collect()
    }

    /// Whether this client may come to a door, by the node it is the door of. What is inside the
    /// cluster enters by its own node.
    pub fn may_use(&self, lab: &Lab, door: &FrontDoor) -> bool {
        match self {
            Self::External(address) => {
                address.is_ipv4() == door.to.is_ipv4() && !door.is_loopback()
            }
            Self::Pod { name: _, node } => {
                *node == door.entry
                    && !door.is_loopback()
                    && self.address(lab, door.to.ip()).is_some()
            }
            Self::Node(node) => *node == door.entry,
        }
    }

    /// Its address of the family of `like`.
    pub fn address(&self, lab: &Lab, like: IpAddr) -> Option<IpAddr> {
        let of_family = |addresses: &[IpAddr]| {
            addresses
                .iter()
                .copied()
                .find(|address| address.is_ipv4() == like.is_ipv4())
        };
        match self {
            Self::External(address) => of_family(&[*address]),
            Self::Pod { name, node } => of_family(&lab.pod(name, node)?.plan.addresses),
            Self::Node(_) if like.is_loopback() => Some(like),
            Self::Node(node) => of_family(&lab.node(node).ok()?.plan.addresses),
        }
    }

    fn namespace<'lab>(&self, lab: &'lab Lab) -> Result<&'lab Namespace> {
        match self {
            Self::External(_) => Ok(lab.client()),
            Self::Pod { name, node } => {
                let pod = lab.pod(name, node);
                let pod = pod.with_context(|| format!("the lab has no pod {name} on {node}"))?;
                Ok(&pod.namespace)
            }
            Self::Node(node) => Ok(&lab.node(node)?.namespace),
        }
    }
}

impl Way {
    /// A UDP socket where the client is, that talks to the door.
    pub fn flow(&self, lab: &Lab) -> Result<Udp> {
        let flow = Udp::open(self.client.namespace(lab)?, self.door.to);
        flow.with_context(|| format!("{self} could not be tried"))
    }

    /// Connects from where the client is.
    fn connect(&self, lab: &Lab) -> Result<Opened> {
        self.client.namespace(lab)?.run(|| self.open(lab))?
    }

    /// Connects from the namespace the calling thread is in, which must be the client's.
    fn open(&self, lab: &Lab) -> Result<Opened> {
        let Self { client, door } = self;
        // The others have one address of a family, or the kernel's choice is the one to see.
        let source = match client {
            Client::External(address) => Some(*address),
            Client::Pod { .. } | Client::Node(_) => None,
        };
        let timeout = match door.protocol {
            Protocol::Sctp => SCTP_TIMEOUT,
            Protocol::Tcp | Protocol::Udp => CONNECT_TIMEOUT,
        };
        let (client, result) = match connect_from_here(door.protocol, source, door.to, timeout) {
            Ok(answer) => (answer.local, Ok(answer)),
            Err(ConnectError { local, failure }) => {
                let local =
                    local.with_context(|| format!("{self} could not be tried: {failure}"))?;
                // A socket that failed may have lost its address already, never its port.
                let ip = client
                    .address(lab, door.to.ip())
                    .filter(|_| local.ip().is_unspecified());
                let client = (ip.unwrap_or(local.ip()), local.port()).into();
                (client, Err(failure))
            }
        };
        Ok(Opened {
            way: self.clone(),
            client,
            result,
        })
    }
}

impl fmt::Display for Client {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::External(address) => write!(formatter, "client {address}"),
            Self::Pod { name, node } => write!(formatter, "pod {name} on {node}"),
            Self::Node(node) => write!(formatter, "{node}"),
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { client, door } = self;
        write!(formatter, "{client} -> {door} by {}", door.entry)
    }
}

/// Every way by which `clients` may come through `doors`.
pub fn ways(lab: &Lab, clients: &[Client], doors: &[FrontDoor]) -> Vec<Way> {
    let of_client = |client: &Client| -> Vec<Way> {
        doors
            .iter()
            .filter(|door| client.may_use(lab, door))
            .map(|door| Way {
                client: client.clone(),
                door: door.clone(),
            })
            .collect()
    };
    clients.iter().flat_map(of_client).collect()
}

/// Every way of the external client through `doors`.
pub fn from_outside(lab: &Lab, doors: &[FrontDoor]) -> Vec<Way> {
    ways(lab, &Client::external(lab), doors)
}

/// Opens a connection by each of `ways`, those that enter by one node at a time, all at once.
pub fn open(lab: &Lab, ways: &[Way]) -> Result<Vec<Opened>> {
    let mut opened = Vec::new();
    for node in lab.nodes() {
        let ways: Vec<&Way> = ways
            .iter()
            .filter(|way| way.door.entry == node.plan.name)
            .collect();
        lead_client(lab, &ways)?;
        opened.extend(open_at_once(lab, &ways)?);
    }
    Ok(opened)
}

/// Makes the external client's packets come to the nodes that `ways` want them to enter by.
fn lead_client(lab: &Lab, ways: &[&Way]) -> Result<()> {
    let mut led: Vec<(IpAddr, &str)> = ways
        .iter()
        .filter(|way| matches!(way.client, Client::External(_)) && way.door.kind.is_routed())
        .map(|way| (way.door.to.ip(), &*way.door.entry))
        .collect();
    led.sort_unstable();
    led.dedup();
    led.into_iter()
        .try_for_each(|(address, node)| lab.route_vip(address, node))
}

fn open_at_once(lab: &Lab, ways: &[&Way]) -> Result<Vec<Opened>> {
    at_once(ways, |way| way.connect(lab)).into_iter().collect()
}
