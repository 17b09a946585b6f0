//! kube-vip: a node has the Service's address, or all announce it.

use k8s_openapi::api::apps::v1::DaemonSet;

use super::asked::{Asked, boolean};
use super::environment::variable;
use super::names::IGNORED;
use super::{Delivers, Keeps, LoadBalancer, Setting, System};

/// The class that kube-vip serves if it is not told another (`pkg/kubevip/constants.go`).
pub(super) const CLASS: &str = "kube-vip.io/kube-vip-class";

const SERVICES: &str = "kube-vip, docs/usage/kubernetes-services.md";
const VARIABLES: &str = "kube-vip, docs/installation/flags.md";

/// kube-vip as it is installed.
#[derive(Clone, Copy, Debug)]
pub(super) struct KubeVip<'a> {
    name: &'a str,
    /// `lb_class_name`.
    pub(super) class: Option<&'a str>,
    /// `lb_class_only`: Services without a class are not served.
    only_class: bool,
    /// `svc_election`: one leader for each Service, under policy `Local` among nodes with a pod.
    elects: bool,
}

impl<'a> KubeVip<'a> {
    /// Those `DaemonSets` that serve Services, and not only the control plane.
    pub(super) fn of(daemon_set: &'a DaemonSet) -> Option<Self> {
        let name = daemon_set.metadata.name.as_deref().unwrap_or_default();
        let pods = daemon_set.spec.as_ref()?.template.spec.as_ref()?;
        let mut images = pods.containers.iter().filter_map(|it| it.image.as_deref());
        let is_it = images.any(|image| image.contains("kube-vip/kube-vip"));
        let says = |it: &str| variable(daemon_set, it).and_then(boolean) == Some(true);
        (is_it && says("svc_enable")).then(|| Self {
            name,
            class: variable(daemon_set, "lb_class_name"),
            only_class: says("lb_class_only"),
            elects: says("svc_election"),
        })
    }

    /// Whether it serves a Service without a class.
    pub(super) fn serves(&self, asked: Asked<'_>) -> Option<Setting> {
        let is_ignored = self.only_class || asked.says(IGNORED);
        (!is_ignored).then(|| Setting::set("DaemonSet", self.name, SERVICES))
    }
}

/// How kube-vip brings traffic to the Service: the address is the node's, and nothing is rewritten.
pub(super) fn answer(
    asked: Asked<'_>,
    installed: Option<&KubeVip<'_>>,
    setting: Setting,
) -> LoadBalancer {
    if asked.says(IGNORED) {
        let ignore = asked.if_set(IGNORED, SERVICES);
        return LoadBalancer::new(System::Nobody, Delivers::Nothing, Keeps::Unknown)
            .because(ignore);
    }
    let election = installed.map(|it| {
        if it.elects {
            Setting::set("svc_election", "true", VARIABLES)
        } else {
            Setting::default_of("svc_election", "false", VARIABLES)
        }
    });
    // Without an election for each Service, the leader may be a node without a pod.
    let leaves_out = installed.filter(|it| it.elects).map(|_| true);
    LoadBalancer::new(System::KubeVip, Delivers::VirtualIp, Keeps::Client)
        .leaves_out(leaves_out)
        .because([setting])
        .because(election)
}
