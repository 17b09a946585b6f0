//! The kernel's NAT as a load balancer that keeps the client's address.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};

use super::Passage;
use crate::{command, netns::Namespace};

/// Makes a namespace pass on what comes to it, and translate the answers back: they must come this
/// way. No other address is replaced than that of the destination.
pub fn forward(namespace: &Namespace, passages: &[Passage]) -> Result<()> {
    let forwarding = [
        ("ipv4/ip_forward", "1"),
        ("ipv6/conf/all/forwarding", "1"),
        // All are on one link here, and would be told of a shorter way.
        ("ipv4/conf/all/send_redirects", "0"),
        ("ipv4/conf/default/send_redirects", "0"),
        ("ipv4/conf/eth0/send_redirects", "0"),
        ("ipv4/conf/all/rp_filter", "0"),
    ];
    namespace.set_parameters(&forwarding)?;
    let mut rules = "table inet front {\nchain prerouting {\n\
                     type nat hook prerouting priority dstnat;\n"
        .to_owned();
    for Passage { at, to } in passages {
        let family = if at.is_ipv4() { "ip" } else { "ip6" };
        let (address, port) = (at.ip(), at.port());
        writeln!(
            rules,
            "{family} daddr {address} tcp dport {port} dnat {family} to {to}"
        )
        .context("writing to a string")?;
    }
    rules.push_str("}\n}\n");
    command::run_with_input(namespace.command("nft").args(["-f", "-"]), &rules).map(drop)
}
