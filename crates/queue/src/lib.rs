//! The outbound queue: rows of the system account `AccountId::QUEUE`, one item per recipient that is not ours.
//!
//! Pure, as `mailbox`: `apply(view, op, at)` gives rows and an outcome; schedule and bounces are plain functions.

pub mod apply;
pub mod bounce;
pub mod codec;
pub mod merge;
pub mod op;
pub mod read;
mod refs;
mod rows;
pub mod schedule;

pub use apply::apply;
pub use merge::{QueueMergeReport, merge};
pub use op::{AttemptResult, Failure, QueueItem, QueueOp, QueueOutcome};
pub use refs::blob_ref_of;
