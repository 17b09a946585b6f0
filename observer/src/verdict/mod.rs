//! What happened to the client's address, why, and what it cost.
//!
//! PURE: everything it knows is in the connection and in [`Knowledge`].

mod explain;
mod judge;
mod loss;
mod outcome;
mod predict;
mod vocabulary;

pub use explain::{Explained, Explainer};
pub use judge::{Backend, Client, FrontDoor, Knowledge, Lost, Verdict, judge};
pub use predict::{Prediction, Question, SourceSeen, Terms, predict};
pub use vocabulary::{
    Basis, Cause, CauseCode, ClientKind, Expected, Outcome, OutcomeCause, OutcomeCauseCode,
    RewriteOwner, SourceIp,
};

#[cfg(test)]
mod tests;
