//! What is the same on every node: how packets come to the Services' chains, and what the marks
//! that those set lead to.

use super::{Kind, MARK, PROTOCOL_AND_PORT, Renderer, in_braces, range};
use crate::kubeproxy::{Family, settings::Served, site::Site};

pub(super) fn base(renderer: &mut Renderer<'_>) {
    base_chains(renderer);
    sets(renderer);
    turning_away(renderer);
    services(renderer);
    masquerading(renderer);
}

/// The chains that the kernel's hooks lead to.
fn base_chains(renderer: &mut Renderer<'_>) {
    let services = "ct state new jump service-endpoints-check";
    let chains: [(&str, &str, &[&str]); 8] = [
        // Source ranges are about the address that a client calls, so they come before the NAT.
        // Nothing can be rejected there yet.
        (
            "filter-prerouting-pre-dnat",
            "filter hook prerouting priority dstnat - 10",
            &["ct state new jump firewall-check"],
        ),
        (
            "filter-output-pre-dnat",
            "filter hook output priority -110",
            &["ct state new jump firewall-check"],
        ),
        (
            "filter-input",
            "filter hook input priority filter",
            &["ct state new jump nodeport-endpoints-check", services],
        ),
        (
            "filter-forward",
            "filter hook forward priority filter",
            &[services, "ct state new jump cluster-ips-check"],
        ),
        (
            "filter-output",
            "filter hook output priority filter",
            &[services, "ct state new jump cluster-ips-check"],
        ),
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
    for (chain, hook, rules) in chains {
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
    for (kind, name, type_, comment) in [
        (
            Kind::Set,
            "hairpin-connections",
            &*format!("{address} . {address} . inet_proto . inet_service"),
            "service hairpin connections",
        ),
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
    if renderer.site.masquerade_all {
        // Not among the recordings, which are of one setting; only its effect is known.
        renderer.rule(
            chain,
            format!("{ip} daddr @cluster-ips {MARK} comment \"masquerade clusterIP traffic\""),
        );
    } else if let Some(pods) = &renderer.site.pods {
        let not_from = renderer.from(pods, "!= ");
        let comment = "masquerade clusterIP traffic from outside cluster";
        renderer.rule(
            chain,
            format!("{ip} daddr @cluster-ips {not_from} {MARK} comment \"{comment}\""),
        );
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
