//! A change of one object, as `kubectl patch --type merge` makes it (RFC 7386).

use std::fmt::Write as _;

use k8s_openapi::Metadata;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::Objects;

/// A change of one object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Patch {
    /// Its kind.
    pub kind: PatchedKind,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What is merged into it.
    pub merge: Value,
}

/// The kinds that are changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PatchedKind {
    /// `core/v1`.
    Service,
    /// `core/v1`.
    ConfigMap,
}

/// Why a change cannot be tried.
#[derive(Debug, thiserror::Error)]
pub enum PatchError {
    /// There is no such object.
    #[error("{kind:?} {namespace}/{name} is not among the objects")]
    Missing {
        /// Its kind.
        kind: PatchedKind,
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// What comes out is no object of the kind.
    #[error("{kind:?} {namespace}/{name} is none any more: {reason}")]
    Invalid {
        /// Its kind.
        kind: PatchedKind,
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// Why.
        reason: serde_json::Error,
    },
}

impl Patch {
    /// The command that makes it.
    pub fn command(&self) -> String {
        let Self {
            kind,
            namespace,
            name,
            merge,
        } = self;
        let kind = format!("{kind:?}").to_lowercase();
        // What a manifest's author wrote may be among it.
        let merge = in_ascii(&merge.to_string()).replace('\'', r"'\''");
        format!("kubectl patch {kind} {name} -n {namespace} --type merge -p '{merge}'")
    }

    /// Changes the object.
    pub fn apply(&self, objects: &mut Objects) -> Result<(), PatchError> {
        match self.kind {
            PatchedKind::Service => self.merge_into(&mut objects.services),
            PatchedKind::ConfigMap => self.merge_into(&mut objects.around.config_maps),
        }
    }

    fn merge_into<K>(&self, objects: &mut [K]) -> Result<(), PatchError>
    where
        K: Metadata<Ty = ObjectMeta> + Serialize + DeserializeOwned,
    {
        let Self {
            kind,
            namespace,
            name,
            merge: change,
        } = self;
        let is_it = |object: &&mut K| {
            let metadata = object.metadata();
            // Only a file written by hand leaves the namespace out.
            let its = metadata.namespace.as_deref().unwrap_or("default");
            its == namespace && metadata.name.as_deref() == Some(name)
        };
        let object = objects
            .iter_mut()
            .find(is_it)
            .ok_or_else(|| PatchError::Missing {
                kind: *kind,
                namespace: namespace.clone(),
                name: name.clone(),
            })?;
        let mut value = json!(object);
        merge(&mut value, change);
        forget_health_check(&mut value);
        *object = serde_json::from_value(value).map_err(|reason| PatchError::Invalid {
            kind: *kind,
            namespace: namespace.clone(),
            name: name.clone(),
            reason,
        })?;
        Ok(())
    }
}

/// JSON whose strings show what is in them: no character of theirs steers a terminal, or the order
/// in which one reads (RFC 8259, 7; Unicode Standard Annex 9).
fn in_ascii(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for character in json.chars() {
        if character.is_ascii() && !character.is_control() {
            text.push(character);
            continue;
        }
        for unit in character.encode_utf16(&mut [0; 2]) {
            // Writing to a String cannot fail.
            let _ = write!(text, "\\u{unit:04x}");
        }
    }
    text
}

/// A Service has a port for health checks under policy `Local` alone; the API server takes it away
/// (`pkg/registry/core/service/storage`, `needsHCNodePort`).
fn forget_health_check(object: &mut Value) {
    if object["spec"]["externalTrafficPolicy"] == "Cluster"
        && let Some(spec) = object["spec"].as_object_mut()
    {
        spec.remove("healthCheckNodePort");
    }
}

/// RFC 7386, section 2.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Some(target) = target.as_object_mut() else {
        return;
    };
    for (key, value) in patch {
        if value.is_null() {
            target.remove(key);
        } else {
            merge(target.entry(key).or_insert(Value::Null), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn null_removes_and_all_else_is_laid_over() {
        let mut target = json!({"a": {"b": 1, "c": 2}, "d": [1]});
        merge(
            &mut target,
            &json!({"a": {"b": null, "e": {"f": 3}}, "d": "x"}),
        );
        assert_eq!(target, json!({"a": {"c": 2, "e": {"f": 3}}, "d": "x"}));
    }

    #[test]
    fn a_command_is_read_as_it_is_written() {
        let patch = Patch {
            kind: PatchedKind::Service,
            namespace: "shop".to_owned(),
            name: "web".to_owned(),
            merge: json!({"a": "x'; touch /tmp/y; echo '\u{202e}\u{7f}é"}),
        };
        let command = patch.command();
        assert!(command.is_ascii() && !command.contains(char::is_control));
        let merge = command.split_once("-p ").expect("a patch").1;
        let merge = merge.trim_matches('\'').replace(r"'\''", "'");
        let read: Value = serde_json::from_str(&merge).expect("JSON");
        assert_eq!(read, patch.merge);
    }

    #[test]
    fn what_is_not_there_is_not_changed() {
        let patch = Patch {
            kind: PatchedKind::Service,
            namespace: "shop".to_owned(),
            name: "web".to_owned(),
            merge: json!({"spec": {"externalTrafficPolicy": "Local"}}),
        };
        assert_eq!(
            patch.command(),
            "kubectl patch service web -n shop --type merge -p \
             '{\"spec\":{\"externalTrafficPolicy\":\"Local\"}}'"
        );
        let mut objects = Objects::default();
        let error = patch.apply(&mut objects).expect_err("no Service");
        assert_eq!(
            error.to_string(),
            "Service shop/web is not among the objects"
        );
    }
}
