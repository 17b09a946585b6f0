//! What the index answers, behaviour by behaviour.
