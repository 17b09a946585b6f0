//! Scenarios, played in labs.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write as _,
    net::SocketAddr,
    path::Path,
    sync::Mutex,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tempfile::NamedTempFile;

use super::{Answer, Answers, Cast, Cells, Change, NewFlows, Outcome, Proxy, Scenario, SourceIp};
use crate::{
    client::Failure,
    cluster::Cluster,
    kubeproxy::{
        Family,
        doors::{doors_of_pods, front_doors},
    },
    lab::{Lab, Options},
    oracle::{self, Records},
    run::{Observers, Run},
    threads::at_once,
    traffic::{self, CONNECT_TIMEOUT, Opened, Way},
};

/// Labs at a time: each waits for time-outs most of the time.
const LABS_AT_ONCE: usize = 3;

/// Plays every scenario in every one of its modes that is among `proxies`, and compares the three
/// answers, and every field of each record with what the lab's own [`oracle`] knows.
pub fn play(scenarios: &[Scenario], proxies: &[Proxy]) -> Result<Cells> {
    let labs = proxies.iter().flat_map(|proxy| labs(scenarios, *proxy));
    let labs = Mutex::new(labs.collect::<Vec<_>>());
    let cells = Mutex::new(Ok(Cells::new()));
    let work = || {
        loop {
            let Some((proxy, scenarios)) = labs.lock().expect("no panic").pop() else {
                return;
            };
            let played = play_in_one_lab(proxy, &scenarios);
            let mut cells = cells.lock().expect("no panic");
            match (&mut *cells, played) {
                (Ok(cells), Ok(played)) => cells.extend(played),
                (Ok(_), Err(error)) => *cells = Err(error),
                (Err(_), _) => {}
            }
        }
    };
    at_once(0..LABS_AT_ONCE, |_| work());
    let cells = cells.into_inner().expect("no panic")?;
    ensure!(!cells.is_empty(), "there is nothing to play");
    // What was not played proves nothing.
    for scenario in scenarios {
        for proxy in scenario
            .modes
            .iter()
            .filter(|proxy| proxies.contains(proxy))
        {
            for family in &scenario.families {
                let key = (scenario.name.clone(), *proxy, family.family());
                ensure!(
                    cells.contains_key(&key),
                    "{}, {proxy}, {family:?} was not played",
                    scenario.name
                );
            }
        }
    }
    Ok(cells)
}

/// The scenarios of a mode, those together that can share a lab.
fn labs(scenarios: &[Scenario], proxy: Proxy) -> Vec<(Proxy, Vec<&Scenario>)> {
    let mut labs: Vec<Vec<&Scenario>> = Vec::new();
    let of_mode = |scenario: &&Scenario| scenario.modes.contains(&proxy);
    for scenario in scenarios.iter().filter(of_mode) {
        let shares = |lab: &&mut Vec<&Scenario>| {
            lab.first().is_some_and(|first| {
                first.network == scenario.network
                    && first.kube_proxy == scenario.kube_proxy
                    && first.change.is_none()
                    && scenario.change.is_none()
            })
        };
        match labs.iter_mut().find(shares) {
            Some(lab) => lab.push(scenario),
            None => labs.push(vec![scenario]),
        }
    }
    labs.into_iter().map(|lab| (proxy, lab)).collect()
}

