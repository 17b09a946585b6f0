//! `MetalLB`: a node answers for the Service's address, or all announce it to routers. Packets come
//! as they are, with that address as their destination (website, content/usage/_index.md, "Traffic
//! policies").

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Container, Node, PodSpec};

use super::super::around::Around;
use super::super::convert::parse_ip;
use super::super::finding::Finding;
use super::asked::{Asked, items};
use super::pools::{self, Advertisement, Pool};
use super::{Answer, Delivers, Keeps, LoadBalancer, Setting, System};

/// Annotations, the deprecated name last (`controller/service.go`).
const ALLOCATED: [&str; 2] = [
    "metallb.io/ip-allocated-from-pool",
    "metallb.universe.tf/ip-allocated-from-pool",
];
const POOL: [&str; 2] = [
    "metallb.io/address-pool",
    "metallb.universe.tf/address-pool",
];
const ADDRESSES: [&str; 2] = [
    "metallb.io/loadBalancerIPs",
    "metallb.universe.tf/loadBalancerIPs",
];

const USAGE: &str = "MetalLB, website/content/usage/_index.md";
const CONFIGURATION: &str = "MetalLB, website/content/configuration/_index.md";
const INSTALLATION: &str = "MetalLB, website/content/installation/_index.md";

/// `MetalLB` as it is installed, and set up.
#[derive(Debug)]
pub(super) struct Metallb<'a> {
    pools: Vec<Pool<'a>>,
    nodes: Vec<&'a Node>,
    /// What shows that it is here.
    sign: Option<Setting>,
    /// `--lb-class`: it serves only Services of this class.
    class: Option<&'a str>,
}

/// Of which pools a Service's address will be.
enum Told<'a> {
    /// Of one of these, and by what that is told.
    Pools(Vec<&'a Pool<'a>>, Setting),
    /// Of one that is none.
    NoSuch(Setting),
}

impl<'a> Metallb<'a> {
    pub(super) fn of(nodes: &[&'a Node], around: &'a Around) -> Self {
        let pools = pools::of(around);
        let deployments = around.deployments.iter().filter_map(|it| it.spec.as_ref());
        let daemon_sets = around.daemon_sets.iter().filter_map(|it| it.spec.as_ref());
        let pods = deployments
            .map(|spec| &spec.template)
            .chain(daemon_sets.map(|spec| &spec.template))
            .filter_map(|template| template.spec.as_ref());
        let containers: Vec<_> = pods.flat_map(its_containers).collect();
        let first = pools.first().map(|pool| ("IPAddressPool", pool.name));
        let image = containers.iter().find_map(|it| it.image.as_deref());
        let advertisement = around
            .l2_advertisements
            .iter()
            .map(|it| ("L2Advertisement", &it.metadata))
            .chain(
                around
                    .bgp_advertisements
                    .iter()
                    .map(|it| ("BGPAdvertisement", &it.metadata)),
            )
            .find_map(|(kind, metadata)| Some((kind, metadata.name.as_deref()?)));
        let sign = first
            .or(image.map(|image| ("image", image)))
            .or(advertisement);
        Self {
            pools,
            nodes: nodes.to_vec(),
            sign: sign.map(|(name, value)| Setting::set(name, value, INSTALLATION)),
            class: containers.iter().find_map(|it| class_of(it)),
        }
    }

    /// That it is here, and serves Services without a class.
    pub(super) fn installed(&self) -> Option<Setting> {
        self.sign.clone().filter(|_| self.class.is_none())
    }

    /// Whether it serves a class: the one it is told, or one that has its name.
    pub(super) fn serves_class(&self, class: &str) -> bool {
        match self.class {
            Some(its) => its == class,
            None => class.to_ascii_lowercase().contains("metallb"),
        }
    }

    /// That it has given the Service its address.
    pub(super) fn assigned(&self, asked: Asked<'_>) -> Option<Setting> {
        let of_pool = ALLOCATED.iter().find_map(|name| asked.if_set(name, USAGE));
        of_pool.or_else(|| {
            let ip = asked
                .addresses()
                .find(|ip| self.pools.iter().any(|it| it.contains(*ip)))?;
            Some(status(ip))
        })
    }

    /// How it brings traffic to the Service.
    pub(super) fn answer(&'a self, asked: Asked<'_>) -> Answer {
        if self.pools.is_empty() {
            let setting = [ALLOCATED, POOL, ADDRESSES]
                .into_iter()
                .flatten()
                .find_map(|name| asked.if_set(name, USAGE))
                .or_else(|| self.sign.clone());
            return somehow().because(class(asked)).because(setting).into();
        }
        match self.told(asked) {
            Told::Pools(pools, setting) => announced(asked, &pools, &self.nodes, setting),
            Told::NoSuch(setting) => {
                let finding = asked.not_understood(&setting.name, &setting.value);
                Answer {
                    load_balancer: somehow().because(class(asked)).because([setting]),
                    findings: vec![finding],
                }
            }
        }
    }

    /// Of which pools its address will be, most certain first: where it is allocated, what its
    /// status says, what it asks for, what is left.
    fn told(&'a self, asked: Asked<'_>) -> Told<'a> {
        let named =
            |name: &str| -> Vec<_> { self.pools.iter().filter(|pool| pool.name == name).collect() };
        let holding =
            |ip: IpAddr| -> Vec<_> { self.pools.iter().filter(|pool| pool.contains(ip)).collect() };
        let allocated = ALLOCATED.iter().find_map(|name| asked.if_set(name, USAGE));
        if let Some(setting) = allocated {
            let pools = named(&setting.value);
            if !pools.is_empty() {
                return Told::Pools(pools, setting);
            }
        }
        if let Some(ip) = asked.addresses().next() {
            let pools = holding(ip);
            if !pools.is_empty() {
                return Told::Pools(pools, status(ip));
            }
        }
        let asks = ADDRESSES.iter().find_map(|name| asked.if_set(name, USAGE));
        let field = asked
            .spec()
            .load_balancer_ip
            .as_deref()
            .filter(|ip| !ip.is_empty());
        let field = field.map(|ip| Setting::set("spec.loadBalancerIP", ip, USAGE));
        if let Some(setting) = asks.or(field) {
            let first = items(&setting.value).next().and_then(parse_ip);
            return found(first.map(holding).unwrap_or_default(), setting);
        }
        if let Some(setting) = POOL.iter().find_map(|name| asked.if_set(name, USAGE)) {
            return found(named(&setting.value), setting);
        }
        let open: Vec<_> = self
            .pools
            .iter()
            .filter(|pool| pool.may_serve(asked))
            .collect();
        let all: Vec<_> = open.iter().map(|pool| pool.name).collect();
        let setting = Setting::default_of(POOL[0], &all.join(", "), USAGE);
        Told::Pools(open, setting)
    }
}

