//! A proxy on the node makes two connections of one: they are told as one way.
//!
//! Goal: the record of what nginx or `HAProxy` opens towards a Service says by which connection the
//! proxy got it, and it is that one: exactly where the header tells the port, and never another
//! client where it does not. Method: run the programs in a pod behind node ports of both policies
//! and in the node's network; several clients connect, some of whom stay and ask again; compare each
//! link with the client's own socket, found by the path that it asked for, and with the proxy's own
//! log.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    net::SocketAddr,
};

use rstest::rstest;
use serde_json::Value;
use tests::{
    ear::Heard,
    fronts::Logged,
    kubeproxy::{Backend, Family, Mode},
    observer_process::replay,
    privilege,
    through::{Asked, Kind, NODE, Place, Run, Stage},
};

const CONNECTIONS: usize = 100;

/// A link, and what is true of it.
struct Link<'run> {
    record: &'run Value,
    asked: &'run Asked,
    /// What the observer said beside: whether it missed anything.
    said: &'run str,
    /// Whom the proxy's own log has for it: one, unless its own port came twice.
    saw: HashSet<SocketAddr>,
}

/// Records of connections to proxies, by the client's end and the front door.
type Inbound<'run> = HashMap<(SocketAddr, SocketAddr), &'run Value>;

fn socket(end: &Value) -> Option<SocketAddr> {
    let port = u16::try_from(end["port"].as_u64()?).ok()?;
    Some(SocketAddr::new(end["ip"].as_str()?.parse().ok()?, port))
}

/// The path in what a pod got.
fn path(heard: &Heard) -> String {
    let text = String::from_utf8_lossy(&heard.bytes);
    let (_, rest) = text.split_once("GET ").expect("a request");
    rest.split(' ').next().expect("a path").to_owned()
}

/// Every record of what a proxy opened, with the truth.
fn links<'run>(run: &'run Run, records: &'run [Value]) -> Vec<Link<'run>> {
    let by_path: HashMap<_, _> = run.asked.iter().map(|it| (it.path.as_str(), it)).collect();
    // A port may be used again: in what order is the pod's word.
    let mut by_ends: HashMap<_, VecDeque<_>> = HashMap::new();
    for (pod, heard) in &run.heard {
        for heard in heard {
            by_ends
                .entry((*pod, heard.peer))
                .or_default()
                .push_back(heard);
        }
    }
    let outbound = records
        .iter()
        .filter(|record| record["front_door"]["kind"] == "ClusterIP");
    let link = |record: &'run Value| {
        let seen = socket(&record["source_seen"]).expect("a source");
        let pod = socket(&record["backend"]).expect("a backend").ip();
        let heard = by_ends.get_mut(&(pod, seen)).and_then(VecDeque::pop_front);
        let heard = heard.expect("a pod got it");
        let whole = path(heard);
        let start = whole.trim_end_matches("again");
        let asked = by_path[start];
        let own_end = socket(&record["client"]);
        let is_it = |logged: &&Logged| match logged.own_end() {
            Some(end) => Some(end) == own_end && asked.kind.is_haproxy(),
            None => logged.of == whole,
        };
        let saw: HashSet<_> = run.logged.iter().filter(is_it).map(|it| it.saw).collect();
        assert!(!saw.is_empty(), "the proxy logged {asked:?}, {own_end:?}");
        Link {
            record,
            asked,
            said: &run.told.stderr,
            saw,
        }
    };
    outbound.map(link).collect()
}

/// How often a proxy connected to the Service.
fn times(kind: Kind) -> usize {
    // Those who stayed asked again, but for the last four.
    let again = if kind.connects_anew() {
        CONNECTIONS / 4 - 4
    } else {
        0
    };
    CONNECTIONS + again
}

