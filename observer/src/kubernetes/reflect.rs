//! A list and then a watch, again and again: what a copy of the API server's objects is kept by.
//!
//! As client-go's reflector does it (`tools/cache/reflector.go`), in this order: the objects come
//! as a watch's initial events where the server has streaming lists (KEP-3157), else in pages; a
//! watch goes on from there. It is opened anew where it ended, and all is listed anew when the
//! server no longer knows that place (410 Gone), or sent what cannot be read.
//!
//! Not by `kube`'s own watcher, since that does not tell when a watch that broke is live again,
//! nor of bookmarks, and goes on after a line that it could not read, as if that were no change.

use std::hash::{BuildHasher as _, RandomState};
use std::mem;
use std::time::Duration;

use kube::core::Status;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::{Instant, sleep};

use super::client::{Client, Lines, Target};
use super::error::{ApiError, one_line};
use super::resource::{self, Kind, OBJECTS_MAX, Selection};

/// How long a watch may be silent. An API server that sends bookmarks does so every minute
/// (`storage/cacher/cacher.go`, `defaultBookmarkFrequency`). After a longer silence the watch is
/// opened anew, which does no harm to one that sends none, and shows whether anyone is there.
const SILENCE_MAX: Duration = Duration::from_secs(90);
/// How long a streamed list may pause.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// For how long the server is asked to watch: from this to twice this, as client-go does.
const WATCH_SECONDS: u64 = 300;
/// A watch that lasted so long was no failure, whatever ended it.
const STEADY: Duration = Duration::from_secs(10);

/// Of a list, so many objects that cannot be read are told.
const UNREADABLE_MAX: usize = 8;

/// The annotation of the bookmark that ends a streamed list.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// What a reflector tells, in order.
pub(super) enum Told<K> {
    /// All objects that there are; others are gone.
    All(Vec<K>),
    /// One is new or has changed.
    Put(K),
    /// One is gone.
    Gone(K),
    /// The server was heard from.
    Heard,
    /// The watch is live: from now on every change is told.
    Live,
    /// What there is could not be asked for. It will be, later.
    Failed(ApiError),
    /// An object cannot be read; it counts as missing.
    Unreadable(String),
}

struct Reflector<'a, K, F> {
    client: &'a Client,
    target: Target,
    tell: F,
    /// Where to go on; nowhere: list anew.
    version: Option<String>,
    /// Whether the server may have streaming lists.
    streams: bool,
    /// What could not be read of a list that is being streamed.
    unreadable: Vec<String>,
    kind: std::marker::PhantomData<fn() -> K>,
}

/// An open watch, and what was streamed of a list that it begins with.
struct Open<K> {
    lines: Lines,
    initial: Option<Vec<K>>,
}

#[derive(Deserialize)]
struct Event<'a> {
    r#type: String,
    #[serde(borrow)]
    object: &'a RawValue,
}

/// A bookmark has nothing else.
#[derive(Deserialize)]
struct Bookmark {
    metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
}

/// Pauses that grow, each a different part of its whole, so that those who lost the same server
/// do not come back at the same moment.
struct Backoff(Duration);

/// Follows the objects of a selection, for ever.
pub(super) async fn reflect<K: Kind>(
    client: &Client,
    selection: &Selection,
    tell: impl FnMut(Told<K>),
) {
    let mut reflector = Reflector {
        client,
        target: selection.target::<K>(),
        tell,
        version: None,
        streams: true,
        unreadable: Vec::new(),
        kind: std::marker::PhantomData,
    };
    let mut backoff = Backoff::START;
    loop {
        let began = Instant::now();
        let (ended, was_open) = match reflector.open().await {
            Ok(open) => (reflector.read(open).await, true),
            Err(error) => {
                (reflector.tell)(Told::Failed(error.clone()));
                (Err(error), false)
            }
        };
        if let Err(error) = ended
            && !error.may_be_asked_again()
        {
            reflector.version = None;
        }
        if was_open && began.elapsed() >= STEADY {
            backoff = Backoff::START;
        } else {
            sleep(backoff.next()).await;
        }
    }
}

