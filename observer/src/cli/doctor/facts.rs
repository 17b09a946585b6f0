//! What is there to see. Nothing here judges, and nothing keeps an address.

use std::error::Error;
use std::iter;

use serde::Serialize;

use super::cluster::{ClusterSeen, Source};
use super::kube_proxy::{self, LegacyRules};
use crate::cli::{ask, host_name, names};
use crate::cluster::{Family, Index};
use crate::kernel::capabilities;
use crate::kernel::conntrack::Conntrack;
use crate::kernel::drops::DropReasons;
use crate::kernel::environment::{self, Environment};
use crate::kernel::layout::{Resolver, SYSFS};
use crate::kernel::links::{Links, Role};
use crate::kernel::netfilter::NetfilterError;
use crate::kernel::nftables::{self, Ruleset};
use crate::kernel::programs::{Load, Memory, Programs, Sizes};
use crate::live::Whereabouts;

/// Something, or why it could not be seen.
pub(super) type Seen<T> = Result<T, String>;

/// All that was looked at.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Facts {
    pub(super) environment: Environment,
    /// Those that observing needs and that are not in force.
    pub(super) missing_capabilities: Seen<Vec<String>>,
    pub(super) btf: Btf,
    /// In which families connections are tracked: IPv4, IPv6.
    pub(super) tracked: Seen<[bool; 2]>,
    /// Loading the programs, and what their maps take then, if that is told; `None` if it was not
    /// tried.
    pub(super) programs: Option<Seen<Option<Memory>>>,
    /// The same with clients' first bytes asked for.
    pub(super) first_bytes: Option<Seen<Option<Memory>>>,
    /// Asking the kernel why it drops packets, for a moment; `None` if it was not tried.
    pub(super) drop_reasons: Option<Seen<()>>,
    /// Whether programs can be attached by TCX; `None` if nobody was asked.
    pub(super) tcx: Option<Seen<bool>>,
    pub(super) interfaces: Seen<Vec<Interface>>,
    /// The names of all BPF programs in the kernel.
    pub(super) all_programs: Seen<Vec<String>>,
    pub(super) rules: Seen<Ruleset>,
    pub(super) legacy_rules: LegacyRules,
    /// What kube-proxy calls its mode.
    pub(super) proxy_mode: Seen<String>,
    /// Where the cluster's objects are from.
    pub(super) cluster: Source,
    /// Whether the cluster's objects have this node; `None` without them.
    pub(super) node: Option<Seen<()>>,
}

/// What the kernel's BTF tells of conntrack's entries.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Btf {
    /// Where they are.
    Known(String),
    /// Not where they are; no rewrite can be followed.
    Unknown(String),
    /// There is none.
    None(String),
}

/// An interface, and what becomes of it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Interface {
    pub(super) name: String,
    pub(super) observed: bool,
    pub(super) uplink: bool,
    pub(super) why: String,
}

impl Facts {
    /// Looks at everything, as far as this process may.
    pub(super) async fn gather(node: Option<String>, cluster: ClusterSeen, sizes: Sizes) -> Self {
        let ClusterSeen { objects, source } = cluster;
        let objects = objects.as_ref();
        let missing_capabilities = capabilities::missing()
            .map(|missing| missing.iter().map(ToString::to_string).collect::<Vec<_>>())
            .map_err(|error| told(&error));
        let may_observe = missing_capabilities.as_ref().is_ok_and(Vec::is_empty);
        let index = objects.map(Index::build);
        let environment = Environment::read();
        Self {
            btf: btf(),
            tracked: tracked(),
            environment,
            programs: may_observe.then(|| loads(false, sizes)),
            first_bytes: may_observe.then(|| loads(true, sizes)),
            drop_reasons: may_observe.then(drop_reasons),
            tcx: may_observe.then(|| environment::has_tcx().map_err(|error| told(&error))),
            missing_capabilities,
            interfaces: interfaces(index.as_ref()).await,
            all_programs: environment::programs().map_err(|error| told(&error)),
            rules: rules(),
            legacy_rules: kube_proxy::legacy_rules(),
            proxy_mode: ask::mode(ask::METRICS_ADDRESS),
            cluster: source,
            node: objects.map(|objects| {
                let node = node.map_or_else(host_name, Ok);
                let node = node.map_err(|error| format!("{error:#}"))?;
                names::node(&node, Some(objects)).map_err(|error| error.to_string())
            }),
        }
    }
}

fn loads(first_bytes: bool, sizes: Sizes) -> Seen<Option<Memory>> {
    let load = Load {
        first_bytes,
        sizes,
        ..Load::default()
    };
    let (programs, rings) = Programs::load(load).map_err(|error| told(&error))?;
    Ok(programs.memory(&rings).ok())
}

fn drop_reasons() -> Seen<()> {
    let reasons = DropReasons::read(SYSFS.as_ref()).map_err(|error| told(&error))?;
    let (mut programs, _) = Programs::load(Load::default()).map_err(|error| told(&error))?;
    programs.note_drops(reasons).map_err(|error| told(&error))
}

fn btf() -> Btf {
    match Resolver::new(SYSFS.into()).resolve() {
        Ok(layout) => Btf::Known(format!("{layout:?}")),
        Err(error) if error.is_harmless() => Btf::Unknown(told(&error)),
        Err(error) => Btf::None(told(&error)),
    }
}

fn tracked() -> Seen<[bool; 2]> {
    // Asking would load it.
    if !Resolver::new(SYSFS.into()).is_loaded() {
        return Ok([false; 2]);
    }
    let tracked = || {
        let mut conntrack = Conntrack::open()?;
        Ok([conntrack.tracks(Family::V4)?, conntrack.tracks(Family::V6)?])
    };
    tracked().map_err(|error: NetfilterError| told(&error))
}

/// Where nftables is not loaded there are no rules, and asking would load it.
fn rules() -> Seen<Ruleset> {
    match environment::has_function(nftables::FUNCTION) {
        Some(false) => Ok(Ruleset::default()),
        Some(true) | None => nftables::read().map_err(|error| told(&error)),
    }
}

async fn interfaces(index: Option<&Index>) -> Seen<Vec<Interface>> {
    let links = Links::read().await.map_err(|error| told(&error))?;
    let roles = links.choose(&Whereabouts(index));
    Ok(links
        .iter()
        .filter_map(|(number, link)| {
            let role = roles.get(&number)?;
            Some(Interface {
                name: link.name.clone(),
                observed: role.is_ok(),
                uplink: *role == Ok(Role::Uplink),
                why: match role {
                    Ok(role) => role.to_string(),
                    Err(why) => why.to_string(),
                },
            })
        })
        .collect())
}

/// An error and its causes, in one text.
pub(super) fn told(error: &(dyn Error + 'static)) -> String {
    let causes = iter::successors(Some(error), |&error| error.source());
    let causes: Vec<_> = causes.map(ToString::to_string).collect();
    causes.join(": ")
}
