//! The worker, as `crates/relay` does it: due items, the start committed, the dialogue, a report made durable, the end
//! committed; and the remote hosts.

use bytes::Bytes;
use queue::bounce::{report_id, write_bounce};
use queue::op::{AttemptResult, Failure, Hold, QueueItem, QueueOp, QueueOutcome};
use queue::schedule::{is_fresh, next_attempt};
use replica::{Event, MayRead, Serving};
use vocab::{AccountId, CommandId, EpochId, MemoryRows, PlacementId, ReversePath, Timestamp};

use super::{Attempt, RELAY, Step};
use crate::clients::FIRST_ACCOUNT;
use crate::invariants::Told;
use crate::vocabulary::{Answer, Done, Inner, JobKind, Ms, Work, index_of, node_id};
use crate::world::World;

/// Attempts of one node at a time.
const AT_ONCE: usize = 4;
/// First waiting time (ms of the queue's clock).
const FIRST_RETRY_MS: u64 = 20 * 1000;
/// Pause after a bounce that could not be made durable (ms of the queue's clock).
const BOUNCE_PAUSE_MS: u64 = 60 * 1000;
/// The same for a foreign item that failed for good.
const FOREIGN_PAUSE_MS: u64 = 10 * 60 * 1000;
/// How often the end of an attempt is offered.
const END_TRIES: u32 = 20;
/// Pause before it is offered again to a home that does not know the item (ms).
const END_PAUSE_MS: Ms = 100;

impl World {
    pub(crate) fn relay_ticks(&mut self, n: usize) {
        let pause: Ms = self.rng.range(40, 160);
        self.to(n, pause, Inner::RelayTick);
        let now = self.clock(n);
        let Some(process) = self.nodes[n].process.as_ref() else { return };
        let home = process.replica.home(AccountId::QUEUE.shard()).map(index_of) == Some(n);
        if !home || process.replica.serving(now) != Serving::Home || process.worker.attempts.len() >= AT_ONCE {
            return;
        }
        // What the other side has sent meanwhile is known with its branch.
        let version = self.nodes[n].disk.image.head(AccountId::QUEUE).version;
        if process.replica.may_read(AccountId::QUEUE, version, now) == MayRead::Merging {
            return self.tell(n, Event::Wanted(AccountId::QUEUE));
        }
        let (clock, hold) = (self.queue_clock(n), self.hold(n));
        let empty = MemoryRows::default();
        let rows = self.nodes[n].disk.image.accounts.get(&AccountId::QUEUE).unwrap_or(&empty);
        let due = match queue::read::due(rows, clock, AT_ONCE, hold.as_ref()) {
            Ok((due, _)) => due,
            Err(damaged) => return self.broken("rows", format!("node {}: queue: {damaged}", n + 1)),
        };
        for item in due {
            self.try_item(n, item, clock);
        }
    }

    fn try_item(&mut self, n: usize, item: QueueItem, at: Timestamp) {
        let heard_out = self.view(n).heard_out;
        let epoch = self.epoch_of(n);
        let Some(process) = self.nodes[n].process.as_mut() else { return };
        if process.worker.attempts.values().any(|attempt| attempt.item.id == item.id) {
            return;
        }
        process.worker.count += 1;
        let number = process.worker.count;
        let id = process.command_id(n);
        let op = QueueOp::AttemptStart { id: item.id, node: node_id(n), at, attempts: item.attempts };
        process
            .worker
            .attempts
            .insert(number, Attempt { item, at, asked: at, heard_out, epoch, step: Step::Start, tries: 0 });
        self.begin_job(n, RELAY, number, JobKind::Submit(Work::Queue { id, op, body: None }));
    }

