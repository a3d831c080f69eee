//! RocksDB: rows, blobs, heads; the only user of RocksDB for mail.
//!
//! Reading is direct; writing goes through one thread (`committer.rs`) that syncs once for everything that waits. Key
//! layout: `keys.rs`; families and tuning: `families.rs`; what a write means: `ledger.rs`;
//! what leads back to older versions: `chain.rs`.

use std::path::Path;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use bytes::Bytes;
use ports::Answer;
use ports::mail_store::{ArchivedBranch, MailStore};
use rocksdb::{DB, Direction, IteratorMode, WriteOptions};
use tokio::sync::oneshot;
use vocab::{AccountHead, AccountId, BlobHash, ChainLink, Damaged, PastLink, RowWrite, Rows, StoreWrite, Version};

mod archive;
mod blobs;
mod chain;
mod committer;
mod disk;
pub mod families;
mod foreign;
mod format;
pub mod keys;
mod ledger;
mod options;
mod records;
mod seed;
mod snapshot;
mod sweep;

pub use committer::GROUP_BYTES_MAX;
pub use foreign::Foreign;
pub use format::FORMAT_VERSION;
pub use options::{BLOCK_CACHE_BYTES, BRANCH_KEEP_MS, IDLE_WRITE, OpenError, SWEEP_PAUSE_MS, StoreOptions};

pub use seed::{RowRules, SeedWriter};

use committer::{Committer, Order};
use disk::Disk;
use ledger::{Group, Ledger};

/// One node's mail on disk. Dropping it writes what waits and closes the folder once the last snapshot is gone.
pub struct Store {
    disk: Arc<Disk>,
    /// `None` only while dropping.
    orders: Mutex<Option<Sender<Order>>>,
    committer: Option<JoinHandle<()>>,
}

impl Store {
    /// Opens or creates the store in folder `path`. Stages left by an earlier run are thrown away.
    ///
    /// # Errors
    /// [`OpenError`] says what the operator can do.
    pub fn open(path: &Path, options: StoreOptions) -> Result<Arc<Self>, OpenError> {
        format::check_families(path)?;
        let failed = |error: rocksdb::Error| format::open_error(path, &error);
        let descriptors = families::descriptors(options.block_cache_bytes);
        let db = DB::open_cf_descriptors(&families::database_options(), path, descriptors).map_err(failed)?;
        format::check_record(&db, path)?;
        let disk = Arc::new(Disk::new(db, path.to_owned(), options));
        disk.load_heads().map_err(failed)?;
        disk.load_seeds().map_err(failed)?;
        let mut ledger = Ledger::new(Arc::clone(&disk));
        let (next, waiting) = records::load(&disk.db).map_err(failed)?;
        ledger.next_record = next;
        disk.records.begin(waiting);
        drop_leftover_stages(&ledger).map_err(failed)?;
        let (sender, receiver) = mpsc::channel();
        let committer = Committer::new(ledger, receiver);
        let thread = std::thread::Builder::new().name("store-committer".into()).spawn(move || committer.run());
        let thread = thread.map_err(|error| OpenError::System { path: path.to_owned(), what: error.to_string() })?;
        Ok(Arc::new(Self { disk, orders: Mutex::new(Some(sender)), committer: Some(thread) }))
    }

    /// Makes an openable copy in `path`, which must not exist yet; files that never change are shared with it.
    ///
    /// # Errors
    /// RocksDB's words: no space, another file system, the folder exists.
    pub fn checkpoint(&self, path: &Path) -> Result<(), OpenError> {
        let failed = |error: rocksdb::Error| format::open_error(path, &error);
        let checkpoint = rocksdb::checkpoint::Checkpoint::new(&self.disk.db).map_err(failed)?;
        checkpoint.create_checkpoint(path).map_err(failed)
    }

    /// Runs one whole pass that deletes old branches and bodies without references, and says how many bodies went. It runs by itself every
    /// [`SWEEP_PAUSE_MS`]; this is for operators and tests.
    pub async fn sweep(&self) -> u64 {
        let (answer, done) = oneshot::channel();
        self.order(Order::Sweep(answer));
        match done.await {
            Ok(deleted) => deleted,
            Err(_) => std::future::pending().await,
        }
    }

    fn order(&self, order: Order) {
        if let Some(orders) = &*self.orders.lock().unwrap_or_else(PoisonError::into_inner) {
            // Fails only when the committer has stopped after `on_fatal`: then nobody is answered any more.
            let _ = orders.send(order);
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(committer) = self.committer.take() {
            // A panic of the committer was reported by its own thread.
            let _ = committer.join();
        }
    }
}

/// A stage belongs to one run: whoever built it starts again.
fn drop_leftover_stages(ledger: &Ledger) -> Result<(), rocksdb::Error> {
    let disk = &ledger.disk;
    let meta = families::family(&disk.db, families::META);
    let mut group = Group::default();
    for item in disk.db.iterator_cf(meta, IteratorMode::From(keys::STAGE, Direction::Forward)) {
        let (key, value) = item?;
        let Some(account) = key.strip_prefix(keys::STAGE) else { break };
        let generation = <[u8; 4]>::try_from(&*value).ok().map(u32::from_be_bytes);
        if let (Some(account), Some(generation)) = (keys::account_of(account), generation) {
            tracing::info!(account = account.0, "a transfer was not finished; it starts again");
            ledger.drop_stage(&mut group, account, generation);
        }
    }
    let mut synced = WriteOptions::default();
    synced.set_sync(true);
    disk.db.write_opt(group.batch, &synced)
}

impl MailStore for Store {
    fn snapshot(&self, account: AccountId) -> Arc<dyn Rows> {
        Arc::new(snapshot::AccountSnapshot::take(Arc::clone(&self.disk.db), account))
    }

