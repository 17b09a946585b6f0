//! What takes minutes: a server that falls silent, by a clock that runs ahead. Everything else is
//! tried by the suite `kubernetes`, with connections.

mod proxies;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::{Client, Cluster, KubeProxySource, Scope, Wanted, follow};
use crate::cluster::KubeProxy;

/// What the server does, and how often it was asked.
#[derive(Default)]
struct Server {
    is_gone: AtomicBool,
    watches: AtomicU32,
}

/// Lists are empty; watches begin, and then nothing comes.
async fn answer(server: Arc<Server>, uri: Uri) -> Response {
    if server.is_gone.load(Ordering::Relaxed) {
        std::future::pending::<()>().await;
    }
    let query = uri.query().unwrap_or_default();
    if query.contains("sendInitialEvents") {
        return StatusCode::UNPROCESSABLE_ENTITY.into_response();
    }
    if query.contains("watch=true") {
        server.watches.fetch_add(1, Ordering::Relaxed);
        let silence = futures_util::stream::pending::<Result<Vec<u8>, std::io::Error>>();
        return Body::from_stream(silence).into_response();
    }
    r#"{"metadata": {"resourceVersion": "7"}, "items": null}"#.into_response()
}

fn followed() -> (Arc<Server>, watch::Receiver<Cluster>) {
    let server = Arc::new(Server::default());
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
        ..Wanted::default()
    };
    let cluster = follow(&client, &Scope::Cluster, wanted);
    (server, cluster)
}

async fn until(
    cluster: &mut watch::Receiver<Cluster>,
    within: Duration,
    is_so: impl FnMut(&Cluster) -> bool,
) -> Cluster {
    let found = timeout(within, cluster.wait_for(is_so)).await;
    found.expect("in time").expect("it is followed").clone()
}

#[tokio::test(start_paused = true)]
async fn a_silent_watch_is_opened_anew_and_does_no_harm() {
    let (server, mut cluster) = followed();
    let soon = Duration::from_secs(5);
    until(&mut cluster, soon, |it| it.snapshot.is_some()).await;
    sleep(soon).await;
    let kinds = server.watches.load(Ordering::Relaxed);
    assert_eq!(kinds, 4);
    sleep(Duration::from_secs(100)).await;
    assert_eq!(server.watches.load(Ordering::Relaxed), 2 * kinds);
    let Cluster {
        away_since,
        trouble,
        rebuilds,
        ..
    } = cluster.borrow().clone();
    assert_eq!((away_since, trouble, rebuilds), (None, None, 1));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_falls_silent_is_away_within_two_minutes() {
    let (server, mut cluster) = followed();
    let soon = Duration::from_secs(5);
    until(&mut cluster, soon, |it| it.snapshot.is_some()).await;
    server.is_gone.store(true, Ordering::Relaxed);
    let began = Instant::now();
    let two_minutes = Duration::from_secs(121);
    let away = until(&mut cluster, two_minutes, |it| it.away_since.is_some()).await;
    assert!(began.elapsed() > Duration::from_secs(90));
    let trouble = away.trouble.expect("why");
    assert!(trouble.contains("https://in.memory") && trouble.contains("30 s"));
    assert!(away.snapshot.is_some());

    server.is_gone.store(false, Ordering::Relaxed);
    // The longest pause, and an answer that was waited for in vain.
    let minute = Duration::from_secs(61);
    let back = until(&mut cluster, minute, |it| it.away_since.is_none()).await;
    assert_eq!(back.trouble, None);
    assert_eq!(back.rebuilds, 1, "nothing has changed");
}

#[tokio::test(start_paused = true)]
async fn nobody_is_asked_once_nobody_listens() {
    let (server, mut cluster) = followed();
    until(&mut cluster, Duration::from_secs(5), |it| {
        it.snapshot.is_some()
    })
    .await;
    drop(cluster);
    sleep(Duration::from_secs(1)).await;
    let watches = server.watches.load(Ordering::Relaxed);
    sleep(Duration::from_secs(1_000)).await;
    assert_eq!(server.watches.load(Ordering::Relaxed), watches);
}
