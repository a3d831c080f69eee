//! Clients as they are: senders that try again, readers that cache and resynchronise each in its own way.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use bytes::Bytes;
use mailbox::op::{AccountOp, FlagMode};
use mailbox::read;
use mailbox::rows::UidRow;
use queue::op::QueueOutcome;
use vocab::{
    AccountId, BlobHash, Damaged, Flags, Keyword, MailboxId, MemoryRows, ModSeq, PlacementId, SystemFlag, Uid,
};

use crate::cast::{Intent, Part};
use crate::invariants::{Cached, Reading, Shown, Told};
use crate::vocabulary::{Answer, Done, Happening, JobKind, Ms, Work};
use crate::world::World;

/// Accounts of a history.
pub(crate) const ACCOUNTS: u64 = 8;
/// First account id; below 16 are system accounts.
pub(crate) const FIRST_ACCOUNT: u64 = 40;
/// A client gives a connection up after this time without an answer (ms).
const PATIENCE_MS: Ms = 9_000;

/// How a reader brings its cache up to date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resync {
    /// QRESYNC (RFC 7162): what changed and what vanished since.
    Quick,
    /// What changed since, and the list of UIDs.
    CondStore,
    /// New mail from UIDNEXT on, and all flags.
    UidNext,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Sender,
    /// A keeper does with its mailboxes whatever IMAP lets it do.
    Reader {
        account: AccountId,
        resync: Resync,
        node: Option<usize>,
        keeper: bool,
    },
    /// One of another protocol.
    Part {
        account: AccountId,
        node: Option<usize>,
    },
}

/// What a client waits for.
#[derive(Clone, Debug)]
pub(crate) enum Pending {
    Delivery { accounts: Vec<AccountId>, body: Bytes, inline: bool },
    Read,
    Change(Box<Intent>),
    Submission,
}

pub(crate) struct Client {
    pub(crate) kind: Kind,
    pub(crate) part: Part,
    serial: u64,
    pub(crate) pending: Option<Pending>,
    connected: bool,
    /// Has read everything after the faults were over.
    last_read: bool,
    pub(crate) cache: BTreeMap<String, Cached>,
    pub(crate) ids: BTreeMap<String, MailboxId>,
    pub(crate) blobs: BTreeMap<PlacementId, BlobHash>,
    pub(crate) side: Option<usize>,
    /// It was shown both sides of a split: what it sees is not held against anybody before all are one again.
    pub(crate) wanders: bool,
    /// Merges without a base of its account when it last looked.
    pub(crate) blind_merges: u64,
}

impl Client {
    pub(crate) fn new(kind: Kind, part: Part) -> Self {
        Self {
            kind,
            part,
            serial: 0,
            pending: None,
            connected: false,
            last_read: false,
            cache: BTreeMap::new(),
            ids: BTreeMap::new(),
            blobs: BTreeMap::new(),
            side: None,
            wanders: false,
            blind_merges: 0,
        }
    }

    /// Has nothing more to do once the faults are over.
    pub(crate) fn is_done(&self) -> bool {
        match self.kind {
            Kind::Sender => self.pending.is_none(),
            Kind::Part { .. } if matches!(self.part, Part::Submitter(_)) => self.pending.is_none(),
            Kind::Reader { .. } | Kind::Part { .. } => self.last_read && self.pending.is_none(),
        }
    }
}

impl World {
    pub(crate) fn make_clients(&mut self) {
        for _ in 0..3 {
            self.clients.push(Client::new(Kind::Sender, Part::None));
        }
        for number in 0..ACCOUNTS + 4 {
            let account = AccountId(FIRST_ACCOUNT + number % ACCOUNTS);
            let resync = [Resync::Quick, Resync::CondStore, Resync::UidNext][self.rng.index(3)];
            let node = if self.rng.percent(25) { None } else { Some(self.rng.index(self.nodes.len())) };
            let kind = Kind::Reader { account, resync, node, keeper: false };
            self.clients.push(Client::new(kind, Part::None));
        }
        for client in 0..self.clients.len() {
            let first = self.rng.range(10, 600);
            self.at(first, Happening::Client(client));
        }
        if self.cast {
            self.make_cast();
        }
    }

    pub(crate) fn client_acts(&mut self, c: usize) {
        if self.clients[c].connected || (self.calming.is_some() && self.clients[c].is_done()) {
            return;
        }
        match self.clients[c].kind {
            Kind::Sender => self.sender_acts(c),
            Kind::Reader { account, node, .. } | Kind::Part { account, node } => {
                let n = node.unwrap_or_else(|| self.rng.index(self.nodes.len()));
                if !self.nodes[n].is_awake() {
                    return self.client_later(c, 100, 400);
                }
                self.reader_acts(c, n, account);
            }
        }
    }

