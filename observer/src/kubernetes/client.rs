//! Requests to the API server, bounded in size and time.
//!
//! Over `kube`'s client, which has the credentials, TLS and proxies; but its own requests read
//! answers and lines of any length, three copies at a time.

use std::fmt::Write as _;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::{Request, Response, StatusCode};
use k8s_openapi::api::core::v1::Pod;
use kube::client::Body;
use kube::core::Status;
use tokio::io::DuplexStream;
use tokio::time::timeout;

use super::error::{self, AccessError, ApiError};
use super::lines::Splitter;

/// How long a connection may take to be made, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an answer may take to begin.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a body may pause.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// Many times a page of any objects.
const BODY_MAX: usize = 256 << 20;
/// Many times what an API server takes for one object (3 MiB).
const LINE_MAX: usize = 16 << 20;
/// Of what is no success, this much is looked at.
const STATUS_MAX: usize = 64 << 10;

/// The subresource by which a port of a pod is reached.
const PORT_FORWARD: &str = "pods/portforward";

/// A way to an API server.
#[derive(Clone)]
pub struct Client {
    pub(super) kube: kube::Client,
    pub(super) server: Arc<str>,
}

/// What a request is about: for its path, and for what is said of it.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// The resource: `pods`.
    pub(super) resource: &'static str,
    /// Its API group; empty for the oldest.
    pub(super) group: &'static str,
    /// Path without a query.
    pub(super) path: String,
    /// Its parameters, not yet encoded.
    pub(super) query: Vec<(&'static str, String)>,
}

/// The lines of an answer, as they come.
pub(super) struct Lines {
    body: Body,
    splitter: Splitter,
    about: About,
}

/// A connection to a pod.
pub struct Forwarded {
    /// The connection.
    pub stream: DuplexStream,
    /// What the pod's kubelet says if it comes to nothing: nobody listens there. Without a word
    /// `None`.
    pub refused: Pin<Box<dyn Future<Output = Option<String>> + Send>>,
}

/// For errors.
#[derive(Clone)]
struct About {
    server: Arc<str>,
    resource: &'static str,
}

impl std::fmt::Debug for Forwarded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Forwarded")
            .field("stream", &self.stream)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("server", &self.server)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// Reads what the credentials need (files, a plugin's output); asks nothing of the server.
    pub(super) fn new(mut config: kube::Config) -> Result<Self, AccessError> {
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        // It would hide an API server that is away for hours; here everything is tried again by
        // whoever asks, or told.
        config.default_retry = false;
        let server: Arc<str> = config.cluster_url.to_string().trim_end_matches('/').into();
        let kube = kube::Client::try_from(config).map_err(|error| AccessError::Credentials {
            server: server.to_string(),
            reason: error::find_credentials(&error)
                .map_or_else(|| error::root(&error), error::credentials),
        })?;
        Ok(Self { kube, server })
    }

    /// The address of the API server.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// The client underneath, for what is not asked here.
    pub fn kube(&self) -> kube::Client {
        self.kube.clone()
    }

    /// The whole body of a successful answer.
    pub(super) async fn get(&self, target: &Target) -> Result<Vec<u8>, ApiError> {
        let about = self.about(target);
        let mut body = self.send(target).await?.into_body();
        let mut whole = Vec::new();
        while let Some(part) = about.part(&mut body, PAUSE_MAX).await? {
            if whole.len() + part.len() > BODY_MAX {
                return Err(about.unreadable(format!("it is longer than {} MiB", BODY_MAX >> 20)));
            }
            whole.extend_from_slice(&part);
        }
        Ok(whole)
    }

    /// The lines of a successful answer that goes on.
    pub(super) async fn lines(&self, target: &Target) -> Result<Lines, ApiError> {
        Ok(Lines {
            body: self.send(target).await?.into_body(),
            splitter: Splitter::new(LINE_MAX),
            about: self.about(target),
        })
    }

    /// A connection to a port at the loopback address of a pod's network, through the API server
    /// and the pod's kubelet.
    pub async fn forward(
        &self,
        namespace: &str,
        pod: &str,
        port: u16,
    ) -> Result<Forwarded, ApiError> {
        let target = Target {
            resource: PORT_FORWARD,
            group: "",
            path: String::new(),
            query: Vec::new(),
        };
        let about = self.about(&target);
        let pods: kube::Api<Pod> = kube::Api::namespaced(self.kube.clone(), namespace);
        let ports = [port];
        let answer = timeout(ANSWER_TIMEOUT, pods.portforward(pod, &ports)).await;
        let mut forwarder = match answer.map_err(|_elapsed| about.timed_out(ANSWER_TIMEOUT))? {
            Ok(forwarder) => forwarder,
            Err(kube::Error::Api(status)) => {
                return Err(about.status(&target, status.code, &status));
            }
            Err(error) => return Err(about.failed(&error)),
        };
        let stream = forwarder.take_stream(port);
        let refused = forwarder.take_error(port);
        match (stream, refused) {
            (Some(stream), Some(refused)) => Ok(Forwarded {
                stream,
                refused: Box::pin(refused),
            }),
            _ => Err(about.unreadable("no stream of its port".to_owned())),
        }
    }

    /// What a status other than success means for a request.
    pub(super) fn status(&self, target: &Target, code: u16, status: &Status) -> ApiError {
        self.about(target).status(target, code, status)
    }

    async fn send(&self, target: &Target) -> Result<Response<Body>, ApiError> {
        let about = self.about(target);
        let request = Request::get(target.uri())
            .body(Body::empty())
            .map_err(|error| about.unreadable(error.to_string()))?;
        let answer = timeout(ANSWER_TIMEOUT, self.kube.send(request)).await;
        let response = answer
            .map_err(|_elapsed| about.timed_out(ANSWER_TIMEOUT))?
            .map_err(|error| about.failed(&error))?;
        match response.status() {
            status if status.is_success() => Ok(response),
            status => Err(about.refused(target, status, response.into_body()).await),
        }
    }

    fn about(&self, target: &Target) -> About {
        About {
            server: Arc::clone(&self.server),
            resource: target.resource,
        }
    }
}

