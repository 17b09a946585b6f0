//! Proxies on a node, and the two connections that each of them makes of one.
//!
//! Three say, each for itself, which connections belong together, and none of them asks an
//! observer: the client's own socket, and the path that it asks for; the proxy's log of whom its
//! socket saw; and the pod's socket, with the bytes that came by it.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    child::poll_until,
    ear::{Ear, Heard},
    fronts::{Logged, Proxy},
    kubeproxy::{Family, Mode},
    lab::{Lab, LabNode, Options},
    netns::Namespace,
    observer_process::{Finished, ObserverProcess},
    payload,
    scene::Scene,
};

mod proxies;

/// Where the first proxy listens; each next one a port further.
const PORT: u16 = 9_100;
/// The node port of the first, by policy Cluster and Local.
const NODE_PORTS: [u16; 2] = [30_100, 30_200];
/// The node with the proxies.
pub const NODE: &str = "node1";
const OTHER_NODE: &str = "node2";
/// The pod that they are in.
const POD: &str = "proxy-0";
const PODS_PORT: u16 = 8_080;
/// What their connections go to, in both families.
const SERVICE: [&str; 2] = ["10.96.90.10", "fd00:10:96::5a0a"];
const SERVICE_PORT: u16 = 80;
const CLIENTS: [&str; 6] = [
    "203.0.113.50/24",
    "203.0.113.51/24",
    "203.0.113.52/24",
    "2001:db8:113::50/64",
    "2001:db8:113::51/64",
    "2001:db8:113::52/64",
];
const READY: Duration = Duration::from_secs(10);
/// How long the records of what is over may take.
const SOON: Duration = Duration::from_secs(1);

/// How a proxy tells whom it speaks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// nginx by `X-Forwarded-For`: `$proxy_add_x_forwarded_for`.
    NginxForwardedFor,
    /// nginx by `Forwarded`, with the port.
    NginxForwarded,
    /// `HAProxy` by `option forwardfor`.
    HaproxyForwardedFor,
    /// `HAProxy` by a PROXY header of version 1.
    HaproxySendProxy,
    /// `HAProxy` by one of version 2.
    HaproxySendProxyV2,
}

/// Where a proxy is, and how one comes to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a pod, by a node port of policy Cluster at its node.
    Cluster,
    /// In a pod, by a node port of policy Local.
    Local,
    /// In a pod, by a node port of policy Cluster at the other node.
    OtherNode,
    /// In the node's network, by the node's address.
    Host,
}

/// One connection of a client's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// By which proxy.
    pub kind: Kind,
    /// Where.
    pub place: Place,
    /// The client's own end.
    pub client: SocketAddr,
    /// Where it went to.
    pub door: SocketAddr,
    /// What it asked for: paths of one connection begin alike.
    pub path: String,
}

/// What a run came to.
#[derive(Debug)]
pub struct Run {
    /// What clients asked for.
    pub asked: Vec<Asked>,
    /// What the pods got, each in the order in which it came.
    pub heard: BTreeMap<IpAddr, Vec<Heard>>,
    /// What the proxies logged.
    pub logged: Vec<Logged>,
    /// What the observer of the proxies' node told.
    pub told: Finished,
}

/// A raised lab with proxies in a pod and in a node's network.
#[derive(Debug)]
pub struct Stage {
    // In the order of the dismantling.
    proxies: Vec<Proxy>,
    ears: Vec<(IpAddr, Ear)>,
    lab: Lab,
    scene: Scene,
    family: Family,
}

impl Kind {
    /// All.
    pub const ALL: [Self; 5] = [
        Self::NginxForwardedFor,
        Self::NginxForwarded,
        Self::HaproxyForwardedFor,
        Self::HaproxySendProxy,
        Self::HaproxySendProxyV2,
    ];

    /// Whether it tells the port, too.
    pub fn tells_the_port(self) -> bool {
        !matches!(self, Self::NginxForwardedFor | Self::HaproxyForwardedFor)
    }

    /// Whether it makes a connection of each request.
    pub fn connects_anew(self) -> bool {
        !matches!(self, Self::HaproxySendProxy | Self::HaproxySendProxyV2)
    }

    /// Whether it is `HAProxy`, whose log has its own ends.
    pub fn is_haproxy(self) -> bool {
        !matches!(self, Self::NginxForwardedFor | Self::NginxForwarded)
    }

    fn number(self) -> u16 {
        Self::ALL
            .into_iter()
            .take_while(|kind| *kind != self)
            .fold(0, |number, _| number + 1)
    }
}

impl Place {
    /// All.
    pub const ALL: [Self; 4] = [Self::Cluster, Self::Local, Self::OtherNode, Self::Host];
}

impl Stage {
    /// Raises it.
    pub fn raise(mode: Mode, family: Family) -> Result<Self> {
        let scene = Scene::proxies();
        let clients = CLIENTS.iter().map(|text| text.parse());
        let options = Options {
            client: clients.collect::<Result<_, _>>()?,
            kube_proxy: scene.settings(mode),
            network: scene.network,
        };
        let mut lab = Lab::raise(scene.cluster()?, options)?;
        let names: Vec<_> = lab.pods().iter().map(|pod| pod.plan.name.clone()).collect();
        for name in &names {
            lab.silence(name);
        }
        let mut stage = Self {
            proxies: Vec::new(),
            ears: Vec::new(),
            lab,
            scene,
            family,
        };
        for pod in stage.lab.pods() {
            let address = stage.of_family(&pod.plan.addresses)?;
            if pod.plan.name == POD {
                stage
                    .proxies
                    .extend(stage.proxies(&pod.namespace, address)?);
            } else {
                let at = SocketAddr::new(address, PODS_PORT);
                let ear = Ear::start(&pod.namespace, at)?;
                stage.ears.push((address, ear));
            }
        }
        let node = stage.lab.node(NODE)?;
        let address = stage.of_family(&node.plan.addresses)?;
        stage
            .proxies
            .extend(stage.proxies(&node.namespace, address)?);
        Ok(stage)
    }

