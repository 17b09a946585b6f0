//! A Service, as the controller of a load balancer reads it.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{
    LoadBalancerIngress, Service, ServicePort as ServicePortSpec, ServiceSpec,
};

use super::super::Protocol;
use super::super::convert::{parse_ip, parse_port, parse_protocol};
use super::super::finding::{Finding, Reason};
use super::{OfPort, Setting, System};

/// A Service with a spec.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    service: &'a Service,
    spec: &'a ServiceSpec,
}

/// A port of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Port<'a> {
    pub(super) number: u16,
    pub(super) protocol: Protocol,
    pub(super) name: Option<&'a str>,
}

impl<'a> Asked<'a> {
    pub(super) fn of(service: &'a Service) -> Option<Self> {
        let spec = service.spec.as_ref()?;
        Some(Self { service, spec })
    }

    /// Namespace and name.
    pub(super) fn key(self) -> (&'a str, &'a str) {
        let metadata = &self.service.metadata;
        // Only a file written by hand leaves the namespace out.
        let namespace = metadata.namespace.as_deref().unwrap_or("default");
        (namespace, metadata.name.as_deref().unwrap_or_default())
    }

    /// `shop/web`.
    pub(super) fn name(self) -> String {
        let (namespace, name) = self.key();
        format!("{namespace}/{name}")
    }

    /// `Service shop/web`.
    fn object(self) -> String {
        format!("Service {}", self.name())
    }

