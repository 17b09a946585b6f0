//! Google's and Azure's load balancers, which pass packets on as they are.

use super::asked::Asked;
use super::names::NO_PROBE;
use super::{Answer, Delivers, Keeps, LoadBalancer, Setting, System};

const GKE: &str = "Google Kubernetes Engine, LoadBalancer Service concepts";
const PASSTHROUGH: &str = "Google Cloud, Passthrough Network Load Balancer overview";
const GKE_PARAMETERS: &str = "Google Kubernetes Engine, LoadBalancer Service parameters";

const AZURE: &str = "cloud-provider-azure, LoadBalancer: annotations";
const AZURE_RULES: &str = "cloud-provider-azure, pkg/provider/azure_loadbalancer.go";
const FLOATING_IP: &str = "service.beta.kubernetes.io/azure-disable-load-balancer-floating-ip";
const AZURE_INTERNAL: &str = "service.beta.kubernetes.io/azure-load-balancer-internal";

/// What makes Google's load balancer an internal one; both names are read.
const GKE_TYPES: [&str; 2] = [
    "networking.gke.io/load-balancer-type",
    "cloud.google.com/load-balancer-type",
];
/// What makes it one with a backend service.
const GKE_BACKEND: &str = "cloud.google.com/l4-rbs";

/// Google's: source and destination stay, and replies go straight to the client.
pub(super) fn gke(asked: Asked<'_>, setting: Setting) -> LoadBalancer {
    let kind = GKE_TYPES
        .iter()
        .find_map(|name| asked.if_set(name, GKE_PARAMETERS));
    let passes = Setting::default_of("source and destination", "unchanged", PASSTHROUGH);
    let health = Setting::default_of(
        "health check under policy Local",
        "healthCheckNodePort",
        GKE,
    );
    LoadBalancer::new(System::GkePassthrough, Delivers::VirtualIp, Keeps::Client)
        .leaves_out(Some(true))
        .because([setting])
        .because(kind)
        .because(asked.if_set(GKE_BACKEND, GKE_PARAMETERS))
        .because([passes, health])
}

/// Azure's: with a floating IP the destination stays, and without it is the node and its port.
pub(super) fn azure(asked: Asked<'_>, setting: Setting) -> Answer {
    // It compares with `true`, in letters of any size (`pkg/consts/helpers.go`).
    let says = |name| {
        asked
            .annotation(name)
            .is_some_and(|it| it.eq_ignore_ascii_case("true"))
    };
    let is_disabled = says(FLOATING_IP);
    // No secondary address of an interface can float for an internal one of IPv6.
    let cannot_float = says(AZURE_INTERNAL) && asked.is_only_v6();
    let delivers = if is_disabled || cannot_float {
        Delivers::NodePort
    } else {
        Delivers::VirtualIp
    };
    let has_no_probe = |(name, value): (&str, &str)| name.ends_with(NO_PROBE) && value == "true";
    let leaves_out = (!asked.annotations().any(has_no_probe)).then_some(true);
    let floats = asked.setting(FLOATING_IP, "false", AZURE);
    let internal = asked.if_set(AZURE_INTERNAL, AZURE_RULES);
    let load_balancer = LoadBalancer::new(System::AzureLoadBalancer, delivers, Keeps::Client)
        .leaves_out(leaves_out)
        .because([setting, floats])
        .because(internal);
    let understands = |name| {
        let value = asked.annotation(name)?;
        let is_understood = ["", "true", "false"]
            .iter()
            .any(|it| value.eq_ignore_ascii_case(it));
        (!is_understood).then(|| asked.not_understood(name, value))
    };
    Answer {
        load_balancer,
        findings: [FLOATING_IP, AZURE_INTERNAL]
            .into_iter()
            .filter_map(understands)
            .collect(),
    }
}
