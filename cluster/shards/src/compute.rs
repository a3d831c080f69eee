//! Computing a batch: the operations that wait for their accounts, applied in order on a snapshot. Pure but for the
//! snapshot and the clock; runs on a blocking thread, so a large COPY does not hold up heartbeats.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use mailbox::Applier;
use mailbox::op::{AccountOp, Change, Command, MailboxRef, NewMessage, Outcome, Refusal, Role, Stamp};
use ports::intake::Recipient;
use queue::op::{AcceptRecord, QueueOp, QueueOutcome, Standing};
use replica::{Event, StampBase};
use vocab::limits::BATCH_BYTES_MAX;
use vocab::{
    AccountBatch, AccountId, Batch, BatchId, BlobRef, Damaged, Flags, InlineBody, LogRecord, Overlay, PlacementId,
    RowWrite, Rows, SubmitError, Timestamp, UidValidity, Version,
};

use crate::drive;
use crate::engine::Engine;
use crate::work::{DeliveryWork, Done, Work};

/// Mailboxes one batch may create per batch counter; ids of batches never overlap.
const MAILBOXES_PER_BATCH: u64 = 1 << 16;

/// Set in the recipient number of the operation that makes an account which mail arrives for.
const INIT_MARK: u32 = 0x4000_0000;

/// What is answered and told when the batch is committed.
#[derive(Default)]
pub(crate) struct Computed {
    pub(crate) answers: Vec<(u64, Answered)>,
    pub(crate) changes: Vec<(AccountId, Vec<Change>)>,
}

/// What a token is told.
type Answered = Result<Done, SubmitError>;

impl Computed {
    /// Nothing was done; each of these tokens hears why.
    fn refused(tokens: &[u64], works: &HashMap<u64, Arc<Work>>, why: &dyn Fn(&Work) -> Answered) -> Self {
        let answers = tokens.iter().filter_map(|token| Some((*token, why(works.get(token)?)))).collect();
        Self { answers, changes: Vec::new() }
    }
}

/// What came of building a batch.
enum Built {
    /// Answers, and the batch unless nothing changed (refused, repeated or gone).
    Done(Computed, Option<Batch>),
    /// Only so many of the operations fit into one batch.
    Full(usize),
    Damaged(Damaged),
}

/// What every operation of a batch sees, besides rows.
#[derive(Clone, Copy)]
struct Conditions<'a> {
    stamp: Stamp,
    standing: Standing,
    /// Whether an account was removed for good.
    removed: &'a dyn Fn(AccountId) -> bool,
}

fn build<'a>(
    batch: BatchId,
    conditions: Conditions<'a>,
    snapshots: &'a BTreeMap<AccountId, Arc<dyn Rows>>,
    works: &HashMap<u64, Arc<Work>>,
    tokens: &[u64],
) -> Built {
    let mut building = Building::new(batch, conditions, snapshots);
    let mut answers = Vec::with_capacity(tokens.len());
    for (count, token) in tokens.iter().enumerate() {
        // Whoever waited for an operation that is not there was told already.
        let Some(work) = works.get(token) else { continue };
        match building.run(work) {
            Ok(done) => answers.push((*token, Ok(done))),
            Err(damaged) => return Built::Damaged(damaged),
        }
        if building.bytes() > BATCH_BYTES_MAX {
            return Built::Full(if answers.len() == 1 { 0 } else { count });
        }
    }
    match building.finish() {
        Ok((result, changes)) => {
            let changes = if result.is_some() { changes } else { Vec::new() };
            Built::Done(Computed { answers, changes }, result)
        }
        Err(damaged) => Built::Damaged(damaged),
    }
}

/// One operation that is larger than a batch may be.
fn too_large(work: &Work) -> Answered {
    match work {
        Work::Account { .. } => {
            let limit = format!("one operation changes more than {BATCH_BYTES_MAX} bytes");
            Ok(Done::Account(Outcome::Refused(Refusal::Limit(limit))))
        }
        _ => Err(SubmitError::Unavailable(crate::TOO_LARGE)),
    }
}

