//! The API server as a source of the cluster's objects.
//!
//! Goal: what the observer knows by the API server is what the API server has, however it behaves;
//! and what cannot be known is said. Method: an API server of the tests' own, which misbehaves on
//! command, and the binary as a user runs it.

mod across;
mod events;
mod explain;
mod follow;
mod memory;
mod readers;

use serde_json::Value;
use tests::{
    api_server::{ApiServer, Options, items},
    demo,
};

fn demo_items() -> Vec<Value> {
    items(&demo::cluster_file()).expect("the demo's objects")
}

fn server() -> ApiServer {
    ApiServer::start(&demo_items(), &Options::default()).expect("an API server")
}
