//! kube-proxy's configuration as it serves it itself, at `/configz` of its metrics address.
//!
//! That is its internal type in Go's own spelling (`pkg/proxy/apis/config/types.go`), where what
//! concerns Linux in any mode stands apart since 1.32. Said again in the words of a
//! `KubeProxyConfiguration` it is read as one.

use serde_json::{Map, Value, json};

use super::{KubeProxy, KubeProxyError};

/// The key that it is under.
const GROUP: &str = "kubeproxy.config.k8s.io";
/// The sections of the modes that masquerade.
const MODES: [&str; 3] = ["iptables", "ipvs", "nftables"];

/// Reads the body of `/configz`. `mode`: the one that kube-proxy says it is in, for where its
/// configuration leaves that to it.
pub fn kube_proxy(body: &str, mode: Option<&str>) -> Result<KubeProxy, KubeProxyError> {
    let served: Value =
        serde_json::from_str(body).map_err(|error| KubeProxyError::Yaml(error.to_string()))?;
    let Some(Value::Object(configuration)) = served.get(GROUP) else {
        return Err(KubeProxyError::Yaml(format!("{GROUP} is not in it")));
    };
    let document = Value::Object(document(configuration, mode));
    // JSON is YAML.
    KubeProxy::parse(&document.to_string())
}

fn document(configuration: &Map<String, Value>, mode: Option<&str>) -> Map<String, Value> {
    let mut document = spelled(configuration);
    document.insert("kind".to_owned(), json!("KubeProxyConfiguration"));
    let chosen = document.get("mode").and_then(Value::as_str);
    if let (None | Some(""), Some(mode)) = (chosen, mode) {
        document.insert("mode".to_owned(), json!(mode));
    }
    let linux = document.remove("linux");
    let masquerade_all = linux.and_then(|linux| linux.get("masqueradeAll").cloned());
    if let Some(masquerade_all) = masquerade_all {
        for mode in MODES {
            let section = document.entry(mode).or_insert_with(|| json!({}));
            if let Value::Object(section) = section {
                section.insert("masqueradeAll".to_owned(), masquerade_all.clone());
            }
        }
    }
    let cidrs = document
        .get("detectLocal")
        .and_then(|detect_local| detect_local.get("clusterCIDRs"))
        .and_then(Value::as_array);
    if let Some(cidrs) = cidrs {
        let cidrs: Vec<&str> = cidrs.iter().filter_map(Value::as_str).collect();
        let cidrs = cidrs.join(",");
        document.insert("clusterCIDR".to_owned(), json!(cidrs));
    }
    document
}

/// The same with the names that the fields have in a document.
fn spelled(object: &Map<String, Value>) -> Map<String, Value> {
    let spell = |name: &str| match name {
        "IPTables" | "IPVS" | "NFTables" => name.to_lowercase(),
        _ => {
            let mut letters = name.chars();
            let first = letters.next().map(|first| first.to_ascii_lowercase());
            first.into_iter().chain(letters).collect()
        }
    };
    let said = |value: &Value| match value {
        Value::Object(object) => Value::Object(spelled(object)),
        other => other.clone(),
    };
    object
        .iter()
        .map(|(name, value)| (spell(name), said(value)))
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::super::{DetectLocal, NodePortAddresses};
    use super::*;

    fn served(configuration: &Value) -> String {
        json!({GROUP: configuration}).to_string()
    }

    fn range(text: &str) -> ipnet::IpNet {
        text.parse().expect("the test's range")
    }

    #[rstest]
    #[case::since_1_32(json!({
        "Linux": {"Conntrack": {"Min": 131_072}, "MasqueradeAll": true, "OOMScoreAdj": -999},
        "BindAddress": "0.0.0.0", "Mode": "nftables",
        "IPTables": {"MasqueradeBit": 14, "LocalhostNodePorts": true},
        "IPVS": {"Scheduler": "", "ExcludeCIDRs": null, "TCPTimeout": "0s"},
        "NFTables": {"MasqueradeBit": 14},
        "DetectLocalMode": "NodeCIDR",
        "DetectLocal": {
            "BridgeInterface": "", "ClusterCIDRs": ["10.244.0.0/16", "fd00:10:244::/48"],
            "InterfaceNamePrefix": "",
        },
        "NodePortAddresses": null, "SyncPeriod": "30s",
    }))]
    #[case::before(json!({
        "BindAddress": "0.0.0.0", "ClusterCIDR": "10.244.0.0/16,fd00:10:244::/48",
        "Mode": "nftables", "IPTables": {"MasqueradeAll": false},
        "NFTables": {"MasqueradeAll": true}, "DetectLocalMode": "NodeCIDR",
        "DetectLocal": {"BridgeInterface": "", "InterfaceNamePrefix": ""},
        "NodePortAddresses": null,
    }))]
    fn what_it_serves_is_what_it_was_told(#[case] configuration: Value) {
        let read = kube_proxy(&served(&configuration), None).expect("one");
        assert_eq!(
            read.cluster_cidrs,
            [range("10.244.0.0/16"), range("fd00:10:244::/48")]
        );
        assert_eq!(read.detect_local, DetectLocal::NodeCidr);
        assert!(read.masquerade_all);
        assert_eq!(read.node_ports, NodePortAddresses::Primary);
    }

    #[test]
    fn the_mode_it_is_in_counts_where_none_was_given() {
        let node_ports = |configured: &str, mode| {
            let body = served(&json!({"Mode": configured}));
            kube_proxy(&body, mode).expect("one").node_ports
        };
        assert_eq!(node_ports("", Some("nftables")), NodePortAddresses::Primary);
        assert_eq!(node_ports("", None), NodePortAddresses::All);
        assert_eq!(
            node_ports("iptables", Some("nftables")),
            NodePortAddresses::All
        );
    }

    #[rstest]
    #[case("")]
    #[case("404 page not found")]
    #[case("{}")]
    #[case(r#"{"kubeproxy.config.k8s.io":[]}"#)]
    #[case(r#"{"kubeproxy.config.k8s.io":{"DetectLocalMode":"Guess"}}"#)]
    #[case(r#"{"kubeproxy.config.k8s.io":{"NodePortAddresses":7}}"#)]
    fn anything_else_is_an_error(#[case] body: &str) {
        assert!(kube_proxy(body, None).is_err());
    }

    proptest! {
        #[test]
        fn no_answer_makes_it_panic(
            body in ".*",
            name in "[A-Za-z]{0,12}",
            value in "[ -~]{0,20}",
        ) {
            let _ = kube_proxy(&body, None);
            let _ = kube_proxy(&served(&json!({name: value})), Some(&body));
        }
    }
}
