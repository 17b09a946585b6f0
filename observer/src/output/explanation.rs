//! What will happen at Services' front doors: as tables for people, as JSON, as Markdown, and as
//! pictures of the way.

mod diagram;
mod json;
mod markdown;
mod sentences;
mod table;

pub use diagram::{Picture, diagram};
pub use json::{SCHEMA, json};
pub use markdown::markdown;
pub use table::table;

use crate::cluster::facts::Facts;
use crate::verdict::chain::{Explained, Way};
use crate::words::Words;

/// What is explained, and what that rests on.
#[derive(Clone, Copy)]
pub struct Explanation<'a> {
    /// The Services.
    pub services: &'a [Explained<'a>],
    /// What stands around them.
    pub facts: &'a Facts,
    /// Sentences on what was assumed.
    pub assumed: &'a [String],
    /// Of kube-proxy, whether its configuration is known, and its mode.
    pub kube_proxy: Option<&'a str>,
    /// How many objects decide nothing.
    pub others: usize,
    /// Whether ports of nodes that belong to no Service, and what is wrong in general, are told.
    pub whole: bool,
    /// The language.
    pub words: &'a Words,
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
        .map(|name| super::paint::clean(name))
        .collect();
    if way.nodes.len() > MOST {
        names.push(words.count("label-and-others", "count", way.nodes.len() - MOST, &[]));
    }
    names.join("\n")
}

/// `0`, `0 to 1`, or `-` if it is not known.
fn hops(way: &Way<'_>) -> String {
    way.extra_hops.as_ref().map_or_else(
        || "-".to_owned(),
        |hops| match (hops.start(), hops.end()) {
            (least, most) if least == most => least.to_string(),
            (least, most) => format!("{least} to {most}"),
        },
    )
}
