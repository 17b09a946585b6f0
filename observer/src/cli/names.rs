//! Names on the command line that the cluster does not have: an error that says which it has.

use super::filter::ServiceName;
use crate::cluster::Objects;

/// At most so many names in one message.
const NAMES_MAX: usize = 8;
/// Names at least this alike, of 1, are offered for each other.
const ALIKE_MIN: f64 = 0.75;

/// What the cluster does not have, or has in no useful way. One line each.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NameError {
    /// No cluster state to look in.
    #[error("{0}: a Service is found in the cluster's objects; give --cluster-state")]
    NoObjects(String),
    /// The objects have no Services at all.
    #[error("{0}: the cluster state has no Services")]
    NoServices(String),
    /// No Service in that namespace, or no such namespace.
    #[error("there is no Service in a namespace {namespace}; {there_are}")]
    Namespace {
        namespace: String,
        there_are: String,
    },
    /// No such Service.
    #[error("there is no Service {service}; {there_are}")]
    Service { service: String, there_are: String },
    /// A Service without that port.
    #[error("the Service {service} has no port {port}; {there_are}")]
    Port {
        service: String,
        port: String,
        there_are: String,
    },
    /// A Service without ports.
    #[error("the Service {0} has no ports: no connection can enter it")]
    NoPorts(String),
    /// A Service of type `ExternalName`.
    #[error(
        "the Service {0} is an ExternalName, an alias in the DNS: it has no address that a \
         connection could enter by"
    )]
    Alias(String),
    /// No such Node.
    #[error("there is no Node {node}; {there_are}; give --node")]
    Node { node: String, there_are: String },
}

/// Looks for a Service that connections can enter. A headless one is found too, with a warning:
/// it has no front door, but its pods have addresses.
pub(super) fn service(
    wanted: &ServiceName,
    objects: Option<&Objects>,
) -> Result<Option<String>, NameError> {
    let ServiceName {
        namespace,
        name,
        port,
    } = wanted;
    let full = format!("{namespace}/{name}");
    let objects = objects.ok_or_else(|| NameError::NoObjects(full.clone()))?;
    let names: Vec<(&str, &str)> = objects
        .services
        .iter()
        .map(|service| {
            let metadata = &service.metadata;
            (
                // As the index takes it.
                metadata.namespace.as_deref().unwrap_or("default"),
                metadata.name.as_deref().unwrap_or_default(),
            )
        })
        .collect();
    if names.is_empty() {
        return Err(NameError::NoServices(full));
    }
    // Of Services with the same name the last one counts, as in the index.
    let found = names
        .iter()
        .rposition(|found| *found == (namespace.as_str(), name.as_str()));
    let Some(service) = found.and_then(|place| objects.services.get(place)) else {
        return Err(not_found(namespace, name, &names));
    };
    let spec = service.spec.clone().unwrap_or_default();
    if spec.type_.as_deref() == Some("ExternalName") {
        return Err(NameError::Alias(full));
    }
    let ports = spec.ports.unwrap_or_default();
    if ports.is_empty() {
        return Err(NameError::NoPorts(full));
    }
    if let Some(port) = port
        && !ports.iter().any(|found| found.name.as_ref() == Some(port))
    {
        let ports = ports.iter().filter_map(|port| port.name.clone());
        return Err(NameError::Port {
            service: full,
            there_are: there_are(port, ports),
            port: port.clone(),
        });
    }
    let headless = spec.cluster_ip.as_deref() == Some("None");
    Ok(headless.then(|| {
        format!(
            "the Service {full} is headless and has no front door: only connections straight to \
             its pods can be told to be its own"
        )
    }))
}

/// What to say of a Service that is not among `names`.
fn not_found(namespace: &str, name: &str, names: &[(&str, &str)]) -> NameError {
    let full = |(namespace, name): &(&str, &str)| format!("{namespace}/{name}");
    // The same name elsewhere is likelier meant than any other.
    let mut elsewhere = names.iter().filter(|(_, found)| *found == name).peekable();
    let there_are = if elsewhere.peek().is_some() {
        did_you_mean(elsewhere.map(full))
    } else if names.iter().any(|(found, _)| *found == namespace) {
        there_are(&full(&(namespace, name)), names.iter().map(full))
    } else {
        return NameError::Namespace {
            namespace: namespace.to_owned(),
            there_are: there_are(
                namespace,
                names.iter().map(|(found, _)| (*found).to_owned()),
            ),
        };
    };
    NameError::Service {
        service: full(&(namespace, name)),
        there_are,
    }
}

/// Looks for this node. Without any Node in the objects nothing can be said.
pub(super) fn node(node: &str, objects: Option<&Objects>) -> Result<(), NameError> {
    let names: Vec<_> = objects
        .into_iter()
        .flat_map(|objects| &objects.nodes)
        .filter_map(|node| node.metadata.name.clone())
        .collect();
    if names.is_empty() || names.iter().any(|name| name == node) {
        return Ok(());
    }
    Err(NameError::Node {
        node: node.to_owned(),
        there_are: there_are(node, names),
    })
}