/// Everything of one batch while it is computed.
struct Building<'a> {
    batch: BatchId,
    conditions: Conditions<'a>,
    appliers: BTreeMap<AccountId, Applier<'a>>,
    queue: Option<(Overlay<'a>, Vec<BlobRef>)>,
    queue_bytes: usize,
    bodies: BTreeMap<vocab::BlobHash, Bytes>,
    changes: BTreeMap<AccountId, Vec<Change>>,
    records: Vec<LogRecord>,
}

impl Engine {
    /// Answers [`replica::Output::Compute`]. Clients hear of it when the machine lets the batch go, whatever came of it.
    pub(crate) fn compute(&self, batch: BatchId, work: &[(AccountId, Vec<u64>)], base: StampBase) {
        let tokens = in_order(work);
        let works = self.works(&tokens);
        let snapshots: BTreeMap<_, _> =
            work.iter().map(|(account, _)| (*account, self.store.snapshot(*account))).collect();
        let removed = |account| self.is_removed(account);
        let conditions =
            Conditions { stamp: self.stamp(batch, base), standing: self.standing(base.joint), removed: &removed };
        let mut fitting = tokens.as_slice();
        let built = loop {
            match build(batch, conditions, &snapshots, &works, fitting) {
                Built::Full(0) => {
                    fitting = tokens.get(..1).unwrap_or_default();
                    break Built::Full(0);
                }
                // Again with fewer: rare, and what is computed cannot be taken back.
                Built::Full(count) => fitting = tokens.get(..count).unwrap_or_default(),
                built => break built,
            }
        };
        let (computed, result) = match built {
            Built::Done(computed, result) => (computed, result),
            Built::Full(_) => (Computed::refused(fitting, &works, &too_large), None),
            Built::Damaged(damaged) => {
                // Rows that cannot be read must not be built upon: nothing of this batch is written.
                tracing::error!(%damaged, "a batch met damaged rows");
                (Computed::refused(fitting, &works, &|_| Err(drive::damaged_error())), None)
            }
        };
        let later = tokens.get(fitting.len()..).unwrap_or_default();
        self.keep(batch, computed);
        self.tell(Event::Computed { batch, result });
        for token in later {
            if let Some(work) = works.get(token) {
                self.tell(Event::Submit { token: *token, accounts: work.accounts() });
            }
        }
    }

    /// Answers [`replica::Output::Raise`]: the account is served above both sides' clocks from now on.
    pub(crate) fn raise(&self, batch: BatchId, account: AccountId, floor: u32, branch: Version, base: StampBase) {
        let snapshots = BTreeMap::from([(account, self.store.snapshot(account))]);
        let command = Command {
            id: self.command_id(),
            settled: 0,
            op: AccountOp::RaiseUidValidity { floor: UidValidity(floor) },
        };
        // Nobody repeats it: its outcome need not be kept.
        self.settle(command.id, &Ok(()));
        let conditions =
            Conditions { stamp: self.stamp(batch, base), standing: self.standing(base.joint), removed: &|_| false };
        let mut building = Building::new(batch, conditions, &snapshots);
        let raised = building.account(account).and_then(|applier| {
            applier.add_lineage(branch);
            applier.run(&command)
        });
        let result = raised.and_then(|(_, changes)| {
            building.changes.entry(account).or_default().extend(changes);
            building.finish()
        });
        match result {
            Ok((result, changes)) => {
                self.keep(batch, Computed { answers: Vec::new(), changes });
                self.tell(Event::Computed { batch, result });
            }
            Err(damaged) => drive::fatal(&format!("account {} cannot be raised: {damaged}", account.0)),
        }
    }

    pub(crate) fn keep(&self, batch: BatchId, computed: Computed) {
        self.computed.lock().unwrap_or_else(PoisonError::into_inner).insert(batch, computed);
    }

    fn works(&self, tokens: &[u64]) -> HashMap<u64, Arc<Work>> {
        let waiting = self.waiting();
        tokens.iter().filter_map(|t| waiting.get(t).map(|w| (*t, Arc::clone(&w.work)))).collect()
    }

