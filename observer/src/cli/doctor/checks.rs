//! From what was seen to how it stands: a pure function.

use std::collections::BTreeMap;

use super::facts::{Btf, Facts, Interface};
use super::report::Check;
use super::{cluster, dataplanes, kube_proxy};
use crate::kernel::capabilities::NEEDED;

/// The oldest kernel that the programs load on.
const KERNEL_MIN: (u32, u32) = (5, 10);
/// How many interfaces a line names.
const NAMES_SHOWN: usize = 8;
/// From this share on conntrack's table counts as nearly full, in percent.
const NEARLY_FULL: u64 = 80;
/// So much of a long error, as the verifier's log is.
const ERROR_MAX: usize = 300;
const AS_ROOT: &str = "run it as root (sudo)";

/// Every check, in the order in which things depend on each other.
pub(super) fn all(facts: &Facts) -> Vec<Check> {
    let mut checks = vec![kernel(facts), btf(facts), capabilities(facts)];
    checks.extend(lockdown(facts));
    checks.extend([programs(facts), hook(facts)]);
    checks.extend([drop_reasons(facts), first_bytes(facts)]);
    checks.extend(conntrack(facts));
    checks.extend(interfaces(facts));
    checks.push(kube_proxy::check(facts));
    checks.extend(dataplanes::checks(facts));
    checks.extend(cluster::checks(&facts.cluster));
    checks.extend(node(facts));
    checks
}

fn kernel(facts: &Facts) -> Check {
    let environment = &facts.environment;
    let found = format!("Linux {} on {}", environment.release, environment.machine);
    let (major, minor) = KERNEL_MIN;
    match environment.version() {
        Some(version) if version < KERNEL_MIN => Check::missing("kernel", found)
            .means(format!(
                "the programs need {major}.{minor}: older kernels have no ring buffer or refuse \
                 them"
            ))
            .remedy(format!("boot a kernel of {major}.{minor} or later")),
        Some(_) => Check::ok("kernel", found),
        None => Check::unseen("kernel", found).means("its version is not known"),
    }
}

fn btf(facts: &Facts) -> Check {
    match &facts.btf {
        Btf::Known(_) => Check::ok("BTF", "tells where conntrack keeps its entries"),
        Btf::Unknown(why) => Check::warning("BTF", why.clone())
            .means("no rewrite can be followed, until that is known"),
        Btf::None(why) => {
            Check::missing("BTF", why.clone()).means("conntrack's entries cannot be read")
        }
    }
}

fn capabilities(facts: &Facts) -> Check {
    const NAME: &str = "capabilities";
    let missing = match &facts.missing_capabilities {
        Ok(missing) => missing,
        Err(error) => return Check::unseen(NAME, error.clone()),
    };
    if missing.is_empty() && facts.environment.in_first_user_namespace == Some(false) {
        return Check::missing(NAME, "those of a user namespace of its own")
            .means("the kernel does not let such a process load BPF programs")
            .remedy("run it outside: not in a rootless container or by `unshare --user`");
    }
    if missing.is_empty() {
        return Check::ok(NAME, "all that observing needs are in force");
    }
    let needs: Vec<_> = NEEDED
        .iter()
        .filter_map(|(capability, what_for)| {
            let name = capability.to_string();
            missing
                .contains(&name)
                .then(|| format!("{name} is needed {what_for}"))
        })
        .collect();
    Check::missing(NAME, format!("without {}", missing.join(", ")))
        .means(needs.join("; "))
        .remedy(format!(
            "{AS_ROOT}, or give the container {}",
            missing.join(", ")
        ))
}

/// Only if it bears on anything.
fn lockdown(facts: &Facts) -> Option<Check> {
    let lockdown = facts.environment.lockdown.as_deref()?;
    (lockdown == "confidentiality").then(|| {
        Check::missing("lockdown", "the kernel is locked down for confidentiality")
            .means("no BPF program may read kernel memory, so conntrack's entries stay hidden")
            .remedy("boot with lockdown=integrity, or without")
    })
}

fn programs(facts: &Facts) -> Check {
    const NAME: &str = "programs";
    match &facts.programs {
        Some(Ok(memory)) => {
            let taken = memory.map_or_else(String::new, |memory| {
                format!(
                    "; their maps take {} of its memory: {} what is pending, {} UDP flows, {} the \
                     ring buffer",
                    mebibytes(memory.all),
                    mebibytes(memory.pending),
                    mebibytes(memory.udp_flows),
                    mebibytes(memory.ring_buffer)
                )
            });
            Check::ok(
                NAME,
                format!("the kernel takes them (loaded, attached to nothing{taken})"),
            )
        }
        Some(Err(why)) => Check::missing(NAME, shortened(why))
            .means("the kernel refuses the programs")
            .remedy(
                "in a container, allow the system call bpf in its seccomp profile; else report \
                 it, with what --bundle writes",
            ),
        None => Check::unseen(NAME, "not tried, for lack of capabilities").remedy(AS_ROOT),
    }
}

/// With one digit after the point.
fn mebibytes(bytes: u64) -> String {
    let tenths = bytes.saturating_mul(10) >> 20;
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}

fn hook(facts: &Facts) -> Check {
    const NAME: &str = "hook";
    match &facts.tcx {
        Some(Ok(true)) => Check::ok(NAME, "TCX"),
        Some(Ok(false)) => Check::ok(NAME, "clsact")
            .means("this kernel has no TCX (Linux 6.6); filters are removed at the end"),
        Some(Err(why)) => Check::warning(NAME, shortened(why)).means("clsact will be tried"),
        None => Check::unseen(NAME, "not asked for, for lack of capabilities").remedy(AS_ROOT),
    }
}

