//! Archived branches: what a heal or a repair put aside, kept for a while with the bodies it needs.

use rocksdb::{Direction, IteratorMode, ReadOptions};
use vocab::rows::prefix_end;
use vocab::{BlobHash, Damaged, PlacementId};

use crate::ledger::{Group, Ledger};
use crate::options::BRANCH_KEEP_MS;
use crate::snapshot::damaged;
use crate::{families, keys};

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
        let written = <[u8; 8]>::try_from(&*written).map_err(|_| Damaged("record of an archived branch".into()))?;
        if disk.now_ms().saturating_sub(u64::from_be_bytes(written)) < BRANCH_KEEP_MS {
            continue;
        }
        if !drop_rows(ledger, branch, group)? {
            return Ok(Some(record.to_vec()));
        }
        group.batch.delete_cf(meta, &record);
        tracing::info!(branch = %String::from_utf8_lossy(branch), "an archived branch was deleted, its time is over");
        return Ok(Some([&record[..], &[0]].concat()));
    }
    Ok(None)
}

/// Deletes rows of the branch with their references; `true` when these are the last ones.
fn drop_rows(ledger: &Ledger, branch: &[u8], group: &mut Group) -> Result<bool, Damaged> {
    let archive = ledger.family(families::ARCHIVE);
    let prefix = [branch, &[0]].concat();
    let mut bounds = ReadOptions::default();
    if let Some(end) = prefix_end(&prefix) {
        bounds.set_iterate_upper_bound(end);
    }
    bounds.set_iterate_lower_bound(prefix);
    for (seen, item) in ledger.disk.db.iterator_cf_opt(archive, bounds, IteratorMode::Start).enumerate() {
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

/// Names of archived branches, in order.
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
        names.push(String::from_utf8_lossy(name).into_owned());
        match prefix_end(&[name, &[0]].concat()) {
            Some(end) => from = end,
            None => return names,
        }
    }
}