    /// An operation of a worker was answered.
    pub(crate) fn relay_told(&mut self, n: usize, number: u64, answer: &Answer) {
        let clock = self.queue_clock(n);
        let Some(process) = self.nodes[n].process.as_mut() else { return };
        let Some(attempt) = process.worker.attempts.get(&number).cloned() else { return };
        match (attempt.step, answer) {
            (Step::Start, Ok(Done::Queue(QueueOutcome::Done, _))) if !is_fresh(attempt.asked, clock) => {
                self.ask_again(n, number);
            }
            (Step::Start, Ok(Done::Queue(QueueOutcome::Done, side))) => {
                let long = if self.rng.percent(15) { self.rng.range(300, 3_000) } else { self.rng.range(5, 200) };
                self.to(n, long, Inner::Dialogue(number));
                // Of the side that committed it, though the heal may have begun since.
                let mut view = self.view(n);
                // What both committed together comes before anything that one of them did alone, however late the answer is
                // heard: a home that slept in between begins with what it was told then.
                view.excused |= side.is_some() || !self.shape.has_third();
                view.side = view.side.or(*side);
                view.heard_out = attempt.heard_out;
                self.checks.on_told(&Told::Started { item: attempt.item.id, view });
            }
            (Step::Start, _) => drop(process.worker.attempts.remove(&number)),
            // Placed on the branch of a home that went on alone: the item must not end with it.
            (Step::Bounce(failure, id), Ok(_)) if !self.is_owed(n, &attempt.item, id) => {
                let due = self.queue_clock(n).plus_ms(BOUNCE_PAUSE_MS);
                self.end_attempt(n, number, AttemptResult::Deferred(failure, due));
            }
            (Step::Bounce(failure, id), Ok(_)) => {
                self.note(|| format!("node {}: report {id} about {:?}", n + 1, attempt.item.id));
                self.coverage.bounces += 1;
                let account = sender_of(&attempt.item);
                self.checks.on_told(&Told::Bounced { item: attempt.item.id, account, id });
                self.end_attempt(n, number, AttemptResult::Failed(failure));
            }
            (Step::Bounce(failure, _), Err(_)) => {
                let due = self.queue_clock(n).plus_ms(BOUNCE_PAUSE_MS);
                self.end_attempt(n, number, AttemptResult::Deferred(failure, due));
            }
            // A home that does not have the item yet (its branch is not merged) says gone, too.
            (
                Step::End(AttemptResult::Delivered | AttemptResult::Failed(_)),
                Ok(Done::Queue(QueueOutcome::Gone, _)),
            ) if attempt.tries < END_TRIES => {
                self.to(n, END_PAUSE_MS, Inner::EndAgain(number));
            }
            (Step::End(result), Ok(Done::Queue(outcome, side))) => {
                if result == AttemptResult::Delivered && *outcome == QueueOutcome::Done {
                    self.checks.on_told(&Told::Sent { item: attempt.item.id, side: *side });
                }
                process_remove(self, n, number);
            }
            (Step::End(result), _) if attempt.tries < END_TRIES => self.end_attempt(n, number, result),
            (Step::End(_), _) => process_remove(self, n, number),
        }
        self.take_landed_faults();
    }

    /// The node slept, or waited long for the answer: the same start once more.
    fn ask_again(&mut self, n: usize, number: u64) {
        let asked = self.queue_clock(n);
        let Some(process) = self.nodes[n].process.as_mut() else { return };
        let id = process.command_id(n);
        let Some(attempt) = process.worker.attempts.get_mut(&number) else { return };
        attempt.asked = asked;
        let (item, at, attempts) = (attempt.item.id, attempt.at, attempt.item.attempts);
        let op = QueueOp::AttemptStart { id: item, node: node_id(n), at, attempts };
        self.begin_job(n, RELAY, number, JobKind::Submit(Work::Queue { id, op, body: None }));
    }

    pub(crate) fn end_again(&mut self, n: usize, number: u64) {
        let Some(process) = self.nodes[n].process.as_ref() else { return };
        if let Some(Attempt { step: Step::End(result), .. }) = process.worker.attempts.get(&number) {
            let result = result.clone();
            self.end_attempt(n, number, result);
        }
    }

    fn end_attempt(&mut self, n: usize, number: u64, result: AttemptResult) {
        let Some(process) = self.nodes[n].process.as_mut() else { return };
        let id = process.command_id(n);
        let Some(attempt) = process.worker.attempts.get_mut(&number) else { return };
        attempt.tries += 1;
        attempt.step = Step::End(result.clone());
        let op = QueueOp::AttemptEnd { id: attempt.item.id, attempt: (node_id(n), attempt.at), result };
        self.begin_job(n, RELAY, number, JobKind::Submit(Work::Queue { id, op, body: None }));
    }

    /// What the remote host does.
    pub(crate) fn dialogue(&mut self, n: usize, number: u64) {
        let hold = self.hold(n);
        let Some(process) = self.nodes[n].process.as_ref() else { return };
        let Some(Attempt { item, epoch, .. }) = process.worker.attempts.get(&number).cloned() else { return };
        // A dialogue that was begun before is not broken off by the grace.
        let held = hold.filter(|_| epoch == self.epoch_of(n));
        let failure = |status: &str, diagnostic: &str| Failure {
            status: status.to_owned(),
            diagnostic: diagnostic.to_owned(),
            remote: Some("mx.example.net".to_owned()),
        };
        match self.rng.range(0, 100) {
            0..58 => {
                self.taken(n, &item, held);
                self.end_attempt(n, number, AttemptResult::Delivered);
            }
            58..68 => {
                self.taken(n, &item, held);
                self.coverage.lost_after_dot += 1;
                self.judge(n, number, &item, (false, failure("4.4.2", "connection lost after the dot")), hold);
            }
            68..88 => self.judge(n, number, &item, (false, failure("4.2.0", "come again")), hold),
            _ => self.judge(n, number, &item, (true, failure("5.1.1", "nobody here")), hold),
        }
        self.take_landed_faults();
    }

