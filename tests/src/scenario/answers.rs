//! The three answers to a scenario, and whether they are the one it expects: what is predicted
//! from the objects, what was observed, and what the two ends saw themselves.

use std::{collections::HashMap, fmt, net::IpAddr, path::Path, process::Command};

use anyhow::{Context as _, Result};
use serde::Deserialize;
use serde_json::Value;

use super::{Beyond, Relay, Scenario, cluster::relaying_pod};
use crate::{
    client::Failure,
    command, explained,
    kubeproxy::Mode,
    lab::Lab,
    observer_process,
    protocol::Protocol,
    traffic::{Client, Opened},
};

/// The device that has every Service's address in mode ipvs.
const IPVS_DEVICE: &str = "kube-ipvs0";
/// The interface of a node by which it reaches the chosen endpoint, whatever its name is.
const TOWARDS_THE_ENDPOINT: &str = "towards the endpoint";

/// What comes out, in the words of the record.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// Whether there is a record of it.
    #[serde(default = "Answer::yes")]
    pub reported: bool,
    /// What becomes of the client's address.
    #[serde(default)]
    pub source_ip: SourceIp,
    /// Whose address the backend sees: `client`; or a node's, any of its own (`node1`) or that of
    /// an interface (`node1 flannel.1`, `node1 towards the endpoint`). Absent if nobody sees one.
    #[serde(default)]
    pub source_seen: Option<String>,
    /// Whose rule rewrote it, if it is lost.
    #[serde(default = "Answer::kube_proxy")]
    pub by: String,
    /// Why it is lost.
    #[serde(default)]
    pub cause: Option<String>,
    /// What becomes of the opening packet.
    pub outcome: Outcome,
    /// Why it is not answered.
    #[serde(default)]
    pub outcome_cause: Option<String>,
    /// Nodes on the way beyond the first; absent if nobody is reached.
    #[serde(default)]
    pub extra_hops: Option<u8>,
}

/// What becomes of the client's address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SourceIp {
    /// The backend sees it.
    Preserved,
    /// It sees another.
    Lost,
    /// Nobody sees any, or it cannot be told.
    #[default]
    Unknown,
}

/// What becomes of the opening packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// A reply came.
    Answered,
    /// A RST or an ICMP error came.
    Refused,
    /// A rule let it die.
    Dropped,
    /// It was delivered, and nothing came back.
    Unanswered,
}

impl fmt::Display for SourceIp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Preserved => "preserved",
            Self::Lost => "lost",
            Self::Unknown => "unknown",
        })
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Answered => "answered",
            Self::Refused => "refused",
            Self::Dropped => "dropped",
            Self::Unanswered => "unanswered",
        })
    }
}

impl Answer {
    fn yes() -> bool {
        true
    }

    fn kube_proxy() -> String {
        "kube-proxy".to_owned()
    }

    /// In a word or two.
    pub fn in_short(&self) -> String {
        match (self.reported, self.outcome, self.extra_hops) {
            (false, ..) => "not reported".to_owned(),
            (true, Outcome::Answered, Some(0) | None) => self.source_ip.to_string(),
            (true, Outcome::Answered, Some(hops)) => format!("{} +{hops}", self.source_ip),
            (true, outcome, _) => outcome.to_string(),
        }
    }
}

/// Who is asked, beside the scenario itself.
#[derive(Debug)]
pub struct Answers<'lab> {
    lab: &'lab Lab,
    /// What is predicted, by the client's address.
    predicted: HashMap<IpAddr, Vec<Value>>,
}

impl<'lab> Answers<'lab> {
    /// Asks for every prediction about what was `opened`.
    pub fn predict(
        lab: &'lab Lab,
        cluster_state: &Path,
        kube_proxy: &Path,
        opened: &[Opened],
    ) -> Result<Self> {
        let mut predicted = HashMap::new();
        for opened in opened {
            let client = asked_as(lab, opened);
            if predicted.contains_key(&client) {
                continue;
            }
            let mut command = Command::new(observer_process::binary()?);
            command
                .args(["explain", "-o", "json", "--client", &client.to_string()])
                .arg("--cluster-state")
                .arg(cluster_state)
                .arg("--kube-proxy-config")
                .arg(kube_proxy);
            let text = command::run(&mut command)?;
            let document =
                serde_json::from_str(&text).context("observer explain prints no JSON")?;
            predicted.insert(client, explained::cells(&document));
        }
        Ok(Self { lab, predicted })
    }

    /// Where the answers about one connection of a scenario differ from what it expects.
    pub fn disagreements(
        &self,
        scenario: &Scenario,
        opened: &Opened,
        record: Option<&Value>,
    ) -> Result<Vec<String>> {
        let mut found = Found::default();
        self.oracle(scenario, opened, &mut found)?;
        observed(scenario, opened, record, &mut found);
        if let (Some(who), Some(record)) = (&scenario.expect.source_seen, record) {
            let may_be = self.addresses(who, opened)?;
            let said = word(record, "/source_seen/ip");
            let is_it = said.parse().is_ok_and(|said| may_be.contains(&said));
            found.unless(is_it, "trace", "source_seen", said, who);
        }
        self.predicted(scenario, opened, &mut found);
        Ok(found.0)
    }

