//! What the agent answers over HTTP.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{RawQuery, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Extension, Json, Router};
use futures_util::stream;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use subtle::ConstantTimeEq as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::hub::{Hub, Turn};
use super::lines::Lines;
use super::metrics::SharedMetrics;
use super::query::Query;
use super::serve::{Life, Refusals};
use crate::kernel::links::Links;
use crate::kubernetes::Cluster;
use crate::live;

/// Readers that follow at a time.
const FOLLOWERS_MAX: usize = 64;
/// Long answers that are under way at a time: each is held until it is read.
const LONG_MAX: usize = 8;
const NDJSON: &str = "application/x-ndjson";
/// The text format of Prometheus.
const METRICS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
const VERSION_HEADER: &str = "observer-version";
/// The schema of `/v1/node`.
const NODE_SCHEMA: &str = "observer.node/v1";

/// What answers are made from.
#[derive(Debug)]
pub(super) struct Api {
    pub(super) node: String,
    pub(super) hook: String,
    pub(super) observing_since: Timestamp,
    pub(super) hub: Arc<Hub>,
    pub(super) metrics: SharedMetrics,
    pub(super) refusals: Arc<Refusals>,
    /// Where objects are followed.
    pub(super) cluster: Option<watch::Receiver<Cluster>>,
    pub(super) turn: watch::Receiver<Turn>,
    pub(super) stop: watch::Receiver<bool>,
    /// What `/v1` asks for.
    pub(super) token: Option<String>,
    pub(super) room: Room,
}

/// For how many readers there is room.
#[derive(Debug)]
pub(super) struct Room {
    followers: Arc<Semaphore>,
    recent: Arc<Semaphore>,
    metrics: Arc<Semaphore>,
}

impl Default for Room {
    fn default() -> Self {
        let of = |number| Arc::new(Semaphore::new(number));
        Self {
            followers: of(FOLLOWERS_MAX),
            recent: of(LONG_MAX),
            metrics: of(LONG_MAX),
        }
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum ApiError {
    #[error("{0}")]
    Query(String),
    #[error("give the agent's token: Authorization: Bearer TOKEN")]
    Token,
    #[error(
        "there is no such path; there are /healthz, /readyz, /metrics, /v1/connections and /v1/node"
    )]
    Path,
    #[error("only GET is answered")]
    Method,
    #[error("{FOLLOWERS_MAX} readers follow already")]
    Followers,
    #[error("{LONG_MAX} readers ask for the same already")]
    Busy,
    #[error("the node's interfaces cannot be read: {0}")]
    Links(String),
}

/// What may be asked at either address.
pub(super) fn probes(api: &Arc<Api>) -> Router {
    finished(probe_routes(), api)
}

/// Everything.
pub(super) fn everything(api: &Arc<Api>) -> Router {
    let asked = Router::new()
        .route("/v1/connections", get(connections))
        .route("/v1/node", get(node))
        .route_layer(middleware::from_fn_with_state(Arc::clone(api), authorized));
    finished(probe_routes().merge(asked), api)
}

fn probe_routes() -> Router<Arc<Api>> {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
}

fn finished(routes: Router<Arc<Api>>, api: &Arc<Api>) -> Router {
    routes
        .fallback(async |State(api): State<Arc<Api>>| refused(&api, &ApiError::Path))
        .method_not_allowed_fallback(async |State(api): State<Arc<Api>>| {
            refused(&api, &ApiError::Method)
        })
        .layer(middleware::map_request(
            async |Extension(life): Extension<Life>, request: Request| {
                life.asks();
                request
            },
        ))
        .layer(middleware::map_response(async |mut response: Response| {
            let version = HeaderValue::from_static(env!("CARGO_PKG_VERSION"));
            response.headers_mut().insert(VERSION_HEADER, version);
            response
        }))
        .with_state(Arc::clone(api))
}

fn refused(api: &Api, error: &ApiError) -> Response {
    let (status, reason) = match error {
        ApiError::Query(_) => (StatusCode::BAD_REQUEST, "bad_query"),
        ApiError::Token => (StatusCode::UNAUTHORIZED, "unauthorized"),
        ApiError::Path => (StatusCode::NOT_FOUND, "not_found"),
        ApiError::Method => (StatusCode::METHOD_NOT_ALLOWED, "method"),
        ApiError::Followers => (StatusCode::SERVICE_UNAVAILABLE, "too_many_followers"),
        ApiError::Busy => (StatusCode::SERVICE_UNAVAILABLE, "busy"),
        ApiError::Links(_) => (StatusCode::INTERNAL_SERVER_ERROR, "links"),
    };
    api.refusals.refuse(reason);
    (status, Json(json!({"error": error.to_string()}))).into_response()
}

async fn authorized(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let given = request.headers().get(header::AUTHORIZATION);
    let given = given.and_then(|given| given.to_str().ok()?.strip_prefix("Bearer "));
    let is_right = match (&api.token, given) {
        (None, _) => true,
        // In a time that does not tell how much of it is right.
        (Some(token), Some(given)) => token.as_bytes().ct_eq(given.as_bytes()).into(),
        (Some(_), None) => false,
    };
    if is_right {
        next.run(request).await
    } else {
        refused(&api, &ApiError::Token)
    }
}

