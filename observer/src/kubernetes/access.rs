//! Where the API server is and who one is there, as kubectl finds out.

use std::env;
use std::path::{Path, PathBuf};

use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};

use super::client::Client;
use super::error::{AccessError, one_line, root};
use super::proxy::is_spared;

/// Names of contexts that are told in an error.
const CONTEXTS_MAX: usize = 8;
/// What every pod has in its environment (`kubernetes.default`'s address).
const IN_CLUSTER: &str = "KUBERNETES_SERVICE_HOST";

impl Client {
    /// A client for the cluster of this kubeconfig and context; without a kubeconfig, of those
    /// that KUBECONFIG names; else, in a pod, of its own cluster; else of `~/.kube/config`. A
    /// context is one of a kubeconfig, so that with one a pod's own cluster is not considered.
    ///
    /// Plugins for credentials (`exec`) run here. Nothing is asked of the API server.
    pub async fn connect(
        kubeconfig: Option<&Path>,
        context: Option<&str>,
    ) -> Result<Self, AccessError> {
        let config = if let Some(path) = kubeconfig {
            let read = Kubeconfig::read_from(path).map_err(|error| of_file(path, &error))?;
            chosen(read, context, |error| of_file(path, error)).await?
        } else if let Some(read) = Kubeconfig::from_env().map_err(|error| of_variable(&error))? {
            chosen(read, context, of_variable).await?
        } else if context.is_none() && env::var_os(IN_CLUSTER).is_some() {
            kube::Config::incluster().map_err(|error| AccessError::ServiceAccount(root(&error)))?
        } else {
            let path = home().ok_or(AccessError::Nowhere)?;
            let read = Kubeconfig::read_from(&path).map_err(|error| of_file(&path, &error))?;
            chosen(read, context, |error| of_file(&path, error)).await?
        };
        // It may wait for a plugin.
        let client = tokio::task::spawn_blocking(|| Self::new(config)).await;
        client.unwrap_or_else(|panicked| std::panic::resume_unwind(panicked.into_panic()))
    }
}

/// `~/.kube/config`, if it is there.
fn home() -> Option<PathBuf> {
    let path = env::home_dir()?.join(".kube/config");
    path.exists().then_some(path)
}

async fn chosen(
    kubeconfig: Kubeconfig,
    context: Option<&str>,
    of: impl Fn(&KubeconfigError) -> AccessError,
) -> Result<kube::Config, AccessError> {
    let names: Vec<_> = kubeconfig
        .contexts
        .iter()
        .map(|context| one_line(&context.name))
        .collect();
    let wanted = context.or(kubeconfig.current_context.as_deref());
    let Some(wanted) = wanted.filter(|name| !name.is_empty()) else {
        return Err(AccessError::NoContext(there_are(names)));
    };
    if !kubeconfig.contexts.iter().any(|its| its.name == wanted) {
        return Err(AccessError::Context {
            context: one_line(wanted),
            there_are: there_are(names),
        });
    }
    let options = KubeConfigOptions {
        context: Some(wanted.to_owned()),
        ..KubeConfigOptions::default()
    };
    let has_proxy = has_proxy(&kubeconfig, wanted);
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await;
    let mut config = config.map_err(|error| of(&error))?;
    if config.proxy_url.is_some() && !has_proxy {
        let no_proxy = ["NO_PROXY", "no_proxy"].map(|name| env::var(name).ok());
        let no_proxy = no_proxy.into_iter().flatten().next().unwrap_or_default();
        let server = &config.cluster_url;
        if is_spared(
            server.host().unwrap_or_default(),
            server.port_u16(),
            &no_proxy,
        ) {
            config.proxy_url = None;
        }
    }
    Ok(config)
}

/// Whether the kubeconfig itself names a proxy, which counts whatever the environment says.
fn has_proxy(kubeconfig: &Kubeconfig, context: &str) -> bool {
    let mut contexts = kubeconfig.contexts.iter();
    let context = contexts.find(|its| its.name == context);
    let cluster = context.and_then(|its| Some(&its.context.as_ref()?.cluster));
    let mut clusters = kubeconfig.clusters.iter();
    let cluster = clusters.find(|its| Some(&its.name) == cluster);
    cluster
        .and_then(|its| its.cluster.as_ref()?.proxy_url.as_ref())
        .is_some_and(|url| !url.is_empty())
}

fn there_are(mut names: Vec<String>) -> String {
    let total = names.len();
    names.truncate(CONTEXTS_MAX);
    let listed = names.join(", ");
    match total {
        0 => "the kubeconfig has none".to_owned(),
        1..=CONTEXTS_MAX => format!("there is {listed}"),
        _ => format!("there are {total}, among them {listed}"),
    }
}

fn of_file(path: &Path, error: &KubeconfigError) -> AccessError {
    AccessError::Kubeconfig {
        path: path.to_owned(),
        reason: reason(error),
    }
}

fn of_variable(error: &KubeconfigError) -> AccessError {
    AccessError::KubeconfigVariable(match error {
        KubeconfigError::ReadConfig(reason, path) => {
            format!("{}: cannot be read: {reason}", path.display())
        }
        other => reason(other),
    })
}

fn reason(error: &KubeconfigError) -> String {
    match error {
        KubeconfigError::ReadConfig(reason, _) => format!("cannot be read: {reason}"),
        KubeconfigError::Parse(reason) => one_line(&reason.to_string()),
        other => one_line(&other.to_string()),
    }
}
