//! What happened to the client's address, why, and what it cost.
//!
//! PURE: everything it knows is in the connection and in [`Knowledge`].

pub mod advice;
pub mod chain;
mod judge;
mod loss;
mod outcome;
mod predict;
mod vocabulary;

pub use judge::{Backend, Client, FrontDoor, Knowledge, Lost, Verdict, judge};
pub use predict::{Prediction, Question, Terms, Why, predict};
pub use vocabulary::{
    Basis, Cause, CauseCode, ClientKind, Expected, Outcome, OutcomeCause, OutcomeCauseCode,
    RewriteOwner, SourceIp,
};

#[cfg(test)]
mod tests;
