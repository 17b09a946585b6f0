//! What moves packets past connection tracking, so that verdicts stop there.

use super::facts::Facts;
use super::report::Check;

/// How a dataplane is known.
struct Dataplane {
    name: &'static str,
    /// The beginnings of its interfaces' names.
    interfaces: &'static [&'static str],
    /// The beginnings of its programs' names.
    programs: &'static [&'static str],
    means: &'static str,
}

const DATAPLANES: [Dataplane; 3] = [
    Dataplane {
        name: "Cilium",
        interfaces: &["cilium_host", "cilium_net"],
        programs: &["cil_"],
        means: "where it replaces kube-proxy, its BPF programs choose backends and rewrite \
                addresses past conntrack: such connections are not reported, or without their \
                rewrite",
    },
    Dataplane {
        name: "Calico's eBPF dataplane",
        interfaces: &["bpfin.cali", "bpfout.cali"],
        programs: &["cali_", "calico_"],
        means: "its BPF programs choose backends past conntrack: such connections are not \
                reported, or without their rewrite",
    },
    Dataplane {
        name: "Open vSwitch (OVN-Kubernetes, Kube-OVN, Antrea)",
        interfaces: &["ovs-system", "ovn-k8s-", "antrea-gw"],
        programs: &[],
        means: "Services may be served inside the switch, where no interface is observed: \
                verdicts end at its ports",
    },
];

/// What was found of each; one line that says so if there is nothing.
pub(super) fn checks(facts: &Facts) -> Vec<Check> {
    let mut checks = Vec::new();
    for dataplane in &DATAPLANES {
        let Dataplane {
            name,
            interfaces,
            programs,
            means,
        } = dataplane;
        let begins = |name: &str, with: &[&str]| with.iter().any(|start| name.starts_with(start));
        let links = facts.interfaces.iter().flatten();
        let link = links
            .map(|interface| &interface.name)
            .find(|name| begins(name, interfaces));
        let program = facts
            .all_programs
            .iter()
            .flatten()
            .find(|name| begins(name, programs));
        let sign = match (link, program) {
            (Some(link), _) => format!("interface {link}"),
            (None, Some(program)) => format!("BPF program {program}"),
            (None, None) => continue,
        };
        checks.push(
            Check::warning("dataplane", format!("{name} ({sign})"))
                .means(*means)
                .remedy("look at its own flow log for what is missing here"),
        );
    }
    checks.extend(past_tracking(facts));
    if checks.is_empty() {
        let check = if facts.all_programs.is_err() || facts.rules.is_err() {
            Check::unseen(
                "dataplane",
                "no interface of one that bypasses conntrack; BPF programs or rules could not be \
                 listed",
            )
            .remedy("run it as root (sudo); in a container that takes CAP_SYS_ADMIN beside")
        } else {
            Check::ok("dataplane", "nothing that bypasses conntrack was found")
        };
        checks.push(check);
    }
    checks
}

/// Rules that keep packets from conntrack, and tables that pass them by it.
fn past_tracking(facts: &Facts) -> Vec<Check> {
    let mut checks = Vec::new();
    let rules = facts.rules.as_ref().ok();
    let mut places: Vec<_> = rules
        .into_iter()
        .flat_map(|rules| rules.notrack.iter().cloned())
        .collect();
    if facts.legacy_rules.notrack == Ok(true) {
        places.push("the legacy table raw".to_owned());
    }
    if !places.is_empty() {
        checks.push(
            Check::warning("NOTRACK", format!("rules in {}", places.join(", ")))
                .means(
                    "what they match is not tracked: no rewrite of it can be followed, and drops \
                     cannot be told from silence",
                )
                .remedy(
                    "nothing, if they match tunnels or NodeLocal DNS alone; `nft list ruleset` or \
                     `iptables-save -t raw` shows",
                ),
        );
    }
    for flowtable in rules.into_iter().flat_map(|rules| &rules.flowtables) {
        let found = format!("flowtable {}", flowtable.name);
        checks.push(if flowtable.in_hardware {
            Check::warning("offload", format!("{found}, in hardware"))
                .means(
                    "the first packets of a connection are seen, so verdicts hold; those that \
                     follow never reach the kernel",
                )
                .remedy("nothing, unless bytes and ends of connections matter")
        } else {
            Check::ok("offload", found).means(
                "established connections pass the rules by; opening packets do not, so verdicts \
                 hold",
            )
        });
    }
    checks
}
