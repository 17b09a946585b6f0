//! The cluster as it changes.

use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use k8s_openapi::api::core::v1::ConfigMap;
use tokio::sync::{Notify, watch};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep, sleep_until};

use super::client::Client;
use super::error::AccessError;
use super::proxies::Proxies;
use super::reflect::{Told, reflect};
use super::resource::{Kind, Selection};
use super::store::{Health, Kept, Store};
use super::{KUBE_PROXY_NAMES, Scope, config_map};
use crate::cluster::{KubeProxy, Snapshot};

/// From one index to the next: a rollout changes objects many times a second.
const BETWEEN_BUILDS: Duration = Duration::from_secs(1);

/// The cluster as it is known now.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    /// `None` until every kind was listed, or may not be.
    pub snapshot: Option<Arc<Snapshot>>,
    /// Since when the API server was not heard from, so that the objects may have changed
    /// without notice; `None` while all watches are live, and at the start.
    ///
    /// A watch that ends is opened anew at once; only when that fails is the server away, since
    /// the last it said. A watch that is silent for 90 s is opened anew too: an API server sends
    /// bookmarks every minute, and one that sends none loses nothing.
    pub away_since: Option<std::time::Instant>,
    /// What is wrong, on one line: why the server is away, what may not be read, what could not
    /// be understood.
    pub trouble: Option<String>,
    /// How many indexes were built.
    pub rebuilds: u64,
}

/// What reflectors and the publisher share.
struct Shared {
    store: Mutex<Store>,
    told: Notify,
}

/// Where in the store a reflector keeps its objects.
type Place<K> = fn(&mut Store) -> Option<&mut Kept<K>>;

/// Builds indexes and tells of them.
struct Publisher {
    shared: Arc<Shared>,
    to: watch::Sender<Cluster>,
    pods_of: Option<Arc<str>>,
    kube_proxy: KubeProxySource,
    keep_objects: bool,
    proxies: Option<Proxies>,
    /// What is wrong with the one that the cluster has.
    wrong_kube_proxy: Option<String>,
}

/// Where kube-proxy's configuration is from, in this order; between them comes the cluster's
/// `ConfigMap`.
#[derive(Clone, Debug, Default)]
pub struct KubeProxySource {
    /// What was given.
    pub given: Option<KubeProxy>,
    /// Asks for what it serves itself; it may begin to later than the observer.
    pub served: Option<fn() -> Option<KubeProxy>>,
}

/// What is wanted of a cluster beside its objects.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Where kube-proxy's configuration is from.
    pub kube_proxy: KubeProxySource,
    /// Whether snapshots have the objects too, for a recording.
    pub objects: bool,
    /// Whether they have what proxies make of PROXY headers, which takes a few more requests.
    pub readers: bool,
}

/// So long the API server may be away before it is reached anew: with credentials that are read
/// again, and plugins that are run again.
const CONNECT_ANEW: Duration = Duration::from_mins(1);
/// From one try to reach it to the next.
const BETWEEN_TRIES: Duration = Duration::from_secs(5);

/// The same as [`follow`], by a way that may not be open yet, or no longer: `connect` finds it, and
/// is asked again while it fails and when the server is away for a minute.
pub fn follow_by<C>(connect: C, scope: Scope, wanted: Wanted) -> watch::Receiver<Cluster>
where
    C: Fn() -> BoxFuture<'static, Result<Client, AccessError>> + Send + 'static,
{
    let (to, receiver) = watch::channel(Cluster::default());
    tokio::spawn(async move {
        let began = std::time::Instant::now();
        while !to.is_closed() {
            match connect().await {
                Ok(client) => {
                    let from = follow(&client, &scope, wanted.clone());
                    hand_on(from, &to).await;
                }
                Err(error) => {
                    to.send_modify(|cluster| {
                        cluster.away_since.get_or_insert(began);
                        cluster.trouble = Some(error.to_string());
                    });
                    sleep(BETWEEN_TRIES).await;
                }
            }
        }
    });
    receiver
}

