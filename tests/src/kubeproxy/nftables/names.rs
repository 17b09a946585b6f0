//! The names of chains and sets, which say what they are for, after a hash of it.

use std::net::SocketAddr;

use crate::kubeproxy::{hash::hash, services::ProxiedPort};

/// How many characters of the hash a name keeps.
const HASH_CHARACTERS: usize = 8;
/// What the kernel takes (`NFT_NAME_MAXLEN`) less room for a prefix: longer names are cut.
const CHARACTERS_MAX: usize = 240;

/// The chains of one port of a Service; which of them exist depends on its policies.
pub(super) struct Chains {
    /// Spreads over the endpoints of the Cluster policy.
    pub(super) cluster: String,
    /// Spreads over the endpoints of the Local policy.
    pub(super) local: String,
    /// What comes from outside: decides on the masquerade, then goes on.
    pub(super) external: String,
    /// Drops what a load balancer's address does not admit.
    pub(super) firewall: String,
}

impl Chains {
    /// The chains of a port.
    pub(super) fn of(port: &ProxiedPort) -> Self {
        let name = hashed(&of_port(port));
        Self {
            cluster: format!("service-{name}"),
            local: format!("local-{name}"),
            external: format!("external-{name}"),
            firewall: format!("firewall-{name}"),
        }
    }
}

/// The chain of one endpoint of a port, and the set of the clients it served. Only a port with
/// session affinity has them.
pub(super) fn endpoint(port: &ProxiedPort, endpoint: SocketAddr) -> (String, String) {
    // A colon is no character of a name.
    let ip = endpoint.ip().to_string().replace(':', ".");
    let name = hashed(&format!("{}__{ip}/{}", of_port(port), endpoint.port()));
    (format!("endpoint-{name}"), format!("affinity-{name}"))
}

fn of_port(port: &ProxiedPort) -> String {
    let ProxiedPort {
        namespace,
        service,
        protocol,
        port_name,
        ..
    } = port;
    format!("{namespace}/{service}/{protocol}/{port_name}")
}

fn hashed(name: &str) -> String {
    let mut name = format!("{}-{name}", hash(name, HASH_CHARACTERS));
    if name.len() > CHARACTERS_MAX {
        name.truncate(CHARACTERS_MAX - 3);
        name.push_str("...");
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_hashed_and_cut() {
        assert_eq!(
            hashed("default/kubernetes/tcp/https"),
            "2QRHZV4L-default/kubernetes/tcp/https",
            "a name that real kube-proxies gave"
        );
        let long = hashed(&"x".repeat(300));
        assert_eq!(long.len(), CHARACTERS_MAX);
        assert!(long.ends_with("x..."), "{long}");
    }
}
