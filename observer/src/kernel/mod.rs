//! All that touches the kernel.

mod batch;
pub mod btf;
pub mod capabilities;
pub mod conntrack;
pub mod drops;
pub mod environment;
pub mod layout;
pub mod links;
pub mod memory;
pub mod netfilter;
pub mod nftables;
pub mod programs;
mod tc;
pub mod wait;
