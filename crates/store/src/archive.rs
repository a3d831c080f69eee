//! Archived branches: what a heal or a repair put aside, kept for a while with the bodies it needs.

use std::collections::BTreeSet;

use ports::mail_store::ArchivedBranch;
use rocksdb::{Direction, IteratorMode, ReadOptions};
use vocab::rows::prefix_end;
use vocab::{BlobHash, Damaged, PlacementId};

use crate::ledger::{Group, Ledger};
use crate::options::BRANCH_KEEP_MS;
use crate::snapshot::damaged;
use crate::{blobs, families, keys};

/// In the place of the time a branch was written: it was dropped by hand.
const DROPPED: &[u8] = &[];
/// Rows deleted in one step of the sweep.
const ROWS_PER_STEP: usize = 1000;

impl Ledger {
    /// Puts one row with the bodies it needs; the branch's time begins anew.
    pub(crate) fn archive(&self, group: &mut Group, branch: &str, key: &[u8], (value, refs): (&[u8], &[BlobHash])) {
        let key = keys::archive(branch, key);
        for hash in refs {
            group.batch.put_cf(self.family(families::BLOB_REFS), archive_ref(&key, *hash), []);
        }
        group.batch.put_cf(self.family(families::ARCHIVE), key, encode_row(value, refs));
        let now = self.disk.now_ms().to_be_bytes();
        group.batch.put_cf(self.family(families::META), keys::branch(branch), now);
    }

    /// Its time is over now.
    pub(crate) fn drop_branch(&self, group: &mut Group, branch: &str) {
        group.batch.put_cf(self.family(families::META), keys::branch(branch), DROPPED);
    }
}

/// One reference per row and body: the row's name, hashed to the width of a placement id.
fn archive_ref(key: &[u8], hash: BlobHash) -> [u8; keys::REF_BYTES] {
    let name = BlobHash::of(key);
    let placement = name.0.get(..24).and_then(PlacementId::from_bytes).unwrap_or_default();
    keys::blob_ref(hash, keys::ARCHIVE_OWNER, 0, placement)
}

fn encode_row(value: &[u8], refs: &[BlobHash]) -> Vec<u8> {
    // A write names far fewer bodies than that.
    let count = u32::try_from(refs.len()).unwrap_or(u32::MAX);
    let mut out = count.to_be_bytes().to_vec();
    out.extend(refs.iter().flat_map(|hash| hash.0));
    out.extend(value);
    out
}

fn bodies_of(row: &[u8]) -> Option<Vec<BlobHash>> {
    let (count, rest) = row.split_first_chunk::<4>()?;
    let bytes = usize::try_from(u32::from_be_bytes(*count)).ok()?.checked_mul(keys::HASH_BYTES)?;
    rest.get(..bytes)?.chunks_exact(keys::HASH_BYTES).map(BlobHash::from_bytes).collect()
}

/// One step of the sweep: looks from the record `from` on for a branch whose time is over and deletes rows of it.
/// Gives where the next step goes on, `None` at the end.
pub(crate) fn drop_branches(ledger: &Ledger, from: &[u8], group: &mut Group) -> Result<Option<Vec<u8>>, Damaged> {
    let disk = &ledger.disk;
    let meta = families::family(&disk.db, families::META);
    for item in disk.db.iterator_cf(meta, IteratorMode::From(from, Direction::Forward)) {
        let (record, written) = item.map_err(|e| damaged(&e))?;
        let Some(branch) = record.strip_prefix(keys::BRANCH) else { return Ok(None) };
        let written = written_ms(&written)?;
        if written.is_some_and(|written| disk.now_ms().saturating_sub(written) < BRANCH_KEEP_MS) {
            continue;
        }
        if !drop_rows(ledger, branch, group)? {
            return Ok(Some(record.to_vec()));
        }
        group.batch.delete_cf(meta, &record);
        tracing::info!(branch = %String::from_utf8_lossy(branch), by_hand = written.is_none(), "an archived branch was deleted");
        return Ok(Some([&record[..], &[0]].concat()));
    }
    Ok(None)
}

