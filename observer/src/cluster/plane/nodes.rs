//! Who translates the addresses of Services on the nodes.

use k8s_openapi::api::core::v1::ConfigMap;

use super::super::Objects;
use super::super::front::Setting;
use super::super::settings::{set, setting, unset};
use super::super::workload::{Workload, name};
use super::{Dataplane, Found};

const CILIUM: &str = "Cilium, network/kubernetes/kubeproxy-free";
const CALICO: &str = "Calico, operations/ebpf/enabling-ebpf";
const FELIX: &str = "Calico, reference/felix/configuration";
const ANTREA: &str = "Antrea, docs/antrea-proxy.md";
const GKE: &str = "GKE, concepts/dataplane-v2";
const OVN: &str = "OVN-Kubernetes, design/topology";
const KUBE_ROUTER: &str = "kube-router, docs/user-guide.md";
const KUBE_PROXY: &str = "Kubernetes, reference/networking/virtual-ips";

/// What tells of one of them.
type Sign = fn(&Objects, &[Workload<'_>]) -> Option<Found<Dataplane>>;

/// Who does it: kube-proxy, unless an object tells of somebody else.
pub fn dataplane(objects: &Objects) -> Found<Dataplane> {
    let workloads = Workload::all(objects);
    let others: [Sign; 6] = [gke, cilium, calico, antrea, ovn_kubernetes, kube_router];
    let found = others.iter().find_map(|other| other(objects, &workloads));
    found.unwrap_or_else(|| Found {
        what: Dataplane::KubeProxy,
        because: vec![unset("kube-proxy", "nothing replaces it", KUBE_PROXY)],
    })
}

/// GKE's agent is the `DaemonSet` `anetd`; such clusters have no kube-proxy.
fn gke(_: &Objects, workloads: &[Workload<'_>]) -> Option<Found<Dataplane>> {
    let anetd = system_daemon(workloads, &["anetd"], "anetd")?;
    Some(found(
        Dataplane::GkeDataplaneV2,
        vec![runs_on_nodes(anetd, GKE)],
    ))
}

fn cilium(objects: &Objects, workloads: &[Workload<'_>]) -> Option<Found<Dataplane>> {
    let config = config_map(objects, "cilium-config");
    let agent = workloads
        .iter()
        .find(|it| it.name == "cilium" || it.label("k8s-app") == Some("cilium"));
    if config.is_none() && agent.is_none() {
        return None;
    }
    // The agent takes each of them as an argument too.
    let read = |key: &str| {
        let by_flag = agent.and_then(|agent| agent.flag(&format!("--{key}")));
        by_flag.or_else(|| value(config?, key))
    };
    let replaces = read("kube-proxy-replacement");
    let node_ports = read("enable-node-port").is_some_and(is_true);
    let name = "cilium-config: kube-proxy-replacement";
    let because = setting(name, replaces, "not known", CILIUM);
    match replaces {
        Some("false" | "disabled" | "partial") if !node_ports => {
            return Some(found(Dataplane::KubeProxy, vec![because]));
        }
        Some("true" | "strict" | "false" | "disabled" | "partial") => {}
        _ if node_ports => {}
        // `probe`, of old versions: as much as the kernel can.
        _ => return Some(found(Dataplane::Cilium, vec![because])),
    }
    let mode = read("bpf-lb-mode").or_else(|| read("node-port-mode"));
    let what = match mode {
        None | Some("" | "snat") => Dataplane::CiliumSnat,
        Some("dsr") => Dataplane::CiliumDsr,
        Some("hybrid") => Dataplane::CiliumHybrid,
        Some(_) => Dataplane::Cilium,
    };
    let mut because = vec![
        setting("cilium-config: bpf-lb-mode", mode, "snat", CILIUM),
        because,
    ];
    if node_ports {
        because.push(set("cilium-config: enable-node-port", "true", CILIUM));
    }
    Some(found(what, because))
}

fn calico(objects: &Objects, workloads: &[Workload<'_>]) -> Option<Found<Dataplane>> {
    let by_env = || {
        let node = workloads.iter().find(|it| it.name == "calico-node")?;
        let value = node.env("FELIX_BPFENABLED")?;
        Some((is_true(value), set("FELIX_BPFENABLED", value, FELIX)))
    };
    let around = &objects.around;
    let by_felix = || {
        let felix = around.felix_configurations.iter();
        let felix = felix
            .filter(|felix| name(&felix.metadata) == "default")
            .find_map(|felix| felix.spec.bpf_enabled)?;
        let because = set("FelixConfiguration: bpfEnabled", felix.to_string(), CALICO);
        Some((felix, because))
    };
    let by_operator = || {
        let network = around
            .installations
            .iter()
            .map(|it| &it.spec.calico_network);
        let value = network.flat_map(|it| &it.linux_dataplane).next()?;
        let because = set("Installation: linuxDataplane", value, CALICO);
        Some((value == "BPF", because))
    };
    // The environment comes before the objects. The operator writes bpfEnabled itself, so where
    // both are there the FelixConfiguration is what counts.
    let (is_on, because) = by_env().or_else(by_felix).or_else(by_operator)?;
    is_on.then(|| found(Dataplane::CalicoEbpf, vec![because]))
}

/// Antrea leaves node ports to kube-proxy unless `proxyAll` is on.
fn antrea(objects: &Objects, workloads: &[Workload<'_>]) -> Option<Found<Dataplane>> {
    let is_there = workloads.iter().any(|it| it.name == "antrea-agent");
    let config = objects.around.config_maps.iter().find(|it| {
        let name = name(&it.metadata);
        // Older manifests end the name with a hash of what it holds.
        name == "antrea-config" || (is_there && name.starts_with("antrea-config-"))
    })?;
    let document = value(config, "antrea-agent.conf")?;
    let all = line(document, "proxyAll").filter(|all| is_true(all))?;
    let mode = line(document, "defaultLoadBalancerMode");
    let what = match mode {
        None | Some("" | "nat") => Dataplane::AntreaNat,
        Some("dsr") => Dataplane::AntreaDsr,
        Some(_) => return None,
    };
    let because = vec![
        setting(
            "antrea-config: defaultLoadBalancerMode",
            mode,
            "nat",
            ANTREA,
        ),
        set("antrea-config: proxyAll", all, ANTREA),
    ];
    Some(found(what, because))
}

fn ovn_kubernetes(_: &Objects, workloads: &[Workload<'_>]) -> Option<Found<Dataplane>> {
    let names = ["ovnkube-node", "ovnkube-node-dpu"];
    let node = system_daemon(workloads, &names, "ovnkube-node")?;
    Some(found(
        Dataplane::OvnKubernetes,
        vec![runs_on_nodes(node, OVN)],
    ))
}

/// kube-router proxies Services unless `--run-service-proxy=false`.
fn kube_router(_: &Objects, workloads: &[Workload<'_>]) -> Option<Found<Dataplane>> {
    let router = system_daemon(workloads, &["kube-router"], "kube-router")?;
    let proxies = router.flag("--run-service-proxy");
    let because = setting("--run-service-proxy", proxies, "true", KUBE_ROUTER);
    let is_off = proxies.is_some_and(|value| value.eq_ignore_ascii_case("false"));
    (!is_off).then(|| found(Dataplane::KubeRouter, vec![because]))
}

/// A workload by its name or by the label `k8s-app` or `app` of its pods.
fn system_daemon<'w, 'o>(
    workloads: &'w [Workload<'o>],
    names: &[&str],
    app: &str,
) -> Option<&'w Workload<'o>> {
    workloads.iter().find(|it| {
        let by_name = it.kind == "DaemonSet" && names.contains(&it.name);
        by_name || [it.label("k8s-app"), it.label("app")].contains(&Some(app))
    })
}

fn runs_on_nodes(workload: &Workload<'_>, source: &'static str) -> Setting {
    set(workload.to_string(), "runs on the nodes", source)
}

fn config_map<'o>(objects: &'o Objects, wanted: &str) -> Option<&'o ConfigMap> {
    let mut maps = objects.around.config_maps.iter();
    maps.find(|it| name(&it.metadata) == wanted)
}

fn value<'o>(config: &'o ConfigMap, key: &str) -> Option<&'o str> {
    config.data.as_ref()?.get(key).map(String::as_str)
}

/// The value of a key in a YAML document, at any depth; comments do not count.
fn line<'d>(document: &'d str, key: &str) -> Option<&'d str> {
    document.lines().find_map(|line| {
        let value = line.trim_start().strip_prefix(key)?.strip_prefix(':')?;
        let value = value.split(" #").next().unwrap_or(value);
        Some(value.trim().trim_matches(['"', '\'']))
    })
}

/// As Go's `strconv.ParseBool` has it.
fn is_true(value: &str) -> bool {
    matches!(value, "1" | "t" | "T" | "true" | "TRUE" | "True")
}

const fn found(what: Dataplane, because: Vec<Setting>) -> Found<Dataplane> {
    Found { what, because }
}
