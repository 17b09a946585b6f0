//! kube-proxy on this node: which mode it says it is in, whose rules are there, and whether the
//! two agree.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde::Serialize;

use super::super::ask::METRICS_ADDRESS;
use super::facts::{Facts, Seen};
use super::report::Check;
use crate::cluster::{IPVS_DEVICE, ProxyMode};

const NAME: &str = "kube-proxy";

/// Whether the tables of `iptables-legacy`, which nftables does not list, have kube-proxy's chain,
/// and whether they exempt packets from tracking.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct LegacyRules {
    pub(super) kube_services: Seen<bool>,
    pub(super) notrack: Seen<bool>,
}

/// Looks into the legacy tables of both families. They are listed in `/proc` once somebody uses
/// them; only then is `iptables-legacy-save` run, because that would create them.
pub(super) fn legacy_rules() -> LegacyRules {
    let mut rules = LegacyRules {
        kube_services: Ok(false),
        notrack: Ok(false),
    };
    for (list, tool) in [
        ("/proc/net/ip_tables_names", "iptables-legacy-save"),
        ("/proc/net/ip6_tables_names", "ip6tables-legacy-save"),
    ] {
        for (table, found) in [
            ("nat", &mut rules.kube_services),
            ("raw", &mut rules.notrack),
        ] {
            match saved(Path::new(list), tool, table) {
                Ok(text) if found.is_ok() => {
                    let is_there = match table {
                        "nat" => text.lines().any(|line| line.starts_with(":KUBE-SERVICES ")),
                        _ => text.contains("-j NOTRACK") || text.contains("--notrack"),
                    };
                    *found = found.clone().map(|before| before || is_there);
                }
                Ok(_) => {}
                Err(error) => *found = Err(error),
            }
        }
    }
    rules
}

/// A legacy table as text; nothing if nobody uses it.
fn saved(list: &Path, tool: &str, table: &str) -> Seen<String> {
    let used = match fs::read_to_string(list) {
        Ok(used) => used,
        // The kernel has no such tables.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(String::new()),
        Err(error) => return Err(format!("{}: {error}", list.display())),
    };
    if !used.lines().any(|used| used == table) {
        return Ok(String::new());
    }
    let output = Command::new(tool)
        .args(["-t", table])
        .output()
        .map_err(|error| format!("{tool}: {error}"))?;
    if !output.status.success() {
        return Err(format!("{tool} ended with {}", output.status));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether kube-proxy is here, in which mode, and whether its rules are.
pub(super) fn check(facts: &Facts) -> Check {
    let rules = match &facts.rules {
        Ok(rules) => rules,
        Err(error) => {
            return Check::unseen(
                NAME,
                match &facts.proxy_mode {
                    Ok(mode) => format!("it says it is in {mode} mode; {error}"),
                    Err(_) => error.clone(),
                },
            )
            .means("whether its rules are here is not known")
            .remedy("run it as root (sudo)");
        }
    };
    let has_ipvs_device = facts.interfaces.as_ref().is_ok_and(|interfaces| {
        interfaces
            .iter()
            .any(|interface| interface.name == IPVS_DEVICE)
    });
    let has_chains =
        !rules.kube_services_chains.is_empty() || facts.legacy_rules.kube_services == Ok(true);
    let mut found = Vec::new();
    if !rules.kube_proxy_tables.is_empty() {
        found.push(ProxyMode::Nftables);
    }
    // IPVS mode has chains in the table nat too.
    if has_ipvs_device {
        found.push(ProxyMode::Ipvs);
    } else if has_chains {
        found.push(ProxyMode::Iptables);
    }
    agreement(
        facts.proxy_mode.as_deref().map_err(String::as_str),
        &found,
        facts.legacy_rules.kube_services.as_ref().err(),
    )
}

fn agreement(said: Result<&str, &str>, found: &[ProxyMode], unseen: Option<&String>) -> Check {
    let modes: Vec<_> = found.iter().map(|mode| mode.word()).collect();
    match (said, found) {
        (Ok(said), [mode]) if mode.word() == said => {
            Check::ok(NAME, format!("{said} mode, and its rules are here"))
        }
        (Err(_), [mode]) => Check::ok(
            NAME,
            format!(
                "rules of its {} mode are here; it did not answer at {METRICS_ADDRESS}",
                mode.word()
            ),
        ),
        (Ok(said), []) => Check::warning(
            NAME,
            match unseen {
                Some(error) => {
                    format!("it says it is in {said} mode, and its rules were not found; {error}")
                }
                None => format!("it says it is in {said} mode, and its rules are not here"),
            },
        )
        .means("either this is not its network namespace, or it has programmed nothing yet")
        .remedy("run in the node's own network namespace: in a pod, with hostNetwork: true"),
        (Err(_), []) => Check::warning(
            NAME,
            match unseen {
                Some(error) => format!("no rules of it were found; {error}"),
                None => "no rules of it are here, and it does not answer".to_owned(),
            },
        )
        .means("nothing here rewrites what goes to a Service, or something else does")
        .remedy(
            "run in the node's own network namespace (in a pod, with hostNetwork: true); if \
             another dataplane serves the Services, see below",
        ),
        (said, _) => {
            let modes = modes.join(" and ");
            Check::warning(
                NAME,
                match said {
                    Ok(said) => {
                        format!("it says it is in {said} mode, and rules of {modes} are here")
                    }
                    Err(_) => format!("rules of several of its modes are here: {modes}"),
                },
            )
            .means("old rules may still rewrite connections, and causes name the wrong rule")
            .remedy("remove what is old: `kube-proxy --cleanup`, then restart kube-proxy")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::Status;
    use super::*;

    #[test]
    fn what_it_says_and_what_is_found_are_held_together() {
        let status = |said, found: &[ProxyMode]| agreement(said, found, None).status;
        let silent = Err("refused");
        assert_eq!(status(Ok("nftables"), &[ProxyMode::Nftables]), Status::Ok);
        assert_eq!(status(silent, &[ProxyMode::Iptables]), Status::Ok);
        assert_eq!(status(Ok("iptables"), &[]), Status::Warning);
        assert_eq!(status(silent, &[]), Status::Warning);
        assert_eq!(
            status(Ok("nftables"), &[ProxyMode::Nftables, ProxyMode::Iptables]),
            Status::Warning
        );
        // One mode's rules, and it says another's: those are old.
        let other = agreement(Ok("nftables"), &[ProxyMode::Iptables], None);
        assert_eq!(other.status, Status::Warning);
    }
}
