//! An API server for tests: the lists and watches of a few objects over HTTP, as kube-apiserver
//! serves them, ports of pods by WebSocket, and every way in which one misbehaves.
//!
//! Written from the API's documentation (Kubernetes API Concepts: resource versions, chunked
//! lists, watch bookmarks, streaming lists), and on purpose not from the observer's client.
//! It asks for a token, and writes the kubeconfig that has it.

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{runtime::Runtime, sync::broadcast, task::AbortHandle};

use crate::{api_server::objects::Objects, netns::Namespace};

mod answer;
mod forward;
mod objects;
mod serve;
mod tls;
mod watch;

/// The token that is asked for.
const TOKEN: &str = "a-token-of-the-lab";
/// From bookmark to bookmark; a real server takes a minute.
const BETWEEN_BOOKMARKS: Duration = Duration::from_millis(500);
/// Requests that are remembered.
const REQUESTS_MAX: usize = 10_000;
/// What watches may be told before one of them listens.
const ORDERS_MAX: usize = 64;

/// An API server at work, until it is dropped.
#[derive(Debug)]
pub struct ApiServer {
    at: SocketAddr,
    shared: Arc<Shared>,
    listener: Arc<serve::Listener>,
    runtime: Option<Runtime>,
    directory: TempDir,
}

/// How it is to be reached.
#[derive(Debug, Default)]
pub struct Options<'a> {
    /// The namespace that it listens in, and the address there; else the loopback address of the
    /// process' own.
    pub within: Option<(&'a Namespace, IpAddr)>,
    /// By TLS, with a certificate of its own.
    pub tls: bool,
    /// Whether it has streaming lists (KEP-3157).
    pub streaming_lists: bool,
}

/// What is done wrong, until it is set otherwise.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Resources that may not be read (403).
    pub forbidden: Vec<String>,
    /// Nobody's token is good (401).
    pub unauthorized: bool,
    /// The status that all requests are answered with.
    pub status: Option<u16>,
    /// How long every answer takes to begin.
    pub slow: Duration,
    /// Answers never begin.
    pub silent: bool,
    /// So many times yet, the rest of a list is gone when it is asked for (410).
    pub rests_gone: u32,
    /// No bookmarks are sent, but for the one that ends a streamed list.
    pub no_bookmarks: bool,
}

/// What is done to all open watches, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// They end, as at their time-out.
    End,
    /// The connection breaks in the middle of a line.
    BreakOff,
    /// A line comes that is none.
    Garbage,
    /// They end with the error that their version is too old.
    Expire,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    orders: broadcast::Sender<Order>,
    /// Sent with every change.
    changes: tokio::sync::watch::Sender<u64>,
    streaming_lists: bool,
    /// Connections to pods; they end with the server.
    forwarded: Mutex<Vec<AbortHandle>>,
}

#[derive(Debug, Default)]
struct State {
    objects: Objects,
    faults: Faults,
    requests: Vec<String>,
    /// The network namespaces of pods, by namespace and name.
    networks: BTreeMap<(String, String), String>,
}

