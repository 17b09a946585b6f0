//! What does not fit together in front of an ingress controller, by the real programs.
//!
//! Goal: a PROXY header that the controller does not speak, one that it waits for in vain, and
//! `X-Forwarded-For` that is overwritten or appended to twice are found, each with the change that
//! mends it; with that change nothing is found, and of a health check nothing is. Method: run nginx
//! as ingress-nginx configures it, `HAProxy` and nginx in front of it, and compare for each row what
//! documents say, what the programs answered, logged and read, and what `trace` told.

use rstest::rstest;
use tests::{
    ingress::{Stage, judge, rows},
    kubeproxy::{Backend, Family, Mode},
    privilege,
};

const CONNECTIONS: usize = 20;

#[rstest]
fn what_does_not_fit_is_found(
    #[values(Mode::Iptables(Backend::Nft), Mode::Nftables)] mode: Mode,
    #[values(Family::V4, Family::V6)] family: Family,
) {
    if !privilege::granted("what_does_not_fit_is_found") {
        return;
    }
    let rows = rows::all().expect("rows");
    let stage = Stage::raise(rows, mode, family).expect("raised");
    let run = stage.observe(CONNECTIONS).expect("observed");
    let complaints = judge::judge(&stage, &run, CONNECTIONS);
    assert!(
        complaints.is_empty(),
        "{} complaints:\n{}",
        complaints.len(),
        complaints.join("\n")
    );
}
