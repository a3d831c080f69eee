//! Readings made by hand, to see that each promise can be broken.

use mailbox::op::{AccountOp, Command, MailboxRef, NewMessage, Role, Stamp};
use mailbox::{Applier, read};
use vocab::{Boot, EpochId, MemoryRows, NodeId, RowWrite, Table, Timestamp};

use super::*;

/// One account with INBOX alone, as a client is shown it.
pub(super) struct Scene {
    pub(super) account: AccountId,
    pub(super) modseq: u64,
    pub(super) shown: Vec<Shown>,
    pub(super) before: BTreeMap<String, Cached>,
    pub(super) vanished: BTreeMap<String, Vec<Uid>>,
}

pub(super) fn id(number: u64) -> PlacementId {
    PlacementId { command: CommandId { origin: NodeId(1), boot: Boot(1), counter: number, recipient: 0 }, index: 0 }
}

pub(super) fn blob(number: u32) -> BlobHash {
    BlobHash::of(&number.to_be_bytes())
}

fn account_of(commands: Vec<AccountOp>) -> MemoryRows {
    let epoch = EpochId { number: 1, author: 0 };
    let (home, at) = (NodeId(1), Timestamp(1_700_000_000_000));
    let stamp = Stamp {
        epoch,
        home,
        at,
        joint: true,
        mailbox_counter: 1,
        gap: None,
        marks: None,
        rows: mailbox::rows::RowFormat::HIGHEST,
    };
    let empty = MemoryRows::default();
    let mut applier = Applier::new(&empty, AccountId(40), stamp);
    for (number, op) in (1..).zip([AccountOp::Init].into_iter().chain(commands)) {
        let command = Command { id: id(100 + number).command, settled: 0, op };
        drop(applier.run(&command).expect("sound rows"));
    }
    let batch = vocab::BatchId { epoch, home, counter: 1 };
    let part = applier.finish(batch).expect("sound rows").expect("something changed");
    let mut rows = MemoryRows { head: part.head, ..MemoryRows::default() };
    rows.write(&part.rows);
    rows
}

fn message(number: u32) -> AccountOp {
    let message = NewMessage {
        blob: blob(number),
        blob_size: 4,
        prefix: Bytes::new(),
        facts: mime::facts_of(&number.to_be_bytes()).encode(),
        flags: Flags::default(),
        internal_date: Timestamp(5),
    };
    AccountOp::Append { mailbox: MailboxRef::Role(Role::Inbox), messages: vec![message] }
}

/// An account with one document.
pub(super) fn noted(body: &str) -> MemoryRows {
    let body = Some(Bytes::from(body.to_owned()));
    account_of(vec![AccountOp::SetDocument { kind: "note".to_owned(), name: "note".to_owned(), body }])
}

/// The row of a placement of this body.
pub(super) fn placed(number: u32, blob: BlobHash) -> RowWrite {
    let rows = account_of(vec![message(number)]);
    let inbox = read::mailboxes(&rows).expect("sound rows").into_iter().find(|m| m.name == "INBOX").expect("is there");
    let mut placement = read::placements(&rows, inbox.id, read::all_uids()).expect("sound rows").remove(0);
    placement.blob = blob;
    let mut key = inbox.id.to_bytes().to_vec();
    key.extend(placement.uid.0.to_be_bytes());
    RowWrite { table: Table::PLACEMENTS, key: key.into(), value: Some(placement.encode()) }
}

impl Scene {
    /// INBOX holds messages with these UIDs, of 1 to 9.
    pub(super) fn new(uids: &[u32]) -> Self {
        let rows = account_of((1..10).map(message).collect());
        let all = read::mailboxes(&rows).expect("sound rows");
        let mut mailbox = all.into_iter().find(|m| m.name == "INBOX").expect("is there");
        let mut placements = read::placements(&rows, mailbox.id, read::all_uids()).expect("sound rows");
        placements.retain(|placement| uids.contains(&placement.uid.0));
        let count = u32::try_from(uids.len()).expect("few");
        mailbox.counts =
            mailbox::rows::Counts { messages: count, unseen: count, deleted: 0, bytes: 4 * u64::from(count) };
        Self {
            account: AccountId(40),
            modseq: rows.head.modseq,
            shown: vec![Shown { mailbox, placements }],
            before: BTreeMap::new(),
            vanished: BTreeMap::new(),
        }
    }

    /// The client has messages under these UIDs in its cache.
    pub(super) fn knew(&mut self, uids: &[u32]) {
        let messages = uids.iter().map(|uid| (Uid(*uid), (id(u64::from(*uid)), Flags::default()))).collect();
        let validity = self.shown[0].mailbox.uid_validity.0;
        let cached = Cached { validity, uid_next: 9, modseq: 1, messages };
        self.before.insert("INBOX".to_owned(), cached);
    }

    pub(super) fn read(&self, check: &mut dyn Invariant) -> Verdict {
        check.on_read(&Reading {
            promised: &BTreeSet::new(),
            account: self.account,
            view: View { node: 0, side: None, excused: false, heard_out: None, elsewhere: None },
            mailboxes: &self.shown,
            archived: None,
            modseq: self.modseq,
            before: &self.before,
            after: &BTreeMap::new(),
            vanished: &self.vanished,
        })
    }
}
