//! Ports of pods by WebSocket: `pods/NAME/portforward`, as the kubelet serves it behind the API
//! server (`pkg/kubelet/cri/streaming/portforward/websocket.go`): of each port a channel for data and
//! one for an error, and on each first the port's number.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{Path, Query, Request, State},
    http::{StatusCode, header},
    response::Response,
};
use futures_util::{SinkExt as _, StreamExt as _};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, handshake::derive_accept_key, protocol::Role},
};

use super::{
    Shared,
    answer::{refused, status},
};
use crate::netns;

/// The subprotocol.
const PROTOCOL: &str = "v4.channel.k8s.io";
/// The channels of the first port.
const DATA: u8 = 0;
const ERROR: u8 = 1;

/// How long a client may take to close its end.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

type Socket = WebSocketStream<TokioIo<Upgraded>>;

#[derive(Debug, Deserialize)]
pub(super) struct Parameters {
    ports: u16,
}

pub(super) async fn answer(
    State(shared): State<Arc<Shared>>,
    Path((namespace, pod)): Path<(String, String)>,
    Query(Parameters { ports: port }): Query<Parameters>,
    mut request: Request,
) -> Response {
    let response = upgrade(&shared, &(namespace, pod), port, &mut request);
    let code = response.status().as_u16();
    shared.state().note(code, &request.uri().to_string());
    response
}

fn upgrade(
    shared: &Arc<Shared>,
    pod: &(String, String),
    port: u16,
    request: &mut Request,
) -> Response {
    let (faults, network) = {
        let state = shared.state();
        (state.faults.clone(), state.networks.get(pod).cloned())
    };
    if let Some(refused) = refused(&faults, request.headers()) {
        return refused;
    }
    if faults.forbidden.iter().any(|it| it == "pods/portforward") {
        let message = "pods is forbidden: User \"lab\" cannot create resource \"pods/portforward\"";
        return status(403, "Forbidden", message);
    }
    let Some(network) = network else {
        return status(404, "NotFound", &format!("pods {:?} not found", pod.1));
    };
    let key = request.headers().get(header::SEC_WEBSOCKET_KEY);
    let Some(key) = key.map(|key| derive_accept_key(key.as_bytes())) else {
        return status(400, "BadRequest", "unable to upgrade: no WebSocket");
    };
    let upgrade = hyper::upgrade::on(request);
    let task = tokio::spawn(serve(upgrade, network, port));
    shared.forwarded().push(task.abort_handle());
    Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_ACCEPT, key)
        .header(header::SEC_WEBSOCKET_PROTOCOL, PROTOCOL)
        .body(Body::empty())
        .unwrap_or_default()
}

async fn serve(upgrade: OnUpgrade, network: String, port: u16) {
    let Ok(upgraded) = upgrade.await else {
        return;
    };
    let io = TokioIo::new(upgraded);
    let mut socket = WebSocketStream::from_raw_socket(io, Role::Server, None).await;
    for channel in [DATA, ERROR] {
        let [low, high] = port.to_le_bytes();
        if send(&mut socket, channel, &[low, high]).await.is_none() {
            return;
        }
    }
    let connected = tokio::task::spawn_blocking(move || connect(&network, port)).await;
    let _client_is_gone = match connected {
        Ok(Ok(stream)) => copy(&mut socket, stream).await,
        Ok(Err(error)) => {
            let message =
                format!("failed to connect to localhost:{port} inside namespace: {error}");
            send(&mut socket, ERROR, message.as_bytes()).await
        }
        Err(_panicked) => None,
    };
    let _closed_already = socket.close(None).await;
    // What the client still sends is read, or its kernel would drop what it was sent.
    while let Ok(Some(Ok(_))) = timeout(CLOSE_TIMEOUT, socket.next()).await {}
}

fn connect(network: &str, port: u16) -> anyhow::Result<std::net::TcpStream> {
    let stream = netns::run_in(network, || {
        std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port))
    })??;
    stream.set_nonblocking(true)?;
    Ok(stream)
}

/// Until one of them ends.
async fn copy(socket: &mut Socket, stream: std::net::TcpStream) -> Option<()> {
    let mut stream = TcpStream::from_std(stream).ok()?;
    let mut part = vec![0; 16 << 10];
    loop {
        tokio::select! {
            length = stream.read(&mut part) => match length {
                Ok(0) | Err(_) => return None,
                Ok(length) => send(socket, DATA, &part[..length]).await?,
            },
            message = socket.next() => match message?.ok()? {
                Message::Binary(bytes) => {
                    let (channel, data) = bytes.split_first()?;
                    if *channel == DATA {
                        stream.write_all(data).await.ok()?;
                    }
                }
                Message::Close(_) => return None,
                _ => {}
            },
        }
    }
}

async fn send(socket: &mut Socket, channel: u8, data: &[u8]) -> Option<()> {
    let message: Vec<u8> = [&[channel], data].concat();
    socket.send(Message::binary(message)).await.ok()
}