/// Tells what one way tells, until nobody listens or it is to be found anew. What was known stays
/// known until more is.
async fn hand_on(mut from: watch::Receiver<Cluster>, to: &watch::Sender<Cluster>) {
    let is_lost = |cluster: &Cluster| {
        let away = cluster.away_since.map(|since| since.elapsed());
        away.is_some_and(|away| away > CONNECT_ANEW)
    };
    loop {
        tokio::select! {
            changed = from.changed() => if changed.is_err() { return },
            () = sleep(CONNECT_ANEW) => if is_lost(&from.borrow()) { return },
            () = to.closed() => return,
        }
        let Cluster {
            snapshot,
            away_since,
            trouble,
            rebuilds: _,
        } = from.borrow_and_update().clone();
        to.send_modify(|cluster| {
            let is_new = match (&cluster.snapshot, &snapshot) {
                (Some(known), Some(new)) => !Arc::ptr_eq(known, new),
                (None, Some(_)) => true,
                (_, None) => false,
            };
            // A new way that has not told of anything yet neither ends the absence nor knows when
            // it began.
            if snapshot.is_some() {
                cluster.away_since = away_since;
            } else if let Some(since) = away_since {
                let before = cluster.away_since.unwrap_or(since);
                cluster.away_since = Some(since.min(before));
            }
            if is_new {
                cluster.snapshot = snapshot;
                cluster.rebuilds += 1;
            }
            cluster.trouble = trouble;
        });
    }
}

/// Follows the objects of a cluster until nobody receives any more.
///
/// A change after a quiet time is told at once, others together, at most one index a second. It
/// is built beside the runtime's own work.
///
/// Must be called in a tokio runtime.
pub fn follow(client: &Client, scope: &Scope, wanted: Wanted) -> watch::Receiver<Cluster> {
    let Wanted {
        kube_proxy,
        objects: keep_objects,
        readers,
    } = wanted;
    let (to, receiver) = watch::channel(Cluster::default());
    let shared = Arc::new(Shared {
        store: Mutex::new(Store::new(kube_proxy.given.is_none())),
        told: Notify::new(),
    });
    let mut reflectors = JoinSet::new();
    let all = Selection::default;
    shared.reflect(&mut reflectors, client, all(), |store| {
        Some(&mut store.services)
    });
    shared.reflect(&mut reflectors, client, all(), |store| {
        Some(&mut store.endpoint_slices)
    });
    shared.reflect(&mut reflectors, client, all(), |store| {
        Some(&mut store.nodes)
    });
    shared.reflect(&mut reflectors, client, scope.pods(), |store| {
        Some(&mut store.pods)
    });
    if kube_proxy.given.is_none() {
        let places: [Place<ConfigMap>; KUBE_PROXY_NAMES.len()] = [
            |store| store.config_maps.as_mut().map(|[first, _]| first),
            |store| store.config_maps.as_mut().map(|[_, second]| second),
        ];
        for (name, place) in KUBE_PROXY_NAMES.into_iter().zip(places) {
            shared.reflect(&mut reflectors, client, config_map(name), place);
        }
    }
    let publisher = Publisher {
        shared,
        to,
        pods_of: scope.pods_of().map(Arc::from),
        kube_proxy,
        keep_objects,
        proxies: readers.then(|| Proxies::new(client)),
        wrong_kube_proxy: None,
    };
    tokio::spawn(async move {
        publisher.run().await;
        // Ends them.
        drop(reflectors);
    });
    receiver
}

impl Shared {
    /// A panic elsewhere cannot have left it half changed.
    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reflect<K: Kind>(
        self: &Arc<Self>,
        reflectors: &mut JoinSet<()>,
        client: &Client,
        selection: Selection,
        place: Place<K>,
    ) {
        let shared = Arc::clone(self);
        let client = client.clone();
        reflectors.spawn(async move {
            reflect(&client, &selection, |told| shared.note(place, told)).await;
        });
    }

