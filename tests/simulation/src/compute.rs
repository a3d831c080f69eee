//! Computing a batch as the engine does: the waiting operations, applied in order on the durable state.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use mailbox::Applier;
use mailbox::merge::MergeInput;
use mailbox::op::{AccountOp, Command, Gap, MailboxRef, NewMessage, Outcome, Refusal, Role, Stamp};
use mailbox::rows::Mailbox;
use queue::op::Standing;
use replica::{Event, MergeBase, StampBase};
use vocab::{
    AccountBatch, AccountId, Batch, BatchId, BlobHash, BlobRef, Damaged, Flags, InlineBody, MailboxId, MemoryRows,
    Overlay, RowWrite, Rows, SubmitError, Table, Timestamp, UidValidity, Version,
};

use crate::Control;
use crate::disk::{Image, restored};
use crate::invariants::Told;
use crate::vocabulary::{Done, Merge, Waiter, Work};
use crate::world::{WALL_START, World};

/// Mailboxes one batch may create per batch counter; ids of batches never overlap.
const MAILBOXES_PER_BATCH: u64 = 1 << 16;

struct Building<'a> {
    side: Option<usize>,
    control: Control,
    image: &'a Image,
    stamp: Stamp,
    appliers: BTreeMap<AccountId, Applier<'a>>,
    queue: Option<(Overlay<'a>, Vec<BlobRef>)>,
    queue_at: (Standing, Timestamp),
    bodies: BTreeMap<BlobHash, Bytes>,
    changed: BTreeSet<AccountId>,
}

impl World {
    fn stamp(&self, n: usize, batch: BatchId, base: StampBase) -> Stamp {
        Stamp {
            epoch: base.epoch,
            home: base.home,
            at: Timestamp(WALL_START + self.now + self.nodes[n].wall),
            joint: base.joint || self.control == Control::NumbersByClock,
            mailbox_counter: batch.counter.wrapping_mul(MAILBOXES_PER_BATCH),
            gap: self.gap(base),
            marks: base.marks,
            rows: base.rows,
        }
    }

    fn gap(&self, base: StampBase) -> Option<Gap> {
        let gap = base.gap?;
        match self.control {
            Control::SkipsNoNumbers => None,
            Control::SkipsEqually => Some(Gap { k: 1, ..gap }),
            _ => Some(gap),
        }
    }

    pub(crate) fn compute(&mut self, n: usize, batch: BatchId, work: &[(AccountId, Vec<u64>)], base: StampBase) {
        let stamp = self.stamp(n, batch, base);
        let Some(process) = self.nodes[n].process.as_ref() else { return };
        let mut seen = BTreeSet::new();
        let tokens = work.iter().flat_map(|(_, tokens)| tokens).copied().filter(|token| seen.insert(*token));
        let works: Vec<(u64, Work)> =
            tokens.filter_map(|token| Some((token, process.waiting.get(&token)?.0.clone()))).collect();
        let accounts: Vec<AccountId> = work.iter().map(|(account, _)| *account).collect();
        let with = (batch, self.side(n), self.control);
        let queue_at = (self.standing(n, base.joint), self.queue_clock(n));
        match build(&self.nodes[n].disk.image, &accounts, &works, stamp, with, queue_at) {
            Ok((result, answers, changed)) => {
                self.will_tell(n, batch, changed);
                self.note_submissions(&works, batch);
                self.cover_deleted(&works, result.as_ref());
                self.computed(n, batch, result, answers);
            }
            Err(damaged) => self.broken("rows", format!("node {}: {damaged}", n + 1)),
        }
    }

    /// A submission may be taken in on both sides of a split, when the first side did not come to answer.
    fn note_submissions(&mut self, works: &[(u64, Work)], batch: BatchId) {
        for (_, work) in works {
            let Work::Queue { op: queue::QueueOp::Accept(accepted), .. } = work else { continue };
            for item in &accepted.items {
                let epochs = self.taken_in.entry(item.id).or_default();
                epochs.insert(batch.epoch);
                self.coverage.taken_in_twice += u64::from(epochs.len() == 2);
            }
        }
    }