    /// Whether this disk has the report, or the record that promises it.
    fn is_owed(&self, n: usize, item: &QueueItem, id: CommandId) -> bool {
        let image = &self.nodes[n].disk.image;
        let placement = PlacementId { command: id, index: 0 };
        let rows = image.accounts.get(&sender_of(item));
        let placed = rows.and_then(|rows| mailbox::read::known_place(rows, placement).ok().flatten());
        let queue = image.accounts.get(&AccountId::QUEUE);
        placed.is_some() || queue.is_some_and(|rows| queue::read::accept(rows, id).is_ok_and(|record| record.is_some()))
    }

    fn epoch_of(&self, n: usize) -> EpochId {
        self.nodes[n].record.as_ref().map(|r| r.id).unwrap_or_default()
    }

    /// The message is at the remote host, whatever this node comes to know of it.
    fn taken(&mut self, n: usize, item: &QueueItem, hold: Option<Hold>) {
        let (clock, view) = (self.queue_clock(n), self.view(n));
        self.note(|| format!("node {}: the remote host takes {:?}", n + 1, item.id));
        // In the grace what is not this node's own is left alone; a start that was committed before made it its own.
        let held = hold.is_some_and(|hold| clock < hold.until && hold.is_foreign(&self.item_now(n, item)));
        self.coverage.sent += 1;
        self.checks.on_told(&Told::Taken { item: item.id, view, held });
    }

    /// The item as it is on this disk.
    fn item_now(&self, n: usize, item: &QueueItem) -> QueueItem {
        let rows = self.nodes[n].disk.image.accounts.get(&AccountId::QUEUE);
        let all = rows.and_then(|rows| queue::read::list(rows, usize::MAX).ok()).unwrap_or_default();
        all.into_iter().find(|other| other.id == item.id).unwrap_or_else(|| item.clone())
    }

    /// Later, or never: then the report is durable before the item goes.
    fn judge(
        &mut self,
        n: usize,
        number: u64,
        item: &QueueItem,
        (permanent, failure): (bool, Failure),
        hold: Option<Hold>,
    ) {
        let now = self.queue_clock(n);
        let attempts = item.attempts.saturating_add(1);
        let next = if permanent { None } else { next_attempt(item.accepted_at, attempts, now, FIRST_RETRY_MS) };
        if let Some(due) = next {
            return self.end_attempt(n, number, AttemptResult::Deferred(failure, due));
        }
        if hold.is_some_and(|hold| hold.is_foreign(item)) {
            self.coverage.bounces_held += 1;
            let due = now.plus_ms(FOREIGN_PAUSE_MS);
            return self.end_attempt(n, number, AttemptResult::Deferred(failure, due));
        }
        let ReversePath::Address(to) = &item.reverse_path else {
            return self.broken("driver", "a submission without a sender".to_owned());
        };
        let original = self.nodes[n].disk.image.blobs.get(&item.blob).cloned().unwrap_or_default();
        // Of one time and one diagnosis: reports that both sides of a split make have one id (docs/STATE.md).
        let same = Failure { status: "5.0.0".to_owned(), diagnostic: "given up".to_owned(), remote: None };
        let body = Bytes::from(write_bounce(item, &same, to, "example.org", &original, item.accepted_at));
        let accept = report_id(item.id, 0);
        let Some(process) = self.nodes[n].process.as_mut() else { return };
        if let Some(attempt) = process.worker.attempts.get_mut(&number) {
            attempt.step = Step::Bounce(failure, accept);
        }
        let accounts = vec![(accept.recipient, sender_of(item))];
        let work = Work::Delivery { accept, accounts, body, inline: true };
        self.begin_job(n, RELAY, number, JobKind::Submit(work));
    }
}

fn process_remove(world: &mut World, n: usize, number: u64) {
    if let Some(process) = world.nodes[n].process.as_mut() {
        process.worker.attempts.remove(&number);
    }
}

/// The account that submitted it: its number is in the address.
fn sender_of(item: &QueueItem) -> AccountId {
    let text = match &item.reverse_path {
        ReversePath::Address(address) => address.to_string(),
        ReversePath::Null => String::new(),
    };
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    AccountId(digits.parse().unwrap_or(FIRST_ACCOUNT))
}
