//! The ports of Services as kube-proxy sees them: one family, one port, defaults filled in.

use std::net::IpAddr;

use anyhow::{Context as _, Result};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};

use super::Family;
use crate::cluster::{Cluster, name_of, namespace_of};
pub(super) use crate::protocol::Protocol;

/// A Service with this label is another proxy's business.
const LABEL_OTHER_PROXY: &str = "service.kubernetes.io/service-proxy-name";
/// How long session affinity lasts when the Service does not say.
const AFFINITY_SECONDS: i32 = 10_800;

/// One port of a Service in one family.
#[derive(Clone, Debug)]
pub(super) struct ProxiedPort {
    /// `namespace/name:port`, or `namespace/name` for a port without a name.
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) service: String,
    /// The port's own name, which its endpoints carry; empty if it has none.
    pub(super) port_name: String,
    pub(super) protocol: Protocol,
    pub(super) cluster_ip: IpAddr,
    pub(super) port: u16,
    pub(super) node_port: Option<u16>,
    pub(super) external_ips: Vec<IpAddr>,
    /// The load balancer's addresses that nodes serve themselves (ipMode VIP, or none given).
    pub(super) load_balancer_vips: Vec<IpAddr>,
    pub(super) source_ranges: Vec<IpNet>,
    pub(super) health_check_node_port: Option<u16>,
    pub(super) external_policy_local: bool,
    pub(super) internal_policy_local: bool,
    /// Seconds of session affinity by client address.
    pub(super) affinity: Option<i32>,
}

impl ProxiedPort {
    /// Whether anything but cluster IPs leads here.
    pub(super) fn externally_accessible(&self) -> bool {
        self.node_port.is_some()
            || !self.load_balancer_vips.is_empty()
            || !self.external_ips.is_empty()
    }

    /// Whether some traffic may use endpoints of every node. Also with the external policy
    /// Local: pods and the node itself, coming by an external address, may use them all.
    pub(super) fn uses_cluster_endpoints(&self) -> bool {
        !self.internal_policy_local || self.externally_accessible()
    }

    /// Whether some traffic is bound to endpoints of this node.
    pub(super) fn uses_local_endpoints(&self) -> bool {
        self.internal_policy_local || (self.external_policy_local && self.externally_accessible())
    }
}

/// The ports of all Services that have a cluster IP of the family, by name.
pub(super) fn ports(cluster: &Cluster, family: Family) -> Result<Vec<ProxiedPort>> {
    let mut ports = Vec::new();
    for service in &cluster.services {
        let name = format!(
            "{}/{}",
            namespace_of(&service.metadata),
            name_of(&service.metadata)
        );
        let labels = service.metadata.labels.as_ref();
        if labels.is_some_and(|labels| labels.contains_key(LABEL_OTHER_PROXY)) {
            continue;
        }
        let of_service =
            of_service(service, &name, family).with_context(|| format!("the Service {name}"))?;
        ports.extend(of_service);
    }
    ports.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(ports)
}

fn of_service(service: &Service, name: &str, family: Family) -> Result<Vec<ProxiedPort>> {
    let Some(spec) = &service.spec else {
        return Ok(Vec::new());
    };
    let type_ = spec.type_.as_deref().unwrap_or("ClusterIP");
    let Some(cluster_ip) = cluster_ip(spec, family)? else {
        return Ok(Vec::new());
    };
    if type_ == "ExternalName" {
        return Ok(Vec::new());
    }
    let external_ips = addresses(spec.external_ips.iter().flatten(), family)?;
    let load_balancer_vips = load_balancer_vips(service, family)?;
    let source_ranges = source_ranges(spec, family)?;
    let affinity = (spec.session_affinity.as_deref() == Some("ClientIP")).then(|| {
        let config = spec
            .session_affinity_config
            .as_ref()
            .and_then(|config| config.client_ip.as_ref());
        config
            .and_then(|client_ip| client_ip.timeout_seconds)
            .unwrap_or(AFFINITY_SECONDS)
    });
    let one_port = |port: &ServicePort| {
        let port_name = port.name.clone().unwrap_or_default();
        Ok(ProxiedPort {
            name: if port_name.is_empty() {
                name.to_owned()
            } else {
                format!("{name}:{port_name}")
            },
            namespace: namespace_of(&service.metadata).to_owned(),
            service: name_of(&service.metadata).to_owned(),
            port_name,
            protocol: Protocol::parse(port.protocol.as_deref())?,
            cluster_ip,
            port: port_number(port.port)?,
            node_port: port
                .node_port
                .filter(|port| *port != 0)
                .map(port_number)
                .transpose()?,
            external_ips: external_ips.clone(),
            load_balancer_vips: load_balancer_vips.clone(),
            source_ranges: source_ranges.clone(),
            health_check_node_port: spec
                .health_check_node_port
                .filter(|port| *port != 0)
                .map(port_number)
                .transpose()?,
            external_policy_local: spec.external_traffic_policy.as_deref() == Some("Local"),
            internal_policy_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
            affinity,
        })
    };
    spec.ports.iter().flatten().map(one_port).collect()
}

/// The cluster IP of the family; none for a headless Service.
fn cluster_ip(spec: &ServiceSpec, family: Family) -> Result<Option<IpAddr>> {
    let both = spec.cluster_ips.iter().flatten();
    let one = spec
        .cluster_ip
        .iter()
        .filter(|_| spec.cluster_ips.is_none());
    let given = both
        .chain(one)
        .filter(|address| !address.is_empty() && *address != "None");
    Ok(addresses(given, family)?.first().copied())
}

fn load_balancer_vips(service: &Service, family: Family) -> Result<Vec<IpAddr>> {
    let ingress = service
        .status
        .iter()
        .filter_map(|status| status.load_balancer.as_ref());
    let served_by_nodes = ingress
        .flat_map(|balancer| balancer.ingress.iter().flatten())
        .filter(|ingress| ingress.ip_mode.as_deref().is_none_or(|mode| mode == "VIP"));
    addresses(
        served_by_nodes.filter_map(|ingress| ingress.ip.as_ref()),
        family,
    )
}

fn source_ranges(spec: &ServiceSpec, family: Family) -> Result<Vec<IpNet>> {
    let mut ranges = Vec::new();
    for range in spec.load_balancer_source_ranges.iter().flatten() {
        let parsed: IpNet = range
            .trim()
            .parse()
            .with_context(|| format!("it has the source range {range:?}"))?;
        if family.holds(parsed.addr()) {
            ranges.push(parsed);
        }
    }
    Ok(ranges)
}

fn addresses<'text>(
    given: impl Iterator<Item = &'text String>,
    family: Family,
) -> Result<Vec<IpAddr>> {
    let mut addresses = Vec::new();
    for text in given {
        let address: IpAddr = text
            .parse()
            .with_context(|| format!("it has the address {text:?}"))?;
        if family.holds(address) {
            addresses.push(address);
        }
    }
    Ok(addresses)
}

fn port_number(port: i32) -> Result<u16> {
    u16::try_from(port).with_context(|| format!("it has the port {port}"))
}
