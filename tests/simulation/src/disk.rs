//! A disk that loses what it has not synced: a durable image, and writes that become durable in order.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use vocab::{
    AccountBatch, AccountHead, AccountId, BlobHash, InlineBody, MemoryRows, PastLink, RowWrite, StoreWrite, Version,
};

use crate::vocabulary::After;

/// Versions remembered before the last agreed one; few, so that disks come back older than that too.
const OLD_VERSIONS: usize = 8;
/// Undo rows given with a transfer; few, so that there are sometimes more.
const PAST_ROWS: usize = 60;

/// The account as it was at `version`, from what it is now and a chain that leads here.
pub(crate) fn restored(now: &MemoryRows, chain: &[PastLink], version: Version) -> Option<MemoryRows> {
    if version == Version::default() {
        return Some(MemoryRows::default());
    }
    let at = chain.iter().rposition(|link| link.version == version)?;
    let mut rows = now.clone();
    for link in chain.iter().skip(at + 1).rev() {
        rows.write(link.undo.as_deref()?);
    }
    Some(rows)
}

/// The links behind `version`, when all of them have undo rows.
pub(crate) fn behind(chain: &[PastLink], version: Version) -> Option<Vec<PastLink>> {
    let at = chain.iter().rposition(|link| link.version == version)?;
    let links = chain.get(at + 1..).unwrap_or_default();
    let few = links.iter().flat_map(|link| &link.undo).map(Vec::len).sum::<usize>() <= PAST_ROWS;
    (few && links.iter().all(|link| link.undo.is_some())).then(|| links.to_vec())
}

/// The newest links with as many undo rows as are given.
pub(crate) fn newest(chain: &[PastLink]) -> Vec<PastLink> {
    let mut rows = 0;
    let fits = |link: &&PastLink| {
        let fits = rows <= PAST_ROWS;
        rows += link.undo.as_ref().map_or(0, Vec::len);
        fits
    };
    let mut newest: Vec<PastLink> = chain.iter().rev().take_while(fits).cloned().collect();
    newest.reverse();
    if let Some(oldest) = newest.first_mut().filter(|_| rows > PAST_ROWS) {
        oldest.undo = None;
    }
    newest
}

/// What is on the medium.
#[derive(Clone, Debug, Default)]
pub(crate) struct Image {
    pub(crate) accounts: BTreeMap<AccountId, MemoryRows>,
    pub(crate) chains: BTreeMap<AccountId, Vec<PastLink>>,
    pub(crate) stages: BTreeMap<AccountId, Vec<RowWrite>>,
    pub(crate) blobs: BTreeMap<BlobHash, Bytes>,
    pub(crate) meta: BTreeMap<String, Bytes>,
    pub(crate) archive: BTreeMap<String, BTreeMap<Bytes, Bytes>>,
}

/// One atomic write on its way to the medium.
#[derive(Clone, Debug)]
struct Queued {
    parts: Vec<StoreWrite>,
    after: After,
}

/// Disk of one node.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    pub(crate) image: Image,
    queue: VecDeque<Queued>,
    /// Writes the running sync covers; 0 = no sync runs.
    syncing: usize,
    /// Counts crashes, so that a sync of a dead process ends in nothing.
    pub(crate) generation: u64,
}

/// A part that became durable, for the checks.
pub(crate) type Landed<'a> = &'a mut dyn FnMut(&Image, &StoreWrite);

impl Disk {
    /// Queues a write; true when a sync must be started.
    pub(crate) fn write(&mut self, parts: Vec<StoreWrite>, after: After) -> bool {
        self.queue.push_back(Queued { parts, after });
        self.start()
    }

    /// Starts a sync of everything queued, unless one runs.
    fn start(&mut self) -> bool {
        if self.syncing > 0 || self.queue.is_empty() {
            return false;
        }
        self.syncing = self.queue.len();
        true
    }

    /// The running sync ended: what it covered is durable. True when the next sync has begun.
    pub(crate) fn synced(&mut self, landed: Landed<'_>) -> (Vec<After>, bool) {
        let count = std::mem::take(&mut self.syncing);
        let done = self.land(count, landed);
        (done, self.start())
    }

    /// Power or process gone: `keep` of the queued writes happened to reach the medium, the others are lost.
    pub(crate) fn crash(&mut self, keep: usize, landed: Landed<'_>) {
        self.land(keep, landed);
        self.queue.clear();
        self.syncing = 0;
        self.generation += 1;
    }

    pub(crate) fn queued(&self) -> usize {
        self.queue.len()
    }

    fn land(&mut self, count: usize, landed: Landed<'_>) -> Vec<After> {
        let mut done = Vec::new();
        for _ in 0..count {
            let Some(queued) = self.queue.pop_front() else { break };
            for part in queued.parts {
                landed(&self.image, &part);
                self.image.apply(part);
            }
            done.push(queued.after);
        }
        done
    }
}

impl Image {
    pub(crate) fn head(&self, account: AccountId) -> AccountHead {
        self.accounts.get(&account).map(|rows| rows.head.clone()).unwrap_or_default()
    }

    pub(crate) fn versions(&self) -> Vec<(AccountId, Version)> {
        self.accounts.iter().map(|(id, rows)| (*id, rows.head.version)).collect()
    }

