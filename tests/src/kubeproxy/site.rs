//! What the rules of every mode are rendered from: one node in one family, its Services' ports,
//! and where the traffic of each may go.

use std::net::{IpAddr, SocketAddr};

use anyhow::Result;
use ipnet::IpNet;

use super::{
    Family, Settings,
    endpoints::{Categories, Place, categorize},
    services::{ProxiedPort, ports},
    settings::{DetectLocal, NftablesLayout, Served},
};
use crate::{cluster::Cluster, plan::Plan};

/// A node in one family.
pub(super) struct Site {
    pub(super) family: Family,
    /// What counts as a pod's traffic; none where no detector is.
    pub(super) pods: Option<Local>,
    pub(super) masquerade_all: bool,
    pub(super) node_ports: Served,
    pub(super) serves_localhost: bool,
    /// Of the node, in this family.
    pub(super) node_addresses: Vec<IpAddr>,
    /// Where cluster IPs are taken from, in this family.
    pub(super) service_cidrs: Vec<IpNet>,
    pub(super) ports: Vec<SitePort>,
    pub(super) nftables: NftablesLayout,
}

/// How a packet of a pod is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Local {
    Source(IpNet),
    Interface(String),
    InterfacePrefix(String),
}

/// One port of a Service, seen from a node.
pub(super) struct SitePort {
    pub(super) port: ProxiedPort,
    pub(super) endpoints: Categories,
}

impl Site {
    /// The node `node` of a cluster.
    pub(super) fn of(
        cluster: &Cluster,
        node: &str,
        family: Family,
        settings: &Settings,
    ) -> Result<Self> {
        let plan = Plan::of(cluster)?;
        let node_plan = plan.nodes.iter().find(|planned| planned.name == node);
        let node_addresses: Vec<IpAddr> = node_plan
            .iter()
            .flat_map(|planned| planned.addresses.iter().copied())
            .filter(|address| family.holds(*address))
            .collect();
        let of_family = |ranges: &[IpNet]| {
            ranges
                .iter()
                .copied()
                .find(|range| family.holds(range.addr()))
        };
        let pods = match &settings.detect_local {
            DetectLocal::ClusterCidr => of_family(&settings.cluster_cidrs).map(Local::Source),
            DetectLocal::NodeCidr => node_plan
                .and_then(|planned| of_family(&planned.pod_cidrs))
                .map(Local::Source),
            DetectLocal::BridgeInterface(name) => Some(Local::Interface(name.clone())),
            DetectLocal::InterfaceNamePrefix(prefix) => {
                Some(Local::InterfacePrefix(prefix.clone()))
            }
        };
        let place = Place::of(cluster, node);
        let ports = ports(cluster, family)?
            .into_iter()
            .map(|port| {
                let endpoints = categorize(cluster, &port, family, &place)?;
                Ok(SitePort { port, endpoints })
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            family,
            pods,
            masquerade_all: settings.masquerade_all,
            node_ports: settings.served(&node_addresses, family),
            serves_localhost: settings.serves_localhost(family),
            node_addresses,
            service_cidrs: cluster
                .service_cidrs
                .iter()
                .copied()
                .filter(|cidr| family.holds(cidr.addr()))
                .collect(),
            ports,
            nftables: settings.nftables,
        })
    }

    /// The sources that a load balancer's address of this port admits.
    pub(super) fn admitted(&self, port: &ProxiedPort) -> Vec<IpNet> {
        let mut admitted: Vec<IpNet> = port.source_ranges.iter().map(IpNet::trunc).collect();
        let node_address = self.node_addresses.first();
        if node_address.is_some_and(|node| admitted.iter().any(|range| range.contains(node))) {
            // Where the address is the node's own, what the node sends there has it as source.
            admitted.extend(port.load_balancer_vips.iter().copied().map(IpNet::from));
        }
        admitted
    }
}

impl SitePort {
    /// Whether the policy of the traffic inside the cluster finds an endpoint.
    pub(super) fn has_internal(&self) -> bool {
        self.endpoints.any && (self.has_local() || !self.port.internal_policy_local)
    }

    /// Whether the policy of the traffic from outside finds one.
    pub(super) fn has_external(&self) -> bool {
        self.endpoints.any && (self.has_local() || !self.port.external_policy_local)
    }

    /// Whether anything from outside is led on: pods and the node itself, coming by an external
    /// address, may go where the policy sends nobody else.
    pub(super) fn leads_external(&self) -> bool {
        self.endpoints.any && self.port.externally_accessible()
    }

    /// Whether a load balancer's address admits only some sources.
    pub(super) fn has_firewall(&self) -> bool {
        !self.port.load_balancer_vips.is_empty() && !self.port.source_ranges.is_empty()
    }

    /// The endpoints of the Cluster policy, if any traffic follows it.
    pub(super) fn under_cluster_policy(&self) -> Option<&[SocketAddr]> {
        let used = self.port.uses_cluster_endpoints() && !self.endpoints.cluster.is_empty();
        used.then_some(&*self.endpoints.cluster)
    }

    /// The endpoints of the Local policy, if any traffic follows it.
    pub(super) fn under_local_policy(&self) -> Option<&[SocketAddr]> {
        let used = self.port.uses_local_endpoints() && self.has_local();
        used.then_some(&*self.endpoints.local)
    }

    fn has_local(&self) -> bool {
        !self.endpoints.local.is_empty()
    }
}
