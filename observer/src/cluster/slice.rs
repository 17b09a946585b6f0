//! An `EndpointSlice` as an index takes it: a third of what the object takes, and most of what a
//! cluster's objects take is these.

use std::sync::Arc;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::discovery::v1::{
    self as discovery, EndpointConditions, EndpointHints, EndpointPort, EndpointSlice, ForNode,
    ForZone,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::{Metadata, Resource};
use serde::{Deserialize, Deserializer};

use super::build::SERVICE_NAME;
use super::convert::{Names, endpoint_of, parse_ip, parse_port, parse_protocol};
use super::trim::{Trim, named};
use super::{Endpoint, Family, Hints, Protocol, ServiceRef};

/// What an index reads of an `EndpointSlice`.
#[derive(Clone, Debug, PartialEq)]
pub struct Slice {
    metadata: ObjectMeta,
    /// `None` for addresses that are none (`FQDN`).
    family: Option<Family>,
    /// The Service that it is of.
    pub(super) service: Option<ServiceRef>,
    /// Name, protocol and number of each port that has one.
    pub(super) ports: Box<[(Arc<str>, Protocol, u16)]>,
    /// Those with an address of the slice's family; without their ports.
    pub(super) endpoints: Box<[Endpoint]>,
}

impl From<&EndpointSlice> for Slice {
    fn from(slice: &EndpointSlice) -> Self {
        let mut names = Names::default();
        let family = match slice.address_type.as_str() {
            "IPv4" => Some(Family::V4),
            "IPv6" => Some(Family::V6),
            _ => None,
        };
        let metadata = &slice.metadata;
        // Only a file written by hand leaves the namespace out.
        let namespace = names.intern(metadata.namespace.as_deref().unwrap_or("default"));
        let labels = metadata.labels.as_ref();
        let name = labels.and_then(|labels| labels.get(SERVICE_NAME));
        let service = name.map(|name| ServiceRef {
            namespace: Arc::clone(&namespace),
            name: names.intern(name),
        });
        // A port of an endpoint without a number means every port, to no one but its author.
        let ports = slice.ports.iter().flatten().filter_map(|port| {
            Some((
                names.intern(port.name.as_deref().unwrap_or_default()),
                parse_protocol(port.protocol.as_deref())?,
                parse_port(port.port?)?,
            ))
        });
        let ports = ports.collect();
        let endpoints = slice.endpoints.iter().flatten().filter_map(|endpoint| {
            let address = parse_ip(endpoint.addresses.first()?)?;
            (Some(Family::of(address)) == family)
                .then(|| endpoint_of(endpoint, address, &namespace, &mut names))
        });
        Self {
            endpoints: endpoints.collect(),
            metadata: metadata.clone(),
            family,
            service,
            ports,
        }
    }
}

/// The object again, as far as it was kept.
impl From<&Slice> for EndpointSlice {
    fn from(slice: &Slice) -> Self {
        let ports = slice
            .ports
            .iter()
            .map(|(name, protocol, port)| EndpointPort {
                name: Some(name.to_string()),
                port: Some(i32::from(*port)),
                protocol: Some(protocol.to_string()),
                app_protocol: None,
            });
        let address_type = slice.family.map(|family| family.to_string());
        Self {
            address_type: address_type.unwrap_or_default(),
            endpoints: Some(slice.endpoints.iter().map(object).collect()),
            metadata: slice.metadata.clone(),
            ports: Some(ports.collect()),
        }
    }
}

fn object(endpoint: &Endpoint) -> discovery::Endpoint {
    let text = |text: &Arc<str>| text.to_string();
    let hints = endpoint.hints.as_ref().map(|hints| {
        let Hints { zones, nodes } = &**hints;
        let for_zones = zones.iter().map(|zone| ForZone { name: text(zone) });
        let for_nodes = nodes.iter().map(|node| ForNode { name: text(node) });
        EndpointHints {
            for_zones: Some(for_zones.collect()),
            for_nodes: Some(for_nodes.collect()),
        }
    });
    discovery::Endpoint {
        addresses: vec![endpoint.address.to_string()],
        conditions: Some(EndpointConditions {
            ready: Some(endpoint.ready),
            serving: Some(endpoint.serving),
            terminating: Some(endpoint.terminating),
        }),
        hints,
        node_name: endpoint.node.as_ref().map(text),
        target_ref: endpoint.pod.as_ref().map(|pod| ObjectReference {
            kind: Some("Pod".to_owned()),
            namespace: Some(text(&pod.namespace)),
            name: Some(text(&pod.name)),
            ..ObjectReference::default()
        }),
        zone: endpoint.zone.as_ref().map(text),
        ..discovery::Endpoint::default()
    }
}

impl<'de> Deserialize<'de> for Slice {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        EndpointSlice::deserialize(reader).map(|slice| Self::from(&slice))
    }
}

impl Resource for Slice {
    const API_VERSION: &'static str = EndpointSlice::API_VERSION;
    const GROUP: &'static str = EndpointSlice::GROUP;
    const KIND: &'static str = EndpointSlice::KIND;
    const VERSION: &'static str = EndpointSlice::VERSION;
    const URL_PATH_SEGMENT: &'static str = EndpointSlice::URL_PATH_SEGMENT;
    type Scope = <EndpointSlice as Resource>::Scope;
}

impl Metadata for Slice {
    type Ty = ObjectMeta;

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl Trim for Slice {
    fn trimmed(self) -> Self {
        Self {
            metadata: named(self.metadata, &[SERVICE_NAME]),
            ..self
        }
    }
}
