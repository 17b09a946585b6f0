//! The oracle: what the observer must have said about connections whose two ends are known.
//!
//! The pod's own socket saw a peer. The source is lost if and only if that peer is not the
//! client; what the observer calls the source seen must be that peer, address and port; there
//! was an extra hop if the pod lives on another node than the one the client entered by. What no
//! socket tells (why) follows from the objects, kube-proxy's settings and who the client was.

use std::{fmt, net::SocketAddr};

use serde_json::Value;

use crate::{lab::Lab, traffic::Opened};

mod claims;
mod records;
mod truth;

pub use records::Records;

use records::Unclaimed;
use truth::{Expected, Half, Halves};

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
    /// Where the observers are wrong; empty if they are right.
    pub disagreements: Vec<Disagreement>,
}

/// One thing that is wrong.
#[derive(Debug)]
pub enum Complaint<'run> {
    /// What an observer said, or failed to say, of a connection.
    Wrong(&'run Opened, Disagreement),
    /// A node reported a connection that no one opened, or that it had reported.
    Stray(String, Value),
}

/// Where an observer is wrong about a connection.
#[derive(Clone, Debug)]
pub struct Disagreement {
    /// The field of the record; none if there is no record.
    pub field: Option<&'static str>,
    /// In words.
    pub what: String,
}

impl Complaint<'_> {
    /// What it is about, in a word or two.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Wrong(_, disagreement) => disagreement.field.unwrap_or("not reported"),
            Self::Stray(..) => "reported, and should not",
        }
    }
}

impl fmt::Display for Complaint<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wrong(
                Opened {
                    way,
                    client,
                    result,
                },
                Disagreement { field: _, what },
            ) => {
                let result = match result {
                    Ok(answer) => format!("{} saw {}", answer.backend, answer.peer_seen),
                    Err(failure) => failure.to_string(),
                };
                write!(formatter, "{way} ({client}): {result}: {what}")
            }
            Self::Stray(node, record) => write!(
                formatter,
                "{node} reported a connection that no one opened, or that it had reported: {record}"
            ),
        }
    }
}

impl<'run> Report<'run> {
    /// Everything that is wrong; empty if nothing is.
    pub fn complaints(&self) -> Vec<Complaint<'run>> {
        let of_connections = self.findings.iter().flat_map(|finding| {
            let of_connection = finding.disagreements.iter().cloned();
            of_connection.map(|disagreement| Complaint::Wrong(finding.opened, disagreement))
        });
        let strays = self.strays.iter().cloned();
        of_connections
            .chain(strays.map(|(node, record)| Complaint::Stray(node, record)))
            .collect()
    }
}

/// Compares the records of a run with the connections that were opened in it.
pub fn judge<'run>(lab: &Lab, opened: &'run [Opened], records: Records) -> Report<'run> {
    let mut unclaimed = Unclaimed::from(records);
    let findings = opened
        .iter()
        .map(|opened| finding(lab, opened, &mut unclaimed))
        .collect();
    Report {
        findings,
        strays: unclaimed.rest(),
    }
}

/// A connection that two nodes saw, and they.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Crossing {
    /// The client's own end.
    pub client: SocketAddr,
    /// Where it connected to.
    pub front_door: SocketAddr,
    /// The node that it entered by, and the one of its backend.
    pub nodes: [String; 2],
}

impl Crossing {
    /// What a joined record says; none if it is of one node, or does not say it.
    pub fn of(record: &Value) -> Option<Self> {
        let nodes = nodes(record);
        Some(Self {
            client: records::address(record, "/client")?,
            front_door: records::address(record, "/front_door")?,
            nodes: nodes.try_into().ok()?,
        })
    }
}

/// The address and port at one `end` of a record, as `/client`; none if it is not written as
/// RFC 5952 says.
pub fn end(record: &Value, end: &str) -> Option<SocketAddr> {
    records::address(record, end)
}

/// The nodes on the path of a record.
pub fn nodes(record: &Value) -> Vec<String> {
    let path = record.pointer("/path").and_then(Value::as_array);
    let node = |step: &Value| Some(step.pointer("/node")?.as_str()?.to_owned());
    path.into_iter().flatten().filter_map(node).collect()
}

/// The connections of which two nodes must have a record, sorted.
pub fn crossings(lab: &Lab, opened: &[Opened]) -> Vec<Crossing> {
    let mut crossings: Vec<Crossing> = opened
        .iter()
        .filter_map(|opened| {
            let Halves { first, second, .. } = Halves::of(lab, opened);
            Some(Crossing {
                client: first.client,
                front_door: first.front_door,
                nodes: [first.node, second?.node],
            })
        })
        .collect();
    crossings.sort();
    crossings
}

fn finding<'run>(lab: &Lab, opened: &'run Opened, unclaimed: &mut Unclaimed) -> Finding<'run> {
    let Halves {
        before,
        first,
        second,
    } = Halves::of(lab, opened);
    let mut found = Vec::new();
    if let Some(before) = before {
        compare(before, "the client's node: ", unclaimed, &mut found);
    }
    let record = compare(first, "", unclaimed, &mut found);
    if let Some(second) = second {
        compare(second, "its second half: ", unclaimed, &mut found);
    }
    Finding {
        opened,
        record,
        disagreements: found,
    }
}

/// Compares what a node said with what it must say. Gives its record.
fn compare(
    half: Half,
    which: &str,
    unclaimed: &mut Unclaimed,
    found: &mut Vec<Disagreement>,
) -> Option<Value> {
    let Half {
        node,
        protocol,
        client,
        front_door,
        must_be_reported,
        expected,
    } = half;
    let record = unclaimed.take(&node, protocol, client, front_door);
    match &record {
        Some(record) => found.extend(disagreements(record, which, expected)),
        None if must_be_reported => found.push(Disagreement {
            field: None,
            what: format!("{which}{node} did not report it"),
        }),
        None => {}
    }
    record
}

/// Where a record says something else than expected.
fn disagreements(
    record: &Value,
    which: &str,
    expected: Expected,
) -> impl Iterator<Item = Disagreement> {
    expected.into_iter().filter_map(move |(field, expected)| {
        let what = match record.pointer(field) {
            Some(said) if *said == expected => return None,
            Some(said) => format!("{which}{field} is {said}, not {expected}"),
            None => format!("{which}{field} is absent, not {expected}"),
        };
        Some(Disagreement {
            field: Some(field),
            what,
        })
    })
}