    /// Observers hear of the batch once it is committed.
    fn will_tell(&mut self, n: usize, batch: BatchId, changed: Vec<AccountId>) {
        if let Some(process) = self.nodes[n].process.as_mut().filter(|_| !changed.is_empty()) {
            process.changed.insert(batch, changed);
        }
    }

    /// A mailbox that is deleted takes along what is in it by then, whoever put it there.
    fn cover_deleted(&mut self, works: &[(u64, Work)], result: Option<&Batch>) {
        for (_, work) in works {
            let Work::Account { account, command, .. } = work else { continue };
            let AccountOp::DeleteMailbox { .. } = command.op else { continue };
            let part = result.and_then(|batch| batch.accounts.iter().find(|part| part.account == *account));
            let gone = part.into_iter().flat_map(|part| &part.refs).filter(|item| !item.present);
            let (placements, blobs): (Vec<_>, Vec<_>) = gone.map(|item| (item.placement, item.hash)).unzip();
            // Computed again elsewhere, it may find less.
            let covered = self.covered.entry(command.id).or_insert_with(|| placements.clone());
            covered.retain(|id| placements.contains(id));
            self.checks.on_told(&Told::ExpungeAsked { account: *account, blobs });
            self.checks.on_told(&Told::RemovalAsked { account: *account, placements });
        }
    }

    fn computed(&mut self, n: usize, batch: BatchId, result: Option<Batch>, answers: Vec<(u64, Done)>) {
        if let Some(gap) =
            result.as_ref().map(|b| b.accounts.iter().filter(|a| a.head.gap_taken == Some(b.id.epoch)).count())
        {
            self.coverage.gaps += gap as u64;
        }
        self.coverage.batches += u64::from(result.is_some());
        self.coverage.renamed_anew += result.iter().flat_map(|batch| &batch.accounts).map(renamed_anew).sum::<u64>();
        if self.control == Control::AcknowledgesEarly {
            answers.into_iter().for_each(|(token, done)| self.answer(n, token, Ok(done)));
        } else if let Some(process) = self.nodes[n].process.as_mut() {
            process.computed.insert(batch, answers);
        }
        self.tell(n, Event::Computed { batch, result });
    }

    pub(crate) fn raise(
        &mut self,
        n: usize,
        batch: BatchId,
        account: AccountId,
        (floor, branch): (u32, Version),
        base: StampBase,
    ) {
        let stamp = self.stamp(n, batch, base);
        let Some(id) = self.nodes[n].process.as_mut().map(|p| p.command_id(n)) else { return };
        let command = Command { id, settled: 0, op: AccountOp::RaiseUidValidity { floor: UidValidity(floor) } };
        let empty = MemoryRows::default();
        let rows = self.nodes[n].disk.image.accounts.get(&account).unwrap_or(&empty);
        let mut applier = Applier::new(rows, account, stamp);
        applier.add_lineage(branch);
        let raised = applier.run(&command).and_then(|_| applier.finish(batch));
        match raised {
            Ok(part) => {
                let accounts: Vec<_> = part.into_iter().collect();
                let result = (!accounts.is_empty()).then_some(Batch {
                    id: batch,
                    accounts,
                    bodies: Vec::new(),
                    records: Vec::new(),
                });
                self.tell(n, Event::Computed { batch, result });
            }
            Err(damaged) => self.broken("rows", format!("node {}: {damaged}", n + 1)),
        }
    }

