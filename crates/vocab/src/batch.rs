//! What one commit writes. Once sent, a batch never changes; it is retried as it is (DESIGN 5).

use bytes::Bytes;

use crate::head::AccountHead;
use crate::ids::{AccountId, BatchId, BlobHash, PlacementId, Version};
use crate::rows::RowWrite;

/// A reference from a placement to a body: node-local rows, rebuildable from the placements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobRef {
    /// The body.
    pub hash: BlobHash,
    /// Who needs it (queue items use a placement id too).
    pub placement: PlacementId,
    /// Added, or taken away.
    pub present: bool,
}

/// A small body that travels with the rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InlineBody {
    /// BLAKE3 of `bytes`.
    pub hash: BlobHash,
    /// At most `SMALL_BODY_MAX` bytes.
    pub bytes: Bytes,
}

/// The part of a batch that belongs to one account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountBatch {
    /// Which account.
    pub account: AccountId,
    /// The version it applies to; anything else is refused.
    pub expected: Version,
    /// The head after it; `head.version` is the next version.
    pub head: AccountHead,
    /// Row writes, outcomes by command id among them.
    pub rows: Vec<RowWrite>,
    /// References to bodies.
    pub refs: Vec<BlobRef>,
    /// What every row in `rows` was before, in the same order (`None` = absent). Kept beside the link of the version chain
    /// in epochs whose in-sync set lacks a member, empty otherwise: from it the state before this batch can be restored
    /// for a merge (X6, X17). Not part of the version.
    pub undo: Vec<RowWrite>,
}

/// One link of an account's version chain, as kept since the last version every member is known to hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChainLink {
    /// The version.
    pub version: Version,
    /// Whether the batch that led to it was kept with its undo rows, so that the version before it can be restored. It was
    /// then written in an epoch that lacks a member, where served marks are kept too (X15).
    pub undo: bool,
}

/// One link of a version chain as one node gives it to another: with what its batch replaced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PastLink {
    /// The version.
    pub version: Version,
    /// Rows as they were before it, each key once (`value` = `None`: absent); `None` when it is kept without undo rows.
    pub undo: Option<Vec<RowWrite>>,
}

impl PastLink {
    /// Approximate size for limits (bytes).
    #[must_use]
    pub fn size(&self) -> usize {
        32 + self.undo.iter().flatten().map(RowWrite::size).sum::<usize>()
    }
}

/// What the log is to know of a commit, written with it on every node of the in-sync set. Its id follows from the command,
/// so a command that is repeated, or ran on two branches, is one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRecord {
    /// What it is known by, everywhere and for ever.
    pub id: Bytes,
    /// The record as the log reads it.
    pub bytes: Bytes,
}

impl LogRecord {
    /// Approximate size for limits (bytes).
    #[must_use]
    pub fn size(&self) -> usize {
        self.id.len() + self.bytes.len() + 16
    }
}

/// One commit: several accounts of one home when a message goes to several of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// (epoch, home, counter).
    pub id: BatchId,
    /// In account id order, each account once.
    pub accounts: Vec<AccountBatch>,
    /// Small bodies, each once.
    pub bodies: Vec<InlineBody>,
    /// For the log. Not part of any version.
    pub records: Vec<LogRecord>,
}

impl Batch {
    /// Approximate size for limits (bytes).
    #[must_use]
    pub fn size(&self) -> usize {
        let rows = |a: &AccountBatch| a.rows.iter().map(RowWrite::size).sum::<usize>() + a.refs.len() * 64 + 128;
        self.accounts.iter().map(rows).sum::<usize>()
            + self.bodies.iter().map(|b| b.bytes.len() + 40).sum::<usize>()
            + self.records.iter().map(LogRecord::size).sum::<usize>()
    }
}
