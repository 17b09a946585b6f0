//! Four answers for each row, which must be one: what documents say, what the pods' sockets saw and
//! read, what `trace` said, and what `explain` says from the objects alone.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
};

use serde_json::{Value, json};

use super::{
    rows::{Cause, Front, Node, Row, Target},
    stage::{Came, Known, Observed, Stage},
};
use crate::{
    manifest::{Carrier, Seen},
    oracle,
};

/// So many examples of what is wrong in a row are enough.
const EXAMPLES: usize = 3;

/// Records by whom the pod saw, and where it listens.
type Found<'run> = HashMap<(Option<SocketAddr>, Option<SocketAddr>), Vec<&'run Value>>;

/// What is wrong, row by row; empty if nothing is.
pub fn complaints(stage: &Stage, observed: &Observed, explanation: &Value) -> Vec<String> {
    let records: BTreeMap<&str, Found<'_>> = observed
        .records
        .iter()
        .map(|(node, records)| (node.as_str(), found(records)))
        .collect();
    let joined = found(&observed.joined);
    let mut complaints = Vec::new();
    let mut must_be = 0;
    for (number, row) in stage.rows().enumerate() {
        let came: Vec<&Came> = observed
            .came
            .iter()
            .filter(|came| came.row == number)
            .collect();
        let mut wrong = Vec::new();
        if came.len() != observed.connections {
            wrong.push(format!("{} connections came", came.len()));
        }
        for came in came {
            let endpoint = stage.endpoint(number);
            let at = Place {
                row,
                came,
                front: stage.front(number),
                entry: stage.node(row.entry()),
                known: observed.known,
            };
            at.sockets(&mut wrong);
            let key = (Some(came.peer), Some(endpoint));
            for (node, first) in at.nodes() {
                must_be += 1;
                let records = records.get(node).and_then(|records| records.get(&key));
                match records.map_or(&[][..], Vec::as_slice) {
                    [record] if first => at.first(record, &mut wrong),
                    [record] => at.second(record, &mut wrong),
                    records => wrong.push(format!("{node} told {} times", records.len())),
                }
            }
            match joined.get(&key).map_or(&[][..], Vec::as_slice) {
                [record] => at.whole(record, &mut wrong),
                records => wrong.push(format!("joined: told {} times", records.len())),
            }
        }
        row.explained(explanation, &mut wrong);
        let more = wrong.len().saturating_sub(EXAMPLES);
        wrong.truncate(EXAMPLES);
        complaints.extend(
            wrong
                .into_iter()
                .map(|wrong| format!("{}: {wrong}", row.name())),
        );
        if more > 0 {
            complaints.push(format!("{}: and {more} more", row.name()));
        }
    }
    let told: usize = observed.records.values().map(Vec::len).sum();
    if told != must_be {
        complaints.push(format!("{told} records, not {must_be}"));
    }
    complaints
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
    /// The address of whoever stands in front, and of the node that was entered.
    front: IpAddr,
    entry: IpAddr,
    known: Known,
}

impl Place<'_> {
    /// The nodes that see it, and whether each is the one that is entered.
    fn nodes(&self) -> impl Iterator<Item = (&'static str, bool)> {
        let (entry, endpoint) = (self.row.entry(), self.row.endpoint);
        let nodes = [
            Some((entry, true)),
            (endpoint != entry).then_some((endpoint, false)),
        ];
        let name = |(node, first): (Node, bool)| (node.name(), first);
        nodes.into_iter().flatten().map(name)
    }

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
        if came.carried != read {
            wrong.push(format!("the pod read {:?}, not {read:?}", came.carried));
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
        let is_told = self.known == Known::AsLoadBalancers || row.recovered_from.is_some();
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
        let nodes: Vec<&str> = self.nodes().map(|(node, _)| node).collect();
        if oracle::nodes(record) != nodes {
            wrong.push(format!("joined: the path is {}", record["path"]));
        }
    }

    fn of_the_client(&self) -> Vec<(&'static str, Value)> {
        let Self { row, came, .. } = self;
        let recovered = row.recovered_from.map(|_| came.client);
        vec![
            ("/client/recovered", json!(recovered)),
            ("/client/recovered_from", json!(row.recovered_from)),
            (
                "/client/not_recovered",
                json!(row.not_recovered.map(|reason| reason.as_str())),
            ),
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
            ("/losses", Value::from_iter(codes)),
            ("/outcome", json!("answered")),
            ("/extra_hops", json!(self.row.hops)),
        ]
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

/// A list of losses is compared by its codes.
fn differences(
    record: &Value,
    which: &str,
    expected: &[(&'static str, Value)],
    wrong: &mut Vec<String>,
) {
    for (field, expected) in expected {
        let said = match *field {
            "/losses" => {
                let losses = record["losses"].as_array();
                let codes = losses
                    .into_iter()
                    .flatten()
                    .map(|loss| &loss["cause"]["code"]);
                codes.cloned().collect()
            }
            field => record.pointer(field).cloned().unwrap_or_default(),
        };
        if said != *expected {
            wrong.push(format!("{which}{field} is {said}, not {expected}"));
        }
    }
}

impl Row {
    /// Whether what is explained from the objects is the row.
    fn explained(&self, explanation: &Value, wrong: &mut Vec<String>) {
        if !self.is_on_aws() {
            return;
        }
        let ways = self.ways(explanation);
        let lost_by = match self.losses.first() {
            None => None,
            Some(Cause::UpstreamLoadBalancer) => Some("load-balancer"),
            Some(Cause::ExternalTrafficPolicyCluster) => Some("kube-proxy"),
        };
        let carrier: Vec<Carrier> = self.front.carrier().into_iter().collect();
        let says_so = |way: &&&Value| {
            let hops = |end: &str| way["extra_hops"][end].as_u64();
            way["seen"] == json!(self.seen)
                && way["lost_by"] == json!(lost_by)
                && way["recoverable"] == json!(carrier)
                && way["outcome"] == "answered"
                && hops("least") <= Some(self.hops.into())
                && hops("most") >= Some(self.hops.into())
        };
        let agreeing = ways.iter().filter(says_so).count();
        // An Ingress' load balancer enters by any node, and its ways do not say which.
        let enough = if self.front.is_alb() {
            1
        } else {
            ways.len().max(1)
        };
        if agreeing < enough {
            let said: Vec<String> = ways.iter().map(|way| in_short(way)).collect();
            wrong.push(format!("explained otherwise: {said:?}"));
        }
    }

    /// The ways that are the row's.
    fn ways<'a>(&self, explanation: &'a Value) -> Vec<&'a Value> {
        let list = |value: &'a Value| value.as_array().map_or(&[][..], Vec::as_slice);
        let services = list(&explanation["services"]).iter();
        let own = services.filter(|service| service["service"]["name"] == *self.name());
        let door = if self.front.is_alb() {
            "Proxy"
        } else {
            "LoadBalancer"
        };
        own.flat_map(|service| list(&service["ways"]))
            .filter(|way| {
                let nodes = list(&way["nodes"]);
                way["door"] == door
                    && way["client"] == "external"
                    && (nodes.is_empty() || nodes.contains(&json!(self.entry().name())))
            })
            .collect()
    }
}

fn in_short(way: &Value) -> String {
    let fields = [
        "nodes",
        "seen",
        "lost_by",
        "recoverable",
        "extra_hops",
        "outcome",
    ];
    let said: Vec<String> = fields.iter().map(|field| way[field].to_string()).collect();
    said.join(" ")
}
