//! The lab needs root: a test without it is skipped aloud, or fails where that is demanded.

#![expect(clippy::print_stderr, reason = "a skipped test must be seen in the output of the run")]

use std::env;

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
    eprintln!("SKIPPED: {test} needs root (network namespaces, iptables, eBPF); run it by `cargo xtask test`");
    false
}
