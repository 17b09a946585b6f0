//! Clients that connect through every front.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::IpAddr,
    sync::Arc,
};

use anyhow::{Context as _, Result, ensure};
use tokio_rustls::rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};

use super::{
    objects::Placed,
    rows::Node,
    stage::{Known, Stage},
};
use crate::{observer_process::ObserverProcess, payload, threads::at_once};

/// So many rows at a time.
const LANES: usize = 6;
/// What a client invents.
const FORGED: &str = "X-Forwarded-For: 198.51.100.66, 192.0.2.66\r\n";

impl Stage {
    /// Connects so many times through each row, by every client in turn; after a few rows waits
    /// until the observers, one on each node, have told all of it. What they can keep of first bytes
    /// is bounded, and a machine may be too busy to let them read.
    pub(super) fn connect_through_all(
        &self,
        observers: &[ObserverProcess],
        known: Known,
        connections: usize,
    ) -> Result<()> {
        let clients: Vec<IpAddr> = self
            .lab
            .client_addresses()
            .into_iter()
            .filter(|address| self.family.holds(*address))
            .collect();
        let mut told = BTreeMap::new();
        for rows in self.rows.chunks(LANES) {
            self.connect_through_some(rows, |placed| {
                self.connect_through(placed, &clients, known, connections)
            })?;
            for node in rows.iter().flat_map(|placed| placed.row.nodes()) {
                *told.entry(node.name()).or_default() += connections;
            }
            for (node, observer) in self.lab.nodes().iter().zip(observers) {
                let must_be = told.get(&*node.plan.name).copied().unwrap_or_default();
                observer
                    .wait_for_records(must_be)
                    .with_context(|| format!("the observer of {}", node.plan.name))?;
            }
        }
        Ok(())
    }

    /// All at once.
    fn connect_through_some(
        &self,
        rows: &[Placed],
        through: impl Fn(&Placed) -> Result<()> + Sync,
    ) -> Result<()> {
        let went = at_once(rows, |placed| self.lab.client().run(|| through(placed))?);
        for (placed, went) in rows.iter().zip(went) {
            went.with_context(|| format!("through {}", placed.row.name()))?;
        }
        Ok(())
    }

    /// From the namespace that the calling thread is in: the client's.
    fn connect_through(
        &self,
        placed: &Placed,
        clients: &[IpAddr],
        known: Known,
        connections: usize,
    ) -> Result<()> {
        let front = placed.row.front;
        let tls = if front.is_passed_tls() {
            Some(self.tls(placed.row.endpoint)?)
        } else {
            None
        };
        let to = placed.passage().at;
        for (number, client) in (0..connections).zip(clients.iter().cycle()) {
            // Where nobody says who connects, and yet is believed, whoever connects is: so only
            // where one of the two is otherwise.
            let is_told = front.carrier().is_some() && number % 3 == 0;
            let forged = if is_told || known == Known::AsUntrusted {
                FORGED
            } else {
                ""
            };
            let request = format!("GET /{client}/{number} HTTP/1.1\r\nHost: shop\r\n{forged}\r\n");
            let stream = payload::connect_from(*client, to)?;
            match &tls {
                None => ask(stream, &request)?,
                Some(config) => {
                    let name = ServerName::try_from("shop")?;
                    let session = ClientConnection::new(Arc::clone(config), name)?;
                    ask(StreamOwned::new(session, stream), &request)?;
                }
            }
        }
        Ok(())
    }

    /// What makes a client believe the pod of a node.
    fn tls(&self, node: Node) -> Result<Arc<ClientConfig>> {
        let server = self.servers.get(&node).context("no server")?;
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(server.certificate())?)?;
        let config = ClientConfig::builder().with_root_certificates(roots);
        Ok(Arc::new(config.with_no_client_auth()))
    }
}

/// Asks, and waits for the answer.
fn ask(mut stream: impl Read + Write, request: &str) -> Result<()> {
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    let mut more = [0; 1_024];
    while !answer.ends_with(b"ok\n") {
        let length = stream.read(&mut more)?;
        ensure!(
            length > 0,
            "no answer, but {:?}",
            String::from_utf8_lossy(&answer)
        );
        answer.extend(&more[..length]);
    }
    Ok(())
}
