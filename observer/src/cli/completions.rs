//! `observer completions`: completions for a shell, from the definitions of the commands.

use anyhow::Context as _;
use clap::{Args, CommandFactory as _};
use clap_complete::Shell;
use clap_complete::aot::generate;

use super::{Cli, Ending};
use crate::output;

#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Options {
    /// Which shell: `source <(observer completions bash)`.
    #[arg(value_enum)]
    shell: Shell,
}

pub(super) fn run(Options { shell }: Options) -> anyhow::Result<Ending> {
    output::print(script(shell)?.trim_end()).context("cannot write to stdout")?;
    Ok(Ending::Done)
}

fn script(shell: Shell) -> anyhow::Result<String> {
    let mut script = Vec::new();
    let mut command = Cli::command();
    let name = command.get_name().to_owned();
    generate(shell, &mut command, name, &mut script);
    String::from_utf8(script).context("the completions are not UTF-8")
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;
    use rstest::rstest;

    use super::*;
    use crate::cli::tests::{commands, options};

    #[rstest]
    #[case(Shell::Bash)]
    #[case(Shell::Zsh)]
    #[case(Shell::Fish)]
    fn every_command_and_option_is_completed(#[case] shell: Shell) {
        let script = script(shell).expect("a script");
        for command in commands() {
            let name = command.get_name();
            assert!(script.contains(name), "{name} is missing");
            for option in options(&command) {
                let as_written = match shell {
                    Shell::Fish => format!("-l {option}"),
                    _ => format!("--{option}"),
                };
                assert!(script.contains(&as_written), "{name} --{option} is missing");
            }
        }
        for format in ["table", "wide", "json"] {
            assert!(script.contains(format), "{format} is missing");
        }
    }

    #[test]
    fn every_shell_has_a_script() {
        for shell in Shell::value_variants() {
            assert!(
                script(*shell).expect("a script").contains("observer"),
                "{shell}"
            );
        }
    }
}
