//! The first bytes of a connection, and whom they name.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| observer_fuzz::payload::run(bytes));
