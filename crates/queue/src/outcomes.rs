//! Accepting takes effect once (H13): accept ids that ran, until their origin reports them settled or has a newer boot.
//! Those of reports of failure belong to their item instead and go with it. Both are forgotten in a joint epoch only:
//! a branch that two nodes merged each on its own can be in the queue of one and finished in that of the other, with
//! no base that has it; then this is all that tells finished from new.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, ControlFlow};

use bytes::Bytes;
use prost::Message as _;
use vocab::{Boot, CommandId, Damaged, NodeId, RowWrite, Rows, Table};

use crate::bounce::{item_of, report_id};
use crate::codec::encode_outcome;
use crate::merge::all;
use crate::op::QueueOutcome;

/// Row version of a settled mark.
const SETTLED_ROW_VERSION: u8 = 1;

/// Commands of an origin at or below this are settled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Settled {
    boot: Boot,
    counter: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SettledV1 {
    #[prost(uint32, tag = "1")]
    boot: u32,
    #[prost(uint64, tag = "2")]
    counter: u64,
}

fn damaged(what: &str) -> Damaged {
    Damaged(format!("queue outcomes: {what}"))
}

impl Settled {
    fn encode(self) -> Bytes {
        let mut out = vec![SETTLED_ROW_VERSION];
        out.extend(SettledV1 { boot: self.boot.0, counter: self.counter }.encode_to_vec());
        out.into()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Damaged> {
        let Some((&SETTLED_ROW_VERSION, row)) = bytes.split_first() else {
            return Err(damaged("unknown row version"));
        };
        let row = SettledV1::decode(row).map_err(|fault| damaged(&fault.to_string()))?;
        Ok(Self { boot: Boot(row.boot), counter: row.counter })
    }
}

fn mark_key(origin: NodeId) -> Bytes {
    origin.0.to_be_bytes().to_vec().into()
}

fn mark(view: &dyn Rows, origin: NodeId) -> Result<Settled, Damaged> {
    view.get(Table::SETTLED, &mark_key(origin))?.map_or(Ok(Settled::default()), |row| Settled::decode(&row))
}

/// Whether this accept id ran and is remembered.
pub(crate) fn ran(view: &dyn Rows, accept: CommandId) -> Result<bool, Damaged> {
    Ok(view.get(Table::OUTCOMES, &accept.to_bytes())?.is_some())
}

/// Whether its origin waits for it no longer. Reports have no origin that waits: their item is tried again until its
/// end is committed.
pub(crate) fn is_settled(view: &dyn Rows, accept: CommandId) -> Result<bool, Damaged> {
    let this = Settled { boot: accept.boot, counter: accept.counter };
    Ok(accept.recipient == 0 && this <= mark(view, accept.origin)?)
}

/// Remembers that it ran; in a joint epoch forgets those its origin says are settled, and reports among them whose item is
/// done.
pub(crate) fn record(view: &dyn Rows, accept: CommandId, settled: u64, joint: bool) -> Result<Vec<RowWrite>, Damaged> {
    let mut rows = Vec::new();
    if accept.recipient == 0 && joint {
        raise(view, accept, settled, &mut rows)?;
    }
    let value = Some(encode_outcome(&QueueOutcome::Done));
    rows.push(RowWrite { table: Table::OUTCOMES, key: accept.to_bytes().to_vec().into(), value });
    Ok(rows)
}

fn raise(view: &dyn Rows, accept: CommandId, settled: u64, rows: &mut Vec<RowWrite>) -> Result<(), Damaged> {
    let before = mark(view, accept.origin)?;
    // A command cannot settle itself.
    let now = Settled { boot: accept.boot, counter: settled.min(accept.counter.saturating_sub(1)) };
    if now <= before {
        return Ok(());
    }
    let last = |settled: Settled| {
        CommandId { boot: settled.boot, counter: settled.counter, recipient: u32::MAX, ..accept }.to_bytes()
    };
    // Below the old mark only reports are left. Those of a while without the other nodes, whose items are done, go with the
    // next boot of their origin: looked for at every message, all that was dropped before would be passed over each time.
    let first = CommandId { boot: Boot(0), counter: 0, recipient: 0, ..accept }.to_bytes();
    let from = if now.boot > before.boot { first } else { last(before) };
    let mut fault = None;
    view.scan(Table::OUTCOMES, (Bound::Excluded(&from), Bound::Included(&last(now))), false, &mut |key, _| {
        let forgotten = CommandId::from_bytes(key)
            .ok_or_else(|| damaged("key"))
            .and_then(|old| Ok(old.recipient == 0 || view.get(Table::QUEUE, &item_of(old).to_bytes())?.is_none()));
        match forgotten {
            Ok(true) => rows.push(RowWrite { table: Table::OUTCOMES, key: key.to_vec().into(), value: None }),
            Ok(false) => {}
            Err(damaged) => {
                fault = Some(damaged);
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    })?;
    rows.push(RowWrite { table: Table::SETTLED, key: mark_key(accept.origin), value: Some(now.encode()) });
    fault.map_or(Ok(()), Err)
}

/// The item is done, so nobody repeats the report about it.
pub(crate) fn forget_report(view: &dyn Rows, item: CommandId) -> Result<Option<RowWrite>, Damaged> {
    let report = report_id(item, 0);
    let row = RowWrite { table: Table::OUTCOMES, key: report.to_bytes().to_vec().into(), value: None };
    Ok(ran(view, report)?.then_some(row))
}

/// What one branch remembers.
#[derive(Debug)]
pub(crate) struct Remembered {
    ran: BTreeMap<Vec<u8>, Bytes>,
    marks: BTreeMap<Vec<u8>, Settled>,
}

impl Remembered {
    pub(crate) fn of(rows: &dyn Rows) -> Result<Self, Damaged> {
        let mark = |(key, row): (Vec<u8>, Bytes)| Settled::decode(&row).map(|mark| (key, mark));
        let marks = all(rows, Table::SETTLED)?.into_iter().map(mark).collect::<Result<_, _>>()?;
        Ok(Self { ran: all(rows, Table::OUTCOMES)?, marks })
    }

    /// Whether it knows for certain that this accept id ran here; that it is settled would not say where.
    pub(crate) fn has(&self, accept: CommandId) -> bool {
        self.ran.contains_key(&accept.to_bytes()[..])
    }

    fn is_settled(&self, id: CommandId) -> bool {
        let this = Settled { boot: id.boot, counter: id.counter };
        self.marks.get(&mark_key(id.origin)[..]).is_some_and(|mark| this <= *mark)
    }
}

/// The union of what both branches remember, written over that of the anchor: the later marks, and the ids above them.
/// Reports whose item is done stay too, until the epoch is joint.
pub(crate) fn merge(anchor: &Remembered, guest: &Remembered) -> Vec<RowWrite> {
    let row = |table, key: &[u8], value| RowWrite { table, key: Bytes::copy_from_slice(key), value };
    let mut writes = Vec::new();
    for (origin, mark) in &guest.marks {
        if anchor.marks.get(origin).is_none_or(|mine| mine < mark) {
            writes.push(row(Table::SETTLED, origin, Some(mark.encode())));
        }
    }
    let keys: BTreeSet<&Vec<u8>> = anchor.ran.keys().chain(guest.ran.keys()).collect();
    for key in keys {
        let Some(id) = CommandId::from_bytes(key) else { continue };
        let keep = id.recipient != 0 || (!anchor.is_settled(id) && !guest.is_settled(id));
        match (anchor.ran.get(key), guest.ran.get(key)) {
            (None, Some(value)) if keep => writes.push(row(Table::OUTCOMES, key, Some(value.clone()))),
            (Some(_), _) if !keep => writes.push(row(Table::OUTCOMES, key, None)),
            _ => {}
        }
    }
    writes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_settled_row() {
        let mark = Settled { boot: Boot(2), counter: 300 };
        assert_eq!(mark.encode(), Bytes::from_static(&[1, 8, 2, 16, 0xac, 2]));
        assert_eq!(Settled::decode(&mark.encode()), Ok(mark));
        assert!(Settled::decode(&[9]).is_err() && Settled::decode(&[]).is_err());
    }
}
