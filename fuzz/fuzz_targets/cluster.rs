//! The cluster's objects, as kubectl prints them.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| observer_fuzz::cluster::run(bytes));