    /// What the sockets saw.
    fn oracle(&self, scenario: &Scenario, opened: &Opened, found: &mut Found) -> Result<()> {
        const WHO: &str = "the socket";
        let expect = &scenario.expect;
        let answer = match &opened.result {
            Err(failure) => {
                let is_it = match expect.outcome {
                    Outcome::Answered => false,
                    Outcome::Refused => match failure {
                        Failure::Refused => true,
                        // No ICMP error but one ends an association (`net/sctp/input.c`,
                        // `sctp_v4_err`): the client asks on.
                        Failure::TimedOut => scenario.protocol == Protocol::Sctp,
                        _ => false,
                    },
                    Outcome::Dropped | Outcome::Unanswered => {
                        matches!(failure, Failure::TimedOut | Failure::Unreachable(_))
                    }
                };
                found.unless(is_it, WHO, "outcome", failure, expect.outcome);
                return Ok(());
            }
            Ok(answer) => answer,
        };
        found.equal(WHO, "outcome", "answered", &expect.outcome.to_string());
        let seen = answer.peer_seen.ip();
        if let Some(Beyond { source_seen, .. }) = &scenario.beyond {
            let may_be = match source_seen {
                Relay::Servicelb => self.relays(scenario),
            };
            found.unless(
                may_be.contains(&seen),
                WHO,
                "source_seen",
                seen,
                "the relay's",
            );
            return Ok(());
        }
        let source_ip = if seen == opened.client.ip() {
            SourceIp::Preserved
        } else {
            SourceIp::Lost
        };
        found.unless(
            source_ip == expect.source_ip,
            WHO,
            "source_ip",
            source_ip,
            expect.source_ip,
        );
        if let Some(who) = &expect.source_seen {
            let may_be = self.addresses(who, opened)?;
            found.unless(may_be.contains(&seen), WHO, "source_seen", seen, who);
        }
        let node = self.lab.plan().node_of(answer.backend.ip());
        let hops = node.map(|node| u8::from(node != opened.way.door.entry));
        found.unless(
            hops == expect.extra_hops,
            WHO,
            "extra_hops",
            text(hops),
            text(expect.extra_hops),
        );
        Ok(())
    }

    /// The addresses of the pod that relays to the Service of a scenario.
    fn relays(&self, scenario: &Scenario) -> Vec<IpAddr> {
        let node = &scenario.connection.node;
        let name = relaying_pod(&scenario.name, node);
        let pod = self.lab.pod(&name, node);
        pod.map_or_else(Vec::new, |pod| pod.plan.addresses.clone())
    }

    /// The addresses that somebody may be seen by.
    fn addresses(&self, who: &str, opened: &Opened) -> Result<Vec<IpAddr>> {
        if who == "client" {
            return Ok(vec![opened.client.ip()]);
        }
        let (node, interface) = who.split_once(' ').unzip();
        let node = self.lab.node(node.unwrap_or(who))?;
        match interface {
            None => {
                let mut addresses = node.plan.addresses.clone();
                // There an IPv6 masquerade takes whatever address the node has that fits best, and
                // those of Services are its own (kubernetes/kubernetes#102527).
                if self.lab.kube_proxy().mode == Mode::Ipvs && opened.client.is_ipv6() {
                    addresses.extend(node.namespace.addresses(IPVS_DEVICE)?);
                }
                Ok(addresses)
            }
            Some(TOWARDS_THE_ENDPOINT) => {
                let backend = opened
                    .result
                    .as_ref()
                    .ok()
                    .map(|answer| answer.backend.ip());
                let interface = backend
                    .and_then(|backend| self.lab.interface_towards(&node.plan.name, backend));
                let interface = interface.context("no interface leads to the endpoint")?;
                node.namespace.addresses(interface)
            }
            Some(interface) => node.namespace.addresses(interface),
        }
    }