    fn note<K: Kind>(&self, place: Place<K>, told: Told<K>) {
        let is_worth_telling = !matches!(told, Told::Heard);
        let mut store = self.store();
        let is_new = place(&mut store).is_some_and(|kept| kept.note(told));
        store.has_changed |= is_new;
        drop(store);
        if is_worth_telling {
            self.told.notify_one();
        }
    }
}

impl Publisher {
    async fn run(mut self) {
        let mut next_build = Instant::now();
        let mut is_pending = true;
        loop {
            tokio::select! {
                () = self.to.closed() => return,
                () = self.shared.told.notified() => {}
                () = sleep_until(next_build), if is_pending && next_build > Instant::now() => {}
                () = self.settings_due() => {}
            }
            is_pending |= self.read_settings().await;
            let health = {
                let mut store = self.shared.store();
                is_pending |= std::mem::take(&mut store.has_changed);
                store.health()
            };
            let now = Instant::now();
            let snapshot = if is_pending && health.is_settled && now >= next_build {
                next_build = now + BETWEEN_BUILDS;
                is_pending = false;
                Some(self.build().await)
            } else {
                None
            };
            self.publish(health, snapshot);
        }
    }

    /// Until what proxies make of PROXY headers is to be read again; for ever while nothing is known
    /// of the cluster, or if nobody wants to know that.
    async fn settings_due(&self) {
        let is_known = self.to.borrow().snapshot.is_some();
        match self.proxies.as_ref().filter(|_| is_known) {
            Some(proxies) => sleep_until(proxies.due()).await,
            None => pending().await,
        }
    }

    /// Reads that again if it is time; whether it is something else now.
    async fn read_settings(&mut self) -> bool {
        let snapshot = self.to.borrow().snapshot.clone();
        match (&mut self.proxies, snapshot) {
            (Some(proxies), Some(snapshot)) if proxies.due() <= Instant::now() => {
                proxies.read(&snapshot.index).await
            }
            _ => false,
        }
    }

    async fn build(&mut self) -> Arc<Snapshot> {
        let moment = self.shared.store().moment();
        let before = self.to.borrow().snapshot.clone();
        let KubeProxySource { given, served } = self.kube_proxy.clone();
        let pods_of = self.pods_of.clone();
        let keep_objects = self.keep_objects;
        let built = spawn_blocking(move || {
            let ask = || served.and_then(|ask| ask());
            let (kube_proxy, wrong) = match given {
                Some(given) => (Some(given), None),
                None => match moment.kube_proxy() {
                    Ok(configured) => (configured.or_else(ask), None),
                    Err(error) => (ask(), Some(error.to_string())),
                },
            };
            let before = before.as_deref();
            let snapshot = moment.snapshot(before, pods_of.as_deref(), kube_proxy, keep_objects);
            (snapshot, wrong)
        });
        let (mut snapshot, wrong) = built
            .await
            .unwrap_or_else(|panicked| std::panic::resume_unwind(panicked.into_panic()));
        self.wrong_kube_proxy = wrong.map(|error| {
            format!("the ConfigMap of kube-proxy: {error}: it is not taken into account")
        });
        if let Some(proxies) = &mut self.proxies {
            proxies.read(&snapshot.index).await;
            snapshot.readers = proxies.readers().to_vec();
        }
        Arc::new(snapshot)
    }

    fn publish(&self, health: Health, snapshot: Option<Arc<Snapshot>>) {
        let Health {
            is_settled: _,
            away_since,
            trouble,
        } = health;
        let of_proxies = self.proxies.as_ref().and_then(Proxies::trouble);
        let troubles = [trouble, self.wrong_kube_proxy.clone(), of_proxies];
        let troubles: Vec<_> = troubles.into_iter().flatten().collect();
        let trouble = (!troubles.is_empty()).then(|| troubles.join("; "));
        self.to.send_if_modified(|cluster| {
            let is_new = snapshot.is_some()
                || cluster.away_since != away_since
                || cluster.trouble != trouble;
            if snapshot.is_some() {
                cluster.snapshot = snapshot;
                cluster.rebuilds += 1;
            }
            cluster.away_since = away_since;
            cluster.trouble = trouble;
            is_new
        });
    }
}
