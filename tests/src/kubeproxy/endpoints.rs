//! Which endpoints the traffic of a port may use on a node.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use anyhow::{Context as _, Result};
use k8s_openapi::api::discovery::v1::{Endpoint as ApiEndpoint, EndpointPort};

use super::{
    Family,
    services::{Protocol, ProxiedPort},
};
use crate::cluster::{Cluster, name_of, namespace_of};

const LABEL_SERVICE: &str = "kubernetes.io/service-name";
const LABEL_ZONE: &str = "topology.kubernetes.io/zone";

/// One endpoint of one port.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "they are the conditions of the API"
)]
struct Endpoint {
    address: SocketAddr,
    local: bool,
    ready: bool,
    serving: bool,
    terminating: bool,
    zone_hints: Vec<String>,
    node_hints: Vec<String>,
}

impl Endpoint {
    /// Still answering while it ends: the last resort of a policy without ready endpoints.
    fn is_last_resort(&self) -> bool {
        self.serving && self.terminating
    }
}

/// Where this node stands.
pub(super) struct Place {
    node: String,
    zone: Option<String>,
}

impl Place {
    /// The place of a node, by its labels.
    pub(super) fn of(cluster: &Cluster, node: &str) -> Self {
        let object = cluster
            .nodes
            .iter()
            .find(|candidate| name_of(&candidate.metadata) == node);
        let labels = object.and_then(|object| object.metadata.labels.as_ref());
        let zone = labels.and_then(|labels| labels.get(LABEL_ZONE)).cloned();
        Self {
            node: node.to_owned(),
            zone,
        }
    }
}

/// The endpoints of a port, sorted by what may use them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Categories {
    /// For traffic under the Cluster policy.
    pub(super) cluster: Vec<SocketAddr>,
    /// For traffic under the Local policy.
    pub(super) local: Vec<SocketAddr>,
    /// All of both.
    pub(super) reachable: Vec<SocketAddr>,
    /// All on this node, usable or not.
    pub(super) on_node: Vec<SocketAddr>,
    /// Whether any node has a usable one: decides between a DROP and a REJECT.
    pub(super) any: bool,
}

/// Sorts the endpoints of a port as kube-proxy's `CategorizeEndpoints` does.
pub(super) fn categorize(
    cluster: &Cluster,
    port: &ProxiedPort,
    family: Family,
    place: &Place,
) -> Result<Categories> {
    let endpoints = endpoints(cluster, port, family, place)?;
    let usable = |endpoint: &&Endpoint| endpoint.ready || endpoint.is_last_resort();
    let mut categories = Categories {
        on_node: endpoints
            .iter()
            .filter(|endpoint| endpoint.local)
            .map(|endpoint| endpoint.address)
            .collect(),
        ..Categories::default()
    };
    if port.uses_cluster_endpoints() {
        let hints = Hints::of(&endpoints, place);
        let chosen = endpoints
            .iter()
            .filter(|endpoint| endpoint.ready && hints.admit(endpoint, place));
        categories.cluster = or_last_resort(chosen, endpoints.iter());
        categories.any = !categories.cluster.is_empty();
    }
    if port.uses_local_endpoints() {
        let of_this_node = || endpoints.iter().filter(|endpoint| endpoint.local);
        categories.local = or_last_resort(
            of_this_node().filter(|endpoint| endpoint.ready),
            of_this_node(),
        );
        categories.any |= endpoints.iter().any(|endpoint| usable(&endpoint));
    }
    categories.reachable = categories.cluster.clone();
    let only_local = categories
        .local
        .iter()
        .filter(|local| !categories.cluster.contains(local));
    categories.reachable.extend(only_local);
    Ok(categories)
}

/// The chosen ones, or if there are none, those that still serve while they end.
fn or_last_resort<'endpoints>(
    chosen: impl Iterator<Item = &'endpoints Endpoint>,
    all: impl Iterator<Item = &'endpoints Endpoint>,
) -> Vec<SocketAddr> {
    let chosen: Vec<SocketAddr> = chosen.map(|endpoint| endpoint.address).collect();
    if chosen.is_empty() {
        all.filter(|endpoint| endpoint.is_last_resort())
            .map(|endpoint| endpoint.address)
            .collect()
    } else {
        chosen
    }
}

