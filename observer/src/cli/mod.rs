//! The commands, one file each, and what they share: what is asked for (`filter`), how it is
//! reported (`report`), where the cluster's objects come from (`source`), names that the cluster
//! does not have (`names`), and what kube-proxy says of itself (`ask`).

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};

use crate::manifests::Problems;
use crate::notice::say;
use crate::record::filter;

mod agent;
mod ask;
mod completions;
mod doctor;
mod explain;
mod join;
mod man;
mod names;
mod payload;
mod replay;
mod report;
mod sizes;
mod source;
mod trace;

/// The name by which kubectl finds a plugin `source-ip`.
const PLUGIN: &str = "kubectl-source_ip";

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  error; of doctor: observing cannot work here; of explain --health: a node says something
     else than it should
  2  wrong use
  3  with --fail-on: such a connection was printed; of explain: one is to be expected";

/// Where was the client's address lost, by whom, because of which setting.
#[derive(Debug, Parser)]
#[command(
    name = "observer",
    version,
    arg_required_else_help = true,
    after_help = EXIT_CODES
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// How a command ended that did what it was asked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// Well.
    Done,
    /// Well, and what it found is an error: observing cannot work here.
    Unable,
    /// Well, and `--fail-on` was met.
    Found,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Follow connections live on this node; with --cluster on all that have an agent.
    #[command(after_help = EXIT_CODES)]
    Trace(Box<trace::Options>),
    /// Judge again what `trace --record` recorded.
    #[command(after_help = EXIT_CODES)]
    Replay(replay::Options),
    /// Join what several nodes recorded: of a connection that two of them saw, one record with the
    /// whole path and what the extra hop cost.
    Join(join::Options),
    /// Predict what every front door does to the client's address, from the load balancer to the
    /// pod, and what to change: from the objects of a cluster, or of manifests that are in none.
    #[command(after_help = EXIT_CODES)]
    Explain(explain::Options),
    /// Observe this node for as long as it runs: metrics, and connections over HTTP. What the
    /// `DaemonSet` runs.
    Agent(Box<agent::Options>),
    /// Say what this kernel and node can do, what is missing, and what to do about it.
    #[command(after_help = EXIT_CODES)]
    Doctor(doctor::Options),
    /// Print the completions for a shell.
    Completions(completions::Options),
    /// Print the man page.
    Man,
}

/// The command line; as a plugin of kubectl (`kubectl source-ip shop/web`) it is one of `trace
/// --cluster`.
pub fn said_in_full(arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut arguments: Vec<_> = arguments.into_iter().collect();
    let program = arguments
        .first()
        .and_then(|path| Path::new(path).file_stem());
    let asks_for_version = matches!(
        arguments.get(1).and_then(|argument| argument.to_str()),
        Some("-V" | "--version")
    );
    if program.is_some_and(|program| program == PLUGIN) && !asks_for_version {
        arguments.splice(1..1, ["trace", "--cluster"].map(OsString::from));
    }
    arguments
}

/// Runs a command. The exit codes are those that the help names; 2 is also clap's own.
pub fn run(Cli { command }: Cli) -> ExitCode {
    let ended = match command {
        Command::Trace(options) => trace::run(*options),
        Command::Replay(options) => replay::run(options),
        Command::Join(options) => join::run(options),
        Command::Explain(options) => explain::run(&options),
        Command::Agent(options) => agent::run(*options),
        Command::Doctor(options) => doctor::run(options),
        Command::Completions(options) => completions::run(options),
        Command::Man => man::run(),
    };
    match ended {
        Ok(Ending::Done) => ExitCode::SUCCESS,
        Ok(Ending::Unable) => ExitCode::FAILURE,
        Ok(Ending::Found) => ExitCode::from(3),
        Err(error) => match error.downcast::<clap::Error>() {
            Ok(wrong_use) => wrong_use.exit(),
            Err(error) => {
                match error.downcast::<Problems>() {
                    // Lines of their own, which begin with a file.
                    Ok(problems) => say(&problems.to_string()),
                    Err(error) => say(&format!("observer: {error:#}")),
                }
                ExitCode::FAILURE
            }
        },
    }
}

/// Runs on a runtime of this thread. What does not end of what it began (a look-up of a name, a
/// plugin for credentials) is left behind.
fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let result = runtime.block_on(work);
    runtime.shutdown_background();
    result
}

/// This node's name, where none is given.
fn host_name() -> anyhow::Result<String> {
    let name = nix::unistd::gethostname().context("cannot read the host name; give --node")?;
    name.into_string()
        .ok()
        .context("the host name is not UTF-8; give --node")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    /// The commands that a user sees, as clap has them.
    pub(super) fn commands() -> Vec<clap::Command> {
        let mut whole = Cli::command();
        whole.build();
        let commands = whole.get_subcommands();
        commands
            .filter(|command| command.get_name() != "help" && !command.is_hide_set())
            .cloned()
            .collect()
    }

    /// The long names of a command's options, hidden ones aside.
    pub(super) fn options(command: &clap::Command) -> Vec<String> {
        let arguments = command.get_arguments();
        arguments
            .filter(|argument| !argument.is_hide_set())
            .filter_map(|argument| argument.get_long().map(str::to_owned))
            .collect()
    }

    #[test]
    fn the_definitions_hold() {
        Cli::command().debug_assert();
        assert!(commands().len() >= 5);
        let trace = commands();
        let trace = trace
            .iter()
            .find(|command| command.get_name() == "trace")
            .expect("trace");
        for option in ["lost", "client", "unexpected", "all", "fail-on", "count"] {
            assert!(
                options(trace).iter().any(|known| known == option),
                "{option}"
            );
        }
    }

    #[test]
    fn a_plugin_of_kubectl_is_trace_across_the_cluster() {
        let said = |line: &[&str]| said_in_full(line.iter().map(OsString::from));
        assert_eq!(
            said(&["/usr/local/bin/kubectl-source_ip", "shop/web", "--lost"]),
            [
                "/usr/local/bin/kubectl-source_ip",
                "trace",
                "--cluster",
                "shop/web",
                "--lost"
            ]
        );
        assert_eq!(
            said(&["kubectl-source_ip", "-V"]),
            ["kubectl-source_ip", "-V"]
        );
        assert_eq!(said(&["observer", "shop/web"]), ["observer", "shop/web"]);
        assert_eq!(said(&[]), [] as [&str; 0]);
    }

    #[test]
    fn every_help_names_the_exit_codes_that_it_can_end_with() {
        for command in commands() {
            let has_codes = ["trace", "replay", "explain", "doctor"].contains(&command.get_name());
            let help = command.clone().render_long_help().to_string();
            assert_eq!(help.contains("Exit codes:"), has_codes, "{help}");
        }
    }
}
