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

mod properties;

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
            Some(Output::Record(_, record)) if outputs.is_empty() => *record,
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

#[test]
fn a_proxy_that_names_the_port_speaks_for_one_connection() {
    let mut node = Node::new(Whose::On);
    // Nobody tells of what was before, nor must anybody.
    for (port, client) in (50_001..).zip([CLIENT, OTHER_CLIENT, "10.244.2.7:40000"]) {
        node.comes(socket(client), CLUSTER_DOOR, at(NODE, port));
    }
    let record = node.dials(PROXY, CLUSTER_IP, proxy_header(at(NODE, 50_002)));
    let part = through(&record);
    assert_eq!(part.confidence, Confidence::Exact);
    assert_eq!(part.candidates, 1);
    assert_eq!(client(&record).as_deref(), Some(OTHER_CLIENT));
    assert_eq!(part.source_ip, SourceIp::Lost);
    assert_eq!(
        part.lost_at.as_ref().and_then(|at| at.node.as_deref()),
        Some("node1"),
        "{part:?}"
    );
    assert_eq!(part.proxy.pod.as_deref(), Some("proxy-0"));
    assert_eq!(
        part.service.as_ref().map(|service| &*service.name),
        Some("proxy")
    );
    assert!(part.opened_before_ns.is_some_and(|before| before > 0));
    // Both stages are told.
    let codes: Vec<_> = record.losses.iter().map(|it| it.cause.code).collect();
    let of_both = [CauseCode::ExternalTrafficPolicyCluster, CauseCode::L7Proxy];
    assert_eq!(codes, of_both);
    assert_eq!(record.lost_at, part.lost_at);
    // Who is behind the masquerade, too.
    assert_eq!(recovered(&record).as_deref(), Some("203.0.113.51"));
    let from = record.client.recovered_from;
    assert_eq!(from, Some(Carrier::InboundConnection));
    assert_eq!(record.client.not_recovered, None);
}

#[test]
fn a_port_that_nobody_has_is_no_link() {
    let mut node = Node::new(Whose::On);
    node.comes(socket(CLIENT), CLUSTER_DOOR, at(NODE, 50_001));
    let record = node.dials(PROXY, CLUSTER_IP, proxy_header(at(NODE, 50_002)));
    assert_eq!(record.through, None);
    assert_eq!(record.client.not_recovered, Some(Reason::Masqueraded));
}

#[test]
fn a_port_that_is_used_again_is_the_latest_ones() {
    let mut node = Node::new(Whose::On);
    let seen = at(NODE, 50_001);
    node.comes(socket(CLIENT), CLUSTER_DOOR, seen);
    node.comes(socket(OTHER_CLIENT), CLUSTER_DOOR, seen);
    let record = node.dials(PROXY, CLUSTER_IP, proxy_header(seen));
    assert_eq!(client(&record).as_deref(), Some(OTHER_CLIENT));
    assert_eq!(through(&record).confidence, Confidence::Exact);
}

/// A masquerade may give two clients one port, towards two ports of the proxy.
#[test]
fn a_port_may_be_anothers_at_another_port_of_the_proxy() {
    let mut node = Node::new(Whose::On);
    let seen = at(NODE, 50_001);
    for (client, port) in [(CLIENT, 80), (OTHER_CLIENT, 81)] {
        let identity = node.identity(socket(client), at(PROXY, port));
        let reply = Tuple {
            source: at(PROXY, port),
            destination: seen,
        };
        node.opened(identity, reply, false);
    }
    let Reading::Found(mut chains) = proxy_header(seen) else {
        panic!("a header");
    };
    let record = node.dials(PROXY, CLUSTER_IP, Reading::Found(chains.clone()));
    assert_eq!(through(&record).confidence, Confidence::Ambiguous);
    assert_eq!((client(&record), recovered(&record)), (None, None));
    chains[0].to = Some(at(PROXY, 80));
    let record = node.dials(PROXY, CLUSTER_IP, Reading::Found(chains));
    assert_eq!(through(&record).confidence, Confidence::Exact);
    assert_eq!(client(&record).as_deref(), Some(CLIENT));
}

