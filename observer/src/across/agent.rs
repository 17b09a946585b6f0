//! One agent: asked who it is, then followed, over a connection to its pod.
//!
//! What it sends is hostile input: lines are bounded, and what cannot be read is told and passed
//! over. Unknown fields and notices are those of a newer agent.

use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{AUTHORIZATION, HOST, HeaderValue};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use crate::kubernetes::{
    AgentPod, ApiError, Client, Forwarded, PodName, Splitter, TooLong, one_line,
};
use crate::record::Record;

/// How long an answer may take to begin.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// An agent that has nothing to tell sends an empty line every five seconds.
const SILENCE_MAX: Duration = Duration::from_secs(20);
/// How long is waited for the reason why a connection came to nothing.
const REASON_TIMEOUT: Duration = Duration::from_millis(500);
/// Many times a record.
const LINE_MAX: usize = 32 << 10;
/// Many times what an agent says of itself: in mode IPVS a node has the address of every Service.
const BODY_MAX: usize = 16 << 20;
/// No name of a node is longer (RFC 1123), and no version.
const NAME_MAX: usize = 253;

/// The schema of a record.
const RECORD: &str = "observer.connection/v1";
/// The schema of what is no record, and worth knowing.
const NOTICE: &str = "observer.notice/v1";

/// Why an agent cannot be followed, or no longer. One line each.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AgentError {
    /// The API server leads nowhere.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// Nobody listens at its port.
    #[error("its agent does not answer at port {port}: {reason}")]
    Refused {
        /// Where it should.
        port: u16,
        /// As its kubelet, or HTTP, says it.
        reason: String,
    },
    /// No answer in time.
    #[error("its agent did not answer within {} s", .0.as_secs())]
    TimedOut(Duration),
    /// 401.
    #[error("its agent asks for another token than it was given: give --token-file")]
    Token,
    /// Another status than success.
    #[error("its agent answered {code}: {message}")]
    Status {
        /// The HTTP status.
        code: u16,
        /// Its own words.
        message: String,
    },
    /// What it says is not what an agent says.
    #[error("what its agent sent cannot be read: {0}")]
    Unreadable(String),
    /// The answer broke off, or fell silent.
    #[error("the connection to its agent broke off")]
    BrokeOff,
    /// It has ended, as it said, or its pod is gone.
    #[error("its agent has ended")]
    Ended,
    /// So many records were not told, and no more are.
    #[error("its agent let go: it was read too slowly, and {missed} connections are missing")]
    CutOff {
        /// How many.
        missed: u64,
    },
}

/// What an agent says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Itself {
    /// The node as it calls it in records.
    pub(super) node: String,
    /// Its version.
    pub(super) version: String,
}

/// A line of an agent's.
#[derive(Debug)]
pub(super) enum Line {
    Record(Box<Record>),
    /// Why it is the last.
    Last(AgentError),
    /// A record of a newer agent.
    Unreadable(String),
}

/// A way to ask it.
pub(super) struct Agent {
    requests: SendRequest<Empty<Bytes>>,
    token: Option<HeaderValue>,
    connection: AbortHandle,
    /// Why the connection came to nothing, if it did.
    refused: Option<Refused>,
    port: u16,
}

type Refused = Pin<Box<dyn Future<Output = Option<String>> + Send>>;

/// Its records, as they come.
pub(super) struct Lines {
    body: Incoming,
    splitter: Splitter,
    /// Keeps the connection.
    _agent: Agent,
}

#[derive(Deserialize)]
struct Schema {
    #[serde(default)]
    schema: String,
}

#[derive(Deserialize)]
struct Notice {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    missed: u64,
}

#[derive(Deserialize)]
struct Refusal {
    error: String,
}

impl Agent {
    /// Connects to the agent in a pod.
    pub(super) async fn connect(
        client: &Client,
        name: &PodName,
        pod: &AgentPod,
        token: Option<HeaderValue>,
    ) -> Result<Self, AgentError> {
        let PodName { namespace, name } = name;
        let Forwarded { stream, refused } = client.forward(namespace, name, pod.port).await?;
        let handshake = http1::handshake(TokioIo::new(stream)).await;
        let (requests, connection) = handshake.map_err(|_closed| AgentError::BrokeOff)?;
        Ok(Self {
            requests,
            token,
            connection: tokio::spawn(async {
                // Whoever waits for an answer is told.
                let _ended = connection.await;
            })
            .abort_handle(),
            refused: Some(refused),
            port: pod.port,
        })
    }

    /// Asks it who it is.
    pub(super) async fn itself(&mut self) -> Result<Itself, AgentError> {
        let mut body = self.get("/v1/node").await?.into_body();
        let text = small(&mut body).await?;
        let itself: Itself = serde_json::from_slice(&text).map_err(|error| unreadable(&error))?;
        let is_name = |text: &str| {
            let is_part = |c: char| c.is_ascii_graphic();
            !text.is_empty() && text.len() <= NAME_MAX && text.chars().all(is_part)
        };
        if !is_name(&itself.node) || !is_name(&itself.version) {
            return Err(AgentError::Unreadable(
                "its node or its version has no name".to_owned(),
            ));
        }
        Ok(itself)
    }

    /// Follows its records from now on.
    pub(super) async fn follow(mut self) -> Result<Lines, AgentError> {
        // Without a filter: what is asked for is known once both halves are.
        let body = self.get("/v1/connections?follow=1").await?.into_body();
        Ok(Lines {
            body,
            splitter: Splitter::new(LINE_MAX),
            _agent: self,
        })
    }

