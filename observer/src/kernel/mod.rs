//! All that touches the kernel.

pub mod btf;
pub mod conntrack;
pub mod layout;
pub mod links;
pub mod netfilter;
pub mod programs;
mod tc;
pub mod wait;
