//! Turns ordered writes into one RocksDB batch. Lives in the committer thread alone, so what it remembers is never
//! older than the disk. A failed write ends the process, so nothing here is ever taken back.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use rocksdb::{ColumnFamily, DB, IteratorMode, ReadOptions, WriteBatch};
use vocab::limits::BLOB_CHUNK_BYTES;
use vocab::rows::prefix_end;
use vocab::{
    AccountBatch, AccountHead, AccountId, BlobHash, BlobRef, Damaged, PastLink, RowWrite, StoreWrite, Version,
};

use crate::chain::Link;
use crate::disk::{Disk, Entry};
use crate::snapshot::{damaged, encode_head};
use crate::{blobs, families, keys};

/// What an iterator of RocksDB gives.
type Item = Result<(Box<[u8]>, Box<[u8]>), rocksdb::Error>;

/// One RocksDB batch in the making.
#[derive(Default)]
pub(crate) struct Group {
    /// What will be written.
    pub(crate) batch: WriteBatch,
    /// Account states to publish after the write.
    pub(crate) entries: HashMap<AccountId, Entry>,
    /// Links of the version chain that are in `batch` only.
    pub(crate) links: HashMap<AccountId, Vec<Link>>,
    /// Accounts whose links on disk are deleted by `batch`.
    pub(crate) chains_reset: HashSet<AccountId>,
    /// Bodies whose record is in `batch`.
    bodies: HashSet<BlobHash>,
}

/// Chunks of a body that is not complete.
struct Upload {
    have: BTreeSet<u32>,
}

/// What the committer remembers between batches.
pub(crate) struct Ledger {
    pub(crate) disk: Arc<Disk>,
    /// Accounts with a stage and its generation.
    pub(crate) staged: HashMap<AccountId, u32>,
    pub(crate) next_link: HashMap<AccountId, u64>,
    /// Links before this one are deleted; a scan that began there would walk over what is left of them.
    pub(crate) oldest_link: HashMap<AccountId, u64>,
    /// Links up to this one have no undo rows.
    pub(crate) bare_until: HashMap<AccountId, u64>,
    uploads: HashMap<BlobHash, Upload>,
    /// Number of the next log record.
    pub(crate) next_record: u64,
}

impl Ledger {
    pub(crate) fn new(disk: Arc<Disk>) -> Self {
        Self {
            disk,
            staged: HashMap::new(),
            next_link: HashMap::new(),
            oldest_link: HashMap::new(),
            bare_until: HashMap::new(),
            uploads: HashMap::new(),
            next_record: 0,
        }
    }

    pub(crate) fn family(&self, name: &str) -> &ColumnFamily {
        families::family(&self.disk.db, name)
    }

    /// Adds all parts of one write.
    ///
    /// # Errors
    /// [`Damaged`] when something that must be read first cannot be: the caller ends the process.
    pub(crate) fn add(&mut self, group: &mut Group, parts: Vec<StoreWrite>) -> Result<(), Damaged> {
        let named = named_bodies(&parts);
        for part in parts {
            match part {
                StoreWrite::Account(batch) => self.add_account(group, &batch)?,
                StoreWrite::Bodies(bodies) => {
                    for body in bodies {
                        self.add_body(group, body.hash, &body.bytes, named.contains(&body.hash))?;
                    }
                }
                StoreWrite::Records(records) => self.add_records(group, &records),
                StoreWrite::BlobChunk { hash, index, total, bytes } => {
                    self.add_chunk(group, hash, (index, total), &bytes)?;
                }
                StoreWrite::Meta { key, value } => {
                    let (family, key) = (self.family(families::META), keys::record(&key));
                    match value {
                        Some(value) => group.batch.put_cf(family, key, value),
                        None => group.batch.delete_cf(family, key),
                    }
                }
                StoreWrite::Stage { account, rows, refs } => self.stage(group, account, &rows, &refs),
                StoreWrite::Switch { account, head, past } => self.switch(group, account, head, &past)?,
                StoreWrite::Advance { batch, past } => self.advance(group, &batch, &past)?,
                StoreWrite::Unstage { account } => self.unstage(group, account),
                StoreWrite::SwapStage { account, version, digest } => self.swap_stage(group, account, version, digest),
                StoreWrite::RepairBody(body) => self.repair_body(group, body.hash, &body.bytes),
                StoreWrite::TrimChain { account, agreed } => self.trim_chain(group, account, agreed)?,
                StoreWrite::DropBranch { branch } => self.drop_branch(group, &branch),
                StoreWrite::Archive { branch, key, value, refs } => {
                    self.archive(group, &branch, &key, (&value, &refs));
                }
            }
        }
        Ok(())
    }

    /// Generation the account's rows are in.
    fn generation(&self, group: &Group, account: AccountId) -> u32 {
        let entry = group.entries.get(&account).map(|entry| entry.generation);
        let generation = entry.or_else(|| self.disk.entry(account).map(|entry| entry.generation));
        generation.unwrap_or(0).max(self.disk.first_generation(account))
    }

