//! What became of the client before its packets came to this node: who stands in front, as far as
//! the address that arrived and the first bytes tell.
//!
//! A load balancer that is known and may keep its clients' addresses never shows its own as their
//! source: where its own arrives, the client's was replaced, unless the load balancer is the client.

use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::judge::Scene;
use super::parts::{Loss, Lost};
use super::vocabulary::{Basis, Cause, CauseCode, ClientKind, RewriteOwner};
use crate::cluster::AddressKind;
use crate::payload::Carrier;

/// What may stand before this node.
#[derive(Clone, Copy, Debug, Default)]
pub struct Before<'a> {
    /// Load balancers whose addresses are known.
    pub load_balancers: Option<&'a LoadBalancers>,
    /// The default gateways on this node's own networks.
    pub gateways: Option<&'a BTreeSet<IpAddr>>,
    /// What the connection began with.
    pub said: Said,
    /// Whether the peer is trusted to begin it so, whatever that tells.
    pub is_believed: bool,
    /// Whether it lists a load balancer alone, of which the peer itself was told of another before
    /// it.
    pub replaces: bool,
}

/// The addresses of load balancers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadBalancers {
    /// Those that the status of Services has.
    pub of_services: HashSet<IpAddr>,
    /// Networks that were named.
    pub networks: Vec<IpNet>,
}

/// Whom a connection's first bytes name, if they are believed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Said {
    /// Nobody, or nobody believes them.
    #[default]
    Nothing,
    /// A PROXY header with the command LOCAL: the peer speaks for itself.
    Itself,
    /// The peer speaks for another.
    For {
        /// By what it says so.
        carrier: Carrier,
        /// Who that is, if it can be told.
        client: Option<IpAddr>,
    },
}

impl LoadBalancers {
    /// Whether this is one's address.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.is_in_status(address) || self.network_of(address).is_some()
    }

    /// Whether the status of a Service has it.
    pub fn is_in_status(&self, address: IpAddr) -> bool {
        self.of_services.contains(&address)
    }

    /// Whether it was named itself, not by a network that holds it.
    fn names(&self, address: IpAddr) -> bool {
        self.networks.contains(&IpNet::from(address))
    }

    fn network_of(&self, address: IpAddr) -> Option<&IpNet> {
        let mut networks = self.networks.iter();
        networks.find(|network| network.contains(&address))
    }

    /// Why it is taken for one, in words.
    fn known_by(&self, address: IpAddr) -> Option<String> {
        if self.is_in_status(address) {
            return Some(format!("{address} is in the status of a Service"));
        }
        let network = self.network_of(address)?;
        Some(if network.addr() == address {
            format!("{address} was named as one (--load-balancer)")
        } else {
            format!("{address} is in {network}, which was named (--load-balancer)")
        })
    }
}

impl Said {
    /// By what the peer says that it speaks for another than itself.
    fn of_another(self, peer: IpAddr) -> Option<Carrier> {
        match self {
            Self::For { carrier, client } if client != Some(peer) => Some(carrier),
            Self::For { .. } | Self::Itself | Self::Nothing => None,
        }
    }

    /// Who the client is, if it can be told.
    pub(super) const fn client(self) -> Option<IpAddr> {
        match self {
            Self::For { client, .. } => client,
            Self::Itself | Self::Nothing => None,
        }
    }

    /// Whether the peer says that it is the client.
    fn is_of_itself(self, peer: IpAddr) -> bool {
        self != Self::Nothing && self.of_another(peer).is_none()
    }
}