impl<K: Kind, F: FnMut(Told<K>)> Reflector<'_, K, F> {
    /// Opens a watch that goes on from where the last one ended, or from a new list.
    async fn open(&mut self) -> Result<Open<K>, ApiError> {
        if self.version.is_none() && self.streams {
            let wanted = [
                ("sendInitialEvents", "true"),
                ("resourceVersionMatch", "NotOlderThan"),
            ];
            match self.watch(&wanted).await {
                Ok(lines) => {
                    self.unreadable.clear();
                    return Ok(Open {
                        lines,
                        initial: Some(Vec::new()),
                    });
                }
                // Without the feature it is a parameter that a watch may not have.
                Err(ApiError::Status {
                    code: 400 | 422, ..
                }) => self.streams = false,
                Err(error) => return Err(error),
            }
        }
        let version = match self.version.take() {
            Some(version) => version,
            None => self.list().await?,
        };
        self.version = Some(version.clone());
        let lines = self.watch(&[("resourceVersion", &version)]).await?;
        (self.tell)(Told::Live);
        Ok(Open {
            lines,
            initial: None,
        })
    }

    async fn list(&mut self) -> Result<String, ApiError> {
        let listed = resource::list(self.client, &self.target).await?;
        (self.tell)(Told::All(listed.objects));
        for unreadable in listed.unreadable {
            (self.tell)(Told::Unreadable(unreadable));
        }
        Ok(listed.version)
    }

    async fn watch(&self, more: &[(&'static str, &str)]) -> Result<Lines, ApiError> {
        let seconds = (WATCH_SECONDS + random() % WATCH_SECONDS).to_string();
        let target = self.target.with(&[
            ("watch", "true"),
            ("allowWatchBookmarks", "true"),
            ("timeoutSeconds", &seconds),
        ]);
        self.client.lines(&target.with(more)).await
    }

    /// Reads a watch to its end.
    async fn read(&mut self, open: Open<K>) -> Result<(), ApiError> {
        let Open {
            mut lines,
            mut initial,
        } = open;
        loop {
            let silence = if initial.is_some() {
                PAUSE_MAX
            } else {
                SILENCE_MAX
            };
            let line = match lines.next(silence).await {
                Ok(line) => line,
                Err(error) => {
                    // Who knows nothing of streamed lists may ignore what it was asked, and wait.
                    self.streams &= initial.is_none();
                    return Err(error);
                }
            };
            let Some(line) = line else {
                return Ok(());
            };
            if line.is_empty() {
                continue;
            }
            (self.tell)(Told::Heard);
            let event: Event<'_> = self.parse(&line)?;
            let object = event.object.get();
            match (&*event.r#type, &mut initial) {
                ("ADDED" | "MODIFIED", Some(initial)) => self.list_one(object, initial)?,
                ("ADDED" | "MODIFIED", None) => {
                    let object = self.object(object)?;
                    (self.tell)(Told::Put(object));
                }
                ("DELETED", None) => {
                    let object = self.object(object)?;
                    (self.tell)(Told::Gone(object));
                }
                ("BOOKMARK", initial) => {
                    let Bookmark { metadata } = self.parse(object.as_bytes())?;
                    let annotations = metadata.annotations.unwrap_or_default();
                    if annotations.contains_key(INITIAL_EVENTS_END)
                        && let Some(all) = initial.take()
                    {
                        (self.tell)(Told::All(all));
                        // Told after the list, which begins anew with what is known.
                        for unreadable in mem::take(&mut self.unreadable) {
                            (self.tell)(Told::Unreadable(unreadable));
                        }
                        (self.tell)(Told::Live);
                    }
                    // From the middle of a list there is no going on.
                    if initial.is_none() {
                        self.version = metadata.resource_version;
                    }
                }
                ("ERROR", _) => {
                    let status: Status = self.parse(object.as_bytes())?;
                    return Err(self.client.status(&self.target, status.code, &status));
                }
                (other, _) => return Err(self.unreadable(format!("an event {}", one_line(other)))),
            }
        }
    }

    /// An object of a streamed list.
    fn list_one(&mut self, text: &str, initial: &mut Vec<K>) -> Result<(), ApiError> {
        match serde_json::from_str::<K>(text) {
            Ok(object) => initial.push(object.trimmed()),
            Err(error) if self.unreadable.len() < UNREADABLE_MAX => {
                let unreadable = resource::describe::<K>(text, &error);
                self.unreadable.push(unreadable);
            }
            Err(_) => {}
        }
        if initial.len() > OBJECTS_MAX {
            return Err(self.unreadable(format!("there are more than {OBJECTS_MAX}")));
        }
        Ok(())
    }

    /// An object of an event, trimmed; its version is where to go on.
    fn object(&mut self, text: &str) -> Result<K, ApiError> {
        let object: K = serde_json::from_str(text)
            .map_err(|error| self.unreadable(resource::describe::<K>(text, &error)))?;
        self.version.clone_from(&object.metadata().resource_version);
        Ok(object.trimmed())
    }

    fn parse<'de, T: Deserialize<'de>>(&self, line: &'de [u8]) -> Result<T, ApiError> {
        serde_json::from_slice(line).map_err(|error| self.unreadable(one_line(&error.to_string())))
    }

    fn unreadable(&self, reason: String) -> ApiError {
        ApiError::Unreadable {
            resource: self.target.resource.to_owned(),
            reason,
        }
    }
}

impl Backoff {
    const START: Self = Self(Duration::from_millis(500));
    const MAX: Duration = Duration::from_secs(30);

    /// From half of the pause to all of it.
    fn next(&mut self) -> Duration {
        let Self(pause) = *self;
        self.0 = (pause * 2).min(Self::MAX);
        let half = pause / 2;
        half + a_part_of(half)
    }
}

/// Any part of a time, so that not all nodes ask at the same moment.
pub(super) fn a_part_of(time: Duration) -> Duration {
    let part = u32::try_from(random() % 1_000).unwrap_or_default();
    time * part / 1_000
}

/// Any number: what the standard library keeps its tables apart by.
fn random() -> u64 {
    RandomState::new().hash_one(())
}