    /// The account has a state of its own from this write on, or nobody needs its seed.
    pub(crate) fn end_seed(&self, group: &mut Group, account: AccountId) {
        if let Some(seed) = self.disk.end_seed(account) {
            group.batch.delete_cf(self.family(families::META), keys::seed(account));
            self.drop_generation(group, account, seed.generation);
        }
    }

    fn add_account(&mut self, group: &mut Group, batch: &AccountBatch) -> Result<(), Damaged> {
        let account = batch.account;
        self.end_seed(group, account);
        let generation = self.generation(group, account);
        self.chain_batch(group, batch)?;
        self.put_rows(group, account, generation, &batch.rows);
        self.put_refs(group, account, generation, &batch.refs);
        self.put_head(group, account, generation, &batch.head);
        Ok(())
    }

    fn advance(&mut self, group: &mut Group, batch: &AccountBatch, past: &[PastLink]) -> Result<(), Damaged> {
        let account = batch.account;
        self.end_seed(group, account);
        let generation = self.generation(group, account);
        self.add_past(group, account, past)?;
        self.put_rows(group, account, generation, &batch.rows);
        self.put_refs(group, account, generation, &batch.refs);
        self.put_head(group, account, generation, &batch.head);
        Ok(())
    }

    fn put_head(&self, group: &mut Group, account: AccountId, generation: u32, head: &AccountHead) {
        let family = self.family(families::HEAD);
        group.batch.put_cf(family, keys::account(account), encode_head(generation, head));
        group.entries.insert(account, Entry { generation, head: Ok(head.clone()) });
    }

    fn put_rows(&self, group: &mut Group, account: AccountId, generation: u32, rows: &[RowWrite]) {
        for row in rows {
            let family = families::of_table(&self.disk.db, row.table);
            let key = keys::row(account, generation, row.table, &row.key);
            match &row.value {
                Some(value) => group.batch.put_cf(family, key, value),
                None => group.batch.delete_cf(family, key),
            }
        }
    }

    fn put_refs(&self, group: &mut Group, account: AccountId, generation: u32, refs: &[BlobRef]) {
        for reference in refs {
            let key = keys::blob_ref(reference.hash, account, generation, reference.placement);
            let family = self.family(families::BLOB_REFS);
            if reference.present {
                group.batch.put_cf(family, key, []);
            } else {
                group.batch.delete_cf(family, key);
                // Perhaps not the last reference; the sweep looks when the time has come.
                self.put_orphan(group, reference.hash);
            }
        }
    }

    /// The body may be without references from now on.
    pub(crate) fn put_orphan(&self, group: &mut Group, hash: BlobHash) {
        group.batch.put_cf(self.family(families::ORPHANS), hash.0, self.disk.now_ms().to_be_bytes());
    }

    fn add_body(&self, group: &mut Group, hash: BlobHash, bytes: &[u8], named: bool) -> Result<(), Damaged> {
        if !named {
            self.put_orphan(group, hash);
        }
        if !self.has_record(group, hash)? {
            group.batch.put_cf(self.family(families::BLOBS), hash.0, blobs::whole_record(bytes));
            group.bodies.insert(hash);
        }
        Ok(())
    }

    fn has_record(&self, group: &Group, hash: BlobHash) -> Result<bool, Damaged> {
        if group.bodies.contains(&hash) {
            return Ok(true);
        }
        let record = self.disk.db.get_pinned_cf(self.family(families::BLOBS), hash.0);
        Ok(record.map_err(|e| damaged(&e))?.is_some())
    }

    fn add_chunk(
        &mut self,
        group: &mut Group,
        hash: BlobHash,
        (index, total): (u32, u64),
        bytes: &[u8],
    ) -> Result<(), Damaged> {
        let count = blobs::chunk_count(total);
        let start = u64::from(index) * BLOB_CHUNK_BYTES as u64;
        let wanted = total.saturating_sub(start).min(BLOB_CHUNK_BYTES as u64);
        if index >= count || bytes.len() as u64 != wanted {
            tracing::error!(%hash, index, total, "chunk of the wrong size is not kept");
            return Ok(());
        }
        self.put_orphan(group, hash);
        if self.has_record(group, hash)? {
            self.uploads.remove(&hash);
            return Ok(());
        }
        if !self.uploads.contains_key(&hash) {
            let have = chunks_on_disk(&self.disk.db, hash)?;
            self.uploads.insert(hash, Upload { have });
        }
        group.batch.put_cf(self.family(families::BLOBS), keys::chunk(hash, index), bytes);
        let complete = self.uploads.get_mut(&hash).is_some_and(|upload| {
            upload.have.insert(index);
            upload.have.len() as u64 == u64::from(count)
        });
        if complete {
            self.uploads.remove(&hash);
            group.batch.put_cf(self.family(families::BLOBS), hash.0, blobs::chunked_record(total));
            group.bodies.insert(hash);
        }
        Ok(())
    }

