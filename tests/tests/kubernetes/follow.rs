//! `observer agent` by an API server: what it knows follows what the server has.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    thread,
    time::{Duration, Instant},
};

use rstest::rstest;
use serde_json::{Value, json};
use tests::{
    api_server::{ApiServer, Faults, Options, Order},
    http::{self, Answer},
    lab::Lab,
    observer_process::ObserverProcess,
    privilege,
};

use super::demo_items;

const METRICS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9_808);
/// How long anything may take that takes moments.
const SOON: Duration = Duration::from_secs(15);

/// An agent on a node of a lab, and the API server that it asks.
///
/// In the order of the dismantling.
pub(super) struct Followed {
    agent: Option<ObserverProcess>,
    pub(super) server: ApiServer,
    lab: Lab,
}

impl Followed {
    /// With the demo's objects.
    fn start(streaming_lists: bool, misbehave: impl FnOnce(&mut Faults)) -> Self {
        Self::of(&demo_items(), streaming_lists, misbehave)
    }

    /// Starts both; the agent once the server misbehaves as it is to.
    pub(super) fn of(
        items: &[Value],
        streaming_lists: bool,
        misbehave: impl FnOnce(&mut Faults),
    ) -> Self {
        let lab = tests::demo::raise().expect("raised");
        let node = &lab.node("node1").expect("a node").namespace;
        let options = Options {
            within: Some((node, Ipv4Addr::LOCALHOST.into())),
            streaming_lists,
            ..Options::default()
        };
        let server = ApiServer::start(items, &options).expect("an API server");
        server.misbehave(misbehave);
        let mut followed = Self {
            agent: None,
            server,
            lab,
        };
        let kubeconfig = followed.server.kubeconfig();
        let kubeconfig = kubeconfig.to_str().expect("text");
        let node = followed.lab.node("node1").expect("a node");
        let agent = ObserverProcess::start_agent(node, &["--kubeconfig", kubeconfig]);
        followed.agent = Some(agent.expect("an agent"));
        followed
    }

    pub(super) fn agent_id(&self) -> u32 {
        self.agent.as_ref().expect("it was started").id()
    }

    fn get(&self, path: &str) -> Answer {
        let node = self.lab.node("node1").expect("a node");
        http::get(&node.namespace, METRICS, path, &[]).expect("an answer")
    }

    /// A sample of its metrics that is a whole number.
    fn sample(&self, name: &str) -> Option<u64> {
        let text = self.get("/metrics").body;
        let name = format!("source_ip_observer_{name} ");
        let value = text.lines().find_map(|line| line.strip_prefix(&name))?;
        let value = value.trim_end_matches(".0").parse();
        Some(value.expect("a whole number"))
    }

    /// How many objects of a kind it knows.
    fn objects(&self, kind: &str) -> Option<u64> {
        self.sample(&format!("cluster_objects{{kind=\"{kind}\"}}"))
    }

    pub(super) fn rebuilds(&self) -> u64 {
        self.sample("index_rebuilds_total").expect("a counter")
    }

    pub(super) fn until(&self, what: &str, mut is_so: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + SOON;
        while !is_so(self) {
            assert!(
                Instant::now() < deadline,
                "never: {what}\n{}\n{:#?}",
                self.get("/readyz").body,
                self.server.requests(),
            );
            thread::sleep(Duration::from_millis(20));
        }
    }

    pub(super) fn until_ready(&self) {
        self.until("ready", |followed| followed.get("/readyz").status == 200);
    }

    /// Waits until it knows as many objects of a kind as the server has.
    pub(super) fn until_it_knows(&self, kind: &str, number: usize) {
        let wanted = u64::try_from(number).ok();
        self.until(&format!("{number} objects of kind {kind}"), |followed| {
            followed.objects(kind) == wanted
        });
    }
}

fn number_of(kind: &str) -> usize {
    let items = demo_items();
    items.iter().filter(|item| item["kind"] == kind).count()
}

fn service(number: usize) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": "more", "name": format!("service-{number}")},
        "spec": {
            "clusterIP": format!("10.97.0.{}", number + 1),
            "ports": [{"port": 80, "protocol": "TCP"}],
        },
    })
}

