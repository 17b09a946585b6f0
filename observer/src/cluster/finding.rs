//! What is wrong with objects, or will surprise: told beside what they do.

use serde::Serialize;
use strum::{Display, VariantNames};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Connections will fail.
    Broken,
    /// The client's address will be lost, or be false.
    Loses,
    /// Good to know.
    Note,
}

/// Why a field or setting says nothing where it is. The words are in the language files, as
/// `reason-…`.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Display, VariantNames,
)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum Reason {
    /// The load balancer delivers to pods, past kube-proxy.
    PastKubeProxy,
    /// It is read under policy `Local` only.
    PolicyCluster,
    /// A Classic Load Balancer has no such setting.
    ClassicLoadBalancer,
    /// AWS' cloud provider makes the load balancer, and reads no such setting.
    InTreeController,
    /// EKS Auto Mode makes the load balancer, and reads no such setting.
    EksAutoMode,
    /// For this protocol the client's address is always preserved.
    AlwaysPreserved,
    /// ingress-nginx reads it only with `use-forwarded-headers`.
    NeedsUseForwardedHeaders,
    /// ingress-nginx reads it only where it believes anybody.
    NeedsForwardedHeadersOrProxyProtocol,
}

/// What was found. The words are in the language files, by the name of the variant in kebab case.
///
/// What a field holds: an object as `Ingress shop/web`, a Service as `shop/web`, a system or
/// controller by its word, a setting by its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, VariantNames)]
#[serde(tag = "code", rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum Finding {
    /// Type `LoadBalancer`, and nothing in the cluster that would make one.
    LoadBalancerPending {
        /// The Service.
        service: String,
    },
    /// What the Service asks for is refused by who should make its load balancer.
    LoadBalancerRefused {
        /// The Service.
        service: String,
        /// The load balancer.
        system: String,
        /// The field.
        name: String,
        /// Its value.
        value: String,
    },
    /// A load balancer that delivers to node ports, and a Service without one.
    TargetNeedsNodePort {
        /// Who does it.
        by: String,
        /// The Service.
        service: String,
    },
    /// A PROXY header is sent to somebody who does not speak it.
    ProxyProtocolNotRead {
        /// Who does it.
        by: String,
        /// Who reads.
        reader: String,
    },
    /// Somebody waits for a PROXY header that who stands in front does not send.
    ProxyProtocolNotSent {
        /// Who does not send it.
        by: String,
        /// Who reads.
        reader: String,
    },
    /// Somebody waits for a PROXY header, and nobody stands in front to send it.
    ProxyProtocolNobodySends {
        /// Who reads.
        reader: String,
    },
    /// A Service that is led to and is not there.
    MissingService {
        /// Who does it.
        by: String,
        /// The Service.
        service: String,
    },
    /// A port that is led to and that its Service does not have.
    MissingPort {
        /// Who does it.
        by: String,
        /// The Service.
        service: String,
        /// The port.
        port: String,
    },
    /// A route into another namespace, where no `ReferenceGrant` allows it.
    RouteNotGranted {
        /// The route.
        by: String,
        /// The Service.
        service: String,
    },
    /// No endpoint is usable.
    NoEndpoints {
        /// The Service.
        service: String,
    },
    /// Policy `Local`, and no usable endpoint on any node that is announced or registered.
    LocalWithoutEndpoints {
        /// The Service.
        service: String,
    },
    /// Two pods that want one port of one node.
    HostPortConflict {
        /// The port.
        port: String,
        /// One workload.
        one: String,
        /// The other.
        other: String,
    },
    /// The Pod Security level of the namespace forbids what the pods need.
    PodSecurityForbids {
        /// The namespace.
        namespace: String,
        /// Its level.
        level: String,
        /// The workload.
        workload: String,
        /// What they need.
        what: String,
    },
    /// A client that is itself a target may not reach itself by a load balancer that keeps addresses.
    HairpinThroughLoadBalancer {
        /// The Service.
        service: String,
        /// The load balancer.
        system: String,
    },
    /// A load balancer of two families whose targets have one: it gives clients of the other its own
    /// address.
    FamilyTranslated {
        /// The Service.
        service: String,
        /// The load balancer.
        system: String,
    },
    /// No pool or advertisement of `MetalLB` covers it.
    NothingAnnounces {
        /// The Service.
        service: String,
    },
    /// Policy `Local` keeps the address of a load balancer, not of the client.
    LocalBehindReplacingLoadBalancer {
        /// The Service.
        service: String,
        /// The load balancer.
        system: String,
    },
    /// A proxy replaces the `X-Forwarded-For` that one in front of it has written.
    ForwardedHeaderOverwritten {
        /// Who does it.
        by: String,
        /// Who stands before it.
        before: String,
    },
    /// A proxy believes an `X-Forwarded-For` that any client can write.
    ForwardedHeaderSpoofable {
        /// Who does it.
        by: String,
    },
    /// `loadBalancerSourceRanges` are compared with the load balancer's address.
    SourceRangesSeeTheLoadBalancer {
        /// The Service.
        service: String,
        /// The load balancer.
        system: String,
    },
    /// Session affinity goes by the load balancer's address.
    AffinitySeesTheLoadBalancer {
        /// The Service.
        service: String,
        /// The load balancer.
        system: String,
    },
    /// `loadBalancerSourceRanges` do not hold for node ports.
    SourceRangesDoNotFenceNodePorts {
        /// The Service.
        service: String,
    },
    /// A traffic policy that says nothing of what the Service has.
    PolicyDoesNotApply {
        /// The field.
        field: String,
        /// The Service.
        service: String,
        /// Why.
        why: Reason,
    },
    /// Pods in their node's network that do not find the cluster's names.
    HostNetworkDnsPolicy {
        /// The workload.
        workload: String,
    },
    /// A DNS alias: no packet passes the cluster for it.
    ExternalName {
        /// The Service.
        service: String,
        /// What it stands for.
        to: String,
    },
    /// No address of its own: clients go to the pods themselves.
    Headless {
        /// The Service.
        service: String,
    },
    /// Clients in the cluster that go to the load balancer's address never reach it, and bring no PROXY header.
    PodsBypassTheLoadBalancer {
        /// The Service.
        service: String,
        /// The load balancer.
        system: String,
    },
    /// An Ingress or Gateway of a controller that is not known.
    ControllerUnknown {
        /// Who does it.
        by: String,
        /// Its class.
        class: String,
    },
    /// An Ingress or Gateway of which no object tells whose it is.
    ControllerNotTold {
        /// Who does it.
        by: String,
    },
    /// A setting with a value that is none of its values.
    ValueNotUnderstood {
        /// The object.
        object: String,
        /// The setting.
        name: String,
        /// Its value.
        value: String,
    },
    /// A setting that nothing reads, as things are.
    SettingIgnored {
        /// The object.
        object: String,
        /// The setting.
        name: String,
        /// Why.
        why: Reason,
    },
}

