//! The lab needs root: a test without it is skipped aloud, or fails where that is demanded.

use std::{
    env,
    io::{self, Write as _},
};

/// The variable that turns a skipped test into a failed one, for places where root is promised.
pub const REQUIRE_PRIVILEGED: &str = "OBSERVER_REQUIRE_PRIVILEGED";

/// Whether `test` can run here: true for root; else it says that `test` is skipped.
///
/// # Panics
/// Without root when `OBSERVER_REQUIRE_PRIVILEGED` is set.
pub fn granted(test: &str) -> bool {
    if nix::unistd::geteuid().is_root() {
        return true;
    }
    assert!(
        env::var_os(REQUIRE_PRIVILEGED).is_none(),
        "{test} needs root, and {REQUIRE_PRIVILEGED} is set"
    );
    skipped(
        test,
        "it needs root (network namespaces, iptables, eBPF); run it by `cargo xtask test`",
    );
    false
}

/// Says that `test` is skipped and why, also when the output of passing tests is hidden: written
/// past the test harness, which captures only what is printed by macros.
pub fn skipped(test: &str, why: &str) {
    let _nobody_to_tell = writeln!(io::stderr(), "SKIPPED: {test}: {why}");
}
