//! Providers of which only annotations tell. Most open connections of their own to node ports.

use serde_json::Value;

use super::super::finding::Reason;
use super::asked::{Asked, Port, boolean, items};
use super::names::Maker;
use super::{Answer, Carrier, Delivers, Finding, Keeps, LoadBalancer, OfPort, Setting};

const DIGITAL_OCEAN: &str =
    "DigitalOcean cloud controller manager, docs/controllers/services/annotations.md";
const HETZNER: &str =
    "Hetzner cloud controller manager, docs/reference/load_balancer_annotations.md";
const ORACLE: &str = "OCI cloud controller manager, docs/load-balancer-annotations.md";
const OPENSTACK: &str = "cloud-provider-openstack, docs/openstack-cloud-controller-manager/\
                         expose-applications-using-loadbalancer-type-service.md";
const OPENSTACK_CONFIG: &str = "cloud-provider-openstack, docs/openstack-cloud-controller-manager/\
                                using-openstack-cloud-controller-manager.md";
const OVH: &str = "OVHcloud Managed Kubernetes, getting the source IP behind the LoadBalancer";
const SCALEWAY: &str = "Scaleway cloud controller manager, docs/loadbalancer-annotations.md";
const LINODE: &str = "Linode cloud controller manager, docs/configuration/annotations.md";
const NODE_BALANCER: &str = "Akamai, NodeBalancers: Client's IP address pass-through";
const VULTR: &str = "Vultr cloud controller manager, docs/load-balancers.md";

const DO: &str = "service.beta.kubernetes.io/do-loadbalancer-";
const SCW: &str = "service.beta.kubernetes.io/scw-loadbalancer-";
const LIN: &str = "service.beta.kubernetes.io/linode-loadbalancer-";

/// The load balancer of a provider.
pub(super) fn answer(maker: Maker, asked: Asked<'_>, setting: Setting) -> Answer {
    let mut answer = match maker {
        Maker::DigitalOcean => digital_ocean(asked),
        Maker::Hetzner => hetzner(asked).into(),
        Maker::Oracle => oracle(asked),
        Maker::OpenStack => openstack(asked).into(),
        Maker::Ovh => ovh(asked).into(),
        Maker::Scaleway => scaleway(asked).into(),
        Maker::Linode => linode(asked).into(),
        Maker::Vultr => vultr(asked).into(),
        Maker::Other(name) => LoadBalancer::named(name, Delivers::Unknown, Keeps::Unknown).into(),
        // They have files of their own.
        Maker::Aws
        | Maker::Gke
        | Maker::Azure
        | Maker::Metallb
        | Maker::KubeVip
        | Maker::K3s
        | Maker::Cilium
        | Maker::Calico => LoadBalancer::named("", Delivers::Unknown, Keeps::Unknown).into(),
    };
    answer.load_balancer.because.insert(0, setting);
    answer
}

/// One that opens connections of its own to the node ports.
fn proxy(name: &str) -> LoadBalancer {
    LoadBalancer::named(name, Delivers::NodePort, Keeps::Own)
}

/// An annotation that switches something on.
fn switch(
    asked: Asked<'_>,
    name: &str,
    carriers: &[Carrier],
    source: &'static str,
) -> (Vec<Carrier>, Setting) {
    let adds = if asked.says(name) { carriers } else { &[] };
    (adds.to_vec(), asked.setting(name, "false", source))
}

/// Of two kinds: `REGIONAL` terminates connections, `REGIONAL_NETWORK` passes packets through. Which
/// is the default depends on the cluster.
fn digital_ocean(asked: Asked<'_>) -> Answer {
    let name = |end: &str| format!("{DO}{end}");
    let kind = name("type");
    let (mut adds, proxy_setting) = switch(
        asked,
        &name("enable-proxy-protocol"),
        // The only version there is (DigitalOcean, "Load Balancers now support PROXY protocol").
        &[Carrier::ProxyV1],
        DIGITAL_OCEAN,
    );
    let protocol = name("protocol");
    let speaks_http = match asked.annotation(&protocol) {
        Some("http" | "http2" | "http3") => true,
        Some("https") => !asked.says(&name("tls-passthrough")),
        _ => false,
    };
    if speaks_http {
        adds.insert(0, Carrier::XForwardedFor);
    }
    let is_unknown = |kind: &str| !matches!(kind, "" | "REGIONAL" | "REGIONAL_NETWORK");
    let findings: Vec<Finding> = asked
        .annotation(&kind)
        .filter(|kind| is_unknown(kind))
        .map(|value| asked.not_understood(&kind, value))
        .into_iter()
        .collect();
    // Only the kind that terminates connections can do these.
    let terminates = asked.annotation(&kind) == Some("REGIONAL") || !adds.is_empty();
    let passes = asked.annotation(&kind) == Some("REGIONAL_NETWORK");
    let load_balancer = match (passes, terminates) {
        (true, _) => LoadBalancer::named("digitalocean", Delivers::VirtualIp, Keeps::Client),
        (false, true) => LoadBalancer {
            adds,
            ..proxy("digitalocean")
        },
        (false, false) => LoadBalancer::named("digitalocean", Delivers::Unknown, Keeps::Unknown),
    };
    let load_balancer = load_balancer
        .leaves_out(Some(true))
        .because([
            asked.setting(&kind, "REGIONAL_NETWORK", DIGITAL_OCEAN),
            proxy_setting,
        ])
        .because(asked.if_set(&protocol, DIGITAL_OCEAN));
    Answer {
        load_balancer,
        findings,
    }
}

