//! Whether the cluster's objects can be had, and which of them may not be read.

use serde::Serialize;

use super::facts::told;
use super::report::Check;
use crate::cli::source::ClusterSource;
use crate::cluster::{Objects, file};
use crate::kubernetes::{self, AccessError, Scope};

const NAME: &str = "cluster";
const WITHOUT: &str = "only rewritten connections are told, and no names";

/// What was found of the cluster.
#[derive(Debug)]
pub(super) struct ClusterSeen {
    pub(super) objects: Option<Objects>,
    pub(super) source: Source,
}

/// Where the objects are from.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Source {
    /// A file that was given.
    File,
    /// The API server; with what is missing, and why.
    Api {
        /// A line for each kind.
        missing: Vec<String>,
    },
    /// The API server, which does not give them.
    Unreachable(String),
    /// Nobody knows of an API server.
    Nowhere,
}

impl ClusterSeen {
    /// A file that makes no sense is an error; an API server that does not answer is a finding.
    pub(super) async fn by(source: &ClusterSource) -> anyhow::Result<Self> {
        if let Some(path) = source.file() {
            return Ok(Self {
                objects: Some(file::objects(path)?),
                source: Source::File,
            });
        }
        let without = |source| {
            Ok(Self {
                objects: None,
                source,
            })
        };
        let client = match source.client().await {
            Ok(client) => client,
            Err(AccessError::Nowhere) => return without(Source::Nowhere),
            Err(error) => return without(Source::Unreachable(told(&error))),
        };
        match kubernetes::read(&client, &Scope::Cluster).await {
            Ok(kubernetes::Read { objects, missing }) => Ok(Self {
                objects: Some(objects),
                source: Source::Api { missing },
            }),
            Err(error) => without(Source::Unreachable(told(&error))),
        }
    }
}

/// How it stands with that; nothing to say of a file.
pub(super) fn checks(source: &Source) -> Vec<Check> {
    match source {
        Source::File => Vec::new(),
        Source::Api { missing } if missing.is_empty() => {
            vec![Check::ok(
                NAME,
                "its API server gives all that is asked of it",
            )]
        }
        Source::Api { missing } => missing
            .iter()
            .map(|missing| {
                Check::warning(NAME, missing.clone())
                    .means("what such objects would tell is not known")
            })
            .collect(),
        Source::Unreachable(why) => vec![Check::warning(NAME, why.clone()).means(WITHOUT)],
        Source::Nowhere => vec![
            Check::ok(NAME, "no kubeconfig here, and this is no pod")
                .means(WITHOUT)
                .remedy("give --kubeconfig, or --cluster-state"),
        ],
    }
}