    /// What `observer explain` says of the same front door, node and client.
    fn predicted(&self, scenario: &Scenario, opened: &Opened, found: &mut Found) {
        const WHO: &str = "predict";
        let door = &opened.way.door;
        let cells = self.predicted.get(&asked_as(self.lab, opened));
        let is_it = |cell: &&Value| {
            cell["service"]["name"] == *door.service
                && cell["protocol"] == door.protocol.as_str()
                && cell["node"] == *door.entry
                && cell["front_door"]["kind"] == door.kind.as_str()
                && cell["front_door"]["ip"] == door.to.ip().to_string()
                && cell["front_door"]["port"] == door.to.port()
        };
        let cells: Vec<_> = cells.into_iter().flatten().filter(is_it).collect();
        let expect = &scenario.expect;
        let kube_proxy_has_a_part = expect.reported && door.kind.is_of_service();
        let cell = match cells[..] {
            [cell] => cell,
            [] => {
                return found.unless(!kube_proxy_has_a_part, WHO, "front door", "none", "one");
            }
            _ => return found.unless(false, WHO, "front door", "told twice", "told once"),
        };
        let overridden = scenario.predicted.as_ref();
        let source_ip = overridden.and_then(|predicted| predicted.source_ip);
        let source_ip = source_ip.unwrap_or(expect.source_ip).to_string();
        found.equal(WHO, "source_ip", word(cell, "/source_ip"), &source_ip);
        let cause = overridden.and_then(|predicted| predicted.cause.as_ref());
        let cause = cause
            .or(expect.cause.as_ref())
            .map_or("none", |cause| cause);
        found.equal(WHO, "cause", word(cell, "/cause"), cause);
        let outcome = overridden.and_then(|predicted| predicted.outcome);
        if let Some(outcome) = outcome {
            // Of what does not come out so, nothing more is known.
            return found.equal(WHO, "outcome", word(cell, "/outcome"), &outcome.to_string());
        }
        found.equal(
            WHO,
            "outcome",
            word(cell, "/outcome"),
            &expect.outcome.to_string(),
        );
        let why = expect.outcome_cause.as_deref().unwrap_or("none");
        found.equal(WHO, "outcome_cause", word(cell, "/outcome_cause"), why);
        let bound = |end: &str| cell.pointer(end).and_then(Value::as_u64);
        let range = bound("/extra_hops/least").zip(bound("/extra_hops/most"));
        let is_within = match (range, expect.extra_hops) {
            (Some((least, most)), Some(hops)) => (least..=most).contains(&hops.into()),
            (range, hops) => range.is_none() && hops.is_none(),
        };
        let said = cell
            .get("extra_hops")
            .map(ToString::to_string)
            .unwrap_or_default();
        found.unless(is_within, WHO, "extra_hops", said, text(expect.extra_hops));
    }
}

/// What `observer trace` said.
fn observed(scenario: &Scenario, opened: &Opened, record: Option<&Value>, found: &mut Found) {
    const WHO: &str = "trace";
    let expect = &scenario.expect;
    let Some(record) = record else {
        return found.unless(!expect.reported, WHO, "record", "none", "one");
    };
    if !expect.reported {
        return found.unless(false, WHO, "record", "one", "none");
    }
    let none = "none".to_owned();
    let lost = expect.source_ip == SourceIp::Lost;
    let by = if lost {
        expect.by.clone()
    } else {
        none.clone()
    };
    for (field, pointer, expected) in [
        ("source_ip", "/source_ip", expect.source_ip.to_string()),
        ("by", "/lost_at/by", by),
        ("outcome", "/outcome", expect.outcome.to_string()),
        (
            "cause",
            "/cause/code",
            expect.cause.clone().unwrap_or(none.clone()),
        ),
        (
            "outcome_cause",
            "/outcome_cause/code",
            expect.outcome_cause.clone().unwrap_or(none),
        ),
    ] {
        found.equal(WHO, field, word(record, pointer), &expected);
    }
    let hops = record.pointer("/extra_hops").and_then(Value::as_u64);
    let expected = expect.extra_hops.map(u64::from);
    found.unless(
        hops == expected,
        WHO,
        "extra_hops",
        text(hops),
        text(expected),
    );
    let is_a_finding = scenario.predicted.as_ref().is_some_and(|predicted| {
        let promised = predicted.source_ip.filter(|one| *one != SourceIp::Unknown);
        promised.is_some_and(|promised| promised != expect.source_ip)
            || predicted
                .outcome
                .is_some_and(|outcome| outcome != expect.outcome)
    });
    let promised = opened
        .way
        .door
        .kind
        .is_of_service()
        .then_some(!is_a_finding);
    let as_expected = record.pointer("/as_expected").and_then(Value::as_bool);
    found.unless(
        as_expected == promised,
        WHO,
        "as_expected",
        text(as_expected),
        text(promised),
    );
}

/// The address to ask for the client by: of a node its first, whichever it called from.
fn asked_as(lab: &Lab, opened: &Opened) -> IpAddr {
    let ip = opened.client.ip();
    let entry = lab.node(&opened.way.door.entry).ok();
    let own = entry.and_then(|node| node.plan.address_like(ip));
    let is_the_node = matches!(opened.way.client, Client::Node(_));
    own.filter(|_| is_the_node).unwrap_or(ip)
}

/// What differs so far.
#[derive(Debug, Default)]
struct Found(Vec<String>);

impl Found {
    fn equal(&mut self, who: &str, field: &str, said: &str, expected: &str) {
        self.unless(said == expected, who, field, said, expected);
    }

    fn unless(
        &mut self,
        holds: bool,
        who: &str,
        field: &str,
        said: impl fmt::Display,
        expected: impl fmt::Display,
    ) {
        if !holds {
            self.0
                .push(format!("{who}: {field} is {said}, not {expected}"));
        }
    }
}

/// The text at `pointer`, or `none`.
fn word<'value>(value: &'value Value, pointer: &str) -> &'value str {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or("none")
}

fn text(value: Option<impl fmt::Display>) -> String {
    value.map_or_else(|| "none".to_owned(), |value| value.to_string())
}
