//! What is known of each node: how much it told, and what it did not.
//!
//! PURE: what was heard and when goes in, sentences come out.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::{Duration, Instant};

use super::agent::AgentError;
use super::agents::What;
use crate::kubernetes::one_line;
use crate::record::{self, Record};

/// Nodes that are known at a time, those without an agent included.
const NODES_MAX: usize = 1 << 14;
/// How long agents have to answer at the start.
pub const START: Duration = Duration::from_secs(10);
/// Nodes that one line names.
const NAMED_MAX: usize = 8;

/// All nodes that were heard of.
#[derive(Debug)]
pub struct Nodes {
    all: BTreeMap<String, Node>,
    /// Those whose agent is followed.
    followed: HashSet<String>,
    /// Whether what is lost from now on is lost, and not just not there yet.
    has_begun: bool,
    /// The version of this program.
    version: &'static str,
}

/// One of them.
#[derive(Debug, Default)]
struct Node {
    has_agent: bool,
    /// Agents of it that are followed: two while one takes over from another.
    followed: u32,
    records: u64,
    missed: u64,
    unreadable: u64,
    /// Since when it is not followed.
    away_since: Option<Instant>,
    away: Duration,
    /// Why not.
    why: Option<AgentError>,
    /// What was said of it already.
    said: BTreeSet<Topic>,
}

/// What is said of a node once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Topic {
    Followed,
    NoAgent,
    Version,
    Unreadable,
}

impl Nodes {
    /// None yet.
    pub fn new(version: &'static str) -> Self {
        Self {
            all: BTreeMap::new(),
            followed: HashSet::new(),
            has_begun: false,
            version,
        }
    }

    /// Those whose agents are followed.
    pub fn followed(&self) -> &HashSet<String> {
        &self.followed
    }

    /// These nodes have agents, and no others.
    pub fn have_agents(&mut self, names: &[String], now: Instant) {
        for (name, node) in &mut self.all {
            node.has_agent = names.contains(name);
        }
        for name in names {
            if let Some(node) = self.node(name) {
                node.has_agent = true;
                if node.followed == 0 {
                    node.away_since.get_or_insert(now);
                }
            }
        }
    }

    /// Those of all nodes that have no agent; told of once.
    pub fn without_agents(&mut self, all: impl Iterator<Item = String>) -> Vec<String> {
        let mut is_without = |name: &String| {
            let node = self.node(name);
            node.is_some_and(|node| !node.has_agent && node.said.insert(Topic::NoAgent))
        };
        all.filter(|name| is_without(name)).collect()
    }

    /// Whether of every agent is known if it can be followed.
    pub fn are_settled(&self) -> bool {
        let mut agents = self.all.values().filter(|node| node.has_agent);
        agents.all(|node| node.followed > 0 || node.why.is_some())
    }

    /// Begins: the nodes that are followed, and what stands in the way of the others.
    pub fn begin(&mut self, now: Instant) -> (Vec<String>, Vec<(String, AgentError)>) {
        self.has_begun = true;
        let mut followed = Vec::new();
        let mut others = Vec::new();
        for (name, node) in self.all.iter_mut().filter(|(_, node)| node.has_agent) {
            // What was before was not asked for.
            node.away = Duration::ZERO;
            node.away_since = node.away_since.map(|_| now);
            match &node.why {
                None if node.followed > 0 => followed.push(name.clone()),
                Some(why) => others.push((name.clone(), why.clone())),
                None => others.push((name.clone(), AgentError::TimedOut(START))),
            }
        }
        (followed, others)
    }

