//! What can be written to the disk of the mailboxes, as data: machines order it, `store` does it.

use bytes::Bytes;

use crate::batch::{AccountBatch, BlobRef, InlineBody, LogRecord, PastLink};
use crate::head::AccountHead;
use crate::ids::{AccountId, BlobHash, Version};
use crate::rows::RowWrite;

/// One part of an atomic, synced write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreWrite {
    /// Rows, head, references and a new link of the version chain. The caller has checked `expected`.
    Account(AccountBatch),
    /// Small bodies of a batch.
    Bodies(Vec<InlineBody>),
    /// Log records of a batch, kept until the log has them.
    Records(Vec<LogRecord>),
    /// One chunk of a large body; `index` counts chunks of `BLOB_CHUNK_BYTES`, `total` is the size of the body.
    BlobChunk {
        /// BLAKE3 of the whole body.
        hash: BlobHash,
        /// Chunk number.
        index: u32,
        /// Bytes of the whole body.
        total: u64,
        /// The chunk.
        bytes: Bytes,
    },
    /// A node-local record (epoch, mode, boot); `None` deletes.
    Meta {
        /// Name.
        key: String,
        /// Bytes.
        value: Option<Bytes>,
    },
    /// Rows of an account under construction, beside the present generation.
    Stage {
        /// Account.
        account: AccountId,
        /// Full rows (no deletes).
        rows: Vec<RowWrite>,
        /// References of its placements.
        refs: Vec<BlobRef>,
    },
    /// Makes the staged rows the account's state (next generation) in this same write. The old generation's rows are
    /// deleted afterwards in the background.
    Switch {
        /// Account.
        account: AccountId,
        /// Its new head.
        head: AccountHead,
        /// Its new chain, oldest first, `head.version` last; empty: just this version.
        past: Vec<PastLink>,
    },
    /// Several batches in one: what leads from the version here to a later one. The caller has checked `expected`.
    Advance {
        /// The difference; without undo rows of its own.
        batch: AccountBatch,
        /// The links behind `batch.expected`, oldest first, `batch.head.version` last.
        past: Vec<PastLink>,
    },
    /// Throws a half-built stage away.
    Unstage {
        /// Account.
        account: AccountId,
    },
    /// Makes the staged rows the account's rows when it still is at this version: same head, same chain, sound rows. Else
    /// the stage is thrown away.
    SwapStage {
        /// Account.
        account: AccountId,
        /// Version the stage was built for.
        version: Version,
        /// Digest of the staged rows.
        digest: u128,
    },
    /// A body in the place of a damaged or missing one; nothing new becomes referenced by it.
    RepairBody(InlineBody),
    /// All in-sync members are known to hold `agreed`: undo rows up to it are dropped, and links before the newest
    /// `OLD_VERSIONS_MAX` older ones.
    TrimChain {
        /// Account.
        account: AccountId,
        /// Oldest version that somebody may have to go back to.
        agreed: Version,
    },
    /// The archived branch is dropped before its time: it is listed no longer, its rows and bodies go in the background.
    DropBranch {
        /// Its name.
        branch: String,
    },
    /// One row of an archived branch; the store drops the branch when its newest row is 30 days old.
    Archive {
        /// Name of the branch: account and version in hex.
        branch: String,
        /// Key within the branch.
        key: Bytes,
        /// Bytes; bodies it names stay referenced.
        value: Bytes,
        /// Bodies the row needs.
        refs: Vec<BlobHash>,
    },
}
