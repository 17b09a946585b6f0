//! `cargo xtask test tidy`: rules of the house that no compiler knows, read off the sources.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, ensure};

use crate::workspace;

/// Which modules of `observer` each may use, besides itself. Facts flow one way: packets →
/// observations → connections → verdicts → people.
const MAY_USE: [(&str, &[&str]); 16] = [
    ("payload", &[]),
    ("cluster", &[]),
    ("manifests", &["cluster"]),
    ("observation", &["cluster"]),
    ("kernel", &["cluster", "observation"]),
    ("flow", &["cluster", "observation", "payload"]),
    ("verdict", &["cluster", "observation", "flow", "payload"]),
    ("words", &["cluster", "manifests", "verdict"]),
    ("record", &["cluster", "payload", "verdict", "words"]),
    (
        "observe",
        &[
            "cluster",
            "observation",
            "flow",
            "payload",
            "verdict",
            "record",
        ],
    ),
    ("recording", &["cluster", "observation", "observe"]),
    ("kubernetes", &["cluster", "notice"]),
    ("across", &["kubernetes", "record"]),
    (
        "live",
        &[
            "cluster",
            "observation",
            "kernel",
            "kubernetes",
            "observe",
            "payload",
            "record",
            "recording",
            "notice",
        ],
    ),
    (
        "output",
        &[
            "cluster", "kernel", "live", "payload", "verdict", "record", "words",
        ],
    ),
    (
        "agent",
        &[
            "cluster",
            "observation",
            "kernel",
            "kubernetes",
            "live",
            "observe",
            "record",
            "verdict",
            "notice",
        ],
    ),
];

/// Modules that know only what they are told.
const PURE: [&str; 8] = [
    "cluster",
    "manifests",
    "payload",
    "observation",
    "flow",
    "verdict",
    "record",
    "observe",
];
/// What would let them know more.
const IMPURE: [&str; 9] = [
    "std::fs",
    "std::env",
    "std::process",
    "Instant",
    "SystemTime",
    "::now()",
    "TcpStream",
    "UdpSocket",
    "tokio",
];
/// The files in them that read files.
const READ_FILES: [&str; 2] = ["cluster/file.rs", "manifests/files.rs"];

/// Paths of one machine that must not be in the sources.
const MACHINE: [&str; 2] = ["/root/", "/home/"];

/// Checks them all; every breach is told.
pub(crate) fn check() -> anyhow::Result<()> {
    let mut breaches = Vec::new();
    for package in [
        "bench",
        "fuzz",
        "observer",
        "observer-ebpf",
        "tests",
        "xtask",
    ] {
        let sources = workspace::root().join(package);
        visit(&sources, &mut |path, text| {
            let place = path.strip_prefix(workspace::root()).unwrap_or(path);
            let mut breach = |rule: String| breaches.push(format!("{}: {rule}", place.display()));
            if !text.starts_with("//!") {
                breach("does not begin by saying what it is for (//!)".to_owned());
            }
            // This file names them.
            if !place.ends_with("tidy.rs") {
                for machine in MACHINE.iter().filter(|machine| text.contains(**machine)) {
                    breach(format!("has a path of one machine: {machine}"));
                }
            }
            if let Ok(inside) = place.strip_prefix("observer/src") {
                inside_observer(inside, text, &mut breach);
            }
        })?;
    }
    ensure!(
        breaches.is_empty(),
        "the house has rules:\n  {}",
        breaches.join("\n  ")
    );
    Ok(())
}

fn inside_observer(path: &Path, text: &str, breach: &mut impl FnMut(String)) {
    let first = path.components().next();
    let module = first.and_then(|first| Path::new(first.as_os_str()).file_stem());
    let Some(module) = module.and_then(|module| module.to_str()) else {
        return;
    };
    if let Some((_, may_use)) = MAY_USE.iter().find(|(name, _)| *name == module) {
        for used in used(text) {
            if used != module && !may_use.contains(&used) {
                breach(format!("{module} must not use crate::{used}"));
            }
        }
    }
    // Tests may read files and the clock.
    let is_test = path.components().any(|part| {
        let name = part.as_os_str();
        name == "tests" || name == "tests.rs"
    });
    let reads_files = READ_FILES.iter().any(|file| path.ends_with(file));
    if PURE.contains(&module) && !is_test && !reads_files {
        for impure in IMPURE.iter().filter(|impure| text.contains(**impure)) {
            breach(format!("{module} is pure, and must not know of {impure}"));
        }
    }
}

/// The modules that a text names as `crate::module`.
fn used(text: &str) -> impl Iterator<Item = &str> {
    text.split("crate::").skip(1).map(|rest| {
        let end = rest
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .unwrap_or(rest.len());
        &rest[..end]
    })
}

/// Hands every Rust source below `directory` to `each`.
fn visit(directory: &Path, each: &mut impl FnMut(&Path, &str)) -> anyhow::Result<()> {
    let entries =
        fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))?;
    for entry in entries {
        let path = entry
            .with_context(|| format!("cannot list {}", directory.display()))?
            .path();
        if path.is_dir() {
            visit(&path, each)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            each(&path, &text);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaches(path: &str, text: &str) -> Vec<String> {
        let mut found = Vec::new();
        inside_observer(Path::new(path), text, &mut |rule| found.push(rule));
        found
    }

    #[test]
    fn an_upward_import_is_a_breach_and_a_downward_one_is_not() {
        let upward = "use crate::verdict::judge;";
        assert_eq!(
            breaches("flow/mod.rs", upward),
            ["flow must not use crate::verdict"]
        );
        assert_eq!(breaches("record.rs", upward), [] as [String; 0]);
        assert_eq!(breaches("cli/trace.rs", upward), [] as [String; 0]);
    }

    #[test]
    fn a_pure_module_reads_no_clock_and_no_file() {
        let reads = "use std::fs;\nlet now = Instant::now();";
        assert_eq!(breaches("verdict/judge.rs", reads).len(), 3);
        assert_eq!(breaches("verdict/tests.rs", reads), [] as [String; 0]);
        assert_eq!(
            breaches("cluster/file.rs", "use std::fs;"),
            [] as [String; 0]
        );
        assert_eq!(breaches("kernel/links.rs", reads), [] as [String; 0]);
    }
}
