//! Histories in which homes are spread over the nodes in sync: messages to accounts of several homes take an accept record,
//! and the home of the queue fans it out, as `cluster/shards/src/fanout.rs` does it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use queue::op::{AcceptRecord, Accepted, LocalRecipient, QueueOp};
use replica::{Event, Serving};
use vocab::{AccountId, BlobHash, CommandId, MemoryRows, NodeId, PlacementId, ReversePath};

use crate::Control;
use crate::disk::Image;
use crate::rng::Rng;
use crate::vocabulary::{Answer, Inner, JobKind, Ms, Work, index_of};
use crate::world::World;

/// Histories with spread homes (percent).
const SHARE: u64 = 40;
/// Makes this stream of chance another than the history's.
const STREAM: u64 = 0x5350_5245_4144_0002;
/// Marks the jobs of a fan-out, which no client waits for.
pub(crate) const FAN_OUT: usize = usize::MAX - 1;
/// How often a node looks for records that others left behind (ms).
const LOOK_MS: Ms = 500;

pub(crate) fn is_in(seed: u64) -> bool {
    Rng::new(seed ^ STREAM).percent(SHARE)
}

/// One record that is being fanned out.
#[derive(Clone, Debug)]
struct Fan {
    record: AcceptRecord,
    /// Parts that are not answered yet, one per home.
    open: usize,
    failed: bool,
    settling: bool,
}

/// Records under way in one process.
#[derive(Default)]
pub(crate) struct Fans {
    fans: BTreeMap<u64, Fan>,
    count: u64,
}

/// Accept records on a disk.
pub(crate) fn accepts(image: &Image) -> Vec<AcceptRecord> {
    let rows = image.accounts.get(&AccountId::QUEUE);
    rows.map(|rows| queue::read::accepts(rows, usize::MAX).unwrap_or_default()).unwrap_or_default()
}

/// Bodies that are promised to this account and perhaps not placed yet.
pub(crate) fn promised(image: &Image, account: AccountId) -> BTreeSet<BlobHash> {
    let owed = |record: &AcceptRecord| record.recipients.iter().any(|recipient| recipient.account == account);
    accepts(image).into_iter().filter(owed).map(|record| record.blob).collect()
}

/// What the record of a message says; facts are made from the body when it is placed.
pub(crate) fn accepted(accept: CommandId, accounts: &[(u32, AccountId)], body: &Bytes, settled: u64) -> Accepted {
    let recipient = |(number, account): &(u32, AccountId)| LocalRecipient {
        number: *number,
        account: *account,
        prefix: Bytes::new(),
    };
    let record = AcceptRecord {
        accept,
        reverse_path: ReversePath::Null,
        recipients: accounts.iter().map(recipient).collect(),
        blob: BlobHash::of(body),
        size: body.len() as u64,
        facts: Bytes::new(),
        smtputf8: false,
        eight_bit: false,
        accepted_at: vocab::Timestamp(accept.counter),
        owner: None,
    };
    Accepted { accept, settled, items: Vec::new(), record: Some(record) }
}

/// Whether this disk knows the placement of every recipient.
fn is_placed(image: &Image, record: &AcceptRecord) -> bool {
    record.recipients.iter().all(|recipient| {
        let id = PlacementId { command: record.accept.for_recipient(recipient.number), index: 0 };
        let rows = image.accounts.get(&recipient.account);
        rows.is_some_and(|rows| mailbox::read::known_place(rows, id).is_ok_and(|place| place.is_some()))
    })
}

impl World {
    /// The setting, as a node learns it from the register.
    pub(crate) fn tell_spread(&mut self, n: usize) {
        if self.spread {
            self.to(n, 0, Inner::Event(Event::Spread(true)));
            self.to(n, LOOK_MS, Inner::FanOutLook);
        }
    }

    /// The accounts of a message by home, as this node knows the homes; `None` when it knows none.
    fn by_home(&self, n: usize, accounts: &[(u32, AccountId)]) -> Option<BTreeMap<NodeId, Vec<(u32, AccountId)>>> {
        let process = self.nodes[n].process.as_ref()?;
        let mut homes: BTreeMap<NodeId, Vec<(u32, AccountId)>> = BTreeMap::new();
        for (number, account) in accounts {
            homes.entry(process.replica.home(account.shard())?).or_default().push((*number, *account));
        }
        Some(homes)
    }

    /// What is asked of a home for this message: itself when all accounts have one, else its record.
    pub(crate) fn with_record(&mut self, n: usize, work: Work) -> Work {
        let Work::Delivery { accept, accounts, body, inline } = &work else { return work };
        let Some(homes) = self.by_home(n, accounts).filter(|homes| homes.len() > 1) else { return work };
        if self.control == Control::AcknowledgesFirstHome {
            return self.first_home_only(n, homes, (*accept, body.clone(), *inline));
        }
        let settled = self.nodes[n].process.as_ref().map_or(0, |p| p.settled());
        let op = QueueOp::Accept(Box::new(accepted(*accept, accounts, body, settled)));
        Work::Queue { id: *accept, op, body: inline.then(|| body.clone()) }
    }

