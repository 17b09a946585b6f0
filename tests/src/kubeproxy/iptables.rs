//! The iptables mode.

use std::process::Command;

use anyhow::{Context as _, Result};

use super::{Backend, Family};
use crate::{command, netns::Namespace};

mod accounting;
mod names;
mod render;
mod ruleset;

pub use render::render;
pub use ruleset::{Ruleset, differences};

/// Replaces the tables of a namespace that `rules` speaks of.
pub fn restore(node: &Namespace, backend: Backend, family: Family, rules: &Ruleset) -> Result<()> {
    node.run(accounting::create)??;
    let mut command = node.command(tool(backend, family, "restore"));
    command::run_with_input(&mut command, &rules.to_string())?;
    Ok(())
}

/// Adds chains and rules to those of a namespace: to its built-in chains behind what they hold.
pub fn add(namespace: &Namespace, backend: Backend, family: Family, rules: &Ruleset) -> Result<()> {
    let mut command = namespace.command(tool(backend, family, "restore"));
    command::run_with_input(command.arg("--noflush"), &rules.to_string())?;
    Ok(())
}

/// The rules of a namespace as the kernel has them.
pub fn save(node: &Namespace, backend: Backend, family: Family) -> Result<Ruleset> {
    let mut command: Command = node.command(tool(backend, family, "save"));
    let text = command::run(&mut command)?;
    text.parse()
        .with_context(|| format!("{command:?} printed what is no rule set"))
}

fn tool(backend: Backend, family: Family, what: &str) -> String {
    let family = match family {
        Family::V4 => "iptables",
        Family::V6 => "ip6tables",
    };
    let backend = match backend {
        Backend::Nft => "nft",
        Backend::Legacy => "legacy",
    };
    format!("{family}-{backend}-{what}")
}
