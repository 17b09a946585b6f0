//! What is the same on every node: how packets come to the Services' chains, and what the marks
//! that those set lead to.

use super::{Kind, MARK, MARKING_CHAIN, PROTOCOL_AND_PORT, Renderer, in_braces, range};
use crate::kubeproxy::{Family, NftablesLayout, settings::Served, site::Site};

pub(super) fn base(renderer: &mut Renderer<'_>) {
    base_chains(renderer);
    sets(renderer);
    turning_away(renderer);
    services(renderer);
    masquerading(renderer);
}

/// A chain, the hook that leads to it, and its rules.
type BaseChain = (&'static str, &'static str, &'static [&'static str]);

const FIREWALL: &str = "ct state new jump firewall-check";
const NODE_PORTS: &str = "ct state new jump nodeport-endpoints-check";
const SERVICES: &str = "ct state new jump service-endpoints-check";
const CLUSTER_IPS: &str = "ct state new jump cluster-ips-check";

/// Source ranges are about the address that a client calls, so they come before the NAT. Nothing
/// can be rejected there yet.
const FILTER: [BaseChain; 5] = [
    (
        "filter-prerouting-pre-dnat",
        "filter hook prerouting priority dstnat - 10",
        &[FIREWALL],
    ),
    (
        "filter-output-pre-dnat",
        "filter hook output priority -110",
        &[FIREWALL],
    ),
    (
        "filter-input",
        "filter hook input priority filter",
        &[NODE_PORTS, SERVICES],
    ),
    (
        "filter-forward",
        "filter hook forward priority filter",
        &[SERVICES, CLUSTER_IPS],
    ),
    (
        "filter-output",
        "filter hook output priority filter",
        &[SERVICES, CLUSTER_IPS],
    ),
];
/// The same until 1.33: what the node itself sends is turned away before its NAT.
const FILTER_UNTIL_1_33: [BaseChain; 5] = [
    (
        "filter-prerouting",
        "filter hook prerouting priority dstnat - 10",
        &[FIREWALL],
    ),
    (
        "filter-input",
        "filter hook input priority -110",
        &[NODE_PORTS, SERVICES],
    ),
    (
        "filter-forward",
        "filter hook forward priority -110",
        &[SERVICES, CLUSTER_IPS],
    ),
    (
        "filter-output",
        "filter hook output priority -110",
        &[SERVICES, FIREWALL],
    ),
    (
        "filter-output-post-dnat",
        "filter hook output priority -90",
        &[CLUSTER_IPS],
    ),
];
const NAT: [BaseChain; 3] = [
    (
        "nat-prerouting",
        "nat hook prerouting priority dstnat",
        &["jump services"],
    ),
    (
        "nat-output",
        "nat hook output priority -100",
        &["jump services"],
    ),
    (
        "nat-postrouting",
        "nat hook postrouting priority srcnat",
        &["jump masquerading"],
    ),
];

/// The chains that the kernel's hooks lead to.
fn base_chains(renderer: &mut Renderer<'_>) {
    let filter = match renderer.site.nftables {
        NftablesLayout::Since1_31 => FILTER_UNTIL_1_33,
        NftablesLayout::Since1_34 | NftablesLayout::Since1_36 => FILTER,
    };
    for (chain, hook, rules) in filter.into_iter().chain(NAT) {
        renderer.rule(chain, format!("type {hook}; policy accept;"));
        for rule in rules {
            renderer.rule(chain, *rule);
        }
    }
}

fn sets(renderer: &mut Renderer<'_>) {
    let address = renderer.address_type();
    let by_address = format!("{address} . inet_proto . inet_service : verdict");
    let by_port = "inet_proto . inet_service : verdict";
    if !renderer.is_in_chains() {
        let type_ = format!("{address} . {address} . inet_proto . inet_service");
        let comment = "service hairpin connections";
        declare(renderer, Kind::Set, "hairpin-connections", &type_, comment);
    }
    for (kind, name, type_, comment) in [
        (Kind::Set, "cluster-ips", address, "Active ClusterIPs"),
        (
            Kind::Map,
            "no-endpoint-services",
            &by_address,
            "vmap to drop or reject packets to services with no endpoints",
        ),
        (
            Kind::Map,
            "no-endpoint-nodeports",
            by_port,
            "vmap to drop or reject packets to service nodeports with no endpoints",
        ),
        (
            Kind::Map,
            "firewall-ips",
            &by_address,
            "destinations that are subject to LoadBalancerSourceRanges",
        ),
        (
            Kind::Map,
            "service-ips",
            &by_address,
            "ClusterIP, ExternalIP and LoadBalancer IP traffic",
        ),
        (Kind::Map, "service-nodeports", by_port, "NodePort traffic"),
    ] {
        declare(renderer, kind, name, type_, comment);
    }
    let Served::On(addresses) = &renderer.site.node_ports else {
        return;
    };
    let comment = "IPs that accept NodePort traffic";
    declare(renderer, Kind::Set, "nodeport-ips", address, comment);
    for address in addresses {
        renderer.element(Kind::Set, "nodeport-ips", address.to_string());
    }
}