fn found<'a>(pools: Vec<&'a Pool<'a>>, setting: Setting) -> Told<'a> {
    if pools.is_empty() {
        Told::NoSuch(setting)
    } else {
        Told::Pools(pools, setting)
    }
}

/// Announced, but no object tells how.
fn somehow() -> LoadBalancer {
    LoadBalancer::new(System::Metallb, Delivers::VirtualIp, Keeps::Client).leaves_out(Some(true))
}

/// As what announces its pools does it. Either way only nodes with an endpoint are used under policy
/// `Local`: the leader is one of them (`speaker/layer2_controller.go`), and only they announce
/// (`speaker/bgp_controller.go`).
fn announced(asked: Asked<'_>, pools: &[&Pool<'_>], nodes: &[&Node], setting: Setting) -> Answer {
    let how: Vec<_> = pools
        .iter()
        .map(|pool| (pool.layer2(asked).count() > 0, pool.bgp(asked).count() > 0))
        .collect();
    if how.iter().all(|(layer2, bgp)| !layer2 && !bgp) {
        return Answer {
            load_balancer: LoadBalancer::new(System::Metallb, Delivers::Nothing, Keeps::Unknown)
                .because(class(asked))
                .because([setting]),
            findings: vec![Finding::NothingAnnounces {
                service: asked.name(),
            }],
        };
    }
    let system = match how[..] {
        [(true, false), ref others @ ..] if others.iter().all(|it| *it == (true, false)) => {
            System::MetallbL2
        }
        [(false, true), ref others @ ..] if others.iter().all(|it| *it == (false, true)) => {
            System::MetallbBgp
        }
        _ => System::Metallb,
    };
    let advertisements: Vec<_> = pools
        .iter()
        .flat_map(|pool| pool.layer2(asked).chain(pool.bgp(asked)))
        .collect();
    let by = advertisements
        .iter()
        .map(|it: &&Advertisement<'_>| Setting::set(it.kind, it.name, CONFIGURATION));
    let by_all_nodes = advertisements.iter().any(|it| it.is_by_all_nodes());
    let only_nodes = (!by_all_nodes && !nodes.is_empty()).then(|| {
        let announcing = nodes
            .iter()
            .filter(|node| advertisements.iter().any(|it| it.is_by(node)));
        announcing
            .filter_map(|node| node.metadata.name.clone())
            .collect()
    });
    LoadBalancer {
        system,
        only_nodes,
        ..somehow()
    }
    .because(class(asked))
    .because([setting])
    .because(by)
    .into()
}

fn class(asked: Asked<'_>) -> Option<Setting> {
    let class = asked.class()?;
    Some(Setting::set("spec.loadBalancerClass", class, INSTALLATION))
}

fn status(ip: IpAddr) -> Setting {
    Setting::set("status.loadBalancer.ingress[].ip", &ip.to_string(), USAGE)
}

/// Those containers of a pod that are `MetalLB`'s.
fn its_containers(pods: &PodSpec) -> impl Iterator<Item = &Container> {
    let is_its = |image: &str| image.contains("metallb");
    pods.containers
        .iter()
        .filter(move |it| it.image.as_deref().is_some_and(is_its))
}

/// The argument `--lb-class`.
fn class_of(container: &Container) -> Option<&str> {
    let mut arguments = container.args.iter().flatten();
    let class = arguments.find_map(|it| it.strip_prefix("--lb-class="))?;
    (!class.is_empty()).then_some(class)
}
