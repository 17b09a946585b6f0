//! Scenarios, played in labs.

use std::{collections::BTreeMap, io::Write as _, panic, sync::Mutex, thread};

use anyhow::{Context as _, Result};
use tempfile::NamedTempFile;

use super::{Answers, Cast, Cells, Proxy, Scenario};
use crate::{
    cluster::Cluster,
    kubeproxy::{Family, doors::front_doors},
    lab::{Lab, Options},
    oracle, run,
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
    thread::scope(|scope| {
        let workers: Vec<_> = (0..LABS_AT_ONCE).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            worker
                .join()
                .unwrap_or_else(|panicked| panic::resume_unwind(panicked));
        }
    });
    cells.into_inner().expect("no panic")
}

/// The scenarios of a mode, those together that can share a lab.
fn labs(scenarios: &[Scenario], proxy: Proxy) -> Vec<(Proxy, Vec<&Scenario>)> {
    let mut labs: Vec<Vec<&Scenario>> = Vec::new();
    let of_mode = |scenario: &&Scenario| scenario.modes.contains(&proxy);
    for scenario in scenarios.iter().filter(of_mode) {
        let shares = |lab: &&mut Vec<&Scenario>| {
            lab.first().is_some_and(|first| {
                first.network == scenario.network && first.kube_proxy == scenario.kube_proxy
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
    let objects = cast.objects().to_string();
    let file = written(&objects)?;
    let config = written(&kube_proxy.to_string())?;
    let options = Options {
        network,
        kube_proxy,
        ..Options::default()
    };
    let lab = Lab::raise(Cluster::parse(&objects)?, options)?;
    let doors = front_doors(lab.cluster(), lab.kube_proxy())?;
    let ways = cast.ways(&lab, &doors)?;
    let mut run = run::observe(&lab, file.path(), &ways)?;
    let answers = Answers::predict(&lab, file.path(), config.path(), &run.opened)?;
    let by_name: BTreeMap<_, _> = scenarios.iter().map(|one| (&*one.name, *one)).collect();
    let scenario_of = |service: &str| by_name.get(service).copied().context("whose is it?");
    // What nobody is to report is kept from the oracle, to whom its record is then a stray.
    let (reported, silent) = std::mem::take(&mut run.opened)
        .into_iter()
        .partition(|opened| {
            scenario_of(&opened.way.door.service).is_ok_and(|scenario| scenario.expect.reported)
        });
    run.opened = reported;
    let report = oracle::judge(&lab, &run.opened, run.records.clone());
    let mut cells = Cells::new();
    let mut note = |scenario: &Scenario, family: Family, mut found: Vec<String>| {
        let key = (scenario.name.clone(), proxy, family);
        let cell = cells
            .entry(key)
            .or_insert_with(|| Ok(scenario.expect.in_short()));
        if let Err(before) = cell {
            before.append(&mut found);
        } else if !found.is_empty() {
            *cell = Err(found);
        }
    };
    for finding in &report.findings {
        let opened = finding.opened;
        let scenario = scenario_of(&opened.way.door.service)?;
        let mut found = answers.disagreements(scenario, opened, finding.record.as_ref())?;
        let of_oracle = finding.disagreements.iter();
        found.extend(of_oracle.map(|disagreement| format!("record: {}", disagreement.what)));
        note(scenario, family(opened), found);
    }
    for opened in &silent {
        let scenario = scenario_of(&opened.way.door.service)?;
        let found = answers.disagreements(scenario, opened, None)?;
        note(scenario, family(opened), found);
    }
    let strays: Vec<_> = report
        .strays
        .iter()
        .map(|(node, record)| format!("{node}: {record}"))
        .collect();
    anyhow::ensure!(
        strays.is_empty(),
        "in mode {proxy} with {network:?} these were reported and should not:\n{}",
        strays.join("\n")
    );
    Ok(cells)
}

fn family(opened: &crate::traffic::Opened) -> Family {
    if opened.client.is_ipv4() {
        Family::V4
    } else {
        Family::V6
    }
}

fn written(text: &str) -> Result<NamedTempFile> {
    let mut file = NamedTempFile::new().context("failed to make a temporary file")?;
    file.write_all(text.as_bytes())
        .context("failed to write a temporary file")?;
    Ok(file)
}
