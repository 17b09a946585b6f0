//! What reads bytes that come from elsewhere, given any bytes.
//!
//! Each module is one target: its `run` takes any bytes and panics if what must hold of them does
//! not. libFuzzer looks for such bytes (`cargo xtask fuzz`); the tests here replay the seeds that
//! it starts from, and whatever it has found, which is kept among them.

pub mod btf;
pub mod cluster;
pub mod manifests;
pub mod observations;
pub mod payload;
pub mod scenario;

#[cfg(test)]
mod tests;
