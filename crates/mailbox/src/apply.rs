//! Command after command over one snapshot, and one batch at the end.

use std::collections::BTreeMap;

use bytes::Bytes;
use vocab::{AccountBatch, AccountId, BatchId, BlobHash, BlobRef, CommandId, Damaged, PlacementId, Rows, Version};

use crate::batch::seal;
use crate::op::{AccountOp, Change, Command, Outcome, Refusal, Stamp};
use crate::work::{Fail, Work};
use crate::{append, copy, documents, expunge, flags, hierarchy, modseq, outcomes, read, recovery};

/// Applies commands of one account to a snapshot. Pure: the same snapshot, commands and stamp give the same batch.
pub struct Applier<'a> {
    account: AccountId,
    work: Work<'a>,
}

impl<'a> Applier<'a> {
    /// Over this snapshot; `stamp` holds for all commands of the batch.
    #[must_use]
    pub fn new(view: &'a dyn Rows, account: AccountId, stamp: Stamp) -> Self {
        Self { account, work: Work::new(view, stamp) }
    }

    /// Without I2: a mailbox keeps its UIDVALIDITY when it is renamed, to see that a test would notice.
    #[doc(hidden)]
    #[must_use]
    pub fn without_growing_names(mut self) -> Self {
        self.work.names_grow = false;
        self
    }

    /// Applies one command: its outcome, and what observers hear after the commit. A command that ran before returns
    /// its stored outcome and changes nothing; so does a refused one.
    ///
    /// # Errors
    /// [`Damaged`]: this command changed nothing; earlier ones of the batch stay.
    pub fn run(&mut self, command: &Command) -> Result<(Outcome, Vec<Change>), Damaged> {
        if let Some(outcome) = outcomes::stored(&self.work.rows, command.id)? {
            return Ok((outcome, Vec::new()));
        }
        if outcomes::is_settled(&self.work.rows, command.id)? {
            return Ok((Outcome::Refused(Refusal::Settled), Vec::new()));
        }
        self.work.begin(command.id);
        match self.attempt(command) {
            Ok((outcome, true)) => Ok((outcome, self.work.commit())),
            Ok((outcome, false)) => {
                self.work.rollback();
                Ok((outcome, Vec::new()))
            }
            Err(Fail::Refused(refusal)) => {
                self.work.rollback();
                Ok((Outcome::Refused(refusal), Vec::new()))
            }
            Err(Fail::Damaged(damaged)) => {
                self.work.rollback();
                Err(damaged)
            }
        }
    }

    /// The outcome and whether anything changed.
    fn attempt(&mut self, command: &Command) -> Result<(Outcome, bool), Fail> {
        let work = &mut self.work;
        if command.op != AccountOp::Init && !read::exists(&work.rows)? {
            return Err(Refusal::NoSuchAccount.into());
        }
        modseq::take_gap(work)?;
        let before = work.rows.changes();
        let outcome = dispatch(work, &command.op)?;
        if work.rows.changes() == before {
            return Ok((outcome, false));
        }
        modseq::raise_modseq(work);
        outcomes::record(work, command, &outcome)?;
        Ok((outcome, true))
    }

    /// Whether the placement of this id is or was here, in whatever mailbox, deleted ones too: the command that makes it
    /// has run, on this branch or on one that was merged.
    ///
    /// # Errors
    /// [`Damaged`].
    pub fn knows(&self, placement: PlacementId) -> Result<bool, Damaged> {
        append::known_place(&self.work, placement).map(|place| place.is_some())
    }

