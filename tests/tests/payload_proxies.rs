//! The client's address from what real proxies add to its first bytes.
//!
//! Goal: behind `HAProxy` and nginx, as people put them in front of a node port, every connection's
//! client is recovered, and it is the one that really connected; where the bytes do not carry it,
//! none is named. Method: run the programs, connect through them by several clients, and compare
//! with what the pods read.

use std::{net::SocketAddr, time::Duration};

use rstest::rstest;
use tests::{
    fronts::{Haproxy, nginx},
    kubeproxy::{Backend, Family, Mode},
    payload::{Stage, TRUSTED, Told, carried, recovered},
    privilege,
};

const CONNECTIONS: usize = 100;
const PORT: u16 = 8_000;
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: shop.example\r\nCookie: a=b\r\n\r\n";
/// What a client invents.
const FORGED: &[u8] =
    b"GET / HTTP/1.1\r\nHost: shop.example\r\nX-Forwarded-For: 192.0.2.66\r\n\r\n";

const TRUSTING: [&str; 4] = ["--payload", "known", TRUSTED[0], TRUSTED[1]];

fn clients_of(told: &[Told]) -> usize {
    told.iter()
        .filter(|told| recovered(&told.record).is_some())
        .count()
}

/// Connects through the front by every client in turn.
fn through(stage: &Stage, front: SocketAddr, requests: &[&[u8]]) -> anyhow::Result<()> {
    let clients = stage.clients();
    for number in 0..CONNECTIONS {
        let request = requests[number % requests.len()];
        let client = clients[number % clients.len()];
        stage.say(client, front, &[request], Duration::ZERO)?;
    }
    Ok(())
}

#[rstest]
fn the_client_behind_haproxy_is_recovered(
    #[values(Mode::Iptables(Backend::Nft), Mode::Nftables)] mode: Mode,
    #[values(Family::V4, Family::V6)] family: Family,
) {
    if !privilege::granted("the_client_behind_haproxy_is_recovered") {
        return;
    }
    let stage = Stage::raise(mode, family).expect("raised");
    let (front, door) = (
        stage.front().expect("an address"),
        stage.door().expect("a door"),
    );
    for (how, port) in Haproxy::ALL.into_iter().zip(PORT..) {
        let at = SocketAddr::new(front, port);
        let _proxy = how.start(stage.lab().client(), at, door).expect("starts");
        // A client's own field is passed on before the proxy's.
        let requests: &[&[u8]] = match how {
            Haproxy::ForwardFor => &[REQUEST, FORGED],
            _ => &[REQUEST],
        };
        let told = stage.observe(&TRUSTING, || through(&stage, at, requests));
        let told = told.expect("observed");
        assert!(told.len() >= CONNECTIONS, "{how:?}: {} told", told.len());
        let clients = stage.clients();
        let mut of_clients = 0;
        for Told { heard, record } in &told {
            let said = &record["client"];
            let carried = carried(&heard.bytes);
            assert_eq!(recovered(record), carried, "{how:?}: {record}");
            assert_eq!(said["ip"], front.to_string(), "{record}");
            match how {
                Haproxy::Plain => assert_eq!(said["not_recovered"], "no-header", "{record}"),
                _ if carried.is_none() => assert_eq!(said["not_recovered"], "local", "{record}"),
                Haproxy::SendProxy => assert_eq!(said["recovered_from"], "proxy-v1"),
                Haproxy::SendProxyV2 | Haproxy::SendProxyV2Checked => {
                    assert_eq!(said["recovered_from"], "proxy-v2");
                }
                Haproxy::ForwardFor => assert_eq!(said["recovered_from"], "x-forwarded-for"),
            }
            of_clients += usize::from(carried.is_some_and(|address| clients.contains(&address)));
        }
        let expected = if how == Haproxy::Plain {
            0
        } else {
            CONNECTIONS
        };
        assert_eq!(of_clients, expected, "{how:?}");
    }
}

#[rstest]
fn the_client_behind_nginx_is_recovered_whatever_it_claims(
    #[values(Mode::Iptables(Backend::Nft), Mode::Nftables)] mode: Mode,
    #[values(Family::V4, Family::V6)] family: Family,
) {
    if !privilege::granted("the_client_behind_nginx_is_recovered_whatever_it_claims") {
        return;
    }
    let stage = Stage::raise(mode, family).expect("raised");
    let (front, door) = (
        stage.front().expect("an address"),
        stage.door().expect("a door"),
    );
    let at = SocketAddr::new(front, PORT);
    let _proxy = nginx(stage.lab().client(), at, door).expect("starts");
    let told = stage.observe(&TRUSTING, || through(&stage, at, &[REQUEST, FORGED]));
    let told = told.expect("observed");
    assert_eq!(clients_of(&told), CONNECTIONS);
    for Told { heard, record } in &told {
        let client = carried(&heard.bytes).expect("nginx says");
        assert!(stage.clients().contains(&client), "{record}");
        assert_eq!(recovered(record), Some(client), "{record}");
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
    if !privilege::granted("whom_an_ingress_of_the_node_speaks_for_is_recovered") {
        return;
    }
    let stage = Stage::raise(mode, family).expect("raised");
    let node = stage.lab().node("node1").expect("a node");
    let at = SocketAddr::new(stage.door().expect("a door").ip(), PORT);
    let service = stage.cluster_ip().expect("an address");
    let _proxy = nginx(&node.namespace, at, service).expect("starts");
    let arguments = ["--payload", "known"];
    let told = stage.observe(&arguments, || through(&stage, at, &[REQUEST, FORGED]));
    let told = told.expect("observed");
    assert_eq!(clients_of(&told), CONNECTIONS);
    for Told { heard, record } in &told {
        let client = carried(&heard.bytes).expect("nginx says");
        assert!(stage.clients().contains(&client), "{record}");
        assert_eq!(recovered(record), Some(client), "{record}");
        assert_eq!(record["client"]["kind"], "node", "{record}");
    }
}

/// A proxy that nobody trusts is a client as any other.
#[test]
fn whom_nobody_trusts_nobody_believes() {
    if !privilege::granted("whom_nobody_trusts_nobody_believes") {
        return;
    }
    let stage = Stage::raise(Mode::Iptables(Backend::Nft), Family::V4).expect("raised");
    let (front, door) = (
        stage.front().expect("an address"),
        stage.door().expect("a door"),
    );
    let at = SocketAddr::new(front, PORT);
    let _proxy = Haproxy::SendProxy
        .start(stage.lab().client(), at, door)
        .expect("starts");
    let arguments = ["--payload", "on"];
    let told = stage.observe(&arguments, || through(&stage, at, &[REQUEST]));
    let told = told.expect("observed");
    assert_eq!(told.len(), CONNECTIONS);
    for Told { record, .. } in told {
        assert_eq!(
            record["client"]["not_recovered"], "untrusted-peer",
            "{record}"
        );
    }
}
