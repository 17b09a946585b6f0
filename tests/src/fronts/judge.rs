//! Four answers for each row, which must be one: what documents say, what the pods' sockets saw and
//! read, what `trace` said, and what `explain` says from the objects alone.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
};

use serde_json::{Value, json};

use super::{
    answers::{Answers, Report, recorded, seen_and_read},
    rows::{Cause, Front, Node, NotRecovered, Policy, Row, Target},
    stage::{Came, Known, Observed, Stage},
};
use crate::{
    manifest::{Carrier, Seen},
    oracle,
};

/// Records by whom the pod saw, and where it listens.
type Found<'run> = HashMap<(Option<SocketAddr>, Option<SocketAddr>), Vec<&'run Value>>;

/// What observers told of a run.
struct Told<'run> {
    by_node: BTreeMap<&'run str, Found<'run>>,
    joined: Found<'run>,
}

/// Compares what was told, and what is explained, with what came.
pub fn judge(stage: &Stage, observed: &Observed, explanation: &Value) -> Report {
    let by_node = observed.records.iter();
    let told = Told {
        by_node: by_node
            .map(|(node, records)| (node.as_str(), found(records)))
            .collect(),
        joined: found(&observed.joined),
    };
    let mut report = Report {
        complaints: Vec::new(),
        answers: Vec::new(),
    };
    let mut must_be = 0;
    for (number, row) in stage.rows().enumerate() {
        let of_row = |came: &&Came| came.row == number;
        let came: Vec<&Came> = observed.came.iter().filter(of_row).collect();
        let mut wrong = Vec::new();
        let mut answers = Answers::default();
        if came.len() != observed.connections {
            wrong.push(format!("{} connections came", came.len()));
        }
        for came in came {
            let at = Place {
                row,
                came,
                endpoint: stage.endpoint(number),
                front: stage.front(number),
                entry: stage.node(row.entry()),
                known: observed.known,
            };
            must_be += row.nodes().count();
            at.sockets(&mut wrong);
            answers.sockets.insert(at.in_short());
            at.told(&told, &mut answers, &mut wrong);
        }
        answers.explain = row.explained(explanation, &mut wrong);
        report.complain(row, wrong);
        report.answers.push(answers);
    }
    let told: usize = observed.records.values().map(Vec::len).sum();
    if told != must_be {
        let complaint = format!("{told} records, not {must_be}");
        report.complaints.push(complaint);
    }
    report
}

fn found(records: &[Value]) -> Found<'_> {
    let mut found = Found::new();
    for record in records {
        let end = |end| oracle::end(record, end);
        let key = (end("/source_seen"), end("/backend"));
        found.entry(key).or_default().push(record);
    }
    found
}

/// A connection, and where it must be found.
struct Place<'run> {
    row: &'run Row,
    came: &'run Came,
    endpoint: SocketAddr,
    /// The address of whoever stands in front, and of the node that was entered.
    front: IpAddr,
    entry: IpAddr,
    known: Known,
}

