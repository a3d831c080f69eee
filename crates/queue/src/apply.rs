//! One operation on the queue: rows to write, references to add or drop, and the outcome. Pure.

use vocab::{BlobRef, CommandId, Damaged, NodeId, PlacementId, RowWrite, Rows, Table, Timestamp};

use crate::op::{AttemptResult, QueueItem, QueueOp, QueueOutcome, Standing};
use crate::rows::{decode_item, due_key, encode_item};
use crate::{accepts, outcomes};

/// A started attempt that has not ended by then is taken for lost with its node, and the item is due again (ms). The
/// relay ends every dialogue sooner, so a living node never loses an item to another one.
pub const ATTEMPT_LOST_AFTER_MS: u64 = 15 * 60 * 1000;

/// What an operation changes.
pub type Applied = (Vec<RowWrite>, Vec<BlobRef>, QueueOutcome);

/// Applies `op` at time `at` of the home to the rows of the queue account. What comes in belongs to the home; so does
/// what it tries, unless the other side may be alive.
///
/// # Errors
/// [`Damaged`] when a row cannot be read: nothing may be written.
pub fn apply(view: &dyn Rows, op: &QueueOp, standing: Standing, at: Timestamp) -> Result<Applied, Damaged> {
    match op {
        QueueOp::Enqueue(items) => enqueue(view, items, standing.home),
        QueueOp::Accept(accepted) => accepts::accept(view, accepted, standing),
        QueueOp::Settle { accept } => accepts::settle(view, *accept),
        QueueOp::AttemptStart { id, node, at: started, attempts } => {
            let Some(item) = find(view, *id)? else { return Ok(gone()) };
            // The start is committed before the dialogue; asking twice for the same start counts once, and a start
            // from before the last attempt starts nothing.
            let again = item.attempt == Some((*node, *started));
            if !again && item.attempts != *attempts {
                return Ok(gone());
            }
            let elsewhere =
                item.attempt.is_some_and(|(other, since)| other != *node && at < since.plus_ms(ATTEMPT_LOST_AFTER_MS));
            if elsewhere {
                return Ok(gone());
            }
            // It may have been ordered before the node was alone.
            if standing.hold.is_some_and(|hold| at < hold.until && hold.is_foreign(&item)) {
                return Ok(gone());
            }
            let mut next = item.clone();
            next.attempts = if again { item.attempts } else { item.attempts.saturating_add(1) };
            next.attempt = Some((*node, *started));
            next.due = started.plus_ms(ATTEMPT_LOST_AFTER_MS);
            if standing.hold.is_none() {
                next.owner = Some(standing.home);
            }
            Ok((replace(&item, &next), Vec::new(), QueueOutcome::Done))
        }
        QueueOp::AttemptEnd { id, attempt, result } => {
            let Some(item) = find(view, *id)? else { return Ok(gone()) };
            Ok(match result {
                // Whichever attempt it was: who has the message, or was told of its failure, has it.
                AttemptResult::Delivered | AttemptResult::Failed(_) => {
                    let (mut rows, refs, outcome) = remove(&item);
                    if standing.joint {
                        rows.extend(outcomes::forget_report(view, item.id)?);
                    }
                    (rows, refs, outcome)
                }
                AttemptResult::Deferred(..) if item.attempt != Some(*attempt) => gone(),
                AttemptResult::Deferred(failure, due) => {
                    let mut next = item.clone();
                    next.attempt = None;
                    next.due = *due;
                    next.last_status = Some(failure.clone());
                    (replace(&item, &next), Vec::new(), QueueOutcome::Done)
                }
            })
        }
    }
}

pub(crate) fn gone() -> Applied {
    (Vec::new(), Vec::new(), QueueOutcome::Gone)
}

fn find(view: &dyn Rows, id: CommandId) -> Result<Option<QueueItem>, Damaged> {
    view.get(Table::QUEUE, &id.to_bytes())?.map(|row| decode_item(&row)).transpose()
}

pub(crate) fn enqueue(view: &dyn Rows, items: &[QueueItem], home: NodeId) -> Result<Applied, Damaged> {
    let mut rows = Vec::new();
    let mut refs = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    for item in items {
        if !seen.insert(item.id) || view.get(Table::QUEUE, &item.id.to_bytes())?.is_some() {
            continue;
        }
        rows.push(item_row(&QueueItem { owner: Some(home), ..item.clone() }));
        rows.push(due_row(item, true));
        refs.push(blob_ref(item, true));
    }
    Ok((rows, refs, QueueOutcome::Done))
}

pub(crate) fn replace(old: &QueueItem, new: &QueueItem) -> Vec<RowWrite> {
    let mut rows = vec![item_row(new)];
    if old.due != new.due {
        rows.push(due_row(old, false));
        rows.push(due_row(new, true));
    }
    rows
}