    fn head(&self, account: AccountId) -> Result<AccountHead, Damaged> {
        self.disk.entry(account).map_or_else(|| Ok(AccountHead::default()), |entry| entry.head)
    }

    fn versions(&self) -> Result<Vec<(AccountId, Version)>, Damaged> {
        let version = |(account, entry): (AccountId, disk::Entry)| Ok((account, entry.head?.version));
        self.disk.entries().into_iter().map(version).collect()
    }

    fn chain(&self, account: AccountId) -> Result<Vec<ChainLink>, Damaged> {
        let links = chain::chain_links(&self.disk.db, account, 0)?;
        Ok(links.into_iter().map(|link| ChainLink { version: link.version, undo: link.undo }).collect())
    }

    fn undo_since(&self, account: AccountId, version: Version) -> Result<Option<Vec<RowWrite>>, Damaged> {
        chain::undo_since(&self.disk.db, account, version)
    }

    fn past(
        &self,
        account: AccountId,
        since: Option<Version>,
        limit_bytes: usize,
    ) -> Result<Option<Vec<PastLink>>, Damaged> {
        chain::past(&self.disk.db, account, since, limit_bytes)
    }

    fn staged(&self, account: AccountId, head: AccountHead) -> Arc<dyn Rows> {
        Arc::new(snapshot::AccountSnapshot::staged(
            Arc::clone(&self.disk.db),
            account,
            head,
            self.disk.first_generation(account),
        ))
    }

    fn write(&self, parts: Vec<StoreWrite>) -> Answer<'static, ()> {
        let (answer, done) = oneshot::channel();
        self.order(Order::Write(parts, answer));
        Box::pin(async move {
            if done.await.is_err() {
                // The disk failed and the process is about to end: nobody may take this for written.
                std::future::pending::<()>().await;
            }
        })
    }

    fn meta(&self, key: &str) -> Option<Bytes> {
        match self.disk.db.get_cf(families::family(&self.disk.db, families::META), keys::record(key)) {
            Ok(value) => value.map(Bytes::from),
            Err(error) => {
                // Taking a node's own record for absent could make it forget an epoch.
                self.disk.fatal(&format!("record {key} cannot be read: {error}"));
                None
            }
        }
    }

    fn has_blob(&self, hash: BlobHash) -> bool {
        blobs::size(&self.disk, hash).is_some()
    }

    fn blob_size(&self, hash: BlobHash) -> Option<u64> {
        blobs::size(&self.disk, hash)
    }

    fn blob(&self, hash: BlobHash, from: u64, to: u64) -> Option<Bytes> {
        blobs::read(&self.disk.db, hash, from, to)
    }

    fn is_blob_sound(&self, hash: BlobHash) -> bool {
        blobs::verify(&self.disk.db, hash)
    }

    fn named_blobs(&self, after: Option<BlobHash>, limit: usize) -> Result<Vec<BlobHash>, Damaged> {
        blobs::named(&self.disk.db, after, limit)
    }

    fn export(
        &self,
        snapshot: &Arc<dyn Rows>,
        after: Option<(u8, Bytes)>,
        limit_bytes: usize,
    ) -> Result<Vec<RowWrite>, Damaged> {
        snapshot::export(&**snapshot, after, limit_bytes)
    }

    fn branches(&self) -> Vec<String> {
        archive::branches(&self.disk.db)
    }

    fn branch(&self, name: &str) -> Result<Option<ArchivedBranch>, Damaged> {
        archive::branch(&self.disk.db, name)
    }

    fn seed(&self, account: AccountId) -> Option<Arc<dyn Rows>> {
        let seed = self.disk.seed(account)?;
        let db = Arc::clone(&self.disk.db);
        Some(Arc::new(snapshot::AccountSnapshot::of_generation(db, account, seed.generation, seed.head)))
    }

    fn drop_seeds(&self) {
        if !self.disk.seeded().is_empty() {
            self.order(Order::DropSeeds);
        }
    }

    fn free_bytes(&self) -> u64 {
        match rustix::fs::statvfs(&self.disk.path) {
            Ok(system) => system.f_bavail.saturating_mul(system.f_frsize),
            Err(error) => {
                tracing::error!(%error, "free space is unknown and taken for none");
                0
            }
        }
    }

    fn disk_silent_ms(&self) -> u64 {
        self.disk.silent_ms()
    }

    fn synced_writes(&self) -> u64 {
        self.disk.synced_writes()
    }
}
