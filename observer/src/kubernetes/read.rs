//! All objects, once.

use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::client::Client;
use super::error::ApiError;
use super::resource::{self, Kind, Selection};
use super::{KUBE_PROXY_NAMES, Scope, config_map};
use crate::cluster::Objects;
use crate::cluster::around::Around;

/// What was read.
#[derive(Debug)]
pub struct Read {
    /// The objects, trimmed.
    pub objects: Objects,
    /// What is missing among them, and why: one line each.
    pub missing: Vec<String>,
}

/// Reads the objects of a cluster, in pages. A kind that may not be listed is missing; any other
/// failure is an error.
pub async fn read(client: &Client, scope: &Scope) -> Result<Read, ApiError> {
    let everywhere = Selection::default();
    let pods = scope.pods();
    let [own, other] = KUBE_PROXY_NAMES.map(config_map);
    let (services, endpoint_slices, nodes, pods, own, other) = tokio::try_join!(
        of_kind::<Service>(client, &everywhere),
        of_kind::<EndpointSlice>(client, &everywhere),
        of_kind::<Node>(client, &everywhere),
        of_kind::<Pod>(client, &pods),
        of_kind::<ConfigMap>(client, &own),
        of_kind::<ConfigMap>(client, &other),
    )?;
    let mut missing = Vec::new();
    let mut note = |more: Vec<String>| {
        missing.extend(more);
        missing.dedup();
    };
    let mut objects = Objects {
        services: services.take(&mut note),
        endpoint_slices: endpoint_slices.take(&mut note),
        nodes: nodes.take(&mut note),
        pods: pods.take(&mut note),
        config_maps: own.take(&mut note),
        pods_of: scope.pods_of().map(str::to_owned),
        around: Around::default(),
        others: 0,
    };
    objects.config_maps.extend(other.take(&mut note));
    Ok(Read { objects, missing })
}

/// The Services and Nodes, for their names; none of a kind that cannot be read.
pub async fn names(client: &Client) -> Objects {
    let everywhere = Selection::default();
    let (services, nodes) = tokio::join!(
        of_kind::<Service>(client, &everywhere),
        of_kind::<Node>(client, &everywhere),
    );
    Objects {
        services: services
            .map(|OfKind(services, _)| services)
            .unwrap_or_default(),
        nodes: nodes.map(|OfKind(nodes, _)| nodes).unwrap_or_default(),
        ..Objects::default()
    }
}

/// Objects of one kind, and those of them that are missing.
struct OfKind<K>(Vec<K>, Vec<String>);

impl<K> OfKind<K> {
    fn take(self, note: &mut impl FnMut(Vec<String>)) -> Vec<K> {
        let Self(objects, missing) = self;
        note(missing);
        objects
    }
}

async fn of_kind<K: Kind>(client: &Client, selection: &Selection) -> Result<OfKind<K>, ApiError> {
    match resource::list(client, &selection.target::<K>()).await {
        Ok(listed) => Ok(OfKind(listed.objects, listed.unreadable)),
        Err(error) if error.is_refusal() => Ok(OfKind(Vec::new(), vec![error.to_string()])),
        Err(error) => Err(error),
    }
}
