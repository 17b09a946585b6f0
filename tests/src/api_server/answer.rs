//! What is answered to a request.

use std::sync::Arc;

use axum::{
    Json, Router,
    body::Body,
    extract::{Query, State},
    http::{HeaderMap, StatusCode, Uri, header},
    response::{IntoResponse as _, Response},
    routing::get,
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Faults, Shared, TOKEN, forward, objects::Selection, watch};

/// The parameters of a list or a watch.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Parameters {
    watch: Option<String>,
    limit: Option<usize>,
    r#continue: Option<String>,
    field_selector: String,
    label_selector: String,
    pub(super) resource_version: String,
    resource_version_match: Option<String>,
    pub(super) send_initial_events: bool,
    pub(super) allow_watch_bookmarks: bool,
    pub(super) timeout_seconds: Option<u64>,
}

/// Everything else is a list or a watch.
pub(super) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route(
            "/api/v1/namespaces/{namespace}/pods/{pod}/portforward",
            get(forward::answer),
        )
        .fallback(answer)
        .with_state(shared)
}

async fn answer(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    headers: HeaderMap,
    Query(parameters): Query<Parameters>,
) -> Response {
    let faults = shared.state().faults.clone();
    tokio::time::sleep(faults.slow).await;
    if faults.silent {
        std::future::pending::<()>().await;
    }
    let response = refused(&faults, &headers)
        .unwrap_or_else(|| resource(&shared, &faults, uri.path(), &parameters));
    shared
        .state()
        .note(response.status().as_u16(), &uri.to_string());
    response
}

/// What is answered to anything that one asks.
pub(super) fn refused(faults: &Faults, headers: &HeaderMap) -> Option<Response> {
    let given = headers.get(header::AUTHORIZATION);
    let is_good = given.is_some_and(|given| given == format!("Bearer {TOKEN}").as_str());
    if faults.unauthorized || !is_good {
        return Some(status(401, "Unauthorized", "Unauthorized"));
    }
    let code = faults.status?;
    Some(status(code, "InternalError", "the server is in trouble"))
}

fn resource(
    shared: &Arc<Shared>,
    faults: &Faults,
    path: &str,
    parameters: &Parameters,
) -> Response {
    let Some(selection) = Selection::of_path(path) else {
        return status(
            404,
            "NotFound",
            "the server could not find the requested resource",
        );
    };
    let name = selection.resource;
    if faults.forbidden.iter().any(|forbidden| forbidden == name) {
        let message = format!("{name} is forbidden: User \"lab\" cannot list resource \"{name}\"");
        return status(403, "Forbidden", &message);
    }
    let selected = selection.only(&parameters.field_selector, &parameters.label_selector);
    let selection = match selected {
        Ok(selection) => selection,
        Err(message) => return status(400, "BadRequest", &message),
    };
    if !matches!(parameters.watch.as_deref(), Some("true" | "1")) {
        return list(shared, &selection, parameters);
    }
    let is_streamed = parameters.send_initial_events || parameters.resource_version_match.is_some();
    if is_streamed && !shared.streaming_lists {
        let message = "ListOptions.meta.k8s.io \"\" is invalid: sendInitialEvents: Forbidden: \
                       sendInitialEvents is forbidden for watch unless the WatchList feature gate \
                       is enabled";
        return status(422, "Invalid", message);
    }
    match watch::events(shared, selection, parameters) {
        Ok(events) => (
            [(header::CONTENT_TYPE, "application/json")],
            Body::from_stream(events),
        )
            .into_response(),
        Err(watch::TooOld) => too_old(),
    }
}

fn list(shared: &Shared, selection: &Selection, parameters: &Parameters) -> Response {
    let limit = parameters.limit.unwrap_or(usize::MAX);
    let token = parameters.r#continue.as_deref();
    let mut state = shared.state();
    if token.is_some() && state.faults.rests_gone > 0 {
        state.faults.rests_gone -= 1;
        return too_old();
    }
    let Ok(page) = state.objects.page(selection, limit, token) else {
        return too_old();
    };
    drop(state);
    let (kind, api_version) = selection.kind();
    // As a server does, without the items' own kind and version.
    let bare = |mut item: Value| {
        if let Some(item) = item.as_object_mut() {
            item.remove("kind");
            item.remove("apiVersion");
        }
        item
    };
    let items: Vec<Value> = page.items.into_iter().map(bare).collect();
    Json(json!({
        "kind": format!("{kind}List"), "apiVersion": api_version,
        "metadata": {
            "resourceVersion": page.version.to_string(),
            "continue": page.token.unwrap_or_default(),
        },
        "items": items,
    }))
    .into_response()
}

fn too_old() -> Response {
    status(410, "Expired", "too old resource version")
}

/// A `Status` of a failure.
pub(super) fn status(code: u16, reason: &str, message: &str) -> Response {
    let http = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (http, Json(failure(code, reason, message))).into_response()
}

pub(super) fn failure(code: u16, reason: &str, message: &str) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code,
    })
}
