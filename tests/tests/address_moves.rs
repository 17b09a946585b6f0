//! A load balancer's address that one node answers for, as `MetalLB` announces it in layer 2 mode,
//! and that moves to another node and back.
//!
//! Goal: every connection is reported once, by the node that had the address when it was opened, as
//! the pod's socket saw it, under both policies; one that is cut by the move, or outlives it, is no
//! other connection to any node. Method: the nodes answer for the address by ARP and neighbour
//! discovery alone; a move is told by gratuitous packets; connections are opened before, held across,
//! and opened after.

use std::{
    collections::HashMap,
    io::{ErrorKind, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use rstest::rstest;
use tests::{
    child::poll_until,
    client::Answer,
    command, demo,
    ear::Ear,
    fronts::announced::Announced,
    kubeproxy::{
        Backend, Family, Mode, Settings,
        doors::{FrontDoor, Kind, Policy, front_doors},
    },
    lab::{Lab, Options},
    payload, privilege,
    run::Observers,
    traffic::{Client, Opened, Way},
};

const CONNECTIONS: usize = 100;
/// How many are open across a move.
const HELD: usize = 5;
/// Those of these Services may move: one under each policy, with endpoints on both nodes.
const SERVICES: [&str; 2] = ["store", "checkout"];
/// The word for it has this long to come.
const MOVED: Duration = Duration::from_secs(2);
const NODES: [&str; 2] = ["node1", "node2"];

/// A lab whose pods keep what they got.
struct Stage {
    ears: Vec<(String, SocketAddr, Ear)>,
    lab: Lab,
    doors: Vec<FrontDoor>,
    client: IpAddr,
}

/// What was opened, by whom; the requests carry its number.
type Log = Vec<(Way, SocketAddr)>;

impl Stage {
    fn raise(mode: Mode, family: Family) -> Result<Self> {
        let options = Options {
            kube_proxy: Settings::of(mode),
            ..Options::default()
        };
        let mut lab = demo::raise_with(options)?;
        let is_of = |pod: &str| SERVICES.iter().any(|service| pod.starts_with(service));
        let names = lab.pods().iter().map(|pod| pod.plan.name.clone());
        let names: Vec<String> = names.filter(|name| is_of(name)).collect();
        let mut ears = Vec::new();
        for name in names {
            lab.silence(&name);
            let pod = lab.pods().iter().find(|pod| pod.plan.name == name);
            let pod = pod.context("no such pod")?;
            for port in &pod.plan.ports {
                let mut addresses = pod.plan.addresses.iter();
                let address = addresses.find(|address| family.holds(**address));
                let at = (*address.context("no such address")?, port.number).into();
                ears.push((name.clone(), at, Ear::start(&pod.namespace, at)?));
            }
        }
        let doors = front_doors(lab.cluster(), lab.kube_proxy())?
            .into_iter()
            .filter(|door| door.kind == Kind::LoadBalancer && family.holds(door.to.ip()))
            .filter(|door| SERVICES.contains(&&*door.service))
            .collect();
        let mut clients = lab.client_addresses().into_iter();
        let client = clients.find(|address| family.holds(*address));
        let stage = Self {
            ears,
            client: client.context("no client")?,
            lab,
            doors,
        };
        // On the link, where who has it is asked for.
        for address in stage.addresses() {
            let route = format!("route replace {address} dev {}\n", stage.lab.wire());
            stage.lab.client().ip(&route)?;
        }
        Ok(stage)
    }

    /// The addresses that move.
    fn addresses(&self) -> Vec<IpAddr> {
        let mut addresses: Vec<_> = self.doors.iter().map(|door| door.to.ip()).collect();
        addresses.sort();
        addresses.dedup();
        addresses
    }

    /// Makes a node answer for the addresses, and waits until the client knows, who asked nobody.
    fn announce(&self, node: &str) -> Result<Announced> {
        let namespace = &self.lab.node(node)?.namespace;
        let announced = Announced::at(namespace, self.lab.wire(), &self.addresses())?;
        let link =
            |of: &str, what: &[&str]| command::run(Command::new("ip").args(["-n", of]).args(what));
        let own = link(namespace.name(), &["-o", "link", "show", self.lab.wire()])?;
        let mut words = own
            .split_whitespace()
            .skip_while(|word| *word != "link/ether");
        let mac = words.nth(1).context("no link address")?;
        let client = self.lab.client().name();
        for address in self.addresses() {
            let address = address.to_string();
            let known = || link(client, &["neighbour", "show", "to", &address]).ok();
            let moved = poll_until(MOVED, || {
                let known = known()?;
                // Who never asked has nothing to correct.
                (known.is_empty() || known.contains(mac)).then_some(())
            });
            moved.with_context(|| format!("{address} did not move to {node}: {:?}", known()))?;
        }
        Ok(announced)
    }

    /// Opens connections to each address, by the node that has them.
    fn open(&self, log: &mut Log, number: usize, entry: &str) -> Result<Vec<TcpStream>> {
        let mut streams = Vec::new();
        let doors: Vec<_> = self
            .doors
            .iter()
            .filter(|door| door.entry == entry)
            .collect();
        ensure!(doors.len() == SERVICES.len(), "{} doors", doors.len());
        for door in doors {
            for _ in 0..number {
                let connect = || payload::connect_from(self.client, door.to);
                let mut stream = self.lab.client().run(connect)??;
                let client = Client::External(self.client);
                let way = Way {
                    client,
                    door: door.clone(),
                };
                ask(&mut stream, log.len())?;
                log.push((way, stream.local_addr()?));
                streams.push(stream);
            }
        }
        Ok(streams)
    }

    /// What was opened, with what the pods saw of it.
    fn opened(&self, log: Log) -> Result<Vec<Opened>> {
        let mut answers = HashMap::new();
        for (pod, at, ear) in &self.ears {
            for heard in ear.heard() {
                let text = String::from_utf8_lossy(&heard.bytes);
                let number = text
                    .split('/')
                    .nth(1)
                    .and_then(|rest| rest.split(' ').next());
                let number: usize = number.context("no number")?.parse()?;
                let before = answers.insert(number, (pod.clone(), *at, heard.peer));
                ensure!(before.is_none(), "{number} came twice");
            }
        }
        let with_answer = |(number, (way, local)): (usize, (Way, SocketAddr))| {
            let (pod, backend, peer_seen) = answers.remove(&number).context("it never came")?;
            Ok(Opened {
                way,
                client: local,
                result: Ok(Answer {
                    local,
                    peer_seen,
                    backend,
                    pod,
                }),
            })
        };
        log.into_iter().enumerate().map(with_answer).collect()
    }
}

/// Asks once more, or for the first time, and waits for the answer.
fn ask(stream: &mut TcpStream, number: usize) -> std::io::Result<()> {
    // In one piece: of several, all but the first would find it closed already.
    let request = format!("GET /{number} HTTP/1.1\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = [0; 1_024];
    match stream.read(&mut answer)? {
        0 => Err(ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

/// The sockets know, too, by which node a connection came: under Cluster it has that node's
/// address, under Local it is one of that node's pods.
fn came_by_its_node(lab: &Lab, opened: &Opened) -> bool {
    let Ok(answer) = &opened.result else {
        return false;
    };
    let saw = match opened.way.door.policy {
        Policy::Cluster => answer.peer_seen.ip(),
        Policy::Local => answer.backend.ip(),
    };
    lab.plan().node_of(saw) == Some(opened.way.door.entry.as_str())
}

#[rstest]
fn whatever_node_has_the_address_tells(
    #[values(Mode::Iptables(Backend::Nft), Mode::Nftables)] mode: Mode,
    #[values(Family::V4, Family::V6)] family: Family,
) {
    if !privilege::granted("whatever_node_has_the_address_tells") {
        return;
    }
    let [first, second] = NODES;
    let stage = Stage::raise(mode, family).expect("raised");
    let mut log = Log::new();
    let announced = stage.announce(first).expect("announced");
    let observers = Observers::start(&stage.lab, &demo::cluster_file()).expect("observed");
    drop(stage.open(&mut log, CONNECTIONS, first).expect("opened"));
    let cut = stage.open(&mut log, HELD, first).expect("opened");
    let outliving = stage.open(&mut log, HELD, first).expect("opened");

    drop(announced);
    let announced = stage.announce(second).expect("announced");
    drop(stage.open(&mut log, CONNECTIONS, second).expect("opened"));
    for mut stream in cut {
        let said = ask(&mut stream, 0).expect_err("the other node knows nothing of it");
        assert_eq!(said.kind(), ErrorKind::ConnectionReset, "{said}");
    }

    drop(announced);
    let _announced = stage.announce(first).expect("announced");
    for mut stream in outliving {
        ask(&mut stream, 0).expect("the first node knows it still");
    }
    drop(stage.open(&mut log, HELD, first).expect("opened"));

    let opened = stage.opened(log).expect("they came");
    for opened in &opened {
        assert!(came_by_its_node(&stage.lab, opened), "{opened:?}");
    }
    let run = observers.stop(opened).expect("ended");
    run.assert_right(&stage.lab);
    run.assert_joined(&stage.lab);
    run.assert_replayed();
}
