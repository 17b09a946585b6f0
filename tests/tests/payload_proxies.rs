//! The client's address from what real proxies add to its first bytes.
//!
//! Goal: behind `HAProxy` and nginx, as people put them in front of a node port, every connection's
//! client is recovered, and it is the one that really connected; where the bytes do not carry it,
//! none is named. Method: run the programs, connect through them by several clients, and compare
//! with what the pods read.

use std::{net::SocketAddr, time::Duration};

use rstest::rstest;
use tests::{
    fronts::{Haproxy, Passage, haproxy, nginx},
    kubeproxy::{Backend, Family, Mode},
    payload::{Stage, TRUSTED, Told, carried, recovered},
    privilege,
};

const CONNECTIONS: usize = 100;
const PORT: u16 = 8_000;
/// What a client invents.
const FORGED: &str = "X-Forwarded-For: 192.0.2.66\r\n";

const TRUSTING: [&str; 4] = ["--payload", "known", TRUSTED[0], TRUSTED[1]];

/// A raised lab, where somebody may stand in front, and the door that is behind.
struct Front {
    stage: Stage,
    at: SocketAddr,
    door: SocketAddr,
}

impl Front {
    /// None where there is no lab.
    fn raise(test: &str, mode: Mode, family: Family) -> Option<Self> {
        if !privilege::granted(test) {
            return None;
        }
        let stage = Stage::raise(mode, family).expect("raised");
        let at = SocketAddr::new(stage.front().expect("an address"), PORT);
        let door = stage.door().expect("a door");
        Some(Self { stage, at, door })
    }

    /// Connects by every client in turn, each with the next of these requests.
    fn through(&self, at: SocketAddr, requests: &[Vec<u8>; 2]) -> anyhow::Result<()> {
        let clients = self.stage.clients();
        (0..CONNECTIONS).try_for_each(|number| {
            let client = clients[number % clients.len()];
            let request = &requests[number / clients.len() % requests.len()];
            self.stage.say(client, at, &[request], Duration::ZERO)
        })
    }

    /// What comes of such connections, of which every other claims to be for another.
    fn told(&self, at: SocketAddr, arguments: &[&str]) -> Vec<Told> {
        let requests = ["", FORGED].map(|more| request("", more));
        let through = || self.through(at, &requests);
        self.stage.observe(arguments, through).expect("observed")
    }

    /// Demands that each record names the client that the bytes carry, one of those that connected.
    fn assert_recovered(&self, told: &[Told]) {
        assert_eq!(told.len(), CONNECTIONS);
        for Told { heard, record } in told {
            let client = carried(&heard.bytes).expect("the proxy says");
            assert!(self.stage.clients().contains(&client), "{record}");
            assert_eq!(recovered(record), Some(client), "{record}");
        }
    }
}

fn request(path: &str, more: &str) -> Vec<u8> {
    format!("GET /{path} HTTP/1.1\r\nHost: shop.example\r\n{more}\r\n").into_bytes()
}

/// Those of a request that begins so.
fn of_request(told: &[Told], begin: &str) -> Vec<Told> {
    let is_it = |told: &&Told| String::from_utf8_lossy(&told.heard.bytes).contains(begin);
    told.iter().filter(is_it).cloned().collect()
}

/// From which header the client is recovered, or why it is not.
fn recovered_from(how: Haproxy) -> Result<&'static str, &'static str> {
    match how {
        Haproxy::Plain | Haproxy::PlainChecked => Err("no-header"),
        Haproxy::SendProxy => Ok("proxy-v1"),
        Haproxy::SendProxyV2 | Haproxy::SendProxyV2Checked => Ok("proxy-v2"),
        Haproxy::ForwardFor => Ok("x-forwarded-for"),
        Haproxy::ForwardForTls => Err("tls"),
        Haproxy::ForwardForHttp2 => Err("http2"),
    }
}

