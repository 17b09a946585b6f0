//! All that touches the kernel.

pub mod links;
pub mod programs;
