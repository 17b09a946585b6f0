//! `observer explain`: what every front door does to the client's address, from the objects of a
//! cluster or a folder of manifests alone. Needs no privilege and no kernel.

use std::collections::HashSet;
use std::env;
use std::io::{self, BufWriter, ErrorKind, Write as _};
use std::net::IpAddr;

use anyhow::{Context as _, bail};
use clap::builder::PossibleValuesParser;
use clap::{Args, ValueEnum};
use strum::VariantNames as _;

use super::filter::ServiceName;
use super::source::{Given, WholeSource};
use super::{Ending, block_on, names, say};
use crate::cluster::facts::Facts;
use crate::cluster::finding::Finding;
use crate::cluster::front::Delivers;
use crate::cluster::{Index, KubeProxy, Objects, ServicePort, ServiceRef};
use crate::manifests::{self, Assumption};
use crate::output::{self, Page, Picture, Style, Writer};
use crate::verdict::advice::ChangeCode;
use crate::verdict::chain::{Explained, Explainer, Word};
use crate::words::{Language, Words};

mod health;

/// Stands for the change that is best for each Service.
const BEST: &str = "best";

#[derive(Debug, Args)]
pub(super) struct Options {
    /// Only this Service, or this port of it: `shop/web`, `shop/web:http`.
    #[arg(value_name = "NAMESPACE/SERVICE")]
    service: Option<ServiceName>,
    #[command(flatten)]
    source: WholeSource,
    /// Only this client: a pod's address, a node's, or any other for one from outside. What goes
    /// by addresses (`loadBalancerSourceRanges`, the cluster CIDR, hairpins) is told then, too.
    #[arg(long, value_name = "ADDRESS")]
    client: Option<IpAddr>,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
    /// Draw the ways instead: client, load balancer, node, proxy, pod, and whose address each
    /// passes on.
    #[arg(
        long,
        value_enum,
        value_name = "HOW",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "text",
        conflicts_with = "output"
    )]
    diagram: Option<Picture>,
    /// Make a change to the objects as they were read, not to the cluster, and explain what comes
    /// of it: the best for each Service, or the one that is named.
    #[arg(
        long,
        value_name = "CHANGE",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = BEST,
        value_parser = changes()
    )]
    apply: Option<String>,
    /// Ask the nodes at every healthCheckNodePort, and compare what they say.
    #[arg(long)]
    health: bool,
    /// End with exit code 3 if a client outside comes to this by the doors that are meant for it.
    #[arg(long, value_enum, value_name = "WHAT", value_delimiter = ',')]
    fail_on: Vec<FailOn>,
    /// The language of sentences [default: that of the environment, if it is one of these].
    #[arg(long, value_enum)]
    lang: Option<Language>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people: what is the same by several nodes in one row.
    Table,
    /// One document, `observer.explanation/v1`.
    Json,
    /// For a merge request or a wiki.
    Markdown,
}

/// What a pipeline over manifests does not let pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum FailOn {
    /// Pods see another address than the client's.
    Lost,
    /// So, and no header tells it either.
    Unrecoverable,
    /// A node that clients may enter by lets nothing through, or no way is open.
    Dropped,
}

/// What explanations rest on.
struct Ground {
    index: Index,
    facts: Facts,
    /// What was assumed of the rest.
    assumed: Vec<Assumption>,
}

fn changes() -> PossibleValuesParser {
    PossibleValuesParser::new([&[BEST], ChangeCode::VARIANTS].concat())
}