/// The document does not say which version of the PROXY protocol it speaks.
fn hetzner(asked: Asked<'_>) -> LoadBalancer {
    const PROTOCOL: &str = "load-balancer.hetzner.cloud/protocol";
    let (mut adds, setting) = switch(
        asked,
        "load-balancer.hetzner.cloud/uses-proxyprotocol",
        &[Carrier::ProxyV1, Carrier::ProxyV2],
        HETZNER,
    );
    if matches!(asked.annotation(PROTOCOL), Some("http" | "https")) {
        adds.insert(0, Carrier::XForwardedFor);
    }
    LoadBalancer {
        adds,
        ..proxy("hetzner")
    }
    // It asks at the node port, where a node without a pod does not answer.
    .leaves_out(Some(true))
    .because([setting, asked.setting(PROTOCOL, "tcp", HETZNER)])
}

/// Of two kinds: `lb`, and `nlb`, which keeps the client's address under policy `Local`
/// (`pkg/cloudprovider/providers/oci/load_balancer_spec.go`, `getPreserveSource`).
fn oracle(asked: Asked<'_>) -> Answer {
    const KIND: &str = "oci.oraclecloud.com/load-balancer-type";
    const PRESERVE: &str = "oci-network-load-balancer.oraclecloud.com/is-preserve-source";
    const PPV2: &str = "oci-network-load-balancer.oraclecloud.com/is-ppv2-enabled";
    const VERSION: &str =
        "service.beta.kubernetes.io/oci-load-balancer-connection-proxy-protocol-version";
    const BACKEND: &str = "service.beta.kubernetes.io/oci-load-balancer-backend-protocol";
    let kind = asked.setting(KIND, "lb", ORACLE);
    let mut findings = Vec::new();
    let load_balancer = if kind.value == "nlb" {
        let (adds, ppv2) = switch(asked, PPV2, &[Carrier::ProxyV2], ORACLE);
        let preserve = asked.setting(PRESERVE, "true", ORACLE);
        let keeps = match (asked.is_local(), boolean(&preserve.value)) {
            (true, Some(true)) => Keeps::Client,
            (false, _) | (true, Some(false)) => Keeps::Own,
            (true, None) => Keeps::Unknown,
        };
        if !asked.is_local() {
            findings.extend(asked.ignored(PRESERVE, Reason::PolicyCluster));
        }
        LoadBalancer {
            adds,
            ..LoadBalancer::named("oracle-nlb", Delivers::NodePort, keeps)
        }
        .because([kind, preserve, ppv2])
    } else {
        let header = match asked.annotation(VERSION) {
            Some("1") => Some(Carrier::ProxyV1),
            Some("2") => Some(Carrier::ProxyV2),
            _ => None,
        };
        let speaks_http = matches!(asked.annotation(BACKEND), Some("HTTP" | "HTTP2"));
        let http = speaks_http.then_some(Carrier::XForwardedFor);
        if !matches!(&*kind.value, "lb") {
            findings.push(asked.not_understood(KIND, &kind.value));
        }
        LoadBalancer {
            adds: http.into_iter().chain(header).collect(),
            ..proxy("oracle-lb")
        }
        .because([kind])
        .because(asked.if_set(VERSION, ORACLE))
        .because(asked.if_set(BACKEND, ORACLE))
    };
    Answer {
        // It asks the health check node port under policy Local.
        load_balancer: load_balancer.leaves_out(Some(true)),
        findings,
    }
}

/// Octavia. With its provider `amphora` it opens connections of its own, with `ovn` it does not;
/// only the first can add headers, and no object tells which it is.
fn openstack(asked: Asked<'_>) -> LoadBalancer {
    const PROXY: &str = "loadbalancer.openstack.org/proxy-protocol";
    const FORWARDED: &str = "loadbalancer.openstack.org/x-forwarded-for";
    const MONITOR: &str = "loadbalancer.openstack.org/enable-health-monitor";
    let header = match asked.annotation(PROXY) {
        Some("v2") => Some(Carrier::ProxyV2),
        Some("v1") => Some(Carrier::ProxyV1),
        _ => asked.says(PROXY).then_some(Carrier::ProxyV1),
    };
    let forwarded = asked.says(FORWARDED).then_some(Carrier::XForwardedFor);
    let adds: Vec<_> = forwarded.into_iter().chain(header).collect();
    let keeps = if adds.is_empty() {
        Keeps::Unknown
    } else {
        Keeps::Own
    };
    let monitor = asked.annotation(MONITOR).and_then(boolean);
    LoadBalancer {
        adds,
        ..LoadBalancer::named("openstack", Delivers::NodePort, keeps)
    }
    .leaves_out(monitor)
    .because([
        asked.setting(PROXY, "false", OPENSTACK),
        asked.setting(FORWARDED, "false", OPENSTACK),
        Setting::default_of("lb-provider", "amphora", OPENSTACK_CONFIG),
    ])
    .because(asked.if_set(MONITOR, OPENSTACK))
}