    pub(crate) fn client_later(&mut self, c: usize, from: Ms, to: Ms) {
        let delay = self.rng.range(from, to);
        self.at(delay, Happening::Client(c));
    }

    pub(crate) fn begin(&mut self, c: usize, n: usize, pending: Pending, kind: JobKind) {
        self.coverage.operations += 1;
        let client = &mut self.clients[c];
        client.serial += 1;
        client.pending = Some(pending);
        client.connected = true;
        let serial = client.serial;
        self.at(PATIENCE_MS, Happening::Told { client: c, serial, answer: None });
        self.begin_job(n, c, serial, kind);
    }

    fn sender_acts(&mut self, c: usize) {
        if self.clients[c].pending.is_none() {
            self.coverage.messages += 1;
            let first = FIRST_ACCOUNT + self.rng.range(0, ACCOUNTS);
            let mut accounts = BTreeSet::from([AccountId(first)]);
            if self.rng.percent(if self.spread { 45 } else { 20 }) {
                accounts.insert(AccountId(FIRST_ACCOUNT + self.rng.range(0, ACCOUNTS)));
            }
            let body = Bytes::from(format!("Subject: message {}\r\n\r\nfrom {c}\r\n", self.coverage.messages));
            let inline = self.rng.percent(85);
            let delivery = Pending::Delivery { accounts: accounts.into_iter().collect(), body, inline };
            self.clients[c].pending = Some(delivery);
        }
        // The cluster address leads to whoever holds it; a node that believes so wrongly too.
        let holds = |n: &usize| self.nodes[*n].process.as_ref().is_some_and(|p| p.holds_address);
        let awake: Vec<usize> = (0..self.nodes.len()).filter(|n| self.nodes[*n].is_awake()).collect();
        let holders: Vec<usize> = awake.iter().copied().filter(|n| holds(n)).collect();
        let choice = if holders.is_empty() || self.rng.percent(25) { awake } else { holders };
        if choice.is_empty() {
            return self.client_later(c, 100, 500);
        }
        let n = choice[self.rng.index(choice.len())];
        let Some(pending @ Pending::Delivery { .. }) = self.clients[c].pending.clone() else { return };
        let Pending::Delivery { accounts, body, inline } = pending.clone() else { return };
        // Every SMTP transaction is a command of its own, a retried one too.
        let Some(accept) = self.nodes[n].process.as_mut().map(|p| p.command_id(n)) else { return };
        let blob = BlobHash::of(&body);
        for account in &accounts {
            self.checks.on_told(&Told::Placing { account: *account, blob, again: false });
        }
        self.begin(
            c,
            n,
            pending,
            JobKind::Submit(Work::Delivery { accept, accounts: (1..).zip(accounts).collect(), body, inline }),
        );
    }

    fn reader_acts(&mut self, c: usize, n: usize, account: AccountId) {
        if let Kind::Part { .. } = self.clients[c].kind {
            return self.part_acts(c, n, account);
        }
        let change = self.calming.is_none() && self.rng.percent(45);
        let op = if change { self.choose_change(c) } else { None };
        match op {
            Some((op, body)) => self.change(c, n, account, op, body),
            None => self.look(c, n, account),
        }
    }

    /// Asks for a snapshot.
    pub(crate) fn look(&mut self, c: usize, n: usize, account: AccountId) {
        self.begin(c, n, Pending::Read, JobKind::Read { account, entry_asked: false });
    }

    /// A change of messages the client has seen.
    fn choose_change(&mut self, c: usize) -> Option<(AccountOp, Option<Bytes>)> {
        let Kind::Reader { keeper, .. } = self.clients[c].kind else { return None };
        let client = &self.clients[c];
        let names: Vec<String> =
            client.cache.iter().filter(|(_, cached)| !cached.messages.is_empty()).map(|(n, _)| n.clone()).collect();
        if names.is_empty() || self.rng.percent(6) {
            let name = format!("F{}", self.rng.range(1, 4));
            return Some((AccountOp::CreateMailbox { name, role: None }, None));
        }
        let name = &names[self.rng.index(names.len())];
        let client = &self.clients[c];
        let mailbox = *client.ids.get(name)?;
        let known: Vec<PlacementId> = client.cache.get(name)?.messages.values().map(|(id, _)| *id).collect();
        let ids: Vec<(String, MailboxId)> = client.ids.iter().map(|(name, id)| (name.clone(), *id)).collect();
        if let Some(op) = self.rare_change(&ids, Some((mailbox, &known))) {
            return Some((op, None));
        }
        let mut placements = vec![known[self.rng.index(known.len())]];
        if self.rng.percent(30) {
            let other = known[self.rng.index(known.len())];
            if other != placements[0] {
                placements.push(other);
            }
        }
        if keeper && self.rng.percent(70) {
            return self.choose_of_keeper(c, name, mailbox, placements);
        }
        if self.rng.percent(65) {
            let mode = [FlagMode::Add, FlagMode::Remove, FlagMode::Replace][self.rng.index(3)];
            let mut flags = Flags::of(&[SystemFlag::ALL[self.rng.index(5)]]);
            flags.keywords.extend(Keyword::new("$Seen2").filter(|_| self.rng.percent(20)));
            return Some((AccountOp::Store { mailbox, placements, mode, flags, unchanged_since: None }, None));
        }
        if self.rng.percent(35) {
            let ids: Vec<MailboxId> = self.clients[c].ids.values().copied().filter(|id| *id != mailbox).collect();
            if !ids.is_empty() {
                let to = ids[self.rng.index(ids.len())];
                return Some((AccountOp::Move { from: mailbox, to, placements }, None));
            }
        }
        Some((AccountOp::Expunge { mailbox, placements, only_deleted: false }, None))
    }

