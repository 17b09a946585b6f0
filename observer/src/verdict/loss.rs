//! Whose rule took the source address, and why.
//!
//! kube-proxy's come from the objects. What it certainly did not do, and what yet became an
//! address of this node, is the network plugin's: no object tells of its rules, so that is
//! inferred from what they do (flannel, `pkg/trafficmngr/iptables`; Calico,
//! `felix/rules/nat.go`; the CNI project's `plugins/meta/portmap`).

use std::net::IpAddr;

use super::judge::Scene;
use super::vocabulary::{Basis, Cause, CauseCode, ClientKind, RewriteOwner};
use crate::cluster::{AddressKind, DetectLocal, FrontDoorKind, TrafficPolicy};

impl Scene<'_> {
    /// Whose rule made the source `seen`, and why.
    pub(super) fn loss(&self, seen: IpAddr) -> (RewriteOwner, Cause) {
        if let Some(cause) = self.masqueraded_by_kube_proxy(seen) {
            return (RewriteOwner::KubeProxy, cause);
        }
        if let Some(cause) = self.masqueraded_at_a_host_port(seen) {
            return (RewriteOwner::Cni, cause);
        }
        match self.spared_by_kube_proxy() {
            Some(why) => self.rewritten_by_another(seen, &why),
            None => (RewriteOwner::Unknown, self.nothing_explains(seen)),
        }
    }

    /// Why kube-proxy masqueraded it, if it did.
    ///
    /// Where several of its rules would have, the one that a change of policy would not spare
    /// comes first: a hairpin and the node's own traffic are masqueraded whatever the policy is.
    fn masqueraded_by_kube_proxy(&self, seen: IpAddr) -> Option<Cause> {
        let policy = self
            .entry
            .map(|entry| entry.service.external_traffic_policy);
        if matches!(
            self.front_door.kind,
            Some(FrontDoorKind::HostPort | FrontDoorKind::Pod)
        ) {
            return None;
        }
        let (code, explanation) = if self.is_hairpin() {
            (
                CauseCode::Hairpin,
                format!(
                    "the pod reached itself through the Service; kube-proxy masquerades that to \
                     {seen}, or its replies would never pass this node"
                ),
            )
        } else if self.entry.is_some() && self.opened_here() && !self.takes_the_node_for_a_pod() {
            (
                CauseCode::NodeLocalClient,
                format!(
                    "the client is this node itself; kube-proxy masquerades its own traffic to \
                     {seen}"
                ),
            )
        } else if self.is_from_outside() && policy == Some(TrafficPolicy::Cluster) {
            (
                CauseCode::ExternalTrafficPolicyCluster,
                format!(
                    "externalTrafficPolicy is Cluster: kube-proxy masquerades all traffic from \
                     outside to {seen}, so that replies return through this node"
                ),
            )
        } else {
            return self.masqueraded_on_its_way_to_a_cluster_ip(seen);
        };
        Some(Cause {
            code,
            basis: Basis::Observed,
            explanation,
        })
    }

    /// Why kube-proxy masquerades what goes to a cluster IP, if it does.
    fn masqueraded_on_its_way_to_a_cluster_ip(&self, seen: IpAddr) -> Option<Cause> {
        if self.front_door.kind != Some(FrontDoorKind::ClusterIP) || self.entry.is_none() {
            return None;
        }
        let client = self.client.address.ip();
        let from_outside = matches!(
            self.client.kind,
            ClientKind::External | ClientKind::LoadBalancer
        );
        let outside = |basis, of_what: &str| Cause {
            code: CauseCode::OutsideClusterCidr,
            basis,
            explanation: format!(
                "{client} {of_what}: kube-proxy takes it for no pod, and masquerades what it \
                 sends to a cluster IP to {seen}"
            ),
        };
        let cluster = "is outside the cluster CIDR";
        let Some(kube_proxy) = self.knowledge.kube_proxy else {
            // masqueradeAll would do it too, but is rare, and for a pod neither is likelier.
            return from_outside.then(|| outside(Basis::Inferred, cluster));
        };
        if kube_proxy.masquerade_all {
            return Some(Cause {
                code: CauseCode::MasqueradeAll,
                basis: Basis::Config,
                explanation: format!(
                    "kube-proxy runs with masqueradeAll: whatever goes to a cluster IP is \
                     masqueraded, here to {seen}"
                ),
            });
        }
        match (kube_proxy.detect_local, self.is_outside()) {
            (DetectLocal::NodeCidr, Some(true)) => Some(outside(
                Basis::Config,
                "is outside this node's pod CIDR (detectLocalMode: NodeCIDR)",
            )),
            (_, Some(true)) => Some(outside(Basis::Config, cluster)),
            (_, Some(false)) => None,
            // No pod's interface lets a client from outside in.
            (_, None) => from_outside.then(|| {
                outside(
                    Basis::Inferred,
                    "came by no interface that kube-proxy knows for a pod's (detectLocalMode)",
                )
            }),
        }
    }

    /// What the plugin `portmap` masquerades: what a pod sends to its own host port, and the node
    /// to one at its loopback address.
    fn masqueraded_at_a_host_port(&self, seen: IpAddr) -> Option<Cause> {
        if self.front_door.kind != Some(FrontDoorKind::HostPort) {
            return None;
        }
        let (code, explanation) = if self.is_hairpin() {
            (
                CauseCode::Hairpin,
                format!(
                    "the pod reached itself through its host port; the network plugin masquerades \
                     that to {seen}, or its replies would never pass this node"
                ),
            )
        } else if self.opened_here() {
            (
                CauseCode::NodeLocalClient,
                format!(
                    "the client is this node itself; the network plugin masquerades what it sends \
                     to a host port to {seen}"
                ),
            )
        } else {
            return None;
        };
        Some(Cause {
            code,
            basis: Basis::Inferred,
            explanation,
        })
    }

    /// Why kube-proxy has no rule that would have masqueraded it; `None` if it may have one.
    fn spared_by_kube_proxy(&self) -> Option<String> {
        let client = self.client.address.ip();
        let destination = self.front_door.address.ip();
        self.knowledge.index?;
        match self.front_door.kind {
            Some(FrontDoorKind::Pod) => Some(format!(
                "{destination} is a pod's own address, for which kube-proxy has no rule"
            )),
            Some(FrontDoorKind::HostPort) => {
                Some("host ports are the network plugin's, not kube-proxy's".to_owned())
            }
            // It masquerades there what has an address of this node, and nobody else.
            Some(
                FrontDoorKind::NodePort | FrontDoorKind::LoadBalancer | FrontDoorKind::ExternalIP,
            ) => (self.entry?.service.external_traffic_policy == TrafficPolicy::Local
                && !self.knowledge.local.contains(client))
            .then(|| {
                format!(
                    "externalTrafficPolicy is Local, under which kube-proxy does not masquerade \
                     {client}"
                )
            }),
            Some(FrontDoorKind::ClusterIP) => {
                self.entry?;
                self.spared_on_its_way_to_a_cluster_ip()
            }
            // Whoever rewrote the destination has rules of its own.
            None => self
                .chosen
                .is_some_and(|(backend, _)| backend == self.front_door.address)
                .then(|| {
                    format!("{destination} is no Service's, so that kube-proxy has no rule for it")
                }),
        }
    }

    fn spared_on_its_way_to_a_cluster_ip(&self) -> Option<String> {
        let client = self.client.address.ip();
        match self.knowledge.kube_proxy {
            Some(config) if config.masquerade_all => None,
            Some(_) if self.is_outside() == Some(false) => Some(format!(
                "by its configuration kube-proxy does not masquerade what {client} sends to a \
                 cluster IP"
            )),
            // masqueradeAll would do it, too, but is rare, and this the rule.
            _ => self
                .leaves_the_pod_network()
                .then(|| "kube-proxy spares pods on their way to a cluster IP".to_owned()),
        }
    }

    /// A rewrite that kube-proxy did not do: whose else it is.
    fn rewritten_by_another(&self, seen: IpAddr, why: &str) -> (RewriteOwner, Cause) {
        if !self.knowledge.local.contains(seen) {
            let cause = Cause {
                code: CauseCode::Unknown,
                basis: Basis::Observed,
                explanation: format!(
                    "{why}; and {seen}, which the source became, is no address of this node, as a \
                     network plugin's masquerade gives: whose rule it was is not known"
                ),
            };
            return (RewriteOwner::Unknown, cause);
        }
        let rule = if self.leaves_the_pod_network() {
            "network plugins put that in place of a pod that leaves the pod network (flannel's \
             --ip-masq, Calico's natOutgoing)"
        } else if self.client.kind != ClientKind::Pod && self.goes_to_a_pod_of_another_node() {
            "network plugins put that in place of whoever is no pod, on the way to a pod of \
             another node (flannel's --ip-masq)"
        } else {
            "a rule of the network plugin, or of this host's firewall, did that"
        };
        let cause = Cause {
            code: CauseCode::CniMasquerade,
            basis: Basis::Inferred,
            explanation: format!(
                "{why}; the source became {seen}, an address of this node: {rule}"
            ),
        };
        (RewriteOwner::Cni, cause)
    }

    /// A rewrite of which it cannot be told who did it, and what would tell.
    fn nothing_explains(&self, seen: IpAddr) -> Cause {
        let to_cluster_ip = self.front_door.kind == Some(FrontDoorKind::ClusterIP);
        let explanation = if to_cluster_ip && self.knowledge.kube_proxy.is_none() {
            format!(
                "the source became {seen} on this node: by kube-proxy, if it runs with \
                 masqueradeAll or a cluster CIDR that does not hold {}, or by the network plugin; \
                 kube-proxy's configuration would tell",
                self.client.address.ip()
            )
        } else {
            format!(
                "the source became {seen} on this node, and nothing known of the cluster says why"
            )
        };
        Cause {
            code: CauseCode::Unknown,
            basis: Basis::Observed,
            explanation,
        }
    }

    /// Whether the client is the endpoint itself.
    fn is_hairpin(&self) -> bool {
        self.chosen
            .is_some_and(|(backend, _)| backend.ip() == self.client.address.ip())
    }

    /// Whether kube-proxy takes the client for one outside the cluster; `None` if that is not known,
    /// or not told by addresses.
    fn is_outside(&self) -> Option<bool> {
        let node = self
            .knowledge
            .index
            .and_then(|index| index.node(self.knowledge.local.node()));
        let client = self.client.address.ip();
        self.knowledge.kube_proxy?.is_outside(client, node)
    }

    /// Whether kube-proxy, without a range of pods, has no rule for the node's own way to a
    /// cluster IP.
    fn takes_the_node_for_a_pod(&self) -> bool {
        self.front_door.kind == Some(FrontDoorKind::ClusterIP)
            && self.spared_on_its_way_to_a_cluster_ip().is_some()
    }

    fn goes_to_a_pod_of_another_node(&self) -> bool {
        let local = self.knowledge.local;
        self.chosen
            .zip(self.knowledge.index)
            .is_some_and(|((backend, _), index)| {
                let protocol = self.connection.identity.protocol;
                let node = index.backend(protocol, backend.ip(), backend.port()).node;
                index.address_kind(backend.ip(), local) == AddressKind::Pod
                    && node.is_some_and(|node| node != local.node())
            })
    }
}
