//! Deletes bodies that nobody needs, in small steps between writes. First archived branches go whose time is
//! over, then references of dropped generations, then bodies that have been without a reference for long enough.

use std::collections::HashMap;

use rocksdb::{Direction, IteratorMode};
use vocab::{BlobHash, Damaged};

use crate::archive::drop_branches;
use crate::ledger::{Group, Ledger};
use crate::snapshot::damaged;
use crate::{families, keys};

/// References looked at in one step.
const REFS_PER_STEP: usize = 20_000;
/// Bodies without reference looked at in one step.
const ORPHANS_PER_STEP: usize = 500;

/// Value of the record [`keys::DROPPED`] while a pass looks; a newly dropped generation empties it.
const LOOKING: &[u8] = b"looking";

/// Where a pass stands; `from` is the next key.
enum Stage {
    /// Waiting for the next pass.
    Rest,
    /// Looking for archived branches whose time is over.
    Branches { from: Vec<u8> },
    /// Looking for references of dropped generations.
    Refs { from: Vec<u8> },
    /// Looking for bodies without references.
    Orphans { from: Vec<u8> },
}

/// The sweep's progress.
pub(crate) struct Sweep {
    stage: Stage,
    rested_ms: u64,
    /// Bodies deleted since start.
    pub(crate) deleted: u64,
}

impl Sweep {
    pub(crate) fn new(now_ms: u64) -> Self {
        Self { stage: Stage::Rest, rested_ms: now_ms, deleted: 0 }
    }

    pub(crate) fn is_running(&self) -> bool {
        !matches!(self.stage, Stage::Rest)
    }

    pub(crate) fn restart(&mut self) {
        self.stage = Stage::Branches { from: keys::BRANCH.to_vec() };
    }

    /// Whether a step is to be made now; begins a pass when the pause is over.
    pub(crate) fn is_due(&mut self, now_ms: u64, pause_ms: u64) -> bool {
        if !self.is_running() && now_ms.saturating_sub(self.rested_ms) >= pause_ms {
            self.restart();
        }
        self.is_running()
    }

    /// Makes one step: adds what is to be deleted to `group`.
    pub(crate) fn step(
        &mut self,
        ledger: &mut Ledger,
        asked: &HashMap<BlobHash, u64>,
        group: &mut Group,
    ) -> Result<(), Damaged> {
        self.stage = match std::mem::replace(&mut self.stage, Stage::Rest) {
            Stage::Rest => Stage::Rest,
            Stage::Branches { from } => match drop_branches(ledger, &from, group)? {
                Some(from) => Stage::Branches { from },
                None => Stage::Refs { from: Vec::new() },
            },
            Stage::Refs { from } => match drop_refs(ledger, &from, group)? {
                Some(from) => Stage::Refs { from },
                None => Stage::Orphans { from: Vec::new() },
            },
            Stage::Orphans { from } => match self.drop_orphans(ledger, &from, asked, group)? {
                Some(from) => Stage::Orphans { from },
                None => {
                    self.rested_ms = ledger.disk.now_ms();
                    Stage::Rest
                }
            },
        };
        Ok(())
    }

    fn drop_orphans(
        &mut self,
        ledger: &mut Ledger,
        from: &[u8],
        asked: &HashMap<BlobHash, u64>,
        group: &mut Group,
    ) -> Result<Option<Vec<u8>>, Damaged> {
        let disk = std::sync::Arc::clone(&ledger.disk);
        let (now, patience) = (disk.now_ms(), disk.options.blob_orphan_ms);
        let orphans = families::family(&disk.db, families::ORPHANS);
        let hits = disk.db.iterator_cf(orphans, IteratorMode::From(from, Direction::Forward));
        for (seen, item) in hits.enumerate() {
            let (key, value) = item.map_err(|e| damaged(&e))?;
            if seen == ORPHANS_PER_STEP {
                return Ok(Some(key.to_vec()));
            }
            let (Some(hash), Ok(since)) = (BlobHash::from_bytes(&key), <[u8; 8]>::try_from(&*value)) else {
                return Err(Damaged("record of a body without reference".into()));
            };
            let since = u64::from_be_bytes(since).max(asked.get(&hash).copied().unwrap_or(0));
            if now.saturating_sub(since) < patience {
                continue;
            }
            if has_refs(&disk, hash)? {
                group.batch.delete_cf(orphans, key);
            } else {
                ledger.delete_body(group, hash)?;
                self.deleted += 1;
                metrics::counter!("twinpost_store_swept_bodies_total").increment(1);
            }
        }
        Ok(None)
    }
}

fn has_refs(disk: &crate::disk::Disk, hash: BlobHash) -> Result<bool, Damaged> {
    let refs = families::family(&disk.db, families::BLOB_REFS);
    match disk.db.iterator_cf(refs, IteratorMode::From(&hash.0, Direction::Forward)).next() {
        None => Ok(false),
        Some(item) => Ok(item.map_err(|e| damaged(&e))?.0.starts_with(&hash.0)),
    }
}

/// References whose generation is neither present nor staged go; their bodies may have lost their last one.
fn drop_refs(ledger: &Ledger, from: &[u8], group: &mut Group) -> Result<Option<Vec<u8>>, Damaged> {
    let disk = &ledger.disk;
    let meta = families::family(&disk.db, families::META);
    let dropped = disk.db.get_pinned_cf(meta, keys::DROPPED).map_err(|e| damaged(&e))?;
    let Some(dropped) = dropped else { return Ok(None) };
    if from.is_empty() {
        group.batch.put_cf(meta, keys::DROPPED, LOOKING);
    }
    let refs = families::family(&disk.db, families::BLOB_REFS);
    let hits = disk.db.iterator_cf(refs, IteratorMode::From(from, Direction::Forward));
    for (seen, item) in hits.enumerate() {
        let (key, _) = item.map_err(|e| damaged(&e))?;
        if seen == REFS_PER_STEP {
            return Ok(Some(key.to_vec()));
        }
        let (hash, owner, generation) = keys::ref_owner(&key).ok_or_else(|| Damaged("reference to a body".into()))?;
        let present = disk.entry(owner).map(|entry| entry.generation);
        let alive = owner == keys::ARCHIVE_OWNER
            || present == Some(generation)
            || disk.seed(owner).is_some_and(|seed| seed.generation == generation)
            || ledger.staged.get(&owner) == Some(&generation);
        if !alive {
            group.batch.delete_cf(refs, key);
            ledger.put_orphan(group, hash);
        }
    }
    // A generation dropped while this pass ran has written the record anew: then the next pass looks again.
    if from.is_empty() || *dropped == *LOOKING {
        group.batch.delete_cf(meta, keys::DROPPED);
    }
    Ok(None)
}
