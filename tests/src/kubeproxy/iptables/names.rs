//! The names of kube-proxy's chains, which are hashes of what they are for.

use std::net::SocketAddr;

use crate::kubeproxy::{hash::hash, services::Protocol};

/// How many characters of the hash a name keeps.
const HASH_CHARACTERS: usize = 16;

/// The chains of one port of a Service; which of them exist depends on its policies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chains {
    /// Spreads over the endpoints of the Cluster policy.
    pub(super) cluster: String,
    /// Spreads over the endpoints of the Local policy.
    pub(super) local: String,
    /// What comes from outside: decides on the masquerade, then goes on.
    pub(super) external: String,
    /// Which sources a load balancer's address admits.
    pub(super) firewall: String,
}

impl Chains {
    /// The chains of the port that comments call `service_port`.
    pub(super) fn of(service_port: &str, protocol: Protocol) -> Self {
        let hash = hash(&format!("{service_port}{protocol}"), HASH_CHARACTERS);
        Self {
            cluster: format!("KUBE-SVC-{hash}"),
            local: format!("KUBE-SVL-{hash}"),
            external: format!("KUBE-EXT-{hash}"),
            firewall: format!("KUBE-FW-{hash}"),
        }
    }
}

/// The chain of one endpoint of a port.
pub(super) fn endpoint_chain(
    service_port: &str,
    protocol: Protocol,
    endpoint: SocketAddr,
) -> String {
    format!(
        "KUBE-SEP-{}",
        hash(
            &format!("{service_port}{protocol}{endpoint}"),
            HASH_CHARACTERS
        )
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names that real kube-proxies gave.
    #[test]
    fn names_are_those_of_kube_proxy() {
        assert_eq!(
            Chains::of("default/kubernetes:https", Protocol::Tcp).cluster,
            "KUBE-SVC-NPX46M4PTMTKRN6Y"
        );
        assert_eq!(
            Chains::of("shop/dns:dns", Protocol::Udp).cluster,
            "KUBE-SVC-4XI5CTFPAP7AFMBM"
        );
        let v4 = "10.244.1.10:8080".parse().expect("an endpoint");
        assert_eq!(
            endpoint_chain("shop/np-cluster:http", Protocol::Tcp, v4),
            "KUBE-SEP-T6PGJZBAKBWVKGAQ"
        );
        let v6 = "[fd00:244:2::a]:8080".parse().expect("an endpoint");
        assert_eq!(
            endpoint_chain("shop/np-cluster:http", Protocol::Tcp, v6),
            "KUBE-SEP-2XPCI7JMCXQ3RRYK"
        );
    }
}
