//! Rows with pending writes on top: what the next operation of the same batch sees.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

use bytes::Bytes;

use crate::head::AccountHead;
use crate::rows::{Damaged, RowWrite, Rows, Table};

/// A view over a base plus writes that are not written yet.
pub struct Overlay<'a> {
    base: &'a dyn Rows,
    head: AccountHead,
    writes: BTreeMap<(Table, Vec<u8>), Option<Bytes>>,
}

impl<'a> Overlay<'a> {
    /// Nothing pending.
    #[must_use]
    pub fn new(base: &'a dyn Rows) -> Self {
        Self { base, head: base.head(), writes: BTreeMap::new() }
    }
    /// Adds writes; later ones win.
    pub fn write(&mut self, writes: &[RowWrite]) {
        for write in writes {
            self.writes.insert((write.table, write.key.to_vec()), write.value.clone());
        }
    }
    /// Replaces the head that readers see.
    pub fn set_head(&mut self, head: AccountHead) {
        self.head = head;
    }
    /// What lies under the pending writes.
    #[must_use]
    pub const fn base(&self) -> &'a dyn Rows {
        self.base
    }
    /// All pending writes, each row once, by (table, key).
    #[must_use]
    pub fn into_writes(self) -> Vec<RowWrite> {
        let row = |((table, key), value): ((Table, Vec<u8>), Option<Bytes>)| RowWrite { table, key: key.into(), value };
        self.writes.into_iter().map(row).collect()
    }

    fn pending(&self, table: Table, range: (Bound<&[u8]>, Bound<&[u8]>)) -> Vec<(&[u8], Option<&Bytes>)> {
        let from = (
            table,
            match range.0 {
                Bound::Included(k) | Bound::Excluded(k) => k.to_vec(),
                Bound::Unbounded => Vec::new(),
            },
        );
        let inside = |key: &[u8]| {
            let above = !matches!(range.0, Bound::Excluded(k) if k == key);
            above
                && match range.1 {
                    Bound::Included(k) => key <= k,
                    Bound::Excluded(k) => key < k,
                    Bound::Unbounded => true,
                }
        };
        self.writes
            .range(from..)
            .take_while(|((t, key), _)| {
                *t == table && !matches!(range.1, Bound::Included(k) | Bound::Excluded(k) if key.as_slice() > k)
            })
            .filter(|((_, key), _)| inside(key))
            .map(|((_, key), value)| (key.as_slice(), value.as_ref()))
            .collect()
    }
}

impl Rows for Overlay<'_> {
    fn head(&self) -> AccountHead {
        self.head.clone()
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, Damaged> {
        match self.writes.get(&(table, key.to_vec())) {
            Some(value) => Ok(value.clone()),
            None => self.base.get(table, key),
        }
    }

    fn scan(
        &self,
        table: Table,
        range: (Bound<&[u8]>, Bound<&[u8]>),
        reverse: bool,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), Damaged> {
        let mut pending = self.pending(table, range);
        if !reverse {
            pending.reverse();
        }
        // The next pending row is at the end of `pending`, so it can be popped.
        let before = |a: &[u8], b: &[u8]| if reverse { a > b } else { a < b };
        let mut broke = false;
        self.base.scan(table, range, reverse, &mut |key, value| {
            while let Some((own, written)) = pending.last().copied() {
                if before(key, own) {
                    break;
                }
                pending.pop();
                if written.is_some_and(|written| visit(own, written).is_break()) {
                    broke = true;
                    return ControlFlow::Break(());
                }
                if own == key {
                    return ControlFlow::Continue(());
                }
            }
            let flow = visit(key, value);
            broke = flow.is_break();
            flow
        })?;
        while !broke {
            let Some((own, written)) = pending.pop() else { break };
            broke = written.is_some_and(|written| visit(own, written).is_break());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::MemoryRows;

    fn row(key: u8, value: Option<u8>) -> RowWrite {
        RowWrite { table: Table(3), key: vec![key].into(), value: value.map(|v| vec![v].into()) }
    }

    fn keys(rows: &dyn Rows, reverse: bool, from: u8, to: u8) -> Vec<(u8, u8)> {
        let mut out = Vec::new();
        rows.scan(Table(3), (Bound::Included(&[from]), Bound::Excluded(&[to])), reverse, &mut |k, v| {
            out.push((k[0], v[0]));
            ControlFlow::Continue(())
        })
        .expect("reads");
        out
    }

    #[test]
    fn pending_writes_cover_the_base_in_both_directions() {
        let mut base = MemoryRows::default();
        base.write(&[row(1, Some(1)), row(3, Some(3)), row(5, Some(5))]);
        let mut overlay = Overlay::new(&base);
        overlay.write(&[row(0, Some(9)), row(3, None), row(4, Some(4)), row(5, Some(50)), row(6, Some(6))]);
        let all = vec![(0, 9), (1, 1), (4, 4), (5, 50), (6, 6)];
        assert_eq!(keys(&overlay, false, 0, 9), all);
        assert_eq!(keys(&overlay, true, 0, 9), all.into_iter().rev().collect::<Vec<_>>());
        assert_eq!(keys(&overlay, false, 1, 5), vec![(1, 1), (4, 4)]);
        assert_eq!(overlay.get(Table(3), &[3]), Ok(None));
    }
}
