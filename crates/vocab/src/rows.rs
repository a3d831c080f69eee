//! The rows of one account, as bytes. `mailbox` and `queue` alone make and read the bytes; store and transport carry
//! them untouched.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

use bytes::Bytes;

use crate::head::AccountHead;

/// Names a table of an account; the numbers are part of the stored format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Table(pub u8);

impl Table {
    /// mailbox id -> mailbox row
    pub const MAILBOXES: Self = Self(1);
    /// mailbox name (UTF-8 NFC) -> mailbox id; subscriptions to names without mailbox live here too
    pub const NAMES: Self = Self(2);
    /// mailbox id, UID -> placement row
    pub const PLACEMENTS: Self = Self(3);
    /// placement id -> mailbox id, UID
    pub const PLACEMENT_INDEX: Self = Self(4);
    /// mailbox id, modseq, UID -> nothing: what changed since
    pub const CHANGES: Self = Self(5);
    /// mailbox id, modseq, UID -> placement id: what was expunged since
    pub const TOMBSTONES: Self = Self(6);
    /// placement id -> where it was, modseq of its expunge, EMAILID, modseq at which it came
    pub const EXPUNGED: Self = Self(7);
    /// EMAILID -> message facts (ENVELOPE, BODYSTRUCTURE, thread)
    pub const FACTS: Self = Self(8);
    /// kind, 0, name -> document (password hash, scripts, settings)
    pub const DOCUMENTS: Self = Self(9);
    /// placement id -> a message that an expunge won over a change elsewhere: restorable for a while after a merge
    pub const RECOVERY: Self = Self(10);
    /// branch of numbers -> modseq at which it begins: which states of clients this account can answer
    pub const BRANCHES: Self = Self(11);
    /// mailbox name that no mailbox has -> greatest UIDVALIDITY told for it; byte 0 -> what all others were told with at most
    pub const FORMER_NAMES: Self = Self(12);
    /// queue item id -> item (system account of the queue)
    pub const QUEUE: Self = Self(16);
    /// due time, item id -> nothing
    pub const QUEUE_DUE: Self = Self(17);
    /// accept id -> accept record not yet fanned out
    pub const ACCEPTS: Self = Self(18);
    /// command id -> outcome; stored in the family of command outcomes
    pub const OUTCOMES: Self = Self(64);
    /// origin -> boot and counter below which commands are settled; same family
    pub const SETTLED: Self = Self(65);

    /// Whether the rows count in the account digest: all but outcomes and settled marks.
    #[must_use]
    pub const fn is_core(self) -> bool {
        self.0 < Self::OUTCOMES.0
    }
}

/// A stored row or head cannot be read or understood. The account is out of order on this node until repaired.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("damaged row: {0}")]
pub struct Damaged(pub String);

/// One consistent snapshot of one account.
pub trait Rows: Send + Sync {
    /// The head; the default head when the account has no state yet.
    fn head(&self) -> AccountHead;
    /// The value under `key`.
    ///
    /// # Errors
    /// [`Damaged`] when the medium or the bytes are bad: answer UNAVAILABLE, never "not found".
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, Damaged>;
    /// Visits keys from `from` to `to` ascending (`reverse`: descending) until `visit` breaks.
    ///
    /// # Errors
    /// As [`Rows::get`].
    fn scan(
        &self,
        table: Table,
        range: (Bound<&[u8]>, Bound<&[u8]>),
        reverse: bool,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), Damaged>;
}

/// One write of a batch: `None` deletes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowWrite {
    /// Which table.
    pub table: Table,
    /// Key within the account and table.
    pub key: Bytes,
    /// The new value, or `None` to delete.
    pub value: Option<Bytes>,
}

impl RowWrite {
    /// Approximate size for limits (bytes).
    #[must_use]
    pub fn size(&self) -> usize {
        8 + self.key.len() + self.value.as_ref().map_or(0, Bytes::len)
    }
}

/// Rows in memory: for tests, the simulator and overlays.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MemoryRows {
    /// The head.
    pub head: AccountHead,
    /// All rows by (table, key).
    pub rows: BTreeMap<(Table, Vec<u8>), Bytes>,
}

impl MemoryRows {
    /// Applies writes in order.
    pub fn write(&mut self, writes: &[RowWrite]) {
        for write in writes {
            let key = (write.table, write.key.to_vec());
            match &write.value {
                Some(value) => self.rows.insert(key, value.clone()),
                None => self.rows.remove(&key),
            };
        }
    }
}

impl Rows for MemoryRows {
    fn head(&self) -> AccountHead {
        self.head.clone()
    }
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, Damaged> {
        Ok(self.rows.get(&(table, key.to_vec())).cloned())
    }
    fn scan(
        &self,
        table: Table,
        range: (Bound<&[u8]>, Bound<&[u8]>),
        reverse: bool,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), Damaged> {
        let from = match range.0 {
            Bound::Included(k) => Bound::Included((table, k.to_vec())),
            Bound::Excluded(k) => Bound::Excluded((table, k.to_vec())),
            Bound::Unbounded => Bound::Included((table, Vec::new())),
        };
        let to = match range.1 {
            Bound::Included(k) => Bound::Included((table, k.to_vec())),
            Bound::Excluded(k) => Bound::Excluded((table, k.to_vec())),
            Bound::Unbounded => Bound::Excluded((Table(table.0 + 1), Vec::new())),
        };
        if is_empty(&from, &to) {
            return Ok(());
        }
        let hits = self.rows.range((from, to));
        let mut each = |((_, key), value): (&(Table, Vec<u8>), &Bytes)| visit(key, value).is_break();
        if reverse {
            hits.rev().any(&mut each);
        } else {
            let mut hits = hits;
            hits.any(&mut each);
        }
        Ok(())
    }
}

type Edge = Bound<(Table, Vec<u8>)>;

/// `BTreeMap::range` panics on a range that runs backwards; here it is just empty.
fn is_empty(from: &Edge, to: &Edge) -> bool {
    match (from, to) {
        (Bound::Included(a), Bound::Included(b)) => a > b,
        (Bound::Excluded(a) | Bound::Included(a), Bound::Excluded(b) | Bound::Included(b)) => a >= b,
        _ => false,
    }
}

/// First key after every key that begins with `prefix`, for half-open prefix scans; `None` = to the end.
#[must_use]
pub fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return Some(end);
        }
    }
    None
}
