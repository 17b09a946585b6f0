//! What happened to the client's address, why, and what it cost.
//!
//! PURE: everything it knows is in the connection and in [`Knowledge`].

pub mod advice;
mod before;
pub mod chain;
mod judge;
mod loss;
mod mismatch;
mod outcome;
mod parts;
mod predict;
mod source;
mod vocabulary;

pub use before::{Before, LoadBalancers, Said};
pub use judge::{arrived, judge};
pub use parts::{Backend, Client, FrontDoor, Knowledge, Loss, Lost, Verdict};
pub use predict::{Prediction, Question, Terms, Why, predict};
pub use vocabulary::{
    Basis, Beyond, Cause, CauseCode, ClientKind, Expected, Finding, FindingCode, Hider, Outcome,
    OutcomeCause, OutcomeCauseCode, RewriteOwner, SourceIp,
};

#[cfg(test)]
mod tests;
