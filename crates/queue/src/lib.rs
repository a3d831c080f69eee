//! The outbound queue: rows of the system account `AccountId::QUEUE`, one item per recipient that is not ours, and one
//! accept record per message whose recipients of ours have several homes, until all of them have it.
//!
//! Pure, as `mailbox`: `apply(view, op, at)` gives rows and an outcome; schedule and bounces are plain functions.

mod accepts;
pub mod apply;
pub mod bounce;
pub mod codec;
pub mod merge;
pub mod op;
mod outcomes;
pub mod read;
mod refs;
mod rows;
pub mod schedule;

pub use apply::apply;
pub use merge::{QueueMergeReport, merge};
pub use op::{AcceptRecord, Accepted, AttemptResult, Failure, LocalRecipient, QueueItem, QueueOp, QueueOutcome};
pub use refs::blob_ref_of;