    /// Merges the branch that was fetched, as the engine does.
    pub(crate) fn merge(&mut self, n: usize, order: &Merge) {
        let stamp = self.stamp(n, order.batch, order.stamp);
        let branch = self.nodes[n].process.as_mut().and_then(|p| p.branches.remove(&order.fetch));
        let Some(branch) = branch else { return };
        let image = &self.nodes[n].disk.image;
        let (Some(rows), Some(chain)) = (image.accounts.get(&order.account), image.chains.get(&order.account)) else {
            return self.broken("driver", format!("a merge of account {} that is not here", order.account.0));
        };
        let restore = |base: MergeBase| match base.at_guest {
            true => restored(&branch.rows, &branch.chain, base.version),
            false => restored(rows, chain, base.version),
        };
        let base = order.base.and_then(restore);
        if order.base.is_some() && base.is_none() {
            return self.broken("driver", format!("the base of account {} cannot be restored", order.account.0));
        }
        if order.account == AccountId::QUEUE {
            let three = (base.as_ref().map(|rows| rows as &dyn Rows), rows as &dyn Rows, &branch.rows as &dyn Rows);
            let merged = merge_queue(three, &order.between, self.queue_clock(n), order.batch);
            return self.merged(n, order, merged);
        }
        let input = MergeInput {
            account: order.account,
            base: base.as_ref().map(|rows| rows as &dyn Rows),
            common: order.base.map(|base| base.version).unwrap_or_default(),
            anchor: mailbox::merge::Branch { rows, served: order.served },
            guest: mailbox::merge::Branch { rows: &branch.rows, served: order.guest_served },
            between: &order.between,
            stamp,
        };
        let merged = mailbox::merge::merge_by(&input, order.batch, self.control.merge_rules());
        let told = merged.as_ref().ok().map(|merged| {
            let mut after = rows.clone();
            after.write(&merged.batch.rows);
            let reshaped = merged_boxes(order.account, rows, &branch.rows, &after);
            ((boxes(rows), boxes(&branch.rows), boxes(&after), merged.report.clone()), reshaped)
        });
        let merged = merged.map(|merged| {
            if let Some(((a, g, result, report), reshaped)) = told {
                self.checks.on_told(&reshaped);
                let said: Vec<String> = report.conflicts.into_iter().chain(report.raised).collect();
                let account = order.account.0;
                self.note(|| format!("account {account}: {a} and {g} become {result}; {}", said.join("; ")));
            }
            self.coverage.renumbered += merged.report.renumbered;
            self.coverage.merged_anew += merged.report.outdone;
            self.coverage.merge(merged.report.taken);
            if let Some(process) = self.nodes[n].process.as_mut() {
                process.merging.insert(order.batch);
            }
            if !merged.changes.is_empty() {
                self.will_tell(n, order.batch, vec![order.account]);
            }
            merged.batch
        });
        self.merged(n, order, merged);
    }

    fn merged(&mut self, n: usize, order: &Merge, merged: Result<AccountBatch, Damaged>) {
        match merged {
            Ok(part) => {
                self.coverage.merges += 1;
                let blind = order.base.is_none();
                self.coverage.merged_without_base += u64::from(blind);
                *self.blind_merges.entry(order.account).or_default() += u64::from(blind);
                // What was done since an old disk was copied may be remembered no more: the known limit of such disks.
                let old = order.account == AccountId::QUEUE && self.nodes.iter().any(|node| node.rolled_back);
                self.checks.on_told(&Told::Merged { account: order.account, blind: blind || old });
                let batch = Batch { id: order.batch, accounts: vec![part], bodies: Vec::new(), records: Vec::new() };
                self.tell(n, Event::Computed { batch: order.batch, result: Some(batch) });
            }
            Err(damaged) => self.broken("rows", format!("node {}: {damaged}", n + 1)),
        }
    }

    /// Orders work at this home.
    pub(crate) fn order(&mut self, n: usize, work: Work, waiter: Waiter) {
        if !self.missing(n, &work.bodies_elsewhere()).is_empty() {
            // The homes changed while the body was on its way: it is spread again.
            return self.reply(n, waiter, Err(SubmitError::Unavailable("the body is not here")));
        }
        if self.nodes[n].full {
            return self.reply(n, waiter, Err(SubmitError::Unavailable(vocab::error::NO_SPACE)));
        }
        let accounts = work.accounts();
        let Some(process) = self.nodes[n].process.as_mut() else { return };
        process.tokens += 1;
        let token = process.tokens;
        process.waiting.insert(token, (work, waiter));
        self.tell(n, Event::Submit { token, accounts });
    }
}

/// As the engine merges the queue: its rows know no mailboxes, its version and lineage are kept like any account's.
fn merge_queue(
    (base, anchor, guest): (Option<&dyn Rows>, &dyn Rows, &dyn Rows),
    between: &[Version],
    at: Timestamp,
    batch: BatchId,
) -> Result<AccountBatch, Damaged> {
    let (rows, refs, _) = queue::merge(base, anchor, guest, at)?;
    let (mut head, theirs) = (anchor.head(), guest.head());
    head.remember(&theirs, between, false);
    head.modseq = head.modseq.max(theirs.modseq) + 1;
    mailbox::finish_rows(anchor, AccountId::QUEUE, rows, refs, head, batch)
}