#[test]
fn what_listens_in_the_nodes_network_is_no_front_door_but_told_of() {
    let mut node = Node::new(Whose::Known);
    for port in 40_000..40_050 {
        node.comes_to_host(at("203.0.113.50", port));
    }
    let record = node.dials(NODE, CLUSTER_IP, forwarded_for(&["203.0.113.50"]));
    let part = through(&record);
    assert_eq!(part.source_ip, SourceIp::Preserved);
    assert_eq!(client(&record).as_deref(), Some("203.0.113.50"));
}

#[test]
fn the_address_alone_is_enough_for_one() {
    let mut node = Node::new(Whose::Known);
    node.comes(socket(CLIENT), LOCAL_DOOR, socket(CLIENT));
    node.comes(socket(OTHER_CLIENT), LOCAL_DOOR, socket(OTHER_CLIENT));
    let record = node.dials(PROXY, CLUSTER_IP, forwarded_for(&["203.0.113.50"]));
    let part = through(&record);
    assert_eq!(part.confidence, Confidence::Likely);
    assert_eq!(client(&record).as_deref(), Some(CLIENT));
    assert_eq!(part.source_ip, SourceIp::Preserved);
    let kind = part.front_door.and_then(|door| door.kind);
    assert_eq!(kind, Some(FrontDoorKind::NodePort));
    assert_eq!(recovered(&record).as_deref(), Some("203.0.113.50"));
    assert_eq!(record.client.recovered_from, Some(Carrier::XForwardedFor));
}

/// Their ports differ, and so which it was is not known; all else is.
#[test]
fn several_of_one_client_tell_what_they_have_in_common() {
    let mut node = Node::new(Whose::Known);
    for port in 40_000..40_050 {
        let client = at("203.0.113.50", port);
        node.comes(client, LOCAL_DOOR, client);
    }
    let record = node.dials(PROXY, CLUSTER_IP, forwarded_for(&["203.0.113.50"]));
    let part = through(&record);
    assert_eq!(part.confidence, Confidence::Ambiguous);
    assert_eq!(part.candidates, 50);
    assert_eq!(client(&record).as_deref(), Some("203.0.113.50"));
    assert_eq!(part.source_ip, SourceIp::Preserved);
    assert!(part.front_door.is_some());
    // By another door in between.
    let other = at("203.0.113.50", 39_999);
    node.comes(other, CLUSTER_DOOR, at(NODE, 50_001));
    node.comes(other, "10.244.1.9:80", other);
    let record = node.dials(PROXY, CLUSTER_IP, forwarded_for(&["203.0.113.50"]));
    assert_eq!(through(&record).front_door, None);
    assert_eq!(client(&record).as_deref(), Some("203.0.113.50"));
}

#[test]
fn behind_a_masquerade_the_address_alone_is_not_enough() {
    let mut node = Node::new(Whose::On).knows_all();
    node.comes(socket(CLIENT), CLUSTER_DOOR, at(NODE, 50_001));
    let masquerade = || forwarded_for(&[NODE]);
    let record = node.dials(PROXY, CLUSTER_IP, masquerade());
    assert_eq!(client(&record).as_deref(), Some(CLIENT));
    assert_eq!(recovered(&record).as_deref(), Some("203.0.113.50"));
    node.comes(socket(OTHER_CLIENT), CLUSTER_DOOR, at(NODE, 50_002));
    let record = node.dials(PROXY, CLUSTER_IP, masquerade());
    let part = through(&record);
    assert_eq!((client(&record), recovered(&record)), (None, None));
    assert_eq!(
        record.client.not_recovered,
        Some(Reason::Masqueraded),
        "as without"
    );
    assert_eq!(part.candidates, 2);
    // What became of both is known.
    assert_eq!(part.source_ip, SourceIp::Lost);
    assert!(part.lost_at.is_some());
}