    pub(super) const fn spec(self) -> &'a ServiceSpec {
        self.spec
    }

    pub(super) const fn service(self) -> &'a Service {
        self.service
    }

    pub(super) fn is(self, kind: &str) -> bool {
        self.spec.type_.as_deref() == Some(kind)
    }

    /// `spec.loadBalancerClass`.
    pub(super) fn class(self) -> Option<&'a str> {
        let class = self.spec.load_balancer_class.as_deref();
        class.filter(|class| !class.is_empty())
    }

    pub(super) fn annotations(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        let annotations = self.service.metadata.annotations.iter().flatten();
        annotations.map(|(name, value)| (name.as_str(), value.as_str()))
    }

    pub(super) fn annotation(self, name: &str) -> Option<&'a str> {
        let annotations = self.service.metadata.annotations.as_ref()?;
        annotations.get(name).map(String::as_str)
    }

    /// Whether an annotation says `true`.
    pub(super) fn says(self, name: &str) -> bool {
        self.annotation(name).and_then(boolean) == Some(true)
    }

    /// An annotation, or the default of one that is not there.
    pub(super) fn setting(self, name: &str, default: &str, source: &'static str) -> Setting {
        match self.annotation(name) {
            Some(value) => Setting::set(name, value, source),
            None => Setting::default_of(name, default, source),
        }
    }

    /// An annotation, if it is there.
    pub(super) fn if_set(self, name: &str, source: &'static str) -> Option<Setting> {
        let value = self.annotation(name)?;
        Some(Setting::set(name, value, source))
    }

    /// Whether `externalTrafficPolicy` is `Local`.
    pub(super) fn is_local(self) -> bool {
        self.spec.external_traffic_policy.as_deref() == Some("Local")
    }

    /// `externalTrafficPolicy`, because of what a document says of it.
    pub(super) fn policy(self, source: &'static str) -> Setting {
        let name = "spec.externalTrafficPolicy";
        match self.spec.external_traffic_policy.as_deref() {
            Some(policy) => Setting::set(name, policy, source),
            None => Setting::default_of(name, "Cluster", source),
        }
    }

    /// Whether its only family is IPv6.
    pub(super) fn is_only_v6(self) -> bool {
        let families = self.spec.ip_families.as_deref().unwrap_or_default();
        families == ["IPv6"]
    }

    /// `sessionAffinity: ClientIP`.
    pub(super) fn has_affinity(self) -> bool {
        self.spec.session_affinity.as_deref() == Some("ClientIP")
    }

    fn port_specs(self) -> impl Iterator<Item = &'a ServicePortSpec> {
        self.spec.ports.iter().flatten()
    }

    /// Its ports; what the API server would refuse is left out.
    pub(super) fn ports(self) -> impl Iterator<Item = Port<'a>> {
        self.port_specs().filter_map(|port| {
            Some(Port {
                number: parse_port(port.port)?,
                protocol: parse_protocol(port.protocol.as_deref())?,
                name: port.name.as_deref(),
            })
        })
    }

    pub(super) fn has_udp(self) -> bool {
        self.ports().any(|port| port.protocol == Protocol::Udp)
    }

    /// One answer for each port.
    pub(super) fn each_port(self, mut answer: impl FnMut(Port<'a>) -> OfPort) -> Vec<OfPort> {
        self.ports().map(&mut answer).collect()
    }

    /// Whether a port has no node port, and gets none. Without the field, one is allocated for
    /// types `NodePort` and `LoadBalancer` (`core/v1` `allocateLoadBalancerNodePorts`).
    pub(super) fn lacks_node_port(self) -> bool {
        let gets_none = match self.spec.type_.as_deref() {
            Some("LoadBalancer") => self.spec.allocate_load_balancer_node_ports == Some(false),
            Some("NodePort") => false,
            _ => true,
        };
        let has_none = |port: &ServicePortSpec| port.node_port.is_none_or(|port| port == 0);
        gets_none && self.port_specs().any(has_none)
    }

    /// Whether a port has a node port, or gets one.
    pub(super) fn has_node_port(self) -> bool {
        let gets_one = self.spec.allocate_load_balancer_node_ports != Some(false);
        let has_one = |port: &ServicePortSpec| port.node_port.is_some_and(|port| port != 0);
        self.port_specs().any(|port| gets_one || has_one(port))
    }

    /// Where it is reached, as its status tells.
    pub(super) fn ingress(self) -> &'a [LoadBalancerIngress] {
        let status = self.service.status.as_ref();
        let status = status.and_then(|status| status.load_balancer.as_ref());
        status
            .and_then(|status| status.ingress.as_deref())
            .unwrap_or_default()
    }

    pub(super) fn addresses(self) -> impl Iterator<Item = IpAddr> {
        let texts = self.ingress().iter().filter_map(|it| it.ip.as_deref());
        texts.filter_map(parse_ip)
    }

    /// Whether kube-proxy takes one of its addresses for the nodes' own (`pkg/proxy/util/utils.go`:
    /// no mode, or the mode `VIP`).
    pub(super) fn has_virtual_ip(self) -> bool {
        let is_virtual = |it: &LoadBalancerIngress| {
            it.ip.is_some() && matches!(it.ip_mode.as_deref(), None | Some("VIP"))
        };
        self.ingress().iter().any(is_virtual)
    }

    /// That a setting has a value that is none.
    pub(super) fn not_understood(self, name: &str, value: &str) -> Finding {
        Finding::ValueNotUnderstood {
            object: self.object(),
            name: name.to_owned(),
            value: value.to_owned(),
        }
    }

    /// That a value of a field is refused by who should make the load balancer.
    pub(super) fn refused(self, system: System, name: &str, value: &str) -> Finding {
        Finding::LoadBalancerRefused {
            service: self.name(),
            system: system.to_string(),
            name: name.to_owned(),
            value: value.to_owned(),
        }
    }

    /// That a setting is not read, if it is set.
    pub(super) fn ignored(self, name: &str, why: Reason) -> Option<Finding> {
        self.annotation(name)?;
        Some(Finding::SettingIgnored {
            object: self.object(),
            name: name.to_owned(),
            why,
        })
    }

    /// That a traffic policy, or another field, says nothing of what the Service has.
    pub(super) fn does_not_apply(self, field: &str, why: Reason) -> Finding {
        Finding::PolicyDoesNotApply {
            field: field.to_owned(),
            service: self.name(),
            why,
        }
    }
}

impl Port<'_> {
    /// Whether a list of numbers and names has it.
    pub(super) fn is_in(self, list: &str) -> bool {
        items(list).any(|item| Some(item) == self.name || item.parse() == Ok(self.number))
    }
}

/// The items of a list with commas.
pub(super) fn items(list: &str) -> impl Iterator<Item = &str> {
    list.split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
}

/// As Go's `strconv.ParseBool` reads it, which most controllers use.
pub(super) fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}
