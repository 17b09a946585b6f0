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

fn observer() -> Command {
    Command::new(observer_process::binary().expect("an observer"))
}

/// As the first node of the demo cluster, so that this is no error too.
fn trace(cluster_state: &Path) -> Command {
    let mut command = observer();
    command
        .args(["trace", "--duration", "1s", "--node", "node1"])
        .arg("--cluster-state")
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
        .args(["trace", "--duration", "1s", "--node", "node1"])
        .args(["--interface", "nosuch0", "--cluster-state"])
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
        .args(["trace", "--duration", "1s", "--node", "node1"])
        .arg("--cluster-state")
        .arg(cluster);
    let line = complaint(&mut command);
    let lacks = "observing needs CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN, which";
    assert!(line.contains(lacks), "{line}");
}

/// Root without some capabilities, as in a container: those and no others are named.
#[rstest]
#[case::to_read_the_kernel("-perfmon,-sys_admin", "CAP_PERFMON")]
#[case::to_load("-bpf,-perfmon,-sys_admin", "CAP_BPF and CAP_PERFMON")]
#[case::to_attach("-net_admin", "CAP_NET_ADMIN")]
fn missing_capabilities_are_named(#[case] without: &str, #[case] named: &str) {
    if !privilege::granted("missing_capabilities_are_named") {
        return;
    }
    let mut command = Command::new("setpriv");
    command
        .arg(format!("--bounding-set={without}"))
        .arg(observer_process::binary().expect("an observer"))
        .args(["trace", "--duration", "1s"]);
    let line = complaint(&mut command);
    let lacks = format!("observing needs {named}, which");
    assert!(line.contains(&lacks), "{line}");
}

#[test]
fn a_kernel_without_btf_is_told() {
    if !privilege::granted("a_kernel_without_btf_is_told") {
        return;
    }
    let namespace = Namespace::create("no-btf").expect("a namespace");
    let mut command = namespace.command("unshare");
    // Covered in a mount namespace of its own, which ends with the command.
    command
        .args(["--mount", "sh", "-ec"])
        .arg("mount -t tmpfs none /sys/kernel/btf; exec \"$0\" trace --duration 1s")
        .arg(observer_process::binary().expect("an observer"));
    let line = complaint(&mut command);
    for part in ["/sys/kernel/btf/vmlinux", "CONFIG_DEBUG_INFO_BTF"] {
        assert!(line.contains(part), "{part} is missing in: {line}");
    }
}

#[rstest]
#[case::a_service(&["shop/wep"], "there is no Service shop/wep; did you mean shop/web")]
#[case::a_namespace(&["shopp/cart"], "there is no Service in a namespace shopp; did you mean shop?")]
#[case::a_port(&["shop/web:htp"], "the Service shop/web has no port htp; did you mean http?")]
#[case::a_node(&["--node", "node9"], "there is no Node node9; did you mean node1 or node2?")]
fn a_name_that_the_cluster_does_not_have_is_answered_with_those_it_has(
    #[case] arguments: &[&str],
    #[case] says: &str,
) {
    if !privilege::granted("a_name_that_the_cluster_does_not_have") {
        return;
    }
    let mut command = observer();
    command.args(["trace", "--duration", "1s", "--cluster-state"]);
    command.arg(demo::cluster_file()).args(arguments);
    if !arguments.contains(&"--node") {
        command.args(["--node", "node1"]);
    }
    let line = complaint(&mut command);
    assert!(line.contains(says), "{line}");
}

#[test]
fn a_service_that_no_connection_can_enter_is_told() {
    if !privilege::granted("a_service_that_no_connection_can_enter_is_told") {
        return;
    }
    let directory = TempDir::new().expect("a directory");
    let path = file(
        &directory,
        r#"{"apiVersion":"v1","kind":"List","items":[
            {"apiVersion":"v1","kind":"Service","metadata":{"namespace":"shop","name":"bare"},
             "spec":{"clusterIP":"10.96.0.1"}},
            {"apiVersion":"v1","kind":"Service","metadata":{"namespace":"shop","name":"alias"},
             "spec":{"type":"ExternalName","externalName":"example.org"}}]}"#,
    );
    for (service, says) in [
        ("shop/bare", "the Service shop/bare has no ports"),
        ("shop/alias", "the Service shop/alias is an ExternalName"),
    ] {
        let line = complaint(trace(&path).arg(service));
        assert!(line.contains(says), "{line}");
    }
    let line = complaint(observer().args(["trace", "--duration", "1s", "shop/web"]));
    assert!(line.contains("--cluster-state"), "{line}");
}

