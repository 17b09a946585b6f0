//! Running a tool to its end, with an error that says which tool, how, and what it complained of.

use std::{
    io::Write as _,
    process::{Command, Stdio},
    thread,
};

use anyhow::{Context as _, Result, ensure};

/// Runs `command` to its end and returns what it printed.
pub fn run(command: &mut Command) -> Result<String> {
    run_with_input(command, "")
}

/// Runs `command` with `input` on its standard input and returns what it printed.
pub fn run_with_input(command: &mut Command, input: &str) -> Result<String> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("failed to start {command:?}"))?;
    let stdin = child.stdin.take();
    let output = thread::scope(|scope| {
        // Fed from a second thread, because a tool that prints before it has read everything
        // would otherwise wait for us while we wait for it.
        scope.spawn(move || {
            if let Some(mut stdin) = stdin {
                // A tool that gives up early closes the pipe; its exit status says why.
                let _closed = stdin.write_all(input.as_bytes());
            }
        });
        child.wait_with_output()
    })
    .with_context(|| format!("failed to wait for {command:?}"))?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{command:?} failed ({}): {}{}",
        output.status,
        stderr.trim(),
        quoted_input(input),
    );
    String::from_utf8(output.stdout).with_context(|| format!("{command:?} printed no UTF-8"))
}

/// The input with line numbers, since the tools complain by line.
fn quoted_input(input: &str) -> String {
    let numbered: Vec<String> = input
        .lines()
        .enumerate()
        .map(|(index, line)| format!("\n{:4}: {line}", index + 1))
        .collect();
    if numbered.is_empty() {
        String::new()
    } else {
        format!("\nits input was:{}", numbered.concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_the_command_its_complaint_and_the_input() {
        let error = run_with_input(
            Command::new("sh").args(["-c", "cat >/dev/null; echo no such thing >&2; exit 3"]),
            "first\nsecond\n",
        )
        .expect_err("exit status 3");
        let text = format!("{error:#}");
        for part in ["\"sh\"", "exit status: 3", "no such thing", "2: second"] {
            assert!(text.contains(part), "{part} is missing in: {text}");
        }
    }

    #[test]
    fn what_a_command_prints_comes_back_though_it_reads_nothing() {
        let long = "x".repeat(1 << 20);
        let printed =
            run_with_input(Command::new("sh").args(["-c", "echo done"]), &long).expect("runs");
        assert_eq!(printed, "done\n");
    }
}
