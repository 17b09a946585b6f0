//! A cluster whose pods keep what they got, and what the observers must have made of it.
//!
//! What a pod's own socket saw and read is the truth: whose address the bytes carry is read here
//! once more, by other code than the observer's, and a connection is found again by the source
//! that its pod saw.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    os::fd::AsRawFd as _,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket,
    sockopt::ReuseAddr,
};
use serde_json::Value;

use crate::{
    demo,
    ear::{Ear, Heard},
    kubeproxy::{
        Family, Mode, Settings,
        doors::{FrontDoor, Kind, front_doors},
    },
    lab::{Lab, Options},
    observer_process::ObserverProcess,
};

/// Who is behind the door of these tests.
const SERVICE: &str = "web-";
/// Its node port.
const NODE_PORT: u16 = 30080;
/// By which connections enter.
const ENTRY: &str = "node1";
/// The network of whoever stands in front, in both families.
const FRONTS: [&str; 2] = ["192.0.2.7/24", "2001:db8:192::7/64"];
/// What makes an observer trust them.
pub const TRUSTED: [&str; 2] = ["--trusted-proxies", "192.0.2.7,2001:db8:192::7"];
/// Clients.
const CLIENTS: [&str; 4] = [
    "203.0.113.50/24",
    "203.0.113.51/24",
    "2001:db8:113::50/64",
    "2001:db8:113::51/64",
];
/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(8);

/// A raised cluster of such pods.
#[derive(Debug)]
pub struct Stage {
    ears: Vec<(Vec<IpAddr>, Ear)>,
    lab: Lab,
    family: Family,
}

/// What a pod got, and what the entry node said of it.
#[derive(Clone, Debug)]
pub struct Told {
    /// What the pod got.
    pub heard: Heard,
    /// The record of the node by which it entered.
    pub record: Value,
}

impl Stage {
    /// Raises it.
    pub fn raise(mode: Mode, family: Family) -> Result<Self> {
        let addresses = CLIENTS.iter().chain(&FRONTS).map(|text| text.parse());
        let options = Options {
            client: addresses.collect::<Result<_, _>>()?,
            kube_proxy: Settings::of(mode),
            ..Options::default()
        };
        let mut lab = demo::raise_with(options)?;
        let names: Vec<String> = lab
            .pods()
            .iter()
            .map(|pod| pod.plan.name.clone())
            .filter(|name| name.starts_with(SERVICE))
            .collect();
        for name in &names {
            lab.silence(name);
        }
        let mut ears = Vec::new();
        for pod in lab
            .pods()
            .iter()
            .filter(|pod| names.contains(&pod.plan.name))
        {
            let mut addresses = pod.plan.addresses.iter();
            let address = addresses.find(|address| family.holds(**address));
            let address = *address.context("a pod without such an address")?;
            for port in &pod.plan.ports {
                let ear = Ear::start(&pod.namespace, (address, port.number).into())?;
                ears.push((pod.plan.addresses.clone(), ear));
            }
        }
        Ok(Self { ears, lab, family })
    }

    /// The lab.
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// The door.
    pub fn door(&self) -> Result<SocketAddr> {
        let addresses = &self.lab.node(ENTRY)?.plan.addresses;
        let address = addresses
            .iter()
            .find(|address| self.family.holds(**address));
        Ok((*address.context("no such address")?, NODE_PORT).into())
    }

    /// The Service's own address, for who is inside.
    pub fn cluster_ip(&self) -> Result<SocketAddr> {
        let doors = front_doors(self.lab.cluster(), self.lab.kube_proxy())?;
        let is_it = |door: &&FrontDoor| {
            door.kind == Kind::ClusterIp
                && format!("{}-", door.service) == SERVICE
                && self.family.holds(door.to.ip())
        };
        let door = doors.iter().find(is_it).context("no such door")?;
        Ok(door.to)
    }

    /// The address of whoever stands in front.
    pub fn front(&self) -> Result<IpAddr> {
        self.of_family(&FRONTS).next().context("no such address")
    }

    /// Those of clients.
    pub fn clients(&self) -> Vec<IpAddr> {
        self.of_family(&CLIENTS).collect()
    }