pub(super) fn run(options: &Options) -> anyhow::Result<Ending> {
    let language = options
        .lang
        .unwrap_or_else(|| Language::of(|name| env::var(name).ok()));
    let words = Words::of(language);
    let Given {
        mut objects,
        mut assumed,
        findings,
    } = block_on(options.source.whole())?;
    if let Some(service) = &options.service
        && let Some(but) = names::service(service, Some(&objects))?
    {
        say(&format!("warning: {but}"));
    }
    let kube_proxy = match options.source.cluster.kube_proxy()? {
        Some(given) => Some(given),
        None => KubeProxy::of_cluster(&objects.config_maps)
            .context("the ConfigMap of kube-proxy; give --kube-proxy-config")?,
    };
    if objects.nodes.is_empty() {
        bail!(
            "there are no Nodes among the objects: what happens depends on the node one enters by"
        );
    }
    let run = Run {
        options,
        words: &words,
        kube_proxy: kube_proxy.as_ref(),
    };
    let mut ground = Ground::of(&objects, &assumed, &findings);
    if objects.services.is_empty() && ground.facts.hosts.is_empty() {
        bail!("there are no Services among the objects, and no ports of nodes: nothing to explain");
    }
    if let Some(change) = &options.apply {
        run.apply(change, &ground, &mut objects);
        assumed.extend(manifests::allocate(&mut objects));
        ground = Ground::of(&objects, &assumed, &findings);
    }
    let found = run.print(&ground, objects.others)?;
    if kube_proxy.is_none() {
        say(&words.say("label-kube-proxy-unknown", &[]));
    }
    let agrees = !options.health || run.ask(&ground)?;
    Ok(match (agrees, found) {
        (false, _) => Ending::Unable,
        (true, true) => Ending::Found,
        (true, false) => Ending::Done,
    })
}

/// One run of the command.
#[derive(Clone, Copy)]
struct Run<'a> {
    options: &'a Options,
    words: &'a Words,
    kube_proxy: Option<&'a KubeProxy>,
}

impl Run<'_> {
    fn explained<'b>(&'b self, ground: &'b Ground) -> impl Iterator<Item = Explained<'b>> + 'b {
        let asked = self.options.service.as_ref();
        let explainer = Explainer {
            index: &ground.index,
            facts: &ground.facts,
            kube_proxy: self.kube_proxy,
            client: self.options.client,
        };
        explainer.explain(move |port: &ServicePort| asked.is_none_or(|asked| asked.names(port)))
    }

    /// Prints, and says whether something was found on which to fail.
    fn print(&self, ground: &Ground, others: usize) -> anyhow::Result<bool> {
        let Self {
            options,
            words,
            kube_proxy,
        } = *self;
        let sentences: Vec<_> = ground
            .assumed
            .iter()
            .map(|assumption| words.tell("assumption", assumption))
            .collect();
        let mode = kube_proxy.map(|config| output::word(&config.mode).to_lowercase());
        let rest = output::Ground {
            facts: &ground.facts,
            assumed: &sentences,
            kube_proxy: mode.as_deref(),
            others,
            whole: options.service.is_none(),
        };
        let style = match (options.diagram, options.output) {
            (Some(picture), _) => Style::Diagram(picture),
            (None, Format::Json) => Style::Json,
            (None, Format::Markdown) => Style::Markdown,
            (None, Format::Table) => Style::Table(Page::stdout()),
        };
        let mut writer = Writer::new(style, rest, words);
        let mut stdout = BufWriter::new(io::stdout().lock());
        let mut put = |text: String| written(stdout.write_all(text.as_bytes()));
        put(writer.head())?;
        let mut found = false;
        for explained in self.explained(ground) {
            found |= self.is_found(&explained, ground);
            put(writer.service(&explained))?;
        }
        put(writer.tail())?;
        put("\n".to_owned())?;
        written(stdout.flush())?;
        Ok(found)
    }

    /// Makes a change of each Service's advice, and says which.
    fn apply(&self, change: &str, ground: &Ground, objects: &mut Objects) {
        for explained in self.explained(ground) {
            let advice = &explained.advice;
            // The best is the first, and nothing else if no objects of a known name make that.
            let change = if change == BEST {
                advice.first()
            } else {
                advice.iter().find(|it| it.code.to_string() == change)
            };
            match change.filter(|change| !change.patches.is_empty()) {
                Some(change) => {
                    for patch in &change.patches {
                        if let Err(error) = patch.apply(objects) {
                            say(&error.to_string());
                            continue;
                        }
                        let set = [("what", &*patch.command())];
                        say(&self.words.say("label-changed", &set));
                    }
                }
                None if advice.is_empty() => {}
                None => {
                    let set = [("service", &*explained.service.to_string())];
                    say(&self.words.say("label-not-changed", &set));
                }
            }
        }
    }

    fn is_found(&self, explained: &Explained<'_>, ground: &Ground) -> bool {
        let verdict = &explained.verdict;
        let mut assumed = ground.assumed.iter();
        let has_assumed_nodes = assumed.any(|it| matches!(it, Assumption::Nodes { .. }));
        self.options.fail_on.iter().any(|fail_on| match fail_on {
            FailOn::Lost => verdict.loses(),
            FailOn::Unrecoverable => {
                verdict.loses() && verdict.recoverable.is_empty() && !verdict.may_be_recoverable
            }
            // A node that is only assumed shows what may be; no pipeline fails for it.
            FailOn::Dropped if has_assumed_nodes => verdict.word == Word::Unreachable,
            FailOn::Dropped => verdict.closes(),
        })
    }

    /// Asks the nodes; whether all say what is expected.
    fn ask(&self, ground: &Ground) -> anyhow::Result<bool> {
        let services: Vec<_> = self.explained(ground).collect();
        let said = block_on(async { Ok(health::ask(&services, self.words).await) })?;
        let lines = said.iter().map(|(_, line)| line.as_str());
        if self.options.output == Format::Table && self.options.diagram.is_none() {
            let lines: Vec<_> = lines.collect();
            output::print(&lines.join("\n")).context("cannot write to stdout")?;
        } else {
            // A document ends where it ends.
            lines.for_each(say);
        }
        Ok(said.iter().all(|(agrees, _)| *agrees))
    }
}

