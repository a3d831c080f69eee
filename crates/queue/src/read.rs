//! Questions to the rows of the queue account.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

use vocab::{CommandId, Damaged, Rows, Table, Timestamp};

use crate::op::QueueItem;
use crate::rows::{decode_item, read_due_key};

/// Items due at `now` that nobody is trying, oldest first, at most `limit`, and when the first item beyond them is
/// due. An attempt that was never ended counts as lost after [`crate::apply::ATTEMPT_LOST_AFTER_MS`].
///
/// # Errors
/// [`Damaged`] when a row cannot be read.
pub fn due(view: &dyn Rows, now: Timestamp, limit: usize) -> Result<(Vec<QueueItem>, Option<Timestamp>), Damaged> {
    let mut ids: Vec<CommandId> = Vec::new();
    let mut next = None;
    let mut fault = None;
    view.scan(Table::QUEUE_DUE, (Bound::Unbounded, Bound::Unbounded), false, &mut |key, _| {
        match read_due_key(key) {
            Ok((due, id)) if due <= now && ids.len() < limit => ids.push(id),
            Ok((due, _)) => {
                next = Some(due);
                return ControlFlow::Break(());
            }
            Err(damaged) => {
                fault = Some(damaged);
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    })?;
    if let Some(damaged) = fault {
        return Err(damaged);
    }
    let mut items = Vec::with_capacity(ids.len());
    for id in ids {
        let row = view.get(Table::QUEUE, &id.to_bytes())?;
        items.push(decode_item(&row.ok_or_else(|| Damaged(format!("queue: {id} is due and missing")))?)?);
    }
    Ok((items, next))
}

/// When the first item is due, be it past.
///
/// # Errors
/// As [`due`].
pub fn next_due(view: &dyn Rows) -> Result<Option<Timestamp>, Damaged> {
    due(view, Timestamp(0), 0).map(|(_, next)| next)
}

/// All items by time of acceptance, oldest first, at most `limit`.
///
/// # Errors
/// As [`due`].
pub fn list(view: &dyn Rows, limit: usize) -> Result<Vec<QueueItem>, Damaged> {
    let mut oldest = BTreeMap::new();
    let mut fault = None;
    view.scan(Table::QUEUE, (Bound::Unbounded, Bound::Unbounded), false, &mut |_, row| match decode_item(row) {
        Ok(item) => {
            oldest.insert((item.accepted_at, item.id), item);
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