    async fn get(&mut self, path: &str) -> Result<Response<Incoming>, AgentError> {
        let mut request = Request::get(path).header(HOST, "localhost");
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, token);
        }
        let request = request
            .body(Empty::new())
            .map_err(|error| AgentError::Unreadable(error.to_string()))?;
        let answer = timeout(ANSWER_TIMEOUT, self.requests.send_request(request)).await;
        let mut response = match answer {
            Err(_elapsed) => return Err(AgentError::TimedOut(ANSWER_TIMEOUT)),
            Ok(Err(error)) => return Err(self.why(&error).await),
            Ok(Ok(response)) => response,
        };
        match response.status() {
            StatusCode::OK => Ok(response),
            StatusCode::UNAUTHORIZED => Err(AgentError::Token),
            status => {
                let text = small(response.body_mut()).await?;
                let refusal = serde_json::from_slice(&text);
                let message = refusal.map_or_else(
                    |_no_json| String::new(),
                    |Refusal { error }| one_line(&error),
                );
                Err(AgentError::Status {
                    code: status.as_u16(),
                    message,
                })
            }
        }
    }

    /// Why there was no answer: the pod's kubelet knows better than HTTP.
    async fn why(&mut self, error: &hyper::Error) -> AgentError {
        let told = match self.refused.take() {
            Some(refused) => timeout(REASON_TIMEOUT, refused).await.ok().flatten(),
            None => None,
        };
        AgentError::Refused {
            port: self.port,
            reason: one_line(&told.unwrap_or_else(|| error.to_string())),
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Lines {
    /// The next that says something.
    pub(super) async fn next(&mut self) -> Result<Line, AgentError> {
        loop {
            while let Some(line) = self.splitter.pop() {
                if let Some(line) = read(&line)? {
                    return Ok(line);
                }
            }
            let part = part(&mut self.body, SILENCE_MAX).await?;
            self.splitter
                .push(&part.ok_or(AgentError::BrokeOff)?)
                .map_err(|error: TooLong| AgentError::Unreadable(error.to_string()))?;
        }
    }
}

/// A line; `None` for one that says nothing, or nothing that is known here.
fn read(line: &[u8]) -> Result<Option<Line>, AgentError> {
    if line.trim_ascii().is_empty() {
        return Ok(None);
    }
    let Schema { schema } = serde_json::from_slice(line).map_err(|error| unreadable(&error))?;
    match schema.as_str() {
        RECORD => Ok(Some(match serde_json::from_slice(line) {
            Ok(record) => Line::Record(record),
            Err(error) => Line::Unreadable(one_line(&error.to_string())),
        })),
        NOTICE => {
            let Notice { kind, missed } =
                serde_json::from_slice(line).map_err(|error| unreadable(&error))?;
            Ok(match kind.as_str() {
                "lagged" => Some(Line::Last(AgentError::CutOff { missed })),
                "ending" => Some(Line::Last(AgentError::Ended)),
                _ => None,
            })
        }
        _ => Ok(None),
    }
}

/// It may quote what was sent.
fn unreadable(error: &serde_json::Error) -> AgentError {
    AgentError::Unreadable(one_line(&error.to_string()))
}

async fn small(body: &mut Incoming) -> Result<Vec<u8>, AgentError> {
    let mut text = Vec::new();
    while let Some(part) = part(body, ANSWER_TIMEOUT).await? {
        text.extend_from_slice(&part);
        if text.len() > BODY_MAX {
            return Err(AgentError::Unreadable("it is too long".to_owned()));
        }
    }
    Ok(text)
}

/// The next part of a body; `None` at its end.
async fn part(body: &mut Incoming, within: Duration) -> Result<Option<Bytes>, AgentError> {
    loop {
        match timeout(within, body.frame()).await {
            Err(_elapsed) => return Err(AgentError::BrokeOff),
            Ok(None) => return Ok(None),
            Ok(Some(Err(_))) => return Err(AgentError::BrokeOff),
            Ok(Some(Ok(frame))) => {
                // Trailers say nothing here.
                if let Ok(part) = frame.into_data() {
                    return Ok(Some(part));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_not_known_is_passed_over() {
        let said = |line: &str| read(line.as_bytes()).expect("readable");
        for nothing in [
            "",
            " ",
            r#"{"schema": "observer.something/v7", "kind": "lagged"}"#,
            r#"{"schema": "observer.notice/v1", "kind": "sings", "song": [1]}"#,
            r#"{"more": true}"#,
        ] {
            assert!(said(nothing).is_none(), "{nothing}");
        }
        let lagged = r#"{"schema": "observer.notice/v1", "node": "n", "kind": "lagged", "missed": 7, "x": 1}"#;
        let cut_off = AgentError::CutOff { missed: 7 };
        assert!(matches!(said(lagged), Some(Line::Last(why)) if why == cut_off));
        let ending = r#"{"schema": "observer.notice/v1", "node": "n", "kind": "ending"}"#;
        assert!(matches!(said(ending), Some(Line::Last(AgentError::Ended))));
        // A record with a word of the future.
        let future = r#"{"schema": "observer.connection/v1", "from": "dream"}"#;
        assert!(matches!(said(future), Some(Line::Unreadable(_))));
    }

    proptest! {
        #[test]
        fn no_line_makes_it_panic(line in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = read(&line);
        }
    }
}
