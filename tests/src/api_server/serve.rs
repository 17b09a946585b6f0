//! Connections: accepted, broken, refused.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context as _, Result};
use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    runtime::Runtime,
    task::{AbortHandle, JoinSet},
};
use tokio_rustls::TlsAcceptor;

use crate::netns;

/// Where it listens, whether or not it does now.
pub(super) struct Listener {
    at: Mutex<SocketAddr>,
    namespace: Option<String>,
    tls: Option<TlsAcceptor>,
    /// Accepts and serves, while it is open.
    task: Mutex<Option<AbortHandle>>,
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listener")
            .field("at", &self.at)
            .finish_non_exhaustive()
    }
}

impl Listener {
    pub(super) fn new(at: SocketAddr, namespace: Option<&str>, tls: Option<TlsAcceptor>) -> Self {
        Self {
            at: Mutex::new(at),
            namespace: namespace.map(str::to_owned),
            tls,
            task: Mutex::default(),
        }
    }

    /// Listens; at the address of last time, if there was one.
    pub(super) fn open(&self, runtime: &Runtime, router: Router) -> Result<SocketAddr> {
        let mut at = self.at.lock().unwrap_or_else(PoisonError::into_inner);
        let bind = || std::net::TcpListener::bind(*at);
        let listener = match &self.namespace {
            Some(name) => netns::run_in(name, bind)?,
            None => bind(),
        };
        let listener = listener.with_context(|| format!("failed to listen at {at}"))?;
        listener.set_nonblocking(true)?;
        *at = listener.local_addr()?;
        let _within = runtime.enter();
        let listener = TcpListener::from_std(listener)?;
        let task = runtime.spawn(accept(listener, self.tls.clone(), router));
        let mut running = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        *running = Some(task.abort_handle());
        Ok(*at)
    }

    /// Breaks all connections and listens no more.
    pub(super) fn close(&self) {
        let mut running = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(task) = running.take() {
            task.abort();
            while !task.is_finished() {
                std::thread::yield_now();
            }
        }
    }
}

/// Serves until it is aborted, and its connections with it.
async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, router: Router) {
    let mut connections = JoinSet::new();
    let tls = tls.map(Arc::new);
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        let router = router.clone();
        match tls.clone() {
            Some(tls) => connections.spawn(async move {
                // One who does not trust the certificate goes away.
                if let Ok(stream) = tls.accept(stream).await {
                    serve(stream, router).await;
                }
            }),
            None => connections.spawn(serve(stream, router)),
        };
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, router: Router) {
    let service = TowerToHyperService::new(router);
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    let _the_client_knows = connection.with_upgrades().await;
}
