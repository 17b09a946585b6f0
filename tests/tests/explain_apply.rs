//! `observer explain --apply`: a change that is advised is proved by predicting again.
//!
//! Goal: no advice that can be made changes nothing, and none makes anything worse than it says.
//! Method: each change of each file of `tests/manifests` that has patches is made, and what is
//! explained then is compared with what was explained before.

use std::{collections::BTreeSet, fmt};

use serde_json::Value;
use tests::{
    explained::{self, Said},
    manifest::{self, Manifest},
};

/// What a change brings about that an operator has to mend then, for which no value is known here:
/// by default nginx believes everybody, and what addresses the load balancer has no object tells.
const TO_BE_MENDED: (&str, &str) = ("believe-forwarded-for", "forwarded-header-spoofable");
/// Changes that let connections in.
const OPENS: [&str; 2] = ["set-cluster", "set-internal-cluster"];
/// The only one that gives the client's address up, to let connections in.
const GIVES_UP: &str = "set-cluster";

/// How good a Service's lot is: more is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Lot {
    Unreachable,
    Broken,
    Lost,
    LostAndRecoverable,
    DependsOrUnknown,
    Preserved,
}

/// What is compared of a Service.
#[derive(Clone, Debug)]
struct Fate {
    lot: Lot,
    lost_by: BTreeSet<String>,
    /// Findings by which connections fail or addresses are lost.
    wrong: BTreeSet<String>,
    /// Doors by which a client outside is not seen, with the node if one decides.
    lost_at: BTreeSet<String>,
    /// Doors by which no client outside comes in.
    closed_at: BTreeSet<String>,
}

fn explain(text: &str, more: &[&str]) -> Said {
    let arguments = [&["-f", "-", "-o", "json"], more].concat();
    let command = explained::explain(&arguments).expect("an observer");
    explained::run(command, text).expect("runs")
}

fn all(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn word(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Doors by which an outside client has this fate.
fn doors(service: &Value, has_it: impl Fn(&Value) -> bool) -> BTreeSet<String> {
    let ways = all(&service["ways"])
        .filter(|way| way["client"] == "external" && way["left_out"] == false && has_it(way));
    let named = |way: &Value| format!("{} {} {}", way["door"], way["port"], way["nodes"]);
    ways.map(named).collect()
}

impl Fate {
    fn of(service: &Value, document: &Value) -> Self {
        let verdict = &service["verdict"];
        let is_told = all(&verdict["recoverable"]).next().is_some();
        let lot = match verdict["code"].as_str() {
            Some("preserved") => Lot::Preserved,
            Some("depends" | "unknown") => Lot::DependsOrUnknown,
            Some("lost") if is_told => Lot::LostAndRecoverable,
            Some("lost") => Lot::Lost,
            Some("broken") => Lot::Broken,
            _ => Lot::Unreachable,
        };
        let findings = all(&service["findings"]).chain(all(&document["findings"]));
        let is_wrong = |finding: &&Value| finding["severity"] != "note";
        let is_lost = |way: &Value| way["source_ip"] == "lost";
        Self {
            lot,
            lost_by: all(&verdict["lost_by"]).map(word).collect(),
            wrong: findings
                .filter(is_wrong)
                .map(|finding| word(&finding["code"]))
                .collect(),
            lost_at: doors(service, is_lost),
            closed_at: doors(service, |way| way["seen"].is_null()),
        }
    }

    /// Whether something is better than it was: the verdict; who loses the address; what was found;
    /// or another door.
    fn is_better_than(&self, before: &Self) -> bool {
        self.lot > before.lot
            || is_less(&self.lost_by, &before.lost_by)
            || is_less(&self.wrong, &before.wrong)
            || is_less(&self.lost_at, &before.lost_at)
    }

    fn is_worse_than(&self, before: &Self) -> bool {
        self.lot < before.lot || !self.wrong.is_subset(&before.wrong)
    }
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            lot,
            lost_by,
            wrong,
            lost_at,
            closed_at,
        } = self;
        write!(
            f,
            "{lot:?} by {lost_by:?}, wrong {wrong:?}, lost at {lost_at:?}, closed at {closed_at:?}"
        )
    }
}

fn is_less<T: Ord>(set: &BTreeSet<T>, than: &BTreeSet<T>) -> bool {
    set.is_subset(than) && set != than
}

