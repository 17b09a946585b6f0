//! Which interfaces are observed, and why.

use super::*;

const NODE: &str = "172.31.0.11/24";

/// The node is 172.31.0.11, pods live in 10.244.1.0/24.
struct Cluster;

impl Addresses for Cluster {
    fn is_node(&self, address: IpAddr) -> bool {
        address == net(NODE).addr()
    }

    fn is_pod(&self, address: IpAddr) -> bool {
        net("10.244.1.0/24").contains(&address)
    }
}

fn net(text: &str) -> IpNet {
    text.parse().expect("the test's network parses")
}

fn link(name: &str) -> Link {
    Link {
        name: name.to_owned(),
        up: true,
        ..Link::default()
    }
}

/// Numbers them from 1, and gives what becomes of each, by name.
fn chosen<const N: usize>(links: [Link; N]) -> [Result<Role, Unobserved>; N] {
    let links = Links((1..).map(IfIndex).zip(links).collect());
    let chosen: Vec<_> = links.choose(&Cluster).into_values().collect();
    chosen.try_into().expect("one for each")
}

#[test]
fn roles_come_from_addresses_and_routes() {
    let roles = chosen([
        Link {
            kind: LinkKind::Loopback,
            default_route: true,
            ..link("lo")
        },
        Link {
            host_route: true,
            ..link("cali1")
        },
        Link {
            addresses: vec![net(NODE)],
            ..link("ens5")
        },
        Link {
            default_route: true,
            ..link("ens6")
        },
        link("spare"),
        Link {
            up: false,
            default_route: true,
            ..link("unplugged")
        },
        Link {
            kind: LinkKind::Dummy,
            addresses: vec![net(NODE)],
            ..link("kube-ipvs0")
        },
        Link {
            header: LinkHeader::Other(32),
            ..link("ib0")
        },
    ]);
    assert_eq!(
        roles,
        [
            Err(Unobserved::Loopback),
            Ok(Role::PodFacing),
            Ok(Role::Uplink),
            Ok(Role::Uplink),
            Ok(Role::Other),
            Err(Unobserved::Down),
            Err(Unobserved::Dummy),
            Err(Unobserved::LinkHeader(32)),
        ]
    );
}

#[test]
fn of_a_bridge_the_ports_are_observed_and_itself_only_as_an_uplink() {
    let bridge = |name: &str, address: &str| Link {
        kind: LinkKind::Bridge,
        addresses: vec![net(address)],
        ..link(name)
    };
    let port = |name: &str, of: u32| Link {
        master: Some(IfIndex(of)),
        ..link(name)
    };
    let roles = chosen([
        bridge("cni0", "10.244.1.1/24"),
        port("veth1", 1),
        bridge("br0", NODE),
        port("eth0", 3),
        bridge("docker0", "172.17.0.1/16"),
        port("veth2", 5),
    ]);
    assert_eq!(
        roles,
        [
            Err(Unobserved::Bridge),
            Ok(Role::PodFacing),
            Ok(Role::Uplink),
            Ok(Role::Other),
            Err(Unobserved::Bridge),
            Ok(Role::Other),
        ]
    );
}

#[test]
fn what_lies_below_an_observed_one_is_not_observed_however_deep() {
    let below = |above: &str| Err(Unobserved::Below(above.to_owned()));
    let roles = chosen([
        Link {
            master: Some(IfIndex(2)),
            ..link("eth0")
        },
        Link {
            kind: LinkKind::Aggregate,
            ..link("bond0")
        },
        Link {
            kind: LinkKind::Stacked,
            lower: Some(IfIndex(2)),
            addresses: vec![net(NODE)],
            ..link("bond0.100")
        },
    ]);
    assert_eq!(
        roles,
        [below("bond0"), below("bond0.100"), Ok(Role::Uplink)]
    );
}

#[test]
fn a_parent_with_a_role_of_its_own_is_observed_beside_what_is_stacked_on_it() {
    let roles = chosen([
        Link {
            default_route: true,
            ..link("eth0")
        },
        Link {
            kind: LinkKind::Stacked,
            lower: Some(IfIndex(1)),
            ..link("eth0.100")
        },
        Link {
            kind: LinkKind::Tunnel,
            lower: Some(IfIndex(1)),
            ..link("flannel.1")
        },
    ]);
    assert_eq!(roles, [Ok(Role::Uplink), Ok(Role::Other), Ok(Role::Tunnel)]);
}

#[test]
fn a_veths_peer_in_the_same_namespace_is_nothing_below_it() {
    let veth = |name: &str, peer: u32| Link {
        lower: Some(IfIndex(peer)),
        ..link(name)
    };
    let roles = chosen([veth("a", 2), veth("b", 1)]);
    assert_eq!(roles, [Ok(Role::Other), Ok(Role::Other)]);
}

/// Beyond a public one somebody else's rules decide, and one elsewhere is no neighbour.
#[test]
fn gateways_count_that_are_private_and_near() {
    let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
    let through = |addresses: &[&str], gateways: &[&str]| Link {
        addresses: addresses.iter().map(|it| net(it)).collect(),
        default_route: true,
        gateways: gateways.iter().map(|it| ip(it)).collect(),
        ..link("eth0")
    };
    let links = [
        through(
            &["172.18.0.2/16", "fc00:f853::2/64"],
            &["172.18.0.1", "fc00:f853::1"],
        ),
        through(
            &["203.0.113.5/24", "2001:db8::5/64"],
            &["203.0.113.1", "2001:db8::1"],
        ),
        through(&["10.0.0.5/32"], &["10.0.0.1"]),
        through(&["fc00:f853::2/64"], &["fe80::1"]),
    ];
    let links = Links((1..).map(IfIndex).zip(links).collect());
    let near = [ip("172.18.0.1"), ip("fc00:f853::1")].into();
    assert_eq!(links.interfaces().gateways, near);
}
