//! One account in memory and commands against it; every batch is checked for digest and chain.
#![allow(dead_code)]

pub mod pair;

use std::collections::BTreeMap;

use bytes::Bytes;
use mailbox::former::FormerNames;
use mailbox::op::{AccountOp, Change, Command, MailboxRef, NewMessage, Outcome, Role, Stamp};
use mailbox::rows::{Mailbox, Placement, RowFormat};
use mailbox::{Applier, digest_of, read};
use vocab::{
    AccountBatch, AccountId, BatchId, BlobHash, Boot, CommandId, EpochId, Flags, MemoryRows, NodeId, PlacementId,
    Timestamp, UidValidity,
};

pub struct Bed {
    pub rows: MemoryRows,
    pub stamp: Stamp,
    pub counter: u64,
    pub settled: u64,
    pub batches: u64,
    pub changes: Vec<Change>,
    pub last: Option<AccountBatch>,
    /// The greatest UIDVALIDITY that each name had.
    pub told: Told,
}

pub type Told = BTreeMap<String, UidValidity>;

/// The first name that has a lower UIDVALIDITY than it was told with (I2).
pub fn undercut(rows: &MemoryRows, told: &Told) -> Result<(), String> {
    for mailbox in read::mailboxes(rows).expect("sound rows") {
        let (name, now, before) = (&mailbox.name, mailbox.uid_validity, told.get(&mailbox.name));
        if before.is_some_and(|before| now < *before) {
            return Err(format!("{name} was told with {before:?} and is {now:?}"));
        }
    }
    Ok(())
}

pub const ACCOUNT: AccountId = AccountId(16);
pub const SECONDS: u32 = 1_700_000_000;

pub fn command_id(counter: u64) -> CommandId {
    CommandId { origin: NodeId(1), boot: Boot(1), counter, recipient: 0 }
}

pub fn message(text: &str) -> NewMessage {
    let body = format!("Message-ID: <{text}@x>\r\nSubject: {text}\r\n\r\n{text}\r\n");
    NewMessage {
        blob: BlobHash::of(body.as_bytes()),
        blob_size: body.len() as u64,
        prefix: Bytes::from_static(b"Return-Path: <>\r\n"),
        facts: mime::facts_of(body.as_bytes()).encode(),
        flags: Flags::default(),
        internal_date: Timestamp(5_000),
    }
}

impl Bed {
    pub fn empty() -> Self {
        let epoch = EpochId { number: 1, author: 0 };
        let at = Timestamp(u64::from(SECONDS) * 1000);
        let stamp = Stamp {
            epoch,
            home: NodeId(1),
            at,
            joint: true,
            mailbox_counter: 1,
            gap: None,
            marks: None,
            rows: RowFormat::HIGHEST,
        };
        let rows = MemoryRows::default();
        let (changes, told) = (Vec::new(), Told::new());
        Self { rows, stamp, counter: 0, settled: 0, batches: 0, changes, last: None, told }
    }
    pub fn new() -> Self {
        let mut bed = Self::empty();
        assert_eq!(bed.run(AccountOp::Init), Outcome::Done);
        bed
    }
    pub fn run(&mut self, op: AccountOp) -> Outcome {
        self.counter += 1;
        self.run_as(command_id(self.counter), op)
    }
    pub fn run_as(&mut self, id: CommandId, op: AccountOp) -> Outcome {
        self.command(&Command { id, settled: self.settled, op })
    }
    pub fn command(&mut self, command: &Command) -> Outcome {
        let base = self.rows.clone();
        let mut applier = Applier::new(&base, ACCOUNT, self.stamp);
        let (outcome, changes) = applier.run(command).expect("sound rows");
        self.stamp.mailbox_counter = applier.mailbox_counter();
        self.changes = changes;
        let id = self.batch_id();
        self.take(applier.finish(id).expect("sound rows"));
        outcome
    }
    pub fn batch_id(&mut self) -> BatchId {
        self.batches += 1;
        BatchId { epoch: self.stamp.epoch, home: self.stamp.home, counter: self.batches }
    }
    pub fn take(&mut self, batch: Option<AccountBatch>) {
        if let Some(batch) = &batch {
            assert_eq!(batch.expected, self.rows.head.version);
            assert_ne!(batch.head.version, batch.expected);
            self.rows.write(&batch.rows);
            self.rows.head = batch.head.clone();
            assert_eq!(digest_of(&self.rows).expect("sound rows"), self.rows.head.digest);
            assert_eq!(self.holds_what_was_told(), Ok(()));
            for mailbox in read::mailboxes(&self.rows).expect("sound rows") {
                self.told.insert(mailbox.name, mailbox.uid_validity);
            }
        }
        self.last = batch;
    }
    /// I2; what the rows say of names nobody has is no less than what was told for them, and each row says something.
    pub fn holds_what_was_told(&self) -> Result<(), String> {
        undercut(&self.rows, &self.told)?;
        let former = FormerNames::read(&self.rows).expect("sound rows");
        let floor = former.floor.unwrap_or(UidValidity(self.rows.head.uidvalidity));
        for (name, told) in self.told.iter().filter(|(name, _)| self.find(name).is_none()) {
            let known = former.names.get(name).copied().unwrap_or(floor);
            if known < *told {
                return Err(format!("{name}: told {told:?}, known {known:?}"));
            }
        }
        match former.names.iter().find(|(name, value)| self.find(name).is_some() || **value <= floor) {
            Some(row) => Err(format!("{row:?} says nothing beside {floor:?}")),
            None => Ok(()),
        }
    }
    pub fn mailbox(&self, name: &str) -> Mailbox {
        self.find(name).expect("is there")
    }
    pub fn find(&self, name: &str) -> Option<Mailbox> {
        read::mailbox_by_name(&self.rows, name).expect("sound rows")
    }
    pub fn placements(&self, name: &str) -> Vec<Placement> {
        read::placements(&self.rows, self.mailbox(name).id, read::all_uids()).expect("sound rows")
    }
    pub fn ids(&self, name: &str) -> Vec<PlacementId> {
        self.placements(name).iter().map(|p| p.id).collect()
    }
    pub fn uids(&self, name: &str) -> Vec<u32> {
        self.placements(name).iter().map(|p| p.uid.0).collect()
    }
    pub fn append(&mut self, texts: &[&str]) -> Outcome {
        let messages = texts.iter().map(|t| message(t)).collect();
        self.run(AccountOp::Append { mailbox: MailboxRef::Role(Role::Inbox), messages })
    }
    pub fn create(&mut self, name: &str) -> Outcome {
        self.run(AccountOp::CreateMailbox { name: name.to_owned(), role: None })
    }
}
