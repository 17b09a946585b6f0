//! STUB
use serde::Serialize;
use strum::VariantNames;
/// A
#[derive(Clone, Debug, Serialize, VariantNames)]
#[serde(tag = "code", rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum Assumption {
    /// a
    LoadBalancerAddress {
        /// s
        service: String,
        /// i
        ip: String,
    },
}
