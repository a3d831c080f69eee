//! Two branches of the queue become one: nothing pending is lost, nothing finished comes back.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proptest::prelude::*;
use queue::apply::ATTEMPT_LOST_AFTER_MS;
use queue::{AcceptRecord, Accepted, AttemptResult, Failure, QueueItem, QueueOp, QueueOutcome, apply, merge};
use vocab::{
    Address, BlobHash, BlobRef, Boot, CommandId, MemoryRows, NodeId, PlacementId, ReversePath, RowWrite, Rows, Table,
    Timestamp,
};

const T0: Timestamp = Timestamp(1_700_000_000_000);

fn id(number: u32) -> CommandId {
    CommandId { origin: NodeId(1), boot: Boot(2), counter: 3, recipient: number }
}

const STANDING: queue::op::Standing = queue::op::Standing { home: NodeId(1), hold: None, joint: true };

fn item(number: u32) -> QueueItem {
    QueueItem {
        id: id(number),
        reverse_path: ReversePath::Null,
        recipient: Address::parse("bob@elsewhere.example").unwrap(),
        original_recipient: None,
        blob: BlobHash([u8::try_from(number).unwrap(); 32]),
        size: 1,
        smtputf8: false,
        eight_bit: false,
        accepted_at: T0,
        attempts: 0,
        due: T0,
        attempt: None,
        last_status: None,
        owner: None,
    }
}

fn accept_id(number: u32) -> CommandId {
    CommandId { counter: 100 + u64::from(number), ..id(0) }
}

/// A message with a recipient elsewhere and an accept record.
fn accepted(number: u32, settled: u64) -> QueueOp {
    let accept = accept_id(number);
    let items = vec![QueueItem { id: accept.for_recipient(1), ..item(number) }];
    let record = AcceptRecord {
        accept,
        reverse_path: ReversePath::Null,
        recipients: Vec::new(),
        blob: BlobHash([u8::try_from(number).unwrap(); 32]),
        size: 1,
        facts: Bytes::new(),
        smtputf8: false,
        eight_bit: false,
        accepted_at: T0.plus_ms(u64::from(number)),
        owner: None,
    };
    QueueOp::Accept(Box::new(Accepted { accept, settled, items, record: Some(record) }))
}

/// One node's rows and references.
#[derive(Clone, Debug, Default, PartialEq)]
struct Side {
    rows: MemoryRows,
    refs: BTreeSet<(BlobHash, PlacementId)>,
}

impl Side {
    fn write(&mut self, rows: &[RowWrite], refs: &[BlobRef]) {
        self.rows.write(rows);
        for reference in refs {
            let key = (reference.hash, reference.placement);
            let new = if reference.present { self.refs.insert(key) } else { self.refs.remove(&key) };
            assert!(new, "a reference is added once and dropped once");
        }
    }

    fn run(&mut self, op: &QueueOp, at: Timestamp) -> QueueOutcome {
        self.run_in(op, at, true)
    }

    fn run_in(&mut self, op: &QueueOp, at: Timestamp, joint: bool) -> QueueOutcome {
        let (rows, refs, outcome) = apply(&self.rows, op, queue::op::Standing { joint, ..STANDING }, at).unwrap();
        self.write(&rows, &refs);
        outcome
    }

    fn items(&self) -> BTreeMap<CommandId, QueueItem> {
        let items = queue::read::list(&self.rows, usize::MAX).unwrap();
        items.into_iter().map(|item| (item.id, item)).collect()
    }

    fn accept(&mut self, number: u32) {
        self.run(&accepted(number, 0), T0);
    }

    fn settle(&mut self, number: u32) {
        self.run(&QueueOp::Settle { accept: accept_id(number) }, T0);
    }

    fn accepts(&self) -> Vec<u32> {
        let records = queue::read::accepts(&self.rows, usize::MAX).unwrap();
        records.into_iter().map(|record| u32::try_from(record.accept.counter).unwrap() - 100).collect()
    }

    /// The due index and the references are exactly those of the items.
    fn check(&self) {
        let items = self.items();
        let (due, _) = queue::read::due(&self.rows, Timestamp(u64::MAX), usize::MAX, None).unwrap();
        assert_eq!(due.len(), items.len());
        assert_eq!(due.into_iter().map(|item| (item.id, item)).collect::<BTreeMap<_, _>>(), items);
        let of_items = items.values().map(|item| (item.blob, PlacementId { command: item.id, index: 0 }));
        let records = queue::read::accepts(&self.rows, usize::MAX).unwrap();
        let of_records = records.iter().map(|r| (r.blob, PlacementId { command: r.accept, index: 1 }));
        assert_eq!(self.refs, of_items.chain(of_records).collect());
    }
}

