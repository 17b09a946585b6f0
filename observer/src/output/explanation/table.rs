//! For a terminal.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use comfy_table::{ContentArrangement, Table, presets};

use super::{Ground, hops, nodes, sentences};
use crate::cluster::Protocol;
use crate::cluster::finding::{Finding, Severity};
use crate::cluster::host::HostDoor;
use crate::output::paint::{Page, Tone, clean};
use crate::output::word;
use crate::verdict::advice::{Change, ChangeCode};
use crate::verdict::chain::{Door, Explained, Way, Word};
use crate::verdict::{ClientKind, OutcomeCauseCode};
use crate::words::Words;

/// The columns of a matrix.
pub(super) const COLUMNS: [&str; 9] = [
    "FRONT DOOR",
    "BY NODE",
    "CLIENT",
    "SOURCE IP",
    "POD SEES",
    "LOST BY",
    "EXTRA HOPS",
    "CLIENT ALSO IN",
    "OUTCOME",
];

/// What comes below the Services.
pub(super) fn tail(
    ground: Ground<'_>,
    advised: &BTreeSet<ChangeCode>,
    words: &Words,
    page: Page,
) -> Vec<String> {
    let Ground {
        facts,
        assumed,
        whole,
        ..
    } = ground;
    let mut blocks = Vec::new();
    blocks.extend(prices(advised, words, page));
    if whole && !facts.hosts.is_empty() {
        let heading = words.say("label-hosts", &[]);
        blocks.push(format!("{heading}\n{}\n", hosts(&facts.hosts, words)));
    }
    if whole && !facts.findings.is_empty() {
        let mut block = words.say("label-findings", &[]);
        block.push('\n');
        findings(&facts.findings, words, page, &mut block);
        blocks.push(block);
    }
    if !assumed.is_empty() {
        let heading = words.say("label-assumed", &[]);
        let lines = assumed.iter().map(|line| page.list("  · ", line));
        blocks.push(format!("{heading}\n{}", lines.collect::<String>()));
    }
    blocks
}

/// A heading, a verdict, a matrix, what is wrong and what to change.
pub(super) fn service(explained: &Explained<'_>, words: &Words, page: Page) -> String {
    let mut block = format!("{}\n", sentences::heading(explained, words));
    let verdict = sentences::verdict(explained, words);
    let tone = match explained.verdict.word {
        Word::Preserved if explained.verdict.closed.is_none() => Tone::Good,
        Word::Lost | Word::Unreachable | Word::Broken => Tone::Bad,
        _ => Tone::Doubt,
    };
    block += &page.paragraph("  ", &verdict, tone);
    if !explained.ways.is_empty() {
        let matrix = matrix(explained, words).to_string();
        for line in matrix.lines() {
            let _ = writeln!(block, "  {}", line.trim_end());
        }
    }
    if let Some(health) = &explained.health {
        let port = health.port.to_string();
        let _ = writeln!(block, "  {}", words.say("label-health", &[("port", &port)]));
        for line in sentences::health(health, words) {
            block += &page.list("    ", &line);
        }
    }
    findings(&explained.findings, words, page, &mut block);
    advice(&explained.advice, words, page, &mut block);
    block
}

/// The matrix of a Service's ways.
fn matrix(explained: &Explained<'_>, words: &Words) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(COLUMNS);
    for way in folded(&explained.ways) {
        table.add_row(cells(&way, explained.all_nodes, words));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
}

/// The ways, with those in one that differ only in how many hops they cost from which node; but
/// not of clients who may choose the node.
pub(super) fn folded<'a>(ways: &[Way<'a>]) -> Vec<Way<'a>> {
    let mut folded: Vec<Way<'_>> = Vec::new();
    for way in ways {
        let same = folded
            .iter_mut()
            .find(|other| other.differs_in_hops_only(way));
        match same {
            Some(same) if !chooses_the_node(way) => same.take_in(way),
            _ => folded.push(way.clone()),
        }
    }
    folded
}

fn chooses_the_node(way: &Way<'_>) -> bool {
    way.client == ClientKind::External && way.door != Door::ClusterIP
}