fn declare(renderer: &mut Renderer<'_>, kind: Kind, name: &str, type_: &str, comment: &str) {
    let lines = &mut renderer.rules.object(kind, name).lines;
    lines.extend([format!("type {type_}"), format!("comment \"{comment}\"")]);
}

/// What turns away that no rule of the nat chains took.
fn turning_away(renderer: &mut Renderer<'_>) {
    let ip = renderer.ip();
    let to_node_port = to_node_port(renderer.site, ip);
    let by_port = format!("{to_node_port} {PROTOCOL_AND_PORT} vmap @no-endpoint-nodeports");
    renderer.rule("nodeport-endpoints-check", by_port);
    for (chain, map) in [
        ("service-endpoints-check", "no-endpoint-services"),
        ("firewall-check", "firewall-ips"),
    ] {
        let rule = format!("{ip} daddr . {PROTOCOL_AND_PORT} vmap @{map}");
        renderer.rule(chain, rule);
    }
    renderer.rule(
        "reject-chain",
        "comment \"helper for @no-endpoint-services / @no-endpoint-nodeports\"",
    );
    renderer.rule("reject-chain", "reject");

    let check = "cluster-ips-check";
    renderer.rule(
        check,
        format!("{ip} daddr @cluster-ips reject comment \"Reject traffic to invalid ports of ClusterIPs\""),
    );
    let ranges = match renderer.site.service_cidrs[..] {
        [] => return,
        [one] => range(one),
        ref several => in_braces(several),
    };
    renderer.rule(
        check,
        format!("{ip} daddr {ranges} drop comment \"Drop traffic to unallocated ClusterIPs\""),
    );
}

/// How packets find their Service.
fn services(renderer: &mut Renderer<'_>) {
    let ip = renderer.ip();
    let chain = "services";
    if !renderer.is_in_chains() {
        renderer.strangers_to_cluster_ip(chain, &format!("{ip} daddr @cluster-ips"));
    }
    renderer.rule(
        chain,
        format!("{ip} daddr . {PROTOCOL_AND_PORT} vmap @service-ips"),
    );
    let to_node_port = to_node_port(renderer.site, ip);
    renderer.rule(
        chain,
        format!("{to_node_port} {PROTOCOL_AND_PORT} vmap @service-nodeports"),
    );
}

/// Matches the addresses on which `NodePort`s are served.
fn to_node_port(site: &Site, ip: &str) -> String {
    let loopback = match site.family {
        Family::V4 => "127.0.0.0/8",
        Family::V6 => "::1",
    };
    match site.node_ports {
        Served::Everywhere => format!("fib daddr type local {ip} daddr != {loopback}"),
        Served::On(_) => format!("{ip} daddr @nodeport-ips"),
    }
}

fn masquerading(renderer: &mut Renderer<'_>) {
    let ip = renderer.ip();
    if renderer.is_in_chains() {
        renderer.rule(MARKING_CHAIN, MARK);
        for rule in [
            "meta mark & 0x00004000 == 0x00000000 return",
            "meta mark set meta mark ^ 0x00004000",
            "masquerade fully-random",
        ] {
            renderer.rule("masquerading", rule);
        }
        return;
    }
    // The mark is cleared, lest a tunnel's packet around this one be masqueraded, too.
    renderer.rule(
        "masquerading",
        "meta mark & 0x00004000 != 0x00000000 meta mark set meta mark ^ 0x00004000 masquerade fully-random",
    );
    renderer.rule(
        "masquerading",
        format!(
            "ct status dnat {ip} saddr . {ip} daddr . {PROTOCOL_AND_PORT} @hairpin-connections masquerade fully-random"
        ),
    );
}
