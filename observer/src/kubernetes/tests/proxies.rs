//! What is read of proxies: once, again, and when it may not be.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::sleep;

use super::super::{Client, Cluster, KubeProxySource, Scope, Wanted, follow};
use super::until;
use crate::cluster::KubeProxy;

const SOON: Duration = Duration::from_secs(5);
const AGAIN: Duration = Duration::from_secs(125);

/// A server with ingress-nginx behind a load balancer, and what becomes of requests by name.
#[derive(Default)]
struct Server {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The value of `use-proxy-protocol`.
    expects: String,
    /// Resources that may not be read by name.
    forbidden: Vec<&'static str>,
    /// Whether requests by name are never answered.
    is_stuck: bool,
    /// How often each resource was asked for by name.
    asked: BTreeMap<&'static str, u32>,
}

impl Server {
    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().expect("not poisoned"));
    }

    fn asked(&self, resource: &str) -> u32 {
        let state = self.state.lock().expect("not poisoned");
        state.asked.get(resource).copied().unwrap_or_default()
    }

    /// An object that is asked for by its name.
    fn named(&self, resource: &'static str) -> Option<Response> {
        let mut state = self.state.lock().expect("not poisoned");
        *state.asked.entry(resource).or_default() += 1;
        if state.is_stuck {
            return None;
        }
        if state.forbidden.contains(&resource) {
            return Some(StatusCode::FORBIDDEN.into_response());
        }
        let object = if resource == "pods" {
            json!({
                "metadata": {"namespace": "ingress", "name": "nginx-0"},
                "spec": {"containers": [{
                    "name": "controller",
                    "image": "registry.k8s.io/ingress-nginx/controller:v1.15.1",
                    "args": ["--configmap=$(POD_NAMESPACE)/settings"],
                }]},
            })
        } else {
            json!({
                "metadata": {"namespace": "ingress", "name": "settings"},
                "data": {"use-proxy-protocol": state.expects},
            })
        };
        Some(listed(&[object]))
    }
}

fn listed(items: &[Value]) -> Response {
    let list = json!({"metadata": {"resourceVersion": "7"}, "items": items});
    list.to_string().into_response()
}

fn service() -> Value {
    json!({
        "metadata": {"namespace": "ingress", "name": "nginx"},
        "spec": {
            "type": "LoadBalancer", "clusterIP": "10.96.0.1",
            "ports": [{"name": "http", "port": 80, "nodePort": 30_080}],
        },
    })
}

fn slice() -> Value {
    json!({
        "addressType": "IPv4",
        "metadata": {
            "namespace": "ingress", "name": "nginx",
            "labels": {"kubernetes.io/service-name": "nginx"},
        },
        "ports": [{"name": "http", "port": 80}],
        "endpoints": [{
            "addresses": ["10.244.1.9"], "nodeName": "node1",
            "targetRef": {"kind": "Pod", "namespace": "ingress", "name": "nginx-0"},
        }],
    })
}

async fn answer(server: Arc<Server>, uri: Uri) -> Response {
    let query = uri.query().unwrap_or_default();
    if query.contains("sendInitialEvents") {
        return StatusCode::UNPROCESSABLE_ENTITY.into_response();
    }
    if query.contains("watch=true") {
        let silence = futures_util::stream::pending::<Result<Vec<u8>, std::io::Error>>();
        return Body::from_stream(silence).into_response();
    }
    let named = match (uri.path(), query) {
        ("/api/v1/namespaces/ingress/pods", query) if query.contains("name%3Dnginx-0") => "pods",
        ("/api/v1/namespaces/ingress/configmaps", query) if query.contains("name%3Dsettings") => {
            "configmaps"
        }
        ("/api/v1/services", _) => return listed(&[service()]),
        ("/apis/discovery.k8s.io/v1/endpointslices", _) => return listed(&[slice()]),
        _ => return listed(&[]),
    };
    match server.named(named) {
        Some(response) => response,
        None => std::future::pending().await,
    }
}

