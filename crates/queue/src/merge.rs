//! Merge of two branches of the queue (DESIGN 7): union by item, what one side finished stays finished. Pure, and the
//! same whichever side is the anchor.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, ControlFlow};

use bytes::Bytes;
use vocab::{BlobRef, CommandId, Damaged, NodeId, RowWrite, Rows, Table, Timestamp};

use crate::accepts;
use crate::apply::{ATTEMPT_LOST_AFTER_MS, blob_ref, due_row, item_row, remove, replace};
use crate::bounce::accept_of;
use crate::op::QueueItem;
use crate::outcomes::{self, Remembered};
use crate::rows::{decode_item, encode_item};

/// What a merge found, for the log and the events. The same for both orders of the sides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueueMergeReport {
    /// Items in the queue after it.
    pub items: usize,
    /// Accept records that still wait for their fan-out after it.
    pub accepts: usize,
    /// Items one side finished and the other still had: they are done.
    pub finished: Vec<CommandId>,
    /// Items both sides finished since the base: their recipient may have the message twice.
    pub finished_twice: Vec<CommandId>,
    /// Items both sides changed: tried on both, so perhaps taken by the next hop twice.
    pub tried_twice: Vec<CommandId>,
    /// Items with an attempt that may still be running at the time of the merge.
    pub open_attempts: usize,
}

type Items = BTreeMap<CommandId, QueueItem>;

/// Merges two branches of the queue's rows (items, due index, accept records, remembered accept ids) that both come
/// from `base`. Gives what has to be written over the rows of `anchor`, with the references that come and go with it.
///
/// An item of the base that one side no longer has is done and stays done. The rows do not tell whether it was
/// delivered or given up with a bounce, so a failure on one side ends an item that the other side still had pending: its
/// sender was told, and a delivery after the report would contradict it. An item that is not in the base and on one side
/// only was accepted there: it stays. Without a base (`None`: it cannot be had any more) nothing counts as done, so no
/// item is lost and some may be sent twice. In either case an item that one side lacks and whose accept id it remembers
/// is done there: the message was accepted on both sides under one id.
///
/// An accept record that either side has stays: what the other side placed may be in accounts that are not merged yet, and
/// a fan-out places nothing twice.
///
/// An item on both sides: changed on one side only, that side's; changed on both, attempts add up over the base (without
/// one, the greater number), the later due time and the words of the side it is from, and an open attempt when either
/// side has one, unless the base has it too and the other side has ended it. `at`: time of the anchor, for the report only.
///
/// # Errors
/// [`Damaged`] when a row cannot be read: nothing may be written.
pub fn merge(
    base: Option<&dyn Rows>,
    anchor: &dyn Rows,
    guest: &dyn Rows,
    at: Timestamp,
) -> Result<(Vec<RowWrite>, Vec<BlobRef>, QueueMergeReport), Damaged> {
    let before = base.map(items).transpose()?;
    let (here, there) = (items(anchor)?, items(guest)?);
    let (knows_here, knows_there) = (Remembered::of(anchor)?, Remembered::of(guest)?);
    let none = Items::new();
    let mut report = QueueMergeReport::default();
    let mut writes = Vec::new();
    let mut refs = Vec::new();
    let ids: BTreeSet<&CommandId> =
        [before.as_ref().unwrap_or(&none), &here, &there].into_iter().flat_map(Items::keys).collect();
    for id in ids {
        let old = before.as_ref().and_then(|items| items.get(id));
        let side = here.get(id);
        let merged = match (side, there.get(id)) {
            (Some(a), Some(b)) => Some(join(before.is_some(), old, (a, b), &mut report)),
            (Some(one), None) if old.is_none() && !knows_there.has(accept_of(*id)) => Some(one.clone()),
            (None, Some(one)) if old.is_none() && !knows_here.has(accept_of(*id)) => Some(one.clone()),
            (None, None) => {
                report.finished_twice.push(*id);
                None
            }
            _ => {
                report.finished.push(*id);
                None
            }
        };
        if let Some(item) = &merged {
            report.items += 1;
            let running = |(_, since): (NodeId, Timestamp)| at < since.plus_ms(ATTEMPT_LOST_AFTER_MS);
            report.open_attempts += usize::from(item.attempt.is_some_and(running));
        }
        match (side, merged) {
            (Some(old), Some(new)) if *old != new => writes.extend(replace(old, &new)),
            (None, Some(new)) => {
                writes.extend([item_row(&new), due_row(&new, true)]);
                refs.push(blob_ref(&new, true));
            }
            (Some(old), None) => {
                let (rows, dropped, _) = remove(old);
                writes.extend(rows);
                refs.extend(dropped);
            }
            _ => {}
        }
    }
    let (rows, named, kept) = merge_accepts(base, anchor, guest)?;
    report.accepts = kept;
    writes.extend(rows);
    refs.extend(named);
    writes.extend(outcomes::merge(&knows_here, &knows_there));
    Ok((writes, refs, report))
}

