//! `observer agent`: the daemon of the `DaemonSet`.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;

use super::payload::PayloadOptions;
use super::sizes::SizeOptions;
use super::source::ClusterSource;
use super::trace::answer_timeout;
use super::{Ending, host_name, names};
use crate::agent::{self, Addresses};
use crate::kernel::layout::SYSFS;
use crate::live::{self, Setup};
use crate::observe::{Asking, Settings};

/// A token is a line; what is longer is another file.
const TOKEN_BYTES_MAX: usize = 4_096;

#[derive(Debug, Args)]
pub(super) struct Options {
    /// Name of this node, as the cluster calls it [default: the host name].
    #[arg(long, env = "NODE_NAME", value_name = "NAME")]
    node: Option<String>,
    #[command(flatten)]
    source: ClusterSource,
    /// Interface to observe; may be repeated [default: chosen by addresses and routes].
    #[arg(long = "interface", value_name = "NAME")]
    interfaces: Vec<String>,
    /// How long after its opening packet a connection counts as unanswered.
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = answer_timeout)]
    answer_timeout: Duration,
    #[command(flatten)]
    payload: PayloadOptions,
    #[command(flatten)]
    sizes: SizeOptions,
    /// Where the API is served. Beyond this host only with --token-file.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9807", value_parser = address)]
    listen: SocketAddr,
    /// What the API asks for: `Authorization: Bearer` and the first line of this file.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Where metrics and probes are served beside the API.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9808", value_parser = address)]
    metrics_listen: SocketAddr,
    /// Shorten clients' addresses in what is served: IPv4 to 24 bits, IPv6 to 48.
    #[arg(long)]
    anonymize: bool,
    /// Where to keep when this agent last observed, so that the next one knows what was missed.
    #[arg(long, value_name = "DIRECTORY")]
    state_dir: Option<PathBuf>,
}

pub(super) fn run(options: Options) -> anyhow::Result<Ending> {
    let Options {
        node,
        source,
        interfaces,
        answer_timeout,
        payload,
        sizes,
        listen,
        token_file,
        metrics_listen,
        anonymize,
        state_dir,
    } = options;
    let token = token_file.as_deref().map(token).transpose()?;
    if token.is_none() && !listen.ip().is_loopback() {
        bail!(
            "--listen {listen} is reached from beyond this host: give --token-file, or listen at \
             127.0.0.1"
        );
    }
    let node = node.map_or_else(host_name, Ok)?;
    let first_bytes = Asking::from(payload);
    let readers = first_bytes.reads();
    let options = agent::Options {
        setup: Setup {
            interfaces,
            hook: None,
            sysfs: PathBuf::from(SYSFS),
            debug_programs: false,
            sizes: sizes.into(),
        },
        settings: Settings {
            node: node.clone(),
            epoch: live::epoch()?,
            answer_timeout_ns: u64::try_from(answer_timeout.as_nanos()).unwrap_or(u64::MAX),
            all: false,
            follows_cluster: source.file().is_none(),
            first_bytes,
        },
        addresses: Addresses {
            api: listen,
            metrics: metrics_listen,
        },
        token,
        anonymize,
        state_directory: state_dir,
    };
    agent::run(options, || {
        // Observing does not wait for the cluster; connections do.
        let knowledge = source.knowledge_to_come(&node, readers)?;
        let known = knowledge.cluster.as_deref();
        names::node(&node, known.and_then(|cluster| cluster.objects.as_ref()))?;
        Ok(knowledge)
    })?;
    Ok(Ending::Done)
}

/// An address and a port. Kubernetes puts no brackets around an IPv6 address (`status.hostIP`).
fn address(text: &str) -> Result<SocketAddr, String> {
    let unbracketed = || {
        let (ip, port) = text.rsplit_once(':')?;
        Some(SocketAddr::new(ip.parse().ok()?, port.parse().ok()?))
    };
    text.parse()
        .ok()
        .or_else(unbracketed)
        .ok_or_else(|| "expected an address and a port, as in 127.0.0.1:9807".to_owned())
}

/// The first line of a file.
pub(super) fn token(file: &Path) -> anyhow::Result<String> {
    let text = fs::read_to_string(file)
        .with_context(|| format!("the token file {} cannot be read", file.display()))?;
    let token = text.lines().next().unwrap_or_default().trim();
    if token.is_empty() || token.len() > TOKEN_BYTES_MAX {
        bail!(
            "the token file {} has no token in its first line",
            file.display()
        );
    }
    Ok(token.to_owned())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("127.0.0.1:9807", Some("127.0.0.1:9807"))]
    #[case("[2001:db8::1]:9808", Some("[2001:db8::1]:9808"))]
    #[case("2001:db8::1:9808", Some("[2001:db8::1]:9808"))]
    #[case("127.0.0.1", None)]
    #[case("localhost:9807", None)]
    #[case(":9807", None)]
    #[case("127.0.0.1:98070", None)]
    fn an_address_is_one_with_a_port(#[case] text: &str, #[case] expected: Option<&str>) {
        let expected = expected.map(|expected| expected.parse().expect("an address"));
        assert_eq!(address(text).ok(), expected);
    }
}
