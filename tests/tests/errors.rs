//! What the observer says when it cannot work: one clear line, and a status that is not success.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use rstest::rstest;
use tempfile::TempDir;
use tests::{demo, netns::Namespace, observer_process, privilege};

/// The exit status of an error at run time.
const ERROR: i32 = 1;
/// The exit status of wrong use.
const WRONG_USE: i32 = 2;
/// Nobody.
const UNPRIVILEGED: &str = "65534";

fn trace(cluster_state: &Path) -> Command {
    let mut command = Command::new(observer_process::binary().expect("an observer"));
    command
        .args(["trace", "--duration", "1s", "--cluster-state"])
        .arg(cluster_state);
    command
}

/// Runs a command that must fail, and returns the one line it says.
fn complaint(command: &mut Command) -> String {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().expect("runs");
    let stderr = String::from_utf8(stderr).expect("text");
    assert_eq!(status.code(), Some(ERROR), "{command:?} said: {stderr}");
    assert_eq!(
        String::from_utf8(stdout).expect("text"),
        "",
        "stdout is for records alone"
    );
    let lines: Vec<&str> = stderr.lines().collect();
    let [line] = lines[..] else {
        panic!("one line was expected, not:\n{stderr}")
    };
    assert!(!line.contains("panicked"), "{line}");
    line.to_owned()
}

fn file(directory: &TempDir, text: &str) -> PathBuf {
    let path = directory.path().join("cluster.json");
    fs::write(&path, text).expect("written");
    path
}

#[test]
fn a_missing_cluster_state_is_named() {
    if !privilege::granted("a_missing_cluster_state_is_named") {
        return;
    }
    let line = complaint(&mut trace(Path::new("/nonexistent/cluster.json")));
    assert!(
        line.contains("/nonexistent/cluster.json") && line.contains("No such file"),
        "{line}"
    );
}

#[rstest]
#[case::empty("", &["empty"])]
#[case::not_json("{\n  \"kind\": \"List\",\n  oops\n}", &["line 3", "column 3"])]
#[case::another_kind(r#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web"}}"#, &["Deployment", "List"])]
fn a_bad_cluster_state_is_told_apart(#[case] text: &str, #[case] says: &[&str]) {
    if !privilege::granted("a_bad_cluster_state_is_told_apart") {
        return;
    }
    let directory = TempDir::new().expect("a directory");
    let path = file(&directory, text);
    let line = complaint(&mut trace(&path));
    for part in says.iter().copied().chain([path.to_str().expect("text")]) {
        assert!(line.contains(part), "{part:?} is missing in: {line}");
    }
}

#[test]
fn an_unknown_interface_is_named() {
    if !privilege::granted("an_unknown_interface_is_named") {
        return;
    }
    let namespace = Namespace::create("no-such-interface").expect("a namespace");
    let mut command = namespace.command(observer_process::binary().expect("an observer"));
    command
        .args([
            "trace",
            "--duration",
            "1s",
            "--interface",
            "nosuch0",
            "--cluster-state",
        ])
        .arg(demo::cluster_file());
    let line = complaint(&mut command);
    assert!(line.contains("nosuch0"), "{line}");
}

#[test]
fn without_privilege_it_says_what_it_lacks() {
    if !privilege::granted("without_privilege_it_says_what_it_lacks") {
        return;
    }
    // Nobody may not reach a binary or a file below a developer's home.
    let directory = TempDir::new().expect("a directory");
    let observer = directory.path().join("observer");
    fs::copy(observer_process::binary().expect("an observer"), &observer).expect("copied");
    let cluster = directory.path().join("demo.json");
    fs::copy(demo::cluster_file(), &cluster).expect("copied");
    for path in [directory.path(), &observer, &cluster] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("opened");
    }

    let mut command = Command::new("setpriv");
    command
        .args([
            "--reuid",
            UNPRIVILEGED,
            "--regid",
            UNPRIVILEGED,
            "--clear-groups",
        ])
        .arg(observer);
    command
        .args(["trace", "--duration", "1s", "--cluster-state"])
        .arg(cluster);
    let line = complaint(&mut command);
    assert!(
        line.contains("root") || line.contains("CAP_"),
        "it does not say which privilege it lacks: {line}"
    );
}

#[test]
fn wrong_use_has_a_status_of_its_own() {
    if !privilege::granted("wrong_use_has_a_status_of_its_own") {
        return;
    }
    for arguments in [
        &["trace", "--no-such-option"][..],
        &["trace", "--duration", "soon"],
        &["no-such-command"],
    ] {
        let observer = observer_process::binary().expect("an observer");
        let status = Command::new(observer)
            .args(arguments)
            .output()
            .expect("runs")
            .status;
        assert_eq!(status.code(), Some(WRONG_USE), "{arguments:?}");
    }
}
