//! The copy of the cluster's objects that reflectors keep, and how each of them is doing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::KUBE_PROXY_NAMES;
use super::reflect::Told;
use super::resource::Kind;
use crate::cluster::around::Around;
use crate::cluster::{Index, KubeProxy, KubeProxyError, Objects, Slice, SliceRef, Snapshot, View};

/// Namespace and name.
type Key = (Option<String>, Option<String>);

/// What one reflector keeps.
pub(super) struct Kept<K> {
    /// Shared, so that an index can be built of them while the next change is noted.
    objects: BTreeMap<Key, Arc<K>>,
    state: State,
}

/// How a reflector is doing.
struct State {
    /// Whether there ever was a list.
    is_listed: bool,
    /// Whether it is known what there is: a list, or that it may not be read.
    is_settled: bool,
    /// When the server was last heard from.
    heard: Instant,
    /// Whether changes cannot be heard of.
    is_away: bool,
    /// Why that is, or why there are no objects.
    trouble: Option<String>,
    /// An object that could not be read.
    unreadable: Option<String>,
}

/// Everything that is kept.
pub(super) struct Store {
    pub(super) services: Kept<Service>,
    pub(super) endpoint_slices: Kept<Slice>,
    pub(super) nodes: Kept<Node>,
    pub(super) pods: Kept<Pod>,
    /// Those that may be kube-proxy's, if its configuration is not known anyway.
    pub(super) config_maps: Option<[Kept<ConfigMap>; KUBE_PROXY_NAMES.len()]>,
    /// Whether any of them is another since someone looked.
    pub(super) has_changed: bool,
}

/// How all reflectors are doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Health {
    /// Whether it is known of every kind what there is.
    pub(super) is_settled: bool,
    /// Since when the first of them has not heard from the server.
    pub(super) away_since: Option<Instant>,
    /// What troubles them, on one line.
    pub(super) trouble: Option<String>,
}

/// The objects of one moment.
pub(super) struct Moment {
    services: Vec<Arc<Service>>,
    endpoint_slices: Vec<Arc<Slice>>,
    nodes: Vec<Arc<Node>>,
    pods: Vec<Arc<Pod>>,
    config_maps: Vec<Arc<ConfigMap>>,
}

impl<K: Kind> Kept<K> {
    fn new() -> Self {
        Self {
            objects: BTreeMap::new(),
            state: State {
                is_listed: false,
                is_settled: false,
                heard: Instant::now(),
                is_away: false,
                trouble: None,
                unreadable: None,
            },
        }
    }

    /// Notes what the reflector tells; whether the objects are others now.
    pub(super) fn note(&mut self, told: Told<K>) -> bool {
        let state = &mut self.state;
        match told {
            Told::All(objects) => {
                let keyed = objects.into_iter().map(Arc::new);
                let objects = keyed
                    .map(|object| (key(object.metadata()), object))
                    .collect();
                let is_new = !state.is_listed || objects != self.objects;
                self.objects = objects;
                state.is_listed = true;
                state.is_settled = true;
                state.unreadable = None;
                is_new
            }
            Told::Put(object) => {
                let key = key(object.metadata());
                let is_new = self.objects.get(&key).is_none_or(|old| **old != object);
                if is_new {
                    self.objects.insert(key, Arc::new(object));
                }
                is_new
            }
            Told::Gone(object) => self.objects.remove(&key(object.metadata())).is_some(),
            Told::Heard => {
                state.heard = Instant::now();
                false
            }
            Told::Live => {
                state.heard = Instant::now();
                state.is_away = false;
                state.trouble = None;
                false
            }
            Told::Failed(error) => {
                let is_missing = error.is_refusal() && !state.is_listed;
                state.is_settled |= is_missing;
                state.is_away = !is_missing;
                state.trouble = Some(error.to_string());
                false
            }
            Told::Unreadable(object) => {
                state.unreadable = Some(format!("{object}: it is passed over"));
                false
            }
        }
    }

    fn all(&self) -> Vec<Arc<K>> {
        self.objects.values().map(Arc::clone).collect()
    }
}

