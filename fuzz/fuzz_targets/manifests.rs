//! Manifests, as somebody wrote them.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| observer_fuzz::manifests::run(bytes));