impl Scene<'_> {
    /// What the client is, where the objects alone only say that it is no pod and no node: who is
    /// known as a load balancer, and who is believed to speak as one.
    pub(super) fn kind_before(&self) -> ClientKind {
        let kind = self.client.kind;
        let peer = self.peer();
        let Before {
            load_balancers,
            said,
            ..
        } = self.knowledge.before;
        // Where bridges and tunnels of nodes have their addresses, masquerades take them.
        let is_of_a_bridge = kind == ClientKind::Unknown
            && self
                .knowledge
                .index
                .is_some_and(|index| index.is_in_pod_cidr(peer))
            && !load_balancers.is_some_and(|known| known.names(peer));
        if is_of_a_bridge {
            return kind;
        }
        let is_known = load_balancers.is_some_and(|known| known.contains(peer));
        let is_one = is_known || said == Said::Itself || said.of_another(peer).is_some();
        match kind {
            ClientKind::External | ClientKind::Unknown if is_one => ClientKind::LoadBalancer,
            _ => kind,
        }
    }

    /// By what its first bytes say, and are believed, that it was opened for another.
    pub(super) fn speaks_by(&self) -> Option<Carrier> {
        self.knowledge.before.said.of_another(self.peer())
    }

    /// The loss before this node, if one is known.
    pub(super) fn loss_before(&self) -> Option<Loss> {
        match self.client.kind {
            ClientKind::LoadBalancer => self.at_the_load_balancer(),
            ClientKind::Pod | ClientKind::Node => self.at_a_proxy_of_the_cluster(),
            ClientKind::External | ClientKind::Unknown => None,
        }
    }

    /// What a load balancer that is known says of itself: that there is no other client, anybody can
    /// say through one that forwards TCP as it is.
    pub(super) fn by_its_own_word(&self) -> Option<Cause> {
        let peer = self.peer();
        let known = self.knowledge.before.load_balancers?;
        let why = known.known_by(peer)?;
        let is_one = self.client.kind == ClientKind::LoadBalancer
            && self.knowledge.before.said.is_of_itself(peer);
        is_one.then(|| Cause {
            code: CauseCode::UpstreamLoadBalancer,
            basis: Basis::Inferred,
            explanation: format!(
                "a load balancer opened this connection from its own address ({why}), and it \
                 begins as if the load balancer spoke for itself: it is a health check, or a \
                 client of a load balancer of plain TCP claims that"
            ),
        })
    }

    fn at_the_load_balancer(&self) -> Option<Loss> {
        let peer = self.peer();
        let Before {
            load_balancers,
            said,
            ..
        } = self.knowledge.before;
        if said.is_of_itself(peer) {
            return None;
        }
        let carrier = said.of_another(peer);
        let known_by = load_balancers.and_then(|known| known.known_by(peer));
        let is_proxy = matches!(
            carrier,
            Some(Carrier::XForwardedFor | Carrier::Forwarded | Carrier::Unknown)
        );
        let (by, code, who) = if known_by.is_none() && is_proxy {
            (RewriteOwner::Proxy, CauseCode::L7Proxy, "a proxy")
        } else {
            let code = CauseCode::UpstreamLoadBalancer;
            (RewriteOwner::LoadBalancer, code, "a load balancer")
        };
        let (basis, explanation) = match (carrier, known_by) {
            (Some(carrier), known_by) => {
                let why = known_by.map_or_else(String::new, |why| format!(" ({why})"));
                let said = format!(
                    "{who} opened this connection from its own address {peer}{why}, and says by {} \
                     for whom",
                    words(carrier)
                );
                (Basis::Observed, said)
            }
            (None, Some(why)) => (
                Basis::Config,
                format!(
                    "a load balancer opened this connection from its own address ({why}): the \
                     client's was replaced before any node, unless this is a health check of its \
                     own, which looks the same"
                ),
            ),
            (None, None) => return None,
        };
        Some(lost(None, by, code, basis, explanation))
    }

    /// A proxy that is a pod, or a process of a node.
    fn at_a_proxy_of_the_cluster(&self) -> Option<Loss> {
        let peer = self.peer();
        let carrier = self.speaks_by()?;
        let index = self.knowledge.index?;
        let (whose, node, basis) = match index.address_kind(peer, self.knowledge.local) {
            AddressKind::Pod => {
                let protocol = self.connection.identity.protocol;
                let known = index.backend(protocol, peer, 0);
                let pod = known.pod.map(|pod| format!("the pod {}", pod.name));
                let pod = pod.unwrap_or_else(|| "a pod".to_owned());
                (pod, known.node, Basis::Observed)
            }
            AddressKind::Node(name) if self.opened_here() => {
                (format!("a process of {name}"), Some(name), Basis::Observed)
            }
            // A pod of that node's may have been masqueraded on its way out.
            AddressKind::Node(name) => {
                let whose = format!("a process or pod of {name}");
                (whose, Some(name), Basis::Inferred)
            }
            AddressKind::External | AddressKind::Unknown => return None,
        };
        let explanation = format!(
            "{whose} opened this connection from {peer}, and says by {} for whom: it is a proxy",
            words(carrier)
        );
        Some(lost(
            node.map(Into::into),
            RewriteOwner::Proxy,
            CauseCode::L7Proxy,
            basis,
            explanation,
        ))
    }

    /// The gateway that the source is: of docker, kind, or a router. Who came by it is not known.
    ///
    /// By which interface does not count: where a bridge or bond has the route, packets are seen at
    /// a port of it first.
    pub(super) fn by_gateway(&self) -> Option<Cause> {
        let peer = self.peer();
        let is_of_cluster = !matches!(self.client.kind, ClientKind::External | ClientKind::Unknown);
        if is_of_cluster || !self.knowledge.before.gateways?.contains(&peer) {
            return None;
        }
        Some(Cause {
            code: CauseCode::GatewayMasquerade,
            basis: Basis::Inferred,
            explanation: format!(
                "{peer} is this node's default gateway: whoever comes through a gateway that \
                 masquerades has its address (docker's and kind's bridges and userland proxy, a \
                 router with NAT), and so has what runs on the gateway itself: whether it was the \
                 client's is not known"
            ),
        })
    }

    /// What a loss on this node leaves open where a gateway's address arrived.
    pub(super) fn beyond_the_gateway(&self) -> Option<String> {
        self.by_gateway()?;
        Some(format!(
            "; what arrived was {}, the address of this node's default gateway, behind which the \
             client's may have been replaced before: then no setting of the Service brings it back",
            self.peer()
        ))
    }

    fn peer(&self) -> IpAddr {
        self.client.address.ip().to_canonical()
    }
}

fn lost(
    node: Option<Arc<str>>,
    by: RewriteOwner,
    code: CauseCode,
    basis: Basis,
    explanation: String,
) -> Loss {
    Loss {
        at: Lost {
            node,
            interface: None,
            by,
        },
        cause: Cause {
            code,
            basis,
            explanation,
        },
    }
}

const fn words(carrier: Carrier) -> &'static str {
    match carrier {
        Carrier::ProxyV1 => "a PROXY header (v1)",
        Carrier::ProxyV2 => "a PROXY header (v2)",
        Carrier::XForwardedFor => "X-Forwarded-For",
        Carrier::Forwarded => "Forwarded",
        // No header is of that kind.
        Carrier::InboundConnection | Carrier::Unknown => "a header",
    }
}