fn merged(base: Option<&Side>, anchor: &Side, guest: &Side) -> (Side, queue::QueueMergeReport) {
    let base = base.map(|side| &side.rows as &dyn Rows);
    let (rows, refs, report) = merge(base, &anchor.rows, &guest.rows, T0).unwrap();
    let mut result = anchor.clone();
    result.write(&rows, &refs);
    result.check();
    (result, report)
}

/// With a guest that did nothing; what it still promises is fanned out once more and settled.
fn merged_with_silent(base: &Side, anchor: &Side) -> Side {
    let (mut result, _) = merged(Some(base), anchor, base);
    let settled = anchor.accepts();
    result.accepts().into_iter().filter(|number| !settled.contains(number)).for_each(|number| result.settle(number));
    result
}

fn deferred(due: u64) -> AttemptResult {
    let failure = Failure { status: "4.4.1".into(), diagnostic: format!("until {due}"), remote: None };
    AttemptResult::Deferred(failure, T0.plus_ms(due))
}

/// As a worker that has just read the item.
fn start(side: &Side, number: u32, node: u32, at: u64) -> QueueOp {
    let attempts = side.items().get(&id(number)).map_or(0, |item| item.attempts);
    QueueOp::AttemptStart { id: id(number), node: NodeId(node), at: T0.plus_ms(at), attempts }
}

/// As the worker whose attempt it is.
fn end(side: &Side, number: u32, result: AttemptResult) -> QueueOp {
    let attempt = side.items().get(&id(number)).and_then(|item| item.attempt).unwrap_or((NodeId(9), T0));
    QueueOp::AttemptEnd { id: id(number), attempt, result }
}

fn delivered(id: CommandId) -> QueueOp {
    QueueOp::AttemptEnd { id, attempt: (NodeId(9), T0), result: AttemptResult::Delivered }
}

/// A base of items 1 to `count`.
fn base(count: u32) -> Side {
    let mut side = Side::default();
    side.run(&QueueOp::Enqueue((1..=count).map(item).collect()), T0);
    side
}

#[test]
fn attempts_add_up_and_the_later_due_time_wins() {
    let base = base(1);
    let (mut anchor, mut guest) = (base.clone(), base.clone());
    anchor.run(&start(&anchor, 1, 1, 0), T0);
    anchor.run(&end(&anchor, 1, deferred(5000)), T0);
    anchor.run(&start(&anchor, 1, 1, 5000), T0);
    anchor.run(&end(&anchor, 1, deferred(9000)), T0);
    guest.run(&start(&guest, 1, 2, 100), T0);
    guest.run(&end(&guest, 1, deferred(7000)), T0);
    let (result, report) = merged(Some(&base), &anchor, &guest);
    let item = &result.items()[&id(1)];
    assert_eq!((item.attempts, item.due, item.attempt), (3, T0.plus_ms(9000), None));
    assert_eq!(item.last_status.as_ref().unwrap().diagnostic, "until 9000");
    assert_eq!((report.items, report.tried_twice), (1, vec![id(1)]));
    assert_eq!(merged(None, &anchor, &guest).0.items()[&id(1)].attempts, 2, "no base: the greater number");
}

#[test]
fn an_open_attempt_is_kept_until_the_other_side_has_ended_it() {
    let mut before = base(2);
    before.run(&start(&before, 2, 1, 0), T0);
    let (mut anchor, mut guest) = (before.clone(), before.clone());
    // Item 1: tried to the end here, still being tried there.
    anchor.run(&start(&anchor, 1, 1, 0), T0);
    anchor.run(&end(&anchor, 1, deferred(2 * ATTEMPT_LOST_AFTER_MS)), T0);
    guest.run(&start(&guest, 1, 2, 50), T0);
    // Item 2: the attempt of the base was ended there; here nothing is known of its end.
    guest.run(&end(&guest, 2, deferred(600)), T0);
    let (result, report) = merged(Some(&before), &anchor, &guest);
    let first = &result.items()[&id(1)];
    assert_eq!((first.attempt, first.attempts), (Some((NodeId(2), T0.plus_ms(50))), 2));
    assert_eq!(first.due, T0.plus_ms(2 * ATTEMPT_LOST_AFTER_MS));
    let second = &result.items()[&id(2)];
    assert_eq!((second.attempt, second.attempts, second.due), (None, 1, T0.plus_ms(600)));
    assert_eq!(report.open_attempts, 1);
}