/// Programs are attached before anything is served.
async fn ready(State(api): State<Arc<Api>>) -> (StatusCode, String) {
    let interfaces = api.hub.standing().interfaces;
    let mut is_ready = !interfaces.is_empty();
    let mut text = format!(
        "programs: attached to {} by {}\n",
        if is_ready {
            interfaces.join(", ")
        } else {
            "nothing".to_owned()
        },
        api.hook
    );
    if *api.turn.borrow() == Turn::NotYet {
        is_ready = false;
        text.push_str("turn: another agent of this node still counts\n");
    }
    if let Some(cluster) = &api.cluster {
        let Cluster {
            snapshot,
            away_since,
            trouble,
            ..
        } = cluster.borrow().clone();
        // Nobody tells of it any more, if that has died.
        let is_followed = cluster.has_changed().is_ok();
        is_ready &= snapshot.is_some() && is_followed;
        let so_far = match (&snapshot, away_since) {
            (None, _) => "its objects are not known yet".to_owned(),
            (Some(_), None) if !is_followed => "nobody follows it any more".to_owned(),
            (Some(_), None) => "followed".to_owned(),
            (Some(_), Some(since)) => {
                format!("last heard from {} s ago", since.elapsed().as_secs())
            }
        };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "cluster: {so_far}");
        if let Some(trouble) = trouble {
            let _ = writeln!(text, "cluster: {trouble}");
        }
    }
    let status = if is_ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, text)
}

async fn metrics(State(api): State<Arc<Api>>) -> Response {
    let Ok(permit) = Arc::clone(&api.room.metrics).try_acquire_owned() else {
        return refused(&api, &ApiError::Busy);
    };
    match api.metrics.text() {
        Ok(text) => {
            let body = held([Bytes::from(text)].into_iter(), permit);
            ([(header::CONTENT_TYPE, METRICS_TEXT)], body).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// A body that has its place until it is read.
fn held(
    chunks: impl Iterator<Item = Bytes> + Send + 'static,
    permit: OwnedSemaphorePermit,
) -> Body {
    let chunks = stream::unfold((chunks, permit), async |(mut chunks, permit)| {
        let chunk = chunks.next()?;
        Some((Ok::<_, Infallible>(chunk), (chunks, permit)))
    });
    Body::from_stream(chunks)
}

async fn connections(
    State(api): State<Arc<Api>>,
    Extension(life): Extension<Life>,
    RawQuery(query): RawQuery,
) -> Response {
    let query = match Query::parse(query.as_deref().unwrap_or_default()) {
        Ok(query) => query,
        Err(error) => return refused(&api, &ApiError::Query(error)),
    };
    let (room, full) = if query.follow {
        (&api.room.followers, ApiError::Followers)
    } else {
        (&api.room.recent, ApiError::Busy)
    };
    let Ok(permit) = Arc::clone(room).try_acquire_owned() else {
        return refused(&api, &full);
    };
    let body = if query.follow {
        life.follows();
        let (recent, followed) = api.hub.follow(&query.filter);
        let lines = Lines::new(&query, recent);
        Body::from_stream(lines.followed_by(query.filter, followed, Arc::clone(&api), permit))
    } else {
        held(Lines::new(&query, api.hub.recent()), permit)
    };
    ([(header::CONTENT_TYPE, NDJSON)], body).into_response()
}

async fn node(State(api): State<Arc<Api>>) -> Response {
    let links = match Links::read().await {
        Ok(links) => links,
        Err(error) => return refused(&api, &ApiError::Links(error.to_string())),
    };
    let addresses: Vec<_> = links
        .iter()
        .flat_map(|(_, link)| {
            link.addresses
                .iter()
                .map(move |net| (net.addr(), &link.name))
        })
        .map(|(ip, interface)| json!({"ip": ip, "interface": interface}))
        .collect();
    let standing = api.hub.standing();
    let lost: Map<String, Value> = standing
        .missed
        .losses()
        .into_iter()
        .map(|loss| (loss.reason.to_owned(), loss.count.into()))
        .collect();
    let sampled = standing.missed.sampled;
    let sampled_for_s = sampled.since.and_then(|since| {
        let now = live::now().ok()?;
        Some(now.nanoseconds_since(since) / 1_000_000_000)
    });
    let stale_s = api.cluster.as_ref().and_then(|cluster| {
        let away_since = cluster.borrow().away_since?;
        Some(away_since.elapsed().as_secs())
    });
    Json(json!({
        "schema": NODE_SCHEMA,
        "version": env!("CARGO_PKG_VERSION"),
        "node": api.node,
        "observing_since": api.observing_since.to_string(),
        "hook": api.hook,
        "interfaces": standing.interfaces,
        "addresses": addresses,
        "cluster": {"stale_s": stale_s},
        "lost": lost,
        "followed": {"one_in": sampled.one_in(), "for_s": sampled_for_s},
    }))
    .into_response()
}
