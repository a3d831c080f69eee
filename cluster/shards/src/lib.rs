//! Runs the replica of this node: the disk, the peers and `apply`. Everything that decides is in `cluster/replica` and
//! `crates/mailbox`; this room computes batches, does I/O in the order it is told, and answers whoever waits.

mod accounts;
mod blobs;
mod cluster;
mod compute;
mod drive;
mod engine;
mod forward;
mod intake;
mod outbox;
mod serve;
mod tracker;
mod transfer;
mod watch;
mod work;

pub use accounts::EngineAccounts;
pub use blobs::EngineBlobs;
pub use cluster::EngineCluster;
pub use engine::{Engine, EngineConfig, raise_boot};
pub use intake::EngineIntake;
pub use outbox::EngineOutbox;

/// Reason: the disk is below its reserve.
pub(crate) const NO_SPACE: &str = "insufficient storage";
/// Reason: this node may not serve now.
pub(crate) const NOT_SERVING: &str = "this node does not serve now";
/// Reason: rows or bodies cannot be read.
pub(crate) const DAMAGED: &str = "stored data is damaged and waits for repair";
