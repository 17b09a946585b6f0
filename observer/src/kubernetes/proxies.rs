//! What the proxies in a cluster make of PROXY headers, for who follows it.
//!
//! Nothing that stands around the Services is listed for that. One Pod behind each Service by which
//! clients outside come to requests is read by its name; and of those that are a known proxy the
//! `ConfigMap` that its arguments name, by its name too. These two are read again and again: a Pod of
//! the same name may be another one, and people change settings. Nothing of either is kept but whose
//! it is, and what comes of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::Resource;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout};

use super::client::Client;
use super::error::ApiError;
use super::reflect::a_part_of;
use super::resource::{self, Location, Selection};
use crate::cluster::proxy::{Expects, HeaderReader, PodProxy, behind_doors};
use crate::cluster::{Index, PodRef, ServiceRef};

/// How often a proxy and its settings are read again, at the latest: people change them, and these
/// are two requests for each proxy and node. A controller takes some seconds to go by another one, too.
const AGAIN: Duration = Duration::from_mins(2);
/// By so much it may be earlier: nodes that began together are soon apart.
const EARLIER: Duration = Duration::from_secs(30);
/// The same after the server had no answer: it has other things to do then.
const AFTER_FAILURE: Duration = Duration::from_secs(30);
/// How long what comes new may wait: all nodes hear of it at the same moment.
const NEW_WITHIN: Duration = Duration::from_secs(10);
/// How long a new index waits for this. What is not known by then is asked for the next time.
const PATIENCE: Duration = Duration::from_secs(2);
/// How many Pods are remembered, if more come and go than there are behind Services.
const REMEMBERED_MAX: usize = 1 << 10;
/// How many names a line has of what may not be read.
const SHOWN: usize = 3;

/// The proxies that clients outside come to.
pub(super) struct Proxies {
    client: Client,
    /// The Services by which they come, and a Pod behind each.
    doors: Vec<(ServiceRef, PodRef)>,
    /// What was found in the Pods that were looked at; of one that is gone until it would be read
    /// again, since it may only not be ready for a moment.
    looked: BTreeMap<PodRef, Looked>,
    /// By which Services proxies are reached.
    readers: Vec<HeaderReader>,
    /// When Pods that were not looked at yet may be; `None` if there are none. The first at once.
    new_due: Option<Instant>,
    /// When something is to be read.
    due: Instant,
    /// Before, nothing is asked: the server had no answer.
    not_before: Option<Instant>,
}

/// What was found in a Pod.
struct Looked {
    found: Known,
    /// When it is to be read again.
    due: Instant,
}

#[derive(Default)]
struct Known {
    holds: Holds,
    /// What its proxy expects; `None` if that is not known.
    expects: Option<Expects>,
    /// What may not be read of it, and the server's word.
    refused: Option<(String, ApiError)>,
}

#[derive(Default)]
enum Holds {
    /// It could not be read, or is not there.
    #[default]
    Unread,
    NoProxy,
    Proxy(PodProxy),
}

impl Proxies {
    pub(super) fn new(client: &Client) -> Self {
        let now = Instant::now();
        Self {
            client: client.clone(),
            doors: Vec::new(),
            looked: BTreeMap::new(),
            readers: Vec::new(),
            new_due: Some(now),
            due: now,
            not_before: None,
        }
    }

    /// When something is to be read.
    pub(super) fn due(&self) -> Instant {
        self.not_before
            .map_or(self.due, |moment| moment.max(self.due))
    }

    /// What is known of them.
    pub(super) fn readers(&self) -> &[HeaderReader] {
        &self.readers
    }

    /// What may not be read, and what is lost by that, on one line.
    pub(super) fn trouble(&self) -> Option<String> {
        let behind = self.doors.iter();
        let looked = behind.filter_map(|(_, pod)| self.looked.get(pod));
        let refused: Vec<_> = looked.filter_map(|it| it.found.refused.as_ref()).collect();
        let (_, error) = refused.first()?;
        let what: BTreeSet<_> = refused.iter().map(|(what, _)| &**what).collect();
        let shown: Vec<_> = what.iter().copied().take(SHOWN).collect();
        let more = match what.len() - shown.len() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        Some(format!(
            "{error}: findings about PROXY headers need {}{more}",
            shown.join(", ")
        ))
    }

    /// Reads what is not known yet, and what is to be read again; whether that comes to something
    /// else than before.
    pub(super) async fn read(&mut self, index: &Index) -> bool {
        let now = Instant::now();
        self.doors = behind_doors(index, |pod| {
            let looked = self.looked.get(pod);
            looked.is_some_and(|it| !matches!(it.found.holds, Holds::Unread))
        });
        self.forget(now);
        if self.not_before.is_none_or(|moment| now >= moment) {
            let is_answered = timeout(PATIENCE, self.ask(now)).await;
            self.not_before = match is_answered {
                Ok(Ok(())) => None,
                Ok(Err(_)) | Err(_) => Some(now + AFTER_FAILURE),
            };
        }
        self.due = self.next(now);
        let readers = self.found();
        let is_new = readers != self.readers;
        self.readers = readers;
        is_new
    }

