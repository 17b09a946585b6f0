//! What will happen at Services' front doors: as tables for people, as JSON, as Markdown, and as
//! pictures of the way. A Service at a time, since a cluster has many.

mod diagram;
mod json;
mod markdown;
mod sentences;
mod table;

use std::collections::BTreeSet;

pub use diagram::Picture;
pub use json::SCHEMA;

use super::paint::{Page, clean};
use crate::cluster::facts::Facts;
use crate::verdict::advice::ChangeCode;
use crate::verdict::chain::{Explained, Way};
use crate::words::Words;

/// How explanations are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// As tables, on a page.
    Table(Page),
    /// As one document, `observer.explanation/v1`.
    Json,
    /// As Markdown.
    Markdown,
    /// As pictures.
    Diagram(Picture),
}

/// What explanations rest on, besides the Services.
#[derive(Clone, Copy)]
pub struct Ground<'a> {
    /// What stands around the Services.
    pub facts: &'a Facts,
    /// Sentences on what was assumed.
    pub assumed: &'a [String],
    /// kube-proxy's mode, if its configuration is known.
    pub kube_proxy: Option<&'a str>,
    /// How many objects decide nothing.
    pub others: usize,
    /// Whether ports of nodes that belong to no Service, and what is wrong in general, are told.
    pub whole: bool,
}

/// Writes explanations: [`Writer::head`], a [`Writer::service`] for each, [`Writer::tail`].
pub struct Writer<'a> {
    style: Style,
    ground: Ground<'a>,
    words: &'a Words,
    is_first: bool,
    /// What was advised, to say once what it costs.
    advised: BTreeSet<ChangeCode>,
    /// How many ways were drawn.
    drawn: usize,
}

impl<'a> Writer<'a> {
    /// Has written nothing yet.
    pub const fn new(style: Style, ground: Ground<'a>, words: &'a Words) -> Self {
        Self {
            style,
            ground,
            words,
            is_first: true,
            advised: BTreeSet::new(),
            drawn: 0,
        }
    }

    /// What comes first.
    pub fn head(&self) -> String {
        match self.style {
            Style::Json => json::head(self.ground),
            Style::Diagram(Picture::Mermaid) => "flowchart LR\n".to_owned(),
            Style::Table(_) | Style::Markdown | Style::Diagram(Picture::Text) => String::new(),
        }
    }

    /// A Service.
    pub fn service(&mut self, explained: &Explained<'_>) -> String {
        let words = self.words;
        self.advised
            .extend(explained.advice.iter().map(|change| change.code));
        let text = match self.style {
            Style::Table(page) => table::service(explained, words, page),
            Style::Json => json::service(explained, words),
            Style::Markdown => markdown::service(explained, words),
            Style::Diagram(Picture::Text) => diagram::text(explained, words),
            Style::Diagram(Picture::Mermaid) => diagram::mermaid(explained, words, &mut self.drawn),
        };
        let between = match (std::mem::take(&mut self.is_first), self.style) {
            (true, _) | (false, Style::Diagram(Picture::Mermaid)) => "",
            (false, Style::Json) => ",",
            (false, Style::Table(_) | Style::Markdown | Style::Diagram(Picture::Text)) => "\n",
        };
        format!("{between}{text}")
    }

    /// What comes last.
    pub fn tail(&self) -> String {
        match self.style {
            Style::Json => json::tail(self.ground, self.words),
            Style::Table(page) => {
                let blocks = table::tail(self.ground, &self.advised, self.words, page);
                let blocks = blocks.iter().map(|block| format!("\n{block}"));
                blocks.collect()
            }
            Style::Markdown => markdown::tail(self.ground, self.words),
            Style::Diagram(_) => String::new(),
        }
    }
}

/// Nodes in a cell: not more than a reader takes in.
fn nodes(way: &Way<'_>, all: usize, words: &Words) -> String {
    const MOST: usize = 4;
    if way.nodes.is_empty() {
        return "-".to_owned();
    }
    if all > 1 && way.nodes.len() == all {
        return words.say("label-every", &[]);
    }
    let mut names: Vec<_> = way
        .nodes
        .iter()
        .take(MOST)
        .map(|name| clean(name))
        .collect();
    if way.nodes.len() > MOST {
        names.push(words.count("label-and-others", "count", way.nodes.len() - MOST, &[]));
    }
    names.join("\n")
}

/// `0`, `0 to 1`, or `-` if it is not known.
fn hops(way: &Way<'_>, words: &Words) -> String {
    way.extra_hops.as_ref().map_or_else(
        || "-".to_owned(),
        |hops| match (hops.start(), hops.end()) {
            (least, most) if least == most => least.to_string(),
            (least, most) => {
                let (least, most) = (least.to_string(), most.to_string());
                words.say("label-range", &[("least", &least), ("most", &most)])
            }
        },
    )
}