/// Mailboxes with another name and another UIDVALIDITY than before.
fn renamed_anew(part: &AccountBatch) -> u64 {
    let pairs = part.rows.iter().zip(&part.undo).filter(|(row, _)| row.table == Table::MAILBOXES);
    let read = |row: &RowWrite| Mailbox::decode(&row.key, row.value.as_ref()?).ok();
    let anew = |(new, old): (&RowWrite, &RowWrite)| {
        let (new, old) = (read(new)?, read(old)?);
        Some(new.name != old.name && new.uid_validity != old.uid_validity)
    };
    pairs.filter(|pair| anew(*pair) == Some(true)).count() as u64
}

type Built = (Option<Batch>, Vec<(u64, Done)>, Vec<AccountId>);

fn build(
    image: &Image,
    accounts: &[AccountId],
    works: &[(u64, Work)],
    stamp: Stamp,
    (batch, side, control): (BatchId, Option<usize>, Control),
    queue_at: (Standing, Timestamp),
) -> Result<Built, Damaged> {
    let empty = MemoryRows::default();
    let mut without = BTreeMap::new();
    if control == Control::ForgetsOutcomes {
        for account in accounts {
            let mut rows = image.accounts.get(account).cloned().unwrap_or_default();
            rows.rows.retain(|(table, _), _| ![Table::OUTCOMES, Table::SETTLED].contains(table));
            without.insert(*account, rows);
        }
    }
    let rows = |account: AccountId| without.get(&account).or_else(|| image.accounts.get(&account)).unwrap_or(&empty);
    let applier = |account: &AccountId| {
        let applier = Applier::new(rows(*account), *account, stamp);
        let keeps = control == Control::RenamesKeepValidity;
        (*account, if keeps { applier.without_growing_names() } else { applier })
    };
    let queue = accounts.contains(&AccountId::QUEUE).then(|| (Overlay::new(rows(AccountId::QUEUE)), Vec::new()));
    let appliers = accounts.iter().filter(|account| **account != AccountId::QUEUE).map(applier).collect();
    let mut building = Building {
        side,
        control,
        image,
        stamp,
        appliers,
        queue,
        queue_at,
        bodies: BTreeMap::new(),
        changed: BTreeSet::new(),
    };
    let mut answers = Vec::new();
    for (token, work) in works {
        answers.push((*token, building.run(work)?));
    }
    let mut parts = Vec::new();
    if let Some((overlay, refs)) = building.queue {
        let base = overlay.base();
        let rows = overlay.into_writes();
        if !rows.is_empty() {
            parts.push(mailbox::finish_rows(base, AccountId::QUEUE, rows, refs, base.head(), batch)?);
        }
    }
    for (_, applier) in building.appliers {
        parts.extend(applier.finish(batch)?);
    }
    let bodies = building.bodies.into_iter().map(|(hash, bytes)| InlineBody { hash, bytes }).collect();
    let result = (!parts.is_empty()).then_some(Batch { id: batch, accounts: parts, bodies, records: Vec::new() });
    Ok((result, answers, building.changed.into_iter().collect()))
}

