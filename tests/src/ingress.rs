//! Ingress controllers, live, by the real nginx, and what stands in front of them: what fits
//! together, and what does not.
//!
//! The oracle is what each program itself says and reads: the client's answer, the controller's
//! logs, the bytes that come to the application.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use tempfile::NamedTempFile;

use crate::{
    cluster::Cluster,
    ear::{Ear, Heard},
    fronts::{Logged, Proxy},
    kubeproxy::{Family, Mode, Settings},
    lab::{Lab, Options},
    netns::Namespace,
    observer_process::ObserverProcess,
    payload,
    small::{self, NODES, Pod},
};

mod chains;
mod controllers;
pub mod judge;
mod objects;
pub mod rows;

use controllers::Controller;
use rows::{Answer, Front, Ingress, Row};

/// The networks of whoever stands in front.
pub const FRONT_NETWORKS: [&str; 2] = ["192.0.2.0/24", "2001:db8:192::/64"];
/// Where those in front listen.
const PORT: u16 = 8_000;
/// How many checks are waited for.
const CHECKS: usize = 5;
/// How long the records of what is over may take: of what says nothing, three seconds and some.
const SOON: Duration = Duration::from_secs(4);

/// A raised lab with all of it.
#[derive(Debug)]
pub struct Stage {
    // In the order of the dismantling.
    proxies: Vec<Proxy>,
    controllers: BTreeMap<&'static str, Controller>,
    ear: Ear,
    front: Namespace,
    lab: Lab,
    objects: NamedTempFile,
    rows: Vec<Row>,
    family: Family,
}

/// What a run came to.
#[derive(Debug)]
pub struct Run {
    /// What the clients of each row got.
    pub answers: Vec<Vec<Answer>>,
    /// What came to the application.
    pub heard: Vec<Heard>,
    /// What the controllers logged of each request, by their names: its status.
    pub logged: BTreeMap<&'static str, Vec<Logged>>,
    /// How often the controller of each row missed a header.
    pub missed: Vec<usize>,
    /// What the observer of the controllers' node told.
    pub records: Vec<Value>,
}

/// Whoever takes part in the row of a number: a client, those in front.
#[derive(Clone, Copy, Debug)]
struct Address {
    family: Family,
    row: usize,
}

impl Address {
    fn client(self) -> IpAddr {
        self.of(113, 0)
    }

    /// Of those in front the first, second and so on, counted from zero.
    fn front(self, place: usize) -> IpAddr {
        self.of(192, 50 * (1 + place))
    }

    fn of(self, network: u16, first: usize) -> IpAddr {
        let host = u8::try_from(first + 1 + self.row).unwrap_or(u8::MAX);
        match (self.family, network) {
            (Family::V4, 113) => Ipv4Addr::new(203, 0, 113, host).into(),
            (Family::V4, _) => Ipv4Addr::new(192, 0, 2, host).into(),
            (Family::V6, network) => {
                let network = if network == 113 { 0x113 } else { 0x192 };
                Ipv6Addr::new(0x2001, 0xdb8, network, 0, 0, 0, 0, host.into()).into()
            }
        }
    }
}

impl Stage {
    /// Raises it.
    pub fn raise(rows: Vec<Row>, mode: Mode, family: Family) -> Result<Self> {
        let addresses: Vec<_> = (0..rows.len()).map(|row| Address { family, row }).collect();
        let list = objects::list(&FRONT_NETWORKS.join(",")).to_string();
        let mut objects = NamedTempFile::new().context("failed to make a temporary file")?;
        objects.write_all(list.as_bytes())?;
        let prefix = if family == Family::V4 { 24 } else { 64 };
        let clients = addresses
            .iter()
            .map(|address| Ok(format!("{}/{prefix}", address.client()).parse()?));
        let options = Options {
            client: clients.collect::<Result<_>>()?,
            kube_proxy: Settings::of(mode),
            ..Options::default()
        };
        let mut lab = Lab::raise(Cluster::parse(&list)?, options)?;
        let pods: Vec<Pod> = Ingress::ALL.map(Ingress::pod).to_vec();
        let web = objects::web();
        for pod in pods.iter().chain([&web]) {
            lab.silence(pod.name);
        }
        let fronts = addresses
            .iter()
            .zip(&rows)
            .flat_map(|(address, row)| (0..row.front.number()).map(|place| address.front(place)));
        let front = lab.in_front(&fronts.collect::<Vec<_>>())?;
        let to = SocketAddr::new(web.address(family), web.port);
        let ear = Ear::start(namespace(&lab, &web)?, to)?;
        let mut controllers = BTreeMap::new();
        for (which, pod) in Ingress::ALL.into_iter().zip(&pods) {
            let at = SocketAddr::new(pod.address(family), pod.port);
            let controller = Controller::start(which, namespace(&lab, pod)?, at, to)?;
            controllers.insert(pod.name, controller);
        }
        let mut stage = Self {
            proxies: Vec::new(),
            controllers,
            ear,
            front,
            lab,
            objects,
            rows,
            family,
        };
        stage.stand_in_front()?;
        Ok(stage)
    }

