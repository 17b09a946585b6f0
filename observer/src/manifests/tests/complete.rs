//! What a cluster would add.

use insta::assert_snapshot;

use super::super::{Assumption, complete, missing};
use super::objects;
use crate::cluster::{Family, FrontDoorKind, Index, Objects, Protocol, TrafficPolicy};

fn completed(text: &str) -> (Objects, Vec<Assumption>) {
    complete(objects(text))
}

fn told(assumed: &[Assumption]) -> String {
    let lines = assumed
        .iter()
        .map(|it| serde_json::to_string(it).expect("JSON"));
    lines.collect::<Vec<_>>().join("\n")
}

/// Endpoints of a Service's only port: address, port, node, pod.
fn endpoints(objects: &Objects, name: &str) -> Vec<String> {
    let index = Index::build(objects);
    let entries = index.service("default", name);
    let endpoints = entries.iter().flat_map(|entry| {
        let families = [Family::V4, Family::V6];
        families
            .into_iter()
            .flat_map(|family| entry.endpoints(family))
    });
    endpoints
        .map(|it| {
            let pod = it.pod.as_ref().map_or("-", |pod| &pod.name);
            let node = it.node.as_deref().unwrap_or("-");
            format!("{} {} {node} {pod} {}", it.address, it.port, it.ready)
        })
        .collect()
}

const WEB: &str = "
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: LoadBalancer
  externalTrafficPolicy: Local
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: http}, {name: dns, port: 53, protocol: UDP}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web, more: x}, annotations: {a: b}}
    spec:
      containers:
      - {name: web, ports: [{name: http, containerPort: 8080, hostPort: 8081}]}
";

