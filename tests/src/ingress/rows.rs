//! The table of what fits together in front of an ingress controller, and what does not; its file
//! says what its columns mean.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use serde::Deserialize;

/// One row.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// What stands in front.
    pub front: Front,
    /// To which controller it leads.
    pub ingress: Ingress,
    /// What the controller answers.
    pub answer: Answer,
    /// Whom the application reads in `X-Forwarded-For`, where it is asked.
    #[serde(default)]
    pub list: Vec<Hop>,
    /// What is found of the connection to the controller.
    #[serde(default)]
    pub findings: Vec<String>,
    /// What is found of the one that the controller opens.
    #[serde(default)]
    pub onward: Vec<String>,
    /// What a finding says that there is to change.
    #[serde(default)]
    pub change: Option<String>,
}

/// What stands in front.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Front {
    /// Nobody.
    Nobody,
    /// A client that writes a PROXY header itself.
    Forger,
    /// `HAProxy` of plain TCP.
    Haproxy,
    /// The same with `send-proxy`.
    HaproxyV1,
    /// The same with `send-proxy-v2`.
    HaproxyV2,
    /// Nothing but the checks of `HAProxy`: requests, behind a header of the command LOCAL.
    ChecksLocal,
    /// Nothing but its checks, which only connect.
    ChecksOfTcp,
    /// nginx that adds its peer to `X-Forwarded-For`.
    Nginx,
    /// Two of them.
    NginxTwo,
    /// Two, of which the second adds its peer twice.
    NginxTwice,
    /// Three, of which the third takes its client from what the second says, and adds that.
    NginxRealip,
    /// The same, and it adds its peer.
    NginxRealipMended,
}

/// A controller: ingress-nginx, or, where it says so, `HAProxy` Ingress.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ingress {
    /// As it comes.
    Plain,
    /// With `use-proxy-protocol`.
    Proxied,
    /// With `use-forwarded-headers`.
    Forwarded,
    /// As it comes.
    Haproxy,
    /// With `use-proxy-protocol`.
    HaproxyProxied,
}

/// What comes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// The application's.
    Ok,
    /// That it is no request: 400.
    BadRequest,
    /// None: the connection is closed.
    Nothing,
    /// None, and none was asked for.
    Unasked,
}

/// Whom a list names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hop {
    /// The client.
    Client,
    /// The first of those in front.
    First,
    /// The second.
    Second,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    rows: Vec<Row>,
}

/// All rows of this repository's table.
pub fn all() -> Result<Vec<Row>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fronts/mismatches.yaml");
    let text = fs::read_to_string(&path).context("the rows")?;
    let Table { rows } = serde_saphyr::from_str(&text).context("the rows")?;
    Ok(rows)
}

impl Row {
    /// What people will read.
    pub fn name(&self) -> String {
        format!("{:?} in front of {:?}", self.front, self.ingress)
    }
}

impl Front {
    /// Whether no client connects.
    pub fn is_of_checks(self) -> bool {
        matches!(self, Self::ChecksLocal | Self::ChecksOfTcp)
    }

    /// How many stand one behind the other.
    pub fn number(self) -> usize {
        match self {
            Self::Nobody | Self::Forger => 0,
            Self::Haproxy
            | Self::HaproxyV1
            | Self::HaproxyV2
            | Self::ChecksLocal
            | Self::ChecksOfTcp
            | Self::Nginx => 1,
            Self::NginxTwo | Self::NginxTwice => 2,
            Self::NginxRealip | Self::NginxRealipMended => 3,
        }
    }
}

impl Ingress {
    /// All.
    pub const ALL: [Self; 5] = [
        Self::Plain,
        Self::Proxied,
        Self::Forwarded,
        Self::Haproxy,
        Self::HaproxyProxied,
    ];

    /// Whether it is `HAProxy`.
    pub fn is_haproxy(self) -> bool {
        matches!(self, Self::Haproxy | Self::HaproxyProxied)
    }
}
