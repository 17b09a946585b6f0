//! The image as a container with the privileges of the manifests: read-only root, three
//! capabilities, no new privileges, the runtime's seccomp profile, the memory limit.
//!
//! Method: make the image's root file system as the Dockerfile does, render an overlay, and have
//! runc run that on a node of the lab, which is what a kubelet and its container runtime do with
//! the same.

use std::{path::PathBuf, process::Output};

use serde_json::Value;
use tempfile::TempDir;
use tests::{
    demo,
    deploy::{
        Tool,
        container::{Container, Setup},
        file, image,
        manifests::Manifests,
        tools,
    },
    lab::Lab,
    privilege,
};

/// What each test needs.
struct Deployed {
    lab: Lab,
    root: TempDir,
    seccomp_profile: PathBuf,
    kubectl: PathBuf,
}

impl Deployed {
    fn prepare(test: &str) -> Option<Self> {
        let [kubectl, seccomp_profile] = tools(test, [Tool::Kubectl, Tool::SeccompProfile])?;
        if !privilege::granted(test) {
            return None;
        }
        Some(Self {
            lab: demo::raise().expect("raised"),
            root: image::root().expect("a root file system"),
            seccomp_profile,
            kubectl,
        })
    }

    fn overlay(&self, name: &str) -> Manifests {
        let folder = file("overlays").join(name);
        Manifests::render(&self.kubectl, &folder).expect("rendered")
    }

    /// A container on node1 that runs the observer with other arguments.
    fn observer(&self, arguments: &[&str]) -> Setup<'_> {
        let own = ["observer"].iter().chain(arguments);
        Setup {
            root: self.root.path(),
            seccomp_profile: &self.seccomp_profile,
            node: "node1",
            namespace: &self.lab.node("node1").expect("a node").namespace,
            shown: vec![demo::cluster_file()],
            instead: Some(own.map(ToString::to_string).collect()),
            more: Vec::new(),
            without: None,
        }
    }

    /// What doctor says in a container of an overlay, perhaps without a capability.
    fn doctor(&self, overlay: &str, without: Option<&str>) -> Value {
        let objects = demo::cluster_file();
        let objects = objects.to_str().expect("text");
        let setup = Setup {
            without,
            ..self.observer(&["doctor", "-o", "json", "--cluster-state", objects])
        };
        let output = output(&self.overlay(overlay), &setup);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
    }
}

fn output(manifests: &Manifests, setup: &Setup<'_>) -> Output {
    let container = Container::new(manifests, setup).expect("a container");
    container.command().output().expect("runs")
}

/// The checks of a report that are not ok, with what was found.
fn worse(report: &Value) -> Vec<(&str, &str, &str)> {
    let checks = report["checks"].as_array().expect("checks").iter();
    checks
        .filter(|check| check["status"] != "ok")
        .map(|check| {
            let text = |field: &str| check[field].as_str().unwrap_or_default();
            (text("name"), text("status"), text("found"))
        })
        .collect()
}

#[test]
fn the_image_holds_all_that_the_observer_needs() {
    let Some(deployed) = Deployed::prepare("the_image_holds_all_that_the_observer_needs") else {
        return;
    };
    let manifests = deployed.overlay("capabilities");
    let version = output(&manifests, &deployed.observer(&["--version"]));
    assert!(version.stdout.starts_with(b"observer "), "{version:?}");
}

#[test]
fn a_container_of_either_overlay_can_observe() {
    let Some(deployed) = Deployed::prepare("a_container_of_either_overlay_can_observe") else {
        return;
    };
    let privileged = deployed.doctor("privileged", None);
    assert_eq!(worse(&privileged), []);
    assert_eq!(privileged["can_observe"], true);
    // All that CAP_SYS_ADMIN would add: to see the BPF programs of others.
    let least = deployed.doctor("capabilities", None);
    assert_eq!(
        worse(&least),
        [(
            "dataplane",
            "unseen",
            "no interface of one that bypasses conntrack; BPF programs or rules could not be listed"
        )]
    );
    assert_eq!(least["can_observe"], true);
}

#[test]
fn a_capability_that_is_missing_is_named() {
    let Some(deployed) = Deployed::prepare("a_capability_that_is_missing_is_named") else {
        return;
    };
    for capability in ["CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN"] {
        let report = deployed.doctor("capabilities", Some(capability));
        assert_eq!(report["can_observe"], false);
        let named = format!("without {capability}");
        let worse = worse(&report);
        assert!(
            worse.contains(&("capabilities", "missing", &named)),
            "{worse:?}"
        );
    }
}