#[test]
fn who_may_be_behind_a_masquerade_unseen_is_thought_of() {
    let masquerade = || forwarded_for(&[NODE]);
    // Nobody told what was before.
    let mut node = Node::new(Whose::On);
    node.comes(socket(CLIENT), CLUSTER_DOOR, at(NODE, 50_001));
    let record = node.dials(PROXY, CLUSTER_IP, masquerade());
    assert_eq!((client(&record), recovered(&record)), (None, None));
    // Somebody was.
    let mut node = Node::new(Whose::On);
    let before = Identity {
        sequence: 0,
        ..node.identity(socket(OTHER_CLIENT), socket(CLUSTER_DOOR))
    };
    let reply = Tuple {
        source: at(PROXY, 80),
        destination: at(NODE, 50_009),
    };
    node.observer
        .handle(Event::Rewritten(vec![(before, reply)]));
    let record = node.dials(PROXY, CLUSTER_IP, masquerade());
    assert_eq!(client(&record).as_deref(), Some(OTHER_CLIENT));
    node.comes(socket(CLIENT), CLUSTER_DOOR, at(NODE, 50_001));
    let record = node.dials(PROXY, CLUSTER_IP, masquerade());
    assert_eq!(client(&record), None);
    // Something was missed.
    node.observer.handle(Event::Lost(Moment(node.now)));
    let record = node.dials(PROXY, CLUSTER_IP, masquerade());
    assert_eq!(record.through, None);
    node.comes(socket(CLIENT), CLUSTER_DOOR, at(NODE, 50_002));
    let record = node.dials(PROXY, CLUSTER_IP, masquerade());
    assert_eq!(client(&record), None);
}

/// The API was away for long: one was judged by nothing, and is not kept.
#[test]
fn who_came_before_the_cluster_was_known_is_thought_of() {
    let masquerade = || forwarded_for(&[NODE]);
    let mut node = Node::knowing(Whose::On, None);
    assert!(!node.observer.asks_for_rewritten(), "nothing can be kept");
    node.observer.handle(Event::Rewritten(Vec::new()));
    node.comes(socket(CLIENT), CLUSTER_DOOR, at(NODE, 50_001));
    node.observer
        .handle(Event::Cluster(Moment(node.now), cluster()));
    node.comes(socket(OTHER_CLIENT), CLUSTER_DOOR, at(NODE, 50_002));
    let record = node.dials(PROXY, CLUSTER_IP, masquerade());
    assert_eq!((client(&record), recovered(&record)), (None, None));
    assert!(node.observer.asks_for_rewritten());
    assert!(!node.observer.asks_for_rewritten(), "once");
    // One that was in the way is over.
    node.observer.handle(Event::Rewritten(Vec::new()));
    let record = node.dials(PROXY, CLUSTER_IP, masquerade());
    assert_eq!(client(&record).as_deref(), Some(OTHER_CLIENT));
    // Packets that nobody understood may have been a connection's.
    node.observer.handle(Event::Unseen);
    assert!(node.observer.asks_for_rewritten());
    let record = node.dials(PROXY, CLUSTER_IP, masquerade());
    assert_eq!(record.through, None);
}

/// What is let go at a flood may be answered all the same.
#[test]
fn where_too_many_wait_for_their_answer_everything_is_forgotten() {
    let mut node = Node::new(Whose::On).knows_all();
    assert!(node.observer.asks_for_rewritten(), "at first");
    node.comes(socket(CLIENT), CLUSTER_DOOR, at(NODE, 50_001));
    for number in 0..=100_000_u32 {
        let [_, second, third, fourth] = number.to_be_bytes();
        let client = SocketAddr::from(([10, second, third, fourth], 1_000));
        let identity = node.identity(client, socket(LOCAL_DOOR));
        let at = Moment(node.now);
        let passage = Passage {
            kind: Kind::Forward,
            identity,
            reply: Tuple {
                source: socket(POD),
                destination: client,
            },
            conntrack: Conntrack::Entry,
            arrival: None,
            departure: Departure {
                at,
                interface: VETH,
                ttl: Ttl(63),
            },
            opening: None,
        };
        let observation = Observation::Passage(passage);
        node.observer.handle(Event::Observation(observation));
    }
    assert_ne!(node.observer.losses().pending_full, 0);
    assert_eq!(node.observer.memory.len(), 0);
    assert!(node.observer.asks_for_rewritten());
}

/// Who stood before is older than who was seen to come, and goes first.
#[test]
fn what_stood_before_makes_room_first() {
    let mut node = Node::new(Whose::On);
    for port in 50_000..50_032 {
        node.comes(at("203.0.113.50", port), CLUSTER_DOOR, at(NODE, port));
    }
    let stood = (51_000..51_032).map(|port| {
        let before = Identity {
            sequence: 0,
            ..node.identity(at("203.0.113.50", port), socket(CLUSTER_DOOR))
        };
        let reply = Tuple {
            source: at(PROXY, 80),
            destination: at(NODE, port),
        };
        (before, reply)
    });
    let stood = stood.collect();
    node.observer.handle(Event::Rewritten(stood));
    let record = node.dials(PROXY, CLUSTER_IP, proxy_header(at(NODE, 50_000)));
    assert_eq!(client(&record).as_deref(), Some("203.0.113.50:50000"));
    let record = node.dials(PROXY, CLUSTER_IP, forwarded_for(&[NODE]));
    assert_eq!(through(&record).candidates, 64);
    assert_eq!(through(&record).source_ip, SourceIp::Lost);
    assert_eq!(client(&record).as_deref(), Some("203.0.113.50"));
}

