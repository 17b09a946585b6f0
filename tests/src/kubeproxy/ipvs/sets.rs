//! The sets that the rules look addresses and ports up in.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use crate::kubeproxy::Family;

/// The kernel's limit for a set's name.
const NAME_MAX: usize = 31;

/// The sets, and the types that the kernel's `ip_set` has for them.
const ALL: [(&str, &str); 17] = [
    (LOOP_BACK, "hash:ip,port,ip"),
    (CLUSTER_IP, "hash:ip,port"),
    (EXTERNAL_IP, "hash:ip,port"),
    (EXTERNAL_IP_LOCAL, "hash:ip,port"),
    (LOAD_BALANCER, "hash:ip,port"),
    (LOAD_BALANCER_FW, "hash:ip,port"),
    (LOAD_BALANCER_LOCAL, "hash:ip,port"),
    (LOAD_BALANCER_SOURCE_IP, "hash:ip,port,ip"),
    (LOAD_BALANCER_SOURCE_CIDR, "hash:ip,port,net"),
    (NODE_PORT_TCP, "bitmap:port"),
    (NODE_PORT_LOCAL_TCP, "bitmap:port"),
    (NODE_PORT_UDP, "bitmap:port"),
    (NODE_PORT_LOCAL_UDP, "bitmap:port"),
    (NODE_PORT_SCTP, "hash:ip,port"),
    (NODE_PORT_LOCAL_SCTP, "hash:ip,port"),
    (HEALTH_CHECK_NODE_PORT, "bitmap:port"),
    (IPVS_IPS, "hash:ip"),
];

/// Endpoints of this node, each with itself as client.
pub(super) const LOOP_BACK: &str = "KUBE-LOOP-BACK";
pub(super) const CLUSTER_IP: &str = "KUBE-CLUSTER-IP";
/// External IPs under policy Cluster.
pub(super) const EXTERNAL_IP: &str = "KUBE-EXTERNAL-IP";
pub(super) const EXTERNAL_IP_LOCAL: &str = "KUBE-EXTERNAL-IP-LOCAL";
/// Load balancers' addresses, under any policy.
pub(super) const LOAD_BALANCER: &str = "KUBE-LOAD-BALANCER";
/// Those that admit only some sources.
pub(super) const LOAD_BALANCER_FW: &str = "KUBE-LOAD-BALANCER-FW";
pub(super) const LOAD_BALANCER_LOCAL: &str = "KUBE-LOAD-BALANCER-LOCAL";
/// Load balancers' addresses that may reach themselves: their source is the node.
pub(super) const LOAD_BALANCER_SOURCE_IP: &str = "KUBE-LOAD-BALANCER-SOURCE-IP";
pub(super) const LOAD_BALANCER_SOURCE_CIDR: &str = "KUBE-LOAD-BALANCER-SOURCE-CIDR";
/// Node ports under any policy.
pub(super) const NODE_PORT_TCP: &str = "KUBE-NODE-PORT-TCP";
pub(super) const NODE_PORT_LOCAL_TCP: &str = "KUBE-NODE-PORT-LOCAL-TCP";
pub(super) const NODE_PORT_UDP: &str = "KUBE-NODE-PORT-UDP";
pub(super) const NODE_PORT_LOCAL_UDP: &str = "KUBE-NODE-PORT-LOCAL-UDP";
pub(super) const NODE_PORT_SCTP: &str = "KUBE-NODE-PORT-SCTP-HASH";
pub(super) const NODE_PORT_LOCAL_SCTP: &str = "KUBE-NODE-PORT-LOCAL-SCTP-HASH";
pub(super) const HEALTH_CHECK_NODE_PORT: &str = "KUBE-HEALTH-CHECK-NODE-PORT";
/// What the device has.
pub(super) const IPVS_IPS: &str = "KUBE-IPVS-IPS";

/// What of a packet a rule looks up in a set.
pub(super) fn looked_up(set: &str) -> &'static str {
    let kind = ALL.iter().find(|(name, _)| *name == set);
    match kind.map(|(_, kind)| *kind) {
        Some("hash:ip,port") => "dst,dst",
        Some("hash:ip,port,ip" | "hash:ip,port,net") => "dst,dst,src",
        _ => "dst",
    }
}

/// The sets of a family, by their names in IPv4.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sets {
    family: Family,
    entries: BTreeMap<&'static str, BTreeSet<String>>,
}

impl Sets {
    pub(super) fn new(family: Family) -> Self {
        Self {
            family,
            entries: BTreeMap::new(),
        }
    }

    pub(super) fn add(&mut self, set: &'static str, entry: String) {
        self.entries.entry(set).or_default().insert(entry);
    }

    /// Whether a set has no entry: no rule then speaks of it.
    pub(super) fn is_empty(&self, set: &str) -> bool {
        !self.entries.contains_key(set)
    }

    /// The name of a set in this family.
    pub(super) fn name(&self, set: &str) -> String {
        match self.family {
            Family::V4 => set.to_owned(),
            Family::V6 => {
                let mut name = set.replacen("KUBE-", "KUBE-6-", 1);
                name.truncate(NAME_MAX);
                name
            }
        }
    }
}

/// The input of `ipset restore`.
impl fmt::Display for Sets {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = match self.family {
            Family::V4 => "inet",
            Family::V6 => "inet6",
        };
        for (set, kind) in ALL {
            let name = self.name(set);
            let of = if kind == "bitmap:port" {
                "range 0-65535".to_owned()
            } else {
                format!("family {family}")
            };
            writeln!(formatter, "create {name} {kind} {of}")?;
            for entry in self.entries.get(set).into_iter().flatten() {
                writeln!(formatter, "add {name} {entry}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_made_with_its_entries() {
        let mut sets = Sets::new(Family::V6);
        sets.add(
            LOAD_BALANCER_SOURCE_CIDR,
            "fd00::1,tcp:80,fd01::/64".to_owned(),
        );
        let text = sets.to_string();
        for line in [
            "create KUBE-6-LOAD-BALANCER-SOURCE-CID hash:ip,port,net family inet6",
            "add KUBE-6-LOAD-BALANCER-SOURCE-CID fd00::1,tcp:80,fd01::/64",
            "create KUBE-6-NODE-PORT-TCP bitmap:port range 0-65535",
        ] {
            assert!(text.lines().any(|one| one == line), "{line} in\n{text}");
        }
        assert!(!sets.is_empty(LOAD_BALANCER_SOURCE_CIDR));
        assert!(sets.is_empty(LOOP_BACK));
    }
}
