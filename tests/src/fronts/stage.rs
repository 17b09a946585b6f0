//! The rows, live: one lab, every front, and a hundred connections through each.

use std::{
    collections::BTreeMap,
    io::Write as _,
    net::{IpAddr, SocketAddr},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tempfile::NamedTempFile;

use super::{
    Listen, Passage, Proxy, Server, forward, haproxy, nginx_at,
    objects::{self, Placed},
    rows::{Backend, Front, Node, Row, Target},
};
use crate::{
    cluster::Cluster,
    ear::Ear,
    kubeproxy::{Family, Settings},
    lab::{Lab, Options},
    netns::Namespace,
    observer_process::ObserverProcess,
    payload, run,
};

/// Where fronts listen: from here, a port for each row.
const PORTS: u16 = 7_000;
/// Clients, of both families.
const CLIENTS: [&str; 4] = [
    "203.0.113.50/24",
    "203.0.113.51/24",
    "2001:db8:113::50/64",
    "2001:db8:113::51/64",
];
/// Their networks.
const CLIENT_NETWORKS: [&str; 2] = ["203.0.113.0/24", "2001:db8:113::/64"];
/// The networks of whoever stands in front, as an observer is told.
const FRONT_NETWORKS: &str = "192.0.2.0/24,2001:db8:192::/64";
/// How long the records of what is over may take.
const SOON: Duration = Duration::from_secs(1);

/// A raised lab with everything in front of it.
#[derive(Debug)]
pub struct Stage {
    // In the order of the dismantling.
    proxies: Vec<Proxy>,
    ears: Vec<(usize, Ear)>,
    pub(super) servers: BTreeMap<Node, Server>,
    front: Namespace,
    pub(super) lab: Lab,
    objects: NamedTempFile,
    kube_proxy: NamedTempFile,
    pub(super) rows: Vec<Placed>,
    pub(super) family: Family,
}

/// What a run came to.
#[derive(Debug)]
pub struct Observed {
    /// What came to the pods.
    pub came: Vec<Came>,
    /// The records of each node, by its name.
    pub records: BTreeMap<String, Vec<Value>>,
    /// All of them, joined.
    pub joined: Vec<Value>,
    /// How the observers knew who stood in front.
    pub known: Known,
    /// How many connections went through each row.
    pub connections: usize,
}

/// How observers know who stands in front.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// They are told that these are load balancers.
    AsLoadBalancers,
    /// They are told whose headers to believe, and no more.
    AsTrusted,
    /// They are told that these are load balancers, whose headers are not to be believed; and every
    /// client writes one itself.
    AsUntrusted,
}

impl Known {
    fn options(self) -> &'static [&'static str] {
        match self {
            Self::AsLoadBalancers => &[
                "--load-balancer",
                FRONT_NETWORKS,
                "--trusted-proxies",
                "nodes,pods,load-balancers",
            ],
            Self::AsTrusted => &["--trusted-proxies", FRONT_NETWORKS],
            Self::AsUntrusted => &[
                "--load-balancer",
                FRONT_NETWORKS,
                "--trusted-proxies",
                "pods",
            ],
        }
    }
}

/// A connection that came to a pod.
#[derive(Clone, Debug)]
pub struct Came {
    /// The number of its row.
    pub row: usize,
    /// Who really connected.
    pub client: IpAddr,
    /// The peer of the pod's socket.
    pub peer: SocketAddr,
    /// Whose address the pod could read.
    pub carried: Option<IpAddr>,
}

impl Front {
    /// Its address.
    fn address(self, family: Family) -> IpAddr {
        let of_player = match (self, family) {
            (Self::Alb, Family::V4) => "192.0.2.7",
            (Self::Alb, Family::V6) => "2001:db8:192::7",
            (Self::Nlb, Family::V4) => FORWARDERS[0],
            (Self::Nlb, Family::V6) => FORWARDERS[1],
            (_, Family::V4) => "192.0.2.8",
            (_, Family::V6) => "2001:db8:192::8",
        };
        of_player.parse().expect("a literal address")
    }
}

/// Of those who keep addresses, in both families.
const FORWARDERS: [&str; 2] = ["192.0.2.9", "2001:db8:192::9"];

