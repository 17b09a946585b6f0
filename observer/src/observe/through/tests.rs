//! Which connection a proxy speaks for.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::json;

use crate::cluster::{FrontDoorKind, Index, Objects, Protocol, Snapshot};
use crate::flow::Connection;
use crate::observation::{
    Arrival, Conntrack, Departure, Identity, IfIndex, Interfaces, Kind, Moment, Observation,
    Passage, Ttl, Tuple,
};
use crate::observe::{Asking, Epoch, Event, Observer, Output, Settings, Whose};
use crate::payload::{Carrier, Chain, Reading, Reason};
use crate::record::{Confidence, Record, Through};
use crate::verdict::{CauseCode, SourceIp};

mod belief;
mod by_address;
mod by_port;
mod properties;
mod ways;

const UPLINK: IfIndex = IfIndex(2);
const VETH: IfIndex = IfIndex(3);
const NODE: &str = "172.31.0.11";
const OTHER_NODE: &str = "172.31.0.12";
const PROXY: &str = "10.244.1.9";
const CLUSTER_DOOR: &str = "172.31.0.11:30080";
const LOCAL_DOOR: &str = "172.31.0.11:30081";
const HOST_DOOR: &str = "172.31.0.11:80";
const CLUSTER_IP: &str = "10.96.0.1:80";
const POD: &str = "10.244.1.5:8080";
const CLIENT: &str = "203.0.113.50:49508";
const OTHER_CLIENT: &str = "203.0.113.51:49508";

fn socket(text: &str) -> SocketAddr {
    text.parse().expect("the test's address parses")
}

fn at(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().expect("the test's address parses"), port)
}

/// node1 with a proxy behind two node ports, one of each policy, and a pod behind a cluster address.
fn cluster() -> Arc<Snapshot> {
    let node = |name, address, pods| {
        json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
            "spec": {"podCIDRs": [pods]},
            "status": {"addresses": [{"type": "InternalIP", "address": address}]},
        })
    };
    let service = |name, spec| {
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"namespace": "shop", "name": name}, "spec": spec,
        })
    };
    let slice = |name, port: u16, address, pod| {
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {
                "namespace": "shop", "name": name,
                "labels": {"kubernetes.io/service-name": name},
            },
            "ports": [{"name": "http", "port": port}],
            "endpoints": [{
                "addresses": [address], "nodeName": "node1",
                "targetRef": {"kind": "Pod", "namespace": "shop", "name": pod},
            }],
        })
    };
    let door = |address, policy, port: u16| {
        json!({
            "type": "NodePort", "clusterIP": address, "externalTrafficPolicy": policy,
            "ports": [{"name": "http", "port": 80, "nodePort": port}],
        })
    };
    let list = json!({"apiVersion": "v1", "kind": "List", "items": [
        node("node1", NODE, "10.244.1.0/24"),
        node("node2", OTHER_NODE, "10.244.2.0/24"),
        service("proxy", door("10.96.0.2", "Cluster", 30080)),
        service("local", door("10.96.0.3", "Local", 30081)),
        service("web", json!({
            "type": "ClusterIP", "clusterIP": "10.96.0.1", "ports": [{"name": "http", "port": 80}],
        })),
        slice("proxy", 80, PROXY, "proxy-0"),
        slice("local", 80, PROXY, "proxy-0"),
        slice("web", 8080, "10.244.1.5", "web-0"),
    ]});
    let objects = Objects::from_list(list.to_string().as_bytes()).expect("the test's objects");
    Arc::new(Snapshot::new(Index::build(&objects), None))
}

/// node1's observer, and what the time is there.
struct Node {
    observer: Observer,
    now: u64,
}

impl Node {
    fn new(whose: Whose) -> Self {
        Self::knowing(whose, Some(cluster()))
    }

    fn knowing(whose: Whose, cluster: Option<Arc<Snapshot>>) -> Self {
        let settings = Settings {
            node: "node1".to_owned(),
            epoch: Epoch(jiff::Timestamp::UNIX_EPOCH),
            answer_timeout_ns: 3_000_000_000,
            all: false,
            follows_cluster: false,
            first_bytes: Asking {
                whose,
                ..Asking::default()
            },
        };
        let mut observer = Observer::new(settings, cluster);
        observer.handle(Event::Interfaces(Interfaces {
            names: BTreeMap::from([(UPLINK, "eth0".to_owned()), (VETH, "cali1".to_owned())]),
            addresses: [socket(CLUSTER_DOOR).ip()].into(),
            ..Interfaces::default()
        }));
        Self { observer, now: 1 }
    }

