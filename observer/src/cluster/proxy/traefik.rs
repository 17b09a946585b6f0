//! Traefik.
//!
//! It deletes `X-Forwarded-*` of peers that it does not trust, and then appends the peer
//! (`pkg/middlewares/forwardedheaders/forwarded_header.go`, `pkg/proxy/httputil/proxy.go`). Where
//! it reads the PROXY protocol it takes connections without a header too
//! (reference/install-configuration/entrypoints).

use k8s_openapi::api::core::v1::Service;

use super::super::front::{Carrier, Setting};
use super::super::settings::{set, unset};
use super::super::workload::{Workload, annotation};
use super::world::World;
use super::{Controller, Served, place};

/// Its images.
pub(super) const IMAGES: &[&str] = &["traefik", "mirrored-library-traefik", "traefik-hub"];
/// The flag that names the class that it serves; all without.
pub(super) const CLASS: &str = "--providers.kubernetesingress.ingressclass";

const DOCUMENT: &str = "Traefik, reference/install-configuration/entrypoints";
const NATIVE: &str = "traefik.ingress.kubernetes.io/service.nativelb";
const NATIVE_DOCUMENT: &str = "Traefik, reference/routing-configuration/kubernetes/ingress";
const NATIVE_BY_DEFAULT: &str = "--providers.kubernetesingress.nativelbbydefault";

/// Who serves.
pub(super) fn served(world: &World<'_>) -> Served {
    let mut served = Served::by(Controller::Traefik, None);
    let workloads = world.running(IMAGES);
    served.places = if workloads.is_empty() {
        place::labelled(world, &[("app.kubernetes.io/name", "traefik")])
    } else {
        place::places(world, &workloads)
    };
    served.adds.push(Carrier::XForwardedFor);
    let options: Vec<_> = workloads.iter().flat_map(|it| options(it)).collect();
    let forwarded = trust(&options, "forwardedheaders");
    if let Some(trust) = &forwarded {
        served.believes.push(Carrier::XForwardedFor);
        served.appends = true;
        served.because.push(trust.clone());
    } else {
        let name = "entryPoints.forwardedHeaders";
        served
            .because
            .push(unset(name, "nobody is trusted", DOCUMENT));
    }
    if let Some(trust) = trust(&options, "proxyprotocol") {
        served.believes.extend([Carrier::ProxyV1, Carrier::ProxyV2]);
        served.because.push(trust);
    }
    if let Some((name, value)) = options
        .iter()
        .find(|(name, value)| name.ends_with(".notappendxforwardedfor") && is_on(value))
    {
        // What is there stays, and nothing is added.
        if !served.appends {
            served.adds.clear();
        }
        served.because.push(set(name, value, DOCUMENT));
    }
    let native = workloads.iter().find_map(|it| it.flag(NATIVE_BY_DEFAULT));
    if let Some(native) = native.filter(|it| is_on(it)) {
        served.to_pods = false;
        let name = "providers.kubernetesIngress.nativeLBByDefault";
        served.because.push(set(name, native, NATIVE_DOCUMENT));
    }
    served
}

/// What a Service sets for itself.
pub(super) fn specialise(served: &mut Served, service: Option<&Service>) {
    let native = service.and_then(|service| annotation(&service.metadata, NATIVE));
    if let Some(native) = native {
        served.to_pods = !is_on(native);
        served
            .because
            .insert(0, set(NATIVE, native, NATIVE_DOCUMENT));
    }
}

/// Options of entry points, `entrypoints.web.forwardedheaders.insecure`: of arguments, or of the
/// environment.
fn options(workload: &Workload<'_>) -> Vec<(String, String)> {
    let flags = workload.flags().map(|(name, value)| {
        let name = name.trim_start_matches('-').to_ascii_lowercase();
        (name, value.to_owned())
    });
    let containers = workload.spec.containers.iter();
    let variables = containers
        .flat_map(|container| container.env.iter().flatten())
        .filter_map(|variable| {
            let name = variable.name.strip_prefix("TRAEFIK_")?;
            let name = name.to_ascii_lowercase().replace('_', ".");
            Some((name, variable.value.clone()?))
        });
    flags
        .chain(variables)
        .filter(|(name, _)| name.starts_with("entrypoints."))
        .collect()
}

/// Whether any entry point reads PROXY headers, if its options are where they can be seen: Traefik
/// takes all of them from a file, or from arguments, or from the environment (Traefik,
/// reference/install-configuration/boot-environment).
pub(super) fn reads_proxy(workload: &Workload<'_>) -> Option<bool> {
    let options = options(workload);
    (!options.is_empty()).then(|| trust(&options, "proxyprotocol").is_some())
}

/// Whom an entry point trusts, if anybody.
fn trust(options: &[(String, String)], what: &str) -> Option<Setting> {
    let of = |option: &str| {
        let end = format!(".{what}.{option}");
        options.iter().filter(move |(name, _)| name.ends_with(&end))
    };
    let insecure = of("insecure").find(|(_, value)| is_on(value));
    let trusted = || of("trustedips").find(|(_, value)| !value.is_empty());
    let (name, value) = insecure.or_else(trusted)?;
    let value = if value.is_empty() { "true" } else { value };
    Some(set(name, value, DOCUMENT))
}

fn is_on(value: &str) -> bool {
    value.is_empty() || value.eq_ignore_ascii_case("true")
}
