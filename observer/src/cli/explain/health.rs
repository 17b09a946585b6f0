//! `observer explain --health`: what nodes really say at a Service's `healthCheckNodePort`.

use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::Request;
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::verdict::chain::{Explained, Health};
use crate::words::Words;

/// How long a node may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// How many are asked at a time.
const AT_ONCE: usize = 32;
/// Many times what kube-proxy says.
const BODY_MAX: usize = 4 << 10;

/// What the nodes say, a line for each, and whether each says what is expected.
pub(super) async fn ask(services: &[Explained<'_>], words: &Words) -> Vec<(bool, String)> {
    let asked = services.iter().filter_map(|explained| {
        let health = explained.health.as_ref()?;
        Some((explained.service.to_string(), health))
    });
    let asked = asked.flat_map(|(service, health)| {
        let nodes = health.nodes.iter();
        nodes.filter_map(move |(node, addresses, ready)| {
            let address = SocketAddr::new(*addresses.first()?, health.port);
            Some((service.clone(), node.to_string(), address, *ready))
        })
    });
    stream::iter(asked)
        .map(|(service, node, address, ready)| async move {
            let said = answer(address).await;
            let (agrees, line) = compared(&node, address.ip(), ready, said, words);
            (agrees, format!("{service}: {line}"))
        })
        .buffered(AT_ONCE)
        .collect()
        .await
}

fn compared(
    node: &str,
    address: IpAddr,
    ready: usize,
    said: anyhow::Result<(u16, String)>,
    words: &Words,
) -> (bool, String) {
    let address = address.to_string();
    let expected = Health::status(ready);
    let of_node = [("node", node), ("address", &address)];
    match said {
        Ok((status, _)) if status == expected => {
            let status = status.to_string();
            let set = [&of_node[..], &[("status", &status)]].concat();
            (true, words.say("label-health-agrees", &set))
        }
        Ok((status, body)) => {
            let (status, expected) = (status.to_string(), expected.to_string());
            let more = [
                ("status", &*status),
                ("expected", &*expected),
                ("body", &*body),
            ];
            let set = [&of_node[..], &more].concat();
            (false, words.say("label-health-differs", &set))
        }
        Err(error) => {
            let error = format!("{error:#}");
            let set = [&of_node[..], &[("error", &error)]].concat();
            (false, words.say("label-health-silent", &set))
        }
    }
}

/// Status and body, on one line. Any path does (`pkg/proxy/healthcheck/service_health.go`).
async fn answer(address: SocketAddr) -> anyhow::Result<(u16, String)> {
    let asked = async {
        let stream = TcpStream::connect(address).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let exchange = async {
            let request = Request::get("/")
                .header(HOST, address.to_string())
                .body(Empty::<Bytes>::new())?;
            let response = sender.send_request(request).await?;
            let status = response.status().as_u16();
            let body = Limited::new(response.into_body(), BODY_MAX).collect().await;
            let body = body.map_or_else(|_| Bytes::new(), http_body_util::Collected::to_bytes);
            let body = String::from_utf8_lossy(&body).replace(char::is_control, " ");
            let body = body.split_whitespace().collect::<Vec<_>>().join(" ");
            anyhow::Ok((status, body))
        };
        let mut exchange = pin!(exchange);
        tokio::select! {
            said = &mut exchange => said,
            // Who hangs up may have answered before.
            ended = connection => match (exchange.await, ended) {
                (Ok(said), _) => Ok(said),
                (Err(_), Err(error)) => Err(error.into()),
                (Err(_), Ok(())) => bail!("the connection ended without an answer"),
            },
        }
    };
    let said = timeout(PATIENCE, asked).await.ok();
    said.with_context(|| format!("none within {} s", PATIENCE.as_secs()))?
}