    /// Everything of before is known.
    fn knows_all(mut self) -> Self {
        self.observer.handle(Event::Rewritten(Vec::new()));
        self
    }

    fn identity(&mut self, source: SocketAddr, destination: SocketAddr) -> Identity {
        self.now += 1_000_000;
        Identity {
            protocol: Protocol::Tcp,
            zone: 0,
            original: Tuple {
                source,
                destination,
            },
            sequence: u32::try_from(self.now / 1_000_000).expect("a test is short"),
        }
    }

    /// A connection that is forwarded, or that this node opens, and answered.
    fn opened(&mut self, identity: Identity, reply: Tuple, is_own: bool) -> Vec<Output> {
        let mut outputs = Vec::new();
        for kind in [Kind::Forward, Kind::Reply] {
            self.now += 1;
            let arrival = Arrival {
                at: Moment(self.now),
                interface: UPLINK,
                ttl: Ttl(64),
            };
            let observation = Observation::Passage(Passage {
                kind,
                identity,
                reply,
                conntrack: Conntrack::Entry,
                arrival: (!is_own || kind == Kind::Reply).then_some(arrival),
                departure: Departure {
                    at: Moment(self.now),
                    interface: VETH,
                    ttl: Ttl(63),
                },
                opening: None,
            });
            outputs.extend(self.observer.handle(Event::Observation(observation)));
        }
        outputs
    }

    /// A client's to the proxy in the pod, which sees it as `seen`.
    fn comes(&mut self, client: SocketAddr, door: &str, seen: SocketAddr) -> Vec<Output> {
        let identity = self.identity(client, socket(door));
        let reply = Tuple {
            source: at(PROXY, 80),
            destination: seen,
        };
        self.opened(identity, reply, false)
    }

    /// A client's to the proxy in the node's network.
    fn comes_to_host(&mut self, client: SocketAddr) -> Vec<Output> {
        let identity = self.identity(client, socket(HOST_DOOR));
        let moment = Moment(self.now);
        let observation = Observation::Passage(Passage {
            kind: Kind::Reply,
            identity,
            reply: Tuple {
                source: socket(HOST_DOOR),
                destination: client,
            },
            conntrack: Conntrack::Entry,
            arrival: None,
            departure: Departure {
                at: moment,
                interface: UPLINK,
                ttl: Ttl(64),
            },
            opening: Some(Arrival {
                at: moment,
                interface: UPLINK,
                ttl: Ttl(64),
            }),
        });
        self.observer.handle(Event::Observation(observation))
    }

    /// The record of what a proxy opens, with what that begins with.
    fn dials(&mut self, proxy: &str, to: &str, reading: Reading) -> Record {
        let port = u16::try_from(20_000 + self.now % 40_000).expect("a port");
        let identity = self.identity(at(proxy, port), socket(to));
        let reply = Tuple {
            source: socket(POD),
            destination: at(proxy, port),
        };
        let mut outputs = self.opened(identity, reply, proxy == NODE);
        outputs.extend(self.observer.handle(Event::FirstBytes(identity, reading)));
        match outputs.pop() {
            Some(Output::Record(_, record)) if outputs.is_empty() => Arc::unwrap_or_clone(record),
            other => panic!("one record: {other:?}, {outputs:?}"),
        }
    }
}

fn header(carrier: Carrier, hops: &[&str], port: Option<u16>) -> Reading {
    Reading::Found(vec![Chain {
        carrier,
        hops: hops.iter().map(|hop| hop.parse().ok()).collect(),
        port,
        to: None,
    }])
}

fn forwarded_for(hops: &[&str]) -> Reading {
    header(Carrier::XForwardedFor, hops, None)
}

fn proxy_header(source: SocketAddr) -> Reading {
    let ip = source.ip().to_string();
    header(Carrier::ProxyV2, &[&ip], Some(source.port()))
}

fn through(record: &Record) -> &Through {
    record.through.as_ref().expect("linked")
}

fn client(record: &Record) -> Option<String> {
    let client = through(record).client?;
    Some(match client.port {
        Some(port) => SocketAddr::new(client.ip, port).to_string(),
        None => client.ip.to_string(),
    })
}

fn recovered(record: &Record) -> Option<String> {
    record.client.recovered.map(|address| address.to_string())
}
