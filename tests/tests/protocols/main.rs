//! What is not TCP: UDP flows and SCTP associations.
//!
//! Goal: what opens one, what answers it and what is another one are told as rightly as with TCP.

mod sctp;
mod udp;
