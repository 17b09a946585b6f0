//! Rules as text: what iptables-restore takes and iptables-save gives, chain by chain.

use std::{collections::BTreeMap, fmt, str::FromStr};

use anyhow::{Context as _, Result, bail};

/// Tables by name, each with its chains by name, each with its rules in order. A rule is what
/// follows `-A CHAIN` in iptables-save.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ruleset {
    tables: BTreeMap<String, BTreeMap<String, Vec<String>>>,
}

impl Ruleset {
    /// Makes a chain exist, with or without rules.
    pub fn declare(&mut self, table: &str, chain: &str) {
        self.rules(table, chain);
    }

    /// Appends a rule to a chain, which then exists.
    pub fn append(&mut self, table: &str, chain: &str, rule: impl Into<String>) {
        self.rules(table, chain).push(rule.into());
    }

    /// The rules of a chain, to be changed.
    pub fn rules(&mut self, table: &str, chain: &str) -> &mut Vec<String> {
        self.tables
            .entry(table.to_owned())
            .or_default()
            .entry(chain.to_owned())
            .or_default()
    }

    /// Every chain: its table, its name, its rules.
    pub fn chains(&self) -> impl Iterator<Item = (&str, &str, &[String])> {
        self.tables.iter().flat_map(|(table, chains)| {
            chains
                .iter()
                .map(move |(chain, rules)| (table.as_str(), chain.as_str(), rules.as_slice()))
        })
    }
}

/// The input of iptables-restore.
impl fmt::Display for Ruleset {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (table, chains) in &self.tables {
            writeln!(formatter, "*{table}")?;
            for chain in chains.keys() {
                let policy = if is_built_in(chain) { "ACCEPT" } else { "-" };
                writeln!(formatter, ":{chain} {policy} [0:0]")?;
            }
            for (chain, rules) in chains {
                for rule in rules {
                    writeln!(formatter, "-A {chain} {rule}")?;
                }
            }
            writeln!(formatter, "COMMIT")?;
        }
        Ok(())
    }
}

/// The output of iptables-save.
impl FromStr for Ruleset {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut rules = Self::default();
        let mut table = None;
        for line in text.lines() {
            if let Some(name) = line.strip_prefix('*') {
                table = Some(name);
                continue;
            }
            if line.is_empty() || line == "COMMIT" || line.starts_with('#') {
                continue;
            }
            let table = table.with_context(|| format!("{line:?} stands outside of every table"))?;
            if let Some(declaration) = line.strip_prefix(':') {
                rules.declare(
                    table,
                    declaration.split_whitespace().next().unwrap_or_default(),
                );
            } else if let Some((chain, rule)) = line
                .strip_prefix("-A ")
                .and_then(|line| line.split_once(' '))
            {
                rules.append(table, chain, rule);
            } else {
                bail!("{line:?} is neither a chain nor a rule");
            }
        }
        Ok(rules)
    }
}

/// What differs between what we have and what was recorded, chain by chain, rule by rule.
///
/// kube-proxy walks its Services in no order, so in the chains that hold rules of many of them
/// only the order among the rules of one Service counts, and which rule is last.
pub fn differences(ours: &Ruleset, recorded: &Ruleset) -> Vec<String> {
    let collect = |rules: &Ruleset| -> BTreeMap<(String, String), Vec<String>> {
        let chains = rules.chains();
        chains
            .map(|(table, chain, rules)| ((table.to_owned(), chain.to_owned()), rules.to_vec()))
            .collect()
    };
    let (mut ours, recorded) = (collect(ours), collect(recorded));
    let mut found = Vec::new();
    for ((table, chain), recorded) in recorded {
        match ours.remove(&(table.clone(), chain.clone())) {
            None => found.push(format!("{table} {chain}: the chain is missing")),
            Some(ours) => found.extend(
                chain_differences(&chain, ours, recorded)
                    .map(|difference| format!("{table} {chain}: {difference}")),
            ),
        }
    }
    found.extend(
        ours.into_keys()
            .map(|(table, chain)| format!("{table} {chain}: the chain is not in the recording")),
    );
    found
}