fn play_in_one_lab(proxy: Proxy, scenarios: &[&Scenario]) -> Result<Cells> {
    let Some(first) = scenarios.first() else {
        return Ok(Cells::new());
    };
    let (network, kube_proxy) = (first.network, first.kube_proxy.settings(proxy));
    let cast = Cast::new(scenarios)?;
    let objects = cast.objects(None).to_string();
    let file = written(&objects)?;
    let config = written(&kube_proxy.to_string())?;
    let options = Options {
        network,
        kube_proxy,
        ..Options::default()
    };
    let lab = Lab::raise(Cluster::parse(&objects)?, options)?;
    let mut doors = front_doors(lab.cluster(), lab.kube_proxy())?;
    doors.extend(doors_of_pods(lab.cluster())?);
    let rounds = cast.rounds(&lab, &doors)?;
    let mut cells = Noted {
        proxy,
        cells: Cells::new(),
    };
    let mut run = match &first.change {
        None => observe(&lab, file.path(), &rounds)?,
        Some(change) => {
            let changed = Cluster::parse(&cast.objects(Some(change)).to_string())?;
            observe_change(
                &lab,
                file.path(),
                &rounds.concat(),
                &changed,
                |way, found| {
                    cells.note(first, Family::of(way.door.to.ip()), found);
                },
                change,
            )?
        }
    };
    let answers = Answers::predict(&lab, file.path(), config.path(), &run.opened)?;
    let by_name: BTreeMap<_, _> = scenarios.iter().map(|one| (&*one.name, *one)).collect();
    let scenario_of = |opened: &Opened| {
        let scenario = by_name.get(&*opened.way.door.service).copied();
        scenario.context("a connection of no scenario")
    };
    // What nobody is to report is kept from the oracle, to whom its record is then a stray; and
    // so is what the two ends alone do not tell: what goes on where no node looks, and what
    // reached a backend whose answer did not come back.
    let mut simple = Vec::new();
    let mut silent = Vec::new();
    let mut unclear = Vec::new();
    for opened in std::mem::take(&mut run.opened) {
        let Answer {
            reported, outcome, ..
        } = scenario_of(&opened)?.expect;
        let is_clear = scenario_of(&opened)?.beyond.is_none() && outcome != Outcome::Unanswered;
        match (reported, is_clear) {
            (false, _) => silent.push(opened),
            (true, true) => simple.push(opened),
            (true, false) => unclear.push(opened),
        }
    }
    let apart = take_unclear(&lab, &unclear, &mut run.records);
    let report = oracle::judge(&lab, &simple, run.records.clone());
    for finding in &report.findings {
        let scenario = scenario_of(finding.opened)?;
        let mut found = answers.disagreements(scenario, finding.opened, finding.record.as_ref())?;
        let of_oracle = finding.disagreements.iter();
        found.extend(of_oracle.map(|disagreement| format!("record: {}", disagreement.what)));
        // Of what is missing the observers may know more.
        if finding.record.is_none() && !found.is_empty() {
            found.push(run.beside());
        }
        cells.note(scenario, family(finding.opened), found);
    }
    cells.note_affinity(scenarios, &simple);
    for opened in silent.iter().chain(&unclear) {
        let scenario = scenario_of(opened)?;
        let mut of_entry = apart.iter().filter(|record| is_of(record, opened));
        let mut found = answers.disagreements(scenario, opened, of_entry.next())?;
        if of_entry.next().is_some() {
            found.push("it was reported twice".to_owned());
        }
        if scenario.beyond.is_some() && !apart.iter().any(is_relayed_from_there) {
            found.push("what the relay opened was not reported as preserved".to_owned());
        }
        cells.note(scenario, family(opened), found);
    }
    for (node, record) in &report.strays {
        let service = record.pointer("/service/name").and_then(Value::as_str);
        let client = record.pointer("/client/ip").and_then(Value::as_str);
        let client = client.and_then(|ip| ip.parse().ok());
        let (scenario, client) = service
            .and_then(|service| by_name.get(service).copied())
            .zip(client)
            .with_context(|| format!("{node} reported what no scenario is about: {record}"))?;
        let found = format!("{node} reported what it should not: {record}");
        cells.note(scenario, Family::of(client), vec![found]);
    }
    Ok(cells.cells)
}

/// What came of one lab.
struct Noted {
    proxy: Proxy,
    cells: Cells,
}

impl Noted {
    fn note(&mut self, scenario: &Scenario, family: Family, mut found: Vec<String>) {
        let key = (scenario.name.clone(), self.proxy, family);
        let cell = self
            .cells
            .entry(key)
            .or_insert_with(|| Ok(scenario.expect.in_short()));
        if let Err(before) = cell {
            before.append(&mut found);
        } else if !found.is_empty() {
            *cell = Err(found);
        }
    }
}

impl Noted {
    /// Whether each client came back to the endpoint that it had, where it must.
    fn note_affinity(&mut self, scenarios: &[&Scenario], opened: &[Opened]) {
        for scenario in scenarios.iter().filter(|one| one.service.has_affinity()) {
            let mut backends: BTreeMap<Family, BTreeSet<SocketAddr>> = BTreeMap::new();
            for opened in opened {
                if opened.way.door.service == scenario.name
                    && let Ok(answer) = &opened.result
                {
                    let of_family = backends.entry(family(opened)).or_default();
                    of_family.insert(answer.backend);
                }
            }
            for (family, different) in backends {
                if different.len() > 1 {
                    let found = format!("one client has several endpoints: {different:?}");
                    self.note(scenario, family, vec![found]);
                }
            }
        }
    }
}

/// Observes connections, round by round.
fn observe(lab: &Lab, cluster_state: &Path, rounds: &[Vec<Way>]) -> Result<Run> {
    let observers = Observers::start(lab, cluster_state)?;
    let mut opened = Vec::new();
    for round in rounds {
        opened.extend(traffic::open(lab, round)?);
    }
    observers.stop(opened)
}

