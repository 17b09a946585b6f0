//! What the proxies in a cluster make of PROXY headers, for who follows it.
//!
//! Nothing that stands around the Services is listed for that. One Pod behind each Service by which
//! clients outside come to requests is read once, by its name; and of those that are a known proxy
//! the `ConfigMap` that its arguments name, by its name too, again and again. Nothing of either is
//! kept but whose it is, and what comes of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::Resource;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout};

use super::client::Client;
use super::error::ApiError;
use super::resource::{self, Location, Selection};
use crate::cluster::proxy::{Expects, HeaderReader, PodProxy, behind_doors};
use crate::cluster::{Index, PodRef, ServiceRef};

/// How often the settings are read again: people change them, and one is a request for each proxy
/// and node. A controller takes some seconds to go by another one, too.
const AGAIN: Duration = Duration::from_mins(2);
/// The same after the server had no answer: it has other things to do then.
const AFTER_FAILURE: Duration = Duration::from_secs(30);
/// How long a new index waits for this. What is not known by then is asked for the next time.
const PATIENCE: Duration = Duration::from_secs(2);
/// How many names a line has of what may not be read.
const SHOWN: usize = 3;

/// The proxies that clients outside come to.
pub(super) struct Proxies {
    client: Client,
    /// What was found in the Pods that were looked at.
    looked: BTreeMap<PodRef, Looked>,
    /// By which Services proxies are reached.
    readers: Vec<HeaderReader>,
    /// When the settings are to be read again.
    due: Instant,
    /// Before, nothing is asked: the server had no answer.
    not_before: Option<Instant>,
}

/// What was found in a Pod.
#[derive(Default)]
struct Looked {
    holds: Holds,
    /// What its proxy expects; `None` if that is not known.
    expects: Option<Expects>,
    /// What may not be read of it, and the server's word.
    refused: Option<(String, ApiError)>,
}

#[derive(Clone, Default)]
enum Holds {
    /// It could not be read, or is not there.
    #[default]
    Unread,
    NoProxy,
    Proxy(PodProxy),
}

impl Proxies {
    pub(super) fn new(client: &Client) -> Self {
        Self {
            client: client.clone(),
            looked: BTreeMap::new(),
            readers: Vec::new(),
            due: Instant::now(),
            not_before: None,
        }
    }

    /// When the settings are to be read again.
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
        let refused = || self.looked.values().filter_map(|it| it.refused.as_ref());
        let (_, error) = refused().next()?;
        let what: BTreeSet<_> = refused().map(|(what, _)| &**what).collect();
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

    /// Reads what is not known yet, and all settings if it is time; whether that comes to something
    /// else than before.
    pub(super) async fn read(&mut self, index: &Index) -> bool {
        let doors = behind_doors(index);
        let is_there = |pod: &PodRef| doors.iter().any(|(_, it)| it == pod);
        self.looked.retain(|pod, _| is_there(pod));
        let now = Instant::now();
        if self.not_before.is_none_or(|moment| now >= moment) {
            let is_answered = timeout(PATIENCE, self.ask(&doors)).await;
            self.not_before = match is_answered {
                Ok(Ok(())) => None,
                Ok(Err(_)) | Err(_) => Some(now + AFTER_FAILURE),
            };
        }
        let readers = self.found(&doors);
        let is_new = readers != self.readers;
        self.readers = readers;
        is_new
    }

    async fn ask(&mut self, doors: &[(ServiceRef, PodRef)]) -> Result<(), ApiError> {
        let is_due = Instant::now() >= self.due;
        for (number, (_, pod)) in doors.iter().enumerate() {
            let is_first = doors.iter().take(number).all(|(_, it)| it != pod);
            let before = self.looked.get(pod);
            if is_first && (is_due || before.is_none()) {
                let holds = before.map_or(Holds::Unread, |before| before.holds.clone());
                let looked = Looked::at(&self.client, pod, holds).await?;
                self.looked.insert(pod.clone(), looked);
            }
        }
        if is_due {
            self.due = Instant::now() + AGAIN;
        }
        Ok(())
    }

    fn found(&self, doors: &[(ServiceRef, PodRef)]) -> Vec<HeaderReader> {
        let reader = |(service, pod): &(ServiceRef, PodRef)| {
            let looked = self.looked.get(pod)?;
            match &looked.holds {
                Holds::Proxy(proxy) => Some(proxy.reader(service, looked.expects?)),
                Holds::NoProxy | Holds::Unread => None,
            }
        };
        doors.iter().filter_map(reader).collect()
    }
}

impl Looked {
    /// Reads a Pod, if it is not known what is in it, and the settings of its proxy. An error says
    /// nothing of them.
    async fn at(client: &Client, pod: &PodRef, holds: Holds) -> Result<Self, ApiError> {
        let holds = match holds {
            Holds::Unread => match one::<Pod>(client, &pod.namespace, &pod.name).await? {
                Found::Refused(refused) => return Ok(Self::refused(holds, refused)),
                Found::Nothing => Holds::Unread,
                Found::One(pod) => PodProxy::of(*pod).map_or(Holds::NoProxy, Holds::Proxy),
            },
            known => known,
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
    /// It may not be read.
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
        Err(error) if error.is_refusal() => {
            let what = format!("{} {namespace}/{name}", K::KIND);
            Ok(Found::Refused((what, error)))
        }
        Err(error) => Err(error),
    }
}
