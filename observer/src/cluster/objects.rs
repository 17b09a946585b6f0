//! A `List` of objects, as `kubectl get … -o json` prints it, taken apart into typed objects.

use std::borrow::Cow;
use std::fmt;

use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde::Serialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::error::Category;
use serde_json::{Value, json};

use super::Counts;
use super::around::Around;
use super::slice::Slice;

mod field;
mod item;

pub use field::{FieldPath, Step};
pub use item::Unreadable;

/// The command that prints what [`Objects::from_list`] reads.
const COMMAND: &str = "kubectl get services,endpointslices,nodes,pods,configmaps -A -o json";

/// The field of a `List` that holds [`Objects::pods_of`]. kubectl knows none of this name.
const PODS_OF: &str = "podsOf";

/// The objects that an [`Index`](super::Index) is built from. Any kind may be missing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Objects {
    /// Services (`core/v1`).
    pub services: Vec<Service>,
    /// `EndpointSlices` (`discovery.k8s.io/v1`).
    pub endpoint_slices: Vec<EndpointSlice>,
    /// Nodes (`core/v1`).
    pub nodes: Vec<Node>,
    /// Pods (`core/v1`).
    pub pods: Vec<Pod>,
    /// Those `ConfigMap`s (`core/v1`) that may hold kube-proxy's configuration.
    pub config_maps: Vec<ConfigMap>,
    /// The only node whose Pods are among them; `None`: all nodes' are, or none is.
    pub pods_of: Option<String>,
    /// What stands around the Services.
    pub around: Around,
    /// How many objects of other kinds there were.
    pub others: usize,
}

/// Objects, wherever they are kept: what an [`Index`](super::Index) is built from.
#[derive(Clone, Debug, Default)]
pub struct View<'a> {
    /// Services.
    pub services: Vec<&'a Service>,
    /// `EndpointSlices`.
    pub endpoint_slices: Vec<SliceRef<'a>>,
    /// Nodes.
    pub nodes: Vec<&'a Node>,
    /// Pods.
    pub pods: Vec<&'a Pod>,
    /// See [`Objects::pods_of`].
    pub pods_of: Option<&'a str>,
    /// How many objects of other kinds there were.
    pub others: usize,
}

/// An `EndpointSlice`, as it is kept.
#[derive(Clone, Copy, Debug)]
pub enum SliceRef<'a> {
    /// As the object.
    Object(&'a EndpointSlice),
    /// As an index takes it.
    Read(&'a Slice),
}

impl<'a> SliceRef<'a> {
    /// As an index takes it.
    pub(super) fn read(self) -> Cow<'a, Slice> {
        match self {
            Self::Object(object) => Cow::Owned(Slice::from(object)),
            Self::Read(slice) => Cow::Borrowed(slice),
        }
    }
}

/// Why a document is not a `List` of objects. Each is one line.
#[derive(Debug, thiserror::Error)]
pub enum ObjectsError {
    /// Nothing but white space.
    #[error("is empty; expected a List as `{COMMAND}` prints it")]
    Empty,
    /// Not JSON; the message ends with line and column.
    #[error("is not JSON: {0}; expected a List as `{COMMAND}` prints it")]
    NotJson(serde_json::Error),
    /// JSON, but no object with a list of items; the message ends with line and column.
    #[error("is not a List: {0}; expected a List as `{COMMAND}` prints it")]
    NotAList(serde_json::Error),
    /// An object of another kind.
    #[error("kind is {}; expected a List as `{COMMAND}` prints it", .0.escape_debug())]
    Kind(String),
    /// An object without a kind.
    #[error("has no kind; expected a List as `{COMMAND}` prints it")]
    NoKind,
    /// An item that is not what its kind promises.
    #[error("items[{index}], {item}, does not parse: {reason}")]
    Item {
        /// Its position, from 0.
        index: usize,
        /// Its kind, namespace and name, as far as it tells them.
        item: String,
        /// What is wrong with it.
        reason: serde_json::Error,
    },
}

/// A `List` while it is read. `kind` comes after `items` in what kubectl prints, so what is wrong
/// with an item waits until the kind is known.
#[derive(Default)]
struct List {
    kind: Option<Value>,
    objects: Objects,
    first_error: Option<ObjectsError>,
    passed_over: Vec<String>,
}

impl Objects {
    /// Takes a JSON document of kind `List` apart. Services, `EndpointSlices`, Nodes and Pods of
    /// the versions that [`Objects`] names are kept, and what stands [`Around`] them; other objects
    /// are counted.
    pub fn from_list(document: &[u8]) -> Result<Self, ObjectsError> {
        Self::from_list_noting(document).map(|(objects, _)| objects)
    }