    /// All rows of an account, as a transfer sends them.
    pub(crate) fn export(&self, account: AccountId) -> Vec<RowWrite> {
        let row = |((table, key), value): (&(vocab::Table, Vec<u8>), &Bytes)| RowWrite {
            table: *table,
            key: key.clone().into(),
            value: Some(value.clone()),
        };
        self.accounts.get(&account).map(|rows| rows.rows.iter().map(row).collect()).unwrap_or_default()
    }

    /// The rows that these links have changed, as they are now.
    pub(crate) fn present(&self, account: AccountId, links: &[PastLink]) -> Vec<RowWrite> {
        let names = links.iter().flat_map(|link| link.undo.iter().flatten()).map(|row| (row.table, row.key.to_vec()));
        let names: BTreeSet<_> = names.collect();
        let rows = self.accounts.get(&account);
        let row = |name: (vocab::Table, Vec<u8>)| {
            let value = rows.and_then(|rows| rows.rows.get(&name)).cloned();
            RowWrite { table: name.0, key: name.1.into(), value }
        };
        names.into_iter().map(row).collect()
    }

    /// Bodies that placements in the archived branches of this account name; `None` without a branch.
    pub(crate) fn archived(&self, account: AccountId) -> Option<BTreeSet<BlobHash>> {
        let prefix = format!("{:x}-", account.0);
        let mut found = None;
        for (_, rows) in self.archive.iter().filter(|(name, rows)| name.starts_with(&prefix) && is_whole(rows)) {
            let set: &mut BTreeSet<BlobHash> = found.get_or_insert_default();
            for (key, value) in rows {
                let Some((table, key)) = key.split_first() else { continue };
                let row =
                    RowWrite { table: vocab::Table(*table), key: key.to_vec().into(), value: Some(value.clone()) };
                set.extend(mailbox::blob_ref_of(&row).map(|r| r.hash));
            }
        }
        found
    }

    fn apply(&mut self, part: StoreWrite) {
        match part {
            StoreWrite::Account(batch) => self.apply_batch(&batch),
            StoreWrite::Bodies(bodies) => {
                self.blobs.extend(bodies.into_iter().map(|InlineBody { hash, bytes }| (hash, bytes)))
            }
            // No history has a log.
            StoreWrite::Records(_) => {}
            StoreWrite::BlobChunk { hash, bytes, .. } => {
                // Simulated bodies have one chunk.
                self.blobs.insert(hash, bytes);
            }
            StoreWrite::Meta { key, value: Some(value) } => {
                self.meta.insert(key, value);
            }
            StoreWrite::Meta { key, value: None } => {
                self.meta.remove(&key);
            }
            StoreWrite::Stage { account, rows, .. } => self.stages.entry(account).or_default().extend(rows),
            StoreWrite::Switch { account, head, past } => {
                let only = PastLink { version: head.version, undo: None };
                self.chains.insert(account, if past.is_empty() { vec![only] } else { past });
                let mut rows = MemoryRows { head, ..MemoryRows::default() };
                rows.write(&self.stages.remove(&account).unwrap_or_default());
                self.accounts.insert(account, rows);
            }
            StoreWrite::Advance { batch, past } => {
                let rows = self.accounts.entry(batch.account).or_default();
                rows.write(&batch.rows);
                rows.head = batch.head;
                self.chains.entry(batch.account).or_default().extend(past);
            }
            StoreWrite::Unstage { account } => {
                self.stages.remove(&account);
            }
            StoreWrite::SwapStage { account, version, .. } => {
                let staged = self.stages.remove(&account).unwrap_or_default();
                if let Some(old) = self.accounts.get_mut(&account).filter(|rows| rows.head.version == version) {
                    let mut rows = MemoryRows { head: old.head.clone(), ..MemoryRows::default() };
                    rows.write(&staged);
                    *old = rows;
                }
            }
            StoreWrite::RepairBody(InlineBody { hash, bytes }) => {
                self.blobs.insert(hash, bytes);
            }
            StoreWrite::TrimChain { account, agreed } => {
                let chain = self.chains.entry(account).or_default();
                if let Some(at) = chain.iter().rposition(|link| link.version == agreed) {
                    chain.iter_mut().take(at + 1).for_each(|link| link.undo = None);
                    chain.drain(..at.saturating_sub(OLD_VERSIONS));
                }
            }
            StoreWrite::DropBranch { branch } => {
                self.archive.remove(&branch);
            }
            StoreWrite::Archive { branch, key, value, .. } => {
                self.archive.entry(branch).or_default().insert(key, value);
            }
        }
    }

    fn apply_batch(&mut self, batch: &AccountBatch) {
        let rows = self.accounts.entry(batch.account).or_default();
        rows.write(&batch.rows);
        rows.head = batch.head.clone();
        // A batch without rows needs none to be taken back.
        let undo = (!batch.undo.is_empty() || batch.rows.is_empty()).then(|| batch.undo.clone());
        self.chains.entry(batch.account).or_default().push(PastLink { version: batch.head.version, undo });
    }
}

/// A branch counts once its head is written, which comes last.
fn is_whole(rows: &BTreeMap<Bytes, Bytes>) -> bool {
    rows.contains_key(crate::vocabulary::ARCHIVE_HEAD)
}