    pub(crate) fn client_told(&mut self, c: usize, serial: u64, answer: Option<Answer>) {
        if self.clients[c].serial != serial || !self.clients[c].connected {
            return;
        }
        self.clients[c].connected = false;
        let Some(pending) = self.clients[c].pending.take() else { return };
        match (pending, answer) {
            (
                Pending::Delivery { accounts, body, .. },
                Some(Ok(Done::Delivered(side) | Done::Queue(QueueOutcome::Done, side))),
            ) => {
                let blob = BlobHash::of(&body);
                self.coverage.accepted += 1;
                self.note(|| {
                    let text = String::from_utf8_lossy(&body[..body.len().min(22)]).trim().to_owned();
                    let accounts: Vec<u64> = accounts.iter().map(|a| a.0).collect();
                    format!("client {c}: 250 for {text:?} ({blob}) to {accounts:?}, side {side:?}")
                });
                for account in accounts {
                    self.checks.on_told(&Told::Accepted { account, blob, side });
                }
            }
            (pending @ Pending::Delivery { .. }, _) => {
                self.clients[c].pending = Some(pending);
                return self.client_later(c, 100, 1_200);
            }
            (Pending::Change(intent), Some(Ok(Done::Account(outcome, side)))) => {
                self.acknowledged(c, &intent, &outcome, side);
            }
            (Pending::Read, Some(Ok(_))) => self.clients[c].last_read = self.calming.is_some(),
            (Pending::Submission, answer) => {
                self.submission_told(c, answer);
                return self.client_later(c, 400, 2_500);
            }
            (_, answer) => self.part_told(c, answer),
        }
        self.client_later(c, 30, 700);
    }

    /// One client on both sides of a split: it resynchronises all the same, so that its cache must be right afterwards.
    fn wander(&mut self, n: usize, c: usize, account: AccountId, resync: Resync) {
        if self.extras.is_none() {
            return;
        }
        let empty = MemoryRows::default();
        let rows = self.nodes[n].disk.image.accounts.get(&account).unwrap_or(&empty);
        let before = std::mem::take(&mut self.clients[c].cache);
        let Seen { mailboxes, mut after, .. } = match look(rows, &before, resync) {
            Ok(seen) => seen,
            Err(damaged) => return self.broken("rows", format!("node {}: account {}: {damaged}", n + 1, account.0)),
        };
        self.coverage.wandering_reads += 1;
        // The UIDNEXT of either side binds (I4, H3).
        for (name, cached) in &mut after {
            let known = before.get(name).filter(|known| known.validity == cached.validity);
            cached.uid_next = cached.uid_next.max(known.map_or(0, |known| known.uid_next));
        }
        let client = &mut self.clients[c];
        client.wanders = true;
        client.cache = after;
        client.ids = mailboxes.iter().map(|m| (m.mailbox.name.clone(), m.mailbox.id)).collect();
        client.blobs.extend(mailboxes.iter().flat_map(|m| &m.placements).map(|p| (p.id, p.blob)));
    }

