//! The daemon of the `DaemonSet`: observes its node for as long as it runs, counts what it saw, and
//! hands it to whoever asks.
//!
//! Two threads. One observes, and waits for nobody; the other serves, and follows the cluster's
//! objects. Between them is a `hub`, which is bounded.

mod api;
mod breath;
mod followed;
mod handover;
mod hub;
mod lines;
mod metrics;
mod query;
mod serve;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use jiff::Timestamp;
use tokio::runtime::{Handle, Runtime};
use tokio::sync::watch;
use tokio::time::{interval, sleep};

use self::api::{Api, Room};
use self::breath::Breath;
use self::handover::Succession;
use self::hub::{Counting, Hub, Turn};
use self::metrics::Metrics;
use self::serve::{Refusals, ended, serve};
use crate::kernel::programs::Hook;
use crate::kubernetes::Cluster;
use crate::live::{self, Attached, Begin, Knowledge, Setup};
use crate::notice::say;
use crate::observe::Settings;

/// How often it is kept that there is an agent: half of the gap that a restart may leave.
const BREATH: Duration = Duration::from_millis(500);
/// While the agent before still has the address.
const LISTEN_AGAIN: Duration = Duration::from_millis(50);
/// How long that may take before it is said.
const LISTEN_PATIENCE: Duration = Duration::from_secs(15);
/// How long what is under way may take once all is to end: longer than for each connection.
const DRAIN: Duration = Duration::from_secs(1);

/// How an agent is to run.
#[derive(Debug)]
pub struct Options {
    /// What to observe, and how.
    pub setup: Setup,
    /// As the observer takes them.
    pub settings: Settings,
    /// Where it is asked.
    pub addresses: Addresses,
    /// What the API asks of whoever asks it.
    pub token: Option<String>,
    /// Whether clients' addresses are shortened in what is served.
    pub anonymize: bool,
    /// Where it is kept when an agent last observed.
    pub state_directory: Option<PathBuf>,
}

/// Runs until SIGTERM or Ctrl-C. `knowledge` is called in the runtime that serves, where what it
/// follows is followed.
pub fn run(
    options: Options,
    knowledge: impl FnOnce() -> anyhow::Result<Knowledge>,
) -> anyhow::Result<()> {
    let serving = runtime()?;
    let handle = serving.handle().clone();
    let knowledge = {
        let _serving = handle.enter();
        knowledge()?
    };
    // Ends with its sender, however this ends.
    let (stop, stopped) = watch::channel(false);
    let thread = thread::Builder::new()
        .name("serve".to_owned())
        .spawn(move || {
            let mut served = stopped;
            serving.block_on(ended(&mut served));
            // Not waiting for what does not end: a plugin for credentials, a name's look-up.
            serving.shutdown_background();
        })
        .context("cannot start the thread that serves")?;
    let result = runtime()?.block_on(observe(options, knowledge, &handle));
    drop(stop);
    let joined = thread.join();
    result?;
    joined.map_err(|_panic| anyhow!("the thread that serves has died"))
}

fn runtime() -> anyhow::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")
}

async fn observe(options: Options, knowledge: Knowledge, serving: &Handle) -> anyhow::Result<()> {
    let Options {
        setup,
        settings,
        addresses,
        token,
        anonymize,
        state_directory,
    } = options;
    let node = settings.node.clone();
    let breath = state_directory.map(|directory| {
        Breath::in_directory(&directory)
            .with_context(|| format!("the state directory {}", directory.display()))
    });
    let breath = breath.transpose()?;
    let last_breath = breath.as_ref().and_then(Breath::last);
    let (turn, whose_turn) = watch::channel(Turn::NotYet);
    let succession =
        Succession::begin(turn).context("cannot look for another agent of this node")?;
    // Before anything is attached, if nobody else may have them.
    let listeners = if succession.waits() {
        say("another agent of this node still counts: waiting for its last word");
        None
    } else {
        Some(addresses.listen()?)
    };
    let hub = Arc::new(Hub::new());
    let cluster = knowledge.changes.clone();
    let metrics = Arc::new(Metrics::new(cluster.clone(), setup.sizes));
    let counting = Counting::new(
        Arc::clone(&hub),
        Arc::clone(&metrics),
        anonymize,
        (succession, whose_turn.clone()),
        last_breath,
    );
    let (session, ring, Attached { interfaces, hook }) =
        setup.attach(settings, knowledge, None, counting).await?;
    let hook = hook.as_ref().map_or_else(String::new, Hook::to_string);
    metrics.built(&node, &hook);
    let (stop, stopped) = watch::channel(false);
    let server = Server {
        api: Arc::new(Api {
            node: node.clone(),
            hook: hook.clone(),
            observing_since: Timestamp::now(),
            hub,
            refusals: Arc::new(Refusals::new(Arc::clone(&metrics))),
            metrics,
            cluster,
            turn: whose_turn,
            stop: stopped,
            token,
            room: Room::default(),
        }),
        addresses,
        breath,
    };
    say(&format!(
        "observing {} on {node} by {hook}; asked at http://{}, measured at http://{}/metrics",
        interfaces.join(", "),
        addresses.api,
        addresses.metrics
    ));
    let serving = serving.spawn(server.run(listeners));
    let ended = session.follow(ring, Begin::Now, None).await;
    stop.send_replace(true);
    serving.await.context("what serves has died")??;
    ended.map(drop)
}

