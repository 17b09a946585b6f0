//! Clients that write a header themselves, behind load balancers that only pass it on.
//!
//! Goal: through a load balancer of plain TCP, one that replaces addresses or one that keeps them, no
//! client is believed by default, and what it writes changes nothing else that is told; who says that
//! the load balancers write the header themselves (`--trusted-proxies load-balancers`), and whose
//! load balancer is in the status of a Service, believes it, as SECURITY.md says. Method: `HAProxy`
//! and the kernel's NAT in front of a node port, clients with every kind of header and without, and
//! compare with the bytes that came to the pod.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use rstest::rstest;
use serde_json::{Value, json};
use tempfile::NamedTempFile;
use tests::{
    cluster::Cluster,
    ear::Ear,
    fronts::{Haproxy, Passage, Proxy, forward},
    kubeproxy::{Backend, Family, Mode, Settings},
    lab::{Lab, Options},
    netns::Namespace,
    observer_process::ObserverProcess,
    oracle::end,
    payload, privilege,
    small::{self, NODES, Pod},
};

const PORT: u16 = 8_000;
/// How often each header is sent.
const TIMES: usize = 5;
/// How long the records of what is over may take.
const SOON: Duration = Duration::from_millis(500);

/// What stands in front.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Front {
    /// It replaces addresses, and is named (`--load-balancer`).
    Named,
    /// It replaces addresses, and its own is in the status of the Service.
    InStatus,
    /// It keeps addresses.
    Keeping,
}

/// Who is trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trust {
    Default,
    NodesAndPods,
    LoadBalancers,
}

impl Front {
    const ALL: [Self; 3] = [Self::Named, Self::InStatus, Self::Keeping];

    fn address(self, family: Family) -> IpAddr {
        let addresses = match self {
            Self::Named => ["192.0.2.10", "2001:db8:192::10"],
            Self::InStatus => ["192.0.2.11", "2001:db8:192::11"],
            Self::Keeping => ["192.0.2.12", "2001:db8:192::12"],
        };
        of_family(addresses, family)
    }

    /// Whom a pod sees.
    fn shows(self, family: Family) -> IpAddr {
        match self {
            Self::Named | Self::InStatus => self.address(family),
            Self::Keeping => self.client(family),
        }
    }

    /// Who connects by it: what keeps addresses must be on the way back.
    fn client(self, family: Family) -> IpAddr {
        let addresses = match self {
            Self::Named | Self::InStatus => ["203.0.113.50", "2001:db8:113::50"],
            Self::Keeping => ["198.51.100.50", "2001:db8:100::50"],
        };
        of_family(addresses, family)
    }
}

impl Trust {
    fn options(self) -> &'static [&'static str] {
        match self {
            Self::Default => &[],
            Self::NodesAndPods => &["--trusted-proxies", "nodes,pods"],
            Self::LoadBalancers => &["--trusted-proxies", "nodes,pods,load-balancers"],
        }
    }

    /// SECURITY.md says so.
    fn believes(self, front: Front) -> bool {
        match (self, front) {
            (_, Front::Keeping) | (Self::NodesAndPods, _) | (Self::Default, Front::Named) => false,
            (Self::LoadBalancers, _) | (Self::Default, Front::InStatus) => true,
        }
    }
}

fn of_family([v4, v6]: [&str; 2], family: Family) -> IpAddr {
    let text = if family == Family::V4 { v4 } else { v6 };
    text.parse().expect("a literal address")
}

/// Whom clients claim to be.
fn victim(family: Family) -> IpAddr {
    of_family(["203.0.113.200", "2001:db8:113::200"], family)
}

