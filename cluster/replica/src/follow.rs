//! The backup's side of a commit: check, write, acknowledge (DESIGN 5.4). A guest takes streamed batches the same way.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use topology::EpochRecord;
use vocab::{AccountId, Batch, BatchId, BlobHash, EpochId, Instant, NodeId, StoreWrite, Version};
use wire::link::{self, item::Kind};

use crate::commit::parts;
use crate::output::Output;
use crate::{Pending, Replica, message};

/// Why a batch is refused; the numbers are part of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// Not from the home of the epoch this node has promised.
    Epoch,
    /// Not on the version this node has.
    Version,
    /// Bodies are missing and cannot be had.
    Bodies,
    /// No space.
    Space,
}

impl Reason {
    const fn number(self) -> u32 {
        match self {
            Self::Epoch => 1,
            Self::Version => 2,
            Self::Bodies => 3,
            Self::Space => 4,
        }
    }
    pub const fn from_number(number: u32) -> Option<Self> {
        match number {
            1 => Some(Self::Epoch),
            2 => Some(Self::Version),
            3 => Some(Self::Bodies),
            4 => Some(Self::Space),
            _ => None,
        }
    }
}

/// A batch that was accepted and is not written yet.
#[derive(Clone, Debug)]
pub(crate) struct Incoming {
    pub from: NodeId,
    link: u64,
    batch: Batch,
    checking: Option<u64>,
    fetched: bool,
}

/// What this node knows as a backup.
#[derive(Debug, Default)]
pub(crate) struct Follow {
    /// Homes that said versions are level since the present link, in the present epoch.
    pub compared: BTreeSet<NodeId>,
    /// Until when each home's read lease lasts.
    pub leases: BTreeMap<NodeId, Instant>,
    /// Versions the home has confirmed as written on the whole in-sync set (X2).
    pub confirmed: BTreeMap<AccountId, Version>,
    /// Version after everything that was accepted; absent = as written.
    ahead: BTreeMap<AccountId, Version>,
    waiting: VecDeque<Incoming>,
    /// Accounts this node orders now that a batch of another home, accepted before, is still being written of.
    late: BTreeSet<AccountId>,
}

impl Replica {
    fn accepts_epoch(&self, from: NodeId, epoch: EpochId, batch: &Batch) -> bool {
        let Some(record) = &self.record else { return false };
        // A node that heard of a newer epoch has not promised it, but the old home may be leaving this node out.
        let fits = epoch >= record.id || record.parents.contains(&epoch);
        let of_home = |r: &EpochRecord| batch.accounts.iter().all(|a| r.home_of_account(a.account) == from);
        let ours = of_home(record) || self.finishes_before_moving(epoch).is_some_and(of_home);
        ours && from != self.me() && fits && self.entering.is_none() && !self.is_superseded()
    }

    pub(crate) fn on_batch(&mut self, from: NodeId, epoch: EpochId, batch: Batch) {
        let ahead = |a: AccountId| self.follow.ahead.get(&a).copied().unwrap_or_else(|| self.version(a));
        let level = batch.accounts.iter().all(|a| ahead(a.account) == a.expected);
        let has_all = batch.accounts.iter().all(|a| self.version(a.account) == a.head.version);
        let busy = batch.accounts.iter().any(|a| self.guest.is_busy(a.account));
        if !self.accepts_epoch(from, epoch, &batch) || self.versions.is_none() {
            self.refuse(from, &batch, Reason::Epoch);
        } else if has_all && !batch.accounts.is_empty() {
            self.acknowledge(from, batch.id);
        } else if !level || busy || batch.accounts.is_empty() {
            self.refuse(from, &batch, Reason::Version);
        } else if self.disk_low {
            self.refuse(from, &batch, Reason::Space);
        } else {
            for account in &batch.accounts {
                self.follow.ahead.insert(account.account, account.head.version);
                if self.orders_account(account.account) {
                    self.follow.late.insert(account.account);
                }
            }
            let link = self.peers.get(&from).and_then(|p| p.link).unwrap_or(0);
            self.follow.waiting.push_back(Incoming { from, link, batch, checking: None, fetched: false });
            self.step_follow();
        }
    }

