//! Connections that wait for their clients' first bytes, and what these tell.

use rstest::rstest;

use super::*;
use crate::cluster::FrontDoorKind;
use crate::payload::{Carrier, Chain, Reading, Reason};
use crate::verdict::{ClientKind, FindingCode, RewriteOwner};

const BALANCER: &str = "198.51.100.7:40000";

fn of(whose: Whose, trusted: &[&str]) -> Observer {
    let trusted = trusted.iter().map(|one| one.parse().expect("one"));
    let asked = Asking {
        whose,
        trusted: trusted.collect(),
        load_balancers: Vec::new(),
    };
    asking(asked, Some(cluster(TrafficPolicy::Cluster)))
}

fn forwarded(hops: &[&str]) -> Reading {
    Reading::Found(vec![Chain {
        carrier: Carrier::XForwardedFor,
        hops: hops.iter().map(|hop| hop.parse().ok()).collect(),
        port: None,
        to: None,
    }])
}

fn says(observer: &mut Observer, at: u64, client: &str, reading: Reading) -> Vec<Output> {
    observer.handle(Event::FirstBytes(identity(at, client), reading))
}

fn told(record: &Record) -> (Option<String>, Option<Reason>) {
    let client = &record.client;
    (
        client.recovered.map(|address| address.to_string()),
        client.not_recovered,
    )
}

#[test]
fn a_connection_waits_for_its_first_bytes() {
    let mut observer = of(Whose::On, &["198.51.100.0/24"]);
    assert_eq!(
        connect_from(&mut observer, SECOND, BALANCER, MASQUERADE),
        []
    );
    assert!(!observer.is_through_with(Moment(2 * SECOND)));
    let unfinished = Reading::Nothing(Reason::Unfinished);
    assert_eq!(says(&mut observer, SECOND, BALANCER, unfinished), []);
    let reading = forwarded(&["10.9.9.9", "203.0.113.50"]);
    let record = only(says(&mut observer, SECOND, BALANCER, reading));
    assert_eq!(told(&record), (Some("203.0.113.50".to_owned()), None));
    assert_eq!(record.client.recovered_from, Some(Carrier::XForwardedFor));
    assert_eq!(record.client.hops_listed, Some(2));
    assert!(observer.is_through_with(Moment(9 * SECOND)));
}

#[test]
fn first_bytes_may_be_there_before_the_connection() {
    let mut observer = of(Whose::Known, &["198.51.100.0/24"]);
    let reading = forwarded(&["203.0.113.50"]);
    assert_eq!(says(&mut observer, SECOND, BALANCER, reading), []);
    let record = only(connect_from(&mut observer, SECOND, BALANCER, MASQUERADE));
    assert_eq!(told(&record), (Some("203.0.113.50".to_owned()), None));
}

#[test]
fn who_says_nothing_is_waited_for_as_long_as_for_an_answer() {
    let mut observer = of(Whose::On, &[]);
    assert_eq!(connect(&mut observer, SECOND, MASQUERADE), []);
    assert_eq!(connect(&mut observer, 2 * SECOND, MASQUERADE), []);
    let unfinished = Reading::Nothing(Reason::Unfinished);
    assert_eq!(says(&mut observer, 2 * SECOND, CLIENT, unfinished), []);
    assert_eq!(observer.handle(Event::Tick(Moment(3 * SECOND))), []);
    let record = only(observer.handle(Event::Tick(Moment(4 * SECOND))));
    assert_eq!(told(&record), (None, Some(Reason::Silent)));
    let record = only(observer.handle(Event::End));
    assert_eq!(told(&record), (None, Some(Reason::Unfinished)));
}

