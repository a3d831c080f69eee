//! What the areas share while a batch is made: rows, head, stamp, and what the running command has done so far.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use vocab::{AccountHead, BlobHash, CommandId, Damaged, MailboxId, ModSeq, PlacementId, Rows, Table};

use crate::op::{Change, Refusal, Stamp};
use crate::overlay::Overlay;
use crate::read;
use crate::rows::{Mailbox, Placement};

/// Why an area stops: the command is rolled back either way.
#[derive(Debug)]
pub(crate) enum Fail {
    Refused(Refusal),
    Damaged(Damaged),
}

impl From<Damaged> for Fail {
    fn from(damaged: Damaged) -> Self {
        Self::Damaged(damaged)
    }
}

impl From<Refusal> for Fail {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

type Refs = BTreeMap<(BlobHash, PlacementId), bool>;

/// What a refused command goes back to.
struct Saved {
    head: AccountHead,
    refs: Refs,
    mailbox_counter: u64,
}

pub(crate) struct Work<'a> {
    pub(crate) rows: Overlay<'a>,
    pub(crate) stamp: Stamp,
    pub(crate) head_at_start: AccountHead,
    /// References of earlier commands of the batch.
    pub(crate) refs: Refs,
    /// The running command.
    pub(crate) command: CommandId,
    /// Its modseq, once it has changed something.
    pub(crate) modseq: Option<ModSeq>,
    pub(crate) bytes_at_begin: usize,
    /// I2; off: a mailbox keeps its UIDVALIDITY whatever its new name was told with.
    pub(crate) names_grow: bool,
    /// References of the running command.
    own_refs: Refs,
    changes: Vec<Change>,
    saved: Option<Saved>,
}

impl<'a> Work<'a> {
    pub(crate) fn new(view: &'a dyn Rows, stamp: Stamp) -> Self {
        let rows = Overlay::new(view);
        Self {
            head_at_start: rows.head.clone(),
            rows,
            stamp,
            refs: Refs::new(),
            command: CommandId::default(),
            modseq: None,
            bytes_at_begin: 0,
            names_grow: true,
            own_refs: Refs::new(),
            changes: Vec::new(),
            saved: None,
        }
    }

    pub(crate) fn begin(&mut self, command: CommandId) {
        self.command = command;
        self.modseq = None;
        self.bytes_at_begin = self.rows.bytes;
        self.saved = Some(Saved {
            head: self.rows.head.clone(),
            refs: Refs::new(),
            mailbox_counter: self.stamp.mailbox_counter,
        });
        self.rows.begin();
    }

    pub(crate) fn commit(&mut self) -> Vec<Change> {
        self.refs.append(&mut self.own_refs);
        self.saved = None;
        std::mem::take(&mut self.changes)
    }

    pub(crate) fn rollback(&mut self) {
        self.rows.rollback();
        self.rows.bytes = self.bytes_at_begin;
        self.changes.clear();
        if let Some(saved) = self.saved.take() {
            self.rows.head = saved.head;
            self.own_refs = saved.refs;
            self.stamp.mailbox_counter = saved.mailbox_counter;
        }
    }

    pub(crate) fn write(&mut self, table: Table, key: impl Into<Vec<u8>>, value: Bytes) -> Result<(), Damaged> {
        self.rows.write(table, key.into(), Some(value))
    }

    pub(crate) fn delete(&mut self, table: Table, key: impl Into<Vec<u8>>) -> Result<(), Damaged> {
        self.rows.write(table, key.into(), None)
    }

    pub(crate) fn refer(&mut self, hash: BlobHash, placement: PlacementId, present: bool) {
        self.own_refs.insert((hash, placement), present);
    }

    pub(crate) fn announce(&mut self, change: Change) {
        if !self.changes.contains(&change) {
            self.changes.push(change);
        }
    }

    pub(crate) fn mailbox(&self, id: MailboxId) -> Result<Mailbox, Fail> {
        read::mailbox(&self.rows, id)?.ok_or(Fail::Refused(Refusal::NoSuchMailbox))
    }

    pub(crate) fn save(&mut self, mailbox: &Mailbox) -> Result<(), Damaged> {
        self.write(Table::MAILBOXES, mailbox.id.to_bytes(), mailbox.encode(self.stamp.rows))
    }

    /// The named placements of a mailbox, each once, with their index in `ids`, by UID ascending. Those remembered as
    /// expunged are left out; one that is neither here nor remembered refuses the whole command (X21).
    pub(crate) fn locate(&self, mailbox: MailboxId, ids: &[PlacementId]) -> Result<Vec<(u32, Placement)>, Fail> {
        let mut seen = BTreeSet::new();
        let mut found = Vec::new();
        for (index, id) in (0_u32..).zip(ids) {
            if !seen.insert(*id) {
                continue;
            }
            match read::placement_by_id(&self.rows, *id)? {
                Some((there, placement)) if there == mailbox => found.push((index, placement)),
                Some(_) => return Err(Refusal::UnknownPlacement.into()),
                None if read::expunged(&self.rows, *id)?.is_some() => {}
                None => return Err(Refusal::UnknownPlacement.into()),
            }
        }
        found.sort_by_key(|(_, placement)| placement.uid);
        Ok(found)
    }
}