#[test]
fn what_one_side_finished_is_done_and_what_both_finished_is_reported() {
    let base = base(4);
    let (mut anchor, mut guest) = (base.clone(), base.clone());
    let failure = Failure { status: "5.1.1".into(), diagnostic: "no".into(), remote: None };
    anchor.run(&end(&anchor, 1, AttemptResult::Delivered), T0);
    guest.run(&end(&guest, 2, AttemptResult::Failed(failure)), T0);
    anchor.run(&end(&anchor, 3, AttemptResult::Delivered), T0);
    guest.run(&end(&guest, 3, AttemptResult::Delivered), T0);
    guest.run(&QueueOp::Enqueue(vec![item(9)]), T0);
    let (result, report) = merged(Some(&base), &anchor, &guest);
    assert_eq!(result.items().into_keys().collect::<Vec<_>>(), [id(4), id(9)]);
    assert_eq!((report.items, report.finished, report.finished_twice), (2, vec![id(1), id(2)], vec![id(3)]));
    let (result, _) = merged(None, &anchor, &guest);
    assert_eq!(result.items().into_keys().collect::<Vec<_>>(), [id(1), id(2), id(4), id(9)], "nothing is lost");
}

#[test]
fn h14_accept_records_are_united() {
    let mut base = Side::default();
    (1..=3).for_each(|number| base.accept(number));
    let (mut anchor, mut guest) = (base.clone(), base.clone());
    anchor.settle(1);
    guest.settle(2);
    anchor.accept(4);
    guest.accept(5);
    for side in [&mut anchor, &mut guest] {
        side.accept(6);
        side.settle(6);
    }
    // What only the guest has placed is nowhere here before its accounts are merged too: 2 stays promised.
    for known in [Some(&base), None] {
        let (result, report) = merged(known, &anchor, &guest);
        assert_eq!((result.accepts(), report.accepts), (vec![1, 2, 3, 4, 5], 5));
        assert_eq!(merged(known, &guest, &anchor).0.rows, result.rows);
    }
}

/// The forward of one message reached both sides: one of them is further.
#[test]
fn h13_a_message_accepted_on_both_sides_is_placed_and_sent_once() {
    let (mut anchor, mut guest) = (base(1), base(1));
    let before = anchor.clone();
    anchor.accept(7);
    guest.accept(7);
    guest.settle(7);
    guest.run(&delivered(accept_id(7).for_recipient(1)), T0);
    for (one, other) in [(&anchor, &guest), (&guest, &anchor)] {
        let (mut result, report) = merged(Some(&before), one, other);
        assert_eq!((result.accepts(), result.items().len()), (vec![7], 1), "sent on one side is sent");
        assert_eq!(report.finished, [accept_id(7).for_recipient(1)]);
        result.settle(7);
        result.accept(7);
        assert_eq!((result.accepts(), result.items().len()), (vec![], 1), "and stays remembered");
    }
}

/// Two nodes merged one branch, each on its own (the home of the first merge died before it had written it, and a backup
/// has it). One finishes what came with the branch and its origin settles it; both go on. The newest state both have gone
/// through is older than the branch. Items left after they are merged, and what is remembered once all are joint.
fn after_two_merges_of_one_branch(forgets: bool) -> (usize, usize) {
    let base = base(1);
    let mut branch = base.clone();
    branch.run_in(&accepted(7, 0), T0, forgets);
    branch.settle(7);
    let (stale, _) = merged(Some(&base), &base, &branch);
    let (mut home, _) = merged(Some(&base), &base, &branch);
    home.run_in(&delivered(accept_id(7).for_recipient(1)), T0, forgets);
    home.run_in(&accepted(8, 107), T0, forgets);
    home.settle(8);
    home.run_in(&delivered(accept_id(8).for_recipient(1)), T0, forgets);
    let (mut whole, _) = merged(Some(&base), &home, &stale);
    let left = whole.items().len() - base.items().len();
    whole.run(&accepted(9, 108), T0);
    let outcomes = whole.rows.rows.keys().filter(|(table, _)| *table == Table::OUTCOMES).count();
    (left, outcomes)
}

