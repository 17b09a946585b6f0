//! The oracle: what the observer must have said about connections whose two ends are known.
//!
//! The pod's own socket saw a peer. The source is lost if and only if that peer is not the
//! client; what the observer calls the source seen must be that peer, address and port; there
//! was an extra hop if the pod lives on another node than the one the client entered by.

use std::{collections::BTreeMap, net::SocketAddr};

use serde_json::{Value, json};

use crate::{
    client::{Answer, Failure},
    lab::Lab,
    traffic::Opened,
};

/// The records of one run, by the node whose observer printed them.
pub type Records = BTreeMap<String, Vec<Value>>;

/// What is to be said of a run.
#[derive(Debug)]
pub struct Report<'run> {
    /// One for each connection, in their order.
    pub findings: Vec<Finding<'run>>,
    /// Records of connections that no one opened, or that were reported before.
    pub strays: Vec<(String, Value)>,
}

/// What is to be said of one connection.
#[derive(Debug)]
pub struct Finding<'run> {
    /// The connection.
    pub opened: &'run Opened,
    /// What the entry node's observer said of it.
    pub record: Option<Value>,
    /// Where the observers are wrong, in words; empty if they are right.
    pub disagreements: Vec<String>,
}

impl Report<'_> {
    /// Everything that is wrong, in words; empty if nothing is.
    pub fn complaints(&self) -> Vec<String> {
        let of_connections = self.findings.iter().flat_map(|finding| {
            let Finding {
                opened,
                record: _,
                disagreements,
            } = finding;
            let what = format!(
                "{} -> {} by {}",
                opened.client, opened.door, opened.door.entry
            );
            disagreements
                .iter()
                .map(move |disagreement| format!("{what}: {disagreement}"))
        });
        let strays = self.strays.iter().map(|(node, record)| {
            format!(
                "{node} reported a connection that no one opened, or that it had reported: {record}"
            )
        });
        of_connections.chain(strays).collect()
    }
}

/// Compares the records of a run with the connections that were opened in it.
pub fn judge<'run>(lab: &Lab, opened: &'run [Opened], mut records: Records) -> Report<'run> {
    let findings = opened
        .iter()
        .map(|opened| finding(lab, opened, &mut records))
        .collect();
    let strays = records
        .into_iter()
        .flat_map(|(node, records)| {
            records
                .into_iter()
                .map(move |record| (node.clone(), record))
        })
        .collect();
    Report { findings, strays }
}

fn finding<'run>(lab: &Lab, opened: &'run Opened, records: &mut Records) -> Finding<'run> {
    let mut disagreements = Vec::new();
    let record = take(records, &opened.door.entry, opened.client, opened.door.to);
    match &record {
        Some(record) => disagreements.extend(disagreements_of(record, first_half(lab, opened))),
        None => disagreements.push(format!("{} did not report it", opened.door.entry)),
    }
    if let Ok(answer) = &opened.result
        && let Some(node) = lab
            .plan()
            .node_of(answer.backend.ip())
            .filter(|node| *node != opened.door.entry)
    {
        match take(records, node, answer.peer_seen, answer.backend) {
            Some(record) => {
                let found = disagreements_of(&record, second_half(opened, answer, node));
                disagreements.extend(found.map(|found| format!("its second half: {found}")));
            }
            None => disagreements.push(format!("{node} did not report its second half")),
        }
    }
    Finding {
        opened,
        record,
        disagreements,
    }
}

/// Takes the record of a node about the connection from `client` to `front_door`.
fn take(
    records: &mut Records,
    node: &str,
    client: SocketAddr,
    front_door: SocketAddr,
) -> Option<Value> {
    let of_node = records.get_mut(node)?;
    let ends = [("/client", client), ("/front_door", front_door)];
    let is_it = |record: &Value| {
        ends.iter().all(|(part, end)| {
            record.pointer(&format!("{part}/ip")) == Some(&json!(end.ip()))
                && record.pointer(&format!("{part}/port")) == Some(&json!(end.port()))
        })
    };
    let index = of_node.iter().position(is_it)?;
    Some(of_node.remove(index))
}

