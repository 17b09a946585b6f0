//! `observer trace --cluster`: the connections of all nodes, by the agents on them. Needs no
//! privilege and no kernel, but a way to the API server.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Args;
use hyper::header::HeaderValue;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{sleep_until, timeout_at};

use super::super::Ending;
use super::super::agent::token;
use super::super::report::{Report, ReportOptions};
use super::super::source::ClusterSource;
use crate::across::{Halves, Heard, Nodes, START, What, follow, listed};
use crate::kubernetes::{self, LABEL};
use crate::notice::say;
use crate::record::Record;

/// How much longer than its answer a connection's other half may take.
const HALF_PATIENCE: Duration = Duration::from_secs(2);
/// Where `deploy` puts the agents. Others may label pods of theirs as they like.
const NAMESPACE: &str = "source-ip-observer";
/// The heading of the options for that.
const CLUSTER: &str = "The whole cluster";

/// Which agents.
#[derive(Clone, Debug, Args)]
pub(in super::super) struct AgentOptions {
    /// Follow the connections of every node with an agent (`observer agent`), and join what two
    /// nodes saw of one.
    #[arg(
        long,
        conflicts_with_all = ["cluster_state", "kube_proxy_config"],
        help_heading = CLUSTER
    )]
    pub(super) cluster: bool,
    /// Where the agents are.
    #[arg(
        long,
        value_name = "NAMESPACE",
        default_value = NAMESPACE,
        requires = "cluster",
        help_heading = CLUSTER
    )]
    agent_namespace: String,
    /// What agents ask for: the first line of this file.
    #[arg(long, value_name = "FILE", requires = "cluster", help_heading = CLUSTER)]
    token_file: Option<PathBuf>,
}

/// Everything under way.
struct Following {
    heard: mpsc::Receiver<Heard>,
    nodes: Nodes,
    halves: Halves,
    report: Report,
    stop: Stop,
}

/// The signals that end a run.
struct Stop([Signal; 3]);

/// What comes next.
enum Next {
    Heard(Heard),
    Due,
    Stop,
}

/// Until Ctrl-C, SIGTERM, a closed terminal, the duration, the count, or a closed stdout.
pub(super) async fn across(
    agents: AgentOptions,
    source: &ClusterSource,
    report: ReportOptions,
    answer_timeout: Duration,
    duration: Option<Duration>,
) -> anyhow::Result<Ending> {
    let AgentOptions {
        cluster: _,
        agent_namespace,
        token_file,
    } = agents;
    let token = token_file.as_deref().map(token).transpose()?;
    let token = token.as_deref().map(bearer).transpose()?;
    let client = source.client().await?;
    let stop = Stop::new()?;
    let mut stop = stop;
    let known = tokio::select! {
        known = kubernetes::names(&client) => known,
        () = stop.stopped() => return Ok(Ending::Done),
    };
    // Who may not read Services is believed.
    if !known.services.is_empty()
        && let Some(but) = report.unusual_service(Some(&known))?
    {
        say(&format!("warning: {but}"));
    }
    let mut following = Following {
        heard: follow(client, Some(&agent_namespace), token),
        nodes: Nodes::new(env!("CARGO_PKG_VERSION")),
        halves: Halves::new(answer_timeout + HALF_PATIENCE),
        report: Report::new(report),
        stop,
    };
    if !following.start(&agent_namespace).await? {
        return following.end();
    }
    let all = known
        .nodes
        .into_iter()
        .filter_map(|node| node.metadata.name);
    following.tell_of_nodes_without(all);
    following
        .run(duration.map(|duration| Instant::now() + duration))
        .await?;
    following.end()
}

impl Following {
    /// Until agents are followed; an error if none can be. Whether it was not ended first.
    async fn start(&mut self, namespace: &str) -> anyhow::Result<bool> {
        let deadline = tokio::time::Instant::now() + START;
        let mut is_listed = false;
        while !(is_listed && self.nodes.are_settled()) {
            let heard = tokio::select! {
                heard = timeout_at(deadline, self.heard.recv()) => heard,
                () = self.stop.stopped() => return Ok(false),
            };
            match heard {
                Ok(Some(Heard::Trouble(error))) if !is_listed => bail!(error),
                Ok(Some(Heard::Nodes(nodes))) if nodes.is_empty() => {
                    bail!(
                        "there are no agents: no pod with the label {LABEL} runs in the namespace \
                         {namespace}; if they are in another, give --agent-namespace; to install \
                         them: kubectl apply --kustomize deploy/overlays/capabilities"
                    );
                }
                Ok(Some(heard)) => {
                    is_listed |= matches!(heard, Heard::Nodes(_));
                    self.take(heard)?;
                }
                Ok(None) => bail!("nobody follows the agents any more"),
                Err(_late) => break,
            }
        }
        let (followed, others) = self.nodes.begin(Instant::now());
        match &others[..] {
            [] => {}
            [(_, why), rest @ ..] if followed.is_empty() => {
                if rest.iter().all(|(_, its)| its == why) {
                    bail!("none of {} agents can be followed: {why}", others.len());
                }
                let each = others.iter().map(|(node, why)| format!("{node}: {why}"));
                let each: Vec<_> = each.collect();
                bail!("no agent can be followed: {}", listed(&each));
            }
            some => {
                for (node, why) in some {
                    say(&format!("warning: {node}: {why}; what it sees is missing"));
                }
            }
        }
        say(&format!("observing {}", listed(&followed)));
        Ok(true)
    }

