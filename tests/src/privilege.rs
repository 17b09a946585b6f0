//! The lab needs root: a test without it is skipped aloud, or fails where that is demanded. And
//! some tests need what not every kernel has: they are at home in virtual machines.

use std::{
    env,
    io::{self, Write as _},
};

use anyhow::Result;

/// The variable that turns a skipped test into a failed one, for places where root is promised.
pub const REQUIRE_PRIVILEGED: &str = "OBSERVER_REQUIRE_PRIVILEGED";

/// The variable that says that this kernel has all that any test needs: so it is in the virtual
/// machines of `cargo xtask kernels`, where tests that need more than most kernels have are at
/// home.
pub const WHOLE_KERNEL: &str = "OBSERVER_WHOLE_KERNEL";

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

/// Whether this kernel has `what` a test needs beside root, which `probe` tries to use; else it
/// says that `test` is for virtual machines. That is no skipped test: a kernel without the module
/// is as it should be, and [`WHOLE_KERNEL`] keeps the test from being nowhere.
///
/// # Panics
/// If the probe fails where [`WHOLE_KERNEL`] is set.
pub fn kernel_has(test: &str, what: &str, probe: impl FnOnce() -> Result<()>) -> bool {
    let Err(error) = probe() else {
        return true;
    };
    assert!(
        env::var_os(WHOLE_KERNEL).is_none(),
        "{test} needs {what}, and {WHOLE_KERNEL} is set: {error:#}"
    );
    say(&format!(
        "IN VIRTUAL MACHINES ONLY: {test}: this kernel has no {what}; `cargo xtask kernels` runs it"
    ));
    false
}

/// Says that `test` is skipped and why.
pub fn skipped(test: &str, why: &str) {
    say(&format!("SKIPPED: {test}: {why}"));
}

/// Says that `test` is run by `command`, which brings what it needs. That is no skipped test.
pub fn elsewhere(test: &str, command: &str) {
    say(&format!("NOT HERE: {test}: `{command}` runs it"));
}

/// Also when the output of passing tests is hidden: past the test harness, which captures only
/// what is printed by macros.
fn say(line: &str) {
    let _nobody_to_tell = writeln!(io::stderr(), "{line}");
}
