//! The nftables mode, in the layout of 1.36.

use anyhow::Result;

use super::Family;
use crate::{command, netns::Namespace};

mod names;
mod render;
mod ruleset;

pub use render::render;
pub use ruleset::{Element, Kind, Object, Ruleset, differences};

/// The table of kube-proxy, one in each family.
const TABLE: &str = "kube-proxy";

/// Replaces the table of a namespace.
pub fn load(node: &Namespace, rules: &Ruleset) -> Result<()> {
    let table = format!("table {} {TABLE}", word(rules.family()));
    // In one transaction; what is deleted must be there.
    let script = format!("add {table}\ndelete {table}\n{rules}");
    command::run_with_input(node.command("nft").args(["-f", "-"]), &script)?;
    Ok(())
}

/// The table of a namespace as the kernel has it.
pub fn list(node: &Namespace, family: Family) -> Result<Ruleset> {
    let text = command::run(
        node.command("nft")
            .args(["list", "table", word(family), TABLE]),
    )?;
    Ruleset::parse(&text, family)
}

/// A family in the words of nft.
fn word(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}
