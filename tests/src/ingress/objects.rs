//! The objects: five controllers, each with a class, a `ConfigMap` and an Ingress of its own,
//! and the application behind them. Pure.

use serde_json::{Value, json};

use super::rows::Ingress;
use crate::small::{self, Pod};

const NAMESPACE: &str = "ingress";

impl Ingress {
    /// The name of its pod, its Service, its class and its `ConfigMap`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Proxied => "proxied",
            Self::Forwarded => "forwarded",
            Self::Haproxy => "haproxy",
            Self::HaproxyProxied => "haproxy-proxied",
        }
    }

    /// Its pod.
    pub fn pod(self) -> Pod {
        let number = match self {
            Self::Plain => 5,
            Self::Proxied => 6,
            Self::Forwarded => 7,
            Self::Haproxy => 8,
            Self::HaproxyProxied => 9,
        };
        let name = self.name();
        let container = if self.is_haproxy() {
            json!({
                "name": "haproxy-ingress",
                "image": "quay.io/jcmoraisjr/haproxy-ingress:v0.15.0",
                "args": [
                    format!("--controller-class={name}"),
                    format!("--configmap=$(POD_NAMESPACE)/{name}"),
                ],
            })
        } else {
            json!({
                "name": "controller",
                "image": "registry.k8s.io/ingress-nginx/controller:v1.15.1",
                "args": [
                    "/nginx-ingress-controller",
                    format!("--controller-class={}", self.class()),
                    format!("--ingress-class={name}"),
                    format!("--configmap=$(POD_NAMESPACE)/{name}"),
                ],
            })
        };
        Pod {
            namespace: NAMESPACE,
            name,
            node: 1,
            number,
            port: 8_080,
            node_port: 30_000 + u16::from(number),
            annotations: json!({}),
            containers: json!([container]),
            load_balancer: None,
        }
    }

    /// What an `IngressClass` names it by.
    fn class(self) -> String {
        let name = self.name();
        if self.is_haproxy() {
            format!("haproxy-ingress.github.io/controller/{name}")
        } else {
            format!("k8s.io/{name}")
        }
    }

    fn more(self, trusted: &str) -> [Value; 3] {
        let name = self.name();
        let data = match self {
            Self::Plain | Self::Haproxy => json!({}),
            Self::Proxied | Self::HaproxyProxied => json!({"use-proxy-protocol": "true"}),
            Self::Forwarded => {
                json!({"use-forwarded-headers": "true", "proxy-real-ip-cidr": trusted})
            }
        };
        [
            json!({
                "apiVersion": "networking.k8s.io/v1", "kind": "IngressClass",
                "metadata": {"name": name}, "spec": {"controller": self.class()},
            }),
            json!({
                "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"namespace": NAMESPACE, "name": name}, "data": data,
            }),
            json!({
                "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
                "metadata": {"namespace": "shop", "name": name},
                "spec": {"ingressClassName": name, "rules": [{
                    "host": format!("{name}.example"),
                    "http": {"paths": [{
                        "path": "/", "pathType": "Prefix",
                        "backend": {"service": {"name": "web", "port": {"name": "http"}}},
                    }]},
                }]},
            }),
        ]
    }
}

/// The application's pod.
pub(super) fn web() -> Pod {
    Pod {
        namespace: "shop",
        name: "web",
        node: 1,
        number: 20,
        port: 8_080,
        node_port: 30_020,
        annotations: json!({}),
        containers: json!([{"name": "web", "image": "registry.example/web:1"}]),
        load_balancer: None,
    }
}

/// All of them, with the networks whose headers are believed.
pub(super) fn list(trusted: &str) -> Value {
    let mut pods: Vec<Pod> = Ingress::ALL.map(Ingress::pod).to_vec();
    pods.push(web());
    let more = Ingress::ALL.map(|ingress| ingress.more(trusted));
    small::list(&pods, more.into_iter().flatten().collect())
}