fn drop_reasons(facts: &Facts) -> Check {
    const NAME: &str = "drop reasons";
    match &facts.drop_reasons {
        Some(Ok(())) => Check::ok(NAME, "the kernel says why it drops a packet"),
        Some(Err(why)) => Check::ok(NAME, "none").means(format!(
            "{}; outcomes are told without them",
            shortened(why)
        )),
        None => Check::unseen(NAME, "not asked for, for lack of capabilities").remedy(AS_ROOT),
    }
}

/// Whether whom a proxy speaks for can be looked for, and what that costs (`cargo test -p observer
/// --lib cost`).
fn first_bytes(facts: &Facts) -> Check {
    const NAME: &str = "first bytes";
    match &facts.first_bytes {
        Some(Ok(_)) => Check::ok(NAME, "not read unless asked for: --payload known, or on").means(
            "that costs 2 to 5 ns a segment of an established connection, 0.15 µs one of a \
             connection opened seconds ago",
        ),
        Some(Err(why)) => Check::ok(NAME, "cannot be read").means(format!(
            "{}; whom a proxy speaks for is not told",
            shortened(why)
        )),
        None => Check::unseen(NAME, "not tried, for lack of capabilities").remedy(AS_ROOT),
    }
}

fn conntrack(facts: &Facts) -> Vec<Check> {
    const NAME: &str = "conntrack";
    let (Some(count), Some(max)) = (
        facts.environment.conntrack_count,
        facts.environment.conntrack_max,
    ) else {
        return vec![
            Check::warning(NAME, "not here")
                .means("nothing is tracked, so nothing is rewritten and no connection is reported")
                .remedy("kube-proxy loads nf_conntrack with its first rule: start it first"),
        ];
    };
    let mut checks = Vec::new();
    if max != 0 && count.saturating_mul(100) >= max.saturating_mul(NEARLY_FULL) {
        checks.push(
            Check::warning(NAME, format!("{count} of {max} entries are in use"))
                .means("when it is full, new connections are dropped")
                .remedy("raise net.netfilter.nf_conntrack_max (kube-proxy: conntrack.maxPerCore)"),
        );
    }
    checks.push(match &facts.tracked {
        Err(why) => Check::unseen(NAME, why.clone())
            .means("whether connections are tracked is not known")
            .remedy(AS_ROOT),
        Ok([false, false]) => Check::warning(NAME, "tracks nothing in this network namespace")
            .means("no rule here needs it, so nothing is rewritten")
            .remedy("see whether kube-proxy's rules are here"),
        Ok(tracked) => {
            let families: Vec<_> = [("IPv4", tracked[0]), ("IPv6", tracked[1])]
                .into_iter()
                .filter_map(|(family, tracked)| tracked.then_some(family))
                .collect();
            Check::ok(NAME, format!("tracks {}", families.join(" and ")))
        }
    });
    checks
}

/// A line for each reason, with the interfaces that it holds for.
fn interfaces(facts: &Facts) -> Vec<Check> {
    const NAME: &str = "interfaces";
    let interfaces = match &facts.interfaces {
        Ok(interfaces) => interfaces,
        Err(why) => return vec![Check::missing(NAME, why.clone())],
    };
    let mut reasons = BTreeMap::<_, Vec<_>>::new();
    for interface in interfaces {
        let Interface {
            name,
            observed,
            uplink,
            why,
        } = interface;
        reasons
            .entry((!observed, !uplink, why))
            .or_default()
            .push(name.as_str());
    }
    let mut checks: Vec<_> = reasons
        .into_iter()
        .map(|((unobserved, _, why), names)| {
            let verb = if unobserved {
                "not observed"
            } else {
                "observed"
            };
            Check::ok(NAME, format!("{} {verb}", listed(&names))).means(why.clone())
        })
        .collect();
    if !interfaces.iter().any(|interface| interface.observed) {
        checks.push(
            Check::missing(NAME, "none to observe")
                .means("no interface is up that carries more than this node's own traffic")
                .remedy("choose with `observer trace --interface NAME`"),
        );
    } else if !interfaces.iter().any(|interface| interface.uplink) {
        checks.push(
            Check::warning(NAME, "none is known as an uplink")
                .means(
                    "no interface has a default route or, as far as is known, a Node's address; \
                     clients from outside may come by one that is not observed",
                )
                .remedy(
                    "give --kubeconfig or --cluster-state, so that Node addresses are known, or choose with \
                     `observer trace --interface NAME`",
                ),
        );
    }
    checks
}

fn node(facts: &Facts) -> Option<Check> {
    Some(match facts.node.as_ref()? {
        Ok(()) => Check::ok("node", "the cluster's objects have it"),
        Err(why) => {
            Check::missing("node", why.clone()).means("which endpoints are local cannot be told")
        }
    })
}

/// The first few of `names`: a node may have hundreds.
fn listed(names: &[&str]) -> String {
    match names.get(NAMES_SHOWN..) {
        Some(more @ [_, ..]) => format!(
            "{} and {} more",
            names[..NAMES_SHOWN].join(", "),
            more.len()
        ),
        _ => names.join(", "),
    }
}

/// The beginning of an error on one line: the verifier's log has hundreds.
fn shortened(error: &str) -> String {
    let line = error.lines().next().unwrap_or_default();
    line.chars().take(ERROR_MAX).collect()
}