/// How far the hints of the endpoints are obeyed: only if every ready one has them, and one of
/// them is for here.
#[derive(Clone, Copy)]
enum Hints {
    Node,
    Zone,
    Ignored,
}

impl Hints {
    fn of(endpoints: &[Endpoint], place: &Place) -> Self {
        let obeyed = |hints: fn(&Endpoint) -> &Vec<String>, here: Option<&String>| {
            let mut ready = endpoints
                .iter()
                .filter(|endpoint| endpoint.ready)
                .peekable();
            ready.peek().is_some()
                && ready.clone().all(|endpoint| !hints(endpoint).is_empty())
                && ready.any(|endpoint| here.is_some_and(|here| hints(endpoint).contains(here)))
        };
        if obeyed(|endpoint| &endpoint.node_hints, Some(&place.node)) {
            Self::Node
        } else if obeyed(|endpoint| &endpoint.zone_hints, place.zone.as_ref()) {
            Self::Zone
        } else {
            Self::Ignored
        }
    }

    fn admit(self, endpoint: &Endpoint, place: &Place) -> bool {
        match self {
            Self::Node => endpoint.node_hints.contains(&place.node),
            Self::Zone => place
                .zone
                .as_ref()
                .is_some_and(|zone| endpoint.zone_hints.contains(zone)),
            Self::Ignored => true,
        }
    }
}

/// The endpoints of a port, each address once, in kube-proxy's order: that of their text.
fn endpoints(
    cluster: &Cluster,
    port: &ProxiedPort,
    family: Family,
    place: &Place,
) -> Result<Vec<Endpoint>> {
    let mut by_text = BTreeMap::new();
    for slice in &cluster.slices {
        let labels = slice.metadata.labels.as_ref();
        let service = labels.and_then(|labels| labels.get(LABEL_SERVICE));
        if namespace_of(&slice.metadata) != port.namespace || service != Some(&port.service) {
            continue;
        }
        for slice_port in slice.ports.iter().flatten() {
            let Some(number) = matching_port(slice_port, port)? else {
                continue;
            };
            for endpoint in slice.endpoints.iter().flatten() {
                let Some(address) = endpoint.addresses.first() else {
                    continue;
                };
                let address: IpAddr = address.parse().with_context(|| {
                    format!(
                        "the EndpointSlice {} has the address {address:?}",
                        name_of(&slice.metadata)
                    )
                })?;
                if family.holds(address) {
                    let endpoint = of_api(endpoint, (address, number).into(), &place.node);
                    by_text.insert(endpoint.address.to_string(), endpoint);
                }
            }
        }
    }
    Ok(by_text.into_values().collect())
}

/// The number of a slice's port if it is the one of this port of the Service.
fn matching_port(slice_port: &EndpointPort, port: &ProxiedPort) -> Result<Option<u16>> {
    let same = slice_port.name.as_deref().unwrap_or_default() == port.port_name
        && Protocol::parse(slice_port.protocol.as_deref())? == port.protocol;
    let number = slice_port.port.filter(|_| same);
    number
        .map(|number| {
            u16::try_from(number).with_context(|| format!("an endpoint port is {number}"))
        })
        .transpose()
}

fn of_api(endpoint: &ApiEndpoint, address: SocketAddr, node: &str) -> Endpoint {
    let conditions = endpoint.conditions.clone().unwrap_or_default();
    let hints = endpoint.hints.clone().unwrap_or_default();
    Endpoint {
        address,
        local: endpoint.node_name.as_deref() == Some(node),
        ready: conditions.ready.unwrap_or(true),
        serving: conditions.serving.unwrap_or(true),
        terminating: conditions.terminating.unwrap_or(false),
        zone_hints: hints
            .for_zones
            .into_iter()
            .flatten()
            .map(|zone| zone.name)
            .collect(),
        node_hints: hints
            .for_nodes
            .into_iter()
            .flatten()
            .map(|node| node.name)
            .collect(),
    }
}