    pub(crate) fn stamp(&self, batch: BatchId, base: StampBase) -> Stamp {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Stamp {
            epoch: base.epoch,
            home: base.home,
            at: Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX)),
            joint: base.joint,
            mailbox_counter: batch.counter.wrapping_mul(MAILBOXES_PER_BATCH),
            gap: base.gap,
            marks: base.marks,
            rows: base.rows,
        }
    }
}

/// Tokens in the order of their accounts' queues, each once (a delivery stands under every account of its).
fn in_order(work: &[(AccountId, Vec<u64>)]) -> Vec<u64> {
    let mut seen = std::collections::BTreeSet::new();
    work.iter().flat_map(|(_, tokens)| tokens).copied().filter(|token| seen.insert(*token)).collect()
}

impl<'a> Building<'a> {
    fn new(batch: BatchId, conditions: Conditions<'a>, snapshots: &'a BTreeMap<AccountId, Arc<dyn Rows>>) -> Self {
        let mut appliers = BTreeMap::new();
        let mut queue = None;
        for (account, rows) in snapshots {
            if *account == AccountId::QUEUE {
                queue = Some((Overlay::new(&**rows), Vec::new()));
            } else {
                appliers.insert(*account, Applier::new(&**rows, *account, conditions.stamp));
            }
        }
        let (bodies, changes) = (BTreeMap::new(), BTreeMap::new());
        Self { batch, conditions, appliers, queue, queue_bytes: 0, bodies, changes, records: Vec::new() }
    }

    /// Size so far, for the limit of a batch.
    fn bytes(&self) -> usize {
        let bodies = self.bodies.values().map(Bytes::len).sum::<usize>();
        self.appliers.values().map(Applier::bytes).sum::<usize>()
            + self.queue_bytes
            + bodies
            + self.records.iter().map(LogRecord::size).sum::<usize>()
    }