#[test]
fn what_a_branch_brought_to_two_nodes_and_one_finished_does_not_come_back() {
    assert_eq!(after_two_merges_of_one_branch(false), (0, 1), "and a joint epoch forgets all but the last");
    assert_eq!(after_two_merges_of_one_branch(true).0, 1, "forgotten at once it comes back: the control");
}

#[test]
fn a_damaged_row_stops_the_merge() {
    let whole = base(1);
    let mut torn = whole.clone();
    let key = Bytes::copy_from_slice(&id(1).to_bytes());
    torn.rows.write(&[RowWrite { table: Table::QUEUE, key, value: Some(Bytes::from_static(b"?")) }]);
    for (b, a, g) in [(&torn, &whole, &whole), (&whole, &torn, &whole), (&whole, &whole, &torn)] {
        assert!(merge(Some(&b.rows), &a.rows, &g.rows, T0).is_err());
    }
}

#[derive(Clone, Debug)]
struct Step {
    number: u32,
    what: u8,
    after: u64,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (0..8_u32, 0..5_u8, 0..2 * ATTEMPT_LOST_AFTER_MS);
    prop::collection::vec(step.prop_map(|(number, what, after)| Step { number, what, after }), 0..24)
}

/// Plays steps of node `node`; its new items have numbers of their own. Gives what it finished.
fn play(side: &mut Side, node: u32, steps: &[Step]) -> BTreeSet<CommandId> {
    let mut finished = BTreeSet::new();
    for step in steps {
        let number = step.number;
        let before = side.items();
        match step.what {
            0 => {
                side.run(&QueueOp::Enqueue(vec![item(node * 20 + number)]), T0);
            }
            1 | 2 => {
                side.run(&start(side, number, node, step.after), T0.plus_ms(step.after));
            }
            3 => {
                side.run(&end(side, number, deferred(step.after)), T0);
            }
            _ => {
                side.run(&end(side, number, AttemptResult::Delivered), T0);
            }
        }
        finished.extend(before.into_keys().filter(|id| !side.items().contains_key(id)));
    }
    finished
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn a_merge_is_symmetric_and_idempotent_and_keeps_the_rules(
        shared in steps(), ours in steps(), theirs in steps(), count in 0..8_u32,
    ) {
        let mut base = base(count);
        play(&mut base, 3, &shared);
        let (mut anchor, mut guest) = (base.clone(), base.clone());
        let here = play(&mut anchor, 1, &ours);
        let there = play(&mut guest, 2, &theirs);
        for known in [Some(&base), None] {
            let (result, report) = merged(known, &anchor, &guest);
            prop_assert_eq!(&(result.clone(), report), &merged(known, &guest, &anchor), "symmetric");
            prop_assert_eq!(&merged(known, &result, &result).0, &result, "idempotent");
            prop_assert_eq!(&merged(Some(&anchor), &result, &anchor).0, &result, "forward only");
            prop_assert_eq!(&merged(known, &anchor, &anchor).0, &anchor, "equal sides stay");
        }
        prop_assert_eq!(&merged(Some(&base), &anchor, &base).0, &anchor, "a silent side changes nothing");
        let result = merged(Some(&base), &anchor, &guest).0.items();
        let (a, g) = (anchor.items(), guest.items());
        let all: BTreeSet<_> = base.items().into_keys().chain(a.keys().copied()).chain(g.keys().copied()).collect();
        let done: BTreeSet<_> = here.union(&there).copied().collect();
        // An item enqueued anew after it was finished is there again; steps give a side only numbers of its own.
        let pending: BTreeSet<_> =
            all.into_iter().filter(|id| !done.contains(id) || (!base.items().contains_key(id)
                && (a.contains_key(id) || g.contains_key(id)))).collect();
        prop_assert_eq!(result.keys().copied().collect::<BTreeSet<_>>(), pending, "none lost, none resurrected");
        for (id, item) in &result {
            let [x, y, z] = [&a, &g, &base.items()].map(|side| side.get(id).map_or(0, |item| item.attempts));
            prop_assert_eq!(item.attempts + z, if a.get(id) == g.get(id) { x + z } else { x + y });
        }
    }
}

/// What became of messages on one branch, its base included.
#[derive(Clone, Debug, Default)]
struct Fate {
    ran: BTreeSet<u32>,
    fanned_out: BTreeSet<u32>,
    sent: BTreeSet<u32>,
}

