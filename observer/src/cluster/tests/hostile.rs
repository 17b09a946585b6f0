//! Whatever a file holds, the builder and the queries return.

use proptest::prelude::{Just, Strategy, any, prop, prop_oneof, proptest};
use proptest::strategy::Union;
use serde_json::{Value, json};

use super::super::{Family, Index, Objects, Protocol};
use super::{endpoint, ip, node, on_node1, pod, service, slice};

/// Values that mean something somewhere, and others.
fn leaf() -> impl Strategy<Value = Value> {
    let texts = [
        "",
        "None",
        "10.96.0.10",
        "10.244.2.5",
        "172.31.0.11",
        "fd00::11",
        "::ffff:10.244.2.5",
        "0.0.0.0/0",
        "10.244.0.0/16",
        "::/0",
        "TCP",
        "UDP",
        "SCTP",
        "IPv4",
        "IPv6",
        "FQDN",
        "VIP",
        "Proxy",
        "Local",
        "LoadBalancer",
        "ClientIP",
        "Pod",
        "Succeeded",
        "http",
        "web",
        "shop",
        "node1",
        "\u{0}",
    ];
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        (0..70_000).prop_map(Value::from),
        Union::new(texts.map(Just)).prop_map(Value::from),
    ]
}

/// Any JSON.
fn anything() -> impl Strategy<Value = Value> {
    leaf().prop_recursive(4, 32, 4, |inner| {
        let keys = Union::new(
            [
                "kind",
                "items",
                "metadata",
                "spec",
                "status",
                "ports",
                "endpoints",
                "name",
            ]
            .map(Just),
        );
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((keys, inner), 0..4)
                .prop_map(|fields| fields.into_iter().collect()),
        ]
    })
}

/// Objects as they should be.
fn sound() -> Vec<Value> {
    let mut web = service(
        "web",
        json!({
            "type": "LoadBalancer", "clusterIPs": ["10.96.0.10", "fd00:96::a"],
            "ipFamilies": ["IPv4", "IPv6"], "externalIPs": ["172.31.0.11"],
            "loadBalancerSourceRanges": ["10.0.0.0/8"], "sessionAffinity": "ClientIP",
            "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 1}},
            "ports": [{"name": "http", "port": 80, "nodePort": 30080, "protocol": "TCP"}],
        }),
    );
    web["status"] = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.1", "ipMode": "VIP"}]}});
    let mut one = endpoint("10.244.2.5", "node2", "p");
    one["hints"] = json!({"forZones": [{"name": "a"}], "forNodes": [{"name": "node1"}]});
    one["conditions"] = json!({"ready": true, "serving": true, "terminating": false});
    let containers = json!({"hostNetwork": false, "containers": [
        {"name": "c", "ports": [{"containerPort": 80, "hostPort": 8000, "hostIP": "0.0.0.0"}]},
    ]});
    vec![
        web,
        slice("web", "a", json!([one])),
        node("node1", &["172.31.0.11"], &["10.244.1.0/24"]),
        pod(
            "p",
            "node2",
            "10.244.2.5",
            containers,
            json!({"hostIP": "172.31.0.12"}),
        ),
    ]
}

/// The paths of all values inside `value`.
fn paths(value: &Value, here: &str, found: &mut Vec<String>) {
    found.push(here.to_owned());
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let key = key.replace('~', "~0").replace('/', "~1");
                paths(value, &format!("{here}/{key}"), found);
            }
        }
        Value::Array(items) => {
            for (index, value) in items.iter().enumerate() {
                paths(value, &format!("{here}/{index}"), found);
            }
        }
        _ => {}
    }
}

/// Sound objects, with other values in some places.
pub(super) fn spoiled() -> impl Strategy<Value = Value> {
    let sound = json!({"kind": "List", "items": sound()});
    let mut found = Vec::new();
    paths(&sound, "", &mut found);
    let spoil = (prop::sample::select(found), prop_oneof![leaf(), anything()]);
    prop::collection::vec(spoil, 0..6).prop_map(move |spoils| {
        let mut value = sound.clone();
        for (path, other) in spoils {
            if let Some(place) = value.pointer_mut(&path) {
                *place = other;
            }
        }
        value
    })
}

/// Asks everything there is to ask.
fn ask(index: &Index) {
    let local = on_node1();
    let addresses = [
        "10.96.0.10",
        "10.244.2.5",
        "172.31.0.11",
        "fd00::11",
        "192.0.2.1",
        "::",
    ];
    for address in addresses.map(ip) {
        for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
            for port in [0, 80, 8000, 8080, 30080, u16::MAX] {
                let _ = index.front_door(protocol, address, port, &local);
                let _ = index.backend(protocol, address, port);
            }
        }
        let _ = index.address_kind(address, &local);
        let _ = index.load_balancer_proxy(address);
    }
    for entry in index.entries() {
        for family in [Family::V4, Family::V6] {
            let usable = entry.usable_endpoints(family);
            assert_eq!(entry.has_usable_endpoint(family), !usable.is_empty());
            let local = entry.usable_local_endpoints(family, "node1");
            assert_eq!(entry.has_local_endpoint(family, "node1"), !local.is_empty());
            assert!(
                entry
                    .endpoints(family)
                    .is_sorted_by_key(|e| (e.address, e.port))
            );
            assert!(
                entry
                    .endpoints(family)
                    .iter()
                    .all(|e| Family::of(e.address) == family)
            );
        }
        let service = &entry.service.reference;
        assert!(!index.service(&service.namespace, &service.name).is_empty());
    }
}

fn build(document: &Value) {
    if let Ok(objects) = Objects::from_list(document.to_string().as_bytes()) {
        ask(&Index::build(&objects));
    }
}

#[test]
fn the_sound_objects_are_sound() {
    let objects = super::objects(&sound());
    let index = Index::build(&objects);
    ask(&index);
    assert!(
        index
            .backend(Protocol::Tcp, ip("10.244.2.5"), 8080)
            .pod
            .is_some()
    );
}

proptest! {
    #[test]
    fn anything_returns(value in anything(), items in prop::collection::vec(anything(), 0..3)) {
        build(&value);
        build(&json!({"kind": "List", "items": items}));
    }

    #[test]
    fn spoiled_objects_return(value in spoiled()) {
        build(&value);
    }

    #[test]
    fn any_bytes_return(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = Objects::from_list(&bytes);
    }
}