#[rstest]
fn the_client_behind_haproxy_is_recovered(
    #[values(Mode::Iptables(Backend::Nft), Mode::Nftables)] mode: Mode,
    #[values(Family::V4, Family::V6)] family: Family,
) {
    let Some(front) = Front::raise("the_client_behind_haproxy_is_recovered", mode, family) else {
        return;
    };
    let at = |port| SocketAddr::new(front.at.ip(), port);
    let ways = Haproxy::ALL.into_iter().zip(PORT..);
    let passages: Vec<_> = ways
        .clone()
        .map(|(how, port)| {
            let (at, to) = (at(port), front.door);
            (how, Passage { at, to })
        })
        .collect();
    let _proxy = haproxy(front.stage.lab().client(), &passages).expect("starts");
    let through = || {
        for (how, port) in ways.clone() {
            // A client's own field is passed on before the proxy's.
            let forged = if how == Haproxy::ForwardFor {
                FORGED
            } else {
                ""
            };
            let requests = ["", forged].map(|more| request(&format!("{how:?}"), more));
            front.through(at(port), &requests)?;
        }
        Ok(())
    };
    let told = front.stage.observe(&TRUSTING, through).expect("observed");
    for Told { record, .. } in &told {
        assert_eq!(record["client"]["ip"], at(0).ip().to_string(), "{record}");
    }
    for how in Haproxy::ALL {
        let path = format!("GET /{how:?} ");
        let told = of_request(&told, &path);
        match recovered_from(how) {
            Ok(_) => front.assert_recovered(&told),
            Err(_) => assert_eq!(told.len(), CONNECTIONS, "{how:?}"),
        }
        for Told { record, .. } in &told {
            let client = &record["client"];
            let (said, expected) = match recovered_from(how) {
                Ok(from) => (&client["recovered_from"], from),
                Err(reason) => (&client["not_recovered"], reason),
            };
            assert_eq!(said, expected, "{how:?}: {record}");
        }
    }
    // It looks after its server, too, and says that it speaks for itself.
    let own = of_request(&told, "OPTIONS / ");
    assert_ne!(own.len(), 0);
    for Told { record, .. } in own {
        assert_eq!(record["client"]["not_recovered"], "local", "{record}");
        assert_eq!(record["client"]["kind"], "load-balancer", "{record}");
        // It is the client: nothing of another's was lost before, whatever the node then does.
        let losses = record["losses"].as_array().expect("losses");
        let is_before = |loss: &serde_json::Value| loss["at"]["by"] != "kube-proxy";
        assert!(!losses.iter().any(is_before), "{record}");
        assert_eq!(record["through"], serde_json::Value::Null, "{record}");
    }
}

#[rstest]
fn the_client_behind_nginx_is_recovered_whatever_it_claims(
    #[values(Mode::Iptables(Backend::Nft), Mode::Nftables)] mode: Mode,
    #[values(Family::V4, Family::V6)] family: Family,
) {
    let test = "the_client_behind_nginx_is_recovered_whatever_it_claims";
    let Some(front) = Front::raise(test, mode, family) else {
        return;
    };
    let _proxy = nginx(front.stage.lab().client(), front.at, front.door).expect("starts");
    let told = front.told(front.at, &TRUSTING);
    front.assert_recovered(&told);
    for Told { heard, record } in &told {
        let forged = String::from_utf8_lossy(&heard.bytes).contains("192.0.2.66");
        let hops = if forged { 2 } else { 1 };
        assert_eq!(record["client"]["hops_listed"], hops, "{record}");
    }
}

/// nginx as an ingress controller in the host's network: its own connections go to the Service.
#[rstest]
fn whom_an_ingress_of_the_node_speaks_for_is_recovered(
    #[values(Mode::Iptables(Backend::Nft), Mode::Nftables)] mode: Mode,
    #[values(Family::V4, Family::V6)] family: Family,
) {
    let test = "whom_an_ingress_of_the_node_speaks_for_is_recovered";
    let Some(front) = Front::raise(test, mode, family) else {
        return;
    };
    let node = front.stage.lab().node("node1").expect("a node");
    let at = SocketAddr::new(front.door.ip(), PORT);
    let service = front.stage.cluster_ip().expect("an address");
    let _proxy = nginx(&node.namespace, at, service).expect("starts");
    let told = front.told(at, &["--payload", "known"]);
    front.assert_recovered(&told);
    for Told { record, .. } in &told {
        assert_eq!(record["client"]["kind"], "node", "{record}");
    }
}

/// A proxy that nobody trusts is a client as any other.
#[test]
fn whom_nobody_trusts_nobody_believes() {
    let (mode, family) = (Mode::Iptables(Backend::Nft), Family::V4);
    let Some(front) = Front::raise("whom_nobody_trusts_nobody_believes", mode, family) else {
        return;
    };
    let _proxy = Haproxy::SendProxy
        .start(front.stage.lab().client(), front.at, front.door)
        .expect("starts");
    let told = front.told(front.at, &["--payload", "on"]);
    assert_eq!(told.len(), CONNECTIONS);
    for Told { record, .. } in told {
        let client = &record["client"];
        assert_eq!(client["recovered"], serde_json::Value::Null, "{record}");
        assert_eq!(client["not_recovered"], "untrusted-peer", "{record}");
    }
}
