//! The version chain of an account, and the undo rows that lead back along it.
//!
//! A link says whether its batch was kept with what its rows were before. A batch without rows has nothing to undo, so
//! its own bytes do not tell in which epoch it was written; it counts as kept with undo rows when it sets a new served
//! mark (only epochs that lack a member do) or when the link before it is one. Links up to the last agreed version have
//! none: the states before it are needed by nobody, but that they were there is remembered for a while. So a chain whose
//! oldest link has undo rows goes back to before the account was made.

use std::collections::BTreeMap;

use bytes::Bytes;
use rocksdb::{DB, IteratorMode, ReadOptions};
use vocab::limits::OLD_VERSIONS_MAX;
use vocab::rows::prefix_end;
use vocab::{AccountBatch, AccountHead, AccountId, Damaged, PastLink, RowWrite, Table, Version};

use crate::ledger::{Group, Ledger};
use crate::snapshot::damaged;
use crate::{families, keys};

/// What an iterator of RocksDB gives.
type Item = Result<(Box<[u8]>, Box<[u8]>), rocksdb::Error>;

/// Flag of a link kept without undo rows; first byte of an undo row whose key was absent.
const NO: u8 = 0;
/// Flag of a link kept with undo rows; first byte of an undo row before its value.
const YES: u8 = 1;

/// One link of the chain as stored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link {
    /// Counts up within the account.
    pub(crate) sequence: u64,
    /// The version it stands for.
    pub(crate) version: Version,
    /// Whether its batch was kept with undo rows.
    pub(crate) undo: bool,
}

impl Link {
    fn value(&self) -> Vec<u8> {
        let mut value = self.version.0.to_vec();
        value.push(if self.undo { YES } else { NO });
        value
    }

    fn read(item: Item) -> Result<Self, Damaged> {
        let (key, value) = item.map_err(|e| damaged(&e))?;
        let undo = match value.split_last() {
            Some((&NO, version)) => Some((false, version)),
            Some((&YES, version)) => Some((true, version)),
            _ => None,
        };
        let link = undo.and_then(|(undo, version)| {
            let (sequence, version) = keys::sequence_of(&key).zip(Version::from_bytes(version))?;
            Some(Self { sequence, version, undo })
        });
        link.ok_or_else(|| Damaged("link of the version chain".into()))
    }
}

impl Ledger {
    /// Adds the link of a batch and its undo rows. Call it before the batch's head is put.
    pub(crate) fn chain_batch(&mut self, group: &mut Group, batch: &AccountBatch) -> Result<(), Damaged> {
        let undo = if batch.rows.is_empty() {
            self.head_before(group, batch.account).served != batch.head.served
                || self.newest_has_undo(group, batch.account)?
        } else {
            has_undo(batch)
        };
        let sequence = self.add_link(group, batch.account, batch.head.version, undo)?;
        if undo {
            self.put_undo(group, batch.account, sequence, &batch.undo);
        }
        Ok(())
    }

    fn put_undo(&self, group: &mut Group, account: AccountId, sequence: u64, undo: &[RowWrite]) {
        let family = self.family(families::PRE_IMAGES);
        // Backwards: of two writes to one key the first one's undo row tells the state before the batch.
        for row in undo.iter().rev() {
            let key = keys::undo_row(account, sequence, row.table, &row.key);
            let mut value = vec![if row.value.is_some() { YES } else { NO }];
            value.extend(row.value.iter().flatten());
            group.batch.put_cf(family, key, value);
        }
    }

    /// Adds links another node has given, oldest first.
    pub(crate) fn add_past(&mut self, group: &mut Group, account: AccountId, past: &[PastLink]) -> Result<(), Damaged> {
        for link in past {
            let sequence = self.add_link(group, account, link.version, link.undo.is_some())?;
            self.put_undo(group, account, sequence, link.undo.as_deref().unwrap_or_default());
        }
        Ok(())
    }

    fn head_before(&self, group: &Group, account: AccountId) -> AccountHead {
        let entry = group.entries.get(&account).cloned().or_else(|| self.disk.entry(account));
        entry.and_then(|entry| entry.head.ok()).unwrap_or_default()
    }

    fn newest_has_undo(&self, group: &Group, account: AccountId) -> Result<bool, Damaged> {
        if let Some(link) = group.links.get(&account).and_then(|links| links.last()) {
            return Ok(link.undo);
        }
        let bare = self.bare_until.get(&account);
        let newest = last_link(&self.disk.db, account)?;
        // It may have lost its undo rows in this very group.
        Ok(newest.is_some_and(|link| link.undo && bare.is_none_or(|bare| link.sequence > *bare)))
    }

