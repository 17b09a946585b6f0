//! The kernel's description of its own types.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| observer_fuzz::btf::run(bytes));