#[test]
fn without_an_endpoint_only_the_way_to_the_proxy_is_told() {
    let mut node = Node::new(Whose::On);
    node.comes(socket(CLIENT), CLUSTER_DOOR, at(NODE, 50_001));
    let identity = node.identity(at(PROXY, 20_000), socket(CLUSTER_IP));
    let mut connection = Connection::existing(
        identity,
        Tuple {
            source: socket(CLUSTER_IP),
            destination: at(PROXY, 20_000),
        },
        true,
    );
    connection.opened_at = Some(Moment(node.now));
    connection.first_bytes = Some(proxy_header(at(NODE, 50_001)));
    let mut record = node.dials(PROXY, CLUSTER_IP, Reading::Nothing(Reason::Silent));
    record.backend = None;
    record.source_ip = SourceIp::Unknown;
    (record.lost_at, record.cause) = (None, None);
    record.losses.clear();
    node.observer.link(&connection, &mut record);
    assert_eq!(client(&record).as_deref(), Some(CLIENT));
    assert_eq!(record.source_ip, SourceIp::Unknown);
    assert_eq!((record.lost_at, record.cause), (None, None));
    assert_eq!(record.losses, []);
}

#[test]
fn a_proxy_in_the_nodes_network() {
    let mut node = Node::new(Whose::Known);
    assert_eq!(node.comes_to_host(socket(CLIENT)), [], "no front door");
    node.comes(socket(OTHER_CLIENT), CLUSTER_DOOR, at(NODE, 50_001));
    // To the Service, and straight to the pod, as ingress-nginx does.
    for to in [CLUSTER_IP, POD] {
        let reading = forwarded_for(&["198.51.100.66", "203.0.113.50"]);
        let record = node.dials(NODE, to, reading);
        assert_eq!(client(&record).as_deref(), Some(CLIENT));
        assert_eq!(through(&record).confidence, Confidence::Likely);
        assert_eq!(through(&record).source_ip, SourceIp::Preserved);
        assert_eq!(recovered(&record).as_deref(), Some("203.0.113.50"));
    }
}

/// Another node's masquerade came in: that is as far as this node can tell.
#[test]
fn what_was_rewritten_before_this_node_stays_so() {
    let mut node = Node::new(Whose::On).knows_all();
    let seen = at(OTHER_NODE, 50_001);
    node.comes(seen, "10.244.1.9:80", seen);
    let record = node.dials(PROXY, CLUSTER_IP, proxy_header(seen));
    let part = through(&record);
    assert_eq!(part.confidence, Confidence::Exact);
    assert_eq!(part.source_ip, SourceIp::Unknown);
    assert_eq!(client(&record).as_deref(), Some("172.31.0.12:50001"));
    assert_eq!(recovered(&record), None);
    assert_eq!(record.client.not_recovered, Some(Reason::Masqueraded));
}

/// One that is in front wrote a header, which the proxy believes and goes by.
#[test]
fn a_proxy_may_go_by_the_header_that_it_got() {
    const BALANCER: &str = "198.51.100.7:30000";
    let mut node = Node::new(Whose::On);
    node.observer.settings.first_bytes.trusted = ["198.51.100.7", "pods"]
        .map(|one| one.parse().expect("one"))
        .to_vec();
    let identity = node.identity(socket(BALANCER), socket(CLUSTER_DOOR));
    let reply = Tuple {
        source: at(PROXY, 80),
        destination: at(NODE, 50_001),
    };
    assert_eq!(node.opened(identity, reply, false), []);
    let header = proxy_header(socket(CLIENT));
    node.observer.handle(Event::FirstBytes(identity, header));
    for (reading, confidence) in [
        (proxy_header(socket(CLIENT)), Confidence::Exact),
        (forwarded_for(&["203.0.113.50"]), Confidence::Likely),
        (proxy_header(at(NODE, 50_001)), Confidence::Exact),
    ] {
        let record = node.dials(PROXY, CLUSTER_IP, reading);
        assert_eq!(client(&record).as_deref(), Some(BALANCER));
        assert_eq!(through(&record).confidence, confidence);
    }
}

