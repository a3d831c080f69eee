//! Rows being written over a snapshot: reads see the writes, and a refused command takes its own back.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

use bytes::Bytes;
use vocab::{AccountHead, Damaged, Rows, Table};

/// One written row with what the snapshot has under its key.
#[derive(Clone, Debug)]
pub(crate) struct Written {
    pub old: Option<Bytes>,
    pub new: Option<Bytes>,
}

/// Value a key had among the writes before the running command touched it.
type Undo = (Table, Vec<u8>, Option<Option<Bytes>>);

/// A snapshot with pending writes.
pub(crate) struct Overlay<'a> {
    base: &'a dyn Rows,
    pub(crate) head: AccountHead,
    tables: BTreeMap<Table, BTreeMap<Vec<u8>, Written>>,
    undo: Vec<Undo>,
    /// Bytes written so far, an estimate for limits.
    pub(crate) bytes: usize,
}

impl<'a> Overlay<'a> {
    pub(crate) fn new(base: &'a dyn Rows) -> Self {
        Self { base, head: base.head(), tables: BTreeMap::new(), undo: Vec::new(), bytes: 0 }
    }

    /// Writes or deletes; a write that changes nothing leaves no trace.
    pub(crate) fn write(&mut self, table: Table, key: Vec<u8>, value: Option<Bytes>) -> Result<(), Damaged> {
        let rows = self.tables.entry(table).or_default();
        self.bytes += key.len() + value.as_ref().map_or(0, Bytes::len) + 8;
        if let Some(written) = rows.get_mut(&key) {
            if written.new != value {
                let before = std::mem::replace(&mut written.new, value);
                self.undo.push((table, key, Some(before)));
            }
            return Ok(());
        }
        let old = self.base.get(table, &key)?;
        if old != value {
            self.undo.push((table, key.clone(), None));
            rows.insert(key, Written { old, new: value });
        }
        Ok(())
    }

    /// From here on [`Overlay::rollback`] goes back to here.
    pub(crate) fn begin(&mut self) {
        self.undo.clear();
    }

    /// Row changes since [`Overlay::begin`].
    pub(crate) fn changes(&self) -> usize {
        self.undo.len()
    }

    pub(crate) fn rollback(&mut self) {
        while let Some((table, key, before)) = self.undo.pop() {
            let rows = self.tables.entry(table).or_default();
            match before {
                Some(new) => {
                    if let Some(written) = rows.get_mut(&key) {
                        written.new = new;
                    }
                }
                None => {
                    rows.remove(&key);
                }
            }
        }
    }

    /// Everything written that differs from the snapshot, in order of table and key.
    pub(crate) fn into_written(self) -> impl Iterator<Item = (Table, Vec<u8>, Written)> {
        self.tables
            .into_iter()
            .flat_map(|(table, rows)| rows.into_iter().map(move |(key, written)| (table, key, written)))
            .filter(|(_, _, written)| written.old != written.new)
    }

    fn pending<'s>(
        &'s self,
        table: Table,
        range: (Bound<&[u8]>, Bound<&[u8]>),
        reverse: bool,
    ) -> Vec<(&'s [u8], Option<&'s Bytes>)> {
        let backwards = match range {
            (Bound::Included(from), Bound::Included(to)) => from > to,
            (Bound::Included(from) | Bound::Excluded(from), Bound::Included(to) | Bound::Excluded(to)) => from >= to,
            _ => false,
        };
        let Some(rows) = self.tables.get(&table).filter(|rows| !rows.is_empty() && !backwards) else {
            return Vec::new();
        };
        let hits = rows.range::<[u8], _>(range).map(|(key, written)| (key.as_slice(), written.new.as_ref()));
        if reverse { hits.rev().collect() } else { hits.collect() }
    }
}

impl Rows for Overlay<'_> {
    fn head(&self) -> AccountHead {
        self.head.clone()
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, Damaged> {
        match self.tables.get(&table).and_then(|rows| rows.get(key)) {
            Some(written) => Ok(written.new.clone()),
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
        let pending = self.pending(table, range, reverse);
        let mut next = pending.into_iter().peekable();
        let mut stopped = false;
        self.base.scan(table, range, reverse, &mut |key, value| {
            let mut flow = ControlFlow::Continue(());
            while let Some((own, written)) = next.next_if(|(own, _)| if reverse { *own >= key } else { *own <= key }) {
                if flow.is_continue()
                    && let Some(written) = written
                {
                    flow = visit(own, written);
                }
                if flow.is_break() || own == key {
                    stopped = flow.is_break();
                    return flow;
                }
            }
            flow = visit(key, value);
            stopped = flow.is_break();
            flow
        })?;
        if !stopped {
            for (own, written) in next {
                if let Some(written) = written
                    && visit(own, written).is_break()
                {
                    break;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vocab::{MemoryRows, RowWrite};

    fn write(key: &str, value: Option<&str>) -> RowWrite {
        let value = value.map(|v| Bytes::copy_from_slice(v.as_bytes()));
        RowWrite { table: Table(1), key: Bytes::copy_from_slice(key.as_bytes()), value }
    }

    fn keys(rows: &dyn Rows, reverse: bool) -> String {
        let mut out = String::new();
        rows.scan(Table(1), (Bound::Unbounded, Bound::Unbounded), reverse, &mut |key, value| {
            out.push_str(&String::from_utf8_lossy(key));
            out.push_str(&String::from_utf8_lossy(value));
            ControlFlow::Continue(())
        })
        .expect("memory");
        out
    }

    #[test]
    fn reads_see_writes_and_rollback_takes_them_back() {
        let mut base = MemoryRows::default();
        base.write(&[write("b", Some("1")), write("d", Some("2")), write("e", Some("3"))]);
        let mut over = Overlay::new(&base);
        let writes = [write("a", Some("x")), write("d", None), write("e", Some("y")), write("f", Some("z"))];
        for w in writes {
            over.write(w.table, w.key.to_vec(), w.value).expect("memory");
        }
        over.begin();
        over.write(Table(1), b"b".to_vec(), None).expect("memory");
        over.write(Table(1), b"f".to_vec(), None).expect("memory");
        assert_eq!(keys(&over, false), "axey");
        over.rollback();
        assert_eq!(keys(&over, false), "axb1eyfz");
        assert_eq!(keys(&over, true), "fzeyb1ax");
        assert_eq!(over.into_written().count(), 4);
    }
}
