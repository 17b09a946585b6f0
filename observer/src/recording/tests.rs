//! What is written reads back the same, and what is no recording says so.

use std::fs;

use rstest::rstest;
use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::cluster::Protocol;
use crate::observation::{DropReason, Entry, Identity, Moment, Tuple};
use crate::observe::{Asking, Epoch};

fn header() -> Header {
    Header::new(
        Settings {
            node: "node1".to_owned(),
            epoch: Epoch(jiff::Timestamp::UNIX_EPOCH),
            answer_timeout_ns: 3_000_000_000,
            all: false,
            follows_cluster: false,
            first_bytes: Asking::default(),
        },
        Some(KubeProxy::default()),
        Some(&Objects::default()),
    )
}

fn file() -> (TempDir, PathBuf) {
    let directory = TempDir::new().expect("a directory");
    let path = directory.path().join("recording.jsonl");
    (directory, path)
}

/// A recording of two ticks and the end, as text.
fn text() -> String {
    let (_directory, path) = file();
    let mut writer = Writer::create(&path, &header()).expect("made");
    for event in [
        Event::Tick(Moment(100)),
        Event::Tick(Moment(200)),
        Event::End,
    ] {
        writer.event(&event).expect("written");
    }
    writer.flush().expect("flushed");
    fs::read_to_string(&path).expect("text")
}

/// Fields are only ever added, and what is not there is not written.
#[test]
fn an_older_recordings_look_up_reads_as_one_without_a_drop_reason() {
    let reply = Tuple {
        source: "203.0.113.50:49508".parse().unwrap(),
        destination: "172.31.0.11:30080".parse().unwrap(),
    };
    let identity = Identity {
        protocol: Protocol::Tcp,
        zone: 0,
        original: reply,
        sequence: 1,
    };
    let entry = Some(Entry::Absent { table_full: false });
    let older = json!({"looked_up": [identity, entry]});
    let event = Event::LookedUp(identity, entry, None);
    assert_eq!(serde_json::to_value(&event).unwrap(), older);
    assert_eq!(serde_json::from_value::<Event>(older).unwrap(), event);

    let reason = DropReason("NETFILTER_DROP".to_owned());
    let told = Event::LookedUp(identity, entry, Some(reason));
    let written = serde_json::to_string(&told).unwrap();
    assert_eq!(serde_json::from_str::<Event>(&written).unwrap(), told);
}

/// All that is read from a text: the events, and what is wrong.
fn read(text: &str) -> (Vec<Event>, Option<String>) {
    let (_directory, path) = file();
    fs::write(&path, text).expect("written");
    let shown = path.display().to_string();
    let told = |error: RecordingError| Some(error.to_string().replace(&shown, "FILE"));
    let reader = match Reader::open(&path) {
        Ok((_, reader)) => reader,
        Err(error) => return (Vec::new(), told(error)),
    };
    let mut events = Vec::new();
    for event in reader {
        match event {
            Ok(event) => events.push(event),
            Err(error) => return (events, told(error)),
        }
    }
    (events, None)
}

#[test]
fn what_is_written_reads_back_the_same() {
    let (_directory, path) = file();
    fs::write(&path, text()).expect("written");
    let (found, reader) = Reader::open(&path).expect("a recording");
    assert_eq!(found, header());
    let list = found.cluster_state.expect("objects");
    assert_eq!(reader.objects(&list).expect("a List"), Objects::default());
    let (events, error) = read(&text());
    assert_eq!(error, None);
    assert_eq!(
        events,
        [
            Event::Tick(Moment(100)),
            Event::Tick(Moment(200)),
            Event::End
        ]
    );
}

#[test]
fn only_its_owner_may_read_it() {
    use std::os::unix::fs::PermissionsExt as _;

    let (_directory, path) = file();
    for before in [None, Some(0o644)] {
        if let Some(mode) = before {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("set");
        }
        Writer::create(&path, &header()).expect("made");
        let mode = fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

#[rstest]
#[case::empty("", "FILE is no recording: it is empty")]
#[case::something_else("a text\n", "FILE is no recording: expected value at line 1")]
#[case::other_json("{\"kind\":\"List\"}\n", "FILE is no recording: it has no schema")]
#[case::a_later_schema(
    "{\"schema\":\"observer.recording/v2\"}\n",
    "its schema is observer.recording/v2"
)]
fn what_is_no_recording_says_so(#[case] text: &str, #[case] says: &str) {
    let (events, error) = read(text);
    assert_eq!(events, []);
    let error = error.expect("wrong");
    assert!(error.contains(says) && !error.contains('\n'), "{error}");
}

#[test]
fn wherever_it_is_cut_what_came_before_is_read_and_the_cut_is_told() {
    let whole = text();
    let header_end = whole.find('\n').expect("a line") + 1;
    for end in header_end..whole.len() {
        let (events, error) = read(&whole[..end]);
        let lines = whole[..end].matches('\n').count();
        assert_eq!(events.len(), lines - 1, "at byte {end}");
        let says = format!("recording FILE: ends after line {lines} without its last event");
        let error = error.expect("cut");
        assert!(error.starts_with(&says), "at byte {end}: {error}");
    }
}

#[test]
fn a_broken_line_is_told_by_its_number() {
    let broken = text().replace("200", "soon");
    let (events, error) = read(&broken);
    assert_eq!(events.len(), 1);
    let error = error.expect("broken");
    assert!(error.starts_with("recording FILE, line 3: "), "{error}");
}