/// The cells of a way, in the order of [`COLUMNS`].
pub(super) fn cells(way: &Way<'_>, all: usize, words: &Words) -> [String; 9] {
    let outcome = sentences::outcome(way);
    [
        door(way),
        nodes(way, all, words),
        word(&way.client),
        word(&way.source_ip),
        way.seen
            .map_or_else(|| "-".to_owned(), |seen| seen.to_string()),
        sentences::loser(way),
        hops(way, words),
        if way.recoverable.is_empty() {
            "-".to_owned()
        } else {
            let carriers = way.recoverable.iter().map(ToString::to_string);
            carriers.collect::<Vec<_>>().join("\n")
        },
        if way.left_out {
            format!("{outcome} ({})", words.say("label-left-out", &[]))
        } else {
            outcome
        },
    ]
}

/// Where it enters.
fn door(way: &Way<'_>) -> String {
    if let Some(by) = &way.by {
        let port = way.entry.name.as_deref();
        return clean(&port.map_or_else(|| by.clone(), |port| format!("{by} → {port}")));
    }
    let Some(port) = way.to_port else {
        return format!("{:?}", way.door);
    };
    let protocol = match way.protocol() {
        Protocol::Tcp => String::new(),
        other => format!("/{other}"),
    };
    // A node port is the same at every address, but for those where it is not served.
    let is_told_apart = way.outcome_cause == Some(OutcomeCauseCode::NotANodePortAddress)
        || (!way.addresses.is_empty() && way.addresses.iter().all(IpAddr::is_loopback));
    if way.addresses.is_empty() || (way.door == Door::NodePort && !is_told_apart) {
        return format!("{:?} {port}{protocol}", way.door);
    }
    let mut addresses: Vec<_> = way
        .addresses
        .iter()
        .take(ADDRESSES_MAX)
        .map(|address| format!("{}{protocol}", SocketAddr::new(*address, port)))
        .collect();
    if way.addresses.len() > ADDRESSES_MAX {
        addresses.push(format!("+{}", way.addresses.len() - ADDRESSES_MAX));
    }
    format!("{:?} {}", way.door, addresses.join("\n  "))
}

/// Addresses in one cell.
const ADDRESSES_MAX: usize = 4;

fn hosts(hosts: &[HostDoor], words: &Words) -> String {
    hosts
        .iter()
        .map(|door| {
            let how = if door.host_network {
                "label-host-network"
            } else {
                "label-host-port"
            };
            let how = words.say(how, &[]);
            let workload = clean(&door.workload);
            format!("  {workload}, {} {}: {how}", door.protocol, door.port)
        })
        .collect::<Vec<_>>()
        .join("\n")
}

fn findings(findings: &[Finding], words: &Words, page: Page, block: &mut String) {
    let mut sorted: Vec<_> = findings.iter().collect();
    sorted.sort_by_key(|finding| finding.severity());
    for finding in sorted {
        let severity = finding.severity();
        let tone = match severity {
            Severity::Broken | Severity::Loses => Tone::Bad,
            Severity::Note => Tone::Doubt,
        };
        let label = words.say(&format!("severity-{}", word(&severity)), &[]);
        let text = clean(&words.tell("finding", finding));
        *block += &page.item("  ! ", &format!("{label}:"), tone, &text);
    }
}

fn advice(advice: &[Change], words: &Words, page: Page, block: &mut String) {
    for change in advice {
        let name = format!("change-{}", change.code);
        *block += &page.list("  → ", &words.say(&name, &[]));
        for patch in &change.patches {
            let _ = writeln!(block, "      {}", clean(&patch.command()));
        }
    }
}

/// What each change that is named above costs, once.
fn prices(advised: &BTreeSet<ChangeCode>, words: &Words, page: Page) -> Option<String> {
    if advised.is_empty() {
        return None;
    }
    let mut block = format!("{}\n", words.say("label-prices", &[]));
    for code in advised {
        let name = format!("change-{code}");
        let (change, price) = (words.say(&name, &[]), words.price(&name));
        let set = [("change", &*change), ("price", &*price)];
        block += &page.list("  → ", &words.say("label-price-of", &set));
    }
    Some(block)
}