#[test]
fn headers_that_name_different_hops_are_no_link() {
    let mut node = Node::new(Whose::On);
    node.comes(socket(CLIENT), LOCAL_DOOR, socket(CLIENT));
    node.comes(socket(OTHER_CLIENT), LOCAL_DOOR, socket(OTHER_CLIENT));
    let chain = |carrier, hop: &str| Chain {
        carrier,
        hops: vec![hop.parse().ok()],
        port: None,
        to: None,
    };
    for other in ["203.0.113.51", "unknown"] {
        let record = node.dials(
            PROXY,
            CLUSTER_IP,
            Reading::Found(vec![
                chain(Carrier::XForwardedFor, "203.0.113.50"),
                chain(Carrier::Forwarded, other),
            ]),
        );
        assert_eq!(record.through, None);
    }
}

#[test]
fn who_is_not_trusted_is_not_linked() {
    let mut node = Node::new(Whose::On);
    node.observer.settings.first_bytes.trusted = Vec::new();
    node.comes(socket(CLIENT), LOCAL_DOOR, socket(CLIENT));
    let record = node.dials(PROXY, CLUSTER_IP, forwarded_for(&["203.0.113.50"]));
    assert_eq!(record.through, None);
    assert_eq!(record.client.not_recovered, Some(Reason::UntrustedPeer));
}

/// An application is no proxy: it may pass on what anybody wrote.
#[test]
fn a_header_is_believed_of_whom_its_writer_was_seen_to_get_a_connection_from() {
    for proxy in [PROXY, NODE] {
        let mut node = Node::new(Whose::Known);
        node.comes(socket(CLIENT), LOCAL_DOOR, socket(CLIENT));
        node.comes_to_host(socket(CLIENT));
        let named = |node: &mut Node, hops| {
            let client = node.dials(proxy, CLUSTER_IP, forwarded_for(hops)).client;
            (client.recovered, client.not_recovered)
        };
        let forged = named(&mut node, &["192.0.2.66"]);
        assert_eq!(forged, (None, Some(Reason::UntrustedPeer)), "{proxy}");
        let client = (Some(socket(CLIENT).ip()), None);
        let seen = named(&mut node, &["192.0.2.66", "203.0.113.50"]);
        assert_eq!(seen, client, "{proxy}");
        // A pod that this one heard is not believed of others, either.
        let pod = at("10.244.1.5", 40_000);
        node.comes(pod, "10.244.1.9:80", pod);
        if proxy == PROXY {
            let passed_on = named(&mut node, &["192.0.2.66", "10.244.1.5"]);
            assert_eq!(passed_on, (None, Some(Reason::UntrustedPeer)));
        }
        let itself = if proxy == PROXY { PROXY } else { NODE };
        node.observer.settings.first_bytes.trusted = vec![itself.parse().expect("an address")];
        let by_name = named(&mut node, &["192.0.2.66"]);
        assert_eq!(by_name, (Some(at("192.0.2.66", 0).ip()), None), "{proxy}");
    }
}

#[test]
fn nothing_is_kept_that_nobody_asks_for() {
    let mut node = Node::new(Whose::Off);
    node.comes(socket(CLIENT), LOCAL_DOOR, socket(CLIENT));
    assert_eq!(node.observer.memory.len(), 0);
}

#[test]
fn what_is_kept_is_bounded() {
    let mut node = Node::new(Whose::Known);
    for number in 0..40_000_u32 {
        let [_, _, third, fourth] = (number / 4).to_be_bytes();
        let client = SocketAddr::from(([198, 18, third, fourth], 1_000));
        let client = SocketAddr::new(client.ip(), 1_000 + u16::try_from(number % 4).expect("few"));
        node.comes(client, LOCAL_DOOR, client);
    }
    assert!(node.observer.memory.len() <= super::INBOUND_MAX);
    // The latest are there.
    let record = node.dials(PROXY, CLUSTER_IP, forwarded_for(&["198.18.39.15"]));
    assert_eq!(through(&record).candidates, 4);
}