#[rstest]
#[case::listed(false)]
#[case::streamed(true)]
fn all_that_the_server_has_is_known_and_changes_are_noticed(#[case] streaming_lists: bool) {
    if !privilege::granted("all_that_the_server_has_is_known_and_changes_are_noticed") {
        return;
    }
    let followed = Followed::start(streaming_lists, |_| {});
    followed.until_ready();
    let services = number_of("Service");
    for kind in ["Service", "EndpointSlice", "Node"] {
        followed.until_it_knows(kind, number_of(kind));
    }
    assert_eq!(followed.sample("api_up"), Some(1));
    // Each kind was asked for in one way.
    let requests = followed.server.requests();
    let asked = |what: &str| {
        requests
            .iter()
            .any(|it| it.starts_with("200") && it.contains(what))
    };
    assert_eq!(asked("sendInitialEvents"), streaming_lists, "{requests:#?}");
    assert_eq!(asked("limit="), !streaming_lists, "{requests:#?}");
    assert!(
        asked("fieldSelector=spec.nodeName%3Dnode1"),
        "{requests:#?}"
    );

    followed.server.put(service(0));
    followed.until_it_knows("Service", services + 1);
    followed.server.delete("Service", "more", "service-0");
    followed.until_it_knows("Service", services);

    // Of the Pods those of this node only: one that is there for a while.
    let pods = followed.objects("Pod").expect("a number");
    let pod = |node: &str| {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"namespace": "more", "name": "pod"},
            "spec": {"nodeName": node, "containers": []},
            "status": {"phase": "Running", "podIP": "10.244.1.99"},
        })
    };
    followed.server.put(pod("node1"));
    followed.until("another Pod", |it| it.objects("Pod") == Some(pods + 1));
    followed.server.put(pod("node2"));
    followed.until("none", |it| it.objects("Pod") == Some(pods));
}

#[test]
fn what_changes_nothing_builds_nothing_and_a_burst_builds_little() {
    if !privilege::granted("what_changes_nothing_builds_nothing_and_a_burst_builds_little") {
        return;
    }
    let followed = Followed::start(false, |_| {});
    followed.until_ready();
    let services = number_of("Service");
    let mut nodes = demo_items();
    nodes.retain(|item| item["kind"] == "Node");
    let before = followed.rebuilds();
    for beat in 0..20 {
        for node in &mut nodes {
            node["metadata"]["annotations"] = json!({"heartbeat": beat.to_string()});
            followed.server.put(node.clone());
        }
    }
    // What comes behind it on another watch says nothing, but a change of a Node does.
    let mut node = nodes[0].clone();
    node["metadata"]["name"] = json!("another");
    followed.server.put(node);
    followed.until_it_knows("Node", nodes.len() + 1);
    assert_eq!(followed.rebuilds() - before, 1);

    let began = Instant::now();
    for number in 0..200 {
        followed.server.put(service(number));
        thread::sleep(Duration::from_millis(10));
    }
    followed.until_it_knows("Service", services + 200);
    let built = followed.rebuilds() - before - 1;
    let at_most = began.elapsed().as_secs() + 2;
    assert!((1..=at_most).contains(&built), "{built} of {at_most}");
}

/// Whatever becomes of a watch, no change is missed, and the server does not count as away.
#[rstest]
#[case::ends(Order::End)]
#[case::breaks_off(Order::BreakOff)]
#[case::garbage(Order::Garbage)]
#[case::expires(Order::Expire)]
fn a_watch_that_fails_is_taken_up_again(
    #[case] order: Order,
    #[values(false, true)] streaming_lists: bool,
) {
    if !privilege::granted("a_watch_that_fails_is_taken_up_again") {
        return;
    }
    let followed = Followed::start(streaming_lists, |_| {});
    followed.until_ready();
    let services = number_of("Service");
    followed.server.put(service(0));
    followed.until_it_knows("Service", services + 1);
    for round in 1..4 {
        followed.server.order(order);
        if order == Order::Expire {
            followed.server.compact();
        }
        followed.server.put(service(round));
        followed
            .server
            .delete("Service", "more", &format!("service-{}", round - 1));
        followed.server.put(service(100 + round));
        let wanted = u64::try_from(services + 1 + round).ok();
        followed.until("the change", |followed| {
            assert_eq!(followed.sample("api_up"), Some(1));
            followed.objects("Service") == wanted
        });
    }
    assert_eq!(followed.get("/readyz").status, 200);
}