fn chain_differences(
    chain: &str,
    mut ours: Vec<String>,
    mut recorded: Vec<String>,
) -> impl Iterator<Item = String> {
    let mut found = Vec::new();
    if is_of_many_services(chain) {
        if service_of(recorded.last()).is_none() && ours.last() != recorded.last() {
            found.push(format!(
                "the last rule\n    is  {:?}\n    not {:?}",
                ours.last(),
                recorded.last()
            ));
        }
        for rules in [&mut ours, &mut recorded] {
            rules.sort_by_key(|rule| service_of(Some(rule)).map(str::to_owned));
        }
    }
    for number in 0..ours.len().max(recorded.len()) {
        let (ours, recorded) = (ours.get(number), recorded.get(number));
        if ours != recorded {
            let show = |rule: Option<&String>| rule.map_or("(none)", String::as_str).to_owned();
            found.push(format!(
                "rule {}\n    is  {}\n    not {}",
                number + 1,
                show(ours),
                show(recorded)
            ));
        }
    }
    found.into_iter()
}

/// The Service that a rule's comment begins with, if it does.
fn service_of(rule: Option<&String>) -> Option<&str> {
    let comment = rule?.split_once("--comment \"")?.1;
    let word = comment.split([' ', '"']).next()?;
    word.contains('/').then_some(word)
}

fn is_of_many_services(chain: &str) -> bool {
    [
        "KUBE-SERVICES",
        "KUBE-EXTERNAL-SERVICES",
        "KUBE-NODEPORTS",
        "KUBE-PROXY-FIREWALL",
    ]
    .contains(&chain)
}

fn is_built_in(chain: &str) -> bool {
    ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"].contains(&chain)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAVED: &str = "# Generated by iptables-save\n*nat\n:OUTPUT ACCEPT [3:180]\n:KUBE-SERVICES - [0:0]\n\
        -A OUTPUT -j KUBE-SERVICES\n\
        -A KUBE-SERVICES -d 10.96.0.2/32 -m comment --comment \"shop/b:http cluster IP\" -j KUBE-SVC-B\n\
        -A KUBE-SERVICES -d 10.96.0.1/32 -m comment --comment \"shop/a:http cluster IP\" -j KUBE-SVC-A\n\
        -A KUBE-SERVICES -m comment --comment \"kubernetes service nodeports\" -j KUBE-NODEPORTS\nCOMMIT\n";

    fn saved() -> Ruleset {
        SAVED.parse().expect("parses")
    }

    #[test]
    fn what_is_written_reads_back_the_same() {
        assert_eq!(
            saved().to_string().parse::<Ruleset>().expect("parses"),
            saved()
        );
    }

    #[test]
    fn the_order_of_services_is_free_and_the_last_rule_is_not() {
        let mut ours = saved();
        ours.rules("nat", "KUBE-SERVICES").swap(0, 1);
        assert_eq!(differences(&ours, &saved()), [] as [String; 0]);
        ours.rules("nat", "KUBE-SERVICES").swap(1, 2);
        assert_eq!(
            differences(&ours, &saved()).len(),
            1,
            "{:?}",
            differences(&ours, &saved())
        );
    }

    #[test]
    fn every_kind_of_difference_is_found() {
        let change: [fn(&mut Ruleset); 4] = [
            |rules| rules.declare("nat", "KUBE-SVC-C"),
            |rules| rules.rules("nat", "OUTPUT").clear(),
            |rules| rules.append("nat", "OUTPUT", "-j ACCEPT"),
            |rules| rules.rules("nat", "KUBE-SERVICES")[0] = "-j ACCEPT".to_owned(),
        ];
        for (number, change) in change.into_iter().enumerate() {
            let mut ours = saved();
            change(&mut ours);
            assert!(!differences(&ours, &saved()).is_empty(), "change {number}");
            assert!(
                !differences(&saved(), &ours).is_empty(),
                "change {number}, the other way"
            );
        }
    }

    #[test]
    fn what_is_no_rule_set_is_refused() {
        for text in ["-A OUTPUT -j ACCEPT", "*nat\nnonsense"] {
            text.parse::<Ruleset>().expect_err(text);
        }
    }
}