/// What clients send: the kind of the header, and all that comes of it. None at first.
fn forgeries(family: Family) -> Vec<(&'static str, Vec<u8>)> {
    let victim = victim(family);
    let request = |fields: &str| format!("GET / HTTP/1.1\r\nHost: shop\r\n{fields}\r\n");
    let (word, v2) = match victim {
        IpAddr::V4(victim) => ("TCP4", (0x11, 12, [victim.octets(); 2].concat())),
        IpAddr::V6(victim) => ("TCP6", (0x21, 36, [victim.octets(); 2].concat())),
    };
    let line = format!("PROXY {word} {victim} {victim} 4000 80\r\n");
    let signature = b"\r\n\r\n\0\r\nQUIT\n";
    let (kind, length, addresses) = v2;
    let ports = [0x0f, 0xa0, 0, 80];
    let binary = [signature, &[0x21, kind, 0, length][..], &addresses, &ports].concat();
    let quoted = match family {
        Family::V4 => format!("Forwarded: for={victim}\r\n"),
        Family::V6 => format!("Forwarded: for=\"[{victim}]\"\r\n"),
    };
    vec![
        ("none", request("").into_bytes()),
        ("proxy-v1", (line + &request("")).into_bytes()),
        ("proxy-v2", [binary, request("").into_bytes()].concat()),
        (
            "x-forwarded-for",
            request(&format!("X-Forwarded-For: {victim}\r\n")).into_bytes(),
        ),
        ("forwarded", request(&quoted).into_bytes()),
    ]
}

/// A raised lab with all of them.
struct Stage {
    // In the order of the dismantling.
    _proxies: Vec<Proxy>,
    ear: Ear,
    _front: Namespace,
    lab: Lab,
    objects: NamedTempFile,
    family: Family,
}

impl Stage {
    fn raise(mode: Mode, family: Family) -> Result<Self> {
        let pod = Pod {
            namespace: "shop",
            name: "web",
            node: 1,
            number: 5,
            port: 8_080,
            node_port: 30_005,
            annotations: json!({}),
            containers: json!([{"name": "web", "image": "registry.example/web:1"}]),
            load_balancer: Some(Front::InStatus.address(family)),
        };
        let list = small::list(std::slice::from_ref(&pod), Vec::new()).to_string();
        let mut objects = NamedTempFile::new()?;
        objects.write_all(list.as_bytes())?;
        let prefix = if family == Family::V4 { 24 } else { 64 };
        let clients = [Front::Named, Front::Keeping].map(|front| front.client(family));
        let clients = clients
            .iter()
            .map(|client| format!("{client}/{prefix}").parse());
        let options = Options {
            client: clients.collect::<Result<_, _>>()?,
            kube_proxy: Settings::of(mode),
            ..Options::default()
        };
        let mut lab = Lab::raise(Cluster::parse(&list)?, options)?;
        lab.silence(pod.name);
        let namespace = &lab.pod(pod.name, NODES[0]).context("no pod")?.namespace;
        let ear = Ear::start(namespace, SocketAddr::new(pod.address(family), pod.port))?;
        let front = lab.in_front(&Front::ALL.map(|front| front.address(family)))?;
        let to = SocketAddr::new(small::node_address(1, family), pod.node_port);
        let at = |front: Front| SocketAddr::new(front.address(family), PORT);
        forward(
            &front,
            &[Passage {
                at: at(Front::Keeping),
                to,
            }],
        )?;
        let keeping = Front::Keeping;
        let network = of_family(["198.51.100.0", "2001:db8:100::"], family);
        let back = keeping.address(family);
        let route = format!("route replace {network}/{prefix} via {back} dev eth0 onlink\n");
        lab.node(NODES[0])?.namespace.ip(&route)?;
        let plain = |of: Front| Haproxy::Plain.start(&front, at(of), to);
        let proxies = vec![plain(Front::Named)?, plain(Front::InStatus)?];
        Ok(Self {
            _proxies: proxies,
            ear,
            _front: front,
            lab,
            objects,
            family,
        })
    }