/// One item both sides have.
fn join(
    has_base: bool,
    old: Option<&QueueItem>,
    (a, b): (&QueueItem, &QueueItem),
    report: &mut QueueMergeReport,
) -> QueueItem {
    // Equal rows, times included, are one history.
    if a == b || old == Some(b) {
        return a.clone();
    }
    if old == Some(a) {
        return b.clone();
    }
    report.tried_twice.push(a.id);
    // The bytes decide between equal times, so that the order of the sides does not.
    let (early, late) = if (a.due, encode_item(a)) < (b.due, encode_item(b)) { (a, b) } else { (b, a) };
    let mut merged = late.clone();
    merged.attempts = if has_base {
        let known = old.map_or(0, |item| item.attempts);
        // A side that counts less than the base cannot be; it then counts nothing.
        a.attempts.max(known).saturating_add(b.attempts.saturating_sub(known))
    } else {
        a.attempts.max(b.attempts)
    };
    let ended = |attempt: &(NodeId, Timestamp)| {
        let known = old.is_some_and(|item| item.attempt.as_ref() == Some(attempt));
        known && (a.attempt.as_ref() != Some(attempt) || b.attempt.as_ref() != Some(attempt))
    };
    let open = [early.attempt, late.attempt].into_iter().flatten().filter(|attempt| !ended(attempt));
    merged.attempt = open.max_by_key(|(node, since)| (*since, *node));
    merged.last_status = late.last_status.clone().or_else(|| early.last_status.clone());
    merged
}

fn items(rows: &dyn Rows) -> Result<Items, Damaged> {
    let decode = |(_, row): (Vec<u8>, Bytes)| decode_item(&row).map(|item| (item.id, item));
    all(rows, Table::QUEUE)?.into_iter().map(decode).collect()
}

pub(crate) fn all(rows: &dyn Rows, table: Table) -> Result<BTreeMap<Vec<u8>, Bytes>, Damaged> {
    let mut found = BTreeMap::new();
    rows.scan(table, (Bound::Unbounded, Bound::Unbounded), false, &mut |key, value| {
        found.insert(key.to_vec(), Bytes::copy_from_slice(value));
        ControlFlow::Continue(())
    })?;
    Ok(found)
}

/// Union of the accept records.
fn merge_accepts(
    base: Option<&dyn Rows>,
    anchor: &dyn Rows,
    guest: &dyn Rows,
) -> Result<(Vec<RowWrite>, Vec<BlobRef>, usize), Damaged> {
    let before = base.map(|rows| all(rows, Table::ACCEPTS)).transpose()?.unwrap_or_default();
    let (here, there) = (all(anchor, Table::ACCEPTS)?, all(guest, Table::ACCEPTS)?);
    let (mut writes, mut refs) = (Vec::new(), Vec::new());
    for (key, theirs) in &there {
        let (old, mine) = (before.get(key), here.get(key));
        let merged = match mine {
            Some(mine) if old == Some(theirs) => mine,
            Some(mine) if old != Some(mine) => mine.max(theirs),
            _ => theirs,
        };
        if mine.is_none() {
            refs.push(accepts::blob_ref(&accepts::decode(theirs)?, true));
        }
        if mine != Some(merged) {
            let key = Bytes::copy_from_slice(key);
            writes.push(RowWrite { table: Table::ACCEPTS, key, value: Some(merged.clone()) });
        }
    }
    let kept = here.len() + there.keys().filter(|key| !here.contains_key(*key)).count();
    Ok((writes, refs, kept))
}
