//! References to bodies, rebuilt from rows: a transfer carries rows only.

use vocab::{BlobRef, PlacementId, RowWrite, Table};

use crate::rows::decode_item;

/// The body that a row of the queue needs, if it is an item.
#[must_use]
pub fn blob_ref_of(row: &RowWrite) -> Option<BlobRef> {
    if row.table != Table::QUEUE {
        return None;
    }
    let item = decode_item(row.value.as_ref()?).ok()?;
    Some(BlobRef { hash: item.blob, placement: PlacementId { command: item.id, index: 0 }, present: true })
}