    pub(crate) fn next_link(&self, group: &Group, account: AccountId) -> Result<u64, Damaged> {
        if let Some(last) = group.links.get(&account).and_then(|links| links.last()) {
            return Ok(last.sequence + 1);
        }
        if let Some(next) = self.next_link.get(&account) {
            return Ok(*next);
        }
        Ok(last_link(&self.disk.db, account)?.map_or(0, |link| link.sequence + 1))
    }

    /// All links go; the caller adds the new ones.
    pub(crate) fn drop_chain(&mut self, group: &mut Group, account: AccountId) -> Result<(), Damaged> {
        let next = self.next_link(group, account)?;
        let chain = self.family(families::CHAIN);
        group.batch.delete_range_cf(chain, keys::link(account, 0), keys::link(account, next));
        self.drop_undo(group, account, next);
        group.links.remove(&account);
        group.chains_reset.insert(account);
        self.oldest_link.insert(account, next);
        self.bare_until.remove(&account);
        Ok(())
    }

    fn add_link(
        &mut self,
        group: &mut Group,
        account: AccountId,
        version: Version,
        undo: bool,
    ) -> Result<u64, Damaged> {
        let link = Link { sequence: self.next_link(group, account)?, version, undo };
        group.batch.put_cf(self.family(families::CHAIN), keys::link(account, link.sequence), link.value());
        group.links.entry(account).or_default().push(link);
        self.next_link.insert(account, link.sequence + 1);
        Ok(link.sequence)
    }

    /// Undo rows of all links before `end` go.
    fn drop_undo(&self, group: &mut Group, account: AccountId, end: u64) {
        let (from, to) = (keys::link(account, 0), keys::link(account, end));
        group.batch.delete_range_cf(self.family(families::PRE_IMAGES), from, to);
    }

    /// Point deletes: in joint operation this runs with every batch and takes away one link. Undo rows go by range, once
    /// when a fork ends. What was looked at once is not read again.
    pub(crate) fn trim_chain(&mut self, group: &mut Group, account: AccountId, agreed: Version) -> Result<(), Damaged> {
        let oldest = self.oldest_link.get(&account).copied();
        let bare = self.bare_until.get(&account).copied();
        let mut links = if group.chains_reset.contains(&account) {
            Vec::new()
        } else {
            chain_links(&self.disk.db, account, bare.map_or(oldest.unwrap_or(0), |bare| bare + 1))?
        };
        links.extend(group.links.get(&account).into_iter().flatten().copied());
        let Some(keep) = links.iter().rev().find(|link| link.version == agreed).map(|link| link.sequence) else {
            return Ok(());
        };
        let first = links.first().map_or(keep, |link| link.sequence);
        let oldest = oldest.unwrap_or(first);
        let floor = keep.saturating_sub(OLD_VERSIONS_MAX).max(oldest);
        let chain = self.family(families::CHAIN);
        for sequence in oldest..floor {
            group.batch.delete_cf(chain, keys::link(account, sequence));
        }
        let undone = links.iter().filter(|link| link.undo && link.sequence <= keep);
        if undone.clone().next().is_some() {
            self.drop_undo(group, account, keep + 1);
        }
        for link in undone.filter(|link| link.sequence >= floor) {
            let bare = Link { undo: false, ..*link };
            group.batch.put_cf(chain, keys::link(account, link.sequence), bare.value());
        }
        self.oldest_link.insert(account, floor);
        self.bare_until.insert(account, keep);
        if let Some(pending) = group.links.get_mut(&account) {
            pending.retain(|link| link.sequence >= floor);
            for link in pending.iter_mut().filter(|link| link.sequence <= keep) {
                link.undo = false;
            }
        }
        Ok(())
    }
}

/// Whether the batch tells what each of its rows was before.
fn has_undo(batch: &AccountBatch) -> bool {
    if batch.undo.is_empty() {
        return false;
    }
    let pairs = batch.rows.iter().zip(&batch.undo);
    let whole = batch.rows.len() == batch.undo.len()
        && pairs.into_iter().all(|(row, before)| row.table == before.table && row.key == before.key);
    if !whole {
        tracing::error!(account = batch.account.0, "undo rows do not fit their batch and are not kept");
    }
    whole
}

/// Bounds of the account's keys behind (shard, account, sequence) in the families of links and undo rows.
fn bounds(account: AccountId, sequence: u64) -> ReadOptions {
    let mut bounds = ReadOptions::default();
    bounds.set_iterate_lower_bound(keys::link(account, sequence));
    if let Some(end) = prefix_end(&keys::account(account)) {
        bounds.set_iterate_upper_bound(end);
    }
    bounds
}

/// Links of the chain on disk from sequence `from` on, oldest first.
pub(crate) fn chain_links(db: &DB, account: AccountId, from: u64) -> Result<Vec<Link>, Damaged> {
    let links = db.iterator_cf_opt(families::family(db, families::CHAIN), bounds(account, from), IteratorMode::Start);
    links.map(Link::read).collect()
}

