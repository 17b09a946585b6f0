//! What of a cluster a pod on a node of the lab meets: the API server, and the account that it has
//! there.

use std::{fs, net::Ipv4Addr, path::Path};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    api_server::{ApiServer, Options, items},
    demo,
    kubeproxy::Settings,
    lab::LabNode,
};

/// Where a pod finds its service account.
pub const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// The cluster of a pod.
#[derive(Debug)]
pub struct Cluster {
    server: ApiServer,
    account: TempDir,
}

impl Cluster {
    /// The demo cluster on one of its nodes, with kube-proxy's configuration as kubeadm keeps it.
    pub fn start(node: &LabNode, kube_proxy: &Settings) -> Result<Self> {
        let mut objects = items(&demo::cluster_file())?;
        objects.push(json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"namespace": "kube-system", "name": "kube-proxy"},
            "data": {"config.conf": kube_proxy.to_string()},
        }));
        let options = Options {
            within: Some((&node.namespace, Ipv4Addr::LOCALHOST.into())),
            tls: true,
            ..Options::default()
        };
        let server = ApiServer::start(&objects, &options)?;
        let account = account(&server.kubeconfig())?;
        Ok(Self { server, account })
    }

    /// The folder of the account.
    pub fn account(&self) -> &Path {
        self.account.path()
    }

    /// What a kubelet tells every pod.
    pub fn environment(&self) -> Vec<String> {
        let at = self.server.at();
        vec![
            format!("KUBERNETES_SERVICE_HOST={}", at.ip()),
            format!("KUBERNETES_SERVICE_PORT={}", at.port()),
        ]
    }

    /// What the API server was asked for.
    pub fn requests(&self) -> Vec<String> {
        self.server.requests()
    }
}

/// The account of a kubeconfig, as a kubelet mounts one.
fn account(kubeconfig: &Path) -> Result<TempDir> {
    let kubeconfig = fs::read_to_string(kubeconfig).context("failed to read a kubeconfig")?;
    let kubeconfig: Value = serde_json::from_str(&kubeconfig).context("no kubeconfig")?;
    let text = |place| {
        let value = kubeconfig.pointer(place).and_then(Value::as_str);
        value.with_context(|| format!("the kubeconfig has no {place}"))
    };
    let certificate = text("/clusters/0/cluster/certificate-authority")?;
    let certificate = fs::read_to_string(certificate).context("failed to read a certificate")?;
    let account = TempDir::new().context("failed to make a directory")?;
    for (name, text) in [
        ("ca.crt", &*certificate),
        ("namespace", "source-ip-observer"),
        ("token", text("/users/0/user/token")?),
    ] {
        fs::write(account.path().join(name), text).context("failed to write an account")?;
    }
    Ok(account)
}
