//! What happened to the client's address, why, and what it cost.
//!
//! PURE: everything it knows is in the connection and in [`Knowledge`].

mod judge;
mod outcome;
mod vocabulary;

pub use judge::{Backend, Client, FrontDoor, Knowledge, Lost, Verdict, judge};
pub use vocabulary::{
    Basis, Cause, CauseCode, ClientKind, Outcome, OutcomeCause, OutcomeCauseCode, RewriteOwner,
    SourceIp,
};

#[cfg(test)]
mod tests;