    fn stand_in_front(&mut self) -> Result<()> {
        let ways: Vec<_> = self
            .rows
            .iter()
            .enumerate()
            .filter(|(_, row)| row.front.number() > 0)
            .map(|(number, row)| (row.front, self.ends(number), self.door(row.ingress)))
            .collect();
        self.proxies = chains::start(&ways, &self.front)?;
        Ok(())
    }

    /// The rows.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    fn address(&self, row: usize) -> Address {
        let family = self.family;
        Address { family, row }
    }

    /// Where those in front listen, the first first.
    fn ends(&self, row: usize) -> Vec<SocketAddr> {
        let places = 0..self.rows[row].front.number();
        let end = |place| SocketAddr::new(self.address(row).front(place), PORT);
        places.map(end).collect()
    }

    fn door(&self, ingress: Ingress) -> SocketAddr {
        let address = small::node_address(1, self.family);
        SocketAddr::new(address, ingress.pod().node_port)
    }

    /// Whose address the controller of a row sees.
    fn seen(&self, row: usize) -> IpAddr {
        let last = self.ends(row).last().map(SocketAddr::ip);
        last.unwrap_or(self.address(row).client())
    }

    /// Observes the controllers' node while so many connections go through every row, and checks
    /// are made.
    pub fn observe(&self, connections: usize) -> Result<Run> {
        let node = self.lab.node(NODES[0])?;
        let networks = FRONT_NETWORKS.join(",");
        let arguments = [
            "--payload",
            "on",
            "--load-balancer",
            &networks,
            "--trusted-proxies",
            "nodes,pods,load-balancers",
        ];
        let observer = ObserverProcess::start(node, self.objects.path(), &arguments)?;
        let mut answers = Vec::new();
        for (number, row) in self.rows.iter().enumerate() {
            let times = if row.front.is_of_checks() {
                0
            } else {
                connections
            };
            let asked = (0..times).map(|_| self.ask(number));
            let asked: Result<_> = asked.collect();
            answers.push(asked.with_context(|| row.name())?);
        }
        thread::sleep(SOON);
        let finished = observer.stop()?;
        ensure!(finished.status.success(), "{}", finished.stderr);
        let logged = self.controllers.iter();
        let missed = (0..self.rows.len()).map(|row| {
            let controller = self.controllers.get(self.rows[row].ingress.name());
            controller.context("no controller")?.missed(self.seen(row))
        });
        Ok(Run {
            answers,
            heard: self.ear.heard(),
            logged: logged
                .map(|(name, controller)| Ok((*name, controller.logged()?)))
                .collect::<Result<_>>()?,
            missed: missed.collect::<Result<_>>()?,
            records: finished.records,
        })
    }

    /// One client of a row asks.
    fn ask(&self, row: usize) -> Result<Answer> {
        let Row { front, ingress, .. } = self.rows[row];
        let client = self.address(row).client();
        let door = self.door(ingress);
        let to = self.ends(row).first().copied().unwrap_or(door);
        let mut request = format!("GET /{row}/ HTTP/1.1\r\nHost: shop\r\n\r\n");
        if front == Front::Forger {
            let family = if client.is_ipv4() { "TCP4" } else { "TCP6" };
            let line = format!("PROXY {family} {client} {} 4000 80\r\n", door.ip());
            request.insert_str(0, &line);
        }
        let mut stream = self
            .lab
            .client()
            .run(|| payload::connect_from(client, to))??;
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        let mut more = [0; 1_024];
        loop {
            match stream.read(&mut more) {
                Ok(1..) if answer.len() > more.len() => bail!("it answers without end"),
                Ok(length @ 1..) => answer.extend(&more[..length]),
                // It is closed, with what was not read or without.
                Ok(_) => break,
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
                Err(error) => return Err(error).context("no answer"),
            }
            if answer.ends_with(b"ok\n") {
                break;
            }
        }
        Ok(match answer.split(|byte| *byte == b' ').nth(1) {
            Some(b"200") => Answer::Ok,
            Some(b"400") => Answer::BadRequest,
            None if answer.is_empty() => Answer::Nothing,
            _ => bail!("it answers {:?}", String::from_utf8_lossy(&answer)),
        })
    }
}

fn namespace<'lab>(lab: &'lab Lab, pod: &Pod) -> Result<&'lab Namespace> {
    let raised = lab.pod(pod.name, pod.node_name());
    Ok(&raised.context("the lab has no such pod")?.namespace)
}