#[test]
fn a_service_and_its_deployment_become_a_cluster() {
    let (objects, assumed) = completed(WEB);
    assert_snapshot!(told(&assumed), @r#"
    {"code":"nodes","nodes":"node-a, node-b"}
    {"code":"cluster-ip","service":"default/web","ips":"10.96.0.11"}
    {"code":"node-port","service":"default/web","port":"http","node_port":"30000"}
    {"code":"node-port","service":"default/web","port":"dns","node_port":"30001"}
    {"code":"health-check-node-port","service":"default/web","node_port":"30002"}
    {"code":"load-balancer-address","service":"default/web","ip":"198.51.100.7"}
    {"code":"pods","workload":"Deployment default/web","nodes":"node-a"}
    "#);
    assert_snapshot!(endpoints(&objects, "web").join("\n"), @"
    10.244.0.10 53 node-a web-assumed-1 true
    10.244.0.10 8080 node-a web-assumed-1 true
    ");
    let index = Index::build(&objects);
    assert_eq!(index.nodes().count(), 2);
    let entries = index.service("default", "web");
    let service = &entries[0].service;
    assert_eq!(service.external_traffic_policy, TrafficPolicy::Local);
    assert_eq!(service.load_balancer_vips.len(), 1);
    let pod = &objects.pods[0];
    assert!(pod.metadata.annotations.is_some());
    let ip = "192.0.2.11".parse().expect("an address");
    let local = crate::cluster::LocalAddresses::new("node-a", [ip]);
    let door = index.front_door(Protocol::Tcp, ip, 8081, &local);
    assert_eq!(door.expect("a host port").kind, FrontDoorKind::HostPort);
}

#[test]
fn what_is_complete_stays() {
    let (once, _) = completed(WEB);
    let (twice, assumed) = complete(once.clone());
    assert_eq!(twice, once);
    assert_eq!(assumed, []);
    let both = WEB.replace(
        "type: LoadBalancer",
        "ipFamilyPolicy: RequireDualStack\n  type: NodePort",
    );
    let both = both.replace("  externalTrafficPolicy: Local\n", "");
    let (once, _) = completed(&both);
    assert_eq!(complete(once.clone()), (once, Vec::new()));
}

#[test]
fn a_daemon_set_is_on_every_node_and_a_deployment_on_half() {
    let node = |name: &str, more: &str| {
        format!(
            "---\napiVersion: v1\nkind: Node\nmetadata: {{name: {name}, labels: {{topology.kubernetes.io/zone: z}}}}\n{more}"
        )
    };
    let taint = "spec: {taints: [{key: control, effect: NoSchedule}], podCIDR: 10.1.0.0/24}\n";
    let address = "status: {addresses: [{type: ExternalIP, address: 203.0.113.9}, {type: InternalIP, address: 10.0.0.9}]}\n";
    let nodes = [
        node("n1", taint),
        node("n2", address),
        node("n3", ""),
        node("n4", ""),
        node("n5", ""),
    ];
    let text = format!(
        "
apiVersion: v1
kind: Service
metadata: {{name: all}}
spec: {{type: NodePort, selector: {{app: all}}, ports: [{{port: 80, nodePort: 30000}}]}}
---
apiVersion: v1
kind: Service
metadata: {{name: some}}
spec: {{type: NodePort, selector: {{app: some}}, ports: [{{port: 80, targetPort: 8080}}]}}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {{name: all}}
spec:
  selector: {{matchLabels: {{app: all}}}}
  template:
    metadata: {{labels: {{app: all}}}}
    spec: {{hostNetwork: true, containers: [{{name: a}}], tolerations: [{{operator: Exists}}]}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {{name: some}}
spec:
  replicas: 9
  selector: {{matchLabels: {{app: some}}}}
  template:
    metadata: {{labels: {{app: some}}}}
    spec: {{containers: [{{name: a}}]}}
{}",
        nodes.join("")
    );
    let (objects, assumed) = completed(&text);
    assert_snapshot!(told(&assumed), @r#"
    {"code":"node-address","node":"n1","ip":"192.0.2.11"}
    {"code":"node-address","node":"n3","ip":"192.0.2.12"}
    {"code":"node-address","node":"n4","ip":"192.0.2.13"}
    {"code":"node-address","node":"n5","ip":"192.0.2.14"}
    {"code":"cluster-ip","service":"default/all","ips":"10.96.0.11"}
    {"code":"cluster-ip","service":"default/some","ips":"10.96.0.12"}
    {"code":"node-port","service":"default/some","port":"80","node_port":"30001"}
    {"code":"pods","workload":"StatefulSet default/some","nodes":"n2, n3"}
    {"code":"pods","workload":"DaemonSet default/all","nodes":"n1, n2, n3, n4, n5"}
    "#);
    assert_snapshot!(endpoints(&objects, "all").join("\n"), @"
    10.0.0.9 80 n2 all-assumed-2 true
    192.0.2.11 80 n1 all-assumed-1 true
    192.0.2.12 80 n3 all-assumed-3 true
    192.0.2.13 80 n4 all-assumed-4 true
    192.0.2.14 80 n5 all-assumed-5 true
    ");
    assert_snapshot!(endpoints(&objects, "some").join("\n"), @"
    10.244.1.10 8080 n2 some-assumed-1 true
    10.244.2.10 8080 n3 some-assumed-2 true
    ");
}

#[test]
fn pods_of_which_nothing_is_given_are_assumed_and_none_where_there_are_none() {
    let text = "
apiVersion: v1
kind: Service
metadata: {name: alone}
spec: {selector: {app: alone}, ports: [{port: 80, targetPort: web}]}
---
apiVersion: v1
kind: Service
metadata: {name: zero}
spec: {selector: {app: zero}, ports: [{port: 80}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: zero}
spec: {replicas: 0, selector: {matchLabels: {app: zero}}, template: {metadata: {labels: {app: zero}}, spec: {containers: []}}}
---
apiVersion: v1
kind: Service
metadata: {name: nobody}
spec: {ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: headless}
spec: {clusterIP: None, selector: {app: pod}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Pod
metadata: {name: pod, labels: {app: pod}}
spec: {containers: [{name: a}]}
---
apiVersion: v1
kind: Service
metadata: {name: alias}
spec: {type: ExternalName, externalName: example.com, selector: {app: pod}}
";
    let (objects, assumed) = completed(text);
    assert_snapshot!(told(&assumed), @r#"
    {"code":"nodes","nodes":"node-a, node-b"}
    {"code":"cluster-ip","service":"default/alone","ips":"10.96.0.11"}
    {"code":"cluster-ip","service":"default/zero","ips":"10.96.0.12"}
    {"code":"cluster-ip","service":"default/nobody","ips":"10.96.0.13"}
    {"code":"pods","workload":"Pod default/pod","nodes":"node-a"}
    {"code":"endpoints","service":"default/alone","node":"node-a"}
    "#);
    assert_snapshot!(endpoints(&objects, "alone").join("\n"), @"10.244.0.11 80 node-a alone-assumed-1 true");
    assert_eq!(endpoints(&objects, "zero"), [] as [&str; 0]);
    assert_eq!(endpoints(&objects, "nobody"), [] as [&str; 0]);
    assert_snapshot!(endpoints(&objects, "headless").join("\n"), @"10.244.0.10 80 node-a pod true");
}

#[test]
fn two_families_where_a_service_asks_for_them() {
    let text = "
apiVersion: v1
kind: Service
metadata: {name: both}
spec: {type: LoadBalancer, ipFamilyPolicy: RequireDualStack, selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: six}
spec: {type: NodePort, ipFamilies: [IPv6], selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: four}
spec: {type: NodePort, selector: {app: web}, ports: [{port: 80}]}
";
    let (objects, assumed) = completed(text);
    assert_snapshot!(told(&assumed), @r#"
    {"code":"nodes","nodes":"node-a, node-b"}
    {"code":"cluster-ip","service":"default/both","ips":"10.96.0.11, fd00:96::b"}
    {"code":"node-port","service":"default/both","port":"80","node_port":"30000"}
    {"code":"load-balancer-address","service":"default/both","ip":"198.51.100.7"}
    {"code":"load-balancer-address","service":"default/both","ip":"2001:db8:100::7"}
    {"code":"cluster-ip","service":"default/six","ips":"fd00:96::c"}
    {"code":"node-port","service":"default/six","port":"80","node_port":"30001"}
    {"code":"cluster-ip","service":"default/four","ips":"10.96.0.12"}
    {"code":"node-port","service":"default/four","port":"80","node_port":"30002"}
    {"code":"endpoints","service":"default/both","node":"node-a"}
    {"code":"endpoints","service":"default/six","node":"node-a"}
    {"code":"endpoints","service":"default/four","node":"node-a"}
    "#);
    for name in ["both", "six", "four"] {
        let number = if name == "both" { 2 } else { 1 };
        assert_eq!(endpoints(&objects, name).len(), number, "{name}");
    }
}

#[test]
fn endpoints_become_slices() {
    let text = "
apiVersion: v1
kind: Service
metadata: {name: outside}
spec: {ports: [{port: 443}]}
---
apiVersion: v1
kind: Endpoints
metadata: {name: outside}
subsets:
- addresses: [{ip: 203.0.113.5}, {ip: 10.0.0.7, nodeName: node-b}]
  notReadyAddresses: [{ip: 203.0.113.6}]
  ports: [{port: 8443}]
---
apiVersion: v1
kind: Service
metadata: {name: skipped}
spec: {ports: [{port: 443}]}
---
apiVersion: v1
kind: Endpoints
metadata: {name: skipped, labels: {endpointslice.kubernetes.io/skip-mirror: 'true'}}
subsets: [{addresses: [{ip: 203.0.113.5}], ports: [{port: 8443}]}]
";
    let (objects, _) = completed(text);
    assert_snapshot!(endpoints(&objects, "outside").join("\n"), @"
    10.0.0.7 8443 node-b - true
    203.0.113.5 8443 - - true
    203.0.113.6 8443 - - false
    ");
    assert_eq!(endpoints(&objects, "skipped"), [] as [&str; 0]);
}

#[test]
fn nodes_that_other_objects_name_are_there() {
    let text = "
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {type: NodePort, selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{port: 8080}]
endpoints: [{addresses: [10.9.0.5], nodeName: worker-7}]
";
    let (objects, assumed) = completed(text);
    assert_snapshot!(told(&assumed), @r#"
    {"code":"nodes","nodes":"node-a, worker-7"}
    {"code":"cluster-ip","service":"default/web","ips":"10.96.0.11"}
    {"code":"node-port","service":"default/web","port":"80","node_port":"30000"}
    "#);
    assert_snapshot!(endpoints(&objects, "web").join("\n"), @"10.9.0.5 8080 worker-7 - true");
}

#[test]
fn what_is_missing_in_a_cluster_is_found_once() {
    let mut objects = objects(WEB);
    let ingress = serde_json::json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "web"},
        "spec": {"rules": [{"http": {"paths": [
            {"pathType": "Prefix", "backend": {"service": {"name": "web", "port": {"number": 81}}}},
            {"pathType": "Prefix", "backend": {"service": {"name": "gone", "port": {"number": 80}}}},
            {"pathType": "Prefix", "backend": {"service": {"name": "gone", "port": {"number": 80}}}},
        ]}}]},
    });
    objects.add(&ingress).expect("an Ingress");
    let found = serde_json::to_string(&missing(&objects)).expect("JSON");
    assert_snapshot!(found, @r#"[{"code":"missing-service","by":"Ingress default/web","service":"default/gone"},{"code":"missing-port","by":"Ingress default/web","service":"default/web","port":"81"}]"#);
}
