//! Runs the replica of this node: the disk, the peers and `apply`. Everything that decides is in `cluster/replica` and
//! `crates/mailbox`; this room computes batches, does I/O in the order it is told, and answers whoever waits.

mod accounts;
mod archived;
mod blobs;
mod bodies;
mod check;
mod chunks;
mod cluster;
mod compute;
mod difference;
mod drive;
mod engine;
mod failback;
mod fanout;
mod fetches;
mod forward;
mod grace;
mod handover;
mod intake;
mod membership;
mod merge;
mod outbox;
mod progress;
mod repair;
mod retry;
mod seed;
mod senses;
mod serve;
mod tracker;
mod transfer;
mod watch;
mod work;

pub use accounts::EngineAccounts;
pub use blobs::EngineBlobs;
pub use cluster::EngineCluster;
pub use engine::{Engine, EngineConfig, QUEUE_GRACE_MS, raise_boot};
pub use intake::EngineIntake;
pub use outbox::EngineOutbox;
pub use senses::EngineSenses;

pub(crate) use vocab::error::NO_SPACE;
/// Reason: this node may not serve now.
pub(crate) const NOT_SERVING: &str = "this node does not serve now";
/// Reason: rows or bodies cannot be read.
pub(crate) const DAMAGED: &str = "stored data is damaged and waits for repair";
/// Reason: a change names a body that nobody made durable, or that waited too long for it.
pub(crate) const NO_BODY: &str = "the body of the message is not here";
/// Reason: one change is larger than a batch may be.
pub(crate) const TOO_LARGE: &str = "the change is larger than one commit may be";
/// Reason: what was accepted is on the branch of a home that went on alone, not on this disk.
pub(crate) const PLACED_ELSEWHERE: &str = "the message was placed on another branch";
/// Reason: the mailboxes of a recipient refused the message.
pub(crate) const REFUSED: &str = "a recipient's mailboxes refused the message";
/// Reason: the message was reported settled by its origin before this call came.
pub(crate) const TOO_LATE: &str = "the message was given up long ago";