pub(crate) fn remove(item: &QueueItem) -> Applied {
    let key = item.id.to_bytes().to_vec().into();
    let rows = vec![RowWrite { table: Table::QUEUE, key, value: None }, due_row(item, false)];
    (rows, vec![blob_ref(item, false)], QueueOutcome::Done)
}

pub(crate) fn item_row(item: &QueueItem) -> RowWrite {
    RowWrite { table: Table::QUEUE, key: item.id.to_bytes().to_vec().into(), value: Some(encode_item(item)) }
}

pub(crate) fn due_row(item: &QueueItem, present: bool) -> RowWrite {
    let value = present.then(bytes::Bytes::new);
    RowWrite { table: Table::QUEUE_DUE, key: due_key(item.due, item.id), value }
}

pub(crate) fn blob_ref(item: &QueueItem, present: bool) -> BlobRef {
    BlobRef { hash: item.blob, placement: PlacementId { command: item.id, index: 0 }, present }
}

#[cfg(test)]
mod tests {
    use vocab::MemoryRows;

    use super::*;
    use crate::op::{Failure, Hold};
    use crate::read::{due, list};
    use crate::rows::tests::item;

    const T0: Timestamp = Timestamp(1_700_000_000_000);

    fn run(rows: &mut MemoryRows, op: &QueueOp, at: Timestamp) -> (Vec<BlobRef>, QueueOutcome) {
        let (writes, refs, outcome) = apply(rows, op, HERE, at).expect("readable");
        rows.write(&writes);
        (refs, outcome)
    }

    fn failure() -> Failure {
        Failure { status: "4.4.1".into(), diagnostic: "no".into(), remote: None }
    }

    #[test]
    fn an_item_is_queued_once_tried_deferred_and_delivered() {
        let mut rows = MemoryRows::default();
        let (refs, outcome) = run(&mut rows, &QueueOp::Enqueue(vec![item(1), item(1), item(2)]), T0);
        assert_eq!((refs.len(), outcome), (2, QueueOutcome::Done));
        assert!(run(&mut rows, &QueueOp::Enqueue(vec![item(1)]), T0).0.is_empty());

        let id = item(1).id;
        let start = QueueOp::AttemptStart { id, node: NodeId(1), at: T0, attempts: 0 };
        assert_eq!(run(&mut rows, &start, T0).1, QueueOutcome::Done);
        assert_eq!(run(&mut rows, &start, T0).1, QueueOutcome::Done);
        let (now, _) = due(&rows, T0, 10, None).expect("readable");
        assert_eq!(now.iter().map(|i| i.id).collect::<Vec<_>>(), [item(2).id]);

        let later = T0.plus_ms(60_000);
        let end =
            QueueOp::AttemptEnd { id, attempt: (NodeId(1), T0), result: AttemptResult::Deferred(failure(), later) };
        run(&mut rows, &end, T0);
        let tried = list(&rows, 10).expect("readable");
        assert_eq!((tried[0].attempts, tried[0].due, tried[0].attempt), (1, later, None));
        assert_eq!(tried[0].last_status, Some(failure()));

        let end = QueueOp::AttemptEnd { id, attempt: (NodeId(1), T0), result: AttemptResult::Delivered };
        let (refs, _) = run(&mut rows, &end, later);
        assert_eq!(refs.iter().map(|r| r.present).collect::<Vec<_>>(), [false]);
        assert_eq!(run(&mut rows, &end, later).1, QueueOutcome::Gone);
        let end =
            QueueOp::AttemptEnd { id: item(2).id, attempt: (NodeId(1), T0), result: AttemptResult::Failed(failure()) };
        run(&mut rows, &end, later);
        assert!(rows.rows.is_empty(), "{rows:?}");
    }

    #[test]
    fn an_attempt_of_a_lost_node_is_taken_over_after_the_named_time() {
        let mut rows = MemoryRows::default();
        run(&mut rows, &QueueOp::Enqueue(vec![item(1)]), T0);
        let id = item(1).id;
        run(&mut rows, &QueueOp::AttemptStart { id, node: NodeId(1), at: T0, attempts: 0 }, T0);
        let early = T0.plus_ms(ATTEMPT_LOST_AFTER_MS - 1);
        assert!(due(&rows, early, 10, None).expect("readable").0.is_empty());
        let taken = QueueOp::AttemptStart { id, node: NodeId(2), at: early, attempts: 1 };
        assert_eq!(run(&mut rows, &taken, early).1, QueueOutcome::Gone);
        let late = T0.plus_ms(ATTEMPT_LOST_AFTER_MS);
        assert_eq!(due(&rows, late, 10, None).expect("readable").0.len(), 1);
        let over = QueueOp::AttemptStart { id, node: NodeId(2), at: late, attempts: 1 };
        assert_eq!(run(&mut rows, &over, late).1, QueueOutcome::Done);
        assert_eq!(list(&rows, 1).expect("readable")[0].attempts, 2);
    }