    fn account(&mut self, account: AccountId) -> Result<&mut Applier<'a>, Damaged> {
        let missing = || Damaged(format!("account {} is not part of its batch", account.0));
        self.appliers.get_mut(&account).ok_or_else(missing)
    }

    fn run(&mut self, work: &Work) -> Result<Done, Damaged> {
        match work {
            Work::Account { account, command, bodies } => {
                let applier = self.account(*account)?;
                // Its answer may name UIDs.
                applier.enter()?;
                let (outcome, changes) = applier.run(command)?;
                self.changes.entry(*account).or_default().extend(changes);
                if matches!(outcome, Outcome::Appended { .. }) {
                    self.bodies.extend(bodies.iter().map(|b| (b.hash, b.bytes.clone())));
                }
                Ok(Done::Account(outcome))
            }
            Work::Enter(account) if *account == AccountId::QUEUE => Ok(Done::Entered),
            Work::Enter(account) => {
                self.account(*account)?.enter()?;
                Ok(Done::Entered)
            }
            Work::Queue(op, records) => {
                let outcome = self.queue(op)?;
                if outcome == QueueOutcome::Done {
                    self.records.extend(records.iter().cloned());
                }
                Ok(Done::Queue(outcome))
            }
            Work::Delivery(delivery) => self.deliver(delivery),
            Work::Accept(delivery) => Ok(match self.accept(delivery, Some(delivery.record()))? {
                QueueOutcome::Done => {
                    self.records.extend(delivery.records.iter().cloned());
                    Done::Accepted
                }
                QueueOutcome::Gone => Done::TooLate,
            }),
        }
    }

    fn queue(&mut self, op: &QueueOp) -> Result<queue::op::QueueOutcome, Damaged> {
        let Some((overlay, refs)) = &mut self.queue else {
            return Err(Damaged("the queue is not part of its batch".into()));
        };
        let (rows, named, outcome) = queue::apply(overlay, op, self.conditions.standing, self.conditions.stamp.at)?;
        overlay.write(&rows);
        let size = |row: &RowWrite| row.key.len() + row.value.as_ref().map_or(0, Bytes::len);
        self.queue_bytes += rows.iter().map(size).sum::<usize>();
        refs.extend(named);
        self.changes.entry(AccountId::QUEUE).or_default();
        Ok(outcome)
    }

    /// The part of a message that the queue keeps, and the body when it is with us.
    fn accept(&mut self, delivery: &DeliveryWork, record: Option<AcceptRecord>) -> Result<QueueOutcome, Damaged> {
        let outcome = self.queue(&QueueOp::Accept(Box::new(delivery.accepted(record))))?;
        self.carry_body(delivery);
        Ok(outcome)
    }

    fn carry_body(&mut self, delivery: &DeliveryWork) {
        if let Some(body) = &delivery.body {
            self.bodies.insert(delivery.hash, body.clone());
        }
    }

    fn deliver(&mut self, delivery: &DeliveryWork) -> Result<Done, Damaged> {
        let leaves = delivery.recipients.iter().any(|r| matches!(r, Recipient::Remote { .. }));
        if leaves && self.accept(delivery, None)? == QueueOutcome::Gone {
            return Ok(Done::TooLate);
        }
        self.carry_body(delivery);
        let mut refused = Vec::new();
        for recipient in &delivery.recipients {
            if let Recipient::Local { number, account, prefix } = recipient
                && !self.place(delivery, *number, *account, prefix)?
            {
                refused.push(*number);
            }
        }
        // When a mailbox refuses it the sender is told no and tries again, under another id.
        if refused.is_empty() {
            self.records.extend(delivery.records.iter().cloned());
        }
        Ok(Done::Delivered(refused))
    }

    /// False: the account's mailboxes refuse it. True: it is there, or was, or the account is gone for good.
    fn place(
        &mut self,
        delivery: &DeliveryWork,
        number: u32,
        account: AccountId,
        prefix: &Bytes,
    ) -> Result<bool, Damaged> {
        let message = NewMessage {
            blob: delivery.hash,
            blob_size: delivery.size,
            prefix: prefix.clone(),
            facts: delivery.facts.clone(),
            flags: Flags::default(),
            internal_date: delivery.at,
        };
        let id = delivery.accept.for_recipient(number);
        let removed = self.conditions.removed;
        let append = |role| AccountOp::Append { mailbox: MailboxRef::Role(role), messages: vec![message.clone()] };
        let command = Command { id, settled: 0, op: append(Role::Inbox) };
        let applier = self.account(account)?;
        let (mut outcome, mut changes) = applier.run(&command)?;
        if outcome == Outcome::Refused(Refusal::NoSuchAccount) {
            if removed(account) {
                tracing::warn!(accept = %delivery.accept, account = account.0, "not placed: the account was removed");
                return Ok(true);
            }
            // Accepted before the account's first operation arrived: mail makes the account.
            let init = Command { id: id.for_recipient(number | INIT_MARK), settled: 0, op: AccountOp::Init };
            changes.extend(applier.run(&init)?.1);
            let again = applier.run(&command)?;
            outcome = again.0;
            changes.extend(again.1);
        }
        // A mailbox that is gone took with it what had been placed there.
        let placed = !matches!(outcome, Outcome::Refused(_)) || applier.knows(PlacementId { command: id, index: 0 })?;
        tracing::info!(accept = %delivery.accept, account = account.0, ?outcome, placed, "message placed");
        self.changes.entry(account).or_default().extend(changes);
        Ok(placed)
    }

    /// The batch, unless nothing changed; bodies go along only when they were named.
    fn finish(self) -> Result<(Option<Batch>, Vec<(AccountId, Vec<Change>)>), Damaged> {
        let mut accounts: Vec<AccountBatch> = Vec::new();
        if let Some((overlay, refs)) = self.queue {
            let base = overlay.base();
            let rows = overlay.into_writes();
            if !rows.is_empty() {
                accounts.push(mailbox::finish_rows(base, AccountId::QUEUE, rows, refs, base.head(), self.batch)?);
            }
        }
        for (_, applier) in self.appliers {
            accounts.extend(applier.finish(self.batch)?);
        }
        if accounts.is_empty() {
            return Ok((None, Vec::new()));
        }
        accounts.sort_by_key(|a| a.account);
        let bodies = self.bodies.into_iter().map(|(hash, bytes)| InlineBody { hash, bytes }).collect();
        Ok((
            Some(Batch { id: self.batch, accounts, bodies, records: self.records }),
            self.changes.into_iter().collect(),
        ))
    }
}