/// What was lost may have been theirs; who opens a connection later is silent.
#[test]
fn after_first_bytes_were_lost_silence_is_not_known() {
    let mut observer = of(Whose::On, &["198.51.100.0/24"]);
    let clients = [CLIENT, BALANCER, "203.0.113.60:40000"];
    for (client, at) in clients.into_iter().zip([1, 2, 2]) {
        connect_from(&mut observer, at * SECOND, client, MASQUERADE);
    }
    let unfinished = Reading::Nothing(Reason::Unfinished);
    assert_eq!(says(&mut observer, SECOND, CLIENT, unfinished), []);
    assert_eq!(
        observer.handle(Event::FirstBytesLost(Moment(3 * SECOND))),
        []
    );
    // What was seen in whole all the same is told.
    let reading = forwarded(&["203.0.113.50"]);
    let record = only(says(&mut observer, 2 * SECOND, BALANCER, reading));
    assert_eq!(told(&record), (Some("203.0.113.50".to_owned()), None));
    let record = only(observer.handle(Event::Tick(Moment(4 * SECOND))));
    assert_eq!(told(&record), (None, Some(Reason::NotSeen)));
    assert_eq!(connect(&mut observer, 4 * SECOND, MASQUERADE), []);
    let record = only(observer.handle(Event::Tick(Moment(5 * SECOND))));
    assert_eq!(told(&record), (None, Some(Reason::NotSeen)));
    let record = only(observer.handle(Event::End));
    assert_eq!(told(&record), (None, Some(Reason::Silent)));
}

/// The loss may be noticed before the connection is.
#[test]
fn nor_of_those_that_come_out_later() {
    let mut observer = of(Whose::On, &[]);
    observer.handle(Event::FirstBytesLost(Moment(2 * SECOND)));
    for (at, reason) in [(SECOND, Reason::NotSeen), (3 * SECOND, Reason::Silent)] {
        assert_eq!(connect(&mut observer, at, MASQUERADE), []);
        let record = only(observer.handle(Event::Tick(Moment(at + 3 * SECOND))));
        assert_eq!(told(&record), (None, Some(reason)));
    }
}

/// Where the networks that were named take all the room.
#[test]
fn whom_there_is_no_room_for_is_not_waited_for() {
    const NODE: &str = "172.31.0.11:40000";
    const NAMED: &str = "198.18.0.9:40000";
    let with = |named: u32| {
        let first = u32::from(std::net::Ipv4Addr::new(198, 18, 0, 0));
        let addresses = (first..first + named).map(std::net::Ipv4Addr::from);
        let asked = Asking {
            whose: Whose::Known,
            trusted: addresses
                .map(|it| Trusted::Network(IpAddr::V4(it).into()))
                .collect(),
            load_balancers: Vec::new(),
        };
        asking(asked, Some(cluster(TrafficPolicy::Cluster)))
    };
    let room = observer_ebpf::SOURCES_MAX;
    // It waits for word of the cluster, and no longer.
    let word = Event::Tick(Moment(SECOND + CHANGE_NS));
    let mut observer = with(room - 1);
    assert_eq!(connect_from(&mut observer, SECOND, NODE, MASQUERADE), []);
    assert_eq!(observer.handle(word.clone()), []);
    let mut observer = with(room);
    assert_eq!(connect_from(&mut observer, SECOND, NODE, MASQUERADE), []);
    assert_eq!(connect_from(&mut observer, SECOND, NAMED, MASQUERADE), []);
    let record = only(observer.handle(word));
    assert_eq!(told(&record), (None, Some(Reason::NotAsked)));
    // The programs may have known it before there were so many.
    let reading = Reading::Nothing(Reason::Http2);
    assert_eq!(says(&mut observer, 2 * SECOND, NODE, reading), []);
    connect_from(&mut observer, 2 * SECOND, NODE, MASQUERADE);
    let word = Event::Tick(Moment(2 * SECOND + CHANGE_NS));
    let record = only(observer.handle(word));
    assert_eq!(told(&record), (None, Some(Reason::Http2)));
}

#[test]
fn who_is_not_known_is_not_waited_for() {
    let mut observer = of(Whose::Known, &["198.51.100.0/24"]);
    let record = only(connect(&mut observer, SECOND, MASQUERADE));
    assert_eq!(told(&record), (None, None));
    let mut observer = of(Whose::Off, &["0.0.0.0/0"]);
    let record = only(connect(&mut observer, SECOND, MASQUERADE));
    assert_eq!(told(&record), (None, None));
}

#[test]
fn a_client_is_not_believed_of_itself() {
    let mut observer = of(Whose::On, &["198.51.100.0/24"]);
    assert_eq!(connect(&mut observer, SECOND, MASQUERADE), []);
    let reading = forwarded(&["192.0.2.1"]);
    let record = only(says(&mut observer, SECOND, CLIENT, reading));
    assert_eq!(told(&record), (None, Some(Reason::UntrustedPeer)));
    assert_eq!(record.client.hops_listed, Some(1));
}