impl Placed {
    /// What passes on its connections.
    pub(super) fn passage(&self) -> Passage {
        let to = match self.row.target {
            Target::Instance => (self.row.entry().address(self.family), self.node_port()),
            Target::Ip => self.endpoint(),
        };
        Passage {
            at: SocketAddr::new(self.row.front.address(self.family), PORTS + self.number),
            to: to.into(),
        }
    }
}

impl Stage {
    /// Raises it.
    pub fn raise(rows: Vec<Row>, kube_proxy: Settings, family: Family) -> Result<Self> {
        let rows: Vec<Placed> = rows
            .into_iter()
            .zip(1..)
            .map(|(row, number)| Placed {
                row,
                number,
                family,
            })
            .collect();
        let list = objects::list(&rows).to_string();
        let objects = written(&list)?;
        let config = written(&kube_proxy.to_string())?;
        let clients = CLIENTS.iter().map(|text| text.parse());
        let options = Options {
            client: clients.collect::<Result<_, _>>()?,
            kube_proxy,
            ..Options::default()
        };
        let mut lab = Lab::raise(Cluster::parse(&list)?, options)?;
        for node in [Node::Node1, Node::Node2] {
            for backend in [Backend::Pod, Backend::Host] {
                lab.silence(&objects::pod_name(backend, node));
            }
        }
        let front = raise_front(&lab, &rows, family)?;
        let mut stage = Self {
            proxies: Vec::new(),
            ears: Vec::new(),
            servers: BTreeMap::new(),
            front,
            lab,
            objects,
            kube_proxy: config,
            rows,
            family,
        };
        stage.listen()?;
        stage.stand_in_front()?;
        Ok(stage)
    }

    /// The file of the objects.
    pub fn objects(&self) -> &NamedTempFile {
        &self.objects
    }

    /// The file of kube-proxy's configuration.
    pub fn kube_proxy(&self) -> &NamedTempFile {
        &self.kube_proxy
    }

    /// The rows.
    pub fn rows(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().map(|placed| &placed.row)
    }

    /// Where the pod of a row listens.
    pub fn endpoint(&self, row: usize) -> SocketAddr {
        self.rows[row].endpoint().into()
    }

    /// The address of whoever stands in front of a row.
    pub fn front(&self, row: usize) -> IpAddr {
        self.rows[row].row.front.address(self.family)
    }

    /// That of a node.
    pub fn node(&self, node: Node) -> IpAddr {
        node.address(self.family)
    }

    /// Starts what the pods run: whatever keeps what it got, by what it must understand.
    fn listen(&mut self) -> Result<()> {
        let mut in_nginx: BTreeMap<Node, Vec<(Listen, SocketAddr)>> = BTreeMap::new();
        for (number, placed) in self.rows.iter().enumerate() {
            let Row {
                front,
                backend,
                endpoint,
                ..
            } = placed.row;
            let at = placed.endpoint().into();
            if let Some(listen) = front.pod() {
                ensure!(backend == Backend::Pod, "web servers are in pods only");
                in_nginx.entry(endpoint).or_default().push((listen, at));
            } else {
                let namespace = self.namespace(backend, endpoint)?;
                self.ears.push((number, Ear::start(namespace, at)?));
            }
        }
        for (node, listens) in in_nginx {
            let server = Server::start(self.namespace(Backend::Pod, node)?, &listens)?;
            self.servers.insert(node, server);
        }
        Ok(())
    }

    fn namespace(&self, backend: Backend, node: Node) -> Result<&Namespace> {
        match backend {
            Backend::Host => Ok(&self.lab.node(node.name())?.namespace),
            Backend::Pod => {
                let name = objects::pod_name(backend, node);
                let pod = self.lab.pod(&name, node.name());
                Ok(&pod.context("the lab has no such pod")?.namespace)
            }
        }
    }