/// The names there are: all, if they are few; else those most like `wanted`, if any are.
fn there_are(wanted: &str, names: impl IntoIterator<Item = String>) -> String {
    let mut names: Vec<_> = names.into_iter().collect();
    names.sort_unstable();
    names.dedup();
    let total = names.len();
    let alikeness = |name: &String| strsim::normalized_damerau_levenshtein(wanted, name);
    names.sort_by(|a, b| alikeness(b).total_cmp(&alikeness(a)));
    let alike = names.iter().take_while(|name| alikeness(name) >= ALIKE_MIN);
    match (total, alike.count()) {
        (0, _) => "none has a name".to_owned(),
        (1..=NAMES_MAX, 0) => format!("there is {}", listed(names, ", ")),
        (_, 0) => format!("there are {total}, among them {}", listed(names, ", ")),
        (_, alike) => did_you_mean(names.into_iter().take(alike)),
    }
}

fn did_you_mean(names: impl IntoIterator<Item = String>) -> String {
    format!("did you mean {}?", listed(names, " or "))
}

/// The first of `names`, on one line whatever they are.
fn listed(names: impl IntoIterator<Item = String>, between: &str) -> String {
    let names = names.into_iter().take(NAMES_MAX);
    let names: Vec<_> = names.map(|name| name.escape_debug().to_string()).collect();
    names.join(between)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    fn objects() -> Objects {
        let service = |namespace: &str, name: &str, spec: serde_json::Value| {
            json!({
                "apiVersion": "v1", "kind": "Service",
                "metadata": {"namespace": namespace, "name": name}, "spec": spec,
            })
        };
        let ports = json!([{"name": "http", "port": 80}, {"name": "metrics", "port": 9090}]);
        let mut items = vec![
            service(
                "shop",
                "web",
                json!({"clusterIP": "10.96.0.1", "ports": ports}),
            ),
            service(
                "shop",
                "api",
                json!({"clusterIP": "10.96.0.2", "ports": ports}),
            ),
            service("shop", "db", json!({"clusterIP": "None", "ports": ports})),
            service("shop", "bare", json!({"clusterIP": "10.96.0.3"})),
            service(
                "shop",
                "alias",
                json!({"type": "ExternalName", "externalName": "example.org"}),
            ),
            service(
                "billing",
                "invoices",
                json!({"clusterIP": "10.96.0.4", "ports": ports}),
            ),
        ];
        for name in ["node1", "node2"] {
            items.push(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}));
        }
        let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
        Objects::from_list(list.to_string().as_bytes()).expect("the test's objects")
    }

    #[rstest]
    #[case::another_letter("shop/wep", "there is no Service shop/wep; did you mean shop/web?")]
    #[case::another_namespace(
        "billing/web",
        "there is no Service billing/web; did you mean shop/web?"
    )]
    #[case::no_such_namespace(
        "shp/cart",
        "there is no Service in a namespace shp; did you mean shop?"
    )]
    #[case::far_from_all(
        "payments/cart",
        "there is no Service in a namespace payments; there is billing, shop"
    )]
    #[case::no_such_port(
        "shop/web:https",
        "the Service shop/web has no port https; did you mean http?"
    )]
    #[case::no_ports(
        "shop/bare",
        "the Service shop/bare has no ports: no connection can enter it"
    )]
    #[case::an_alias(
        "shop/alias",
        "the Service shop/alias is an ExternalName, an alias in the DNS: it has no address that \
         a connection could enter by"
    )]
    fn a_service_that_cannot_be_followed_is_told(#[case] name: ServiceName, #[case] says: &str) {
        let error = service(&name, Some(&objects())).expect_err("no such Service");
        assert_eq!(error.to_string(), says);
    }

    #[test]
    fn a_service_that_is_there_is_found() {
        let found = |name: &str| service(&name.parse().expect("a name"), Some(&objects()));
        assert_eq!(found("shop/web"), Ok(None));
        assert_eq!(found("shop/web:http"), Ok(None));
        let headless = found("shop/db").expect("found").expect("is unusual");
        assert!(headless.contains("headless"), "{headless}");
    }

    #[test]
    fn without_objects_no_service_is_found() {
        let name = "shop/web".parse().expect("a name");
        let error = |objects| service(&name, objects).expect_err("none").to_string();
        assert!(error(None).contains("--cluster-state"));
        assert!(error(Some(&Objects::default())).contains("no Services"));
    }

    #[test]
    fn an_unknown_node_is_told_which_there_are() {
        let objects = objects();
        assert_eq!(node("node1", Some(&objects)), Ok(()));
        let error = node("worker", Some(&objects)).expect_err("unknown");
        assert_eq!(
            error.to_string(),
            "there is no Node worker; there is node1, node2; give --node"
        );
        // Without Nodes, whether it is one is not known.
        assert_eq!(node("worker", Some(&Objects::default())), Ok(()));
        assert_eq!(node("worker", None), Ok(()));
    }

    #[test]
    fn of_many_names_only_the_nearest_are_told() {
        let names = || (0..1_000).map(|n| format!("namespace/service-{n}"));
        let told = there_are("unlike/anything", names());
        assert!(told.starts_with("there are 1000, among them "), "{told}");
        assert!(told.len() < 300, "{told}");
        let told = there_are("namespace/service-7x", names());
        assert!(told.starts_with("did you mean "), "{told}");
        assert!(told.len() < 300, "{told}");
    }
}