impl ApiServer {
    /// Starts one that has these objects: a `List`'s items, or any.
    pub fn start(objects: &[Value], options: &Options<'_>) -> Result<Self> {
        let directory = TempDir::new().context("failed to make a directory for a kubeconfig")?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .context("failed to start a runtime for the API server")?;
        let tls = options
            .tls
            .then(|| tls::Identity::make(directory.path()))
            .transpose()?;
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            orders: broadcast::channel(ORDERS_MAX).0,
            changes: tokio::sync::watch::channel(0).0,
            streaming_lists: options.streaming_lists,
            forwarded: Mutex::default(),
        });
        let namespace = options.within.map(|(namespace, _)| namespace.name());
        let ip = options
            .within
            .map_or(Ipv4Addr::LOCALHOST.into(), |(_, ip)| ip);
        let listener = serve::Listener::new(
            SocketAddr::new(ip, 0),
            namespace,
            tls.as_ref().map(tls::Identity::acceptor).transpose()?,
        );
        let listener = Arc::new(listener);
        let server = Self {
            at: listener.open(&runtime, answer::router(Arc::clone(&shared)))?,
            shared,
            listener,
            runtime: Some(runtime),
            directory,
        };
        server.write_kubeconfig(tls.as_ref())?;
        for object in objects {
            server.put(object.clone());
        }
        Ok(server)
    }

    /// The kubeconfig that leads here, with the contexts `lab` (the current one) and `nobody`,
    /// whose token is wrong.
    pub fn kubeconfig(&self) -> PathBuf {
        self.directory.path().join("kubeconfig")
    }

    /// Where it listens.
    pub fn at(&self) -> SocketAddr {
        self.at
    }

    /// Creates an object, or replaces the one of its name.
    pub fn put(&self, object: Value) {
        self.change(|objects| objects.put(object));
    }

    /// Deletes an object; `namespace` is empty for one that has none.
    pub fn delete(&self, kind: &str, namespace: &str, name: &str) {
        self.change(|objects| objects.delete(kind, namespace, name));
    }

    /// Forgets what was before now: who wants to go on from there, or with a list of then, is
    /// told that it is gone (410).
    pub fn compact(&self) {
        self.shared.state().objects.compact();
    }

    /// Changes what is done wrong.
    pub fn misbehave(&self, how: impl FnOnce(&mut Faults)) {
        how(&mut self.shared.state().faults);
    }

    /// Does something to all open watches.
    pub fn order(&self, order: Order) {
        let _no_watch_is_open = self.shared.orders.send(order);
    }

    /// How many watches are open.
    pub fn open_watches(&self) -> usize {
        self.shared.orders.receiver_count()
    }

    /// Says where a pod is, so that its ports can be reached through here.
    pub fn place(&self, namespace: &str, pod: &str, network: &Namespace) {
        let pod = (namespace.to_owned(), pod.to_owned());
        let network = network.name().to_owned();
        self.shared.state().networks.insert(pod, network);
    }

    /// Breaks all connections and refuses new ones, until [`ApiServer::come_back`].
    pub fn go_away(&self) {
        self.listener.close();
        let mut forwarded = self.shared.forwarded();
        forwarded.drain(..).for_each(|task| task.abort());
    }

    /// Listens again, at the same address.
    pub fn come_back(&self) -> Result<()> {
        let runtime = self
            .runtime
            .as_ref()
            .context("it runs until it is dropped")?;
        self.listener
            .open(runtime, answer::router(Arc::clone(&self.shared)))?;
        Ok(())
    }

    /// Path and query of the requests so far, each with the status of its answer in front.
    pub fn requests(&self) -> Vec<String> {
        self.shared.state().requests.clone()
    }

    fn change(&self, change: impl FnOnce(&mut Objects) -> u64) {
        let version = change(&mut self.shared.state().objects);
        self.shared.changes.send_replace(version);
    }

    fn write_kubeconfig(&self, tls: Option<&tls::Identity>) -> Result<()> {
        let mut cluster = json!({"server": format!("http://{}", self.at)});
        if let Some(tls) = tls {
            cluster = json!({
                "server": format!("https://{}", self.at),
                "certificate-authority": tls.certificate_file(),
            });
        }
        let context = |user: &str| json!({"cluster": "lab", "user": user});
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "lab",
            "clusters": [{"name": "lab", "cluster": cluster}],
            "users": [
                {"name": "admin", "user": {"token": TOKEN}},
                {"name": "nobody", "user": {"token": "a-token-of-nobody"}},
            ],
            "contexts": [
                {"name": "lab", "context": context("admin")},
                {"name": "nobody", "context": context("nobody")},
            ],
        });
        fs::write(self.kubeconfig(), config.to_string()).context("failed to write a kubeconfig")
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.listener.close();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Shared {
    /// A panic elsewhere cannot have left it half changed.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forwarded(&self) -> MutexGuard<'_, Vec<AbortHandle>> {
        let forwarded = self.forwarded.lock();
        forwarded.unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn note(&mut self, status: u16, request: &str) {
        if self.requests.len() < REQUESTS_MAX {
            self.requests.push(format!("{status} {request}"));
        }
    }
}

/// The objects of a file as kubectl prints them.
pub fn items(path: &Path) -> Result<Vec<Value>> {
    let text = fs::read_to_string(path)
        .with_context(|| format!("failed to read the objects in {}", path.display()))?;
    let mut list: Value = serde_json::from_str(&text)?;
    match list["items"].take() {
        Value::Array(items) => Ok(items),
        _ => anyhow::bail!("{} has no items", path.display()),
    }
}
