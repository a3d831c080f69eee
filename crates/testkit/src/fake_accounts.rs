//! Accounts and bodies in memory: the real mailbox machine on one node, no replication.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use mailbox::op::{AccountOp, Change, Command, FlagMode, MailboxRef, NewMessage, Outcome, Role, Stamp};
use mailbox::rows::RowFormat;
use mailbox::{Applier, Branch, MergeInput};
use ports::Answer;
use ports::accounts::Accounts;
use ports::blobs::Blobs;
use tokio::sync::broadcast;
use vocab::{
    AccountId, BatchId, BlobHash, CommandId, EpochId, Flags, MemoryRows, NodeId, Rows, SubmitError, SystemFlag,
    Timestamp,
};

const EPOCH: EpochId = EpochId { number: 1, author: 0 };
const HOME: NodeId = NodeId(1);
/// Changes an observer may lag behind.
const CHANGES: usize = 64;

#[derive(Default)]
struct Inner {
    rows: BTreeMap<AccountId, MemoryRows>,
    watchers: BTreeMap<AccountId, broadcast::Sender<Change>>,
    bodies: BTreeMap<BlobHash, Bytes>,
    commands: u64,
    batches: u64,
    mailbox_counter: u64,
}

/// Every operation of an account, applied at once.
#[derive(Default)]
pub struct FakeAccounts {
    inner: Mutex<Inner>,
    unavailable: AtomicBool,
}

