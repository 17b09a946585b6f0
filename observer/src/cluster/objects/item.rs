//! One object, put where objects of its kind are.

use serde::de::DeserializeOwned;
use serde_json::Value;
use strum::EnumString;

use super::super::around::Around;
use super::super::kube_proxy::may_be_config_map;
use super::{FieldPath, Objects};

/// A kind that is read. Its name is the `kind` of the objects, but for the routes, which are one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString)]
enum Kind {
    Service,
    EndpointSlice,
    Node,
    Pod,
    ConfigMap,
    Endpoints,
    Namespace,
    Deployment,
    DaemonSet,
    StatefulSet,
    Ingress,
    IngressClass,
    IngressClassParams,
    TargetGroupBinding,
    Gateway,
    GatewayClass,
    #[strum(
        serialize = "HTTPRoute",
        serialize = "GRPCRoute",
        serialize = "TLSRoute",
        serialize = "TCPRoute",
        serialize = "UDPRoute"
    )]
    Route,
    ReferenceGrant,
    #[strum(serialize = "IPAddressPool")]
    IpAddressPool,
    L2Advertisement,
    #[strum(serialize = "BGPAdvertisement")]
    BgpAdvertisement,
    FelixConfiguration,
    Installation,
}

/// Why an object is not taken.
#[derive(Debug)]
pub struct Unreadable {
    /// The field that is not what its kind promises; empty for the object.
    pub path: FieldPath,
    /// What is wrong with it.
    pub reason: serde_json::Error,
    /// Whether it is of a kind that an index is built from, and not only of one around Services.
    pub of_index: bool,
}

impl Kind {
    /// Whether an index is built from it.
    const fn is_of_index(self) -> bool {
        matches!(
            self,
            Self::Service | Self::EndpointSlice | Self::Node | Self::Pod | Self::ConfigMap
        )
    }

    /// The kind of an object, if it is read. Knative has Services too, so the version counts; only
    /// a file written by hand lacks it.
    fn of(kind: &str, version: Option<&str>) -> Option<Self> {
        let read: Self = kind.parse().ok()?;
        let Some(version) = version else {
            return read.is_of_index().then_some(read);
        };
        let (group, version) = version.rsplit_once('/').unwrap_or(("", version));
        let is_its = match read {
            Self::Service
            | Self::Node
            | Self::Pod
            | Self::ConfigMap
            | Self::Endpoints
            | Self::Namespace => group.is_empty() && version == "v1",
            Self::EndpointSlice => group == "discovery.k8s.io" && version == "v1",
            Self::Deployment | Self::DaemonSet | Self::StatefulSet => {
                group == "apps" && version == "v1"
            }
            // The versions before had another shape.
            Self::Ingress | Self::IngressClass => group == "networking.k8s.io" && version == "v1",
            // EKS Auto Mode has its own.
            Self::IngressClassParams | Self::TargetGroupBinding => {
                matches!(group, "elbv2.k8s.aws" | "eks.amazonaws.com")
            }
            Self::Gateway | Self::GatewayClass | Self::Route | Self::ReferenceGrant => {
                group == "gateway.networking.k8s.io"
            }
            Self::IpAddressPool | Self::L2Advertisement | Self::BgpAdvertisement => {
                group == "metallb.io"
            }
            Self::FelixConfiguration => {
                matches!(group, "projectcalico.org" | "crd.projectcalico.org")
            }
            Self::Installation => group == "operator.tigera.io",
        };
        is_its.then_some(read)
    }
}

impl Objects {
    /// Whether objects of a kind are read, and not only counted.
    pub fn reads(kind: &str, version: Option<&str>) -> bool {
        Kind::of(kind, version).is_some()
    }

    /// Takes one object, as JSON. Whether it is of a kind that is read; others are counted.
    pub fn add(&mut self, item: &Value) -> Result<bool, Unreadable> {
        let text = |field| item.get(field).and_then(Value::as_str);
        let Some(kind) = text("kind") else {
            return Err(Unreadable {
                path: FieldPath::default(),
                reason: serde::de::Error::custom("it has no kind"),
                of_index: true,
            });
        };
        let Some(kind) = Kind::of(kind, text("apiVersion")) else {
            self.others += 1;
            return Ok(false);
        };
        self.add_of(kind, item).map(|()| true)
    }

    fn add_of(&mut self, kind: Kind, item: &Value) -> Result<(), Unreadable> {
        match kind {
            Kind::Service => push(&mut self.services, item, true),
            Kind::EndpointSlice => push(&mut self.endpoint_slices, item, true),
            Kind::Node => push(&mut self.nodes, item, true),
            Kind::Pod => push(&mut self.pods, item, true),
            Kind::ConfigMap if is_kube_proxys(item) => push(&mut self.config_maps, item, true),
            other => self.around.add_of(other, item),
        }
    }
}

impl Around {
    fn add_of(&mut self, kind: Kind, item: &Value) -> Result<(), Unreadable> {
        match kind {
            // Taken before.
            Kind::Service | Kind::EndpointSlice | Kind::Node | Kind::Pod => Ok(()),
            Kind::ConfigMap => push(&mut self.config_maps, item, false),
            Kind::Endpoints => push(&mut self.endpoints, item, false),
            Kind::Namespace => push(&mut self.namespaces, item, false),
            Kind::Deployment => push(&mut self.deployments, item, false),
            Kind::DaemonSet => push(&mut self.daemon_sets, item, false),
            Kind::StatefulSet => push(&mut self.stateful_sets, item, false),
            Kind::Ingress => push(&mut self.ingresses, item, false),
            Kind::IngressClass => push(&mut self.ingress_classes, item, false),
            Kind::IngressClassParams => push(&mut self.ingress_class_params, item, false),
            Kind::TargetGroupBinding => push(&mut self.target_group_bindings, item, false),
            Kind::Gateway => push(&mut self.gateways, item, false),
            Kind::GatewayClass => push(&mut self.gateway_classes, item, false),
            Kind::Route => push(&mut self.routes, item, false),
            Kind::ReferenceGrant => {
                let read = push(&mut self.reference_grants, item, false);
                self.lacks_reference_grants |= read.is_err();
                read
            }
            Kind::IpAddressPool => push(&mut self.ip_address_pools, item, false),
            Kind::L2Advertisement => push(&mut self.l2_advertisements, item, false),
            Kind::BgpAdvertisement => push(&mut self.bgp_advertisements, item, false),
            Kind::FelixConfiguration => push(&mut self.felix_configurations, item, false),
            Kind::Installation => push(&mut self.installations, item, false),
        }
    }
}

fn push<T: DeserializeOwned>(
    objects: &mut Vec<T>,
    item: &Value,
    of_index: bool,
) -> Result<(), Unreadable> {
    match T::deserialize(item) {
        Ok(object) => {
            objects.push(object);
            Ok(())
        }
        // Told where only now: to keep account of it takes time, and most objects are right.
        Err(reason) => Err(Unreadable {
            path: path_of::<T>(item),
            reason,
            of_index,
        }),
    }
}

/// Where an object is not what its kind promises.
fn path_of<T: DeserializeOwned>(item: &Value) -> FieldPath {
    match serde_path_to_error::deserialize::<_, T>(item) {
        Err(error) => FieldPath::from(error.path()),
        Ok(_) => FieldPath::default(),
    }
}

fn is_kube_proxys(config_map: &Value) -> bool {
    let text = |pointer| config_map.pointer(pointer).and_then(Value::as_str);
    text("/metadata/namespace")
        .zip(text("/metadata/name"))
        .is_some_and(|(namespace, name)| may_be_config_map(namespace, name))
}