/// The newest link on disk.
fn last_link(db: &DB, account: AccountId) -> Result<Option<Link>, Damaged> {
    let mut links = db.iterator_cf_opt(families::family(db, families::CHAIN), bounds(account, 0), IteratorMode::End);
    links.next().map(Link::read).transpose()
}

/// The links behind `since` (`None`: the whole chain), oldest first, with their undo rows. Links of more than
/// `limit_bytes` are not given: behind a version the answer is `None` then, of the whole chain the newest ones remain, the
/// first of them without undo rows. `None` also when the chain does not lead to `since` by links with undo rows.
pub(crate) fn past(
    db: &DB,
    account: AccountId,
    since: Option<Version>,
    limit_bytes: usize,
) -> Result<Option<Vec<PastLink>>, Damaged> {
    let snapshot = db.snapshot();
    let links =
        snapshot.iterator_cf_opt(families::family(db, families::CHAIN), bounds(account, 0), IteratorMode::Start);
    let mut links = links.map(Link::read).collect::<Result<Vec<_>, _>>()?;
    if let Some(since) = since {
        let Some(at) = links.iter().rposition(|link| link.version == since) else { return Ok(None) };
        links.drain(..=at);
        if links.iter().any(|link| !link.undo) {
            return Ok(None);
        }
    }
    let (mut past, mut bytes) = (Vec::new(), 0);
    for link in links.iter().rev() {
        let undo = match link.undo {
            true => undo_of(&snapshot, db, account, link.sequence, limit_bytes.saturating_sub(bytes))?,
            false => Some(Vec::new()),
        };
        let whole = undo.is_some();
        let kept = PastLink { version: link.version, undo: undo.filter(|_| link.undo) };
        bytes += kept.size();
        past.push(kept);
        if !whole || bytes > limit_bytes {
            if since.is_some() {
                return Ok(None);
            }
            if let Some(oldest) = past.last_mut() {
                oldest.undo = None;
            }
            break;
        }
    }
    past.reverse();
    Ok(Some(past))
}

/// Undo rows of one link; `None` when they are more than `limit_bytes`.
fn undo_of(
    snapshot: &rocksdb::Snapshot<'_>,
    db: &DB,
    account: AccountId,
    sequence: u64,
    limit_bytes: usize,
) -> Result<Option<Vec<RowWrite>>, Damaged> {
    let mut bounds = bounds(account, sequence);
    bounds.set_iterate_upper_bound(keys::link(account, sequence + 1));
    let rows = snapshot.iterator_cf_opt(families::family(db, families::PRE_IMAGES), bounds, IteratorMode::Start);
    let (mut undo, mut bytes) = (Vec::new(), 0);
    for item in rows {
        let row = undo_row(item)?;
        bytes += row.size();
        if bytes > limit_bytes {
            return Ok(None);
        }
        undo.push(row);
    }
    Ok(Some(undo))
}

fn undo_row(item: Item) -> Result<RowWrite, Damaged> {
    let (key, value) = item.map_err(|e| damaged(&e))?;
    let name = keys::undone(&key).map(|(table, key)| (table, Bytes::copy_from_slice(key)));
    let value = match value.split_first() {
        Some((&NO, [])) => Some(None),
        Some((&YES, value)) => Some(Some(Bytes::copy_from_slice(value))),
        _ => None,
    };
    let ((table, key), value) = name.zip(value).ok_or_else(|| Damaged("undo row".into()))?;
    Ok(RowWrite { table, key, value })
}

/// Every row that changed since `version` with its value then, in key order; `None` when the chain does not lead there.
pub(crate) fn undo_since(db: &DB, account: AccountId, version: Version) -> Result<Option<Vec<RowWrite>>, Damaged> {
    // Chain and undo rows of one moment: a trim may be on its way.
    let snapshot = db.snapshot();
    let links =
        snapshot.iterator_cf_opt(families::family(db, families::CHAIN), bounds(account, 0), IteratorMode::Start);
    let links = links.map(Link::read).collect::<Result<Vec<_>, _>>()?;
    let Some(at) = links.iter().rposition(|link| link.version == version) else { return Ok(None) };
    let later = links.get(at + 1..).unwrap_or_default();
    if later.iter().any(|link| !link.undo) {
        return Ok(None);
    }
    let Some(first) = later.first() else { return Ok(Some(Vec::new())) };
    let rows = snapshot.iterator_cf_opt(
        families::family(db, families::PRE_IMAGES),
        bounds(account, first.sequence),
        IteratorMode::Start,
    );
    let mut oldest = BTreeMap::new();
    for item in rows {
        let row = undo_row(item)?;
        // Link by link: the first value met is the oldest.
        oldest.entry((row.table, row.key)).or_insert(row.value);
    }
    let row = |((table, key), value): ((Table, Bytes), Option<Bytes>)| RowWrite { table, key, value };
    Ok(Some(oldest.into_iter().map(row).collect()))
}
