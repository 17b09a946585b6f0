//! All agents, as they come and go.

use std::collections::BTreeMap;
use std::time::Duration;

use hyper::header::HeaderValue;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::agent::{Agent, AgentError, Itself, Line, Lines};
use crate::kubernetes::{AgentPod, Agents, ApiError, Client, PodName, agents};
use crate::record::Record;

/// What may be heard and not yet be dealt with: a slow reader makes agents wait, and say so.
const HEARD_MAX: usize = 1_024;
/// The first pause before an agent is asked again, and the longest.
const PAUSE_MIN: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(15);
/// Who was followed for so long is asked again at once.
const STEADY: Duration = Duration::from_secs(10);

/// What is heard of agents.
#[derive(Debug)]
pub enum Heard {
    /// The nodes that have one, at every change.
    Nodes(Vec<String>),
    /// Which nodes those are cannot be asked for.
    Trouble(ApiError),
    /// Of the agent on a node.
    Of(String, What),
}

/// What is heard of one agent.
#[derive(Debug)]
pub enum What {
    /// From now on it is followed.
    Followed {
        /// Its version.
        version: String,
    },
    /// It saw a connection.
    Record(Box<Record>),
    /// It saw one, and what it says of it cannot be read.
    Unreadable(String),
    /// It cannot be followed, or no longer.
    Lost {
        /// Why.
        why: AgentError,
        /// Whether it just was.
        was_followed: bool,
    },
}

/// Follows the agents of a namespace, or of all, until nobody receives any more.
///
/// Must be called in a tokio runtime.
pub fn follow(
    client: Client,
    namespace: Option<&str>,
    token: Option<HeaderValue>,
) -> mpsc::Receiver<Heard> {
    let (tell, heard) = mpsc::channel(HEARD_MAX);
    let pods = agents(&client, namespace);
    let following = Following {
        client,
        token,
        tell,
        pods: BTreeMap::new(),
        tasks: JoinSet::new(),
    };
    tokio::spawn(following.run(pods));
    heard
}

struct Following {
    client: Client,
    token: Option<HeaderValue>,
    tell: mpsc::Sender<Heard>,
    /// Those that are followed, or tried to be. A task ends once its sender is dropped.
    pods: BTreeMap<PodName, (AgentPod, oneshot::Sender<()>)>,
    tasks: JoinSet<()>,
}

impl Following {
    async fn run(mut self, mut agents: watch::Receiver<Agents>) {
        let mut trouble = None;
        loop {
            let Agents {
                pods,
                trouble: new_trouble,
            } = agents.borrow_and_update().clone();
            if new_trouble != trouble {
                trouble.clone_from(&new_trouble);
                if let Some(error) = new_trouble
                    && self.tell.send(Heard::Trouble(error)).await.is_err()
                {
                    return;
                }
            }
            if let Some(pods) = pods {
                let mut nodes: Vec<_> = pods.values().map(|pod| pod.node.clone()).collect();
                nodes.sort_unstable();
                nodes.dedup();
                self.update(pods);
                if self.tell.send(Heard::Nodes(nodes)).await.is_err() {
                    return;
                }
            }
            tokio::select! {
                changed = agents.changed() => if changed.is_err() {
                    return;
                },
                () = self.tell.closed() => return,
            }
        }
    }

    /// Follows those that are new, and no longer those that are gone.
    fn update(&mut self, pods: BTreeMap<PodName, AgentPod>) {
        self.pods
            .retain(|name, (pod, _)| pods.get(name) == Some(pod));
        while self.tasks.try_join_next().is_some() {}
        for (name, pod) in pods {
            // Pods in their node's network share its ports: while one takes over from another, both
            // lead to the agent that still listens.
            let is_same = |(its, _): &(AgentPod, _)| (&its.node, its.port) == (&pod.node, pod.port);
            if self.pods.values().any(is_same) {
                continue;
            }
            let one = One {
                client: self.client.clone(),
                name: name.clone(),
                pod: pod.clone(),
                token: self.token.clone(),
                node: pod.node.clone(),
                tell: self.tell.clone(),
            };
            let (alive, gone) = oneshot::channel();
            self.tasks.spawn(one.follow(gone));
            self.pods.insert(name, (pod, alive));
        }
    }
}

/// One agent, followed.
struct One {
    client: Client,
    name: PodName,
    pod: AgentPod,
    token: Option<HeaderValue>,
    /// As it calls it.
    node: String,
    tell: mpsc::Sender<Heard>,
}

impl One {
    /// For as long as its pod is there.
    async fn follow(mut self, mut gone: oneshot::Receiver<()>) {
        let mut pause = PAUSE_MIN;
        loop {
            let began = Instant::now();
            let mut was_followed = false;
            let (why, is_gone) = tokio::select! {
                why = self.once(&mut was_followed) => match why {
                    Some(why) => (why, false),
                    None => return,
                },
                _ = &mut gone => (AgentError::Ended, true),
            };
            let lost = What::Lost { why, was_followed };
            if self.tell(lost).await.is_err() || is_gone {
                return;
            }
            if was_followed && began.elapsed() >= STEADY {
                pause = PAUSE_MIN;
            }
            tokio::select! {
                () = sleep(pause) => {}
                _ = &mut gone => return,
            }
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Until it cannot be followed, or no longer; `None`: nobody listens.
    async fn once(&mut self, was_followed: &mut bool) -> Option<AgentError> {
        let (version, mut lines) = match self.open().await {
            Ok(open) => open,
            Err(why) => return Some(why),
        };
        *was_followed = true;
        self.tell(What::Followed { version }).await.ok()?;
        loop {
            let what = match lines.next().await {
                Ok(Line::Record(record)) if *record.node == *self.node => What::Record(record),
                Ok(Line::Record(_)) => {
                    What::Unreadable("it is of another node than its agent's".to_owned())
                }
                Ok(Line::Unreadable(error)) => What::Unreadable(error),
                Ok(Line::Last(why)) | Err(why) => return Some(why),
            };
            self.tell(what).await.ok()?;
        }
    }

    async fn open(&mut self) -> Result<(String, Lines), AgentError> {
        let token = self.token.clone();
        let mut agent = Agent::connect(&self.client, &self.name, &self.pod, token).await?;
        let Itself { node, version } = agent.itself().await?;
        self.node = node;
        Ok((version, agent.follow().await?))
    }

    async fn tell(&self, what: What) -> Result<(), mpsc::error::SendError<Heard>> {
        self.tell.send(Heard::Of(self.node.clone(), what)).await
    }
}
