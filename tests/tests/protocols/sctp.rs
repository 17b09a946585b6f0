//! SCTP associations. Few kernels have sockets for them by themselves.
//!
//! Method: connect through the SCTP doors of the unusual cluster, break one thing, compare with
//! the oracle.

use std::time::Duration;

use anyhow::ensure;
use rstest::rstest;
use serde_json::json;
use tests::{
    client::{self, Failure},
    command,
    kubeproxy::{
        Backend, Mode,
        doors::{FrontDoor, Kind, front_doors},
    },
    lab::Lab,
    observer_process::ObserverProcess,
    privilege,
    protocol::Protocol,
    run,
    scene::Scene,
    traffic::{Client, Way, ways},
};

/// How often each way is gone.
const TIMES: usize = 2;
const PATIENCE: Duration = Duration::from_millis(3_500);

/// Whether this test can run.
fn possible(test: &str) -> bool {
    privilege::granted(test)
        && privilege::kernel_has(test, "SCTP", || {
            ensure!(
                Protocol::Sctp.has_sockets(),
                "the protocol is not supported"
            );
            Ok(())
        })
}

fn doors(lab: &Lab) -> Vec<FrontDoor> {
    let mut doors = front_doors(lab.cluster(), lab.kube_proxy()).expect("front doors");
    doors.retain(|door| door.protocol == Protocol::Sctp);
    assert!(!doors.is_empty(), "the cluster has SCTP Services");
    doors
}

/// Every client by every door.
#[rstest]
fn associations_are_reported_once_and_rightly(
    #[values(Mode::Iptables(Backend::Nft), Mode::Nftables)] mode: Mode,
) {
    if !possible("associations_are_reported_once_and_rightly") {
        return;
    }
    let scene = Scene::edges();
    let lab = scene.raise(scene.settings(mode)).expect("raised");
    let all = ways(&lab, &Client::all(&lab), &doors(&lab));
    let number = all.len() * TIMES;
    let ways: Vec<Way> = all.into_iter().cycle().take(number).collect();
    let run = run::observe(&lab, &scene.objects, &ways).expect("observed");
    run.assert_right(&lab);
    run.assert_replayed();
    let outcomes: Vec<_> = run.records.values().flatten().collect();
    for (field, expected) in [("/source_ip", "lost"), ("/outcome", "answered")] {
        let expected = json!(expected);
        assert!(
            outcomes
                .iter()
                .any(|record| record.pointer(field) == Some(&expected)),
            "{field} was never {expected}"
        );
    }
}

/// Nobody listens, so that the pod's host sends an ABORT; a rule rejects; a rule drops.
#[rstest]
#[case::aborted(None, "refused", "backend-refused")]
#[case::rejected(Some("REJECT"), "refused", "network-policy-or-firewall")]
#[case::dropped(Some("DROP"), "dropped", "network-policy-or-firewall")]
fn what_is_not_accepted_is_told_apart(
    #[case] target: Option<&str>,
    #[case] outcome: &str,
    #[case] cause: &str,
) {
    if !possible("what_is_not_accepted_is_told_apart") {
        return;
    }
    let scene = Scene::edges();
    let settings = scene.settings(Mode::Iptables(Backend::Nft));
    let mut lab = scene.raise(settings).expect("raised");
    let mut doors = doors(&lab).into_iter();
    let door = doors
        .find(|door| door.kind == Kind::NodePort && door.to.is_ipv4())
        .expect("a door");
    for pod in ["app-1", "app-2"] {
        lab.silence(pod);
    }
    let node = lab.node(&door.entry).expect("a node");
    if let Some(target) = target {
        let rule = format!("-I FORWARD -p sctp -j {target}");
        command::run(
            node.namespace
                .command("iptables")
                .args(rule.split_whitespace()),
        )
        .expect("a rule");
    }
    let observer = ObserverProcess::start(node, &scene.objects, &[]).expect("observes");
    let failure = client::connect_by(Protocol::Sctp, lab.client(), door.to, PATIENCE)
        .expect_err("nobody accepts")
        .failure;
    let finished = observer.stop().expect("stops");
    let [record] = &finished.records[..] else {
        panic!("one association: {:?}; {failure}", finished.records)
    };
    for (field, expected) in [
        ("/protocol", "SCTP"),
        ("/outcome", outcome),
        ("/outcome_cause/code", cause),
    ] {
        assert_eq!(
            record.pointer(field),
            Some(&json!(expected)),
            "{field} of {record}; {failure}"
        );
    }
    assert_eq!(
        matches!(failure, Failure::TimedOut),
        outcome == "dropped" || target == Some("REJECT"),
        "{failure}"
    );
}