/// `OVHcloud`'s, which take `OpenStack`'s annotations too.
fn ovh(asked: Asked<'_>) -> LoadBalancer {
    const PROXY: &str = "service.beta.kubernetes.io/ovh-loadbalancer-proxy-protocol";
    let header = match asked.annotation(PROXY) {
        Some("v1") => Some(Carrier::ProxyV1),
        Some("v2" | "v2_ssl" | "v2_ssl_cn") => Some(Carrier::ProxyV2),
        _ => None,
    };
    let of_openstack = openstack(asked);
    let (adds, keeps) = match header {
        Some(header) => (vec![header], Keeps::Own),
        None => (of_openstack.adds, of_openstack.keeps),
    };
    LoadBalancer {
        adds,
        ..LoadBalancer::named("ovhcloud", Delivers::NodePort, keeps)
    }
    .leaves_out(of_openstack.leaves_out_unhealthy_nodes)
    .because(asked.if_set(PROXY, OVH))
    .because(of_openstack.because)
}

fn scaleway(asked: Asked<'_>) -> LoadBalancer {
    let names = ["proxy-protocol-v2", "proxy-protocol-v1", "send-proxy-v2"];
    let names = names.map(|end| format!("{SCW}{end}"));
    let carriers = [Carrier::ProxyV2, Carrier::ProxyV1, Carrier::ProxyV2];
    let ports = asked.each_port(|port| {
        let mut headers = names.iter().zip(carriers);
        let header = headers.find(|(name, _)| {
            let value = asked.annotation(name).unwrap_or_default();
            value == "*" || boolean(value) == Some(true) || is_listed(port, value)
        });
        own(
            port,
            header.map(|(_, carrier)| carrier).into_iter().collect(),
        )
    });
    let settings = names.iter().filter_map(|name| asked.if_set(name, SCALEWAY));
    proxy("scaleway")
        .leaves_out(Some(true))
        .with_ports(ports)
        .because(settings)
        .because([Setting::default_of(
            "source address",
            "the load balancer's",
            SCALEWAY,
        )])
}

/// Whether a list of numbers has the port. `1` is a number there, and no switch.
fn is_listed(port: Port<'_>, list: &str) -> bool {
    items(list).any(|item| item.parse() == Ok(port.number))
}

fn linode(asked: Asked<'_>) -> LoadBalancer {
    let name = |end: &str| format!("{LIN}{end}");
    let default = |end: &str| asked.annotation(&name(end)).map(str::to_owned);
    let proxies = default("default-proxy-protocol").or_else(|| default("proxy-protocol"));
    let protocol = default("default-protocol");
    let ports = asked.each_port(|port| {
        let its = asked.annotation(&name(&format!("port-{}", port.number)));
        let its: Option<Value> = its.and_then(|its| serde_json::from_str(its).ok());
        let text = |field: &str| Some(its.as_ref()?.get(field)?.as_str()?.to_owned());
        let header = text("proxy-protocol").or_else(|| proxies.clone());
        let header = match header.as_deref() {
            Some("v1") => Some(Carrier::ProxyV1),
            Some("v2") => Some(Carrier::ProxyV2),
            _ => None,
        };
        let protocol = text("protocol").or_else(|| protocol.clone());
        let http = matches!(protocol.as_deref(), Some("http" | "https"));
        let http = http.then_some(Carrier::XForwardedFor);
        own(port, http.into_iter().chain(header).collect())
    });
    let of_ports = asked
        .annotations()
        .filter(|(its, _)| its.starts_with(&name("port-")))
        .map(|(its, value)| Setting::set(its, value, LINODE));
    proxy("linode")
        .with_ports(ports)
        .because([
            asked.setting(&name("default-proxy-protocol"), "none", LINODE),
            asked.setting(&name("default-protocol"), "tcp", LINODE),
        ])
        .because(of_ports)
        .because([Setting::default_of(
            "source address",
            "the NodeBalancer's",
            NODE_BALANCER,
        )])
}

/// The document does not say which version of the PROXY protocol it speaks.
fn vultr(asked: Asked<'_>) -> LoadBalancer {
    let (adds, setting) = switch(
        asked,
        "service.beta.kubernetes.io/vultr-loadbalancer-proxy-protocol",
        &[Carrier::ProxyV1, Carrier::ProxyV2],
        VULTR,
    );
    LoadBalancer {
        adds,
        ..proxy("vultr")
    }
    .because([setting])
}

fn own(port: Port<'_>, adds: Vec<Carrier>) -> OfPort {
    OfPort {
        port: port.number,
        protocol: port.protocol,
        delivers: Delivers::NodePort,
        keeps: Keeps::Own,
        adds,
    }
}