    /// Bytes of rows written so far: stop taking commands into this batch well below `BATCH_BYTES_MAX`.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.work.rows.bytes
    }

    /// The counter of the next mailbox id: what the next stamp of this epoch and home begins with.
    #[must_use]
    pub fn mailbox_counter(&self) -> u64 {
        self.work.stamp.mailbox_counter
    }

    /// Records that a branch was merged or archived into this state.
    pub fn add_lineage(&mut self, branch: Version) {
        let lineage = &mut self.work.rows.head.lineage;
        if !lineage.contains(&branch) {
            lineage.push(branch);
        }
    }

    /// Takes the stamp's gap alone, for a session that comes before the first change; nothing when it is taken or the
    /// account has no state.
    ///
    /// # Errors
    /// [`Damaged`].
    pub fn take_gap(&mut self) -> Result<(), Damaged> {
        if read::exists(&self.work.rows)? {
            self.work.begin(CommandId::default());
            modseq::take_gap(&mut self.work)?;
            self.work.commit();
        }
        Ok(())
    }

    /// What must be written before a session is shown this account or told a UID of it: the stamp's gap, and the served mark
    /// while the in-sync set lacks a member (X9, X16). Nothing when both are there or the account has no state.
    ///
    /// # Errors
    /// [`Damaged`].
    pub fn enter(&mut self) -> Result<(), Damaged> {
        self.take_gap()?;
        let (marks, epoch) = (self.work.stamp.marks, self.work.stamp.epoch);
        let head = &self.work.rows.head;
        if marks.is_some_and(|marks| !head.is_served_from(marks.from)) && read::exists(&self.work.rows)? {
            self.work.rows.head.served = Some(epoch);
        }
        Ok(())
    }

    /// The account's part of the batch; `None` when nothing changed.
    ///
    /// # Errors
    /// [`Damaged`].
    pub fn finish(mut self, batch: BatchId) -> Result<Option<AccountBatch>, Damaged> {
        // Only together with another change: an account that rests is not written to for this.
        if self.work.rows.head != self.work.head_at_start {
            self.work.begin(CommandId::default());
            recovery::forget_expired(&mut self.work)?;
            self.work.commit();
        }
        Ok(finish(self.account, self.work, batch))
    }
}

fn dispatch(work: &mut Work<'_>, op: &AccountOp) -> Result<Outcome, Fail> {
    match op {
        AccountOp::Init => hierarchy::init(work),
        AccountOp::Append { mailbox, messages } => append::append(work, mailbox, messages),
        AccountOp::Store { mailbox, placements, mode, flags, unchanged_since } => {
            flags::store(work, *mailbox, placements, (*mode, flags), *unchanged_since)
        }
        AccountOp::Expunge { mailbox, placements, only_deleted } => {
            expunge::expunge(work, *mailbox, placements, *only_deleted)
        }
        AccountOp::Copy { from, to, placements } => copy::copy(work, *from, *to, placements),
        AccountOp::Move { from, to, placements } => copy::move_messages(work, *from, *to, placements),
        AccountOp::CreateMailbox { name, role } => hierarchy::create(work, name, *role),
        AccountOp::DeleteMailbox { mailbox } => hierarchy::delete(work, *mailbox),
        AccountOp::RenameMailbox { mailbox, name } => hierarchy::rename(work, *mailbox, name),
        AccountOp::Subscribe { name, subscribed } => hierarchy::subscribe(work, name, *subscribed),
        AccountOp::SetDocument { kind, name, body } => documents::set(work, kind, name, body.as_ref()),
        AccountOp::RaiseUidValidity { floor } => modseq::raise_uid_validity(work, *floor),
        AccountOp::Restore { ids } => recovery::restore(work, ids),
        AccountOp::ForgetRecovered { older_than } => recovery::forget(work, *older_than).map_err(Fail::from),
        AccountOp::Import { mailbox, id, email, message } => append::import(work, *mailbox, (*id, *email), message),
        AccountOp::Purge => hierarchy::purge(work),
    }
}

pub(crate) fn finish(account: AccountId, work: Work<'_>, batch: BatchId) -> Option<AccountBatch> {
    let head = work.rows.head.clone();
    let refs = blob_refs(work.refs);
    let written: Vec<_> =
        work.rows.into_written().map(|(table, key, written)| (table, Bytes::from(key), written)).collect();
    if written.is_empty() && refs.is_empty() && head == work.head_at_start {
        return None;
    }
    Some(seal(account, head, written.into_iter(), refs, batch))
}

fn blob_refs(refs: BTreeMap<(BlobHash, PlacementId), bool>) -> Vec<BlobRef> {
    refs.into_iter().map(|((hash, placement), present)| BlobRef { hash, placement, present }).collect()
}

/// The gap alone (DESIGN 6, X8), for a session that comes before the first change. `None` when none is due, or the
/// account has no state.
///
/// # Errors
/// [`Damaged`].
pub fn gap_batch(
    view: &dyn Rows,
    account: AccountId,
    stamp: Stamp,
    batch: BatchId,
) -> Result<Option<AccountBatch>, Damaged> {
    let mut applier = Applier::new(view, account, stamp);
    applier.take_gap()?;
    applier.finish(batch)
}
