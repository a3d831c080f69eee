//! Consistent views of one account.

use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use bytes::Bytes;
use rocksdb::{DB, ReadOptions, Snapshot};
use vocab::rows::prefix_end;
use vocab::{AccountHead, AccountId, Damaged, RowWrite, Rows, Table};

use crate::{families, keys};

self_cell::self_cell!(
    /// A RocksDB snapshot that keeps its database alive.
    struct OwnedSnapshot {
        owner: Arc<DB>,
        #[covariant]
        dependent: Snapshot,
    }
);

/// One account at one moment.
pub(crate) struct AccountSnapshot {
    snapshot: OwnedSnapshot,
    account: AccountId,
    state: Result<(u32, AccountHead), Damaged>,
}

impl AccountSnapshot {
    /// The present generation of `account` as written now.
    pub(crate) fn take(db: Arc<DB>, account: AccountId) -> Self {
        let snapshot = OwnedSnapshot::new(db, |db| db.snapshot());
        let state = snapshot.with_dependent(|db, snapshot| {
            let family = families::family(db, families::HEAD);
            match snapshot.get_pinned_cf(family, keys::account(account)) {
                Ok(Some(value)) => decode_head(&value),
                Ok(None) => Ok((0, AccountHead::default())),
                Err(error) => Err(damaged(&error)),
            }
        });
        Self { snapshot, account, state }
    }

    /// The rows staged for `account` now, under the head they belong to; `first` is its generation while it has no head.
    pub(crate) fn staged(db: Arc<DB>, account: AccountId, head: AccountHead, first: u32) -> Self {
        let mut taken = Self::take(db, account);
        // A stage is the generation after the present one.
        taken.state = taken.state.map(|(generation, _)| (generation.max(first) + 1, head));
        taken
    }

    /// The rows of a generation that is not the present one, under the head they belong to.
    pub(crate) fn of_generation(db: Arc<DB>, account: AccountId, generation: u32, head: AccountHead) -> Self {
        Self { snapshot: OwnedSnapshot::new(db, |db| db.snapshot()), account, state: Ok((generation, head)) }
    }

    fn generation(&self) -> Result<u32, Damaged> {
        self.state.as_ref().map(|(generation, _)| *generation).map_err(Clone::clone)
    }
}

/// A value of the family of heads: generation and head.
pub(crate) fn decode_head(value: &[u8]) -> Result<(u32, AccountHead), Damaged> {
    let (generation, head) = value.split_first_chunk::<4>().ok_or_else(|| Damaged("account head: too short".into()))?;
    Ok((u32::from_be_bytes(*generation), AccountHead::decode(head)?))
}

/// A value of the family of heads.
pub(crate) fn encode_head(generation: u32, head: &AccountHead) -> Vec<u8> {
    let mut out = generation.to_be_bytes().to_vec();
    out.extend(head.encode());
    out
}

/// What RocksDB could not read.
pub(crate) fn damaged(error: &rocksdb::Error) -> Damaged {
    Damaged(error.to_string())
}

/// First key of the bound and whether the bound itself is left out, within `prefix`.
fn edges(prefix: &[u8], range: (Bound<&[u8]>, Bound<&[u8]>)) -> (Vec<u8>, Option<Vec<u8>>) {
    let join = |key: &[u8]| [prefix, key].concat();
    // The smallest key above `key` is `key` with a zero byte behind it.
    let above = |key: &[u8]| [prefix, key, &[0]].concat();
    let from = match range.0 {
        Bound::Included(key) => join(key),
        Bound::Excluded(key) => above(key),
        Bound::Unbounded => prefix.to_vec(),
    };
    let to = match range.1 {
        Bound::Included(key) => Some(above(key)),
        Bound::Excluded(key) => Some(join(key)),
        Bound::Unbounded => prefix_end(prefix),
    };
    (from, to)
}

impl Rows for AccountSnapshot {
    fn head(&self) -> AccountHead {
        self.state.as_ref().map(|(_, head)| head.clone()).unwrap_or_default()
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, Damaged> {
        let generation = self.generation()?;
        if generation == 0 {
            return Ok(None);
        }
        self.snapshot.with_dependent(|db, snapshot| {
            let key = keys::row(self.account, generation, table, key);
            let value = snapshot.get_pinned_cf(families::of_table(db, table), key).map_err(|e| damaged(&e))?;
            Ok(value.map(|value| Bytes::copy_from_slice(&value)))
        })
    }

    fn scan(
        &self,
        table: Table,
        range: (Bound<&[u8]>, Bound<&[u8]>),
        reverse: bool,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), Damaged> {
        let generation = self.generation()?;
        let (from, to) = edges(&keys::table(self.account, generation, table), range);
        if generation == 0 || to.as_ref().is_some_and(|to| *to <= from) {
            return Ok(());
        }
        let mut bounds = ReadOptions::default();
        bounds.set_iterate_lower_bound(from);
        if let Some(to) = to {
            bounds.set_iterate_upper_bound(to);
        }
        self.snapshot.with_dependent(|db, snapshot| {
            let mut rows = snapshot.raw_iterator_cf_opt(families::of_table(db, table), bounds);
            if reverse {
                rows.seek_to_last();
            } else {
                rows.seek_to_first();
            }
            while let Some((key, value)) = rows.item() {
                let key = key.get(keys::TABLE_BYTES..).ok_or_else(|| Damaged("row key: too short".into()))?;
                if visit(key, value).is_break() {
                    return Ok(());
                }
                if reverse {
                    rows.prev();
                } else {
                    rows.next();
                }
            }
            rows.status().map_err(|e| damaged(&e))
        })
    }
}

/// All rows behind (table, key) in key order, up to about `limit_bytes` but at least one.
pub(crate) fn export(
    rows: &dyn Rows,
    after: Option<(u8, Bytes)>,
    limit_bytes: usize,
) -> Result<Vec<RowWrite>, Damaged> {
    let mut found = Vec::new();
    let mut bytes = 0;
    let first = after.as_ref().map_or(0, |(table, _)| *table);
    // Table 255 is never used, so that the key behind every table exists.
    for table in first..u8::MAX {
        let from = match &after {
            Some((last, key)) if *last == table => Bound::Excluded(&key[..]),
            _ => Bound::Unbounded,
        };
        rows.scan(Table(table), (from, Bound::Unbounded), false, &mut |key, value| {
            bytes += key.len() + value.len() + ROW_OVERHEAD_BYTES;
            found.push(RowWrite {
                table: Table(table),
                key: Bytes::copy_from_slice(key),
                value: Some(Bytes::copy_from_slice(value)),
            });
            if bytes >= limit_bytes { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        if bytes >= limit_bytes {
            break;
        }
    }
    Ok(found)
}

/// What one exported row costs beside its key and value (bytes).
const ROW_OVERHEAD_BYTES: usize = 16;
