//! A way as a picture: as text, or in Mermaid's language.

use std::fmt::Write as _;

use clap::ValueEnum;

use super::sentences;
use crate::output::paint::clean;
use crate::verdict::ClientKind;
use crate::verdict::chain::{Door, Explained, Stage, StageKind, Way};
use crate::words::Words;

/// How a way is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Picture {
    /// As text.
    Text,
    /// In the language of Mermaid, which GitHub and others draw.
    Mermaid,
}

/// Those of clients outside by the doors that are meant for them; without any, those of pods. What
/// differs in hops only is one.
fn ways<'a>(explained: &Explained<'a>) -> Vec<Way<'a>> {
    let client = explained.verdict.client;
    let is_drawn = |way: &&Way<'_>| {
        way.client == client && (client != ClientKind::External || way.door != Door::ClusterIP)
    };
    let mut ways: Vec<Way<'_>> = Vec::new();
    for way in explained.ways.iter().filter(is_drawn) {
        match ways.iter_mut().find(|it| it.differs_in_hops_only(way)) {
            Some(same) => same.take_in(way),
            None => ways.push(way.clone()),
        }
    }
    ways
}

/// As text.
pub(super) fn text(explained: &Explained<'_>, words: &Words) -> String {
    let mut text = format!("{}\n", sentences::heading(explained, words));
    for way in ways(explained) {
        let _ = writeln!(text, "\n  {}", title(&way));
        let widest = way
            .stages
            .iter()
            .map(|stage| name(stage, words).chars().count());
        let width = widest.max().unwrap_or_default();
        for (place, stage) in way.stages.iter().enumerate() {
            if place > 0 {
                text.push_str("    │\n");
            }
            let _ = writeln!(
                text,
                "    {:width$}  {}",
                name(stage, words),
                after(&way, stage, words)
            );
        }
        if way.seen.is_none() {
            let _ = writeln!(text, "    ✗ {}", sentences::outcome(&way));
        }
    }
    text
}

/// `LoadBalancer, external, node1`.
fn title(way: &Way<'_>) -> String {
    let mut parts = vec![way.by.clone().unwrap_or_else(|| format!("{:?}", way.door))];
    if let Some(port) = way.to_port {
        parts.push(format!("{} {port}", way.entry.protocol));
    }
    parts.push(super::super::word(&way.client));
    if let [node] = &*way.nodes {
        parts.push(node.to_string());
    }
    clean(&parts.join(", "))
}

fn name(stage: &Stage, words: &Words) -> String {
    let kind = words.say(&format!("stage-{}", stage.kind), &[]);
    let named = format!("system-{}", stage.who);
    match stage.kind {
        StageKind::Client | StageKind::Pod => kind,
        _ if words.has(&named) => words.say(&named, &[]),
        _ if stage.who == stage.kind.to_string() => kind,
        _ => format!("{kind} {}", clean(&stage.who)),
    }
}

/// How things are after a stage.
fn after(way: &Way<'_>, stage: &Stage, words: &Words) -> String {
    let mut text = words.say(&format!("seen-{}", stage.source), &[]);
    if let Some(by) = stage.changed_by {
        let _ = write!(text, "  ✗ {}", words.say(&format!("lost-by-{by}"), &[]));
    }
    let is_lost = stage.source != crate::verdict::chain::Seen::Client;
    if is_lost && !stage.recoverable.is_empty() {
        let _ = write!(
            text,
            "  ({})",
            sentences::carriers(&stage.recoverable, words)
        );
    }
    if stage.kind == StageKind::Node
        && let Some(hops) = stage.hops.as_ref().filter(|hops| *hops.end() > 0)
        && way.seen.is_some()
    {
        let _ = match (hops.start(), hops.end()) {
            (least, most) if least == most => write!(text, "  +{most}"),
            (least, most) => write!(text, "  +{least}…{most}"),
        };
    }
    text
}

/// In Mermaid's language, the part of a flowchart: its ways have numbers from the first on, which
/// comes back for the next Service.
pub(super) fn mermaid(explained: &Explained<'_>, words: &Words, first: &mut usize) -> String {
    let ways = ways(explained);
    if ways.is_empty() {
        return String::new();
    }
    let heading = quoted(&sentences::heading(explained, words));
    let mut text = format!("  subgraph s{first}[\"{heading}\"]\n");
    for way in ways {
        subgraph(&way, *first, words, &mut text);
        *first += 1;
    }
    text.push_str("  end\n");
    text
}

fn subgraph(way: &Way<'_>, number: usize, words: &Words, text: &mut String) {
    let _ = writeln!(text, "    subgraph w{number}[\"{}\"]", quoted(&title(way)));
    let mut before: Option<&Stage> = None;
    for (place, stage) in way.stages.iter().enumerate() {
        let label = quoted(&name(stage, words));
        let node = format!("w{number}s{place}[\"{label}\"]");
        match before {
            None => {
                let _ = writeln!(text, "      {node}");
            }
            Some(last) => {
                let edge = quoted(&after(way, last, words));
                let _ = writeln!(text, "      w{number}s{} -->|\"{edge}\"| {node}", place - 1);
            }
        }
        before = Some(stage);
    }
    if way.seen.is_none() {
        let last = way.stages.len().saturating_sub(1);
        let outcome = quoted(&sentences::outcome(way));
        let _ = writeln!(text, "      w{number}s{last} --x w{number}x[\"{outcome}\"]");
    }
    text.push_str("    end\n");
}

/// No character of a name is Mermaid's, whose directives begin with `%%{` wherever they are.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '"' | '<' | '>' | '#' | '&' | ';' | '`' | '%' => {
                let _ = write!(quoted, "#{};", u32::from(character));
            }
            _ if character.is_control() => {}
            _ => quoted.push(character),
        }
    }
    quoted
}