/// Where the agent is asked.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// Everything.
    pub api: SocketAddr,
    /// Metrics and probes only.
    pub metrics: SocketAddr,
}

/// The same, listened at.
struct Listeners {
    api: TcpListener,
    metrics: TcpListener,
}

impl Addresses {
    fn listen(self) -> anyhow::Result<Listeners> {
        let listen = |address| {
            let listener = TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        let listen = |address| {
            listen(address)
                .map_err(|error: io::Error| anyhow!("cannot listen at {address}: {error}"))
        };
        Ok(Listeners {
            api: listen(self.api)?,
            metrics: listen(self.metrics)?,
        })
    }
}

/// The thread that serves.
struct Server {
    api: Arc<Api>,
    addresses: Addresses,
    breath: Option<Breath>,
}

impl Server {
    async fn run(self, listeners: Option<Listeners>) -> anyhow::Result<()> {
        let Self {
            api,
            addresses,
            breath,
        } = self;
        let mut stop = api.stop.clone();
        let work = async {
            let listeners = match listeners {
                Some(listeners) => listeners,
                None => match wait_for(&api, addresses).await {
                    Some(listeners) => listeners,
                    None => return Ok(()),
                },
            };
            let [api_listener, metrics_listener] =
                [listeners.api, listeners.metrics].map(tokio::net::TcpListener::from_std);
            let serve = |listener, router| {
                serve(
                    listener,
                    router,
                    Arc::clone(&api.refusals),
                    api.stop.clone(),
                )
            };
            tokio::join!(
                serve(api_listener?, api::everything(&api)),
                serve(metrics_listener?, api::probes(&api)),
            );
            anyhow::Ok(())
        };
        let telling = async {
            if let Some(cluster) = api.cluster.clone() {
                tell(cluster, &api.node).await;
            }
            std::future::pending::<()>().await;
        };
        let breathing = async {
            match &breath {
                Some(breath) => breathe(breath, &api).await,
                None => std::future::pending().await,
            }
        };
        let mut work = std::pin::pin!(work);
        tokio::select! {
            result = &mut work => return result,
            () = telling => {}
            () = breathing => {}
            () = ended(&mut stop) => {}
        }
        // What is under way ends in its own time, if it was served at all.
        match tokio::time::timeout(DRAIN, work).await {
            Ok(result) => result,
            Err(_) => Ok(()),
        }
    }
}

/// The addresses, once the agent before has let them go; `None` if all is to end first.
async fn wait_for(api: &Api, addresses: Addresses) -> Option<Listeners> {
    let mut said = false;
    let mut turn_came = None;
    while !*api.stop.borrow() {
        match addresses.listen() {
            Ok(listeners) => return Some(listeners),
            // The other one sees through what it has begun.
            Err(error)
                if *api.turn.borrow() != Turn::NotYet
                    && !said
                    && turn_came.get_or_insert_with(Instant::now).elapsed() > LISTEN_PATIENCE =>
            {
                said = true;
                say(&format!("warning: {error}: trying again"));
            }
            Err(_) => {}
        }
        sleep(LISTEN_AGAIN).await;
    }
    None
}

/// Says what is wrong with the cluster's API, and that it no longer is.
async fn tell(mut cluster: watch::Receiver<Cluster>, node: &str) {
    let mut said = None;
    let mut is_node_known = true;
    loop {
        let Cluster {
            snapshot, trouble, ..
        } = cluster.borrow_and_update().clone();
        if trouble != said {
            match &trouble {
                Some(trouble) => say(&format!("warning: {trouble}")),
                None => say("the cluster's objects are followed again"),
            }
            said = trouble;
        }
        if let Some(snapshot) = snapshot {
            let is_known =
                snapshot.index.nodes().next().is_none() || snapshot.index.node(node).is_some();
            if is_node_known && !is_known {
                say(&format!(
                    "warning: there is no Node {node}: what is local cannot be told; give --node"
                ));
            }
            is_node_known = is_known;
        }
        if cluster.changed().await.is_err() {
            return;
        }
    }
}

/// Keeps that there is an agent, while it counts.
async fn breathe(breath: &Breath, api: &Api) {
    let mut tick = interval(BREATH);
    loop {
        tick.tick().await;
        if *api.turn.borrow() == Turn::NotYet {
            continue;
        }
        let kept = live::now().and_then(|now| Ok(breath.keep(now)?));
        if let Err(error) = kept {
            say(&format!(
                "warning: the state directory: {error:#}: a restart's gap will not be known"
            ));
            return std::future::pending().await;
        }
    }
}
