//! Questions to the rows of the queue account.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

use vocab::{CommandId, Damaged, Rows, Table, Timestamp};

use crate::accepts;
use crate::op::{AcceptRecord, Hold, QueueItem};
use crate::rows::{decode_item, read_due_key};

/// Items due at `now` that nobody is trying, oldest first, at most `limit`, and when the first item beyond them is
/// due. An attempt that was never ended counts as lost after [`crate::apply::ATTEMPT_LOST_AFTER_MS`]. Under a `hold`
/// the items of other owners are passed over and become due at its end.
///
/// # Errors
/// [`Damaged`] when a row cannot be read.
pub fn due(
    view: &dyn Rows,
    now: Timestamp,
    limit: usize,
    hold: Option<&Hold>,
) -> Result<(Vec<QueueItem>, Option<Timestamp>), Damaged> {
    let hold = hold.filter(|hold| now < hold.until);
    let mut items = Vec::new();
    let mut next = None;
    let mut held = false;
    let mut fault = None;
    let mut take = |key: &[u8]| {
        let (due, id) = read_due_key(key)?;
        if due > now || items.len() >= limit {
            next = Some(due);
            return Ok(ControlFlow::Break(()));
        }
        let row = view.get(Table::QUEUE, &id.to_bytes())?;
        let item = decode_item(&row.ok_or_else(|| Damaged(format!("queue: {id} is due and missing")))?)?;
        if hold.is_some_and(|hold| hold.is_foreign(&item)) {
            held = true;
        } else {
            items.push(item);
        }
        Ok(ControlFlow::Continue(()))
    };
    view.scan(Table::QUEUE_DUE, (Bound::Unbounded, Bound::Unbounded), false, &mut |key, _| {
        take(key).unwrap_or_else(|damaged| {
            fault = Some(damaged);
            ControlFlow::Break(())
        })
    })?;
    if let Some(damaged) = fault {
        return Err(damaged);
    }
    let end = hold.filter(|_| held).map(|hold| hold.until);
    let next = next.into_iter().chain(end).min();
    Ok((items, next))
}

/// When the first item is due, be it past.
///
/// # Errors
/// As [`due`].
pub fn next_due(view: &dyn Rows) -> Result<Option<Timestamp>, Damaged> {
    due(view, Timestamp(0), 0, None).map(|(_, next)| next)
}

/// All items by time of acceptance, oldest first, at most `limit`.
///
/// # Errors
/// As [`due`].
pub fn list(view: &dyn Rows, limit: usize) -> Result<Vec<QueueItem>, Damaged> {
    oldest(view, Table::QUEUE, limit, |row| decode_item(row).map(|item| ((item.accepted_at, item.id), item)))
}

/// Accept records that wait for their fan-out by time of acceptance, oldest first, at most `limit`.
///
/// # Errors
/// As [`due`].
pub fn accepts(view: &dyn Rows, limit: usize) -> Result<Vec<AcceptRecord>, Damaged> {
    let decode = |row: &[u8]| accepts::decode(row).map(|record| ((record.accepted_at, record.accept), record));
    oldest(view, Table::ACCEPTS, limit, decode)
}

/// The accept record of this id, while it waits.
///
/// # Errors
/// [`Damaged`].
pub fn accept(view: &dyn Rows, id: CommandId) -> Result<Option<AcceptRecord>, Damaged> {
    view.get(Table::ACCEPTS, &accepts::key(id))?.map(|row| accepts::decode(&row)).transpose()
}

fn oldest<T>(
    view: &dyn Rows,
    table: Table,
    limit: usize,
    decode: impl Fn(&[u8]) -> Result<((Timestamp, CommandId), T), Damaged>,
) -> Result<Vec<T>, Damaged> {
    let mut oldest = BTreeMap::new();
    let mut fault = None;
    view.scan(table, (Bound::Unbounded, Bound::Unbounded), false, &mut |_, row| match decode(row) {
        Ok((key, one)) => {
            oldest.insert(key, one);
            if oldest.len() > limit {
                oldest.pop_last();
            }
            ControlFlow::Continue(())
        }
        Err(damaged) => {
            fault = Some(damaged);
            ControlFlow::Break(())
        }
    })?;
    match fault {
        Some(damaged) => Err(damaged),
        None => Ok(oldest.into_values().collect()),
    }
}