    fn of_family<'a>(&'a self, texts: &'a [&str]) -> impl Iterator<Item = IpAddr> {
        let addresses = texts.iter().filter_map(|text| {
            let (address, _) = text.split_once('/')?;
            address.parse().ok()
        });
        addresses.filter(|address| self.family.holds(*address))
    }

    /// Connects from an address of the client's.
    pub fn connect(&self, from: IpAddr, to: SocketAddr) -> Result<TcpStream> {
        self.lab.client().run(|| connect_from(from, to))?
    }

    /// Connects, sends parts with a pause before each but the first, and waits for an answer.
    pub fn say(
        &self,
        from: IpAddr,
        to: SocketAddr,
        parts: &[&[u8]],
        pause: Duration,
    ) -> Result<()> {
        let mut stream = self.connect(from, to)?;
        for (number, part) in parts.iter().enumerate() {
            if number > 0 {
                thread::sleep(pause);
            }
            stream.write_all(part)?;
        }
        let mut answer = [0; 1_024];
        ensure!(stream.read(&mut answer)? > 0, "no answer");
        Ok(())
    }

    /// Observes every node while `work` is done; then what each pod got, with the record of the
    /// entry node. No node may have recovered another address than the bytes carry.
    pub fn observe(&self, more: &[&str], work: impl FnOnce() -> Result<()>) -> Result<Vec<Told>> {
        let state = demo::cluster_file();
        let observers = ObserverProcess::start_on_each(self.lab.nodes(), &state, more)?;
        let before: Vec<usize> = self.ears.iter().map(|(_, ear)| ear.heard().len()).collect();
        work()?;
        // A pod keeps it before it answers; an observer tells it soon.
        thread::sleep(Duration::from_millis(500));
        let mut records = Vec::new();
        for observer in observers {
            let finished = observer.stop()?;
            ensure!(finished.status.success(), "{}", finished.stderr);
            records.extend(finished.records);
        }
        let mut told = Vec::new();
        let heard = self
            .ears
            .iter()
            .zip(before)
            .flat_map(|((pod, ear), before)| {
                let heard = ear.heard().into_iter().skip(before);
                heard.map(move |heard| (pod, heard))
            });
        for (pod, heard) in heard {
            let of_it = records.iter().filter(|record| is_of(record, pod, &heard));
            for record in of_it {
                let recovered = recovered(record);
                ensure!(
                    recovered.is_none() || recovered == carried(&heard.bytes),
                    "another address than the bytes carry: {record}"
                );
                let kind = record["front_door"]["kind"].as_str();
                if record["node"] == ENTRY && matches!(kind, Some("NodePort" | "ClusterIP")) {
                    let (heard, record) = (heard.clone(), record.clone());
                    told.push(Told { heard, record });
                }
            }
        }
        Ok(told)
    }
}

/// Connects from an address of the namespace that the calling thread is in.
pub fn connect_from(from: IpAddr, to: SocketAddr) -> Result<TcpStream> {
    let family = match to {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&socket, ReuseAddr, &true)?;
    let source = SocketAddr::new(from, 0);
    bind(socket.as_raw_fd(), &SockaddrStorage::from(source))?;
    connect(socket.as_raw_fd(), &SockaddrStorage::from(to))?;
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    Ok(stream)
}

/// Whether a record is of what a pod got.
fn is_of(record: &Value, pod: &[IpAddr], heard: &Heard) -> bool {
    let address = |place: &str| {
        let end = record.pointer(place)?;
        let ip: IpAddr = end["ip"].as_str()?.parse().ok()?;
        let port = u16::try_from(end["port"].as_u64()?).ok()?;
        Some(SocketAddr::new(ip, port))
    };
    address("/source_seen") == Some(heard.peer)
        && address("/backend").is_some_and(|backend| pod.contains(&backend.ip()))
}

/// The address that a record says was recovered.
pub fn recovered(record: &Value) -> Option<IpAddr> {
    record["client"]["recovered"].as_str()?.parse().ok()
}

/// Whose address the bytes carry: the last that whoever sent them added.
pub fn carried(bytes: &[u8]) -> Option<IpAddr> {
    if let Some(binary) = bytes.strip_prefix(b"\r\n\r\n\0\r\nQUIT\n") {
        return match binary {
            [0x21, 0x11, _, _, a, b, c, d, ..] => Some(Ipv4Addr::new(*a, *b, *c, *d).into()),
            [0x21, 0x21, _, _, rest @ ..] => {
                let octets: [u8; 16] = *rest.first_chunk()?;
                Some(Ipv6Addr::from(octets).into())
            }
            _ => None,
        };
    }
    let text = String::from_utf8_lossy(bytes);
    if let Some(line) = text.strip_prefix("PROXY TCP") {
        return line.split(' ').nth(1)?.parse().ok();
    }
    let head = text.split("\r\n\r\n").next()?;
    let mut fields = head.lines().filter_map(|line| line.split_once(':'));
    let last = fields.rfind(|(name, _)| name.eq_ignore_ascii_case("x-forwarded-for"))?;
    last.1.rsplit(',').next()?.trim().parse().ok()
}