    /// Takes what was heard of a node's agent, but for records; a line for people, if there is one.
    pub fn heard(&mut self, name: &str, what: &What, now: Instant) -> Option<String> {
        let (has_begun, ours) = (self.has_begun, self.version);
        let node = self.node(name)?;
        let line = match what {
            What::Record(_) => {
                node.records += 1;
                None
            }
            What::Followed { version } => {
                node.has_agent = true;
                node.followed += 1;
                node.why = None;
                let was_away = node.away_since.take().map(|since| now - since);
                node.away += was_away.unwrap_or_default();
                let is_first = node.said.insert(Topic::Followed);
                let back = was_away.filter(|_| has_begun).map(|was_away| {
                    if is_first {
                        format!("{name} is followed, too")
                    } else {
                        format!("{name} is followed again, after {}", seconds(was_away))
                    }
                });
                let is_other = major(version) != major(ours);
                if is_other && node.said.insert(Topic::Version) {
                    Some(format!(
                        "warning: the agent on {name} is of version {version}, and this is {ours}: \
                         they may misunderstand each other"
                    ))
                } else {
                    back
                }
            }
            What::Lost { why, was_followed } => {
                if *was_followed {
                    node.followed = node.followed.saturating_sub(1);
                }
                if node.followed > 0 {
                    // Another agent has taken over.
                    return None;
                }
                let is_news = *was_followed || node.why.is_none();
                node.away_since.get_or_insert(now);
                if let AgentError::CutOff { missed } = why {
                    node.missed += missed;
                }
                node.why = Some(why.clone());
                (is_news && has_begun).then(|| {
                    format!(
                        "warning: {name}: {why}; what it sees is missing until it is followed again"
                    )
                })
            }
            What::Unreadable(error) => {
                node.unreadable += 1;
                node.said.insert(Topic::Unreadable).then(|| {
                    format!(
                        "warning: {name}: a record cannot be read ({error}); its agent may be newer"
                    )
                })
            }
        };
        if node.followed > 0 {
            self.followed.insert(name.to_owned());
        } else {
            self.followed.remove(name);
        }
        line
    }

    /// A node that must have seen a connection and has no agent: once of each.
    pub fn without_agent(&mut self, record: &Record) -> Option<String> {
        let name = one_line(record::node_of_other_half(record)?);
        let node = self.node(&name)?;
        let is_news = !node.has_agent && node.said.insert(Topic::NoAgent);
        is_news.then(|| {
            format!("warning: there is no agent on {name}: what it saw of connections is missing")
        })
    }

    /// A line for each node, at the end.
    pub fn summary(&self, now: Instant) -> Vec<String> {
        let told = self.all.iter().map(|(name, node)| {
            let mut parts = vec![format!("{} records", node.records)];
            if node.missed > 0 {
                parts.push(format!("{} missing, read too slowly", node.missed));
            }
            if node.unreadable > 0 {
                parts.push(format!("{} unreadable", node.unreadable));
            }
            let away = node.away + node.away_since.map_or(Duration::ZERO, |since| now - since);
            if !node.has_agent && node.records == 0 {
                parts = vec!["no agent".to_owned()];
            } else if node.followed == 0 {
                let why = node.why.as_ref().map(|why| format!(": {why}"));
                let why = why.unwrap_or_default();
                parts.push(format!("not followed in the last {}{why}", seconds(away)));
            } else if !away.is_zero() {
                parts.push(format!("not followed for {}", seconds(away)));
            }
            format!("{name}: {}", parts.join("; "))
        });
        told.collect()
    }

    fn node(&mut self, name: &str) -> Option<&mut Node> {
        if !self.all.contains_key(name) && self.all.len() >= NODES_MAX {
            return None;
        }
        Some(self.all.entry(name.to_owned()).or_default())
    }
}

/// The first few of many names.
pub fn listed(names: &[String]) -> String {
    match names.get(NAMED_MAX..) {
        Some(more @ [_, ..]) => {
            format!("{} and {} more", names[..NAMED_MAX].join(", "), more.len())
        }
        _ => names.join(", "),
    }
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

/// What versions must have in common.
fn major(version: &str) -> &str {
    version.split('.').next().unwrap_or_default()
}

#[cfg(test)]
mod tests;
