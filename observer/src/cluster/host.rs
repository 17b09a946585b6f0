//! STUB
use super::finding::Finding;
use super::{Objects, Protocol};
use serde::Serialize;
/// A
#[derive(Clone, Debug, Serialize)]
pub struct HostDoor {
    /// w
    pub workload: String,
    /// h
    pub host_network: bool,
    /// p
    pub protocol: Protocol,
    /// p
    pub port: u16,
}
/// D
pub fn doors(_: &Objects) -> (Vec<HostDoor>, Vec<Finding>) {
    (Vec::new(), Vec::new())
}
