//! What comes up the ring buffer, and the verdicts on it.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| observer_fuzz::observations::run(bytes));
