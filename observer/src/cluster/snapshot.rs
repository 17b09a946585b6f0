//! The cluster as it is believed to be at one moment.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::proxy::{HeaderReader, readers};
use super::{Index, KubeProxy, Objects};

/// What is known of the cluster. Immutable: a change is a new one.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// What its objects say.
    pub index: Index,
    /// kube-proxy's configuration, if it is known.
    pub kube_proxy: Option<KubeProxy>,
    /// What proxies make of PROXY headers, as far as the objects around the Services tell.
    pub readers: Vec<HeaderReader>,
    /// What the index was built from, where that is to be recorded.
    pub objects: Option<Objects>,
}

/// As it is in a recording.
#[derive(Serialize, Deserialize)]
struct Recorded {
    kube_proxy: Option<KubeProxy>,
    /// A `List`; `None` if the objects were not kept.
    cluster_state: Option<Value>,
    /// What stands around the Services is not in the list.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    readers: Vec<HeaderReader>,
}

impl Snapshot {
    /// One that keeps no objects.
    pub fn new(index: Index, kube_proxy: Option<KubeProxy>) -> Self {
        Self {
            index,
            kube_proxy,
            readers: Vec::new(),
            objects: None,
        }
    }

    /// Of objects, which are kept.
    pub fn of(objects: Objects, kube_proxy: Option<KubeProxy>) -> Self {
        Self {
            index: Index::build(&objects),
            kube_proxy,
            readers: readers(&objects),
            objects: Some(objects),
        }
    }
}

/// The same if it says the same of kube-proxy, and rests on the same objects.
impl PartialEq for Snapshot {
    fn eq(&self, other: &Self) -> bool {
        self.kube_proxy == other.kube_proxy
            && self.objects == other.objects
            && self.readers == other.readers
    }
}

impl Serialize for Snapshot {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Recorded {
            kube_proxy: self.kube_proxy.clone(),
            cluster_state: self.objects.as_ref().map(Objects::to_list),
            readers: self.readers.clone(),
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Snapshot {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Recorded {
            kube_proxy,
            cluster_state,
            readers,
        } = Recorded::deserialize(deserializer)?;
        let list = cluster_state.ok_or_else(|| D::Error::missing_field("cluster_state"))?;
        let objects = Objects::from_list(list.to_string().as_bytes()).map_err(D::Error::custom)?;
        Ok(Self {
            index: Index::build(&objects),
            kube_proxy,
            readers,
            objects: Some(objects),
        })
    }
}
