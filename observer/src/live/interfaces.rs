//! The interfaces that are observed: chosen, attached to, and followed as they come and go.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use anyhow::bail;
use nix::net::if_::if_nametoindex;

use crate::cluster::{Index, Snapshot};
use crate::kernel::links::{Addresses, Link, Links, Watch};
use crate::kernel::programs::{Hook, Programs};
use crate::notice::{say, warn};
use crate::observation::IfIndex;

/// What is observed, and what more will be.
pub(super) struct Interfaces {
    choice: Choice,
    cluster: Option<Arc<Snapshot>>,
    attached: BTreeMap<IfIndex, String>,
    watch: Option<Watch>,
    /// Whether reading them failed, and is to be tried again.
    look_again: bool,
}

impl Interfaces {
    /// To be made before they are read, so that no change falls in between.
    pub(super) fn new(choice: Choice, cluster: Option<Arc<Snapshot>>) -> Self {
        let watch = Watch::open()
            .inspect_err(|error| warn(error, "interfaces that come later are not observed"))
            .ok();
        Self {
            choice,
            cluster,
            attached: BTreeMap::new(),
            watch,
            look_again: false,
        }
    }

    /// Whether none is left out that packets may pass by.
    pub(super) const fn are_all(&self) -> bool {
        self.choice.0.is_empty()
    }

    /// Attaches to the chosen ones of `links`; gives their names and the hook that they run by.
    pub(super) fn attach(
        &mut self,
        programs: &mut Programs,
        links: &Links,
    ) -> anyhow::Result<(Vec<String>, Option<Hook>)> {
        let known = self.cluster.as_ref().map(|cluster| &cluster.index);
        self.choice.check(links, known)?;
        let mut hook = None;
        let mut names = Vec::new();
        for (index, link) in self.choice.of(links, known) {
            match programs.attach(&link.name, link.header) {
                Ok(by) => {
                    hook = Some(by);
                    self.attached.insert(index, link.name.clone());
                    names.push(link.name.clone());
                }
                // A pod that ends just now takes its interface along.
                Err(_) if !self.choice.is_by_name() && is_gone(link) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok((names, hook))
    }

    /// From what is known of the cluster now, more may be chosen: at the next look.
    pub(super) fn know(&mut self, cluster: Arc<Snapshot>) {
        self.cluster = Some(cluster);
        self.look_again = true;
    }

    /// The names of those that are observed.
    pub(super) fn names(&self) -> Vec<String> {
        self.attached.values().cloned().collect()
    }

    /// Attaches to what has come since, and gives all there is, if anything has changed. What went
    /// took its programs along, and its number may come back.
    pub(super) async fn changed(&mut self, programs: &mut Programs) -> Option<Links> {
        let changed = self.look_again || self.watch.as_ref().is_some_and(Watch::changed);
        if !changed {
            return None;
        }
        let links = Links::read()
            .await
            .inspect_err(|error| warn(error, "interfaces that came are not observed yet"));
        self.look_again = links.is_err();
        let links = links.ok()?;
        let gone = self.attached.extract_if(.., |index, name| {
            links.get(*index).is_none_or(|link| link.name != *name)
        });
        for (index, _) in gone {
            if let Err(error) = programs.detach(index) {
                warn(&error, "filters may remain");
            }
        }
        // That one which was asked for is missing is no error later on: it may come back.
        let known = self.cluster.as_ref().map(|cluster| &cluster.index);
        for (index, link) in self.choice.of(&links, known) {
            if self.attached.contains_key(&index) {
                continue;
            }
            match programs.attach(&link.name, link.header) {
                Ok(_) => {
                    self.attached.insert(index, link.name.clone());
                    say(&format!("observing {} too", link.name));
                }
                // The next change tells.
                Err(_) if is_gone(link) => {}
                Err(error) => warn(&error, "its connections are missed"),
            }
        }
        Some(links)
    }
}

fn is_gone(link: &Link) -> bool {
    if_nametoindex(link.name.as_str()).is_err()
}

/// The names of the interfaces that were asked for; none: chosen by role.
pub(super) struct Choice(pub(super) Vec<String>);

impl Choice {
    /// Whether there is what was asked for, and something to observe at all.
    fn check(&self, links: &Links, index: Option<&Index>) -> anyhow::Result<()> {
        let names = || {
            let names: Vec<_> = links.iter().map(|(_, link)| link.name.as_str()).collect();
            names.join(", ")
        };
        let Self(asked) = self;
        if let Some(unknown) = asked.iter().find(|name| links.find(name).is_none()) {
            bail!("there is no interface {unknown}; this node has {}", names());
        }
        if self.of(links, index).is_empty() {
            bail!(
                "no interface of {} is up and carries more than this node's own traffic; choose \
                 with --interface",
                names()
            );
        }
        Ok(())
    }

    /// Whether each is one that was asked for by name.
    fn is_by_name(&self) -> bool {
        !self.0.is_empty()
    }

    /// The interfaces to observe, as far as they are there, uplinks first.
    fn of<'a>(&self, links: &'a Links, index: Option<&Index>) -> Vec<(IfIndex, &'a Link)> {
        let Self(asked) = self;
        if self.is_by_name() {
            let found = asked.iter().filter_map(|name| links.find(name));
            return found
                .filter_map(|index| Some((index, links.get(index)?)))
                .collect();
        }
        let mut chosen: Vec<_> = links
            .choose(&Whereabouts(index))
            .into_iter()
            .filter_map(|(index, role)| Some((role.ok()?, index, links.get(index)?)))
            .collect();
        chosen.sort_by_key(|(role, index, _)| (*role, *index));
        chosen
            .into_iter()
            .map(|(_, index, link)| (index, link))
            .collect()
    }
}

/// Whose an address is, as far as the cluster's objects tell.
pub struct Whereabouts<'a>(
    /// What they say; `None` without any.
    pub Option<&'a Index>,
);

impl Addresses for Whereabouts<'_> {
    fn is_node(&self, address: IpAddr) -> bool {
        self.0.is_some_and(|index| index.has_node_address(address))
    }

    fn is_pod(&self, address: IpAddr) -> bool {
        self.0.is_some_and(|index| index.is_in_pod_cidr(address))
    }
}