    /// What is told of every kind of header by every front.
    fn told(&self, trust: Trust) -> Result<Vec<Told>> {
        let named = Front::Named.address(self.family).to_string();
        let arguments = ["--payload", "on", "--load-balancer", &named];
        let arguments = [&arguments[..], trust.options()].concat();
        let node = self.lab.node(NODES[0])?;
        let observer = ObserverProcess::start(node, self.objects.path(), &arguments)?;
        let before = self.ear.heard().len();
        let forgeries = forgeries(self.family);
        for front in Front::ALL {
            for (kind, bytes) in &forgeries {
                for _ in 0..TIMES {
                    self.send(front, bytes).context(*kind)?;
                }
            }
        }
        observer.wait_for_records(TIMES * forgeries.len() * Front::ALL.len())?;
        thread::sleep(SOON);
        let finished = observer.stop()?;
        ensure!(finished.status.success(), "{}", finished.stderr);
        let heard = self.ear.heard();
        let told = heard[before..].iter().map(|heard| {
            let is_kind = |(_, bytes): &&(_, Vec<u8>)| heard.bytes == *bytes;
            let (kind, _) = forgeries.iter().find(is_kind).context("came otherwise")?;
            let mut fronts = Front::ALL.into_iter();
            let front = fronts.find(|front| front.shows(self.family) == heard.peer.ip());
            let is_it = |record: &&Value| end(record, "/source_seen") == Some(heard.peer);
            let mut of_it = finished.records.iter().filter(is_it);
            let record = of_it.next().context("it is not told")?;
            ensure!(of_it.next().is_none(), "it is told twice");
            Ok(Told {
                front: front.context("by nobody")?,
                kind,
                record: record.clone(),
            })
        });
        told.collect()
    }

    fn send(&self, front: Front, bytes: &[u8]) -> Result<()> {
        let to = SocketAddr::new(front.address(self.family), PORT);
        let from = front.client(self.family);
        let mut stream = self
            .lab
            .client()
            .run(|| payload::connect_from(from, to))??;
        stream.write_all(bytes)?;
        ensure!(stream.read(&mut [0; 1_024])? > 0, "no answer");
        Ok(())
    }
}

/// A connection, and what is told of it.
struct Told {
    front: Front,
    /// Of the header.
    kind: &'static str,
    record: Value,
}

/// All that a client's bytes may not change.
fn rest(record: &Value) -> Value {
    let mut record = record.clone();
    let codes = |list: &Value, code: &str| -> Value {
        let items = list.as_array().into_iter().flatten();
        items
            .filter_map(|item| item.pointer(code).cloned())
            .collect()
    };
    let losses = codes(&record["losses"], "/cause/code");
    let findings = codes(&record["findings"], "/code");
    let mut take = |field: &str| record[field].take();
    let client = take("client");
    json!({
        "losses": losses, "findings": findings, "source_ip": take("source_ip"),
        "lost_at": take("lost_at"), "cause": take("cause"), "outcome": take("outcome"),
        "as_expected": take("as_expected"), "ip": client["ip"], "kind": client["kind"],
        "beyond": take("beyond"), "through": take("through"),
    })
}

#[rstest]
fn who_writes_a_header_itself_is_believed_by_nobody(
    #[values(Mode::Iptables(Backend::Nft), Mode::Nftables)] mode: Mode,
    #[values(Family::V4, Family::V6)] family: Family,
) {
    if !privilege::granted("who_writes_a_header_itself_is_believed_by_nobody") {
        return;
    }
    let stage = Stage::raise(mode, family).expect("raised");
    for trust in [Trust::Default, Trust::NodesAndPods, Trust::LoadBalancers] {
        let all = stage.told(trust);
        let all = all.unwrap_or_else(|error| panic!("{trust:?}: {error:#}"));
        for front in Front::ALL {
            let told: Vec<_> = all.iter().filter(|told| told.front == front).collect();
            assert_eq!(told.len(), TIMES * forgeries(family).len());
            let honest = told.iter().find(|told| told.kind == "none");
            let honest = rest(&honest.expect("there is one").record);
            for Told { kind, record, .. } in told {
                let client = &record["client"];
                let of = format!("{front:?}, {trust:?}, {kind}: {record}");
                if *kind == "none" {
                    assert_eq!(client["not_recovered"], "no-header", "{of}");
                } else if trust.believes(front) {
                    assert_eq!(client["recovered"], json!(victim(family)), "{of}");
                    assert_eq!(client["recovered_from"], *kind, "{of}");
                } else {
                    assert_eq!(client["recovered"], Value::Null, "{of}");
                    assert_eq!(client["not_recovered"], "untrusted-peer", "{of}");
                    assert_eq!(rest(record), honest, "{of}");
                }
            }
        }
    }
}