impl Lines {
    /// The next line without its end. `None`: the answer is over, and what came of a line that
    /// broke off is dropped. An error if nothing comes for `silence`.
    pub(super) async fn next(&mut self, silence: Duration) -> Result<Option<Vec<u8>>, ApiError> {
        loop {
            if let Some(line) = self.splitter.pop() {
                return Ok(Some(line));
            }
            let Some(part) = self.about.part(&mut self.body, silence).await? else {
                return Ok(None);
            };
            self.splitter
                .push(&part)
                .map_err(|error| self.about.unreadable(error.to_string()))?;
        }
    }
}

impl Target {
    fn uri(&self) -> String {
        let mut uri = self.path.clone();
        for (place, (name, value)) in self.query.iter().enumerate() {
            uri.push(if place == 0 { '?' } else { '&' });
            uri.push_str(name);
            uri.push('=');
            for byte in value.bytes() {
                // RFC 3986, unreserved characters.
                if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                    uri.push(char::from(byte));
                } else {
                    let _infallible = write!(uri, "%{byte:02X}");
                }
            }
        }
        uri
    }

    /// The verb that it takes (RBAC).
    fn verb(&self) -> &'static str {
        if self.resource == PORT_FORWARD {
            "create"
        } else if self.query.iter().any(|(name, _)| *name == "watch") {
            "watch"
        } else {
            "list"
        }
    }

    /// The same with more parameters.
    pub(super) fn with(&self, more: &[(&'static str, &str)]) -> Self {
        let more = more
            .iter()
            .map(|(name, value)| (*name, (*value).to_owned()));
        Self {
            query: self.query.iter().cloned().chain(more).collect(),
            ..self.clone()
        }
    }
}

impl About {
    /// The next part of a body; `None` at its end.
    async fn part(&self, body: &mut Body, within: Duration) -> Result<Option<Bytes>, ApiError> {
        loop {
            let frame = timeout(within, body.frame()).await;
            match frame.map_err(|_elapsed| self.timed_out(within))? {
                None => return Ok(None),
                Some(Ok(frame)) => {
                    // Trailers say nothing here.
                    if let Ok(part) = frame.into_data() {
                        return Ok(Some(part));
                    }
                }
                Some(Err(error)) => {
                    return Err(ApiError::BrokeOff {
                        server: self.server.to_string(),
                        reason: error::root(&error),
                    });
                }
            }
        }
    }

    async fn refused(&self, target: &Target, code: StatusCode, mut body: Body) -> ApiError {
        let mut text = Vec::new();
        while text.len() < STATUS_MAX
            && let Ok(Some(part)) = self.part(&mut body, PAUSE_MAX).await
        {
            text.extend_from_slice(&part);
        }
        text.truncate(STATUS_MAX);
        let status = serde_json::from_slice(&text).unwrap_or_else(|_no_status| Status {
            message: String::from_utf8_lossy(&text).into_owned(),
            ..Status::default()
        });
        self.status(target, code.as_u16(), &status)
    }

    /// What a status other than success means.
    fn status(&self, target: &Target, code: u16, status: &Status) -> ApiError {
        match code {
            401 => ApiError::Unauthorized {
                server: self.server.to_string(),
            },
            403 => ApiError::Forbidden {
                verb: target.verb(),
                resource: self.resource.to_owned(),
                group: target.group.to_owned(),
                verbs: if self.resource == PORT_FORWARD {
                    "get, create"
                } else {
                    "get, list, watch"
                },
            },
            code => ApiError::Status {
                resource: self.resource.to_owned(),
                code,
                message: error::message(status),
            },
        }
    }

    fn failed(&self, error: &kube::Error) -> ApiError {
        let server = self.server.to_string();
        match error::find_credentials(error) {
            Some(credentials) => ApiError::Credentials {
                server,
                reason: error::credentials(credentials),
            },
            None => ApiError::Unreachable {
                server,
                reason: error::root(error),
            },
        }
    }

    fn timed_out(&self, within: Duration) -> ApiError {
        ApiError::TimedOut {
            server: self.server.to_string(),
            within,
        }
    }

    fn unreadable(&self, reason: String) -> ApiError {
        ApiError::Unreadable {
            resource: self.resource.to_owned(),
            reason,
        }
    }
}