/// Through a node port a node speaks for itself; straight to a pod its masquerade may, for anybody.
#[test]
fn a_node_is_believed_only_where_it_is_no_masquerade() {
    const NODE: &str = "172.31.0.11:40000";
    const TUNNEL: &str = "10.244.1.0:40000";
    let of = |peer: &str, door: Option<FrontDoorKind>, trusted: &[&str], is_own: bool| {
        let observer = of(Whose::On, trusted);
        let local = LocalAddresses::new("node2", is_own.then_some(socket(peer).ip()));
        let around = Around {
            asking: &observer.settings.first_bytes,
            index: observer.cluster.at(Moment(1)).map(|held| &held.index),
            local: &local,
            load_balancers: &observer.load_balancers,
            reached: &observer.reached,
            left_out: &observer.left_out,
            memory: &observer.memory,
            identity: identity(SECOND, peer),
            opened_at: None,
            is_own,
            is_linked: false,
        };
        let client = verdict::Client {
            address: socket(peer),
            kind: verdict::ClientKind::Node,
        };
        let door = verdict::FrontDoor {
            kind: door,
            address: socket("172.31.0.12:30080"),
        };
        let recovered = around.client(&forwarded(&["203.0.113.50"]), client, &door);
        recovered.map(|recovered| recovered.address)
    };
    let of_door = |door, trusted: &[&str]| of(NODE, door, trusted, false);
    let client = Ok(socket(CLIENT).ip());
    let nobody = Err(Reason::UntrustedPeer);
    assert_eq!(of_door(Some(FrontDoorKind::ClusterIP), &["nodes"]), client);
    let straight = Some(FrontDoorKind::Pod);
    assert_eq!(of_door(straight, &["nodes"]), nobody);
    // This node's own process is no masquerade, but was never seen to get a connection from there.
    assert_eq!(of(NODE, straight, &["nodes"], true), nobody);
    assert_eq!(of(NODE, straight, &["172.31.0.11"], true), client);
    assert_eq!(of_door(straight, &["172.31.0.11"]), client);
    // A network that holds it does not speak of it; nor of a tunnel's in a pod CIDR.
    assert_eq!(of_door(straight, &["nodes", "172.31.0.0/16"]), nobody);
    assert_eq!(of(TUNNEL, straight, &["10.0.0.0/8"], false), nobody);
    assert_eq!(of(TUNNEL, straight, &["10.244.1.0"], false), client);
    assert_eq!(of_door(straight, &["pods"]), nobody);
}

