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
mod predict;
mod vocabulary;

pub use before::{Before, LoadBalancers, Said};
pub use judge::{Backend, Client, FrontDoor, Knowledge, Loss, Lost, Verdict, arrived, judge};
pub use predict::{Prediction, Question, Terms, Why, predict};
pub use vocabulary::{
    Basis, Beyond, Cause, CauseCode, ClientKind, Expected, Finding, FindingCode, Hider, Outcome,
    OutcomeCause, OutcomeCauseCode, RewriteOwner, SourceIp,
};

#[cfg(test)]
mod tests;