    fn of_family(&self, addresses: &[IpAddr]) -> Result<IpAddr> {
        let mut addresses = addresses.iter();
        let address = addresses.find(|address| self.family.holds(**address));
        address.copied().context("no such address")
    }

    fn proxies(&self, namespace: &Namespace, address: IpAddr) -> Result<[Proxy; 2]> {
        let service: IpAddr = match self.family {
            Family::V4 => SERVICE[0],
            Family::V6 => SERVICE[1],
        }
        .parse()?;
        let to = SocketAddr::new(service, SERVICE_PORT);
        Ok([
            proxies::nginx(namespace, address, to)?,
            proxies::haproxy(namespace, address, to)?,
        ])
    }

    /// The clients' addresses.
    pub fn clients(&self) -> Result<Vec<IpAddr>> {
        let addresses = CLIENTS
            .iter()
            .map(|text| text.split('/').next().unwrap_or(text).parse());
        let all: Vec<IpAddr> = addresses.collect::<Result<_, _>>()?;
        Ok(all
            .into_iter()
            .filter(|address| self.family.holds(*address))
            .collect())
    }

    /// A node's address.
    pub fn address(&self, node: &str) -> Result<IpAddr> {
        self.of_family(&self.lab.node(node)?.plan.addresses)
    }

    /// That of the other node.
    pub fn other_node(&self) -> Result<IpAddr> {
        self.address(OTHER_NODE)
    }

    fn door(&self, kind: Kind, place: Place) -> Result<SocketAddr> {
        let (node, first) = match place {
            Place::Cluster => (NODE, NODE_PORTS[0]),
            Place::Local => (NODE, NODE_PORTS[1]),
            Place::OtherNode => (OTHER_NODE, NODE_PORTS[0]),
            Place::Host => (NODE, PORT),
        };
        Ok(SocketAddr::new(self.address(node)?, first + kind.number()))
    }

    fn node(&self) -> Result<&LabNode> {
        self.lab.node(NODE)
    }

    /// Observes the proxies' node while clients connect so many times by every proxy and place; a
    /// few of them stay connected for a while, and ask again later.
    pub fn run(&self, connections: usize, more: &[&str]) -> Result<Run> {
        let observer = ObserverProcess::start(self.node()?, &self.scene.objects, more)?;
        let before = self.logged()?.len();
        let (mut asked, mut requests) = (Vec::new(), 0);
        for place in Place::ALL {
            for kind in Kind::ALL {
                let asked = self.ask(kind, place, connections, &mut asked);
                requests += asked.with_context(|| format!("{kind:?}, {place:?}"))?;
            }
        }
        // HAProxy logs what is over.
        let are_logged = || {
            let logged = self.logged().ok()?;
            (logged.len() >= before + requests).then_some(())
        };
        poll_until(READY, are_logged).context("not everything was logged")?;
        // A pod keeps it before it answers; an observer tells it soon.
        thread::sleep(SOON);
        let told = observer.stop()?;
        ensure!(told.status.success(), "{}", told.stderr);
        Ok(Run {
            asked,
            heard: self.heard(),
            logged: self.logged()?,
            told,
        })
    }

    fn ask(
        &self,
        kind: Kind,
        place: Place,
        connections: usize,
        asked: &mut Vec<Asked>,
    ) -> Result<usize> {
        const STAYS: usize = 4;
        let door = self.door(kind, place)?;
        let clients = self.clients()?;
        let (mut open, mut requests) = (Vec::new(), 0);
        for number in 0..connections {
            let from = clients[number % clients.len()];
            let mut stream = self.connect(from, door)?;
            let path = format!("/{kind:?}/{place:?}/{number}/");
            let client = stream.local_addr()?;
            request(&mut stream, &path)?;
            requests += 1;
            asked.push(Asked {
                kind,
                place,
                client,
                door,
                path: path.clone(),
            });
            if kind.connects_anew() && number % STAYS == 0 {
                open.push((stream, path));
            }
            if open.len() > STAYS {
                let (mut stream, path) = open.remove(0);
                request(&mut stream, &format!("{path}again"))?;
                requests += 1;
            }
        }
        Ok(requests)
    }

    fn connect(&self, from: IpAddr, to: SocketAddr) -> Result<TcpStream> {
        self.lab.client().run(|| payload::connect_from(from, to))?
    }

    fn heard(&self) -> BTreeMap<IpAddr, Vec<Heard>> {
        let ears = self.ears.iter();
        ears.map(|(address, ear)| (*address, ear.heard())).collect()
    }

    fn logged(&self) -> Result<Vec<Logged>> {
        let mut logged = Vec::new();
        for proxy in &self.proxies {
            logged.extend(Logged::by(proxy)?);
        }
        Ok(logged)
    }
}

/// Asks, and waits for the whole answer.
fn request(stream: &mut TcpStream, path: &str) -> Result<()> {
    write!(stream, "GET {path} HTTP/1.1\r\nHost: shop.example\r\n\r\n")?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"ok\n") {
        let mut part = [0; 1_024];
        let length = stream.read(&mut part)?;
        let so_far = String::from_utf8_lossy(&answer);
        ensure!(length > 0, "{path}: it ends after {so_far:?}");
        answer.extend(&part[..length]);
    }
    Ok(())
}
