//! Where it is measured: a lab of one node with kube-proxy's rules in it, and servers in its pods.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex, atomic::AtomicU64},
    time::Duration,
};

use anyhow::{Context as _, Result};
use ipnet::IpNet;
use tempfile::TempDir;

use super::{
    cluster::{self, BULK, Door, ECHO, FLOODED, GATE, NODE, WEB},
    place::Place,
    server::{self, Server},
};
use crate::{
    child::{ChildGuard, poll_until},
    cluster::Cluster,
    flood::{DEVICE, Flood},
    kubeproxy::{Mode, Settings},
    lab::{Lab, LabNode, LabPod, Options},
    netns::Namespace,
};

/// Addresses of the external client: the ports of one run out.
const CLIENTS: u8 = 8;
/// Ports are free again after so long; after the kernel's two minutes they would have run out.
const TIME_WAIT: (&str, &str) = ("netfilter/nf_conntrack_tcp_timeout_time_wait", "5");
/// Whoever closes first remembers it for a minute, and another client whose packets come masqueraded
/// by the same port is taken for the one before: with so few remembered none is.
const REMEMBERED: (&str, &str) = ("ipv4/tcp_max_tw_buckets", "16");
/// What a server may take to listen.
const SERVER_TIMEOUT: Duration = Duration::from_secs(5);

/// A raised cluster with servers at work. Dropping it ends everything.
#[derive(Debug)]
pub struct Ground {
    // In the order of the dismantling.
    _processes: Vec<ChildGuard>,
    _servers: Vec<Server>,
    flood: Arc<Mutex<Flood>>,
    lab: Lab,
    folder: TempDir,
    /// How many connections the pods' sockets accepted.
    pub accepted: Arc<AtomicU64>,
    /// How many datagrams they sent back.
    pub echoed: Arc<AtomicU64>,
}

impl Ground {
    /// Raises it.
    pub fn raise() -> Result<Self> {
        let objects = cluster::objects(0);
        let client = (0..CLIENTS)
            .map(|number| format!("203.0.113.{}/24", 50 + number).parse::<IpNet>())
            .collect::<Result<_, _>>()
            .context("a literal range")?;
        let options = Options {
            client,
            kube_proxy: Settings::of(Mode::Nftables),
            ..Options::default()
        };
        let mut lab = Lab::raise(Cluster::parse(&objects.to_string())?, options)?;
        // Its own backends say who they are, line by line; these must be fast.
        for pod in cluster::DOORS.iter().flat_map(Door::pods) {
            lab.silence(&pod);
        }
        lab.nodes()[0].namespace.set_parameters(&[TIME_WAIT])?;
        let folder = tempfile::tempdir().context("failed to make a folder")?;
        let (accepted, echoed) = (Arc::default(), Arc::default());
        let flood = Flood::through(&lab.nodes()[0].namespace, FLOODED.address())?;
        let processes = start_processes(&lab, folder.path())?;
        let servers = start_servers(&lab, &accepted, &echoed)?;
        let ground = Self {
            _processes: processes,
            _servers: servers,
            flood: Arc::new(Mutex::new(flood)),
            lab,
            folder,
            accepted,
            echoed,
        };
        fs::write(ground.objects(), objects.to_string()).context("failed to write the objects")?;
        for door in [BULK, WEB] {
            ground.await_server(door.address().into())?;
        }
        Ok(ground)
    }

    fn await_server(&self, at: SocketAddr) -> Result<()> {
        let connect = || TcpStream::connect_timeout(&at, Duration::from_millis(200)).ok();
        let connected = self
            .client()
            .run(|| poll_until(SERVER_TIMEOUT, connect))?
            .with_context(|| format!("nobody listens behind {at}"));
        connected.map(drop)
    }

    /// Where clients are.
    pub fn client(&self) -> &Namespace {
        self.lab.client()
    }

    /// The addresses of clients.
    pub fn clients(&self) -> Vec<Ipv4Addr> {
        let addresses = self.lab.client_addresses().into_iter();
        addresses
            .filter_map(|address| match address {
                IpAddr::V4(address) => Some(address),
                IpAddr::V6(_) => None,
            })
            .collect()
    }

    /// The node.
    pub fn node(&self) -> &LabNode {
        &self.lab.nodes()[0]
    }

    /// What pours a flood into the node; one at a time.
    pub fn flood(&self) -> Arc<Mutex<Flood>> {
        Arc::clone(&self.flood)
    }

    /// The interfaces of the node that traffic passes: the wire, the pods', and the flood's.
    pub fn interfaces(&self) -> Vec<String> {
        let pods = self.lab.pods().iter();
        [self.lab.wire(), DEVICE]
            .into_iter()
            .chain(pods.map(LabPod::interface))
            .map(str::to_owned)
            .collect()
    }

    /// The file of the cluster's objects.
    pub fn objects(&self) -> PathBuf {
        self.folder.path().join("objects.json")
    }

    /// A folder for what does not stay.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// iperf3 and nginx.
fn start_processes(lab: &Lab, folder: &Path) -> Result<Vec<ChildGuard>> {
    let configuration = folder.join("nginx.conf");
    fs::write(&configuration, server::nginx(folder))
        .context("failed to write nginx' configuration")?;
    let configuration = configuration.to_str().context("a path is not UTF-8")?;
    let port = BULK.port.to_string();
    let mut processes = Vec::new();
    for (door, program, arguments) in [
        (BULK, "iperf3", &["--server", "--port", &port][..]),
        (WEB, "nginx", &["-c", configuration]),
    ] {
        for pod in pods_of(lab, &door)? {
            processes.push(Place::Servers.run(|| start(pod, program, arguments))?);
        }
    }
    Ok(processes)
}

fn start_servers(
    lab: &Lab,
    accepted: &Arc<AtomicU64>,
    echoed: &Arc<AtomicU64>,
) -> Result<Vec<Server>> {
    let mut servers = Vec::new();
    for pod in pods_of(lab, &GATE)? {
        pod.set_parameters(&[REMEMBERED])?;
        servers.push(Server::gate(pod, GATE.port, accepted)?);
    }
    for pod in pods_of(lab, &FLOODED)? {
        // What a flood leaves accepted, if anything, is nobody's.
        servers.push(Server::gate(pod, FLOODED.port, &Arc::default())?);
    }
    for pod in pods_of(lab, &ECHO)? {
        servers.push(Server::echo(pod, ECHO.port, echoed)?);
    }
    Ok(servers)
}

fn start(pod: &Namespace, program: &str, arguments: &[&str]) -> Result<ChildGuard> {
    let child = pod
        .command(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("failed to start {program}"))?;
    Ok(ChildGuard::new(child))
}

fn pods_of<'lab>(lab: &'lab Lab, door: &Door) -> Result<Vec<&'lab Namespace>> {
    let pod = |name: String| {
        let pod = lab.pod(&name, NODE);
        let pod = pod.with_context(|| format!("the lab has no pod {name}"))?;
        Ok(&pod.namespace)
    };
    door.pods().into_iter().map(pod).collect()
}