#[test]
fn whose_first_bytes_are_asked_for() {
    let cluster = cluster(TrafficPolicy::Cluster);
    let sources = |whose| {
        let asked = Asking {
            whose,
            trusted: vec!["10.0.0.0/8".parse().expect("a network"), Trusted::Pods],
            load_balancers: vec!["192.0.2.0/24".parse().expect("a network")],
        };
        let local = LocalAddresses::new(
            "node1",
            ["10.244.1.1", "::1"].map(|it| it.parse().expect("one")),
        );
        let sources = asked.sources(Some(&cluster.index), &local);
        sources.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(sources(Whose::Off), <[&str; 0]>::default());
    assert_eq!(
        sources(Whose::Known),
        [
            "10.0.0.0/8",
            "10.244.1.1/32",
            "172.31.0.11/32",
            "192.0.2.0/24"
        ]
    );
    assert_eq!(sources(Whose::On), ["0.0.0.0/0", "::/0"]);
}

/// What was lost where, as a record says it.
fn lost(record: &Record) -> Vec<(Option<&str>, RewriteOwner, CauseCode)> {
    let losses = record.losses.iter();
    losses
        .map(|it| (it.at.node.as_deref(), it.at.by, it.cause.code))
        .collect()
}

#[test]
fn who_is_believed_to_speak_for_another_is_a_loss_before_the_node() {
    let mut observer = of(Whose::On, &["198.51.100.0/24"]);
    connect_from(&mut observer, SECOND, BALANCER, MASQUERADE);
    let reading = forwarded(&["203.0.113.50"]);
    let record = only(says(&mut observer, SECOND, BALANCER, reading));
    assert_eq!(record.client.kind, ClientKind::LoadBalancer);
    let (cluster, proxy) = (CauseCode::ExternalTrafficPolicyCluster, RewriteOwner::Proxy);
    assert_eq!(
        lost(&record),
        [
            (None, proxy, CauseCode::L7Proxy),
            (Some("node1"), RewriteOwner::KubeProxy, cluster)
        ]
    );
    assert_eq!(
        record.lost_at.as_ref(),
        record.losses.first().map(|it| &it.at)
    );
    assert_eq!(record.as_expected, Some(true));
}

#[test]
fn who_is_not_believed_is_a_client() {
    let mut observer = of(Whose::On, &["10.0.0.0/8"]);
    for local in [false, true] {
        let reading = if local {
            Reading::Nothing(Reason::Local)
        } else {
            forwarded(&["203.0.113.50"])
        };
        let at = if local { 2 * SECOND } else { SECOND };
        connect_from(&mut observer, at, BALANCER, MASQUERADE);
        let record = only(says(&mut observer, at, BALANCER, reading));
        assert_eq!(record.client.kind, ClientKind::External);
        let cluster = CauseCode::ExternalTrafficPolicyCluster;
        let here = (Some("node1"), RewriteOwner::KubeProxy, cluster);
        assert_eq!(lost(&record), [here]);
    }
}

/// Named, it is known without a byte; what comes by it is believed only if that is asked for.
#[test]
fn a_load_balancer_may_be_named() {
    let named = |whose, trusted: &[&str]| {
        let trusted = trusted.iter().map(|one| one.parse().expect("one"));
        let asked = Asking {
            whose,
            trusted: trusted.collect(),
            load_balancers: vec!["198.51.100.0/28".parse().expect("a network")],
        };
        asking(asked, Some(cluster(TrafficPolicy::Cluster)))
    };
    let mut observer = named(Whose::Off, &[]);
    let record = only(connect_from(&mut observer, SECOND, BALANCER, MASQUERADE));
    let upstream = (
        None,
        RewriteOwner::LoadBalancer,
        CauseCode::UpstreamLoadBalancer,
    );
    assert_eq!(lost(&record)[0], upstream);
    assert_eq!(told(&record), (None, None));
    for (trusted, is_believed) in [
        (&["load-balancers"][..], true),
        (&["load-balancer-status"], false),
        (&["nodes", "pods"], false),
    ] {
        let mut observer = named(Whose::Known, trusted);
        connect_from(&mut observer, SECOND, BALANCER, MASQUERADE);
        let reading = forwarded(&["203.0.113.50"]);
        let record = only(says(&mut observer, SECOND, BALANCER, reading));
        assert_eq!(lost(&record)[0], upstream, "{trusted:?}");
        assert_eq!(told(&record).0.is_some(), is_believed, "{trusted:?}");
    }
}

/// A client of a load balancer of plain TCP writes what it likes.
#[rstest]
#[case::local(Reading::Nothing(Reason::Local))]
#[case::the_load_balancer(forwarded(&["198.51.100.7"]))]
#[case::somebody_else(forwarded(&["192.0.2.66"]))]
fn a_client_behind_a_load_balancer_never_makes_itself_the_load_balancer(#[case] reading: Reading) {
    let default = Asking::default().trusted;
    for trusted in [default, vec![Trusted::LoadBalancers]] {
        let is_asked_for = trusted == [Trusted::LoadBalancers];
        let asked = Asking {
            whose: Whose::Known,
            trusted,
            load_balancers: vec!["198.51.100.0/28".parse().expect("a network")],
        };
        let mut observer = asking(asked, Some(cluster(TrafficPolicy::Local)));
        connect_from(&mut observer, SECOND, BALANCER, BALANCER);
        let record = only(says(&mut observer, SECOND, BALANCER, reading.clone()));
        assert_ne!(record.source_ip, SourceIp::Preserved);
        if !is_asked_for {
            assert_eq!(record.source_ip, SourceIp::Lost);
            assert_eq!(told(&record).0, None);
        }
    }
}

#[test]
fn what_has_the_gateways_address_is_not_known() {
    let mut observer = following(Some(cluster(TrafficPolicy::Local)));
    let record = only(connect_from(&mut observer, SECOND, GATEWAY, GATEWAY));
    assert_eq!(record.source_ip, SourceIp::Unknown);
    let cause = record.cause.as_ref().map(|cause| cause.code);
    assert_eq!(cause, Some(CauseCode::GatewayMasquerade));
    assert_eq!(record.as_expected, Some(true));
}

/// The load balancer told the pod of its client; the pod, a proxy, names the load balancer alone.
#[rstest]
#[case::replaced(&["198.51.100.7"], true)]
#[case::kept(&["203.0.113.50", "198.51.100.7"], false)]
#[case::of_another(&["198.51.100.8"], false)]
fn what_a_proxy_was_told_it_may_replace(
    #[case] hops: &[&str],
    #[case] is_replaced: bool,
    #[values(false, true)] is_lost: bool,
) {
    let asked = Asking {
        whose: Whose::On,
        trusted: ["10.244.1.5", "load-balancers"]
            .map(|it| it.parse().expect("one"))
            .into(),
        load_balancers: vec!["198.51.100.0/28".parse().expect("a network")],
    };
    let mut observer = asking(asked, Some(cluster(TrafficPolicy::Local)));
    // Whatever address a proxy has, nobody told it anything yet.
    let proxy = "10.244.1.5:41000";
    let finds = |observer: &mut Observer, at| {
        connect_from(observer, at, proxy, MASQUERADE);
        let record = only(says(observer, at, proxy, forwarded(hops)));
        let mut findings = record.findings.iter();
        findings.any(|it| it.code == FindingCode::ForwardedForOverwritten)
    };
    assert!(!finds(&mut observer, SECOND));
    connect_from(&mut observer, 2 * SECOND, BALANCER, BALANCER);
    let reading = forwarded(&["203.0.113.50"]);
    only(says(&mut observer, 2 * SECOND, BALANCER, reading));
    assert_eq!(finds(&mut observer, 3 * SECOND), is_replaced);
    // One that says nothing, for which the proxy opens nothing.
    connect_from(&mut observer, 4 * SECOND, BALANCER, BALANCER);
    let silent = only(observer.handle(Event::Tick(Moment(7 * SECOND))));
    assert_eq!(told(&silent), (None, Some(Reason::Silent)));
    assert_eq!(finds(&mut observer, 8 * SECOND), is_replaced);
    // A health check, which the proxy may have opened the next for.
    connect_from(&mut observer, 9 * SECOND, BALANCER, BALANCER);
    if is_lost {
        observer.handle(Event::FirstBytesLost(Moment(10 * SECOND)));
        only(observer.handle(Event::Tick(Moment(12 * SECOND))));
    } else {
        let nothing = Reading::Nothing(Reason::NoHeader);
        only(says(&mut observer, 9 * SECOND, BALANCER, nothing));
    }
    assert!(!finds(&mut observer, 13 * SECOND));
    // Longer ago than any load balancer's checks are apart, and told of another since.
    assert!(!finds(&mut observer, 700 * SECOND));
    connect_from(&mut observer, 701 * SECOND, BALANCER, BALANCER);
    let reading = forwarded(&["203.0.113.50"]);
    only(says(&mut observer, 701 * SECOND, BALANCER, reading));
    assert_eq!(finds(&mut observer, 702 * SECOND), is_replaced);
}

/// One check makes doubtful what comes in the next minutes, whatever was told between.
#[test]
fn a_health_check_is_remembered_until_the_next_would_have_come() {
    let asked = Asking {
        whose: Whose::On,
        trusted: ["10.244.1.5", "load-balancers"]
            .map(|it| it.parse().expect("one"))
            .into(),
        load_balancers: vec!["198.51.100.0/28".parse().expect("a network")],
    };
    let mut observer = asking(asked, Some(cluster(TrafficPolicy::Local)));
    connect_from(&mut observer, SECOND, BALANCER, BALANCER);
    let nothing = Reading::Nothing(Reason::NoHeader);
    only(says(&mut observer, SECOND, BALANCER, nothing));
    for (at, is_found) in [(2, false), (590, false), (610, true)] {
        connect_from(&mut observer, at * SECOND, BALANCER, BALANCER);
        let reading = forwarded(&["203.0.113.50"]);
        only(says(&mut observer, at * SECOND, BALANCER, reading));
        let (at, proxy) = ((at + 1) * SECOND, "10.244.1.5:41000");
        connect_from(&mut observer, at, proxy, MASQUERADE);
        let record = only(says(&mut observer, at, proxy, forwarded(&["198.51.100.7"])));
        let mut findings = record.findings.iter();
        let found = findings.any(|it| it.code == FindingCode::ForwardedForOverwritten);
        assert_eq!(found, is_found, "{at}");
    }
}
