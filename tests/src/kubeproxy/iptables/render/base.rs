//! The rules that are the same on every node: how packets come to the Services' chains, and
//! what the marks that those set lead to.

use super::{FILTER, Family, NAT, Renderer, host};
use crate::kubeproxy::settings::Served;

/// What stands before the Services.
pub(super) fn before(renderer: &mut Renderer<'_>) {
    canaries(renderer);
    filter(renderer);
    nat(renderer);
}

/// Empty chains whose disappearance tells kube-proxy that someone flushed its rules.
fn canaries(renderer: &mut Renderer<'_>) {
    for table in ["mangle", FILTER, NAT] {
        renderer.rules.declare(table, "KUBE-PROXY-CANARY");
    }
    let built_in = [
        (
            "mangle",
            &["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"][..],
        ),
        (FILTER, &["INPUT", "FORWARD", "OUTPUT"]),
        (NAT, &["PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"]),
    ];
    for (table, chains) in built_in {
        for chain in chains {
            renderer.rules.declare(table, chain);
        }
    }
}

fn filter(renderer: &mut Renderer<'_>) {
    let rules = &mut renderer.rules;
    let new = "-m conntrack --ctstate NEW";
    let to_firewall = format!(
        "{new} -m comment --comment \"kubernetes load balancer firewall\" -j KUBE-PROXY-FIREWALL"
    );
    let to_external = format!(
        "{new} -m comment --comment \"kubernetes externally-visible service portals\" -j KUBE-EXTERNAL-SERVICES"
    );
    let to_services =
        format!("{new} -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES");
    for chain in ["INPUT", "OUTPUT"] {
        rules.append(FILTER, chain, "-j KUBE-FIREWALL");
    }
    for chain in ["INPUT", "FORWARD", "OUTPUT"] {
        rules.append(FILTER, chain, to_firewall.as_str());
    }
    let health = "-m comment --comment \"kubernetes health check service ports\" -j KUBE-NODEPORTS";
    rules.append(FILTER, "INPUT", health);
    rules.append(FILTER, "INPUT", to_external.as_str());
    let forwarding = "-m comment --comment \"kubernetes forwarding rules\" -j KUBE-FORWARD";
    rules.append(FILTER, "FORWARD", forwarding);
    rules.append(FILTER, "FORWARD", to_services.as_str());
    rules.append(FILTER, "FORWARD", to_external);
    rules.append(FILTER, "OUTPUT", to_services);
    for chain in [
        "KUBE-EXTERNAL-SERVICES",
        "KUBE-FIREWALL",
        "KUBE-NODEPORTS",
        "KUBE-PROXY-FIREWALL",
        "KUBE-SERVICES",
    ] {
        rules.declare(FILTER, chain);
    }

    if renderer.site.serves_localhost {
        // With route_localnet a neighbour could reach what listens on the loopback alone.
        renderer.rules.append(
            FILTER,
            "KUBE-FIREWALL",
            "! -s 127.0.0.0/8 -d 127.0.0.0/8 -m comment --comment \"block incoming localnet connections\" \
             -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP",
        );
    }
    for rule in [
        "-m conntrack --ctstate INVALID -m nfacct --nfacct-name  ct_state_invalid_dropped_pkts -j DROP",
        "-m comment --comment \"kubernetes forwarding rules\" -m mark --mark 0x4000/0x4000 -j ACCEPT",
        "-m comment --comment \"kubernetes forwarding conntrack rule\" -m conntrack --ctstate RELATED,ESTABLISHED \
         -j ACCEPT",
    ] {
        renderer.rules.append(FILTER, "KUBE-FORWARD", rule);
    }
}

fn nat(renderer: &mut Renderer<'_>) {
    let rules = &mut renderer.rules;
    let portals = "-m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES";
    rules.append(NAT, "PREROUTING", portals);
    rules.append(NAT, "OUTPUT", portals);
    rules.append(
        NAT,
        "POSTROUTING",
        "-m comment --comment \"kubernetes postrouting rules\" -j KUBE-POSTROUTING",
    );
    rules.append(NAT, "KUBE-MARK-MASQ", "-j MARK --set-xmark 0x4000/0x4000");
    for rule in [
        "-m mark ! --mark 0x4000/0x4000 -j RETURN",
        // Clears the mark, lest a tunnel's packet around this one be masqueraded, too.
        "-j MARK --set-xmark 0x4000/0x0",
        "-m comment --comment \"kubernetes service traffic requiring SNAT\" -j MASQUERADE --random-fully",
    ] {
        rules.append(NAT, "KUBE-POSTROUTING", rule);
    }
    rules.declare(NAT, "KUBE-NODEPORTS");
    rules.declare(NAT, "KUBE-SERVICES");
}

/// What stands after the Services: on which addresses their `NodePort`s are served.
pub(super) fn after(renderer: &mut Renderer<'_>) {
    let comment = "-m comment --comment \
        \"kubernetes service nodeports; NOTE: this must be the last rule in this chain\"";
    match &renderer.site.node_ports {
        Served::Everywhere => {
            let except_loopback = match renderer.site.family {
                Family::V6 => "! -d ::1/128 ",
                Family::V4 if !renderer.site.serves_localhost => "! -d 127.0.0.0/8 ",
                Family::V4 => "",
            };
            let rule = format!(
                "{except_loopback}{comment} -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS"
            );
            renderer.rules.append(NAT, "KUBE-SERVICES", rule);
        }
        Served::On(addresses) => {
            for address in addresses {
                let rule = format!("-d {} {comment} -j KUBE-NODEPORTS", host(*address));
                renderer.rules.append(NAT, "KUBE-SERVICES", rule);
            }
        }
    }
}