    fn tell_of_nodes_without(&mut self, all: impl Iterator<Item = String>) {
        let without = self.nodes.without_agents(all);
        if !without.is_empty() {
            say(&format!(
                "warning: there is no agent on {}: what comes by there is not seen",
                listed(&without)
            ));
        }
    }

    async fn run(&mut self, until: Option<Instant>) -> anyhow::Result<()> {
        while !self.report.is_done() {
            match self.next(until).await {
                Next::Heard(heard) => self.take(heard)?,
                Next::Due => {
                    let due = self.halves.due(Instant::now());
                    self.print(&due)?;
                }
                Next::Stop => return Ok(()),
            }
        }
        Ok(())
    }

    async fn next(&mut self, until: Option<Instant>) -> Next {
        let Self {
            heard,
            halves,
            stop,
            ..
        } = self;
        let at = async |moment: Option<Instant>| match moment {
            Some(moment) => sleep_until(moment.into()).await,
            None => std::future::pending().await,
        };
        tokio::select! {
            heard = heard.recv() => heard.map_or(Next::Stop, Next::Heard),
            () = at(halves.next_deadline()) => Next::Due,
            () = at(until) => Next::Stop,
            () = stop.stopped() => Next::Stop,
        }
    }

    fn take(&mut self, heard: Heard) -> anyhow::Result<()> {
        let now = Instant::now();
        match heard {
            Heard::Nodes(names) => self.nodes.have_agents(&names, now),
            Heard::Trouble(error) => say(&format!(
                "warning: {error}: agents that come and go are not noticed meanwhile"
            )),
            Heard::Of(node, what) => {
                if let Some(line) = self.nodes.heard(&node, &what, now) {
                    say(&line);
                }
                if let What::Record(record) = what {
                    if let Some(line) = self.nodes.without_agent(&record) {
                        say(&line);
                    }
                    let whole = self.halves.add(now, *record, self.nodes.followed());
                    self.print(&whole)?;
                }
            }
        }
        Ok(())
    }

    fn print(&mut self, records: &[Record]) -> anyhow::Result<()> {
        records
            .iter()
            .try_for_each(|record| self.report.take(record))?;
        self.report.flush()
    }

    /// What waits comes out, then the summary.
    fn end(mut self) -> anyhow::Result<Ending> {
        let rest = self.halves.end();
        self.print(&rest)?;
        say(&self.report.summary(None));
        for line in self.nodes.summary(Instant::now()) {
            say(&line);
        }
        let alone = self.halves.alone();
        if alone > 0 {
            say(&format!(
                "{alone} records have no other half, although its node is followed: it was not \
                 told, or the nodes' clocks are far apart, or it fits more than one"
            ));
        }
        let impatient = self.halves.impatient();
        if impatient > 0 {
            say(&format!(
                "warning: {impatient} records did not wait for their other half: too many did"
            ));
        }
        Ok(self.report.ending())
    }
}

impl Stop {
    fn new() -> anyhow::Result<Self> {
        let [interrupt, terminate, hangup] = [
            SignalKind::interrupt(),
            SignalKind::terminate(),
            SignalKind::hangup(),
        ]
        .map(signal);
        let cannot = "cannot listen for signals";
        Ok(Self([
            interrupt.context(cannot)?,
            terminate.context(cannot)?,
            hangup.context(cannot)?,
        ]))
    }

    async fn stopped(&mut self) {
        let Self([interrupt, terminate, hangup]) = self;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

/// The header with a token.
fn bearer(token: &str) -> anyhow::Result<HeaderValue> {
    let header = HeaderValue::from_str(&format!("Bearer {token}"));
    let mut header = header.context("the token has a character that no header may have")?;
    header.set_sensitive(true);
    Ok(header)
}
