//! The command as a user meets it: what is printed, what is not, and how it ends.
//!
//! Goal: every option does what its help says. Method: observe the demo cluster once, then print
//! its recording in every way and hold it against the records as JSON.

use std::{
    io::{BufRead as _, BufReader},
    net::IpAddr,
    path::Path,
    process::{Command, Output, Stdio},
};

use serde_json::{Value, json};
use tests::{command, demo, observer_process, privilege};

/// The exit status with `--fail-on`, when it is met.
const FOUND: i32 = 3;
/// The number of columns of a wide row.
const WIDE_COLUMNS: usize = 25;

/// Whether a record is asked for.
type Passes<'a> = &'a dyn Fn(&Value) -> bool;

fn observer() -> Command {
    Command::new(observer_process::binary().expect("an observer"))
}

/// What a replay prints, says beside, and how it ends.
fn replay(recording: &Path, arguments: &[&str]) -> (String, String, Option<i32>) {
    let output = observer()
        .arg("replay")
        .arg(recording)
        .args(arguments)
        .output();
    let Output {
        status,
        stdout,
        stderr,
    } = output.expect("runs");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (text(stdout), text(stderr), status.code())
}

fn records(printed: &str) -> Vec<Value> {
    let parse = |line| serde_json::from_str(line).expect("a record");
    printed.lines().map(parse).collect()
}

#[test]
fn a_run_is_printed_in_every_way() {
    if !privilege::granted("a_run_is_printed_in_every_way") {
        return;
    }
    let lab = demo::raise().expect("raised");
    let ways = demo::ways_from_outside(&lab).expect("front doors");
    let run = demo::observe(&lab, &ways).expect("observed");
    let recording = run.recording("node1");
    let (printed, summary, code) = replay(&recording, &["-o", "json"]);
    assert_eq!(code, Some(0));
    let all = records(&printed);
    assert!(all.len() >= 20, "{printed}");

    filters_print_what_they_ask_for(&recording, &all);
    a_run_fails_on_what_was_printed(&recording);
    the_summary_counts(&summary, &all);
    rows_and_lines_are_readable(&recording, all.len());
    colour_is_for_terminals(&recording);
    a_reader_that_has_enough_is_no_error(&recording);
}

/// Each filter, and that it lets some pass and keeps some back.
fn filters_print_what_they_ask_for(recording: &Path, all: &[Value]) {
    let is =
        |record: &Value, field: &str, value: &str| record.pointer(field) == Some(&json!(value));
    let is_of_web = |record: &Value| {
        is(record, "/service/namespace", "shop") && is(record, "/service/name", "web")
    };
    let is_v4 = |record: &Value| {
        let ip = record["client"]["ip"].as_str().expect("an address");
        ip.parse::<IpAddr>().expect("an address").is_ipv4()
    };
    let filters: [(&[&str], Passes); 6] = [
        (&["--lost"], &|record| is(record, "/source_ip", "lost")),
        (&["--client", "203.0.113.0/24"], &|record| {
            is_v4(record)
                && record["client"]["ip"]
                    .as_str()
                    .expect("text")
                    .starts_with("203.0.113.")
        }),
        (
            &["--client", "2001:db8:113::50", "--client", "203.0.113.50"],
            &|record| {
                ["2001:db8:113::50", "203.0.113.50"]
                    .iter()
                    .any(|ip| is(record, "/client/ip", ip))
            },
        ),
        (&["shop/web"], &is_of_web),
        (&["shop/web:http"], &|record| {
            is_of_web(record) && is(record, "/service/port", "http")
        }),
        (&["shop/web", "--lost"], &|record| {
            is_of_web(record) && is(record, "/source_ip", "lost")
        }),
    ];
    for (arguments, passes) in filters {
        let arguments = [arguments, &["-o", "json"]].concat();
        let (printed, _, code) = replay(recording, &arguments);
        let expected: Vec<_> = all
            .iter()
            .filter(|record| passes(record))
            .cloned()
            .collect();
        assert_eq!(code, Some(0), "{arguments:?}");
        assert_eq!(records(&printed), expected, "{arguments:?}");
        assert!(!expected.is_empty(), "{arguments:?} proves nothing");
        assert!(expected.len() < all.len(), "{arguments:?} proves nothing");
    }
    let (printed, _, _) = replay(recording, &["-o", "json", "--lost", "--count", "2"]);
    let lost = all.iter().filter(|record| is(record, "/source_ip", "lost"));
    let first: Vec<_> = lost.take(2).cloned().collect();
    assert_eq!(records(&printed), first, "--count counts what is printed");
}

fn a_run_fails_on_what_was_printed(recording: &Path) {
    for (arguments, code) in [
        (&["--fail-on", "lost"][..], FOUND),
        (&["--fail-on", "dropped"], FOUND),
        (&["--fail-on", "unexpected,dropped"], FOUND),
        (&["--fail-on", "unexpected", "--fail-on", "lost"], FOUND),
        // Of shop/api, whose policy is Local, none is lost; and of others none is printed.
        (&["shop/api", "--fail-on", "lost"], 0),
        (&["shop/far", "--fail-on", "dropped"], FOUND),
    ] {
        let (_, stderr, ended) = replay(recording, arguments);
        assert_eq!(ended, Some(code), "{arguments:?}: {stderr}");
    }
    let (_, stderr, code) = replay(recording, &["--fail-on", "unexpected"]);
    assert_eq!(code, Some(0), "all came out as predicted: {stderr}");
}