/// Accepts, settles and sends messages; with 3 the origin also says that everything before is settled.
fn play_accepts(side: &mut Side, fate: &mut Fate, steps: &[(u32, u8)]) {
    for (number, what) in steps.iter().copied() {
        match what {
            0 | 3 => {
                let settled = if what == 0 { 0 } else { accept_id(number).counter };
                if side.run(&accepted(number, settled), T0) == QueueOutcome::Done && side.accepts().contains(&number) {
                    fate.ran.insert(number);
                }
            }
            1 if side.run(&QueueOp::Settle { accept: accept_id(number) }, T0) == QueueOutcome::Done => {
                fate.fanned_out.insert(number);
            }
            2 if side.run(&delivered(accept_id(number).for_recipient(1)), T0) == QueueOutcome::Done => {
                fate.sent.insert(number);
            }
            _ => {}
        }
    }
}

fn accept_steps(kinds: u8) -> impl Strategy<Value = Vec<(u32, u8)>> {
    prop::collection::vec((1..8_u32, 0..kinds), 0..20)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]
    /// One id may have been accepted on both sides (a forward that was tried again); nobody has settled it yet.
    #[test]
    fn h14_what_waits_on_a_side_waits_and_what_a_side_sent_is_sent(
        shared in accept_steps(3), ours in accept_steps(3), theirs in accept_steps(3),
    ) {
        let (mut base, mut fate) = (Side::default(), Fate::default());
        play_accepts(&mut base, &mut fate, &shared);
        let (mut anchor, mut guest) = (base.clone(), base.clone());
        let (mut here, mut there) = (fate.clone(), fate);
        play_accepts(&mut anchor, &mut here, &ours);
        play_accepts(&mut guest, &mut there, &theirs);
        let either = |one: fn(&Fate) -> BTreeSet<u32>| -> BTreeSet<u32> { &one(&here) | &one(&there) };
        let ran = either(|fate| fate.ran.clone());
        for known in [Some(&base), None] {
            let (mut result, _) = merged(known, &anchor, &guest);
            prop_assert_eq!(&result.rows, &merged(known, &guest, &anchor).0.rows, "symmetric");
            prop_assert_eq!(&merged(known, &result, &result).0, &result, "idempotent");
            prop_assert_eq!(&merged(Some(&anchor), &result, &anchor).0, &result, "forward only");
            let waits: BTreeSet<u32> = result.accepts().into_iter().collect();
            prop_assert_eq!(waits, either(|fate| &fate.ran - &fate.fanned_out));
            let sends: BTreeSet<CommandId> = result.items().into_keys().collect();
            let unsent = &ran - &either(|fate| fate.sent.clone());
            prop_assert_eq!(sends, unsent.iter().map(|n| accept_id(*n).for_recipient(1)).collect());
            let before = result.rows.clone();
            ran.iter().for_each(|number| result.accept(*number));
            prop_assert_eq!(&result.rows, &before, "a forward that is tried after the merge does nothing");
        }
        prop_assert_eq!(&merged_with_silent(&base, &anchor), &anchor, "a silent side changes nothing");
    }

    /// Origins that settle ids make a side forget them; even so nothing is lost.
    #[test]
    fn h14_what_no_side_is_done_with_is_never_lost(
        shared in accept_steps(4), ours in accept_steps(4), theirs in accept_steps(4),
    ) {
        let (mut base, mut fate) = (Side::default(), Fate::default());
        play_accepts(&mut base, &mut fate, &shared);
        let (mut anchor, mut guest) = (base.clone(), base.clone());
        let (mut here, mut there) = (fate.clone(), fate.clone());
        play_accepts(&mut anchor, &mut here, &ours);
        play_accepts(&mut guest, &mut there, &theirs);
        for known in [Some(&base), None] {
            let (result, _) = merged(known, &anchor, &guest);
            prop_assert_eq!(&result.rows, &merged(known, &guest, &anchor).0.rows, "symmetric");
            prop_assert_eq!(&merged(known, &result, &result).0, &result, "idempotent");
            let waits: BTreeSet<u32> = result.accepts().into_iter().collect();
            let fanned_out = &here.fanned_out | &there.fanned_out;
            let lost: Vec<&u32> =
                here.ran.union(&there.ran).filter(|n| !fanned_out.contains(n) && !waits.contains(n)).collect();
            prop_assert!(lost.is_empty(), "lost: {:?}", lost);
        }
        prop_assert_eq!(&merged_with_silent(&base, &anchor), &anchor, "a silent side changes nothing");
    }
}