/// Where nobody reads, that is no error.
fn written(result: io::Result<()>) -> anyhow::Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result.context("cannot write to stdout"),
    }
}

impl Ground {
    /// The address that a load balancer is assumed to have counts where one would have it, and
    /// tells nothing of which load balancer that is.
    fn of(objects: &Objects, assumed: &[Assumption], missing: &[Finding]) -> Self {
        let addressed: HashSet<_> = assumed
            .iter()
            .filter_map(|assumption| match assumption {
                Assumption::LoadBalancerAddress { service, .. } => Some(service.as_str()),
                _ => None,
            })
            .collect();
        if addressed.is_empty() {
            return Self {
                index: Index::build(objects),
                facts: Facts::of(objects).with(missing),
                assumed: assumed.to_vec(),
            };
        }
        let mut without = objects.clone();
        forget_addresses(&mut without, |service| {
            addressed.contains(&*service.to_string())
        });
        let facts = Facts::of(&without).with(missing);
        let has_none = |service: &ServiceRef| {
            let front = facts.load_balancers.get(service);
            front.is_some_and(|front| front.delivers != Delivers::VirtualIp)
        };
        let has_none: HashSet<_> = objects
            .services
            .iter()
            .map(|service| ServiceRef::of(&service.metadata))
            .filter(|service| addressed.contains(&*service.to_string()) && has_none(service))
            .map(|service| service.to_string())
            .collect();
        let mut objects = objects.clone();
        forget_addresses(&mut objects, |service| {
            has_none.contains(&service.to_string())
        });
        let is_kept = |assumption: &&Assumption| match assumption {
            Assumption::LoadBalancerAddress { service, .. } => !has_none.contains(service),
            _ => true,
        };
        Self {
            index: Index::build(&objects),
            assumed: assumed.iter().filter(is_kept).cloned().collect(),
            facts,
        }
    }
}

fn forget_addresses(objects: &mut Objects, of: impl Fn(&ServiceRef) -> bool) {
    for service in &mut objects.services {
        if of(&ServiceRef::of(&service.metadata)) {
            service.status = None;
        }
    }
}
