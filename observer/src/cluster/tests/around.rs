//! Objects with what stands around them, for the tests of that.

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::super::Objects;

/// The objects of these items, whatever their kinds.
pub(super) fn whole(items: &[Value]) -> Objects {
    let (index, around): (Vec<Value>, Vec<Value>) = items.iter().cloned().partition(|item| {
        let kind = item["kind"].as_str();
        matches!(kind, Some("Service" | "EndpointSlice" | "Node" | "Pod"))
    });
    let mut objects = super::objects(&index);
    for item in around {
        let its = &mut objects.around;
        let kind = item["kind"].as_str().unwrap_or_default().to_owned();
        match kind.as_str() {
            "Deployment" => push(&mut its.deployments, item),
            "DaemonSet" => push(&mut its.daemon_sets, item),
            "StatefulSet" => push(&mut its.stateful_sets, item),
            "Namespace" => push(&mut its.namespaces, item),
            "ConfigMap" => push(&mut its.config_maps, item),
            "Ingress" => push(&mut its.ingresses, item),
            "IngressClass" => push(&mut its.ingress_classes, item),
            "IngressClassParams" => push(&mut its.ingress_class_params, item),
            "Gateway" => push(&mut its.gateways, item),
            "GatewayClass" => push(&mut its.gateway_classes, item),
            "HTTPRoute" | "GRPCRoute" | "TLSRoute" | "TCPRoute" | "UDPRoute" => {
                push(&mut its.routes, item);
            }
            "ReferenceGrant" => push(&mut its.reference_grants, item),
            "FelixConfiguration" => push(&mut its.felix_configurations, item),
            "Installation" => push(&mut its.installations, item),
            other => panic!("{other} is not among the test's kinds"),
        }
    }
    objects
}

fn push<T: DeserializeOwned>(objects: &mut Vec<T>, item: Value) {
    objects.push(serde_json::from_value(item).expect("the test's object parses"));
}

/// An object of a kind, `namespace/name`.
pub(super) fn object(kind: &str, name: &str, rest: Value) -> Value {
    let (namespace, name) = name.split_once('/').unwrap_or(("shop", name));
    let mut object = json!({"kind": kind, "metadata": {"namespace": namespace, "name": name}});
    overlay(&mut object, rest);
    object
}

/// Lays one value over another: objects are joined.
pub(super) fn overlay(value: &mut Value, over: Value) {
    match (value, over) {
        (Value::Object(value), Value::Object(over)) => {
            for (key, over) in over {
                overlay(value.entry(key).or_insert(Value::Null), over);
            }
        }
        (_, Value::Null) => {}
        (value, over) => *value = over,
    }
}

/// A workload with one container and the label `app`, which is its name.
pub(super) fn workload(kind: &str, name: &str, template: Value) -> Value {
    let app = name.rsplit('/').next().unwrap_or_default();
    let mut spec = json!({
        "selector": {"matchLabels": {"app": app}},
        "template": {
            "metadata": {"labels": {"app": app}},
            "spec": {"containers": [{"name": app, "image": app}]},
        },
    });
    overlay(&mut spec["template"], template);
    object(kind, name, json!({"spec": spec}))
}