/// Observes flows that go on while the rules of every node become those of another cluster, and
/// tells of each way whether its flow went on as it was, and a new one does not.
fn observe_change(
    lab: &Lab,
    cluster_state: &Path,
    ways: &[Way],
    changed: &Cluster,
    mut told: impl FnMut(&Way, Vec<String>),
    change: &Change,
) -> Result<Run> {
    let observers = Observers::start(lab, cluster_state)?;
    let mut flows = Vec::new();
    for way in ways {
        let flow = way.flow(lab)?;
        let before = flow.exchange(CONNECT_TIMEOUT);
        flows.push((way, flow, before));
    }
    lab.program(changed)?;
    let mut opened = Vec::new();
    for (way, flow, before) in flows {
        let after = flow.exchange(CONNECT_TIMEOUT);
        let mut found = Vec::new();
        match (&before, &after) {
            (Ok(before), Ok(after)) if before == after => {}
            _ => found.push(format!("the flow was {before:?} and became {after:?}")),
        }
        told(way, found);
        opened.push(Opened {
            way: way.clone(),
            client: flow.local(),
            result: before.map_err(|error| error.failure),
        });
    }
    let run = observers.stop(opened)?;
    // Unobserved: what the objects said of it is not so any more.
    for way in ways {
        let flow = way.flow(lab)?;
        let begun = flow.exchange(CONNECT_TIMEOUT);
        let NewFlows { outcome, source_ip } = change.new_flows;
        let is_it = match (outcome, &begun) {
            (Outcome::Answered, Ok(answer)) => {
                let is_kept = answer.peer_seen.ip() == flow.local().ip();
                is_kept == (source_ip == SourceIp::Preserved)
            }
            (Outcome::Refused, Err(error)) => matches!(error.failure, Failure::Refused),
            (Outcome::Dropped, Err(error)) => matches!(error.failure, Failure::TimedOut),
            _ => false,
        };
        let mut found = Vec::new();
        if !is_it {
            found.push(format!(
                "a new flow is {begun:?}, not {outcome}, {source_ip}"
            ));
        }
        told(way, found);
    }
    Ok(run)
}

/// Takes the records about unclear connections out of those of a run: on every node that has one,
/// and where a pod relayed it, of what that opened.
fn take_unclear(lab: &Lab, unclear: &[Opened], records: &mut Records) -> Vec<Value> {
    let relays: Vec<String> = lab
        .plan()
        .pods
        .iter()
        .filter(|pod| !pod.relays.is_empty())
        .flat_map(|pod| pod.addresses.iter().map(ToString::to_string))
        .collect();
    let is_theirs = |record: &Value| {
        let goes_on = ["/client/ip", "/source_seen/ip"].iter().any(|end| {
            let ip = record.pointer(end).and_then(Value::as_str);
            ip.is_some_and(|ip| relays.iter().any(|relay| relay == ip))
        });
        goes_on
            || unclear
                .iter()
                .any(|opened| is_of(record, opened) || is_elsewhere(record, opened))
    };
    let mut apart = Vec::new();
    for of_node in records.values_mut() {
        apart.extend(of_node.extract_if(.., |record| is_theirs(record)));
    }
    apart
}

/// Whether a record is about a connection, on the node that it enters by.
fn is_of(record: &Value, opened: &Opened) -> bool {
    record["node"] == *opened.way.door.entry
        && record["protocol"] == opened.way.door.protocol.as_str()
        && is(record, "/client", opened.client)
        && is(record, "/front_door", opened.way.door.to)
}

/// Whether a record is about what a pod opened to a cluster IP, with its own address.
fn is_relayed_from_there(record: &Value) -> bool {
    record["client"]["kind"] == "pod"
        && record["front_door"]["kind"] == "ClusterIP"
        && record["source_ip"] == "preserved"
}

/// Whether a record is about it on another node, which its client reached as it is.
fn is_elsewhere(record: &Value, opened: &Opened) -> bool {
    record["node"] != *opened.way.door.entry && is(record, "/client", opened.client)
}

/// Whether one end of a record is at an address.
fn is(record: &Value, end: &str, address: SocketAddr) -> bool {
    let at = record.pointer(end);
    at.is_some_and(|at| at["ip"] == address.ip().to_string() && at["port"] == address.port())
}

fn family(opened: &Opened) -> Family {
    Family::of(opened.client.ip())
}

fn written(text: &str) -> Result<NamedTempFile> {
    let mut file = NamedTempFile::new().context("failed to make a temporary file")?;
    file.write_all(text.as_bytes())
        .context("failed to write a temporary file")?;
    Ok(file)
}