/// The codes of the changes of a Service that can be made.
fn changes(service: &Value) -> Vec<String> {
    let can_be_made = |change: &&Value| all(&change["patches"]).next().is_some();
    let advice = all(&service["advice"]).filter(can_be_made);
    advice.map(|change| word(&change["code"])).collect()
}

/// Each Service for which this change is advised, before it and after.
fn compared(manifest: &Manifest, before: &Value, code: &str, complaints: &mut Vec<String>) {
    let name = &manifest.name;
    let option = format!("--apply={code}");
    let said = explain(&manifest.text, &[&option]);
    let advised: BTreeSet<String> = all(&before["services"]).flat_map(changes).collect();
    let is_made = !said.stderr.contains("is not among the objects");
    let Some(after) = said.json().ok().filter(|_| is_made) else {
        complaints.push(format!("{name}, {code}: {}", said.stderr));
        return;
    };
    for service in all(&before["services"]) {
        let is_it = |other: &&Value| other["service"] == service["service"];
        let Some(changed) = all(&after["services"]).find(is_it) else {
            complaints.push(format!("{name}, {code}: {} is gone", service["service"]));
            continue;
        };
        let (was, mut is) = (Fate::of(service, before), Fate::of(changed, &after));
        let (change, finding) = TO_BE_MENDED;
        if advised.contains(change) {
            is.wrong.remove(finding);
        }
        let made = match code {
            "best" => best(service),
            _ => changes(service).into_iter().find(|made| made == code),
        };
        let is_wrong = match made.as_deref() {
            Some(made) if OPENS.contains(&made) => !is_less(&is.closed_at, &was.closed_at),
            Some(_) => !is.is_better_than(&was) || is.is_worse_than(&was),
            // It may be led to through one that is changed.
            None => code != GIVES_UP && is.is_worse_than(&was),
        };
        if is_wrong {
            let service = &service["service"]["name"];
            complaints.push(format!(
                "{name}, {code} ({made:?}) of {service}:\n  before {was}\n  after  {is}"
            ));
        }
    }
}

/// The change that `--apply` makes: the first, if objects of a known name make it.
fn best(service: &Value) -> Option<String> {
    let first = all(&service["advice"]).next()?;
    let can_be_made = all(&first["patches"]).next().is_some();
    let code = first["code"].as_str().filter(|_| can_be_made)?;
    Some(code.to_owned())
}

#[test]
fn every_change_that_can_be_made_proves_something() {
    let mut complaints = Vec::new();
    let (mut made, mut codes) = (0, BTreeSet::new());
    for manifest in manifest::all().expect("manifests") {
        let before = explain(&manifest.text, &[]).json().expect("explained");
        let advised: BTreeSet<String> = all(&before["services"]).flat_map(changes).collect();
        if advised.is_empty() {
            continue;
        }
        for code in advised.iter().map(String::as_str).chain(["best"]) {
            compared(&manifest, &before, code, &mut complaints);
            made += 1;
        }
        codes.extend(advised);
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    assert!(made > 80, "only {made} changes");
    assert!(codes.len() > 6, "only {codes:?}");
}

#[test]
fn a_change_is_told_as_the_command_that_makes_it() {
    let manifest = Manifest::read(&Manifest::folder().join("node-port-cluster.yaml"));
    let text = manifest.expect("manifests").text;
    let said = explain(&text, &["--apply"]);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    let command = "kubectl patch service web -n shop --type merge -p \
                   '{\"spec\":{\"externalTrafficPolicy\":\"Local\"}}'";
    assert!(said.stderr.contains(command), "{}", said.stderr);
    let service = &said.json().expect("explained")["services"][0];
    assert_eq!(service["external_traffic_policy"], "Local");
    assert_eq!(service["verdict"]["code"], "preserved");
}

#[test]
fn a_change_that_is_not_advised_is_not_made() {
    let manifest = Manifest::read(&Manifest::folder().join("node-port-cluster.yaml"));
    let text = manifest.expect("manifests").text;
    let before = explain(&text, &[]);
    let said = explain(&text, &["--apply=target-pods"]);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    assert_eq!(said.stdout, before.stdout);
    assert!(said.stderr.contains("shop/web"), "{}", said.stderr);
    let said = explain(&text, &["--apply=magic"]);
    assert_eq!(said.code, Some(2), "{}", said.stderr);
    assert!(said.stderr.contains("target-pods"), "{}", said.stderr);
}