#[rstest]
#[case::without_a_trace(false)]
#[case::and_forgets(true)]
fn a_server_that_goes_away_is_noticed_and_what_changed_meanwhile_known_later(
    #[case] forgets: bool,
) {
    if !privilege::granted("a_server_that_goes_away_is_noticed_and_what_changed_meanwhile") {
        return;
    }
    let followed = Followed::start(false, |_| {});
    followed.until_ready();
    let services = number_of("Service");
    followed.server.go_away();
    followed.until("away", |it| it.sample("api_up") == Some(0));
    let ready = followed.get("/readyz");
    assert_eq!(ready.status, 200, "{ready:?}");
    assert!(ready.body.contains("last heard from"), "{ready:?}");
    let address = followed.server.at().to_string();
    assert!(ready.body.contains(&address), "{ready:?}");
    // It judges on with what it knew.
    followed.until_it_knows("Service", services);

    followed.server.put(service(0));
    followed.server.put(service(1));
    let mut gone = demo_items();
    gone.retain(|item| item["kind"] == "Service");
    let gone = &gone[0]["metadata"];
    let name = |field: &str| gone[field].as_str().expect("text").to_owned();
    followed
        .server
        .delete("Service", &name("namespace"), &name("name"));
    if forgets {
        followed.server.compact();
    }
    followed.server.come_back().expect("listens again");
    followed.until_it_knows("Service", services + 1);
    followed.until("back", |it| it.sample("api_up") == Some(1));
    let ready = followed.get("/readyz").body;
    assert!(!ready.contains("last heard"), "{ready}");
}

/// A server in trouble answers, and yet nothing is known from it.
#[rstest]
#[case::internal_error(500)]
#[case::unavailable(503)]
#[case::busy(429)]
fn a_server_in_trouble_is_away(#[case] status: u16) {
    if !privilege::granted("a_server_in_trouble_is_away") {
        return;
    }
    let followed = Followed::start(false, |_| {});
    followed.until_ready();
    followed
        .server
        .misbehave(|faults| faults.status = Some(status));
    followed.server.order(Order::End);
    followed.until("away", |it| it.sample("api_up") == Some(0));
    let ready = followed.get("/readyz").body;
    assert!(ready.contains(&format!("{status} for")), "{ready}");
    followed.server.put(service(0));
    followed.server.misbehave(|faults| faults.status = None);
    followed.until_it_knows("Service", number_of("Service") + 1);
    followed.until("back", |it| it.sample("api_up") == Some(1));
}

#[test]
fn before_the_server_lets_one_in_nothing_is_ready() {
    if !privilege::granted("before_the_server_lets_one_in_nothing_is_ready") {
        return;
    }
    let followed = Followed::start(false, |faults| faults.unauthorized = true);
    followed.until("told", |it| it.get("/readyz").body.contains("401"));
    assert_eq!(followed.get("/readyz").status, 503);
    followed
        .server
        .misbehave(|faults| faults.unauthorized = false);
    followed.until_ready();
    followed.until("up", |it| it.sample("api_up") == Some(1));
}

#[test]
fn what_may_not_be_read_is_missing_until_it_may() {
    if !privilege::granted("what_may_not_be_read_is_missing_until_it_may") {
        return;
    }
    let followed = Followed::start(false, |faults| faults.forbidden.push("nodes".to_owned()));
    followed.until_ready();
    followed.until_it_knows("Node", 0);
    let ready = followed.get("/readyz").body;
    for part in ["403", "resources: [nodes]", "get, list, watch"] {
        assert!(ready.contains(part), "{part} in {ready}");
    }
    assert_eq!(followed.sample("api_up"), Some(1));
    followed.server.misbehave(|faults| faults.forbidden.clear());
    followed.until_it_knows("Node", number_of("Node"));
    followed.until("no trouble", |it| !it.get("/readyz").body.contains("nodes"));
}

#[test]
fn an_object_that_cannot_be_read_hides_no_other() {
    if !privilege::granted("an_object_that_cannot_be_read_hides_no_other") {
        return;
    }
    let followed = Followed::start(false, |_| {});
    followed.until_ready();
    let services = number_of("Service");
    let mut odd = service(0);
    odd["spec"]["ports"][0]["port"] = json!("http");
    followed.server.put(odd);
    followed.server.put(service(1));
    followed.until_it_knows("Service", services + 1);
    followed.until("told", |it| {
        it.get("/readyz").body.contains("more/service-0")
    });
    followed.server.put(service(0));
    followed.until_it_knows("Service", services + 2);
}