    fn stand_in_front(&mut self) -> Result<()> {
        let of_front = |wanted: Front| -> Vec<Passage> {
            let rows = self.rows.iter();
            let rows = rows.filter(|placed| placed.row.front == wanted);
            rows.map(Placed::passage).collect()
        };
        let by_haproxy: Vec<_> = self
            .rows
            .iter()
            .filter_map(|placed| Some((placed.row.front.haproxy()?, placed.passage())))
            .collect();
        forward(&self.front, &of_front(Front::Nlb))?;
        let proxies = [
            nginx_at(&self.front, &of_front(Front::Alb))?,
            haproxy(&self.front, &by_haproxy)?,
        ];
        self.proxies.extend(proxies);
        Ok(())
    }

    /// Observes both nodes while so many connections go through every row.
    pub fn observe(&self, known: Known, connections: usize) -> Result<Observed> {
        let path = self.kube_proxy.path().to_str().context("no text")?;
        let arguments = ["--payload", "known", "--kube-proxy-config", path];
        let arguments = [&arguments, known.options()].concat();
        let (nodes, objects) = (self.lab.nodes(), self.objects.path());
        let observers = ObserverProcess::start_on_each(nodes, objects, &arguments)?;
        let before = self.came()?;
        self.connect_through_all(&observers, known, connections)?;
        thread::sleep(SOON);
        let (mut records, mut printed) = (BTreeMap::new(), BTreeMap::new());
        for (node, observer) in self.lab.nodes().iter().zip(observers) {
            let finished = observer.stop()?;
            ensure!(finished.status.success(), "{}", finished.stderr);
            records.insert(node.plan.name.clone(), finished.records);
            printed.insert(node.plan.name.clone(), finished.stdout);
        }
        // Of each row, what came later is behind. Ports are used again: two may look alike.
        let mut of_before = BTreeMap::new();
        for came in before {
            *of_before.entry(came.row).or_insert(0) += 1;
        }
        let mut came = self.came()?;
        came.retain(|came| {
            let left = of_before.entry(came.row).or_insert(0);
            let is_new = *left == 0;
            *left -= i32::from(!is_new);
            is_new
        });
        Ok(Observed {
            came,
            records,
            joined: run::joined(&printed)?,
            known,
            connections,
        })
    }

    /// What came to the pods so far.
    fn came(&self) -> Result<Vec<Came>> {
        let mut came = Vec::new();
        for (row, ear) in &self.ears {
            for heard in ear.heard() {
                let text = String::from_utf8_lossy(&heard.bytes);
                // Whoever only looks whether somebody listens asks nothing.
                let Some((_, request)) = text.split_once("GET ") else {
                    continue;
                };
                came.push(Came {
                    row: *row,
                    client: who_asked(request)?,
                    peer: heard.peer,
                    carried: payload::carried(&heard.bytes),
                });
            }
        }
        for request in self.servers.values().map(Server::requests) {
            for request in request? {
                let is_it = |row: &usize| self.endpoint(*row) == request.at;
                came.push(Came {
                    row: (0..self.rows.len()).find(is_it).context("no such row")?,
                    client: who_asked(&request.path)?,
                    peer: request.peer,
                    carried: request.client,
                });
            }
        }
        Ok(came)
    }
}

/// The namespace of everything that stands in front, beside the nodes and the client.
fn raise_front(lab: &Lab, rows: &[Placed], family: Family) -> Result<Namespace> {
    let mut addresses: Vec<IpAddr> = rows
        .iter()
        .map(|placed| placed.row.front.address(family))
        .collect();
    addresses.sort();
    addresses.dedup();
    let front = lab.in_front(&addresses)?;
    // What a load balancer keeps the source of must come back by it.
    for (network, forwarder) in CLIENT_NETWORKS.iter().zip(FORWARDERS) {
        if addresses.contains(&forwarder.parse()?) {
            let back = format!("route replace {network} via {forwarder} dev eth0 onlink\n");
            lab.nodes()
                .iter()
                .try_for_each(|node| node.namespace.ip(&back))?;
        }
    }
    Ok(front)
}

fn written(text: &str) -> Result<NamedTempFile> {
    let mut file = NamedTempFile::new().context("failed to make a temporary file")?;
    file.write_all(text.as_bytes())?;
    Ok(file)
}

/// The client that a request names.
fn who_asked(path: &str) -> Result<IpAddr> {
    let name = path.split('/').nth(1).context("no client is named")?;
    Ok(name.parse()?)
}
