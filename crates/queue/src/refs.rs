//! References to bodies, rebuilt from rows: a transfer carries rows only.

use vocab::{BlobRef, RowWrite, Table};

use crate::accepts;
use crate::apply::blob_ref;
use crate::rows::decode_item;

/// The body that a row of the queue needs, if it is an item or an accept record.
#[must_use]
pub fn blob_ref_of(row: &RowWrite) -> Option<BlobRef> {
    let value = row.value.as_ref()?;
    match row.table {
        Table::QUEUE => decode_item(value).ok().map(|item| blob_ref(&item, true)),
        Table::ACCEPTS => accepts::decode(value).ok().map(|record| accepts::blob_ref(&record, true)),
        _ => None,
    }
}
