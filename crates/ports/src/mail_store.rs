//! The disk of the mailboxes, for the engine that runs replication.

use std::sync::Arc;

use bytes::Bytes;
pub use vocab::StoreWrite;
use vocab::{AccountHead, AccountId, BlobHash, ChainLink, Damaged, PastLink, RowWrite, Rows, Version};

use crate::Answer;

/// A branch that a heal or a repair put aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchivedBranch {
    /// Account and version in hex.
    pub name: String,
    /// When its newest row was written (Unix ms); it is kept for 30 days from then on.
    pub written_ms: u64,
    /// Bytes of its rows and of the bodies they name, which may be those of present messages too.
    pub bytes: u64,
    /// Bodies its rows name.
    pub bodies: u64,
}

/// Rows, heads, chains, bodies and records of one node. Reads are of the last *written* state; every write is synced.
/// A sync or write error ends the process with a clear message, so `write` has no error.
pub trait MailStore: Send + Sync {
    /// Consistent snapshot of the account's present generation.
    fn snapshot(&self, account: AccountId) -> Arc<dyn Rows>;
    /// Head alone (cheap, cached); default when the account has no state.
    ///
    /// # Errors
    /// [`Damaged`].
    fn head(&self, account: AccountId) -> Result<AccountHead, Damaged>;
    /// Every account that has state, with its version.
    ///
    /// # Errors
    /// [`Damaged`].
    fn versions(&self) -> Result<Vec<(AccountId, Version)>, Damaged>;
    /// Versions of the account since the last agreed one, oldest first, the present one last.
    ///
    /// # Errors
    /// [`Damaged`].
    fn chain(&self, account: AccountId) -> Result<Vec<ChainLink>, Damaged>;
    /// Every row that changed since `version`, with the value it had then (`None` = absent), each once: over a snapshot
    /// they give the account as it was. `None` when the chain does not reach back to it or a link was kept without undo
    /// rows.
    ///
    /// # Errors
    /// [`Damaged`].
    fn undo_since(&self, account: AccountId, version: Version) -> Result<Option<Vec<RowWrite>>, Damaged>;
    /// The links of the chain behind `since` (`None`: all there are), oldest first, the present one last, with their undo
    /// rows, at most about `limit_bytes` of them. `None` when the links behind `since` are more than that, lack undo
    /// rows or are not there; of the whole chain the newest are given then, the first without undo rows.
    ///
    /// # Errors
    /// [`Damaged`].
    fn past(
        &self,
        account: AccountId,
        since: Option<Version>,
        limit_bytes: usize,
    ) -> Result<Option<Vec<PastLink>>, Damaged>;
    /// The staged rows of the account, under the head they belong to.
    fn staged(&self, account: AccountId, head: AccountHead) -> Arc<dyn Rows>;
    /// Writes all parts atomically; resolves when they are synced. Concurrent calls share syncs, in call order.
    fn write(&self, parts: Vec<StoreWrite>) -> Answer<'static, ()>;
    /// A node-local record.
    fn meta(&self, key: &str) -> Option<Bytes>;
    /// Whether every byte of the body is here.
    fn has_blob(&self, hash: BlobHash) -> bool;
    /// Size of a body that is here.
    fn blob_size(&self, hash: BlobHash) -> Option<u64>;
    /// Bytes `from..to` of a body that is here (`to` cut at its end); `None` when it is not here or damaged.
    fn blob(&self, hash: BlobHash, from: u64, to: u64) -> Option<Bytes>;
    /// Whether every byte of the body is here and its BLAKE3 is its name. Reads all of it; blocks.
    fn is_blob_sound(&self, hash: BlobHash) -> bool;
    /// Bodies that something names, ascending, behind `after`, at most `limit`; empty at the end. Blocks.
    ///
    /// # Errors
    /// [`Damaged`].
    fn named_blobs(&self, after: Option<BlobHash>, limit: usize) -> Result<Vec<BlobHash>, Damaged>;
    /// All rows of an account in key order, for a transfer, from (table, key) exclusive on, at most about `limit_bytes`.
    ///
    /// # Errors
    /// [`Damaged`].
    fn export(
        &self,
        snapshot: &Arc<dyn Rows>,
        after: Option<(u8, Bytes)>,
        limit_bytes: usize,
    ) -> Result<Vec<RowWrite>, Damaged>;
    /// Rows of an account that were copied from another node's folder before this one joined, under the head they had.
    /// They are no state: only what a transfer would bring anyway may be taken from them. `None` once the account has a
    /// state.
    fn seed(&self, _account: AccountId) -> Option<Arc<dyn Rows>> {
        None
    }
    /// Lets go of every seed that is left.
    fn drop_seeds(&self) {}
    /// Names of archived branches.
    fn branches(&self) -> Vec<String>;
    /// How large an archived branch is; `None` when there is none of this name. Reads all its rows; blocks.
    ///
    /// # Errors
    /// [`Damaged`].
    fn branch(&self, name: &str) -> Result<Option<ArchivedBranch>, Damaged>;
    /// Bytes free on the medium.
    fn free_bytes(&self) -> u64;
    /// Milliseconds since the last synced write ended well, by the store's own small write every second or so.
    fn disk_silent_ms(&self) -> u64;
    /// Synced writes since start, for metrics and benchmarks.
    fn synced_writes(&self) -> u64;
}
