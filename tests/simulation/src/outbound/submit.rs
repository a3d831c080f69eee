//! Whoever submits mail for others elsewhere, and tries again until it is accepted.

use bytes::Bytes;
use queue::op::{Accepted, QueueItem, QueueOp, QueueOutcome};
use vocab::{AccountId, Address, BlobHash, CommandId, ReversePath};

use crate::cast::Part;
use crate::clients::Pending;
use crate::invariants::Told;
use crate::vocabulary::{Answer, Done, JobKind, Work};
use crate::world::World;

/// What it remembers.
#[derive(Default)]
pub(crate) struct Submitter {
    /// Items of the message under way.
    items: Vec<CommandId>,
}

pub(super) fn address(name: &str) -> Option<Address> {
    Address::parse(name).ok()
}

impl World {
    pub(crate) fn submitter_acts(&mut self, c: usize, n: usize, account: AccountId) {
        let at = self.queue_clock(n);
        let count = u32::try_from(self.rng.range(1, 3)).unwrap_or(1);
        let Some(process) = self.nodes[n].process.as_mut() else { return };
        let (accept, settled) = (process.command_id(n), process.settled());
        // Every transaction is a message of its own: which one the remote host has is then no question.
        let body = Bytes::from(format!("Subject: out {accept}\r\n\r\nby {c}\r\n"));
        let sender = address(&format!("user{}@example.org", account.0)).map_or(ReversePath::Null, ReversePath::Address);
        let item = |number: u32| {
            Some(QueueItem {
                id: accept.for_recipient(number),
                reverse_path: sender.clone(),
                recipient: address(&format!("r{number}@example.net"))?,
                original_recipient: None,
                blob: BlobHash::of(&body),
                size: body.len() as u64,
                smtputf8: false,
                eight_bit: false,
                accepted_at: at,
                attempts: 0,
                due: at,
                attempt: None,
                last_status: None,
                owner: None,
            })
        };
        let items: Vec<QueueItem> = (1..=count).filter_map(item).collect();
        if let Part::Submitter(submitter) = &mut self.clients[c].part {
            submitter.items = items.iter().map(|item| item.id).collect();
        }
        let op = QueueOp::Accept(Box::new(Accepted { accept, settled, items, record: None }));
        self.begin(c, n, Pending::Submission, JobKind::Submit(Work::Queue { id: accept, op, body: Some(body) }));
    }

    pub(crate) fn submission_told(&mut self, c: usize, answer: Option<Answer>) {
        let Part::Submitter(submitter) = &mut self.clients[c].part else { return };
        let items = std::mem::take(&mut submitter.items);
        if let Some(Ok(Done::Queue(QueueOutcome::Done, side))) = answer {
            self.coverage.submissions += 1;
            self.note(|| format!("client {c}: 250 for {items:?} in the queue, side {side:?}"));
            for item in items {
                self.checks.on_told(&Told::Submitted { item });
            }
        }
    }
}