fn followed(
    readers: bool,
    change: impl FnOnce(&mut State),
) -> (Arc<Server>, watch::Receiver<Cluster>) {
    let server = Arc::new(Server::default());
    server.set(|state| state.expects = "true".to_owned());
    server.set(change);
    let its = Arc::clone(&server);
    let router = Router::new().fallback(move |uri: Uri| answer(Arc::clone(&its), uri));
    let client = Client {
        kube: kube::Client::new(router, "default"),
        server: "https://in.memory".into(),
    };
    let wanted = Wanted {
        kube_proxy: KubeProxySource {
            given: Some(KubeProxy::default()),
            ..KubeProxySource::default()
        },
        objects: false,
        readers,
    };
    (server, follow(&client, &Scope::Cluster, wanted))
}

/// Of the only proxy: whether it demands a header. `None`: it is not known.
fn demands(cluster: &Cluster) -> Option<bool> {
    let snapshot = cluster.snapshot.as_ref()?;
    let reader = snapshot.readers.first()?;
    assert_eq!((&*reader.namespace, &*reader.name), ("ingress", "nginx"));
    assert_eq!(reader.who, "ingress-nginx");
    assert_eq!(reader.reads, reader.demands);
    Some(reader.demands)
}

#[tokio::test(start_paused = true)]
async fn settings_are_there_from_the_beginning_and_read_again() {
    let (server, mut cluster) = followed(true, |_| {});
    let first = until(&mut cluster, SOON, |it| it.snapshot.is_some()).await;
    assert_eq!(demands(&first), Some(true));
    assert_eq!(first.trouble, None);
    sleep(SOON).await;
    server.set(|state| state.expects = "false".to_owned());
    let changed = until(&mut cluster, AGAIN, |it| demands(it) == Some(false)).await;
    assert_eq!(changed.rebuilds, 2);
    // The Pod cannot be another.
    assert_eq!((server.asked("pods"), server.asked("configmaps")), (1, 2));
    // What is not another builds nothing.
    sleep(10 * AGAIN).await;
    assert_eq!(cluster.borrow().rebuilds, 2);
    assert!(server.asked("configmaps") <= 13);
}

#[tokio::test(start_paused = true)]
async fn what_nobody_wants_is_not_asked_for() {
    let (server, mut cluster) = followed(false, |_| {});
    let first = until(&mut cluster, SOON, |it| it.snapshot.is_some()).await;
    assert_eq!(demands(&first), None);
    sleep(2 * AGAIN).await;
    assert_eq!((server.asked("pods"), server.asked("configmaps")), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn what_may_not_be_read_is_told_and_read_once_it_may() {
    for (resource, what) in [
        ("configmaps", "ConfigMap ingress/settings"),
        ("pods", "Pod ingress/nginx-0"),
    ] {
        let (server, mut cluster) = followed(true, |state| state.forbidden.push(resource));
        let first = until(&mut cluster, SOON, |it| it.snapshot.is_some()).await;
        assert_eq!(demands(&first), None);
        let trouble = first.trouble.expect("it is told");
        for part in ["403", resource, "findings about PROXY headers need", what] {
            assert!(trouble.contains(part), "{part}: {trouble}");
        }
        assert_eq!(first.away_since, None);
        sleep(AGAIN).await;
        assert!(server.asked(resource) <= 2);
        server.set(|state| state.forbidden.clear());
        let later = until(&mut cluster, AGAIN, |it| demands(it).is_some()).await;
        assert_eq!(demands(&later), Some(true));
        until(&mut cluster, SOON, |it| it.trouble.is_none()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_cluster_does_not_wait_for_what_is_not_answered() {
    let (server, mut cluster) = followed(true, |state| state.is_stuck = true);
    let first = until(&mut cluster, SOON, |it| it.snapshot.is_some()).await;
    assert_eq!((demands(&first), first.trouble), (None, None));
    server.set(|state| state.is_stuck = false);
    until(&mut cluster, AGAIN, |it| demands(it) == Some(true)).await;
    // What is known stays known.
    server.set(|state| state.is_stuck = true);
    sleep(2 * AGAIN).await;
    assert_eq!(demands(&cluster.borrow()), Some(true));
}
