//! The lab: a Kubernetes cluster made of network namespaces, with kube-proxy's own rules in it.
//!
//! It is raised from the objects of a cluster as kubectl prints them. A namespace stands for
//! each Node, each pod and an external client; the nodes are programmed as a kube-proxy would
//! program them; a backend in every pod answers with the address that its own socket saw. That
//! answer is the oracle: what the observer claims must agree with it.
//!
//! Truth shares no code with what it judges: nothing here depends on the crate `observer`.

pub mod api_server;
pub mod attached;
pub mod backend;
pub mod bench;
pub mod child;
pub mod client;
pub mod cluster;
pub mod command;
pub mod demo;
pub mod deploy;
pub mod ear;
pub mod explained;
pub mod flood;
pub mod fronts;
pub mod http;
pub mod ingress;
pub mod kubeproxy;
pub mod lab;
pub mod manifest;
pub mod neighbours;
pub mod netns;
pub mod observer_process;
pub mod oracle;
pub mod payload;
pub mod plan;
pub mod privilege;
pub mod protocol;
pub mod recording;
pub mod run;
pub mod scenario;
pub mod scene;
pub mod sidecar;
pub mod small;
pub mod threads;
pub mod through;
pub mod traffic;
