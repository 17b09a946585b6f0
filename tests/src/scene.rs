//! A cluster's objects, and what a lab needs to know beside to raise them.

use std::path::{Path, PathBuf};

use anyhow::Result;
use ipnet::IpNet;

use crate::{
    cluster::Cluster,
    kubeproxy::{Mode, Settings},
    lab::{
        Lab, Options,
        network::{Network, Pods},
    },
};

/// What a lab is raised from.
#[derive(Clone, Debug)]
pub struct Scene {
    /// The file of the objects.
    pub objects: PathBuf,
    /// kube-proxy's cluster CIDRs.
    pub cluster_cidrs: Vec<IpNet>,
    /// Where cluster IPs are taken from, if the objects do not say.
    pub service_cidrs: Vec<IpNet>,
    /// The addresses of the external client.
    pub client: Vec<IpNet>,
    /// How nodes and pods are wired.
    pub network: Network,
}

impl Scene {
    /// The demo cluster.
    pub fn demo() -> Self {
        Self::of("demo", Settings::default().cluster_cidrs)
    }

    /// What neither the demo cluster nor the recorded one has: nodes with several addresses,
    /// endpoints in their network and outside the cluster, policy Local on every kind of front
    /// door, a client beyond the source ranges.
    pub fn edges() -> Self {
        let mut scene = Self::of("edges", ranges(&["10.50.0.0/16", "fd00:51::/32"]));
        scene
            .client
            .extend(ranges(&["198.51.100.50/24", "2001:db8:100::50/64"]));
        scene
    }

    /// Pods on two nodes, one of them with a host port, and one that relays as k3s' servicelb does.
    pub fn plugins() -> Self {
        Self::of("plugins", Settings::default().cluster_cidrs)
    }

    /// A pod on node1 in which proxies are, by node ports of both policies, and what they lead to.
    pub fn proxies() -> Self {
        Self::of("proxies", Settings::default().cluster_cidrs)
    }

    /// The cluster whose kube-proxy was recorded, and a second client, beyond its source ranges.
    /// Its IPv6 cluster CIDR is as wrong as it was there, and its `ServiceCIDR`s are those that
    /// its rules speak of.
    pub fn recorded(captures: &Path) -> Self {
        Self {
            objects: captures.join("objects.json"),
            cluster_cidrs: ranges(&["10.244.0.0/16", "fd00:244::/48"]),
            service_cidrs: ranges(&["10.96.0.0/16", "fd00:96::/112"]),
            client: ranges(&[
                "10.99.0.100/24",
                "fd99::100/64",
                "203.0.113.50/24",
                "2001:db8:113::50/64",
            ]),
            network: Network {
                pods: Pods::AddressedVeths,
                ..Network::default()
            },
        }
    }

    /// kube-proxy's default settings in a mode, with the cluster CIDRs of the scene.
    pub fn settings(&self, mode: Mode) -> Settings {
        Settings {
            cluster_cidrs: self.cluster_cidrs.clone(),
            ..Settings::of(mode)
        }
    }

    /// The objects.
    pub fn cluster(&self) -> Result<Cluster> {
        let mut cluster = Cluster::read(&self.objects)?;
        cluster
            .service_cidrs
            .extend(self.service_cidrs.iter().copied());
        Ok(cluster)
    }

    /// Raises it.
    pub fn raise(&self, kube_proxy: Settings) -> Result<Lab> {
        let options = Options {
            client: self.client.clone(),
            kube_proxy,
            network: self.network,
        };
        Lab::raise(self.cluster()?, options)
    }

    /// A cluster of this repository.
    fn of(name: &str, cluster_cidrs: Vec<IpNet>) -> Self {
        let clusters = Path::new(env!("CARGO_MANIFEST_DIR")).join("clusters");
        Self {
            objects: clusters.join(format!("{name}.json")),
            cluster_cidrs,
            service_cidrs: Vec::new(),
            client: Options::default().client,
            network: Network::default(),
        }
    }
}

fn ranges(texts: &[&str]) -> Vec<IpNet> {
    let parse = |text: &&str| text.parse().expect("a literal range");
    texts.iter().map(parse).collect()
}
