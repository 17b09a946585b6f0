//! The kinds of objects that are asked for: where they are, and how a page of them is read.

use std::time::Duration;

use k8s_openapi::Metadata;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ListMeta, ObjectMeta};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::client::{Client, Target};
use super::error::{ApiError, one_line};
use crate::cluster::Trim;

/// A page's objects, as client-go asks for (`tools/pager/pager.go`).
const PAGE: &str = "500";
/// More than any cluster has of a kind.
pub(super) const OBJECTS_MAX: usize = 1 << 20;
/// How often a page is asked for while the server is busy, and how long is waited in between.
const BUSY_TRIES: u32 = 4;
const BUSY_PAUSE: Duration = Duration::from_secs(1);
/// How often a list is begun anew because its continuation became too old.
const LIST_TRIES: u32 = 3;

/// A kind of object that is followed.
pub(super) trait Kind:
    k8s_openapi::Resource
    + Metadata<Ty = ObjectMeta>
    + DeserializeOwned
    + Trim
    + PartialEq
    + Send
    + Sync
    + 'static
{
}

impl<T> Kind for T where
    T: k8s_openapi::Resource
        + Metadata<Ty = ObjectMeta>
        + DeserializeOwned
        + Trim
        + PartialEq
        + Send
        + Sync
        + 'static
{
}

/// Which objects of a kind.
#[derive(Clone, Debug, Default)]
pub(super) struct Selection {
    /// Those of this namespace; of all without.
    pub(super) namespace: Option<String>,
    /// Those with these fields: `spec.nodeName=node1`.
    pub(super) fields: Option<String>,
    /// Those with these labels: `app=web`.
    pub(super) labels: Option<String>,
}

/// All objects of a kind.
pub(super) struct Listed<K> {
    pub(super) objects: Vec<K>,
    /// The state of the server that they are of.
    pub(super) version: String,
    /// Those that could not be read, in words.
    pub(super) unreadable: Vec<String>,
}

#[derive(Deserialize)]
struct Page<'a> {
    metadata: ListMeta,
    // An empty Go slice may be written as null.
    #[serde(borrow)]
    items: Option<Vec<&'a RawValue>>,
}

/// What an object without a readable rest still tells.
#[derive(Default, Deserialize)]
struct Named {
    metadata: ObjectMeta,
}

/// Where the objects of a kind are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Location {
    /// `HTTPRoute`.
    pub(super) kind: &'static str,
    /// Empty for the oldest.
    pub(super) group: &'static str,
    pub(super) version: &'static str,
    /// `httproutes`.
    pub(super) plural: &'static str,
}

impl Location {
    /// Of a kind that the library knows.
    pub(super) const fn of<K: k8s_openapi::Resource>() -> Self {
        Self {
            kind: K::KIND,
            group: K::GROUP,
            version: K::VERSION,
            plural: K::URL_PATH_SEGMENT,
        }
    }
}

impl Selection {
    pub(super) fn target<K: Kind>(&self) -> Target {
        self.at(Location::of::<K>())
    }

    /// The same of a kind that the library need not know.
    pub(super) fn at(&self, location: Location) -> Target {
        let Location {
            kind: _,
            group,
            version,
            plural,
        } = location;
        let api = match (group, version) {
            ("", version) => format!("/api/{version}"),
            (group, version) => format!("/apis/{group}/{version}"),
        };
        let namespace = self.namespace.as_ref();
        let namespace = namespace.map(|name| format!("/namespaces/{name}"));
        let query = [
            ("fieldSelector", self.fields.as_ref()),
            ("labelSelector", self.labels.as_ref()),
        ];
        Target {
            resource: plural,
            group,
            path: format!("{api}{}/{plural}", namespace.unwrap_or_default()),
            query: query
                .into_iter()
                .filter_map(|(name, value)| Some((name, value?.clone())))
                .collect(),
        }
    }
}

/// Lists all objects, page by page.
pub(super) async fn list<K: Kind>(client: &Client, target: &Target) -> Result<Listed<K>, ApiError> {
    list_as(client, target, K::KIND, K::trimmed).await
}

/// The same of objects of any kind; `keep`: what is kept of each.
pub(super) async fn list_as<T: DeserializeOwned>(
    client: &Client,
    target: &Target,
    kind: &str,
    keep: fn(T) -> T,
) -> Result<Listed<T>, ApiError> {
    let mut tries = 0;
    loop {
        match list_once(client, target, kind, keep).await {
            Err(error) if error.is_expired() && tries < LIST_TRIES => tries += 1,
            other => return other,
        }
    }
}

async fn list_once<T: DeserializeOwned>(
    client: &Client,
    target: &Target,
    kind: &str,
    keep: fn(T) -> T,
) -> Result<Listed<T>, ApiError> {
    let mut listed = Listed {
        objects: Vec::new(),
        version: String::new(),
        unreadable: Vec::new(),
    };
    let mut next = target.with(&[("limit", PAGE)]);
    loop {
        let body = patiently(client, &next).await?;
        let unreadable = |reason: String| ApiError::Unreadable {
            resource: target.resource.to_owned(),
            reason,
        };
        let page: Page<'_> = serde_json::from_slice(&body)
            .map_err(|error| unreadable(one_line(&error.to_string())))?;
        for item in page.items.into_iter().flatten() {
            match serde_json::from_str::<T>(item.get()) {
                Ok(object) => listed.objects.push(keep(object)),
                Err(error) => listed
                    .unreadable
                    .push(describe_as(kind, item.get(), &error)),
            }
        }
        if listed.objects.len() > OBJECTS_MAX {
            return Err(unreadable(format!("there are more than {OBJECTS_MAX}")));
        }
        listed.version = page.metadata.resource_version.unwrap_or_default();
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => next = target.with(&[("limit", PAGE), ("continue", &token)]),
            None => return Ok(listed),
        }
    }
}

/// Asks again while the server is too busy.
async fn patiently(client: &Client, target: &Target) -> Result<Vec<u8>, ApiError> {
    for wait in 1..BUSY_TRIES {
        match client.get(target).await {
            Err(error) if error.is_busy() => tokio::time::sleep(BUSY_PAUSE * wait).await,
            other => return other,
        }
    }
    client.get(target).await
}

/// An object that cannot be read: `Service shop/web: invalid type …`.
pub(super) fn describe<K: Kind>(object: &str, error: &serde_json::Error) -> String {
    describe_as(K::KIND, object, error)
}

fn describe_as(kind: &str, object: &str, error: &serde_json::Error) -> String {
    let Named { metadata } = serde_json::from_str(object).unwrap_or_default();
    let name = metadata.name.as_deref().unwrap_or("without a name");
    let name = match &metadata.namespace {
        Some(namespace) => format!("{namespace}/{name}"),
        None => name.to_owned(),
    };
    one_line(&format!("{kind} {name}: {error}"))
}