    #[test]
    fn h13_starts_and_ends_that_come_late_do_nothing() {
        let mut rows = MemoryRows::default();
        run(&mut rows, &QueueOp::Enqueue(vec![item(1)]), T0);
        let id = item(1).id;
        let start = |at, attempts| QueueOp::AttemptStart { id, node: NodeId(1), at, attempts };
        let defer = |at: Timestamp| {
            let result = AttemptResult::Deferred(failure(), at.plus_ms(1000));
            QueueOp::AttemptEnd { id, attempt: (NodeId(1), at), result }
        };
        run(&mut rows, &start(T0, 0), T0);
        run(&mut rows, &defer(T0), T0);
        // Sent again because its answer was lost, and overtaken by the end of its attempt.
        assert_eq!(run(&mut rows, &start(T0, 0), T0).1, QueueOutcome::Gone);
        assert_eq!(list(&rows, 1).expect("readable")[0].attempt, None);
        let second = T0.plus_ms(1000);
        assert_eq!(run(&mut rows, &start(second, 1), second).1, QueueOutcome::Done);
        // The end of the first attempt would free an item that is being tried.
        assert_eq!(run(&mut rows, &defer(T0), second).1, QueueOutcome::Gone);
        assert_eq!(list(&rows, 1).expect("readable")[0].attempt, Some((NodeId(1), second)));
        let delivered = QueueOp::AttemptEnd { id, attempt: (NodeId(1), T0), result: AttemptResult::Delivered };
        assert_eq!(run(&mut rows, &delivered, second).1, QueueOutcome::Done, "whoever has it has it");
        assert!(rows.rows.is_empty());
    }

    const HERE: Standing = Standing { home: NodeId(1), hold: None, joint: true };
    const OVER: Hold = Hold { node: NodeId(2), until: T0 };
    const ALONE: Standing = Standing { home: NodeId(2), hold: Some(OVER), joint: false };

    fn write(rows: &mut MemoryRows, op: &QueueOp, standing: Standing) {
        let (writes, _, _) = apply(rows, op, standing, T0).expect("readable");
        rows.write(&writes);
    }

    #[test]
    fn ha_15_what_the_other_side_took_in_waits_for_the_grace_and_own_mail_does_not() {
        let mut rows = MemoryRows::default();
        write(&mut rows, &QueueOp::Enqueue(vec![item(1), item(2)]), HERE);
        write(&mut rows, &QueueOp::Enqueue(vec![item(3)]), ALONE);
        let hold = Hold { node: NodeId(2), until: T0.plus_ms(1000) };
        let numbers = |now, limit| {
            let (items, next) = due(&rows, now, limit, Some(&hold)).expect("readable");
            (items.iter().map(|item| item.id.recipient).collect::<Vec<_>>(), next)
        };
        // Those held do not use up the limit, and the worker is told when they are due.
        assert_eq!(numbers(T0, 1), (vec![3], Some(hold.until)));
        assert_eq!(numbers(hold.until, 10), (vec![1, 2, 3], None));
        // The other side sends at once what this one leaves to it, and leaves what this one sends.
        let theirs = Hold { node: NodeId(1), ..hold };
        let left = due(&rows, T0, 10, Some(&theirs)).expect("readable").0;
        assert_eq!(left.iter().map(|item| item.id.recipient).collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn ha_15_trying_takes_an_item_over_only_when_the_other_side_is_surely_down() {
        for (hold, owner) in [(Some(OVER), NodeId(1)), (None, NodeId(2))] {
            let mut rows = MemoryRows::default();
            write(&mut rows, &QueueOp::Enqueue(vec![item(1)]), HERE);
            let start = QueueOp::AttemptStart { id: item(1).id, node: NodeId(2), at: T0, attempts: 0 };
            write(&mut rows, &start, Standing { home: NodeId(2), hold, joint: false });
            assert_eq!(list(&rows, 1).expect("readable")[0].owner, Some(owner));
        }
    }

    #[test]
    fn ha_15_a_start_ordered_before_the_node_was_alone_does_not_pass_the_grace_by() {
        let mut rows = MemoryRows::default();
        write(&mut rows, &QueueOp::Enqueue(vec![item(1)]), HERE);
        write(&mut rows, &QueueOp::Enqueue(vec![item(2)]), ALONE);
        let hold = Some(Hold { node: NodeId(2), until: T0.plus_ms(1000) });
        let mut begin = |number, at| {
            let start = QueueOp::AttemptStart { id: item(number).id, node: NodeId(2), at: T0, attempts: 0 };
            let (writes, _, outcome) =
                apply(&rows, &start, Standing { home: NodeId(2), hold, joint: false }, at).expect("readable");
            rows.write(&writes);
            outcome
        };
        assert_eq!(begin(1, T0.plus_ms(999)), QueueOutcome::Gone);
        assert_eq!(begin(2, T0), QueueOutcome::Done);
        assert_eq!(begin(1, T0.plus_ms(1000)), QueueOutcome::Done);
    }
}
