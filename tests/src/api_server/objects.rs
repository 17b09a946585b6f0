//! The objects, their versions, and what became of them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// Kinds that are served: kind, where it is, name in a path.
const KINDS: [(&str, &str, &str); 14] = [
    ("Service", "/api/v1", "services"),
    (
        "EndpointSlice",
        "/apis/discovery.k8s.io/v1",
        "endpointslices",
    ),
    ("Node", "/api/v1", "nodes"),
    ("Pod", "/api/v1", "pods"),
    ("ConfigMap", "/api/v1", "configmaps"),
    ("Endpoints", "/api/v1", "endpoints"),
    ("Namespace", "/api/v1", "namespaces"),
    ("Deployment", "/apis/apps/v1", "deployments"),
    ("DaemonSet", "/apis/apps/v1", "daemonsets"),
    ("StatefulSet", "/apis/apps/v1", "statefulsets"),
    ("Ingress", "/apis/networking.k8s.io/v1", "ingresses"),
    (
        "IngressClass",
        "/apis/networking.k8s.io/v1",
        "ingressclasses",
    ),
    // Of all that somebody may have installed, two.
    (
        "HTTPRoute",
        "/apis/gateway.networking.k8s.io/v1",
        "httproutes",
    ),
    (
        "IPAddressPool",
        "/apis/metallb.io/v1beta1",
        "ipaddresspools",
    ),
];

/// A kind, namespace and name.
type Key = (&'static str, String, String);

/// All objects of a cluster.
#[derive(Debug, Default)]
pub(super) struct Objects {
    now: BTreeMap<Key, Value>,
    /// Oldest first.
    changes: Vec<Change>,
    version: u64,
    /// The newest version that was forgotten.
    forgotten: u64,
    /// Rests of lists, by their continuation.
    rests: BTreeMap<String, (u64, Vec<Value>)>,
}

/// What happened to one object.
#[derive(Clone, Debug)]
struct Change {
    version: u64,
    resource: &'static str,
    before: Option<Value>,
    after: Option<Value>,
}

/// Which objects are asked for.
#[derive(Clone, Debug)]
pub(super) struct Selection {
    pub(super) resource: &'static str,
    pub(super) namespace: Option<String>,
    /// Pairs of a pointer and its value.
    fields: Vec<(String, String)>,
    labels: Vec<(String, String)>,
}

/// A page of a list.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) items: Vec<Value>,
    pub(super) version: u64,
    pub(super) token: Option<String>,
}

/// Too old, or never was.
#[derive(Debug)]
pub(super) struct Gone;

impl Objects {
    /// The version after it.
    pub(super) fn put(&mut self, mut object: Value) -> u64 {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
        let kind = text("/kind").unwrap_or_default();
        let Some((_, _, resource)) = KINDS.iter().find(|(its, ..)| *its == kind) else {
            return self.version;
        };
        let name = text("/metadata/name").unwrap_or_default().to_owned();
        let namespace = text("/metadata/namespace").unwrap_or_default().to_owned();
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let before = self.now.insert((resource, namespace, name), object.clone());
        self.changes.push(Change {
            version: self.version,
            resource,
            before,
            after: Some(object),
        });
        self.version
    }

    /// The version after it.
    pub(super) fn delete(&mut self, kind: &str, namespace: &str, name: &str) -> u64 {
        let Some((_, _, resource)) = KINDS.iter().find(|(its, ..)| *its == kind) else {
            return self.version;
        };
        let key = (*resource, namespace.to_owned(), name.to_owned());
        if let Some(mut before) = self.now.remove(&key) {
            self.version += 1;
            // A deletion has a version, too.
            before["metadata"]["resourceVersion"] = json!(self.version.to_string());
            self.changes.push(Change {
                version: self.version,
                resource,
                before: Some(before),
                after: None,
            });
        }
        self.version
    }

    pub(super) fn compact(&mut self) {
        // A version of its own, so that the newest that anyone knows is too old.
        self.version += 1;
        self.forgotten = self.version;
        self.changes.clear();
        self.rests.clear();
    }

    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// All objects of a selection.
    pub(super) fn all(&self, selection: &Selection) -> Vec<Value> {
        let of_resource = self.now.iter().filter(|((resource, ..), object)| {
            *resource == selection.resource && selection.has(object)
        });
        of_resource.map(|(_, object)| object.clone()).collect()
    }