/// When the branch was written; `None`: it was dropped by hand.
fn written_ms(record: &[u8]) -> Result<Option<u64>, Damaged> {
    if record == DROPPED {
        return Ok(None);
    }
    let written = <[u8; 8]>::try_from(record).map_err(|_| Damaged("record of an archived branch".into()))?;
    Ok(Some(u64::from_be_bytes(written)))
}

/// How large a branch is, and since when it is kept; `None` when there is none of this name.
pub(crate) fn branch(db: &rocksdb::DB, name: &str) -> Result<Option<ArchivedBranch>, Damaged> {
    let record = db.get_cf(families::family(db, families::META), keys::branch(name)).map_err(|e| damaged(&e))?;
    let Some(written) = record.map(|record| written_ms(&record)).transpose()?.flatten() else { return Ok(None) };
    let mut found = ArchivedBranch { name: name.to_owned(), written_ms: written, bytes: 0, bodies: 0 };
    let mut bodies = BTreeSet::new();
    for item in
        db.iterator_cf_opt(families::family(db, families::ARCHIVE), bounds(name.as_bytes()), IteratorMode::Start)
    {
        let (key, row) = item.map_err(|e| damaged(&e))?;
        found.bytes += (key.len() + row.len()) as u64;
        bodies.extend(bodies_of(&row).ok_or_else(|| Damaged("row of an archived branch".into()))?);
    }
    found.bodies = bodies.len() as u64;
    found.bytes += bodies.into_iter().filter_map(|hash| blobs::stored_size(db, hash)).sum::<u64>();
    Ok(Some(found))
}

/// The rows of one branch.
fn bounds(branch: &[u8]) -> ReadOptions {
    let prefix = [branch, &[0]].concat();
    let mut bounds = ReadOptions::default();
    if let Some(end) = prefix_end(&prefix) {
        bounds.set_iterate_upper_bound(end);
    }
    bounds.set_iterate_lower_bound(prefix);
    bounds
}

/// Deletes rows of the branch with their references; `true` when these are the last ones.
fn drop_rows(ledger: &Ledger, branch: &[u8], group: &mut Group) -> Result<bool, Damaged> {
    let archive = ledger.family(families::ARCHIVE);
    for (seen, item) in ledger.disk.db.iterator_cf_opt(archive, bounds(branch), IteratorMode::Start).enumerate() {
        let (key, row) = item.map_err(|e| damaged(&e))?;
        if seen == ROWS_PER_STEP {
            return Ok(false);
        }
        for hash in bodies_of(&row).ok_or_else(|| Damaged("row of an archived branch".into()))? {
            group.batch.delete_cf(ledger.family(families::BLOB_REFS), archive_ref(&key, hash));
            ledger.put_orphan(group, hash);
        }
        group.batch.delete_cf(archive, key);
    }
    Ok(true)
}

/// Names of archived branches, in order, without those that were dropped.
pub(crate) fn branches(db: &rocksdb::DB) -> Vec<String> {
    let archive = families::family(db, families::ARCHIVE);
    let mut names: Vec<String> = Vec::new();
    let mut from = Vec::new();
    loop {
        let first = match db.iterator_cf(archive, IteratorMode::From(&from, Direction::Forward)).next() {
            None => return names,
            Some(Ok((key, _))) => key,
            Some(Err(error)) => {
                tracing::error!(%error, "archived branches cannot be read");
                return names;
            }
        };
        let name = first.split(|byte| *byte == 0).next().unwrap_or_default();
        let text = String::from_utf8_lossy(name).into_owned();
        let record = db.get_pinned_cf(families::family(db, families::META), keys::branch(&text));
        if !record.is_ok_and(|record| record.is_some_and(|record| *record == *DROPPED)) {
            names.push(text);
        }
        match prefix_end(&[name, &[0]].concat()) {
            Some(end) => from = end,
            None => return names,
        }
    }
}
