//! From row writes to the account's part of a batch: digest, next version.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

use bytes::Bytes;
use vocab::{AccountBatch, AccountHead, AccountId, BatchId, BlobRef, Damaged, RowWrite, Rows, Table};

use crate::overlay::Written;
use crate::recovery::RecoveryItem;
use crate::rows::Placement;

/// Key of the row hashes that a digest sums; part of the stored format.
const DIGEST_KEY: &[u8; 32] = b"account digest of rows, format 1";

/// What a row adds to the digest of its account: nothing when it is not core or deleted.
#[must_use]
pub fn row_digest(row: &RowWrite) -> u128 {
    match &row.value {
        Some(value) if row.table.is_core() => keyed_hash(row.table, &row.key, value),
        _ => 0,
    }
}

/// The reference to a body that a placement or recovery row makes; `None` for other rows, deletes and damaged ones.
#[must_use]
pub fn blob_ref_of(row: &RowWrite) -> Option<BlobRef> {
    let value = row.value.as_ref()?;
    let placement = match row.table {
        Table::PLACEMENTS => Placement::decode(&row.key, value).ok()?,
        Table::RECOVERY => RecoveryItem::decode(value).ok()?.placement,
        _ => return None,
    };
    Some(BlobRef { hash: placement.blob, placement: placement.id, present: true })
}

fn keyed_hash(table: Table, key: &[u8], value: &[u8]) -> u128 {
    let mut hasher = blake3::Hasher::new_keyed(DIGEST_KEY);
    hasher.update(&[table.0]);
    hasher.update(&(key.len() as u64).to_be_bytes());
    hasher.update(key);
    hasher.update(value);
    let mut out = [0; 16];
    hasher.finalize_xof().fill(&mut out);
    u128::from_be_bytes(out)
}

/// The digest an account must have: the sum (mod 2^128) over all its core rows.
///
/// # Errors
/// [`Damaged`].
pub fn digest_of(view: &dyn Rows) -> Result<u128, Damaged> {
    let mut sum = 0_u128;
    for table in (0..Table::OUTCOMES.0).map(Table) {
        view.scan(table, (Bound::Unbounded, Bound::Unbounded), false, &mut |key, value| {
            sum = sum.wrapping_add(keyed_hash(table, key, value));
            ControlFlow::Continue(())
        })?;
    }
    Ok(sum)
}

/// Makes the account's part of a batch from row writes over `view`: computes digest and next version. The last write
/// of a key counts; writes that change nothing are left out. `head` is the wanted head with the version and digest of
/// `view`. The caller asks only when something changed.
///
/// # Errors
/// [`Damaged`] when an old value cannot be read.
pub fn finish_rows(
    view: &dyn Rows,
    account: AccountId,
    rows: Vec<RowWrite>,
    refs: Vec<BlobRef>,
    head: AccountHead,
    batch: BatchId,
) -> Result<AccountBatch, Damaged> {
    let last: BTreeMap<(Table, Bytes), Option<Bytes>> =
        rows.into_iter().map(|row| ((row.table, row.key), row.value)).collect();
    let mut written = Vec::new();
    for ((table, key), new) in last {
        let old = view.get(table, &key)?;
        if old != new {
            written.push((table, key, Written { old, new }));
        }
    }
    Ok(seal(account, head, written.into_iter(), refs, batch))
}

/// Digest and version over writes whose old values are known.
pub(crate) fn seal(
    account: AccountId,
    mut head: AccountHead,
    written: impl Iterator<Item = (Table, Bytes, Written)>,
    refs: Vec<BlobRef>,
    batch: BatchId,
) -> AccountBatch {
    let expected = head.version;
    let (mut rows, mut undo) = (Vec::new(), Vec::new());
    for (table, key, Written { old, new }) in written {
        if table.is_core() {
            let digest = |value: &Option<Bytes>| value.as_ref().map_or(0, |v| keyed_hash(table, &key, v));
            head.digest = head.digest.wrapping_sub(digest(&old)).wrapping_add(digest(&new));
        }
        undo.push(RowWrite { table, key: key.clone(), value: old });
        rows.push(RowWrite { table, key, value: new });
    }
    let hash = batch_hash(&head, &rows, &refs);
    head.version = expected.next(batch, &hash);
    AccountBatch { account, expected, head, rows, refs, undo }
}

/// Hash of everything the batch changes in the account; lengths make the bytes unambiguous.
fn batch_hash(head: &AccountHead, rows: &[RowWrite], refs: &[BlobRef]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    let mut part = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_be_bytes());
        hasher.update(bytes);
    };
    part(&head.encode());
    part(&(rows.len() as u64).to_be_bytes());
    for row in rows {
        part(&[row.table.0, u8::from(row.value.is_some())]);
        part(&row.key);
        part(row.value.as_deref().unwrap_or_default());
    }
    for item in refs {
        part(&item.hash.0);
        part(&item.placement.to_bytes());
        part(&[u8::from(item.present)]);
    }
    *hasher.finalize().as_bytes()
}
