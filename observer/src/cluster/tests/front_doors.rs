//! Which front door an original destination is.

use rstest::rstest;
use serde_json::{Value, json};

use super::super::{Index, LocalAddresses, Protocol};
use super::{endpoint, index, ip, node, on_node1, plain_pod, pod, service, slice, slice_with};
use super::{two_nodes, web};

/// `kind service:port pod`, as far as they are known; `-` for no front door.
fn door_for(index: &Index, local: &LocalAddresses, protocol: Protocol, at: &str) -> String {
    let (address, port) = at.rsplit_once(':').expect("address:port");
    let address = ip(address.trim_matches(['[', ']']));
    let port = port.parse().expect("a port");
    let Some(door) = index.front_door(protocol, address, port, local) else {
        return "-".to_owned();
    };
    let service = match (door.entry, door.service) {
        (Some(entry), Some(service)) => {
            assert_eq!(entry.service.reference, service.reference);
            entry.service_port().to_string()
        }
        (None, Some(service)) => format!("{} (some port)", service.reference),
        (None, None) => "?".to_owned(),
        (Some(_), None) => unreachable!("an entry has a service"),
    };
    let pod = door.pod.map_or(String::new(), |pod| format!(" {pod}"));
    format!("{} {service}{pod}", door.kind)
}

fn door(index: &Index, at: &str) -> String {
    door_for(index, &on_node1(), Protocol::Tcp, at)
}

/// A Service of every way in, in both families.
fn all_ways() -> Index {
    let mut web = service(
        "web",
        json!({
            "type": "LoadBalancer",
            "clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10", "fd00:96::a"],
            "ipFamilies": ["IPv4", "IPv6"],
            "externalIPs": ["198.51.100.7", "2001:db8::7"],
            "ports": [{"name": "http", "port": 80, "nodePort": 30080, "targetPort": "web"}],
        }),
    );
    web["status"] = json!({"loadBalancer": {"ingress": [
        {"ip": "192.0.2.1"},
        {"ip": "192.0.2.2", "ipMode": "VIP"},
        {"ip": "192.0.2.3", "ipMode": "Proxy"},
        {"hostname": "lb.example.com"},
        {"ip": "2001:db8::1"},
    ]}});
    let [node1, node2] = two_nodes();
    index(&[
        web,
        slice(
            "web",
            "web-1",
            json!([endpoint("10.244.2.5", "node2", "web-7f9c")]),
        ),
        slice_with(
            "web",
            "web-2",
            "IPv6",
            json!([{"name": "http", "port": 8080}]),
            json!([endpoint("fd10:0:0:2::5", "node2", "web-7f9c")]),
        ),
        node1,
        node2,
    ])
}

#[rstest]
#[case::cluster_ip("10.96.0.10:80", "ClusterIP shop/web:http")]
#[case::cluster_ip_v6("[fd00:96::a]:80", "ClusterIP shop/web:http")]
#[case::cluster_ip_other_port("10.96.0.10:81", "-")]
#[case::cluster_ip_node_port("10.96.0.10:30080", "-")]
#[case::load_balancer_without_a_mode("192.0.2.1:80", "LoadBalancer shop/web:http")]
#[case::load_balancer_vip("192.0.2.2:80", "LoadBalancer shop/web:http")]
#[case::load_balancer_v6("[2001:db8::1]:80", "LoadBalancer shop/web:http")]
#[case::load_balancer_proxy("192.0.2.3:80", "-")]
#[case::external_ip("198.51.100.7:80", "ExternalIP shop/web:http")]
#[case::external_ip_v6("[2001:db8::7]:80", "ExternalIP shop/web:http")]
#[case::node_port_here("172.31.0.11:30080", "NodePort shop/web:http")]
#[case::node_port_elsewhere("172.31.0.12:30080", "NodePort shop/web:http")]
#[case::node_port_v6("[fd00::12]:30080", "NodePort shop/web:http")]
#[case::node_port_at_a_bridge("10.244.1.1:30080", "NodePort shop/web:http")]
#[case::node_port_loopback("127.0.0.1:30080", "NodePort shop/web:http")]
#[case::node_port_at_no_node("203.0.113.9:30080", "-")]
#[case::pod("10.244.2.5:8080", "Pod shop/web:http")]
#[case::pod_v6("[fd10:0:0:2::5]:8080", "Pod shop/web:http")]
#[case::pod_other_port("10.244.2.5:9090", "Pod ?")]
#[case::nothing("203.0.113.9:443", "-")]
fn every_way_in(#[case] at: &str, #[case] expected: &str) {
    assert_eq!(door(&all_ways(), at), expected);
}

#[test]
fn load_balancer_addresses_of_mode_proxy_are_remembered() {
    let index = all_ways();
    let service = index
        .load_balancer_proxy(ip("192.0.2.3"))
        .expect("a Service has it");
    assert_eq!(service.reference.to_string(), "shop/web");
    assert!(index.load_balancer_proxy(ip("192.0.2.2")).is_none());
}