/// Fields of a record by their JSON pointers, and what they must be.
type Expected = Vec<(&'static str, Value)>;

/// What the node that the client entered by must say.
fn first_half(lab: &Lab, opened: &Opened) -> Expected {
    let Opened {
        door,
        client,
        result,
    } = opened;
    let mut expected = common(opened, &door.entry);
    expected.extend([
        (
            "/front_door",
            json!({"kind": door.kind.as_str(), "ip": door.to.ip(), "port": door.to.port()}),
        ),
        ("/client/kind", json!("external")),
    ]);
    let answer = match result {
        Ok(answer) => answer,
        Err(failure) => {
            expected.extend(nobody_chosen(failure));
            return expected;
        }
    };
    let node = lab.plan().node_of(answer.backend.ip());
    expected.extend(answered(answer, node));
    expected.push(("/extra_hops", json!(u8::from(node != Some(&door.entry)))));
    if answer.peer_seen.ip() == client.ip() {
        expected.extend([
            ("/source_ip", json!("preserved")),
            ("/lost_at", json!(null)),
            ("/cause", json!(null)),
        ]);
    } else {
        let interface = lab.interface_towards(&door.entry, answer.backend.ip());
        expected.extend([
            ("/source_ip", json!("lost")),
            (
                "/lost_at",
                json!({"node": door.entry, "interface": interface, "by": "kube-proxy"}),
            ),
            ("/cause/code", json!("external-traffic-policy-cluster")),
        ]);
    }
    expected
}

/// What the backend's node must say of what another node sent it: only what it saw itself.
fn second_half(opened: &Opened, answer: &Answer, node: &str) -> Expected {
    let mut expected = common(opened, node);
    expected.extend(answered(answer, Some(node)));
    expected.extend([
        (
            "/front_door",
            json!({"kind": "Pod", "ip": answer.backend.ip(), "port": answer.backend.port()}),
        ),
        ("/source_ip", json!("unknown")),
        ("/cause/code", json!("masqueraded-before-this-node")),
        ("/lost_at", json!(null)),
        ("/extra_hops", json!(null)),
        ("/expected", json!(null)),
    ]);
    expected
}

fn common(opened: &Opened, node: &str) -> Expected {
    let door = &opened.door;
    let port = (!door.port_name.is_empty()).then_some(&door.port_name);
    vec![
        ("/schema", json!("observer.connection/v1")),
        ("/node", json!(node)),
        ("/from", json!("start")),
        ("/protocol", json!("TCP")),
        (
            "/service",
            json!({"namespace": door.namespace, "name": door.service, "port": port}),
        ),
    ]
}

fn answered(answer: &Answer, node: Option<&str>) -> Expected {
    let Answer {
        local: _,
        peer_seen,
        backend,
        pod,
    } = answer;
    vec![
        (
            "/backend",
            json!({"ip": backend.ip(), "port": backend.port(), "pod": pod, "node": node}),
        ),
        (
            "/source_seen",
            json!({"ip": peer_seen.ip(), "port": peer_seen.port()}),
        ),
        ("/outcome", json!("answered")),
        ("/outcome_cause", json!(null)),
    ]
}

/// No endpoint was chosen. The refusals of a lab all reach their client, so what the client
/// felt is what happened.
fn nobody_chosen(failure: &Failure) -> Expected {
    let outcome = match failure {
        Failure::Refused => "refused",
        Failure::TimedOut => "dropped",
        // Nothing in a lab ends so; the observer's own word then shows up as a disagreement.
        Failure::Reset
        | Failure::Unreachable(_)
        | Failure::Other(_)
        | Failure::NotABackend { .. }
        | Failure::Lab(_) => "no outcome that a lab knows",
    };
    let mut expected = vec![
        ("/source_ip", json!("unknown")),
        ("/outcome", json!(outcome)),
    ];
    expected.extend(
        [
            "/backend",
            "/source_seen",
            "/lost_at",
            "/cause",
            "/extra_hops",
        ]
        .map(|field| (field, json!(null))),
    );
    expected
}

fn disagreements_of(record: &Value, expected: Expected) -> impl Iterator<Item = String> {
    expected
        .into_iter()
        .filter_map(|(field, expected)| match record.pointer(field) {
            Some(said) if *said == expected => None,
            Some(said) => Some(format!("{field} is {said}, not {expected}")),
            None => Some(format!("{field} is absent, not {expected}")),
        })
}