    /// Forgets Pods that stand for no Service any more, and says when new ones are asked for.
    fn forget(&mut self, now: Instant) {
        let there: BTreeSet<&PodRef> = self.doors.iter().map(|(_, pod)| pod).collect();
        let is_full = self.looked.len() > REMEMBERED_MAX;
        self.looked
            .retain(|pod, it| there.contains(pod) || (!is_full && it.due > now));
        let has_new = there.iter().any(|pod| !self.looked.contains_key(*pod));
        let soon = || now + a_part_of(NEW_WITHIN);
        self.new_due = has_new.then(|| self.new_due.unwrap_or_else(soon));
    }

    /// Asks for each Pod whose turn it is. An error that says nothing of it ends that; then it comes
    /// after the others the next time, so that none can keep them from being read.
    async fn ask(&mut self, now: Instant) -> Result<(), ApiError> {
        for pod in self.turns(now) {
            let looked = self.looked.entry(pod.clone()).or_insert_with(|| Looked {
                found: Known::default(),
                due: now,
            });
            looked.due = now;
            if !matches!(looked.found.holds, Holds::NoProxy) {
                looked.found = Known::of(&self.client, &pod).await?;
            }
            looked.due = Instant::now() + AGAIN - a_part_of(EARLIER);
        }
        self.new_due = self.new_due.filter(|moment| *moment > now);
        Ok(())
    }

    /// Those whose turn it is: new ones, and then who waits longest.
    fn turns(&self, now: Instant) -> Vec<PodRef> {
        let is_turn = |pod: &PodRef| match self.looked.get(pod) {
            Some(looked) => looked.due <= now,
            None => self.new_due.is_some_and(|moment| moment <= now),
        };
        let mut turns = Vec::new();
        for (_, pod) in &self.doors {
            if is_turn(pod) && !turns.contains(pod) {
                turns.push(pod.clone());
            }
        }
        turns.sort_by_key(|pod| self.looked.get(pod).map(|looked| looked.due));
        turns
    }

    fn next(&self, now: Instant) -> Instant {
        let new_due = self.new_due.unwrap_or(now);
        let looked = |pod| self.looked.get(pod);
        let dues = self.doors.iter();
        let dues = dues.map(|(_, pod)| looked(pod).map_or(new_due, |it| it.due));
        dues.min().unwrap_or(now + AGAIN)
    }

    fn found(&self) -> Vec<HeaderReader> {
        let reader = |(service, pod): &(ServiceRef, PodRef)| {
            let Known { holds, expects, .. } = &self.looked.get(pod)?.found;
            match holds {
                Holds::Proxy(proxy) => Some(proxy.reader(service, (*expects)?)),
                Holds::NoProxy | Holds::Unread => None,
            }
        };
        self.doors.iter().filter_map(reader).collect()
    }
}

impl Known {
    /// Reads a Pod, and the settings of its proxy. An error says nothing of them.
    async fn of(client: &Client, pod: &PodRef) -> Result<Self, ApiError> {
        let holds = match one::<Pod>(client, &pod.namespace, &pod.name).await? {
            Found::Refused(refused) => return Ok(Self::refused(Holds::Unread, refused)),
            Found::Nothing => Holds::Unread,
            Found::One(pod) => PodProxy::of(*pod).map_or(Holds::NoProxy, Holds::Proxy),
        };
        let Holds::Proxy(proxy) = &holds else {
            return Ok(Self {
                holds,
                ..Self::default()
            });
        };
        let config_map = match proxy.config_map() {
            None => None,
            Some((namespace, name)) => match one::<ConfigMap>(client, namespace, name).await? {
                Found::Refused(refused) => return Ok(Self::refused(holds, refused)),
                Found::Nothing => None,
                Found::One(config_map) => Some(config_map),
            },
        };
        Ok(Self {
            expects: proxy.expects(config_map.as_deref()),
            holds,
            refused: None,
        })
    }

    const fn refused(holds: Holds, refused: (String, ApiError)) -> Self {
        Self {
            holds,
            expects: None,
            refused: Some(refused),
        }
    }
}

/// What came of asking for one object.
enum Found<K> {
    One(Box<K>),
    Nothing,
    /// It may not be read, or the server will not have that question.
    Refused((String, ApiError)),
}

/// An object by its name, in a list, so that a role can be limited to it.
async fn one<K>(client: &Client, namespace: &str, name: &str) -> Result<Found<K>, ApiError>
where
    K: Resource + DeserializeOwned,
{
    let selection = Selection {
        namespace: Some(namespace.to_owned()),
        fields: Some(format!("metadata.name={name}")),
        labels: None,
    };
    let target = selection.at(Location::of::<K>());
    match resource::list_as(client, &target, K::KIND, std::convert::identity).await {
        Ok(listed) => Ok(match listed.objects.into_iter().next() {
            Some(object) => Found::One(Box::new(object)),
            None => Found::Nothing,
        }),
        Err(error) if is_of_one(&error) => {
            let what = format!("{} {namespace}/{name}", K::KIND);
            Ok(Found::Refused((what, error)))
        }
        Err(error) => Err(error),
    }
}

/// Whether an error is about what was asked for, and not about the server.
fn is_of_one(error: &ApiError) -> bool {
    let is_broken = matches!(error, ApiError::Status { code: 500.., .. });
    !is_broken && !error.may_be_asked_again()
}