    /// H14: the first home's commit is the answer, the others are sent theirs and nobody remembers.
    fn first_home_only(
        &mut self,
        n: usize,
        homes: BTreeMap<NodeId, Vec<(u32, AccountId)>>,
        (accept, body, inline): (CommandId, Bytes, bool),
    ) -> Work {
        let mut parts =
            homes.into_values().map(|accounts| Work::Delivery { accept, accounts, body: body.clone(), inline });
        let first = parts.next();
        for part in parts {
            self.begin_job(n, FAN_OUT, 0, JobKind::Submit(part));
        }
        first.unwrap_or(Work::Delivery { accept, accounts: Vec::new(), body, inline })
    }

    /// A record was committed at this home: its fan-out begins.
    pub(crate) fn accepted_here(&mut self, n: usize, work: &Work) {
        if let Work::Queue { op: QueueOp::Accept(accepted), .. } = work
            && let Some(record) = &accepted.record
        {
            self.coverage.accept_records += 1;
            // Every third one is left to a later look, so that records are there when something breaks.
            if record.accept.counter % 3 > 0 {
                self.begin_fan_out(n, record.clone());
            }
        }
    }

    /// Records that others left behind.
    pub(crate) fn fan_out_look(&mut self, n: usize) {
        self.to(n, LOOK_MS, Inner::FanOutLook);
        if self.works_queue(n) {
            for record in accepts(&self.nodes[n].disk.image) {
                self.coverage.inherited_records += u64::from(record.owner != Some(crate::vocabulary::node_id(n)));
                self.begin_fan_out(n, record);
            }
        }
    }

    fn works_queue(&self, n: usize) -> bool {
        let now = self.clock(n);
        let Some(process) = self.nodes[n].process.as_ref() else { return false };
        let home = process.replica.home(AccountId::QUEUE.shard()).map(index_of) == Some(n);
        home && process.replica.serving(now) == Serving::Home
    }

    fn begin_fan_out(&mut self, n: usize, record: AcceptRecord) {
        let accounts: Vec<(u32, AccountId)> = record.recipients.iter().map(|r| (r.number, r.account)).collect();
        let homes = self.by_home(n, &accounts);
        let body = self.nodes[n].disk.image.blobs.get(&record.blob).cloned();
        let Some(fans) = self.nodes[n].process.as_mut().map(|process| &mut process.fans) else { return };
        if fans.fans.values().any(|fan| fan.record.accept == record.accept) {
            return;
        }
        let (Some(homes), Some(body)) = (homes, body) else { return };
        fans.count += 1;
        let number = fans.count;
        let (accept, open) = (record.accept, homes.len());
        fans.fans.insert(number, Fan { record, open, failed: false, settling: false });
        for accounts in homes.into_values() {
            let part = Work::Delivery { accept, accounts, body: body.clone(), inline: false };
            self.begin_job(n, FAN_OUT, number, JobKind::Submit(part));
        }
    }

    /// A part of a fan-out was answered, or its settling. What failed is begun anew at the next look.
    pub(crate) fn fan_out_told(&mut self, n: usize, number: u64, answer: &Answer) {
        let Some(process) = self.nodes[n].process.as_mut() else { return };
        let Some(fan) = process.fans.fans.get_mut(&number) else { return };
        fan.failed |= answer.is_err();
        fan.open = fan.open.saturating_sub(1);
        if fan.open > 0 {
            return;
        }
        // What a home placed on a branch of its own is not on this disk: nothing is settled by it.
        let (over, record) = (fan.failed || fan.settling, fan.record.clone());
        let here = self.control == Control::SettlesUnseen || is_placed(&self.nodes[n].disk.image, &record);
        let Some(process) = self.nodes[n].process.as_mut() else { return };
        if over || !here {
            process.fans.fans.remove(&number);
            return;
        }
        if let Some(fan) = process.fans.fans.get_mut(&number) {
            (fan.settling, fan.open) = (true, 1);
        }
        let accept = record.accept;
        let id = process.command_id(n);
        self.begin_job(
            n,
            FAN_OUT,
            number,
            JobKind::Submit(Work::Queue { id, op: QueueOp::Settle { accept }, body: None }),
        );
    }

    /// Every record is settled, on every disk.
    pub(crate) fn all_fanned_out(&self) -> bool {
        let empty = MemoryRows::default();
        self.nodes.iter().all(|node| {
            let rows = node.disk.image.accounts.get(&AccountId::QUEUE).unwrap_or(&empty);
            queue::read::accepts(rows, 1).is_ok_and(|records| records.is_empty())
        })
    }
}
