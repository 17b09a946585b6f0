//! The binary `observer`.
fn main() {}
