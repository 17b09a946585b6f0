//! What is read of proxies: once, again, and when it may not be.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use rstest::rstest;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::super::proxies::Proxies;
use super::super::{Client, Cluster, KubeProxySource, Scope, Wanted, follow};
use super::until;
use crate::cluster::{Index, KubeProxy, Objects};

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
    /// What is answered for somebody's Pod behind a Service that comes first; it has none of it.
    stranger: Option<StatusCode>,
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
        if resource == "strangers" {
            let status = state.stranger.map(IntoResponse::into_response);
            return Some(status.unwrap_or_else(|| listed(&[])));
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

fn service(namespace: &str, address: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": namespace, "name": "nginx"},
        "spec": {
            "type": "LoadBalancer", "clusterIP": address,
            "ports": [{"name": "http", "port": 80, "nodePort": 30_080}],
        },
    })
}

/// Pods behind such a Service, and whether they are ready.
fn slice(namespace: &str, pods: &[(&str, bool)]) -> Value {
    let endpoint = |(number, (pod, is_ready)): (usize, &(&str, bool))| {
        json!({
            "addresses": [format!("10.244.1.{number}")], "nodeName": "node1",
            "conditions": {"ready": is_ready},
            "targetRef": {"kind": "Pod", "namespace": namespace, "name": pod},
        })
    };
    let endpoints: Vec<_> = pods.iter().enumerate().map(endpoint).collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {
            "namespace": namespace, "name": "nginx",
            "labels": {"kubernetes.io/service-name": "nginx"},
        },
        "ports": [{"name": "http", "port": 80}],
        "endpoints": endpoints,
    })
}

fn services() -> [Value; 2] {
    [
        service("attic", "10.96.0.2"),
        service("ingress", "10.96.0.1"),
    ]
}

fn slices() -> [Value; 2] {
    [
        slice("attic", &[("stranger-0", true)]),
        slice("ingress", &[("nginx-0", true)]),
    ]
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
        ("/api/v1/namespaces/ingress/pods", query) if query.contains("name%3Dnginx-") => "pods",
        ("/api/v1/namespaces/attic/pods", _) => "strangers",
        ("/api/v1/namespaces/ingress/configmaps", query) if query.contains("name%3Dsettings") => {
            "configmaps"
        }
        ("/api/v1/services", _) => return listed(&services()),
        ("/apis/discovery.k8s.io/v1/endpointslices", _) => return listed(&slices()),
        _ => return listed(&[]),
    };
    match server.named(named) {
        Some(response) => response,
        None => std::future::pending().await,
    }
}

/// A server that is changed so, and a client of it.
fn served(change: impl FnOnce(&mut State)) -> (Arc<Server>, Client) {
    let server = Arc::new(Server::default());
    server.set(|state| state.expects = "true".to_owned());
    server.set(change);
    let its = Arc::clone(&server);
    let router = Router::new().fallback(move |uri: Uri| answer(Arc::clone(&its), uri));
    let client = Client {
        kube: kube::Client::new(router, "default"),
        server: "https://in.memory".into(),
    };
    (server, client)
}

fn followed(
    readers: bool,
    change: impl FnOnce(&mut State),
) -> (Arc<Server>, watch::Receiver<Cluster>) {
    let (server, client) = served(change);
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
    // A Pod of the same name may be another.
    assert_eq!((server.asked("pods"), server.asked("configmaps")), (2, 2));
    // What is not another builds nothing.
    sleep(10 * AGAIN).await;
    assert_eq!(cluster.borrow().rebuilds, 2);
    assert!((12..=16).contains(&server.asked("configmaps")));
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

#[rstest]
#[case::it_makes_no_sense(StatusCode::BAD_REQUEST, true)]
#[case::it_may_not_be_read(StatusCode::FORBIDDEN, true)]
#[case::its_namespace_is_gone(StatusCode::NOT_FOUND, true)]
#[case::it_is_too_long(StatusCode::URI_TOO_LONG, true)]
#[case::the_server_fails_at_it(StatusCode::INTERNAL_SERVER_ERROR, false)]
#[tokio::test(start_paused = true)]
async fn a_pod_that_cannot_be_read_keeps_no_other_from_it(
    #[case] status: StatusCode,
    #[case] is_its_own: bool,
) {
    let (server, mut cluster) = followed(true, |state| state.stranger = Some(status));
    let first = until(&mut cluster, SOON, |it| it.snapshot.is_some()).await;
    assert_eq!(demands(&first), is_its_own.then_some(true));
    let trouble = first.trouble.unwrap_or_default();
    assert_eq!(trouble.contains("Pod attic/stranger-0"), is_its_own);
    assert_eq!(trouble.contains(status.as_str()), is_its_own, "{trouble}");
    until(&mut cluster, AGAIN, |it| demands(it) == Some(true)).await;
    server.set(|state| state.expects = "false".to_owned());
    until(&mut cluster, 2 * AGAIN, |it| demands(it) == Some(false)).await;
    // Not oftener than without it; more seldom if the server fails, which has other things to do then.
    let before = server.asked("pods");
    sleep(10 * AGAIN).await;
    let read = server.asked("pods") - before;
    assert!((6..=15).contains(&read), "{read}");
    assert!(!is_its_own || server.asked("strangers") <= 20);
}

/// The cluster with these Pods behind ingress-nginx's Service.
fn index(pods: &[(&str, bool)]) -> Index {
    let items = [service("ingress", "10.96.0.1"), slice("ingress", pods)];
    let list = json!({"apiVersion": "v1", "kind": "List", "metadata": {}, "items": items});
    let objects = Objects::from_list(list.to_string().as_bytes());
    Index::build(&objects.expect("objects"))
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_comes_and_goes_is_not_read_each_time() {
    let (server, client) = served(|_| {});
    let mut proxies = Proxies::new(&client);
    let both = index(&[("nginx-0", true), ("nginx-1", true)]);
    assert!(proxies.read(&both).await);
    assert_eq!(server.asked("pods"), 1);
    let not_ready = index(&[("nginx-0", false), ("nginx-1", true)]);
    for index in [&not_ready, &both, &not_ready] {
        assert!(!proxies.read(index).await);
        assert_eq!((server.asked("pods"), proxies.readers().len()), (1, 1));
    }
    // Gone, and another stands for the Service: soon, but not for all nodes at once.
    let other = index(&[("nginx-1", true)]);
    let gone = Instant::now();
    proxies.read(&other).await;
    assert!(proxies.due() - gone <= Duration::from_secs(10));
    sleep_until(proxies.due()).await;
    proxies.read(&other).await;
    assert_eq!((server.asked("pods"), proxies.readers().len()), (2, 1));
    // Back, and remembered.
    let back = index(&[("nginx-0", true)]);
    for index in [&back, &other, &both] {
        proxies.read(index).await;
        assert_eq!((server.asked("pods"), proxies.readers().len()), (2, 1));
    }
    // Until it would be read again.
    sleep(AGAIN).await;
    proxies.read(&other).await;
    assert_eq!(server.asked("pods"), 3);
    proxies.read(&back).await;
    sleep_until(proxies.due()).await;
    proxies.read(&back).await;
    assert_eq!(server.asked("pods"), 4);
}
