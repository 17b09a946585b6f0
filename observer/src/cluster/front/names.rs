//! Who is named by a Service's annotations.

use std::collections::BTreeSet;

use super::asked::Asked;

/// Who makes load balancers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Maker {
    Aws,
    Gke,
    Azure,
    DigitalOcean,
    Hetzner,
    Oracle,
    OpenStack,
    Ovh,
    Scaleway,
    Linode,
    Vultr,
    Metallb,
    KubeVip,
    K3s,
    Cilium,
    Calico,
    /// A provider of which only the name is known.
    Other(&'static str),
}

/// Whose annotations begin how. Each is a prefix in the documents of its controller.
const PREFIXES: &[(&str, Maker)] = &[
    ("service.beta.kubernetes.io/aws-load-balancer-", Maker::Aws),
    ("cloud.google.com/", Maker::Gke),
    ("networking.gke.io/", Maker::Gke),
    ("service.beta.kubernetes.io/azure-", Maker::Azure),
    (
        "service.beta.kubernetes.io/do-loadbalancer-",
        Maker::DigitalOcean,
    ),
    ("kubernetes.digitalocean.com/", Maker::DigitalOcean),
    ("load-balancer.hetzner.cloud/", Maker::Hetzner),
    ("service.beta.kubernetes.io/oci-", Maker::Oracle),
    ("oci.oraclecloud.com/", Maker::Oracle),
    ("oci-network-load-balancer.oraclecloud.com/", Maker::Oracle),
    ("loadbalancer.openstack.org/", Maker::OpenStack),
    (
        "service.beta.kubernetes.io/openstack-internal-load-balancer",
        Maker::OpenStack,
    ),
    ("loadbalancer.ovhcloud.com/", Maker::Ovh),
    ("service.beta.kubernetes.io/ovh-loadbalancer-", Maker::Ovh),
    (
        "service.beta.kubernetes.io/scw-loadbalancer-",
        Maker::Scaleway,
    ),
    (
        "service.beta.kubernetes.io/linode-loadbalancer-",
        Maker::Linode,
    ),
    (
        "service.beta.kubernetes.io/vultr-loadbalancer-",
        Maker::Vultr,
    ),
    ("metallb.io/", Maker::Metallb),
    ("metallb.universe.tf/", Maker::Metallb),
    ("kube-vip.io/", Maker::KubeVip),
    ("svccontroller.k3s.cattle.io/", Maker::K3s),
    ("io.cilium/lb-ipam-", Maker::Cilium),
    ("lbipam.cilium.io/", Maker::Cilium),
    ("projectcalico.org/", Maker::Calico),
    (
        "service.beta.kubernetes.io/alibaba-cloud-loadbalancer-",
        Maker::Other("alibaba-cloud"),
    ),
    (
        "service.beta.kubernetes.io/alicloud-loadbalancer-",
        Maker::Other("alibaba-cloud"),
    ),
    ("service.cloud.tencent.com/", Maker::Other("tencent-cloud")),
    (
        "service.kubernetes.io/ibm-load-balancer-",
        Maker::Other("ibm-cloud"),
    ),
    (
        "service.beta.kubernetes.io/exoscale-loadbalancer-",
        Maker::Other("exoscale"),
    ),
    (
        "service.beta.kubernetes.io/upcloud-load-balancer-",
        Maker::Other("upcloud"),
    ),
    ("kubernetes.civo.com/", Maker::Other("civo")),
    ("lb.stackit.cloud/", Maker::Other("stackit")),
    ("yandex.cloud/", Maker::Other("yandex-cloud")),
    ("kubernetes.io/elb.", Maker::Other("huawei-cloud")),
    ("metal.equinix.com/", Maker::Other("equinix-metal")),
    ("purelb.io/", Maker::Other("purelb")),
    ("lb.kubesphere.io/", Maker::Other("openelb")),
];

/// The annotation that stands for `loadBalancerSourceRanges` (`core/v1`
/// `AnnotationLoadBalancerSourceRangesKey`).
pub(super) const SOURCE_RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";

/// The annotation that keeps kube-vip off (`docs/usage/kubernetes-services.md` of its website).
pub(super) const IGNORED: &str = "kube-vip.io/ignore";

/// A rule without a health probe, port by port (`cloud-provider-azure`, `pkg/consts`).
pub(super) const NO_PROBE: &str = "_no_probe_rule";

/// The label of Nodes that is read: EKS Auto Mode's (Amazon EKS user guide, "Create a node pool for
/// EKS Auto Mode"). Of `spec.providerID`, only what comes before `://` is.
pub const NODE_LABEL: &str = "eks.amazonaws.com/compute-type";

/// Whether an annotation of a Service tells of its load balancer.
pub fn is_telling(annotation: &str) -> bool {
    annotation == SOURCE_RANGES || annotation.ends_with(NO_PROBE) || by_name(annotation).is_some()
}

fn by_name(annotation: &str) -> Option<Maker> {
    let mut prefixes = PREFIXES.iter();
    let (_, maker) = prefixes.find(|(prefix, _)| annotation.starts_with(prefix))?;
    Some(*maker)
}

/// All whom a Service's annotations name.
pub(super) fn named(asked: Asked<'_>) -> BTreeSet<Maker> {
    let mut named: BTreeSet<_> = asked
        .annotations()
        // What is set to nothing asks nobody for anything, and this asks one not to.
        .filter(|(name, value)| !value.is_empty() && *name != IGNORED)
        .filter_map(|(name, _)| by_name(name))
        .collect();
    // OVHcloud's load balancers are OpenStack's, and take both prefixes.
    if named.contains(&Maker::Ovh) {
        named.remove(&Maker::OpenStack);
    }
    named
}

/// An annotation that names a maker.
pub(super) fn naming(asked: Asked<'_>, maker: Maker) -> Option<(&str, &str)> {
    let mut annotations = asked.annotations();
    annotations.find(|(name, value)| !value.is_empty() && by_name(name) == Some(maker))
}

impl Maker {
    /// The cloud whose Nodes have a `providerID` of this scheme.
    pub(super) fn of_scheme(scheme: &str) -> Option<Self> {
        Some(match scheme {
            "aws" => Self::Aws,
            "gce" => Self::Gke,
            "azure" => Self::Azure,
            "digitalocean" => Self::DigitalOcean,
            "hcloud" => Self::Hetzner,
            "oci" => Self::Oracle,
            "openstack" => Self::OpenStack,
            "scaleway" => Self::Scaleway,
            "linode" => Self::Linode,
            "vultr" => Self::Vultr,
            "ibm" => Self::Other("ibm-cloud"),
            "civo" => Self::Other("civo"),
            "exoscale" => Self::Other("exoscale"),
            "upcloud" => Self::Other("upcloud"),
            "stackit" => Self::Other("stackit"),
            "yandex" => Self::Other("yandex-cloud"),
            "qcloud" => Self::Other("tencent-cloud"),
            _ => return None,
        })
    }

    /// The maker that the Nodes of it would tell; `None` for those that run on any Nodes.
    pub(super) fn cloud(self) -> Option<Self> {
        match self {
            Self::Ovh => Some(Self::OpenStack),
            Self::Metallb
            | Self::KubeVip
            | Self::K3s
            | Self::Cilium
            | Self::Calico
            | Self::Other("equinix-metal" | "purelb" | "openelb") => None,
            cloud => Some(cloud),
        }
    }
}
