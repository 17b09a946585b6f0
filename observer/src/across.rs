//! Connections across nodes: the agents of a cluster followed, and what two of them saw of one
//! connection joined.
//!
//! Agents are reached through the API server (`agents`); each is followed by itself (`agent`).
//! A record that may have another half waits for it (`halves`). What was not seen is told, not
//! guessed: `nodes` keeps count.

mod agent;
mod agents;
mod halves;
mod nodes;

pub use agent::AgentError;
pub use agents::{Heard, What, follow};
pub use halves::Halves;
pub use nodes::{Nodes, START, listed};