impl Finding {
    /// Whether connections come through and requests fail, because one side waits for what the
    /// other does not send.
    pub const fn breaks_requests(&self) -> bool {
        matches!(
            self,
            Self::ProxyProtocolNotRead { .. }
                | Self::ProxyProtocolNotSent { .. }
                | Self::ProxyProtocolNobodySends { .. }
        )
    }

    /// That who serves an object is not known but, if so, by its class.
    pub(super) fn controller_unknown(by: String, class: &str) -> Self {
        if class.is_empty() {
            return Self::ControllerNotTold { by };
        }
        let class = class.to_owned();
        Self::ControllerUnknown { by, class }
    }

    /// How bad it is.
    pub const fn severity(&self) -> Severity {
        match self {
            Self::LoadBalancerPending { .. }
            | Self::LoadBalancerRefused { .. }
            | Self::ProxyProtocolNobodySends { .. }
            | Self::RouteNotGranted { .. }
            | Self::TargetNeedsNodePort { .. }
            | Self::ProxyProtocolNotRead { .. }
            | Self::ProxyProtocolNotSent { .. }
            | Self::MissingService { .. }
            | Self::MissingPort { .. }
            | Self::NoEndpoints { .. }
            | Self::LocalWithoutEndpoints { .. }
            | Self::HostPortConflict { .. }
            | Self::PodSecurityForbids { .. }
            | Self::NothingAnnounces { .. } => Severity::Broken,
            Self::LocalBehindReplacingLoadBalancer { .. }
            | Self::FamilyTranslated { .. }
            | Self::ForwardedHeaderOverwritten { .. }
            | Self::ForwardedHeaderSpoofable { .. }
            | Self::SourceRangesSeeTheLoadBalancer { .. }
            | Self::AffinitySeesTheLoadBalancer { .. } => Severity::Loses,
            Self::SourceRangesDoNotFenceNodePorts { .. }
            | Self::HairpinThroughLoadBalancer { .. }
            | Self::PolicyDoesNotApply { .. }
            | Self::HostNetworkDnsPolicy { .. }
            | Self::ExternalName { .. }
            | Self::Headless { .. }
            | Self::PodsBypassTheLoadBalancer { .. }
            | Self::ControllerUnknown { .. }
            | Self::ControllerNotTold { .. }
            | Self::ValueNotUnderstood { .. }
            | Self::SettingIgnored { .. } => Severity::Note,
        }
    }
}