    /// Deletes whatever there is of a body.
    pub(crate) fn delete_body(&mut self, group: &mut Group, hash: BlobHash) -> Result<(), Damaged> {
        let chunks = match blobs::stored_chunks(&self.disk.db, hash) {
            Some(count) => (0..count).collect(),
            None => chunks_on_disk(&self.disk.db, hash)?,
        };
        self.uploads.remove(&hash);
        let family = self.family(families::BLOBS);
        group.batch.delete_cf(family, hash.0);
        for index in chunks {
            group.batch.delete_cf(family, keys::chunk(hash, index));
        }
        group.batch.delete_cf(self.family(families::ORPHANS), hash.0);
        Ok(())
    }

    fn stage(&mut self, group: &mut Group, account: AccountId, rows: &[RowWrite], refs: &[BlobRef]) {
        let generation = self.generation(group, account) + 1;
        if self.staged.insert(account, generation).is_none() {
            group.batch.put_cf(self.family(families::META), keys::stage(account), generation.to_be_bytes());
        }
        self.put_rows(group, account, generation, rows);
        self.put_refs(group, account, generation, refs);
    }

    /// Also for an account with nothing staged: then its new state has no rows.
    fn switch(
        &mut self,
        group: &mut Group,
        account: AccountId,
        head: AccountHead,
        past: &[PastLink],
    ) -> Result<(), Damaged> {
        let old = self.generation(group, account);
        self.staged.remove(&account);
        self.end_seed(group, account);
        group.batch.delete_cf(self.family(families::META), keys::stage(account));
        self.drop_generation(group, account, old);
        self.put_head(group, account, old + 1, &head);
        self.drop_chain(group, account)?;
        if past.is_empty() {
            return self.add_past(group, account, &[PastLink { version: head.version, undo: None }]);
        }
        self.add_past(group, account, past)
    }

    fn swap_stage(&mut self, group: &mut Group, account: AccountId, version: Version, digest: u128) {
        let entry = group.entries.get(&account).cloned().or_else(|| self.disk.entry(account));
        let head = entry.and_then(|entry| entry.head.ok()).filter(|head| head.version == version);
        let Some(head) = head.filter(|_| self.staged.contains_key(&account)) else {
            return self.unstage(group, account);
        };
        let old = self.generation(group, account);
        self.staged.remove(&account);
        group.batch.delete_cf(self.family(families::META), keys::stage(account));
        self.drop_generation(group, account, old);
        self.put_head(group, account, old + 1, &AccountHead { digest, ..head });
    }

    /// Overwrites; `add_body` leaves alone what is there.
    fn repair_body(&mut self, group: &mut Group, hash: BlobHash, bytes: &[u8]) {
        blobs::put_whole(&self.disk.db, &mut group.batch, hash, bytes);
        group.bodies.insert(hash);
        self.uploads.remove(&hash);
    }

    fn unstage(&mut self, group: &mut Group, account: AccountId) {
        if let Some(generation) = self.staged.remove(&account) {
            self.drop_stage(group, account, generation);
        }
    }

    /// Deletes the rows of a stage and the record of it.
    pub(crate) fn drop_stage(&self, group: &mut Group, account: AccountId, generation: u32) {
        group.batch.delete_cf(self.family(families::META), keys::stage(account));
        self.drop_generation(group, account, generation);
    }

    /// One range delete per family in the same write: snapshots taken before still see the rows, and compaction takes
    /// them away in the background. References are left to the sweep.
    fn drop_generation(&self, group: &mut Group, account: AccountId, generation: u32) {
        let from = keys::generation(account, generation);
        let to = keys::generation(account, generation + 1);
        group.batch.delete_range_cf(self.family(families::ROWS), from, to);
        group.batch.delete_range_cf(self.family(families::OUTCOMES), from, to);
        group.batch.put_cf(self.family(families::META), keys::DROPPED, []);
    }
}

/// Bodies that a reference in the same write names.
fn named_bodies(parts: &[StoreWrite]) -> HashSet<BlobHash> {
    let mut named = HashSet::new();
    for part in parts {
        match part {
            StoreWrite::Account(AccountBatch { refs, .. })
            | StoreWrite::Advance { batch: AccountBatch { refs, .. }, .. }
            | StoreWrite::Stage { refs, .. } => {
                named.extend(refs.iter().filter(|reference| reference.present).map(|reference| reference.hash));
            }
            StoreWrite::Archive { refs, .. } => named.extend(refs),
            _ => {}
        }
    }
    named
}

/// Numbers of the chunks of a body that is not complete, as far as they are written.
fn chunks_on_disk(db: &DB, hash: BlobHash) -> Result<BTreeSet<u32>, Damaged> {
    let mut bounds = ReadOptions::default();
    bounds.set_iterate_lower_bound(keys::chunk(hash, 0));
    if let Some(end) = prefix_end(&hash.0) {
        bounds.set_iterate_upper_bound(end);
    }
    let chunks = db.iterator_cf_opt(families::family(db, families::BLOBS), bounds, IteratorMode::Start);
    let number = |item: Item| {
        let (key, _) = item.map_err(|e| damaged(&e))?;
        Ok(keys::chunk_of(&key))
    };
    chunks.filter_map(|item| number(item).transpose()).collect()
}
