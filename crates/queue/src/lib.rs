//! The outbound queue: rows of the system account `AccountId::QUEUE`, one item per recipient that is not ours.
//!
//! Pure, as `mailbox`: `apply(view, op, at)` gives rows and an outcome; schedule and bounces are plain functions.

pub mod op;
