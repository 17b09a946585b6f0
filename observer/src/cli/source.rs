//! Where a command has the cluster's objects from: the API server, or a file.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::cluster::file::{self, FileError};
use crate::cluster::{KubeProxy, Objects};
use crate::kubernetes::{self, AccessError, Client, Scope};
use crate::notice::say;

/// The heading of the options that say so.
const CLUSTER: &str = "Where the cluster's objects come from";

/// The API server, as kubectl finds it, unless a file is given.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct ClusterSource {
    /// A List of the cluster's objects, as `kubectl get
    /// services,endpointslices,nodes,pods,configmaps -A -o json` prints it, instead of the API
    /// server's.
    #[arg(long, value_name = "FILE", help_heading = CLUSTER)]
    cluster_state: Option<PathBuf>,
    /// How to reach the API server [default: the files in `KUBECONFIG`; else, in a pod, its
    /// cluster; else `~/.kube/config`].
    #[arg(long, value_name = "FILE", conflicts_with = "cluster_state", help_heading = CLUSTER)]
    kubeconfig: Option<PathBuf>,
    /// A context of the kubeconfig [default: its current one].
    #[arg(long, value_name = "NAME", conflicts_with = "cluster_state", help_heading = CLUSTER)]
    context: Option<String>,
    /// kube-proxy's configuration, a `KubeProxyConfiguration` [default: the cluster's `ConfigMap`
    /// of it].
    #[arg(long, value_name = "FILE", help_heading = CLUSTER)]
    kube_proxy_config: Option<PathBuf>,
}

impl ClusterSource {
    /// The file that is given instead of the API server.
    pub(super) fn file(&self) -> Option<&Path> {
        self.cluster_state.as_deref()
    }

    /// kube-proxy's configuration, if a file of it is given.
    pub(super) fn kube_proxy(&self) -> Result<Option<KubeProxy>, FileError> {
        let path = self.kube_proxy_config.as_deref();
        path.map(file::kube_proxy).transpose()
    }

    /// The way to the API server.
    pub(super) async fn client(&self) -> Result<Client, AccessError> {
        Client::connect(self.kubeconfig.as_deref(), self.context.as_deref()).await
    }

    /// All objects, once. What is missing among them is said.
    pub(super) async fn objects(&self) -> anyhow::Result<Objects> {
        if let Some(path) = self.file() {
            return Ok(file::objects(path)?);
        }
        let read = kubernetes::read(&self.client().await?, &Scope::Cluster).await?;
        for missing in read.missing {
            say(&format!("warning: {missing}"));
        }
        Ok(read.objects)
    }
}
