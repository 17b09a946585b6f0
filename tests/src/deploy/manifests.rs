//! The manifests, as `kubectl kustomize` renders them, read with the types of the Kubernetes API.

use std::{
    fs,
    path::{Component, Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::{
    apps::v1::DaemonSet,
    core::v1::{Container, Namespace, PodSpec, ResourceQuota, ServiceAccount},
    rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use tempfile::TempDir;

use crate::command;

/// All that is deployed.
#[derive(Debug, Default)]
pub struct Manifests {
    /// The objects as they were rendered, in their order.
    pub objects: Vec<Value>,
    /// Its namespaces.
    pub namespaces: Vec<Namespace>,
    /// Its service accounts.
    pub service_accounts: Vec<ServiceAccount>,
    /// What may be done in all namespaces.
    pub cluster_roles: Vec<ClusterRole>,
    /// By whom.
    pub cluster_role_bindings: Vec<ClusterRoleBinding>,
    /// What may be done in one namespace.
    pub roles: Vec<Role>,
    /// By whom.
    pub role_bindings: Vec<RoleBinding>,
    /// Its quotas.
    pub quotas: Vec<ResourceQuota>,
    /// Its daemon sets.
    pub daemon_sets: Vec<DaemonSet>,
}

impl Manifests {
    /// Renders a folder with a kustomization.
    pub fn render(kubectl: &Path, folder: &Path) -> Result<Self> {
        let rendered = command::run(Command::new(kubectl).arg("kustomize").arg(folder))?;
        Self::parse(&rendered).with_context(|| format!("rendered from {}", folder.display()))
    }

    /// Renders a kustomization as an operator would write one: folders with `resources`, and
    /// folders with `components` on top.
    pub fn compose(kubectl: &Path, resources: &Path, components: &[PathBuf]) -> Result<Self> {
        let folder = TempDir::new().context("failed to make a directory")?;
        // Links in its path would lead elsewhere when the way up is counted.
        let here = folder
            .path()
            .canonicalize()
            .context("failed to look up a temporary directory")?;
        let kustomization = serde_json::json!({
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": [from(&here, resources)],
            "components": components.iter().map(|path| from(&here, path)).collect::<Vec<_>>(),
        });
        // What is JSON is YAML.
        fs::write(here.join("kustomization.yaml"), kustomization.to_string())
            .context("failed to write a kustomization")?;
        Self::render(kubectl, &here)
    }

    pub(super) fn parse(text: &str) -> Result<Self> {
        let objects: Vec<Value> = serde_saphyr::from_multiple(text)?;
        let mut manifests = Self::default();
        for object in &objects {
            let kind = object["kind"].as_str().unwrap_or_default();
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            manifests
                .add(kind, object)
                .with_context(|| format!("the {kind} {name}"))?;
        }
        manifests.objects = objects;
        Ok(manifests)
    }

    fn add(&mut self, kind: &str, object: &Value) -> Result<()> {
        match kind {
            "Namespace" => self.namespaces.push(strictly(object)?),
            "ServiceAccount" => self.service_accounts.push(strictly(object)?),
            "ClusterRole" => self.cluster_roles.push(strictly(object)?),
            "ClusterRoleBinding" => self.cluster_role_bindings.push(strictly(object)?),
            "Role" => self.roles.push(strictly(object)?),
            "RoleBinding" => self.role_bindings.push(strictly(object)?),
            "ResourceQuota" => self.quotas.push(strictly(object)?),
            "DaemonSet" => self.daemon_sets.push(strictly(object)?),
            _ => bail!("nobody expects an object of this kind"),
        }
        Ok(())
    }

    /// The one daemon set.
    pub fn daemon_set(&self) -> Result<&DaemonSet> {
        match &self.daemon_sets[..] {
            [one] => Ok(one),
            others => bail!("there are {} daemon sets", others.len()),
        }
    }

    /// The pods of the one daemon set.
    pub fn pod(&self) -> Result<&PodSpec> {
        let spec = self.daemon_set()?.spec.as_ref();
        let pod = spec.and_then(|spec| spec.template.spec.as_ref());
        pod.context("the daemon set has no pods")
    }

    /// The one container of its pods.
    pub fn container(&self) -> Result<&Container> {
        match &self.pod()?.containers[..] {
            [one] => Ok(one),
            others => bail!("there are {} containers", others.len()),
        }
    }
}

/// Reads an object of which every field is known: what the type does not have would not come out
/// again. Also the version of the API must be the type's.
pub(crate) fn strictly<T: DeserializeOwned + Serialize>(object: &Value) -> Result<T> {
    let read: T = serde_json::from_value(object.clone())?;
    let again = serde_json::to_value(&read)?;
    let mut unknown = Vec::new();
    differences("", object, &again, &mut unknown);
    ensure!(
        unknown.is_empty(),
        "these fields are unknown, or no such values: {}",
        unknown.join(", ")
    );
    Ok(read)
}

/// The paths at which `given` has what `kept` has not.
fn differences(path: &str, given: &Value, kept: &Value, found: &mut Vec<String>) {
    match (given, kept) {
        (Value::Object(given), Value::Object(kept)) => {
            for (name, given) in given {
                let path = format!("{path}/{name}");
                match kept.get(name) {
                    Some(kept) => differences(&path, given, kept, found),
                    None => found.push(path),
                }
            }
        }
        (Value::Array(given), Value::Array(kept)) if given.len() == kept.len() => {
            for (index, (given, kept)) in given.iter().zip(kept).enumerate() {
                differences(&format!("{path}/{index}"), given, kept, found);
            }
        }
        (given, kept) if given == kept => {}
        _ => found.push(path.to_owned()),
    }
}

/// The way from one folder to another; kustomize takes no other.
fn from(here: &Path, there: &Path) -> PathBuf {
    let up = here
        .components()
        .filter(|component| matches!(component, Component::Normal(_)))
        .map(|_| Component::ParentDir);
    let down = there
        .components()
        .filter(|component| *component != Component::RootDir);
    up.chain(down).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_api_does_not_know_is_found_at_any_depth() {
        let manifests = |extra: &str| {
            Manifests::parse(&format!(
                "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: a\n{extra}"
            ))
        };
        assert_eq!(manifests("").expect("known").namespaces.len(), 1);
        for (extra, place) in [
            ("  label: {a: b}\n", "/metadata/label"),
            ("spec:\n  finalizer: []\n", "/spec/finalizer"),
            ("---\nkind: Namespace\napiVersion: v2\n", "Namespace"),
            ("---\nkind: Deployment\napiVersion: apps/v1\n", "Deployment"),
        ] {
            let error = format!("{:#}", manifests(extra).expect_err("unknown"));
            assert!(error.contains(place), "{error}");
        }
    }

    #[test]
    fn the_way_to_a_folder_leads_over_the_root() {
        assert_eq!(
            from(Path::new("/tmp/a"), Path::new("/src/b")),
            Path::new("../../src/b")
        );
    }
}