    /// The first page of a list, or the next.
    pub(super) fn page(
        &mut self,
        selection: &Selection,
        limit: usize,
        token: Option<&str>,
    ) -> Result<Page, Gone> {
        let (version, mut items) = match token {
            Some(token) => self.rests.remove(token).ok_or(Gone)?,
            None => (self.version, self.all(selection)),
        };
        let rest = items.split_off(items.len().min(limit));
        let token = (!rest.is_empty()).then(|| {
            let token = format!("{}/{version}+{}=", selection.resource, rest.len());
            self.rests.insert(token.clone(), (version, rest));
            token
        });
        Ok(Page {
            items,
            version,
            token,
        })
    }

    /// What happened in a selection since a version: pairs of a type of event and an object.
    pub(super) fn since(
        &self,
        selection: &Selection,
        version: u64,
    ) -> Result<Vec<(&'static str, Value)>, Gone> {
        if version < self.forgotten {
            return Err(Gone);
        }
        let place = self
            .changes
            .partition_point(|change| change.version <= version);
        let changes = self.changes[place..].iter();
        let of_resource = changes.filter(|change| change.resource == selection.resource);
        Ok(of_resource
            .filter_map(|change| {
                let had = change.before.as_ref().filter(|it| selection.has(it));
                let has = change.after.as_ref().filter(|it| selection.has(it));
                match (had, has) {
                    (None, Some(object)) => Some(("ADDED", object.clone())),
                    (Some(_), Some(object)) => Some(("MODIFIED", object.clone())),
                    // Whatever took it out of the selection.
                    (Some(object), None) => {
                        let mut object = change.after.as_ref().unwrap_or(object).clone();
                        object["metadata"]["resourceVersion"] = json!(change.version.to_string());
                        Some(("DELETED", object))
                    }
                    (None, None) => None,
                }
            })
            .collect())
    }
}

impl Selection {
    /// The one that a path means.
    pub(super) fn of_path(path: &str) -> Option<Self> {
        KINDS.iter().find_map(|(_, api, resource)| {
            let rest = path.strip_prefix(api)?.strip_prefix('/')?;
            let namespace = match rest.strip_prefix("namespaces/") {
                Some(rest) => {
                    let (namespace, rest) = rest.split_once('/')?;
                    (rest == *resource).then(|| Some(namespace.to_owned()))?
                }
                None => (rest == *resource).then_some(None)?,
            };
            Some(Self {
                resource,
                namespace,
                fields: Vec::new(),
                labels: Vec::new(),
            })
        })
    }

    /// The kind of its objects, and its version.
    pub(super) fn kind(&self) -> (&'static str, &'static str) {
        let kind = KINDS.iter().find(|(.., its)| *its == self.resource);
        kind.map_or(("", ""), |(kind, api, _)| {
            (
                kind,
                api.trim_start_matches("/apis/").trim_start_matches("/api/"),
            )
        })
    }

    /// Only those with these fields (`spec.nodeName=node1`) and labels (`app=web`); an error says
    /// which is none that is served.
    pub(super) fn only(mut self, fields: &str, labels: &str) -> Result<Self, String> {
        for field in fields.split(',').filter(|field| !field.is_empty()) {
            let (name, value) = field.split_once('=').ok_or(field)?;
            let served = ["metadata.name", "metadata.namespace", "spec.nodeName"];
            if !served.contains(&name) || name == "spec.nodeName" && self.resource != "pods" {
                return Err(format!("field label not supported: {name}"));
            }
            let pointer = format!("/{}", name.replace('.', "/"));
            self.fields
                .push((pointer, value.trim_start_matches('=').to_owned()));
        }
        for label in labels.split(',').filter(|label| !label.is_empty()) {
            let (name, value) = label.split_once('=').ok_or(label)?;
            self.labels.push((name.to_owned(), value.to_owned()));
        }
        Ok(self)
    }

    fn has(&self, object: &Value) -> bool {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
        let labels = &object["metadata"]["labels"];
        self.namespace
            .as_deref()
            .is_none_or(|namespace| text("/metadata/namespace") == Some(namespace))
            && self
                .fields
                .iter()
                .all(|(pointer, value)| text(pointer).unwrap_or_default() == value)
            && self
                .labels
                .iter()
                .all(|(name, value)| labels[name].as_str() == Some(value))
    }
}