#[test]
fn a_recording_that_is_none_is_told() {
    if !privilege::granted("a_recording_that_is_none_is_told") {
        return;
    }
    let directory = TempDir::new().expect("a directory");
    let replay = |path: &Path| complaint(observer().arg("replay").arg(path));
    let line = replay(Path::new("/nonexistent/recording"));
    assert!(line.contains("No such file"), "{line}");
    for text in ["", "{}\n", "not JSON\n"] {
        let line = replay(&file(&directory, text));
        assert!(line.contains("is no recording"), "{line}");
    }
    // The last line, which says that the run has ended, is cut off.
    let namespace = Namespace::create("recorded").expect("a namespace");
    namespace
        .ip("link add dev dev0 type veth peer name dev1\nlink set dev0 up\nlink set dev1 up")
        .expect("interfaces");
    let recording = directory.path().join("recording");
    let mut command = namespace.command(observer_process::binary().expect("an observer"));
    command
        .args(["trace", "--duration", "1s", "--record"])
        .arg(&recording);
    let output = command.output().expect("runs");
    assert!(output.status.success(), "{output:?}");
    let text = fs::read_to_string(&recording).expect("a recording");
    let (whole, _) = text.trim_end().rsplit_once('\n').expect("two lines");
    let line = replay(&file(&directory, &format!("{whole}\n")));
    assert!(line.contains("cut short"), "{line}");
    let line = replay(&file(&directory, &whole[..whole.len() - 5]));
    assert!(line.contains("line"), "{line}");
}

#[test]
fn records_that_are_none_are_told_by_their_line() {
    if !privilege::granted("records_that_are_none_are_told_by_their_line") {
        return;
    }
    let directory = TempDir::new().expect("a directory");
    let join = |path: &Path| complaint(observer().arg("join").arg(path));
    let line = join(Path::new("/nonexistent/records"));
    assert!(line.contains("/nonexistent/records"), "{line}");
    for (text, says) in [
        ("\n{}\n", "line 2"),
        ("[]\n", "line 1"),
        (
            "{\"schema\":\"observer.connection/v2\"}\n",
            "observer.connection/v1",
        ),
    ] {
        let line = join(&file(&directory, text));
        assert!(line.contains(says), "{line}");
    }
    // Nothing is no error.
    let empty = file(&directory, "");
    let output = observer().arg("join").arg(empty).output().expect("runs");
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn what_doctor_cannot_read_or_write_is_an_error() {
    if !privilege::granted("what_doctor_cannot_read_or_write_is_an_error") {
        return;
    }
    let line = complaint(observer().args(["doctor", "--cluster-state", "/nonexistent/c.json"]));
    assert!(line.contains("/nonexistent/c.json"), "{line}");
    let line = complaint(observer().args(["doctor", "--bundle", "/nonexistent/b.json"]));
    assert!(line.contains("/nonexistent/b.json"), "{line}");
}

#[test]
fn wrong_use_has_a_status_of_its_own() {
    if !privilege::granted("wrong_use_has_a_status_of_its_own") {
        return;
    }
    for (arguments, says) in [
        (&["trace", "--no-such-option"][..], "--no-such-option"),
        (&["trace", "--duration", "soon"], "--duration"),
        (&["trace", "--count", "0"], "--count"),
        (
            &["trace", "--client", "here"],
            "expected a network or an address",
        ),
        (&["trace", "web"], "expected NAMESPACE/SERVICE"),
        (
            &["trace", "--fail-on", "everything"],
            "possible values: lost",
        ),
        (&["trace", "--all", "--unexpected"], "cannot be used with"),
        (&["trace", "--answer-timeout", "0s"], "from 100ms to 25s"),
        (&["join"], "FILE"),
        (&["completions", "csh"], "possible values: bash"),
        (&["no-such-command"], "no-such-command"),
        (
            &["trace", "--ring-buffer-size", "3"],
            "it must be a power of two: 2 or 4",
        ),
        (
            &["agent", "--max-pending", "0"],
            "it must be from 1024 to 4194304",
        ),
    ] {
        let Output {
            status,
            stdout,
            stderr,
        } = observer().args(arguments).output().expect("runs");
        assert_eq!(status.code(), Some(WRONG_USE), "{arguments:?}");
        assert!(stdout.is_empty(), "stdout is for records alone");
        let stderr = String::from_utf8(stderr).expect("text");
        assert!(stderr.starts_with("error: "), "{stderr}");
        assert!(stderr.contains(says), "{says:?} is missing in: {stderr}");
    }
}
