//! A real store behind two switches: the process died, the disk is full.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use ports::Answer;
use ports::mail_store::{ArchivedBranch, MailStore};
use vocab::{AccountHead, AccountId, BlobHash, ChainLink, Damaged, PastLink, RowWrite, Rows, StoreWrite, Version};

use super::ALICE;

/// How the account of all tests was brought up to date on this disk.
#[derive(Default)]
pub struct Seen {
    /// By what differed.
    pub advances: AtomicU32,
    /// Whole.
    pub switches: AtomicU32,
    /// All accounts that were, either way, in order.
    pub order: Mutex<Vec<AccountId>>,
}

/// The disk of one process.
pub struct Disk {
    pub seen: Arc<Seen>,
    pub store: Arc<dyn MailStore>,
    /// Nothing this process orders reaches the disk any more.
    pub dead: Arc<AtomicBool>,
    /// Says that nearly nothing is free.
    pub full: Arc<AtomicBool>,
}

impl MailStore for Disk {
    fn snapshot(&self, account: AccountId) -> Arc<dyn Rows> {
        self.store.snapshot(account)
    }
    fn head(&self, account: AccountId) -> Result<AccountHead, Damaged> {
        self.store.head(account)
    }
    fn versions(&self) -> Result<Vec<(AccountId, Version)>, Damaged> {
        self.store.versions()
    }
    fn chain(&self, account: AccountId) -> Result<Vec<ChainLink>, Damaged> {
        self.store.chain(account)
    }
    fn undo_since(&self, account: AccountId, version: Version) -> Result<Option<Vec<RowWrite>>, Damaged> {
        self.store.undo_since(account, version)
    }
    fn past(
        &self,
        account: AccountId,
        since: Option<Version>,
        limit_bytes: usize,
    ) -> Result<Option<Vec<PastLink>>, Damaged> {
        self.store.past(account, since, limit_bytes)
    }
    fn staged(&self, account: AccountId, head: AccountHead) -> Arc<dyn Rows> {
        self.store.staged(account, head)
    }
    fn write(&self, parts: Vec<StoreWrite>) -> Answer<'static, ()> {
        if self.dead.load(Ordering::SeqCst) {
            return Box::pin(std::future::pending());
        }
        for part in &parts {
            let (account, counter) = match part {
                StoreWrite::Advance { batch, .. } => (batch.account, &self.seen.advances),
                StoreWrite::Switch { account, .. } => (*account, &self.seen.switches),
                _ => continue,
            };
            self.seen.order.lock().expect("order").push(account);
            counter.fetch_add(u32::from(account == ALICE), Ordering::SeqCst);
        }
        self.store.write(parts)
    }
    fn meta(&self, key: &str) -> Option<Bytes> {
        self.store.meta(key)
    }
    fn has_blob(&self, hash: BlobHash) -> bool {
        self.store.has_blob(hash)
    }
    fn blob_size(&self, hash: BlobHash) -> Option<u64> {
        self.store.blob_size(hash)
    }
    fn blob(&self, hash: BlobHash, from: u64, to: u64) -> Option<Bytes> {
        self.store.blob(hash, from, to)
    }
    fn is_blob_sound(&self, hash: BlobHash) -> bool {
        self.store.is_blob_sound(hash)
    }
    fn named_blobs(&self, after: Option<BlobHash>, limit: usize) -> Result<Vec<BlobHash>, Damaged> {
        self.store.named_blobs(after, limit)
    }
    fn export(
        &self,
        snapshot: &Arc<dyn Rows>,
        after: Option<(u8, Bytes)>,
        limit_bytes: usize,
    ) -> Result<Vec<RowWrite>, Damaged> {
        self.store.export(snapshot, after, limit_bytes)
    }
    fn branches(&self) -> Vec<String> {
        self.store.branches()
    }
    fn branch(&self, name: &str) -> Result<Option<ArchivedBranch>, Damaged> {
        self.store.branch(name)
    }
    fn free_bytes(&self) -> u64 {
        if self.full.load(Ordering::SeqCst) { 1 } else { 1 << 40 }
    }
    fn disk_silent_ms(&self) -> u64 {
        0
    }
    fn synced_writes(&self) -> u64 {
        self.store.synced_writes()
    }
}
