//! `observer man`: the man page, from the definitions of the commands.

use std::io::Write;

use anyhow::Context as _;
use clap::CommandFactory as _;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};

use super::{Cli, EXIT_CODES, Ending};
use crate::output;

pub(super) fn run() -> anyhow::Result<Ending> {
    let page = page().context("cannot render the page")?;
    output::print(page.trim_end()).context("cannot write to stdout")?;
    Ok(Ending::Done)
}

/// One page for all commands: each has a section of its own.
fn page() -> anyhow::Result<String> {
    let mut command = Cli::command();
    // Tells the commands of the whole they are part of.
    command.build();
    let mut page = Vec::new();
    let whole = Man::new(command.clone());
    whole.render_title(&mut page)?;
    whole.render_name_section(&mut page)?;
    whole.render_synopsis_section(&mut page)?;
    whole.render_description_section(&mut page)?;
    whole.render_options_section(&mut page)?;
    // `help` is clap's own, and says what this page says.
    let commands = command.get_subcommands();
    for command in commands.filter(|command| command.get_name() != "help") {
        heading(&mut page, &format!("OBSERVER {}", command.get_name()))?;
        let man = Man::new(command.clone());
        let mut sections = Vec::new();
        man.render_synopsis_section(&mut sections)?;
        man.render_description_section(&mut sections)?;
        man.render_options_section(&mut sections)?;
        let sections = String::from_utf8(sections)?;
        page.extend(sections.replace("\n.SH ", "\n.SS ").into_bytes());
    }
    heading(&mut page, "EXIT STATUS")?;
    let mut codes = Roff::default();
    for line in EXIT_CODES.lines().skip(1) {
        codes.text([roman(line.trim())]).control("br", []);
    }
    codes.to_writer(&mut page)?;
    Ok(String::from_utf8(page)?)
}

fn heading(page: &mut impl Write, name: &str) -> std::io::Result<()> {
    let name = name.to_uppercase();
    Roff::default().control("SH", [&*name]).to_writer(page)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::tests::{commands, options};

    #[test]
    fn every_command_option_and_exit_code_is_on_the_page() {
        let page = page().expect("a page");
        let mut rest = page.as_str();
        for command in commands() {
            let name = command.get_name();
            let heading = format!("OBSERVER {}", name.to_uppercase());
            let (_, section) = rest.split_once(&heading).unwrap_or_else(|| {
                panic!("{name} has no section, or not in the order of the help")
            });
            let own = section.split("\n.SH ").next().expect("a section");
            for option in options(&command) {
                // A hyphen that is no line break is escaped in roff.
                let option = option.replace('-', "\\-");
                assert!(own.contains(&format!("\\-\\-{option}")), "{name} {option}");
            }
            rest = section;
        }
        let (_, codes) = rest.split_once("EXIT STATUS").expect("exit codes");
        for code in ["0  done", "1  error", "2  wrong use", "3  with"] {
            assert!(codes.contains(code), "{codes}");
        }
        assert!(page.lines().any(|line| line.starts_with(".TH observer 1")));
    }
}
