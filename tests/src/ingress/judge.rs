//! Three answers for each row, which must be one: what documents say, what the programs answered,
//! logged and read, and what `trace` said.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use serde_json::Value;

use super::{
    CHECKS, Run, Stage,
    rows::{Answer, Hop, Ingress, Row},
};
use crate::{ear::Heard, kubeproxy::Family, oracle, payload};

/// So many examples of what is wrong in a row are enough.
const EXAMPLES: usize = 3;

/// What is wrong, row by row; nothing if all is right.
pub fn judge(stage: &Stage, run: &Run, connections: usize) -> Vec<String> {
    let mut complaints = Vec::new();
    for (number, row) in stage.rows().iter().enumerate() {
        let place = Place {
            stage,
            run,
            row,
            number,
            connections,
        };
        let mut wrong = Vec::new();
        place.answers(&mut wrong);
        place.inbound(&mut wrong);
        place.onward(&mut wrong);
        let more = wrong.len().saturating_sub(EXAMPLES);
        wrong.truncate(EXAMPLES);
        if more > 0 {
            wrong.push(format!("and {more} more"));
        }
        let name = row.name();
        complaints.extend(wrong.into_iter().map(|wrong| format!("{name}: {wrong}")));
    }
    complaints
}

/// A row, and all that came of it.
struct Place<'run> {
    stage: &'run Stage,
    run: &'run Run,
    row: &'run Row,
    number: usize,
    connections: usize,
}

impl Place<'_> {
    /// Whether the clients got what documents say, and the controller says why.
    fn answers(&self, wrong: &mut Vec<String>) {
        let Self {
            run, row, number, ..
        } = self;
        for answer in &run.answers[*number] {
            if *answer != row.answer {
                wrong.push(format!("a client got {answer:?}, not {:?}", row.answer));
            }
        }
        let must_be = match row.answer {
            Answer::Nothing => self.connections,
            _ => 0,
        };
        let missed = run.missed[*number];
        if missed != must_be {
            wrong.push(format!(
                "the controller missed {missed} headers, not {must_be}"
            ));
        }
    }

    /// What is told of the connections to the controller.
    fn inbound(&self, wrong: &mut Vec<String>) {
        let (seen, name) = (self.stage.seen(self.number), self.row.ingress.name());
        let client = self.client();
        let logged: HashMap<SocketAddr, &str> = self.run.logged[name]
            .iter()
            .map(|logged| (logged.saw, &*logged.of))
            .collect();
        let records = self.run.records.iter();
        let records: Vec<_> = records
            .filter(|record| {
                oracle::end(record, "/client").is_some_and(|end| end.ip() == seen)
                    && record["service"]["name"] == name
            })
            .collect();
        let is_enough = if self.row.front.is_of_checks() {
            records.len() >= CHECKS
        } else {
            records.len() == self.connections
        };
        if !is_enough {
            wrong.push(format!("{} records of it", records.len()));
        }
        for record in records {
            self.findings(record, &self.row.findings, wrong);
            let status = oracle::end(record, "/source_seen").and_then(|seen| logged.get(&seen));
            let must_be = match self.row.answer {
                Answer::Ok => Some(&"200"),
                Answer::BadRequest => Some(&"400"),
                Answer::Nothing | Answer::Unasked => None,
            };
            // Behind PROXY headers HAProxy logs whom they name.
            let is_logged = self.row.ingress != Ingress::HaproxyProxied;
            if is_logged && must_be.is_some() && status != must_be {
                wrong.push(format!("the controller logged {status:?}: {record}"));
            }
            if payload::recovered(record).is_some_and(|recovered| recovered != client) {
                wrong.push(format!("another client: {record}"));
            }
        }
    }

    /// What the application read, and what is told of the connections to it.
    fn onward(&self, wrong: &mut Vec<String>) {
        let pod = self.row.ingress.pod().address(self.family());
        let heard: Vec<_> = self
            .run
            .heard
            .iter()
            .filter(|heard| is_of(heard, self.number))
            .collect();
        let must_be = match self.row.answer {
            Answer::Ok if !self.row.front.is_of_checks() => self.connections,
            _ => 0,
        };
        if heard.len() != must_be {
            wrong.push(format!("the application was asked {} times", heard.len()));
        }
        let hops = self.row.list.iter().map(|hop| self.hop(*hop));
        let hops: Vec<IpAddr> = hops.collect();
        for heard in heard {
            let read = list(&heard.bytes);
            if read != hops {
                wrong.push(format!("the application read {read:?}, not {hops:?}"));
            }
            let is_it = |record: &&Value| {
                oracle::end(record, "/source_seen") == Some(heard.peer)
                    && oracle::end(record, "/client").is_some_and(|end| end.ip() == pod)
            };
            let mut of_it = self.run.records.iter().filter(is_it);
            let (Some(record), None) = (of_it.next(), of_it.next()) else {
                wrong.push(format!("not told once what {} asked", heard.peer));
                continue;
            };
            self.findings(record, &self.row.onward, wrong);
            if payload::recovered(record) != hops.first().copied() {
                wrong.push(format!("another client than {hops:?}: {record}"));
            }
        }
    }

    fn findings(&self, record: &Value, must_be: &[String], wrong: &mut Vec<String>) {
        let findings = record["findings"].as_array().into_iter().flatten();
        let codes: Vec<_> = findings
            .clone()
            .filter_map(|finding| finding["code"].as_str())
            .collect();
        if codes != must_be {
            wrong.push(format!("found {codes:?}, not {must_be:?}: {record}"));
        }
        let change = self.row.change.as_deref().filter(|_| !must_be.is_empty());
        let says = |change: &str| {
            let mut changes = findings.filter_map(|finding| finding["change"].as_str());
            changes.any(|says| says.contains(change))
        };
        if change.is_some_and(|change| !says(change)) {
            wrong.push(format!("no change to {change:?}: {record}"));
        }
    }

    fn hop(&self, hop: Hop) -> IpAddr {
        let address = self.stage.address(self.number);
        match hop {
            Hop::Client => address.client(),
            Hop::First => address.front(0),
            Hop::Second => address.front(1),
        }
    }

    fn client(&self) -> IpAddr {
        self.stage.address(self.number).client()
    }

    fn family(&self) -> Family {
        self.stage.family
    }
}

fn is_of(heard: &Heard, row: usize) -> bool {
    heard.bytes.starts_with(format!("GET /{row}/ ").as_bytes())
}

/// Whom a request lists.
fn list(request: &[u8]) -> Vec<IpAddr> {
    let text = String::from_utf8_lossy(request);
    let fields = text.lines().filter_map(|line| line.split_once(':'));
    fields
        .filter(|(name, _)| name.eq_ignore_ascii_case("x-forwarded-for"))
        .flat_map(|(_, value)| value.split(','))
        .filter_map(|hop| hop.trim().parse().ok())
        .collect()
}
