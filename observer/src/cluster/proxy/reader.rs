//! What proxies make of a PROXY header, by the Services that clients reach them by.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::super::Objects;
use super::super::workload::Workload;
use super::world::World;
use super::{Controller, mismatch, places_before, routes, traefik};

/// What a proxy in the cluster makes of a PROXY header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeaderReader {
    /// The namespace of the Service by which clients reach it.
    pub namespace: String,
    /// The Service's name.
    pub name: String,
    /// Who it is, by a word.
    pub who: String,
    /// Whether it reads one.
    pub reads: bool,
    /// Whether it was told to expect one, and refuses what begins otherwise.
    pub demands: bool,
}

/// Those of whom the objects tell. Where they tell two things of one Service, none.
pub fn readers(objects: &Objects) -> Vec<HeaderReader> {
    let mut readers: BTreeMap<(String, String), Option<HeaderReader>> = BTreeMap::new();
    let world = World::of(objects);
    let traefiks = world.running(traefik::IMAGES);
    let is_told = |it: &&Workload<'_>| traefik::reads_proxy(it).is_some();
    let is_traefik_told = !traefiks.is_empty() && traefiks.iter().all(is_told);
    for route in &routes(objects).0 {
        // That it reads none is known only where its settings are.
        let is_told = mismatch::reads_proxy(route)
            || route.config_map.is_some()
            || (route.controller == Controller::Traefik && is_traefik_told);
        if !mismatch::is_known(route) || !is_told {
            continue;
        }
        for service in places_before(route).flatten() {
            let reader = HeaderReader {
                namespace: service.namespace.to_string(),
                name: service.name.to_string(),
                who: route.who(),
                reads: mismatch::reads_proxy(route),
                demands: mismatch::demands_proxy(route),
            };
            let key = (reader.namespace.clone(), reader.name.clone());
            let known = readers.entry(key).or_insert_with(|| Some(reader.clone()));
            if known.as_ref() != Some(&reader) {
                *known = None;
            }
        }
    }
    readers.into_values().flatten().collect()
}