#[rstest]
#[case::tcp(Protocol::Tcp, "ClusterIP shop/dns:dns-tcp")]
#[case::udp(Protocol::Udp, "ClusterIP shop/dns:dns")]
#[case::sctp(Protocol::Sctp, "-")]
fn protocols_are_apart(#[case] protocol: Protocol, #[case] expected: &str) {
    let ports = json!([
        {"name": "dns", "port": 53, "protocol": "UDP"},
        {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
    ]);
    let index = index(&[service(
        "dns",
        json!({"clusterIP": "10.96.0.53", "ports": ports}),
    )]);
    assert_eq!(
        door_for(&index, &on_node1(), protocol, "10.96.0.53:53"),
        expected
    );
}

#[test]
fn sctp_has_front_doors_too() {
    let ports = json!([{"port": 3868, "protocol": "SCTP", "nodePort": 30868}]);
    let [node1, _] = two_nodes();
    let index = index(&[
        service("sig", json!({"clusterIP": "10.96.0.9", "ports": ports})),
        node1,
    ]);
    let at = "172.31.0.11:30868";
    assert_eq!(
        door_for(&index, &on_node1(), Protocol::Sctp, at),
        "NodePort shop/sig"
    );
    assert_eq!(door_for(&index, &on_node1(), Protocol::Tcp, at), "-");
}

/// A single-stack Service has no node port, external or load balancer address in the other family,
/// whatever its lists say.
#[rstest]
#[case::its_family("172.31.0.11:30080", "NodePort shop/web")]
#[case::other_family("[fd00::11]:30080", "-")]
#[case::external_ip_of_the_other_family("[2001:db8::7]:80", "-")]
#[case::load_balancer_of_the_other_family("[2001:db8::1]:80", "-")]
fn single_stack(#[case] at: &str, #[case] expected: &str) {
    let mut web = service(
        "web",
        json!({
            "type": "LoadBalancer", "clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10"],
            "ipFamilies": ["IPv4"], "externalIPs": ["2001:db8::7"],
            "ports": [{"port": 80, "nodePort": 30080}],
        }),
    );
    web["status"] = json!({"loadBalancer": {"ingress": [{"ip": "2001:db8::1"}]}});
    let [node1, node2] = two_nodes();
    assert_eq!(door(&index(&[web, node1, node2]), at), expected);
}

#[test]
fn headless_services_have_no_address_but_endpoints() {
    let index = index(&[
        service(
            "db",
            json!({"clusterIP": "None", "clusterIPs": ["None"], "ports": [
                {"name": "http", "port": 80, "nodePort": 30080},
            ]}),
        ),
        slice(
            "db",
            "db-1",
            json!([endpoint("10.244.2.5", "node2", "db-0")]),
        ),
    ]);
    assert_eq!(door(&index, "172.31.0.11:30080"), "-");
    assert_eq!(door(&index, "10.244.2.5:8080"), "Pod shop/db:http");
}

#[test]
fn external_name_services_have_nothing() {
    let alias = json!({
        "type": "ExternalName", "externalName": "db.example.com", "clusterIP": "10.96.0.10",
        "ports": [{"name": "http", "port": 80}],
    });
    let index = index(&[service("db", alias)]);
    assert!(index.entries().is_empty());
    assert_eq!(door(&index, "10.96.0.10:80"), "-");
}

#[rstest]
#[case::one_service(&["a"], "Pod shop/a:http")]
#[case::two_services(&["a", "b"], "Pod ?")]
#[case::a_service_that_is_not_given(&["gone"], "Pod ?")]
fn an_endpoint_belongs_to_a_service_if_to_no_other(#[case] of: &[&str], #[case] expected: &str) {
    let mut items = vec![web("a", "10.96.0.1"), web("b", "10.96.0.2")];
    for service in of {
        items.push(slice(
            service,
            service,
            json!([endpoint("10.244.2.5", "node2", "p")]),
        ));
    }
    assert_eq!(door(&index(&items), "10.244.2.5:8080"), expected);
}

#[test]
fn two_ports_of_a_service_may_share_an_endpoint() {
    let ports = json!([{"name": "http", "port": 80}, {"name": "https", "port": 443}]);
    let targets = json!([{"name": "http", "port": 8080}, {"name": "https", "port": 8080}]);
    let index = index(&[
        service("web", json!({"clusterIP": "10.96.0.10", "ports": ports})),
        slice_with(
            "web",
            "web-1",
            "IPv4",
            targets,
            json!([endpoint("10.244.2.5", "n", "p")]),
        ),
    ]);
    assert_eq!(door(&index, "10.244.2.5:8080"), "Pod shop/web (some port)");
}

#[test]
fn services_that_claim_the_same_address_are_both_doubted() {
    let claim = |name, cluster_ip| {
        let spec = json!({
            "clusterIP": cluster_ip, "externalIPs": ["198.51.100.7"], "ports": [{"port": 80}],
        });
        service(name, spec)
    };
    let index = index(&[claim("a", "10.96.0.1"), claim("b", "10.96.0.2")]);
    assert_eq!(door(&index, "198.51.100.7:80"), "ExternalIP ?");
}