impl Link<'_> {
    fn through(&self) -> &Value {
        &self.record["through"]
    }

    /// Holds of every link.
    fn check(&self, stage: &Stage, inbound: &Inbound<'_>) {
        let Self {
            record,
            asked,
            said,
            saw,
        } = self;
        let through = self.through();
        assert!(
            through.is_object(),
            "{asked:?}: not linked: {record}\n{said}"
        );
        assert_eq!(through["proxy"]["node"], NODE, "{record}");
        if asked.place != Place::Host {
            assert_eq!(through["proxy"]["pod"], "proxy-0", "{record}");
        }
        let other_node = stage.other_node().expect("an address");
        // As far as this node can see.
        let client = if asked.place == Place::OtherNode {
            let said = socket(&through["client"]);
            let mut of_it = saw.iter().filter(|saw| saw.ip() == other_node);
            let first = *of_it.next().expect("the proxy saw the other node");
            said.filter(|said| saw.contains(said)).unwrap_or(first)
        } else {
            asked.client
        };
        let said = &through["client"];
        if let Some(ip) = said["ip"].as_str() {
            assert_eq!(ip, client.ip().to_string(), "{asked:?}: {record}");
        }
        let recovered = record["client"]["recovered"].as_str();
        if let Some(recovered) = recovered {
            assert_eq!(recovered, asked.client.ip().to_string(), "{record}");
        }
        if asked.kind.tells_the_port() && through["confidence"] == "ambiguous" {
            // To two ports of the proxy from one: a PROXY header tells to which, too.
            assert_eq!(asked.kind, Kind::NginxForwarded, "{record}");
            assert!(self.is_twice(inbound), "{asked:?}: {record}");
        } else if asked.kind.tells_the_port() {
            assert_eq!(through["confidence"], "exact", "{asked:?}: {record}");
            assert_eq!(through["candidates"], 1, "{record}");
            assert_eq!(socket(said), Some(client), "{asked:?}: {record}");
            assert_eq!(
                recovered.is_some(),
                asked.place != Place::OtherNode,
                "{record}"
            );
        } else if through["confidence"] == "likely" {
            assert_eq!(through["candidates"], 1, "{record}");
        } else {
            assert_eq!(through["confidence"], "ambiguous", "{record}");
        }
        self.check_the_first_part();
    }

    /// Whether the proxy saw its client's end at two of its own ports.
    fn is_twice(&self, inbound: &Inbound<'_>) -> bool {
        let seen = inbound.values().map(|it| socket(&it["source_seen"]));
        let mut ends = seen.flatten().filter(|seen| self.saw.contains(seen));
        ends.nth(1).is_some()
    }

    /// What became of the client's address on the way to the proxy.
    fn check_the_first_part(&self) {
        let Self { record, asked, .. } = self;
        let through = self.through();
        let recovered = &record["client"]["recovered"];
        let losses: Vec<_> = record["losses"]
            .as_array()
            .expect("losses")
            .iter()
            .collect();
        let codes: Vec<_> = losses.iter().map(|it| &it["cause"]["code"]).collect();
        match asked.place {
            Place::Cluster => {
                assert_eq!(through["source_ip"], "lost", "{asked:?}: {record}");
                assert_eq!(through["lost_at"]["node"], NODE, "{record}");
                assert_eq!(record["lost_at"], through["lost_at"], "{record}");
                assert_eq!(codes[..2], ["external-traffic-policy-cluster", "l7-proxy"]);
            }
            Place::Local | Place::Host => {
                assert_eq!(through["source_ip"], "preserved", "{asked:?}: {record}");
                assert_eq!(*recovered, asked.client.ip().to_string(), "{record}");
                assert!(!through["client"].is_null(), "{record}");
                assert_eq!(codes[0], "l7-proxy", "{record}");
            }
            Place::OtherNode => {
                assert_eq!(through["source_ip"], "unknown", "{asked:?}: {record}");
                let code = through["cause"]["code"].as_str();
                let of_all = Some("masqueraded-before-this-node");
                assert_eq!(code, of_all, "{asked:?}: {record}");
                assert_eq!(record["client"]["not_recovered"], "masqueraded", "{record}");
            }
        }
    }

    /// That the connection to the proxy is told, too, and as it is told here.
    fn check_the_inbound_record(&self, records: &Inbound<'_>) {
        let Self {
            record, asked, saw, ..
        } = self;
        let through = self.through();
        let Some(client) = socket(&through["client"]) else {
            return;
        };
        let Some(door) = socket(&through["front_door"]) else {
            assert_eq!(through["confidence"], "ambiguous", "{record}");
            return;
        };
        let Some(inbound) = records.get(&(client, door)) else {
            // What listens in the node's network is no front door.
            assert_eq!(asked.place, Place::Host, "{record}");
            return;
        };
        let seen = socket(&inbound["source_seen"]).expect("a source");
        assert!(saw.contains(&seen), "{record}");
        for field in [
            "front_door",
            "service",
            "source_ip",
            "lost_at",
            "cause",
            "extra_hops",
        ] {
            assert_eq!(through[field], inbound[field], "{field}: {record}");
        }
    }
}

#[rstest]
fn what_a_proxy_opens_is_linked_with_what_it_got(
    #[values(Mode::Iptables(Backend::Nft), Mode::Nftables)] mode: Mode,
    #[values(Family::V4, Family::V6)] family: Family,
) {
    if !privilege::granted("what_a_proxy_opens_is_linked_with_what_it_got") {
        return;
    }
    let stage = Stage::raise(mode, family).expect("raised");
    let directory = tempfile::tempdir().expect("a directory");
    let recording = directory.path().join("recording");
    let recording_path = recording.to_str().expect("a path");
    let arguments = ["--payload", "known", "--record", recording_path];
    let run = stage.run(CONNECTIONS, &arguments).expect("observed");
    let records = &run.told.records;
    let links = links(&run, records);
    let inbound = records
        .iter()
        .filter(|record| record["front_door"]["kind"] != "ClusterIP");
    let inbound = inbound.filter_map(|record| {
        let ends = (socket(&record["client"])?, socket(&record["front_door"])?);
        Some((ends, record))
    });
    let inbound: Inbound<'_> = inbound.collect();
    for link in &links {
        link.check(&stage, &inbound);
        link.check_the_inbound_record(&inbound);
    }
    for place in Place::ALL {
        for kind in Kind::ALL {
            let of_it = |link: &&Link<'_>| (link.asked.kind, link.asked.place) == (kind, place);
            let number = links.iter().filter(of_it).count();
            assert_eq!(number, times(kind), "{kind:?}, {place:?}");
        }
    }
    let replayed = replay(&recording, &["-o", "json"]).expect("replayed");
    assert_eq!(replayed, run.told.stdout, "the same bytes");
}