fn key(metadata: &ObjectMeta) -> Key {
    (metadata.namespace.clone(), metadata.name.clone())
}

impl Store {
    /// An empty one; `asks_for_kube_proxy`: whether its configuration is wanted.
    pub(super) fn new(asks_for_kube_proxy: bool) -> Self {
        Self {
            services: Kept::new(),
            endpoint_slices: Kept::new(),
            nodes: Kept::new(),
            pods: Kept::new(),
            config_maps: asks_for_kube_proxy
                .then(|| KUBE_PROXY_NAMES.map(|_of_each_name| Kept::new())),
            has_changed: false,
        }
    }

    pub(super) fn health(&self) -> Health {
        let Self {
            services,
            endpoint_slices,
            nodes,
            pods,
            config_maps,
            has_changed: _,
        } = self;
        let mut states = vec![
            &services.state,
            &endpoint_slices.state,
            &nodes.state,
            &pods.state,
        ];
        states.extend(config_maps.iter().flatten().map(|kept| &kept.state));
        let away = states.iter().filter(|state| state.is_away);
        let mut troubles: Vec<&str> = Vec::new();
        for trouble in states
            .iter()
            .flat_map(|state| state.trouble.iter().chain(&state.unreadable))
        {
            // One server that is away troubles all alike.
            if !troubles.contains(&trouble.as_str()) {
                troubles.push(trouble);
            }
        }
        Health {
            is_settled: states.iter().all(|state| state.is_settled),
            away_since: away.map(|state| state.heard).min(),
            trouble: (!troubles.is_empty()).then(|| troubles.join("; ")),
        }
    }

    pub(super) fn moment(&self) -> Moment {
        let config_maps = self.config_maps.iter().flatten();
        Moment {
            services: self.services.all(),
            endpoint_slices: self.endpoint_slices.all(),
            nodes: self.nodes.all(),
            pods: self.pods.all(),
            config_maps: config_maps.flat_map(Kept::all).collect(),
        }
    }
}

impl Moment {
    /// Builds the index, which shares with the one `before` what is the same. `pods_of`: the only
    /// node whose Pods are there.
    pub(super) fn snapshot(
        &self,
        before: Option<&Snapshot>,
        pods_of: Option<&str>,
        kube_proxy: Option<KubeProxy>,
        keep_objects: bool,
    ) -> Snapshot {
        let Self {
            services,
            endpoint_slices,
            nodes,
            pods,
            config_maps: _,
        } = self;
        let view = View {
            services: services.iter().map(|object| &**object).collect(),
            endpoint_slices: endpoint_slices
                .iter()
                .map(|slice| SliceRef::Read(slice))
                .collect(),
            nodes: nodes.iter().map(|object| &**object).collect(),
            pods: pods.iter().map(|object| &**object).collect(),
            pods_of,
            others: 0,
        };
        let index = Index::build(view);
        Snapshot {
            readers: Vec::new(),
            index: match before {
                Some(before) => index.sharing(&before.index),
                None => index,
            },
            kube_proxy,
            objects: keep_objects.then(|| self.objects(pods_of)),
        }
    }

    /// What the `ConfigMap`s say of kube-proxy.
    pub(super) fn kube_proxy(&self) -> Result<Option<KubeProxy>, KubeProxyError> {
        KubeProxy::of_cluster(&owned(&self.config_maps))
    }

    fn objects(&self, pods_of: Option<&str>) -> Objects {
        Objects {
            services: owned(&self.services),
            endpoint_slices: self
                .endpoint_slices
                .iter()
                .map(|slice| (&**slice).into())
                .collect(),
            nodes: owned(&self.nodes),
            pods: owned(&self.pods),
            config_maps: owned(&self.config_maps),
            pods_of: pods_of.map(str::to_owned),
            around: Around::default(),
            others: 0,
        }
    }
}

fn owned<K: Clone>(objects: &[Arc<K>]) -> Vec<K> {
    objects.iter().map(|object| K::clone(object)).collect()
}