    fn acknowledge(&mut self, to: NodeId, id: BatchId) {
        self.say(to, Kind::Ack(link::Ack { id: Bytes::copy_from_slice(&id.to_bytes()) }));
    }

    fn refuse(&mut self, to: NodeId, batch: &Batch, reason: Reason) {
        let have: Vec<_> = batch.accounts.iter().map(|a| (a.account, self.version(a.account))).collect();
        let refuse = link::Refuse {
            id: Bytes::copy_from_slice(&batch.id.to_bytes()),
            reason: reason.number(),
            have: message::versions_to(&have),
        };
        self.say(to, Kind::Refuse(refuse));
    }

    /// Writes what may be written: whatever has its bodies and no earlier batch of the same account before it.
    fn step_follow(&mut self) {
        let mut blocked: BTreeSet<AccountId> = BTreeSet::new();
        let mut rest = VecDeque::new();
        for mut incoming in std::mem::take(&mut self.follow.waiting) {
            let free = incoming.batch.accounts.iter().all(|a| !blocked.contains(&a.account));
            let needed = if incoming.fetched { Vec::new() } else { needed(&incoming.batch) };
            if free && incoming.checking.is_none() && needed.is_empty() {
                self.write_follow(incoming);
                continue;
            }
            if incoming.checking.is_none() && !incoming.fetched {
                let token = self.number();
                incoming.checking = Some(token);
                self.outputs.push_back(Output::CheckBlobs { token, hashes: needed });
            }
            blocked.extend(incoming.batch.accounts.iter().map(|a| a.account));
            rest.push_back(incoming);
        }
        self.follow.waiting = rest;
    }

    fn write_follow(&mut self, incoming: Incoming) {
        let expected: BTreeMap<AccountId, Version> =
            incoming.batch.accounts.iter().map(|a| (a.account, a.expected)).collect();
        // Older links of the chain go only when the version before is known to be everywhere.
        let agreed = self.trims() && expected.iter().all(|(a, v)| self.follow.confirmed.get(a) == Some(v));
        let parts: Vec<StoreWrite> = parts(&incoming.batch, agreed);
        self.write(parts, Pending::Follow(incoming));
    }

    pub(crate) fn on_follow_written(&mut self, incoming: Incoming) {
        for account in &incoming.batch.accounts {
            self.set_version(account.account, account.head.version);
            if self.follow.ahead.get(&account.account) == Some(&account.head.version) {
                self.caught_up(account.account);
            }
        }
        if self.peers.get(&incoming.from).is_some_and(|p| p.link == Some(incoming.link)) {
            self.acknowledge(incoming.from, incoming.batch.id);
        }
        self.step_follow();
    }

    pub(crate) fn on_blobs_checked(&mut self, token: u64, missing: Vec<BlobHash>) {
        let Some(at) = self.follow.waiting.iter().position(|i| i.checking == Some(token)) else { return };
        let next = self.number();
        let Some(incoming) = self.follow.waiting.get_mut(at) else { return };
        incoming.checking = None;
        if missing.is_empty() {
            incoming.fetched = true;
        } else if !incoming.fetched {
            incoming.fetched = true;
            incoming.checking = Some(next);
            let from = incoming.from;
            self.outputs.push_back(Output::FetchBlobs { token: next, from, hashes: missing });
        } else {
            self.refuse_from(at);
        }
        self.step_follow();
    }

    /// The batch cannot be written, so neither can later ones of its accounts.
    fn refuse_from(&mut self, at: usize) {
        let mut broken: BTreeSet<AccountId> = BTreeSet::new();
        let mut rest = VecDeque::new();
        for (n, incoming) in std::mem::take(&mut self.follow.waiting).into_iter().enumerate() {
            if n == at || incoming.batch.accounts.iter().any(|a| broken.contains(&a.account)) {
                broken.extend(incoming.batch.accounts.iter().map(|a| a.account));
                self.refuse(incoming.from, &incoming.batch, Reason::Bodies);
            } else {
                rest.push_back(incoming);
            }
        }
        self.follow.waiting = rest;
        // Those that are being written end at their own version.
        for account in broken {
            self.caught_up(account);
        }
    }