impl Place<'_> {
    /// Whether the row is what the pod's own socket saw and read.
    fn sockets(&self, wrong: &mut Vec<String>) {
        let Self { row, came, .. } = self;
        let seen = match row.seen {
            Seen::Client => came.client,
            Seen::EntryNode => self.entry,
            _ => self.front,
        };
        if came.peer.ip() != seen {
            wrong.push(format!("the socket saw {}, not {seen}", came.peer));
        }
        let read = row.front.carrier().map(|_| came.client);
        // What a client invents comes through whoever adds nothing.
        let is_sure = read.is_some() || self.known != Known::AsUntrusted;
        if is_sure && came.carried != read {
            wrong.push(format!("the pod read {:?}, not {read:?}", came.carried));
        }
    }

    /// Whom the socket saw, and by what the pod could read who connected.
    fn in_short(&self) -> String {
        let Self { row, came, .. } = self;
        let seen = match came.peer.ip() {
            client if client == came.client => "client",
            front if front == self.front => "load-balancer",
            node if node == self.entry => "entry-node",
            _ => "somebody else",
        };
        let read = came.carried == Some(came.client);
        seen_and_read(seen, row.front.carrier().filter(|_| read))
    }

    /// What the nodes told of it: each once, and together once.
    fn told(&self, told: &Told<'_>, answers: &mut Answers, wrong: &mut Vec<String>) {
        let key = (Some(self.came.peer), Some(self.endpoint));
        for node in self.row.nodes() {
            let (first, node) = (node == self.row.entry(), node.name());
            let of_node = told.by_node.get(node).and_then(|found| found.get(&key));
            match of_node.map_or(&[][..], Vec::as_slice) {
                [record] if first => {
                    answers.trace.insert(recorded(record));
                    self.first(record, wrong);
                }
                [record] => self.second(record, wrong),
                records => wrong.push(format!("{node} told {} times", records.len())),
            }
        }
        match told.joined.get(&key).map_or(&[][..], Vec::as_slice) {
            [record] => self.whole(record, wrong),
            records => wrong.push(format!("joined: told {} times", records.len())),
        }
    }

    /// What the node says that it entered by.
    fn first(&self, record: &Value, wrong: &mut Vec<String>) {
        let Self { row, came, .. } = self;
        // Past kube-proxy nothing is predicted.
        let (door, as_expected) = match row.target {
            Target::Instance => ("NodePort", json!(true)),
            Target::Ip => ("Pod", Value::Null),
        };
        let is_told = self.known != Known::AsTrusted || row.recovered_from.is_some();
        let arrived = match row.front {
            Front::Nlb => (came.client, "external"),
            _ if is_told => (self.front, "load-balancer"),
            _ => (self.front, "external"),
        };
        let mut expected = self.of_the_client();
        expected.extend(self.of_the_way());
        expected.extend([
            ("/front_door/kind", json!(door)),
            ("/client/ip", json!(arrived.0)),
            ("/client/kind", json!(arrived.1)),
            ("/as_expected", as_expected),
        ]);
        if self.known == Known::AsLoadBalancers {
            expected.push(("/findings", self.findings()));
        }
        differences(record, "", &expected, wrong);
    }

    /// What the node says that it passes next: not more than it saw.
    fn second(&self, record: &Value, wrong: &mut Vec<String>) {
        let expected = [
            ("/front_door/kind", json!("Pod")),
            ("/client/ip", json!(self.entry)),
            ("/client/kind", json!("node")),
            ("/client/recovered", Value::Null),
            ("/source_ip", json!("unknown")),
            ("/cause/code", json!("masqueraded-before-this-node")),
        ];
        differences(record, "its second half: ", &expected, wrong);
    }

    /// What both say together.
    fn whole(&self, record: &Value, wrong: &mut Vec<String>) {
        let mut expected = self.of_the_client();
        expected.extend(self.of_the_way());
        differences(record, "joined: ", &expected, wrong);
        let nodes: Vec<&str> = self.row.nodes().map(Node::name).collect();
        if oracle::nodes(record) != nodes {
            wrong.push(format!("joined: the path is {}", record["path"]));
        }
    }

    fn of_the_client(&self) -> Vec<(&'static str, Value)> {
        let Self { row, came, .. } = self;
        let (from, reason) = match (self.known, row.not_recovered) {
            // Whose client's first bytes nobody looks at, and what hides whatever is there.
            (Known::AsUntrusted, _) if row.front == Front::Nlb => (None, Value::Null),
            (Known::AsUntrusted, Some(why @ (NotRecovered::Tls | NotRecovered::Http2))) => {
                (None, json!(why))
            }
            (Known::AsUntrusted, _) => (None, json!("untrusted-peer")),
            (_, why) => (row.recovered_from, json!(why)),
        };
        vec![
            ("/client/recovered", json!(from.map(|_| came.client))),
            ("/client/recovered_from", json!(from)),
            ("/client/not_recovered", reason),
        ]
    }

    fn of_the_way(&self) -> Vec<(&'static str, Value)> {
        let losses = self.losses();
        let source = if losses.is_empty() {
            "preserved"
        } else {
            "lost"
        };
        let first = losses.first();
        let codes = losses.iter().map(|loss| loss.code);
        vec![
            ("/source_ip", json!(source)),
            ("/lost_at/by", json!(first.map(|loss| loss.by))),
            ("/lost_at/node", json!(first.and_then(|loss| loss.node))),
            ("/cause/code", json!(first.map(|loss| loss.code))),
            ("/losses", codes.collect()),
            ("/outcome", json!("answered")),
            ("/extra_hops", json!(self.row.hops)),
        ]
    }

    /// Policy Local cannot keep what a load balancer replaces anyway; nothing is in vain where the
    /// client is in what it sends.
    fn findings(&self) -> Value {
        let Row {
            front,
            target,
            policy,
            ..
        } = self.row;
        match (front, target, policy) {
            (Front::Nlb, ..) => json!([]),
            (front, Target::Instance, Policy::Local) if front.carrier().is_none() => {
                json!(["local-behind-replacing-load-balancer"])
            }
            _ => json!([]),
        }
    }

    /// What an observer can know of the losses: of a load balancer that it is not told of, only
    /// what that says itself.
    fn losses(&self) -> Vec<Loss> {
        let Self { row, known, .. } = self;
        let in_front = |code, by| Loss {
            code,
            by,
            node: None,
        };
        let loss = |cause: &Cause| match (cause, known, row.recovered_from) {
            (Cause::ExternalTrafficPolicyCluster, ..) => Some(Loss {
                code: "external-traffic-policy-cluster",
                by: "kube-proxy",
                node: Some(row.entry().name()),
            }),
            (_, Known::AsTrusted, None) => None,
            (_, Known::AsTrusted, Some(Carrier::XForwardedFor)) => {
                Some(in_front("l7-proxy", "proxy"))
            }
            (Cause::UpstreamLoadBalancer, ..) => {
                Some(in_front("upstream-load-balancer", "load-balancer"))
            }
        };
        row.losses.iter().filter_map(loss).collect()
    }
}

/// A stage at which an address is replaced, in the words of the record.
struct Loss {
    code: &'static str,
    by: &'static str,
    node: Option<&'static str>,
}

/// The codes of a record's losses.
pub(super) fn losses(record: &Value) -> Vec<Value> {
    codes(record, "losses", "/cause/code")
}

fn codes(record: &Value, list: &str, code: &str) -> Vec<Value> {
    let items = record[list].as_array().into_iter().flatten();
    items
        .filter_map(|item| item.pointer(code).cloned())
        .collect()
}

/// Lists are compared by the codes in them.
fn differences(
    record: &Value,
    which: &str,
    expected: &[(&'static str, Value)],
    wrong: &mut Vec<String>,
) {
    for (field, expected) in expected {
        let said = match *field {
            "/losses" => losses(record).into(),
            "/findings" => codes(record, "findings", "/code").into(),
            field => record.pointer(field).cloned().unwrap_or_default(),
        };
        if said != *expected {
            wrong.push(format!("{which}{field} is {said}, not {expected}"));
        }
    }
}