/// K3s's load balancer announces the nodes' own addresses.
#[test]
fn a_load_balancer_address_wins_over_external_ips_and_node_ports() {
    let mut web = service(
        "web",
        json!({
            "type": "LoadBalancer", "clusterIP": "10.96.0.10", "externalIPs": ["172.31.0.11"],
            "ports": [{"port": 30080, "nodePort": 30080}],
        }),
    );
    web["status"] = json!({"loadBalancer": {"ingress": [{"ip": "172.31.0.11"}]}});
    let [node1, node2] = two_nodes();
    let index = index(&[web, node1, node2]);
    assert_eq!(door(&index, "172.31.0.11:30080"), "LoadBalancer shop/web");
    assert_eq!(door(&index, "172.31.0.12:30080"), "NodePort shop/web");
}

fn host_port_pod(name: &str, on: &str, address: &str, port: Value) -> Value {
    let spec = json!({"containers": [{"name": "c", "ports": [port]}]});
    pod(
        name,
        on,
        address,
        spec,
        json!({"hostIPs": [{"ip": "172.31.0.12"}]}),
    )
}

#[rstest]
#[case::its_node(json!({"containerPort": 80, "hostPort": 8000}), "172.31.0.12:8000", "HostPort ? shop/p")]
#[case::another_node(json!({"containerPort": 80, "hostPort": 8000}), "172.31.0.11:8000", "-")]
#[case::a_family_without_the_pod(json!({"containerPort": 80, "hostPort": 8000}), "[fd00::12]:8000", "-")]
#[case::the_container_port(json!({"containerPort": 80, "hostPort": 8000}), "172.31.0.12:80", "-")]
#[case::another_protocol(json!({"containerPort": 80, "hostPort": 8000, "protocol": "UDP"}), "172.31.0.12:8000", "-")]
#[case::every_address(json!({"containerPort": 80, "hostPort": 8000, "hostIP": "0.0.0.0"}), "172.31.0.12:8000", "HostPort ? shop/p")]
#[case::every_v6_address(json!({"containerPort": 80, "hostPort": 8000, "hostIP": "::"}), "172.31.0.12:8000", "-")]
#[case::an_address_of_its_own(json!({"containerPort": 80, "hostPort": 8000, "hostIP": "192.0.2.9"}), "192.0.2.9:8000", "HostPort ? shop/p")]
#[case::that_address_only(json!({"containerPort": 80, "hostPort": 8000, "hostIP": "192.0.2.9"}), "172.31.0.12:8000", "-")]
#[case::loopback_of_its_node(json!({"containerPort": 80, "hostPort": 8000, "hostIP": "127.0.0.1"}), "127.0.0.1:8000", "-")]
fn host_ports(#[case] port: Value, #[case] at: &str, #[case] expected: &str) {
    let [node1, node2] = two_nodes();
    let index = index(&[
        node1,
        node2,
        host_port_pod("p", "node2", "10.244.2.7", port),
    ]);
    assert_eq!(door(&index, at), expected);
}

#[test]
fn host_ports_of_several_pods_are_host_ports_still() {
    let port = || json!({"containerPort": 80, "hostPort": 8000});
    let index = index(&[
        host_port_pod("p", "node2", "10.244.2.7", port()),
        host_port_pod("q", "node2", "10.244.2.8", port()),
    ]);
    assert_eq!(door(&index, "172.31.0.12:8000"), "HostPort ?");
}

#[test]
fn a_host_port_on_this_node_is_at_all_its_addresses() {
    let spec = json!({"initContainers": [{
        "name": "sidecar", "restartPolicy": "Always",
        "ports": [{"containerPort": 80, "hostPort": 8000}],
    }]});
    let index = index(&[pod("p", "node1", "10.244.1.7", spec, Value::Null)]);
    assert_eq!(door(&index, "10.244.1.1:8000"), "HostPort ? shop/p");
    assert_eq!(door(&index, "127.0.0.1:8000"), "HostPort ? shop/p");
}

/// What a Pod in its node's network listens on is a listener of the host, and an endpoint only if
/// a Service has it.
#[test]
fn a_pod_in_the_nodes_network_has_no_host_port() {
    let spec = json!({"hostNetwork": true, "containers": [
        {"name": "c", "ports": [{"containerPort": 8000, "hostPort": 8000}]},
    ]});
    let ingress = || pod("p", "node2", "172.31.0.12", spec.clone(), Value::Null);
    let [node1, node2] = two_nodes();
    let alone = index(&[node1, node2, ingress()]);
    assert_eq!(door(&alone, "172.31.0.12:8000"), "-");

    let served = index(&[
        node("node2", &["172.31.0.12"], &[]),
        ingress(),
        web("web", "10.96.0.10"),
        slice(
            "web",
            "web-1",
            json!([endpoint("172.31.0.12", "node2", "p")]),
        ),
    ]);
    assert_eq!(door(&served, "172.31.0.12:8080"), "Pod shop/web:http");
    assert_eq!(door(&served, "172.31.0.12:22"), "-");
}

#[test]
fn a_pod_of_no_service_is_a_front_door() {
    let index = index(&[plain_pod("p", "node2", "10.244.2.9")]);
    assert_eq!(door(&index, "10.244.2.9:1234"), "Pod ?");
}