    /// A snapshot is shown to a client: it resynchronises, and everything it is told is checked.
    pub(crate) fn show(&mut self, n: usize, c: usize, account: AccountId) {
        let Kind::Reader { resync, .. } = self.clients[c].kind else { return self.show_part(n, c, account) };
        self.clients[c].blind_merges = self.blind_merges.get(&account).copied().unwrap_or(0);
        let view = self.view(n);
        let comparable = view.must_know(self.clients[c].side);
        if !comparable || self.clients[c].wanders {
            return self.wander(n, c, account, resync);
        }
        self.coverage.reads += 1;
        let empty = MemoryRows::default();
        let rows = self.nodes[n].disk.image.accounts.get(&account).unwrap_or(&empty);
        let before = std::mem::take(&mut self.clients[c].cache);
        let Seen { mailboxes, after, vanished } = match look(rows, &before, resync) {
            Ok(seen) => seen,
            Err(damaged) => return self.broken("rows", format!("node {}: account {}: {damaged}", n + 1, account.0)),
        };
        let mut archived: Option<BTreeSet<BlobHash>> = None;
        // A branch that was merged is archived too, but then every rule holds.
        for node in self.nodes.iter().filter(|_| self.raised.contains(&account)) {
            if let Some(more) = node.disk.image.archived(account) {
                archived.get_or_insert_default().extend(more);
            }
        }
        let promised = crate::spread::promised(&self.nodes[n].disk.image, account);
        let reading = Reading {
            account,
            view,
            mailboxes: &mailboxes,
            archived: archived.as_ref(),
            promised: &promised,
            modseq: rows.head.modseq,
            before: &before,
            after: &after,
            vanished: &vanished,
        };
        let verdict = self.checks.on_read(&reading);
        let client = &mut self.clients[c];
        client.cache = after;
        client.side = view.side;
        client.ids = mailboxes.iter().map(|m| (m.mailbox.name.clone(), m.mailbox.id)).collect();
        client.blobs.extend(mailboxes.iter().flat_map(|m| &m.placements).map(|p| (p.id, p.blob)));
        if let Err((rule, text)) = verdict {
            self.broken(rule, format!("client {c}: {text}"));
        }
    }
}

/// The whole account, what an incremental resynchronisation makes of the cache, and what QRESYNC said had vanished.
struct Seen {
    mailboxes: Vec<Shown>,
    after: BTreeMap<String, Cached>,
    vanished: BTreeMap<String, Vec<Uid>>,
}

fn look(rows: &MemoryRows, before: &BTreeMap<String, Cached>, resync: Resync) -> Result<Seen, Damaged> {
    let mut seen = Seen { mailboxes: Vec::new(), after: BTreeMap::new(), vanished: BTreeMap::new() };
    for mailbox in read::mailboxes(rows)? {
        let placements = read::placements(rows, mailbox.id, read::all_uids())?;
        let known = before.get(&mailbox.name).filter(|cached| cached.validity == mailbox.uid_validity.0);
        let mut messages = match known {
            Some(known) => incremental(rows, &mailbox, (known, resync), &mut seen.vanished)?,
            None => as_map(read::uids(rows, mailbox.id)?),
        };
        messages.retain(|uid, _| *uid < mailbox.uid_next);
        let cached = Cached {
            validity: mailbox.uid_validity.0,
            uid_next: mailbox.uid_next.0,
            modseq: mailbox.modseq.0,
            messages,
        };
        seen.after.insert(mailbox.name.clone(), cached);
        seen.mailboxes.push(Shown { mailbox, placements });
    }
    Ok(seen)
}

type Messages = BTreeMap<Uid, (PlacementId, Flags)>;

fn as_map(rows: Vec<UidRow>) -> Messages {
    rows.into_iter().map(|row| (row.uid, (row.id, row.flags))).collect()
}

fn incremental(
    rows: &MemoryRows,
    mailbox: &mailbox::rows::Mailbox,
    (known, resync): (&Cached, Resync),
    vanished: &mut BTreeMap<String, Vec<Uid>>,
) -> Result<Messages, Damaged> {
    let mut messages = known.messages.clone();
    // A client that is ahead comes from another branch; it is treated as one that knows nothing (I9).
    let since = if known.modseq > mailbox.modseq.0 { ModSeq(0) } else { ModSeq(known.modseq) };
    match resync {
        Resync::Quick => {
            let uids: Vec<RangeInclusive<Uid>> = messages.keys().map(|uid| *uid..=*uid).collect();
            let gone = read::vanished_since(rows, mailbox, since, &uids)?;
            gone.iter().for_each(|uid| drop(messages.remove(uid)));
            vanished.insert(mailbox.name.clone(), gone);
            messages.extend(as_map(read::changed_since(rows, mailbox.id, since)?));
        }
        Resync::CondStore => {
            messages.extend(as_map(read::changed_since(rows, mailbox.id, since)?));
            let present: BTreeSet<Uid> = read::uids(rows, mailbox.id)?.into_iter().map(|row| row.uid).collect();
            messages.retain(|uid, _| present.contains(uid));
        }
        Resync::UidNext => {
            let flags = as_map(read::uids(rows, mailbox.id)?);
            messages.retain(|uid, _| flags.contains_key(uid));
            for (uid, (_, known)) in &mut messages {
                if let Some((_, now)) = flags.get(uid) {
                    known.clone_from(now);
                }
            }
            let new = read::uids_in(rows, mailbox.id, Uid(known.uid_next)..=Uid(u32::MAX))?;
            messages.extend(as_map(new));
        }
    }
    Ok(messages)
}
