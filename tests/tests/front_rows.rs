//! What people put in front of a cluster, by the real programs: every row of the comparison.
//!
//! Goal: for hostNetwork × externalTrafficPolicy × ALB and NLB × instance and IP mode, a hundred
//! connections each, in both proxy modes and families, the client recovered is the one that really
//! connected wherever the bytes carry it, and `unknown` with the reason where they do not; every
//! loss is told, in the order of the way; a client that writes headers itself is not believed; and
//! what `explain` predicts is what happens. Method: run
//! nginx, `HAProxy` and NAT in front of one lab, and compare four answers for each row: documents,
//! sockets, `trace`, `explain`.

use std::{env, fs::OpenOptions, io::Write as _};

use rstest::rstest;
use tests::{
    explained::{explain, run},
    fronts::{
        judge, rows,
        stage::{Known, Stage},
    },
    kubeproxy::{Backend, Family, Mode, Settings},
    privilege,
};

const CONNECTIONS: usize = 100;
const SOME: usize = 10;

/// A test that passes prints nothing; `cargo xtask test` prints this.
fn show(table: &str) {
    if let Some(path) = env::var_os("SCENARIO_TABLE") {
        let mut file = OpenOptions::new();
        let file = file.create(true).append(true).open(path);
        let mut file = file.expect("a file");
        file.write_all(table.as_bytes()).expect("written");
    }
}

#[rstest]
fn every_row_is_told_as_it_happens(
    #[values(Mode::Iptables(Backend::Nft), Mode::Nftables)] mode: Mode,
    #[values(Family::V4, Family::V6)] family: Family,
) {
    if !privilege::granted("every_row_is_told_as_it_happens") {
        return;
    }
    let rows = rows::all().expect("rows");
    let stage = Stage::raise(rows, Settings::of(mode), family).expect("raised");
    let objects = stage.objects().path().to_str().expect("text");
    let kube_proxy = stage.kube_proxy().path().to_str().expect("text");
    let arguments = [
        "-f",
        objects,
        "--kube-proxy-config",
        kube_proxy,
        "-o",
        "json",
    ];
    let said = run(explain(&arguments).expect("an observer"), "").expect("ends");
    let explanation = said.json().expect("explained");
    // Told whom to trust, and no more, an observer knows what they say.
    for (known, connections) in [
        (Known::AsLoadBalancers, CONNECTIONS),
        (Known::AsTrusted, SOME),
        (Known::AsUntrusted, SOME),
    ] {
        let observed = stage.observe(known, connections).expect("observed");
        let report = judge::judge(&stage, &observed, &explanation);
        let complaints = &report.complaints;
        if known == Known::AsLoadBalancers && family == Family::V4 {
            show(&format!("mode {mode}:\n{}\n", report.table(&stage)));
        }
        assert!(
            complaints.is_empty(),
            "{known:?}: {} complaints:\n{}",
            complaints.len(),
            complaints.join("\n")
        );
    }
}
