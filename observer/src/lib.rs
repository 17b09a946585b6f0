//! Source IP Observer: where a client's address was lost, by whom, because of which setting.
//!
//! Facts flow one way: packets → [`observation`]s → connections ([`flow`]) → [`verdict`]s →
//! [`record`]s → people ([`output`]). [`cluster`] holds what the objects say, [`kubernetes`] gets
//! them from the API server, [`kernel`] is all that touches the kernel; [`observe`] is the only
//! place where the four meet, [`cli`] where they run.

pub mod across;
pub mod agent;
pub mod cli;
pub mod cluster;
pub mod flow;
pub mod kernel;
pub mod kubernetes;
pub mod live;
pub mod manifests;
mod notice;
pub mod observation;
pub mod observe;
pub mod output;
pub mod payload;
pub mod record;
pub mod recording;
pub mod verdict;
pub mod words;