impl<'a> Building<'a> {
    fn account(&mut self, account: AccountId) -> Result<&mut Applier<'a>, Damaged> {
        self.appliers.get_mut(&account).ok_or_else(|| Damaged("an account that is not part of its batch".to_owned()))
    }

    /// X21 off: what nobody has heard of is left out of an expunge, as if it were gone.
    fn known(&self, account: AccountId, command: &Command) -> Result<Option<Command>, Damaged> {
        let rows = self.image.accounts.get(&account).filter(|_| self.control == Control::AnswersForUnknown);
        let (Some(rows), AccountOp::Expunge { mailbox, placements, only_deleted }) = (rows, &command.op) else {
            return Ok(None);
        };
        let mut kept = Vec::new();
        for id in placements {
            if mailbox::read::placement_by_id(rows, *id)?.is_some() {
                kept.push(*id);
            }
        }
        let op = AccountOp::Expunge { mailbox: *mailbox, placements: kept, only_deleted: *only_deleted };
        Ok(Some(Command { op, ..command.clone() }))
    }

    fn run(&mut self, work: &Work) -> Result<Done, Damaged> {
        match work {
            Work::Account { account, command, body } => {
                let known = self.known(*account, command)?;
                let command = known.as_ref().unwrap_or(command);
                let applier = self.account(*account)?;
                applier.enter()?;
                let (outcome, changes) = applier.run(command)?;
                self.changed.extend((!changes.is_empty()).then_some(*account));
                if let (Outcome::Appended { .. }, Some(body)) = (&outcome, body) {
                    self.bodies.insert(BlobHash::of(body), body.clone());
                }
                Ok(Done::Account(outcome, self.side))
            }
            Work::Enter(account) => {
                self.account(*account)?.enter()?;
                Ok(Done::Entered)
            }
            Work::Queue { op, body, .. } => {
                let Some((overlay, refs)) = &mut self.queue else {
                    return Err(Damaged("the queue is not part of its batch".to_owned()));
                };
                let (standing, at) = self.queue_at;
                let (rows, named, outcome) = queue::apply(overlay, op, standing, at)?;
                overlay.write(&rows);
                refs.extend(named);
                self.bodies.extend(body.iter().map(|body| (BlobHash::of(body), body.clone())));
                Ok(Done::Queue(outcome, self.side))
            }
            Work::Delivery { accept, accounts, body, inline } => {
                let hash = BlobHash::of(body);
                for (number, account) in accounts {
                    let mut id = accept.for_recipient(*number);
                    if self.control == Control::PlacesByHome {
                        id.boot.0 += self.stamp.home.0 << 16;
                    }
                    let message = NewMessage {
                        blob: hash,
                        blob_size: body.len() as u64,
                        prefix: Bytes::new(),
                        facts: mime::facts_of(body).encode(),
                        flags: Flags::default(),
                        internal_date: self.stamp.at,
                    };
                    let op = AccountOp::Append { mailbox: MailboxRef::Role(Role::Inbox), messages: vec![message] };
                    let command = Command { id, settled: 0, op };
                    let applier = self.account(*account)?;
                    let (outcome, mut changes) = applier.run(&command)?;
                    if outcome == Outcome::Refused(Refusal::NoSuchAccount) {
                        // Mail makes the account, as in the engine.
                        let init = id.for_recipient(*number | 0x4000_0000);
                        applier.run(&Command { id: init, settled: 0, op: AccountOp::Init })?;
                        changes = applier.run(&command)?.1;
                    }
                    self.changed.extend((!changes.is_empty()).then_some(*account));
                }
                if *inline {
                    self.bodies.insert(hash, body.clone());
                }
                Ok(Done::Delivered(self.side))
            }
        }
    }
}

fn merged_boxes(account: AccountId, anchor: &MemoryRows, guest: &MemoryRows, after: &MemoryRows) -> Told {
    let names = |rows: &MemoryRows| -> BTreeMap<MailboxId, String> {
        mailbox::read::mailboxes(rows).unwrap_or_default().into_iter().map(|m| (m.id, m.name)).collect()
    };
    let (a, g, after) = (names(anchor), names(guest), names(after));
    let back = after.keys().filter(|id| !a.contains_key(id) || !g.contains_key(id)).copied().collect();
    let lost: BTreeMap<MailboxId, String> = a.into_iter().chain(g).filter(|(id, _)| !after.contains_key(id)).collect();
    let now = |name: &String| after.iter().find(|(_, other)| *other == name).map(|(id, _)| *id);
    let united = lost.iter().filter_map(|(id, name)| Some((*id, now(name)?))).collect();
    Told::Reshaped { account, back, gone: lost.into_keys().collect(), united }
}

/// Mailboxes in a few words, for the story.
fn boxes(rows: &MemoryRows) -> String {
    let all = mailbox::read::mailboxes(rows).unwrap_or_default();
    let told = all.iter().filter(|m| m.counts.messages > 0 || m.name.starts_with('F'));
    let told: Vec<String> = told
        .map(|m| format!("{} {}..{} ({} messages)", m.name, m.uid_validity.0, m.uid_next.0, m.counts.messages))
        .collect();
    format!("[{}]", told.join(", "))
}