impl FakeAccounts {
    /// From now on neither reads nor changes work, or they do again.
    pub fn set_unavailable(&self, unavailable: bool) {
        self.unavailable.store(unavailable, Ordering::SeqCst);
    }
    /// Whether the account has state.
    #[must_use]
    pub fn exists(&self, account: AccountId) -> bool {
        self.with(|inner| inner.rows.get(&account).is_some_and(|rows| mailbox::read::exists(rows) == Ok(true)))
    }
    /// Puts a message into the INBOX, as a delivery does.
    ///
    /// # Panics
    /// When the account has no INBOX.
    pub fn deliver(&self, account: AccountId, prefix: &str, body: &str) {
        let body = Bytes::from(body.to_owned());
        let blob = BlobHash::of(&body);
        let message = NewMessage {
            blob,
            blob_size: body.len() as u64,
            prefix: Bytes::from(prefix.to_owned()),
            facts: mime::facts_of(&body).encode(),
            flags: Flags::default(),
            internal_date: Timestamp(1_700_000_000_000),
        };
        self.with(|inner| inner.bodies.insert(blob, body));
        let op = AccountOp::Append { mailbox: MailboxRef::Role(Role::Inbox), messages: vec![message] };
        let outcome = self.apply(account, self.command_id(), op).expect("available");
        assert!(matches!(outcome, Outcome::Appended { .. }), "{outcome:?}");
    }
    /// As after a split: the newest message of the INBOX was flagged on one side and expunged on the other, then both
    /// were merged.
    ///
    /// # Panics
    /// When the account has no message in its INBOX.
    pub fn lose_newest(&self, account: AccountId) {
        let base = self.with(|inner| inner.rows.get(&account).cloned()).expect("an account");
        let inbox = mailbox::read::mailbox_by_role(&base, Role::Inbox).expect("sound").expect("an INBOX").id;
        let all = mailbox::read::uids(&base, inbox).expect("sound");
        let placements = vec![all.last().expect("a message").id];
        let branch = |op| {
            self.with(|inner| inner.rows.insert(account, base.clone()));
            self.apply(account, self.command_id(), op).expect("available");
            self.with(|inner| inner.rows.get(&account).cloned()).expect("an account")
        };
        let (mode, flags) = (FlagMode::Add, Flags::of(&[SystemFlag::Flagged]));
        let named = placements.clone();
        let guest = branch(AccountOp::Store { mailbox: inbox, placements: named, mode, flags, unchanged_since: None });
        let mut anchor = branch(AccountOp::Expunge { mailbox: inbox, placements, only_deleted: false });
        self.with(|inner| {
            inner.batches += 1;
            let input = MergeInput {
                account,
                base: Some(&base),
                common: base.head.version,
                anchor: Branch { rows: &anchor, served: true },
                guest: Branch { rows: &guest, served: true },
                between: &[],
                stamp: stamp(inner.mailbox_counter),
            };
            let id = BatchId { epoch: EPOCH, home: HOME, counter: inner.batches };
            let merged = mailbox::merge(&input, id).expect("sound");
            anchor.write(&merged.batch.rows);
            anchor.head = merged.batch.head;
            inner.rows.insert(account, anchor);
        });
    }
    fn with<T>(&self, what: impl FnOnce(&mut Inner) -> T) -> T {
        what(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }
    fn check(&self) -> Result<(), SubmitError> {
        match self.unavailable.load(Ordering::SeqCst) {
            true => Err(SubmitError::Unavailable("switched off by the test")),
            false => Ok(()),
        }
    }
    fn apply(&self, account: AccountId, id: CommandId, op: AccountOp) -> Result<Outcome, SubmitError> {
        self.check()?;
        self.with(|inner| inner.apply(account, &Command { id, settled: 0, op }))
    }
}

fn stamp(mailbox_counter: u64) -> Stamp {
    let at = Timestamp(1_700_000_000_000);
    Stamp {
        epoch: EPOCH,
        home: HOME,
        at,
        joint: true,
        mailbox_counter,
        gap: None,
        marks: None,
        rows: RowFormat::HIGHEST,
    }
}

impl Inner {
    fn apply(&mut self, account: AccountId, command: &Command) -> Result<Outcome, SubmitError> {
        let damaged = |_| SubmitError::Unavailable("damaged row");
        let rows = self.rows.entry(account).or_default();
        let stamp = stamp(self.mailbox_counter);
        self.batches += 1;
        let batch = BatchId { epoch: EPOCH, home: HOME, counter: self.batches };
        let mut applier = Applier::new(rows, account, stamp);
        let (outcome, changes) = applier.run(command).map_err(damaged)?;
        self.mailbox_counter = applier.mailbox_counter();
        if let Some(written) = applier.finish(batch).map_err(damaged)? {
            rows.write(&written.rows);
            rows.head = written.head;
        }
        if let Some(watchers) = self.watchers.get(&account) {
            changes.into_iter().for_each(|change| drop(watchers.send(change)));
        }
        Ok(outcome)
    }
}

impl Accounts for FakeAccounts {
    fn command_id(&self) -> CommandId {
        self.with(|inner| {
            inner.commands += 1;
            CommandId { origin: HOME, counter: inner.commands, ..CommandId::default() }
        })
    }
    fn submit(&self, account: AccountId, id: CommandId, op: AccountOp) -> Answer<'_, Result<Outcome, SubmitError>> {
        let result = self.apply(account, id, op);
        Box::pin(async move { result })
    }
    fn snapshot(&self, account: AccountId) -> Answer<'_, Result<Arc<dyn Rows>, SubmitError>> {
        let rows = || self.with(|inner| inner.rows.get(&account).cloned().unwrap_or_default());
        let result = self.check().map(|()| Arc::new(rows()) as Arc<dyn Rows>);
        Box::pin(async move { result })
    }
    fn watch(&self, account: AccountId) -> broadcast::Receiver<Change> {
        self.with(|inner| {
            let sender = inner.watchers.entry(account).or_insert_with(|| broadcast::Sender::new(CHANGES));
            sender.subscribe()
        })
    }
}

impl Blobs for FakeAccounts {
    fn put(&self, body: Bytes) -> Answer<'_, Result<BlobHash, SubmitError>> {
        let hash = BlobHash::of(&body);
        self.with(|inner| inner.bodies.insert(hash, body));
        Box::pin(async move { Ok(hash) })
    }
    fn get(&self, hash: BlobHash, from: u64, to: u64) -> Answer<'_, Result<Bytes, SubmitError>> {
        let body = self.with(|inner| inner.bodies.get(&hash).cloned());
        let part = body.and_then(|body| {
            let end = usize::try_from(to).unwrap_or(usize::MAX).min(body.len());
            let start = usize::try_from(from).ok().filter(|start| *start <= end)?;
            Some(body.slice(start..end))
        });
        Box::pin(async move { part.ok_or(SubmitError::Unavailable("no such body")) })
    }
}