    /// Nothing accepted of this account is still to be written.
    fn caught_up(&mut self, account: AccountId) {
        self.follow.ahead.remove(&account);
        self.follow.late.remove(&account);
    }

    /// Everything accepted from this home is written.
    pub(crate) fn is_idle_for(&self, home: NodeId) -> bool {
        let theirs = |a: &AccountId| self.record.as_ref().is_some_and(|r| r.home_of_account(*a) == home);
        !self.follow.ahead.keys().any(theirs)
    }

    /// Nothing accepted from another home stands in the way of ordering here.
    pub(crate) fn has_caught_up(&self) -> bool {
        self.follow.late.is_empty()
    }

    /// Another epoch: accounts whose home this node is now may still be written of.
    pub(crate) fn find_late(&mut self) {
        let late = self.follow.ahead.keys().filter(|account| self.orders_account(**account)).copied().collect();
        self.follow.late = late;
    }

    /// What was accepted from this home, or from any, and not begun is forgotten; a home sends it again once both are
    /// level.
    pub(crate) fn forget_waiting(&mut self, from: Option<NodeId>) {
        for incoming in std::mem::take(&mut self.follow.waiting) {
            if from.is_some_and(|from| from != incoming.from) {
                self.follow.waiting.push_back(incoming);
                continue;
            }
            for account in &incoming.batch.accounts {
                self.caught_up(account.account);
            }
        }
    }

    pub(crate) fn on_confirmed(&mut self, from: NodeId, list: &[(AccountId, Version)]) {
        let Some(record) = &self.record else { return };
        for (account, version) in list.iter().filter(|(account, _)| record.home_of_account(*account) == from) {
            self.follow.confirmed.insert(*account, *version);
        }
        if self.follow.compared.contains(&from) {
            self.outputs.push_back(Output::Readable { accounts: list.iter().map(|(a, _)| *a).collect() });
        }
    }

    /// This node alone orders everything now: what another home of the epoch before had not confirmed is what holds.
    pub(crate) fn show_unconfirmed(&mut self, old: &EpochRecord) {
        let me = self.me();
        let open = |(account, version): &(&AccountId, &Version)| {
            old.home_of_account(**account) != me && self.follow.confirmed.get(account) != Some(version)
        };
        let accounts: Vec<AccountId> = self.versions.iter().flatten().filter(open).map(|(a, _)| *a).collect();
        if !accounts.is_empty() {
            self.outputs.push_back(Output::Readable { accounts });
        }
    }

    /// The home has compared: everything this node holds is confirmed but for what is in flight.
    pub(crate) fn on_compared(&mut self, from: NodeId, epoch: EpochId, in_flight: &BTreeSet<AccountId>) {
        let me = self.me();
        let fits = |r: &&EpochRecord| r.is_home(from) && from != me && r.id == epoch && r.in_sync.contains(&me);
        let Some(record) = self.record.as_ref().filter(fits) else { return };
        let theirs = |a: &AccountId| record.home_of_account(*a) == from;
        let versions = self.versions.iter().flatten().filter(|(a, _)| theirs(a) && !in_flight.contains(a));
        let level: BTreeMap<AccountId, Version> = versions.map(|(a, v)| (*a, *v)).collect();
        let old = &self.follow.confirmed;
        let news: Vec<AccountId> = level.iter().filter(|(a, v)| old.get(a) != Some(v)).map(|(a, _)| *a).collect();
        self.follow.confirmed.extend(level);
        self.follow.compared.insert(from);
        if !news.is_empty() {
            self.outputs.push_back(Output::Readable { accounts: news });
        }
        self.log(format!("level with home {} in epoch {epoch}", from.0));
    }
}

/// Bodies the batch names and does not carry.
fn needed(batch: &Batch) -> Vec<BlobHash> {
    let carried: BTreeSet<BlobHash> = batch.bodies.iter().map(|b| b.hash).collect();
    let refs = batch.accounts.iter().flat_map(|a| &a.refs).filter(|r| r.present && !carried.contains(&r.hash));
    refs.map(|r| r.hash).collect::<BTreeSet<_>>().into_iter().collect()
}
