//! What became of connections, told apart without a word of text: so many have the same fate.

use std::collections::HashMap;

use super::Record;
use crate::cluster::{FrontDoorKind, TrafficPolicy};
use crate::verdict::{CauseCode, Outcome, OutcomeCauseCode, SourceIp};

/// Whatever of a record is one of few words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fate {
    pub(crate) front_door: Option<FrontDoorKind>,
    pub(crate) policy: Option<TrafficPolicy>,
    pub(crate) source_ip: SourceIp,
    /// [`Record::own_cause`].
    pub(crate) cause: Option<CauseCode>,
    /// [`Record::node_cause`].
    pub(crate) node_cause: Option<CauseCode>,
    pub(crate) outcome: Outcome,
    pub(crate) outcome_cause: Option<OutcomeCauseCode>,
    pub(crate) extra_hops: Option<u8>,
}

impl Fate {
    pub(crate) fn of(record: &Record) -> Self {
        let service = record.service.as_ref();
        Self {
            front_door: record.front_door.kind,
            policy: service.and_then(|service| service.external_traffic_policy),
            source_ip: record.source_ip,
            cause: record.own_cause().map(|cause| cause.code),
            node_cause: record.node_cause().map(|cause| cause.code),
            outcome: record.outcome,
            outcome_cause: record.outcome_cause.as_ref().map(|cause| cause.code),
            extra_hops: record.extra_hops,
        }
    }
}

/// Something for each Service and fate. As many as the cluster's Services have.
#[derive(Debug)]
pub(crate) struct ByFate<T> {
    /// By namespace and name with a slash between, which neither may have; empty: of none.
    services: HashMap<String, Vec<(Fate, T)>>,
    /// The Service that is looked for.
    name: String,
}

impl<T> Default for ByFate<T> {
    fn default() -> Self {
        Self {
            services: HashMap::new(),
            name: String::new(),
        }
    }
}

impl<T> ByFate<T> {
    /// That of a record; made, if there is none.
    pub(crate) fn of(&mut self, record: &Record, make: impl FnOnce() -> T) -> &mut T {
        self.name.clear();
        if let Some(service) = &record.service {
            self.name.push_str(&service.namespace);
            self.name.push('/');
            self.name.push_str(&service.name);
        }
        // The name is copied only if it is new.
        if !self.services.contains_key(&self.name) {
            self.services.insert(self.name.clone(), Vec::new());
        }
        let fates = self.services.get_mut(&self.name);
        let fates = fates.unwrap_or_else(|| unreachable!("it is there"));
        let fate = Fate::of(record);
        let place = fates.iter().position(|(known, _)| *known == fate);
        let place = place.unwrap_or_else(|| {
            fates.push((fate, make()));
            fates.len() - 1
        });
        &mut fates[place].1
    }

    /// Every one, with the Service's namespace and name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Fate, &T)> {
        self.services.iter().flat_map(|(service, fates)| {
            fates
                .iter()
                .map(|(fate, of_it)| (service.as_str(), fate, of_it))
        })
    }
}
