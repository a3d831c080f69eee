//! What the committer and the readers share: the database, the heads in memory and the few counters.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Instant;

use rocksdb::{DB, Direction, IteratorMode};
use vocab::{AccountHead, AccountId, BlobHash, Damaged};

use crate::options::StoreOptions;
use crate::{families, keys, snapshot};

/// The state of one account as last written.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Present generation.
    pub(crate) generation: u32,
    /// Present head.
    pub(crate) head: Result<AccountHead, Damaged>,
}

/// Rows of an account that were copied from another node's folder. They are no state: they only spare a transfer.
#[derive(Clone, Debug)]
pub(crate) struct Seed {
    /// Generation its rows are in.
    pub(crate) generation: u32,
    /// The head they belong to.
    pub(crate) head: AccountHead,
    /// Its rows are here still.
    pub(crate) live: bool,
}

/// Shared parts of an open store.
pub(crate) struct Disk {
    pub(crate) db: Arc<DB>,
    pub(crate) path: PathBuf,
    pub(crate) options: StoreOptions,
    heads: Vec<RwLock<BTreeMap<AccountId, Entry>>>,
    /// Accounts that were seeded when the store was opened; an ended seed still says where generations begin.
    seeds: RwLock<BTreeMap<AccountId, Seed>>,
    /// Unreferenced bodies somebody asked for, with the time of the question: they may be about to be named.
    asked: Mutex<HashMap<BlobHash, u64>>,
    /// Log records that wait for the log.
    pub(crate) records: crate::records::Waiting,
    started: Instant,
    last_synced_ms: AtomicU64,
    synced_writes: AtomicU64,
}

impl Disk {
    pub(crate) fn new(db: DB, path: PathBuf, options: StoreOptions) -> Self {
        Self {
            db: Arc::new(db),
            path,
            options,
            seeds: RwLock::default(),
            heads: (0..vocab::limits::SHARDS).map(|_| RwLock::default()).collect(),
            asked: Mutex::default(),
            records: crate::records::Waiting::default(),
            started: Instant::now(),
            last_synced_ms: AtomicU64::new(0),
            synced_writes: AtomicU64::new(0),
        }
    }

    /// Reads every head into memory. A head that cannot be understood makes its account damaged, not the store.
    pub(crate) fn load_heads(&self) -> Result<(), rocksdb::Error> {
        for item in self.db.iterator_cf(families::family(&self.db, families::HEAD), IteratorMode::Start) {
            let (key, value) = item?;
            let Some(account) = keys::account_of(&key) else { continue };
            let entry = match snapshot::decode_head(&value) {
                Ok((generation, head)) => Entry { generation, head: Ok(head) },
                Err(damage) => {
                    tracing::error!(account = account.0, %damage, "account is out of order until repaired");
                    let generation = value.first_chunk::<4>().map_or(0, |bytes| u32::from_be_bytes(*bytes));
                    Entry { generation, head: Err(damage) }
                }
            };
            self.publish([(account, entry)]);
        }
        Ok(())
    }

    /// Reads which accounts are seeded.
    pub(crate) fn load_seeds(&self) -> Result<(), rocksdb::Error> {
        let meta = families::family(&self.db, families::META);
        let mut seeds = BTreeMap::new();
        for item in self.db.iterator_cf(meta, IteratorMode::From(keys::SEED, Direction::Forward)) {
            let (key, value) = item?;
            let Some(account) = key.strip_prefix(keys::SEED).and_then(keys::account_of) else { break };
            match snapshot::decode_head(&value) {
                Ok((generation, head)) => drop(seeds.insert(account, Seed { generation, head, live: true })),
                Err(damage) => tracing::error!(account = account.0, %damage, "the seed of an account is not used"),
            }
        }
        *self.seeds.write().unwrap_or_else(PoisonError::into_inner) = seeds;
        Ok(())
    }

    pub(crate) fn seed(&self, account: AccountId) -> Option<Seed> {
        let seeds = self.seeds.read().unwrap_or_else(PoisonError::into_inner);
        seeds.get(&account).filter(|seed| seed.live).cloned()
    }

    /// Accounts whose seeds are here still.
    pub(crate) fn seeded(&self) -> Vec<AccountId> {
        let seeds = self.seeds.read().unwrap_or_else(PoisonError::into_inner);
        seeds.iter().filter(|(_, seed)| seed.live).map(|(account, _)| *account).collect()
    }

    /// The seed is not to be used any more; gives it when it was.
    pub(crate) fn end_seed(&self, account: AccountId) -> Option<Seed> {
        let mut seeds = self.seeds.write().unwrap_or_else(PoisonError::into_inner);
        let seed = seeds.get_mut(&account).filter(|seed| seed.live)?;
        seed.live = false;
        Some(seed.clone())
    }

    /// Generation of an account that has no head: behind that of its seed, also when that has ended, because a stage may
    /// have been begun before.
    pub(crate) fn first_generation(&self, account: AccountId) -> u32 {
        let seeds = self.seeds.read().unwrap_or_else(PoisonError::into_inner);
        seeds.get(&account).map_or(0, |seed| seed.generation) + 1
    }

    fn shard(&self, account: AccountId) -> &RwLock<BTreeMap<AccountId, Entry>> {
        // `shard()` is six bits and there are 64 maps.
        &self.heads[usize::from(account.shard().0) % self.heads.len()]
    }

    pub(crate) fn entry(&self, account: AccountId) -> Option<Entry> {
        self.shard(account).read().unwrap_or_else(PoisonError::into_inner).get(&account).cloned()
    }

    pub(crate) fn entries(&self) -> Vec<(AccountId, Entry)> {
        let mut all = Vec::new();
        for shard in &self.heads {
            let shard = shard.read().unwrap_or_else(PoisonError::into_inner);
            all.extend(shard.iter().map(|(account, entry)| (*account, entry.clone())));
        }
        all.sort_by_key(|(account, _)| *account);
        all
    }

    pub(crate) fn publish(&self, entries: impl IntoIterator<Item = (AccountId, Entry)>) {
        for (account, entry) in entries {
            self.shard(account).write().unwrap_or_else(PoisonError::into_inner).insert(account, entry);
        }
    }

    pub(crate) fn asked(&self) -> MutexGuard<'_, HashMap<BlobHash, u64>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// A synced write ended well just now.
    pub(crate) fn note_synced(&self) {
        self.last_synced_ms.store(self.elapsed_ms(), Ordering::Relaxed);
        self.synced_writes.fetch_add(1, Ordering::Relaxed);
        metrics::counter!("twinpost_store_synced_writes_total").increment(1);
    }

    pub(crate) fn silent_ms(&self) -> u64 {
        self.elapsed_ms().saturating_sub(self.last_synced_ms.load(Ordering::Relaxed))
    }

    pub(crate) fn synced_writes(&self) -> u64 {
        self.synced_writes.load(Ordering::Relaxed)
    }

    pub(crate) fn now_ms(&self) -> u64 {
        (self.options.now_ms)()
    }

    /// Logs and ends the process; returns only where a test has put its own `on_fatal`.
    pub(crate) fn fatal(&self, what: &str) {
        let message = format!(
            "{what}; data folder {}: nothing more can be kept safely on this disk, so the process ends. \
             The other node goes on; check the disk, its space and the system log before starting again",
            self.path.display()
        );
        tracing::error!("{message}");
        (self.options.on_fatal)(&message);
    }
}