fn the_summary_counts(summary: &str, all: &[Value]) {
    let sum = format!("{} connections: source lost in ", all.len());
    assert!(summary.contains(&sum), "{summary}");
    let web = all
        .iter()
        .filter(|record| record["service"]["name"] == "web" && record["source_ip"] == "lost");
    let row = summary.lines().find(|line| line.starts_with("shop/web "));
    let row: Vec<_> = row.expect("a row").split_whitespace().collect();
    let count = web.count().to_string();
    assert_eq!(
        row,
        [
            "shop/web",
            "lost",
            "external-traffic-policy-cluster",
            "answered",
            &count
        ]
    );
}

fn rows_and_lines_are_readable(recording: &Path, all: usize) {
    let (wide, _, _) = replay(recording, &["-o", "wide"]);
    let rows: Vec<_> = wide.lines().collect();
    assert_eq!(
        rows.len(),
        all + 1,
        "one row each, and the names of the columns"
    );
    for row in &rows {
        assert_eq!(row.split_whitespace().count(), WIDE_COLUMNS, "{row}");
    }
    let (table, _, _) = replay(recording, &[]);
    let verdicts = table
        .lines()
        .filter(|line| line.starts_with("    ") && !line.starts_with("      "));
    assert_eq!(verdicts.count(), all, "{table}");
    for line in table.lines() {
        assert!(line.chars().count() <= 100, "{line}");
    }
    for text in [&wide, &table] {
        assert!(!text.contains('\u{1b}'), "colour is for terminals");
    }
}

/// On a terminal that `script` makes.
fn colour_is_for_terminals(recording: &Path) {
    let printed = |environment: &[(&str, &str)]| {
        let observer = observer_process::binary().expect("an observer");
        let line = format!("{} replay {}", observer.display(), recording.display());
        let mut command = Command::new("script");
        command
            .args(["--quiet", "--return", "--command", &line, "/dev/null"])
            .env_remove("NO_COLOR")
            .env_remove("CLICOLOR")
            .env("TERM", "xterm")
            .env("CI", "true")
            .envs(environment.iter().copied());
        command::run(&mut command).expect("prints")
    };
    assert!(
        printed(&[]).contains("\u{1b}[1m\u{1b}[31mLOST"),
        "no colour on a terminal"
    );
    for environment in [("NO_COLOR", "1"), ("TERM", "dumb")] {
        let printed = printed(&[environment]);
        assert!(printed.contains("LOST"), "{printed:?}");
        assert!(
            !printed.contains('\u{1b}'),
            "colour in spite of {environment:?}"
        );
    }
    let forced = observer()
        .arg("replay")
        .arg(recording)
        .env("CLICOLOR_FORCE", "1")
        .output()
        .expect("runs");
    assert!(!forced.stdout.contains(&0x1b), "colour in a pipe");
}

/// `| head -1`, in each format and for every command that prints more.
fn a_reader_that_has_enough_is_no_error(recording: &Path) {
    let recording = recording.to_str().expect("text");
    for arguments in [
        &["replay", recording, "-o", "json"][..],
        &["replay", recording, "-o", "wide"],
        &["replay", recording],
        &["completions", "bash"],
        &["man"],
        &["doctor"],
        &["trace", "--help"],
    ] {
        let mut child = observer()
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("runs");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("a pipe");
        BufReader::with_capacity(1, stdout)
            .read_line(&mut line)
            .expect("a line");
        let Output { status, stderr, .. } = child.wait_with_output().expect("ends");
        assert_eq!(status.code(), Some(0), "{arguments:?}");
        let stderr = String::from_utf8(stderr).expect("text");
        assert!(!stderr.contains("observer:"), "{arguments:?}: {stderr}");
        assert!(!stderr.contains("panicked"), "{arguments:?}: {stderr}");
    }
}

#[test]
fn completions_and_the_man_page_are_what_their_readers_take() {
    if !privilege::granted("completions_and_the_man_page_are_what_their_readers_take") {
        return;
    }
    let bash = command::run(observer().args(["completions", "bash"])).expect("printed");
    // What bash offers after `observer trace --fail-on`.
    let script = format!(
        "{bash}\nCOMP_WORDS=(observer trace --fail-on ''); COMP_CWORD=3; \
         _observer observer '' --fail-on; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    );
    let offered = command::run_with_input(&mut Command::new("bash"), &script).expect("bash");
    assert_eq!(offered, "lost\nunexpected\ndropped\n");

    let page = command::run(observer().arg("man")).expect("printed");
    assert!(page.contains(".TH observer 1"), "{page}");
    for section in ["OBSERVER TRACE", "OBSERVER DOCTOR", "EXIT STATUS"] {
        assert!(page.contains(section), "{section} is missing");
    }
}
