//! What `observer explain` says, and that taken apart again: it folds what is alike.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::observer_process;

/// What a run says, and how it ends.
#[derive(Clone, Debug)]
pub struct Said {
    /// What it printed.
    pub stdout: String,
    /// What it said beside.
    pub stderr: String,
    /// Its exit code.
    pub code: Option<i32>,
}

impl Said {
    /// What it printed, as JSON.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.stdout)
            .with_context(|| format!("no JSON was printed; {}", self.stderr))
    }
}

/// `observer explain`, in the language of an environment that asks for none.
pub fn explain(arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new(observer_process::binary()?);
    command.arg("explain").args(arguments);
    for name in ["LANG", "LANGUAGE", "LC_ALL", "LC_MESSAGES"] {
        command.env_remove(name);
    }
    Ok(command)
}

/// Runs a command to its end, however it ends, with `input` on its standard input.
pub fn run(mut command: Command, input: &str) -> Result<Said> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("failed to start {command:?}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that has nothing to do with it ends without having read it.
        let _closed = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output()?;
    Ok(Said {
        stdout: String::from_utf8(output.stdout)?,
        stderr: String::from_utf8(output.stderr)?,
        code: output.status.code(),
    })
}

/// kube-proxy's part of every way: a cell for each front door, node and client, as `node`,
/// `front_door` (`kind`, `ip`, `port`), `service`, `protocol`, `client`, and what is predicted.
pub fn cells(document: &Value) -> Vec<Value> {
    let mut cells = Vec::new();
    for service in array(&document["services"]) {
        for way in array(&service["ways"]) {
            if way["kube_proxy"].is_null() || way["door"] == "Proxy" {
                continue;
            }
            for node in array(&way["nodes"]) {
                for address in array(&way["addresses"]) {
                    let mut cell = way["kube_proxy"].clone();
                    cell["service"] = service["service"].clone();
                    cell["node"] = node.clone();
                    cell["client"] = way["client"].clone();
                    cell["protocol"] = way["protocol"].clone();
                    cell["front_door"] = json!({
                        "kind": way["door"], "ip": address, "port": way["to_port"],
                    });
                    cells.push(cell);
                }
            }
        }
    }
    cells
}

fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}
