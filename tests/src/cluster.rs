//! The objects a lab is raised from: a `List` as `kubectl get -o json` prints it.
//!
//! Parsed with the types of the Kubernetes API, and on purpose not with the observer's own
//! parser: what judges it must not share its mistakes.

use std::{fs, net::IpAddr, path::Path};

use anyhow::{Context as _, Result, ensure};
use ipnet::IpNet;
use k8s_openapi::api::{
    core::v1::{Node, Pod, Service},
    discovery::v1::EndpointSlice,
    networking::v1::ServiceCIDR,
};
use serde::Deserialize;
use serde_json::Value;

/// The kinds a lab needs; the others in the list are passed over.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    /// Every Service of the list.
    pub services: Vec<Service>,
    /// Every `EndpointSlice` of the list.
    pub slices: Vec<EndpointSlice>,
    /// Every Node of the list.
    pub nodes: Vec<Node>,
    /// Every Pod of the list.
    pub pods: Vec<Pod>,
    /// The ranges of every `ServiceCIDR` of the list: where cluster IPs are taken from.
    pub service_cidrs: Vec<IpNet>,
}

#[derive(Deserialize)]
struct List {
    kind: String,
    items: Vec<Value>,
}

impl Cluster {
    /// Reads a list from a file.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| {
            format!(
                "failed to read the cluster's objects from {}",
                path.display()
            )
        })?;
        Self::parse(&text)
            .with_context(|| format!("{} is no list of cluster objects", path.display()))
    }

    /// Reads a list from its text.
    pub fn parse(text: &str) -> Result<Self> {
        let list: List = serde_json::from_str(text)?;
        ensure!(list.kind == "List", "its kind is {}, not List", list.kind);
        let mut cluster = Self::default();
        for item in list.items {
            let name = item
                .pointer("/metadata/name")
                .and_then(Value::as_str)
                .unwrap_or("?")
                .to_owned();
            let kind = item
                .get("kind")
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned();
            cluster
                .add(&kind, item)
                .with_context(|| format!("the {kind} {name}"))?;
        }
        Ok(cluster)
    }

    fn add(&mut self, kind: &str, item: Value) -> Result<()> {
        match kind {
            "Service" => self.services.push(serde_json::from_value(item)?),
            "EndpointSlice" => self.slices.push(serde_json::from_value(item)?),
            "Node" => self.nodes.push(serde_json::from_value(item)?),
            "Pod" => self.pods.push(serde_json::from_value(item)?),
            "ServiceCIDR" => {
                let object: ServiceCIDR = serde_json::from_value(item)?;
                let cidrs = object.spec.and_then(|spec| spec.cidrs);
                for cidr in cidrs.into_iter().flatten() {
                    let cidr = cidr
                        .parse()
                        .with_context(|| format!("it has the range {cidr:?}"))?;
                    self.service_cidrs.push(cidr);
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// The name of an object that has one, as everything from the API has.
pub fn name_of(metadata: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) -> &str {
    metadata.name.as_deref().unwrap_or_default()
}

/// The namespace of an object that lives in one.
pub fn namespace_of(metadata: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) -> &str {
    metadata.namespace.as_deref().unwrap_or_default()
}

/// The `InternalIP` addresses of a Node, in the order of its status.
pub fn internal_addresses(node: &Node) -> Vec<IpAddr> {
    node.status
        .iter()
        .flat_map(|status| status.addresses.iter().flatten())
        .filter(|address| address.type_ == "InternalIP")
        .filter_map(|address| address.address.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_sorted_into_its_kinds_and_the_unknown_ones_are_passed_over() {
        let cluster = Cluster::parse(
            r#"{"apiVersion":"v1","kind":"List","items":[
                {"apiVersion":"v1","kind":"Service","metadata":{"name":"web","namespace":"shop"}},
                {"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x"}},
                {"apiVersion":"v1","kind":"Node","metadata":{"name":"node1"},"status":{"addresses":[
                    {"type":"InternalIP","address":"172.31.0.11"},{"type":"Hostname","address":"node1"}]}}]}"#,
        )
        .expect("a list");
        assert_eq!(name_of(&cluster.services[0].metadata), "web");
        assert_eq!(namespace_of(&cluster.services[0].metadata), "shop");
        assert_eq!(
            internal_addresses(&cluster.nodes[0]),
            ["172.31.0.11".parse::<IpAddr>().expect("an address")]
        );
        assert!(cluster.slices.is_empty());
    }

    #[test]
    fn what_is_no_list_is_refused_with_its_kind_and_a_bad_object_with_its_name() {
        let error = Cluster::parse(r#"{"kind":"Service","items":[]}"#).expect_err("not a list");
        assert!(format!("{error:#}").contains("Service"), "{error:#}");
        let error = Cluster::parse(
            r#"{"kind":"List","items":[{"kind":"Service","metadata":{"name":"web"},"spec":7}]}"#,
        )
        .expect_err("a bad Service");
        assert!(
            format!("{error:#}").contains("the Service web"),
            "{error:#}"
        );
    }
}
