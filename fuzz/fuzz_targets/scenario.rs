//! A row of the decision table, as somebody wrote it.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| observer_fuzz::scenario::run(bytes));