    /// The same, with a line for each object that is not what its kind promises, but only stands
    /// around the Services: it is counted among the others.
    pub fn from_list_noting(document: &[u8]) -> Result<(Self, Vec<String>), ObjectsError> {
        // Some editors and shells put a byte order mark in front.
        let document = document
            .strip_prefix("\u{feff}".as_bytes())
            .unwrap_or(document);
        if document.trim_ascii().is_empty() {
            return Err(ObjectsError::Empty);
        }
        let mut reader = serde_json::Deserializer::from_slice(document);
        let list = reader
            .deserialize_any(ListVisitor)
            .and_then(|list| reader.end().map(|()| list))
            .map_err(|error| match error.classify() {
                Category::Data => ObjectsError::NotAList(error),
                Category::Io | Category::Syntax | Category::Eof => ObjectsError::NotJson(error),
            })?;
        match list.kind {
            Some(Value::String(kind)) if kind == "List" => {}
            Some(Value::String(kind)) => return Err(ObjectsError::Kind(kind)),
            Some(other) => return Err(ObjectsError::Kind(other.to_string())),
            None => return Err(ObjectsError::NoKind),
        }
        match list.first_error {
            Some(error) => Err(error),
            None => Ok((list.objects, list.passed_over)),
        }
    }

    /// The `List` of them that [`Objects::from_list`] reads, without what was only counted.
    pub fn to_list(&self) -> Value {
        let Self {
            services,
            endpoint_slices,
            nodes,
            pods,
            config_maps,
            pods_of,
            around: _,
            others: _,
        } = self;
        let items: Vec<_> = values(services)
            .chain(values(endpoint_slices))
            .chain(values(nodes))
            .chain(values(pods))
            .chain(values(config_maps))
            .collect();
        let mut list = json!({"apiVersion": "v1", "kind": "List", "items": items});
        if let Some(node) = pods_of {
            list[PODS_OF] = json!(node);
        }
        list
    }

    /// How many of each kind.
    pub fn counts(&self) -> Counts {
        View::from(self).counts()
    }
}

impl View<'_> {
    /// How many of each kind.
    pub fn counts(&self) -> Counts {
        let Self {
            services,
            endpoint_slices,
            nodes,
            pods,
            pods_of: _,
            others,
        } = self;
        Counts {
            services: services.len(),
            endpoint_slices: endpoint_slices.len(),
            nodes: nodes.len(),
            pods: pods.len(),
            others: *others,
        }
    }
}

impl<'a> From<&'a Objects> for View<'a> {
    fn from(objects: &'a Objects) -> Self {
        let Objects {
            services,
            endpoint_slices,
            nodes,
            pods,
            config_maps: _,
            pods_of,
            around: _,
            others,
        } = objects;
        Self {
            services: services.iter().collect(),
            endpoint_slices: endpoint_slices.iter().map(SliceRef::Object).collect(),
            nodes: nodes.iter().collect(),
            pods: pods.iter().collect(),
            pods_of: pods_of.as_deref(),
            others: *others,
        }
    }
}

fn values<T: Serialize>(objects: &[T]) -> impl Iterator<Item = Value> {
    objects.iter().map(|object| json!(object))
}

/// How an item calls itself: `Service shop/web`.
fn describe(item: &Value) -> String {
    let text = |pointer| item.pointer(pointer).and_then(Value::as_str);
    let kind = text("/kind").unwrap_or("an object");
    let name = text("/metadata/name").unwrap_or("without a name");
    let described = match text("/metadata/namespace") {
        Some(namespace) => format!("{kind} {namespace}/{name}"),
        None => format!("{kind} {name}"),
    };
    // No name breaks the line.
    described.escape_debug().to_string()
}

impl List {
    fn take(&mut self, index: usize, item: &Value) {
        let Err(unreadable) = self.objects.add(item) else {
            return;
        };
        let error = ObjectsError::Item {
            index,
            item: describe(item),
            reason: unreadable.reason,
        };
        if unreadable.of_index {
            // Kept for later: an object of another kind may have items that are no objects.
            self.first_error = Some(error);
        } else {
            self.objects.others += 1;
            self.passed_over.push(error.to_string());
        }
    }
}

struct ListVisitor;

impl<'de> Visitor<'de> for ListVisitor {
    type Value = List;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of kind List")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<List, A::Error> {
        let mut list = List::default();
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "kind" => list.kind = Some(map.next_value()?),
                "items" => map.next_value_seed(Items(&mut list))?,
                PODS_OF => list.objects.pods_of = map.next_value()?,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(list)
    }
}

/// Reads the items one by one, so that only one is held as untyped JSON at a time.
struct Items<'a>(&'a mut List);

impl<'de> DeserializeSeed<'de> for Items<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Items<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of items")
    }

    // An empty Go slice may be written as null.
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let mut index = 0;
        while let Some(item) = items.next_element::<Value>()? {
            if self.0.first_error.is_none() {
                self.0.take(index, &item);
            }
            index += 1;
        }
        Ok(())
    }
}
