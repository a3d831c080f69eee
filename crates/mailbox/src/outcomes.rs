//! Commands take effect once: outcomes by command id, dropped when their origin reports them settled (DESIGN 4).

use std::ops::{Bound, ControlFlow};

use vocab::{CommandId, Damaged, Rows, Table};

use crate::codec::{decode_outcome, encode_outcome};
use crate::op::{AccountOp, Command, Outcome};
use crate::read::scan;
use crate::rows::{Settled, damaged, settled_key};
use crate::work::Work;

/// The outcome of a command that ran before.
///
/// # Errors
/// [`Damaged`].
pub fn stored(rows: &dyn Rows, id: CommandId) -> Result<Option<Outcome>, Damaged> {
    rows.get(Table::OUTCOMES, &id.to_bytes())?.map(|value| decode_outcome(&value)).transpose()
}

fn mark(rows: &dyn Rows, id: CommandId) -> Result<Settled, Damaged> {
    let value = rows.get(Table::SETTLED, &settled_key(id.origin))?;
    value.map_or(Ok(Settled::default()), |value| Settled::decode(&value))
}

/// Whether a command is at or below the settled mark of its origin. Fan-out of accepted messages never is: it belongs
/// to the accept record, not to a boot.
pub(crate) fn is_settled(rows: &dyn Rows, id: CommandId) -> Result<bool, Damaged> {
    Ok(id.recipient == 0 && Settled { boot: id.boot, counter: id.counter } <= mark(rows, id)?)
}

/// Writes the outcome and raises the settled mark of the origin. A fan-out delivery needs no outcome row: its
/// placement ids, kept as placement or as expunged for ever, say that it ran.
pub(crate) fn record(work: &mut Work<'_>, command: &Command, outcome: &Outcome) -> Result<(), Damaged> {
    if command.id.recipient == 0 {
        raise_settled(work, command)?;
    } else if matches!(command.op, AccountOp::Append { .. }) {
        return Ok(());
    }
    work.write(Table::OUTCOMES, command.id.to_bytes(), encode_outcome(outcome))
}

fn raise_settled(work: &mut Work<'_>, command: &Command) -> Result<(), Damaged> {
    let id = command.id;
    let before = mark(&work.rows, id)?;
    // A command cannot settle itself.
    let now = Settled { boot: id.boot, counter: command.settled.min(id.counter.saturating_sub(1)) };
    if now <= before {
        return Ok(());
    }
    let last = |settled: Settled| {
        CommandId { boot: settled.boot, counter: settled.counter, recipient: u32::MAX, ..id }.to_bytes()
    };
    let mut dropped = Vec::new();
    let range = (Bound::Excluded(&last(before)[..]), Bound::Included(&last(now)[..]));
    scan(&work.rows, Table::OUTCOMES, range, &mut |key, _| {
        let old = CommandId::from_bytes(key).ok_or_else(|| damaged("outcome", "key"))?;
        if old.recipient == 0 {
            dropped.push(key.to_vec());
        }
        Ok(ControlFlow::Continue(()))
    })?;
    for key in dropped {
        work.delete(Table::OUTCOMES, key)?;
    }
    work.write(Table::SETTLED, settled_key(id.origin), now.encode())
}
