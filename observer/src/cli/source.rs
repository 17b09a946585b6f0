//! Where a command has the cluster's objects from: the API server, or a file.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use clap::Args;
use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::timeout;

use super::ask;

use crate::cluster::file::{self, FileError};
use crate::cluster::finding::Finding;
use crate::cluster::{KubeProxy, Objects, Snapshot};
use crate::kubernetes::{self, AccessError, Client, Cluster, KubeProxySource, Scope, Wanted};
use crate::live::Knowledge;
use crate::manifests::{self, Assumption};
use crate::notice::{say, warn};

/// What follows where nothing is known of the cluster.
const WITHOUT: &str = "until it is heard, only rewritten connections are told, and no names";

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

    /// What is known of the cluster from a file, if that is what is given.
    fn of_file(&self) -> anyhow::Result<Option<Snapshot>> {
        let Some(path) = self.file() else {
            return Ok(None);
        };
        let objects = file::objects(path)?;
        let given = self.kube_proxy()?;
        let kube_proxy = given.or_else(|| configured(&objects)).or_else(ask::served);
        Ok(Some(Snapshot::of(objects, kube_proxy)))
    }

    /// What an observer on this node knows of the cluster at once, and what it will know. Waits for
    /// nobody: the API server is reached when it can be.
    ///
    /// `readers`: whether what proxies make of PROXY headers, too.
    ///
    /// Must be called in a tokio runtime.
    pub(super) fn knowledge_to_come(&self, node: &str, readers: bool) -> anyhow::Result<Knowledge> {
        if let Some(snapshot) = self.of_file()? {
            return Ok(Knowledge {
                cluster: Some(Arc::new(snapshot)),
                changes: None,
            });
        }
        Ok(Knowledge {
            cluster: None,
            changes: Some(self.followed(node, false, readers)?),
        })
    }

    /// What an observer on this node knows of the cluster, and will know. `patience`: how long it
    /// may take until something is known at all; `readers`: as above. Nothing need be known: without objects only
    /// rewrites are told. But what was asked for by name must be there.
    pub(super) async fn knowledge(
        &self,
        node: &str,
        readers: bool,
        patience: Duration,
    ) -> anyhow::Result<Knowledge> {
        if let Some(snapshot) = self.of_file()? {
            return Ok(Knowledge {
                cluster: Some(Arc::new(snapshot)),
                changes: None,
            });
        }
        let is_asked_for = self.kubeconfig.is_some() || self.context.is_some();
        // What is wrong with it is told now, not followed.
        match self.client().await {
            Ok(_) => {}
            Err(AccessError::Nowhere) if !is_asked_for => return Ok(Knowledge::default()),
            Err(error) if !is_asked_for => {
                warn(&error, WITHOUT);
                return Ok(Knowledge::default());
            }
            Err(error) => return Err(error.into()),
        }
        let mut changes = self.followed(node, true, readers)?;
        let first =
            changes.wait_for(|cluster| cluster.snapshot.is_some() || cluster.away_since.is_some());
        let Cluster {
            snapshot, trouble, ..
        } = match timeout(patience, first).await {
            Ok(Ok(first)) => first.clone(),
            Ok(Err(_)) | Err(_) => Cluster::default(),
        };
        match (&snapshot, trouble) {
            (None, Some(trouble)) if is_asked_for => bail!(trouble),
            (None, Some(trouble)) => say(&format!("warning: {trouble}: {WITHOUT}")),
            (Some(_), Some(trouble)) => say(&format!("warning: {trouble}")),
            (_, None) => {}
        }
        Ok(Knowledge {
            cluster: snapshot,
            changes: Some(changes),
        })
    }

    /// The cluster as it changes. `objects`: whether they are kept, for names, and for a recording.
    fn followed(
        &self,
        node: &str,
        objects: bool,
        readers: bool,
    ) -> Result<watch::Receiver<Cluster>, FileError> {
        let wanted = Wanted {
            kube_proxy: KubeProxySource {
                given: self.kube_proxy()?,
                served: Some(ask::served),
            },
            objects,
            readers,
        };
        let scope = Scope::Node(node.to_owned());
        let source = self.clone();
        let connect = move || {
            let source = source.clone();
            Box::pin(async move { source.client().await }) as BoxFuture<'static, _>
        };
        Ok(kubernetes::follow_by(connect, scope, wanted))
    }
}

/// Where the objects that are explained come from: manifests, a file of a cluster's objects, or
/// the API server.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct WholeSource {
    /// Manifests, as kubectl takes them: a file of YAML or JSON, a directory of them, or `-` for
    /// the standard input. What a cluster would add to them is assumed, and told.
    #[arg(
        short,
        long,
        value_name = "FILE",
        conflicts_with_all = ["cluster_state", "kubeconfig", "context"],
        help_heading = CLUSTER
    )]
    filename: Vec<PathBuf>,
    /// With --filename: look below directories too.
    #[arg(short = 'R', long, requires = "filename", help_heading = CLUSTER)]
    recursive: bool,
    /// With --filename: the namespace of what names none [default: default].
    #[arg(short, long, value_name = "NAME", requires = "filename", help_heading = CLUSTER)]
    namespace: Option<String>,
    #[command(flatten)]
    pub(super) cluster: ClusterSource,
}

/// What is explained.
#[derive(Debug, Default)]
pub(super) struct Given {
    /// The objects, and what stands around the Services.
    pub(super) objects: Objects,
    /// What was assumed to be there beside manifests; nothing for a cluster.
    pub(super) assumed: Vec<Assumption>,
    /// What is led to and is not there; of manifests that is an error.
    pub(super) findings: Vec<Finding>,
}

impl WholeSource {
    /// All objects, once. What is missing among them is said; what is wrong with manifests is an
    /// error of several lines ([`manifests::Problems`]).
    pub(super) async fn whole(&self) -> anyhow::Result<Given> {
        if !self.filename.is_empty() {
            return self.of_manifests();
        }
        let objects = if let Some(path) = self.cluster.file() {
            let (mut objects, passed_over) = file::objects_noting(path)?;
            // Whoever printed them may not have asked for these.
            let around = &mut objects.around;
            around.lacks_reference_grants = around.reference_grants.is_empty();
            for line in passed_over {
                say(&format!("warning: {}: {line}", path.display()));
            }
            objects
        } else {
            let client = self.cluster.client().await?;
            let read = Box::pin(kubernetes::read_whole(&client)).await?;
            for missing in read.missing {
                say(&format!("warning: {missing}"));
            }
            read.objects
        };
        let findings = manifests::missing(&objects);
        Ok(Given {
            objects,
            assumed: Vec::new(),
            findings,
        })
    }

    fn of_manifests(&self) -> anyhow::Result<Given> {
        let namespace = self.namespace.as_deref();
        let namespace = namespace.unwrap_or(manifests::DEFAULT_NAMESPACE);
        let objects = manifests::read_files(&self.filename, self.recursive, namespace)?;
        let (objects, assumed) = manifests::complete(objects);
        Ok(Given {
            objects,
            assumed,
            findings: Vec::new(),
        })
    }
}

/// kube-proxy's configuration as the cluster's objects have it.
fn configured(objects: &Objects) -> Option<KubeProxy> {
    KubeProxy::of_cluster(&objects.config_maps).unwrap_or_else(|error| {
        warn(
            &error,
            "the ConfigMap of kube-proxy is not taken into account",
        );
        None
    })
}
