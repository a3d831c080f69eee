//! The home's side of a commit: compute, send to every backup, write, answer. Backup first (DESIGN 5).

use std::collections::BTreeSet;

use bytes::Bytes;
use prost::Message as _;
use vocab::{AccountBatch, AccountId, Batch, BatchId, Instant, NodeId, StoreWrite, SubmitError, Version};
use wire::link::{self, item::Kind};

use crate::config::Rule;
use crate::epoch::is_full;
use crate::follow::Reason;
use crate::order::{Ready, Work};
use crate::output::Output;
use crate::{Pending, Replica, message};

/// Answer to what waited at a home that has moved: it was not done, and comes again at the new one.
const HOME_MOVED: &str = "the home has moved";
/// Slow answers in a row after which a backup leaves the in-sync set.
const SLOW_TIMES_MAX: u32 = 3;

/// Where a batch in flight stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The driver applies the commands. Stale: under an epoch that is over; its result is thrown away.
    Computing { stale: bool },
    /// It never changes from here on; backups have it or get it again.
    Sent,
    /// Every backup has it; our own write is under way.
    Writing,
}

/// A batch in flight.
#[derive(Debug)]
pub(crate) struct Flight {
    pub works: Vec<(u64, Work)>,
    pub accounts: Vec<AccountId>,
    pub stage: Stage,
    pub since: Instant,
    pub sent: Instant,
    pub batch: Option<Batch>,
    pub encoded: Bytes,
    pub waiting: BTreeSet<NodeId>,
    /// Its tokens were told "unknown" already.
    pub answered: bool,
    /// Counted as slow already.
    pub slow: bool,
    /// Ordered by the comparison with this peer: the lock of the account belongs to it, and the peer pulls the result.
    pub owner: Option<NodeId>,
}

impl Flight {
    fn tokens(&self) -> Vec<u64> {
        self.works.iter().map(|(_, w)| w.token).collect()
    }
    /// Version of the account after it.
    pub fn next(&self, account: AccountId) -> Option<Version> {
        let part = self.batch.as_ref()?.accounts.iter().find(|a| a.account == account)?;
        Some(part.head.version)
    }
}

impl Replica {
    /// Nodes that must hold a batch durably before this home writes it.
    pub(crate) fn commit_peers(&self) -> Vec<NodeId> {
        let Some(record) = self.record.as_ref().filter(|r| r.is_home(self.me())) else { return Vec::new() };
        let mut peers: Vec<NodeId> = record.in_sync.iter().filter(|n| **n != self.me()).copied().collect();
        // X11: from the join mark on the guest counts, until a newer epoch is known.
        if self.join_mark == Some(record.id) && self.keeps(Rule::JoinMark) {
            peers.extend(record.guest);
        }
        peers
    }

    fn may_order(&self) -> bool {
        let Some(record) = self.record.as_ref().filter(|r| r.is_home(self.me())) else { return false };
        let peers = self.commit_peers();
        let compared = peers.is_empty() || self.led == Some(record.id);
        let level = |p: &NodeId| self.peers.get(p).is_some_and(|p| p.level);
        compared
            && self.entering.is_none()
            && self.hold.is_none()
            && !self.is_handing_over()
            && !self.loses_homes()
            // A join mark that is being written binds already.
            && self.saved.join_mark == self.join_mark
            && self.has_caught_up()
            && !self.is_superseded()
            && self.versions.is_some()
            && peers.iter().all(level)
    }

    pub(crate) fn on_submit(&mut self, token: u64, mut accounts: Vec<AccountId>) {
        accounts.sort_unstable();
        accounts.dedup();
        let mine = |r: &topology::EpochRecord| accounts.iter().all(|a| r.home_of_account(*a) == self.config.node);
        if accounts.is_empty() || self.is_superseded() || !self.record.as_ref().is_some_and(mine) {
            self.fail(vec![token], SubmitError::Unavailable("this node is not the home of the account"));
            return;
        }
        for account in &accounts {
            self.want(*account);
        }
        self.orders.submit(Work { token, accounts, since: self.now });
    }

    /// Starts a batch for every account that is free and has commands waiting.
    pub(crate) fn dispatch(&mut self) {
        while self.may_order() {
            let Some(Ready { works, accounts }) = self.orders.next_ready() else { return };
            let id = self.batch_id();
            let stamp = self.stamp(AccountId::default());
            let work = Ready { works: works.clone(), accounts: accounts.clone() }.by_account();
            self.flights.insert(id, self.new_flight(works, accounts, None));
            self.outputs.push_back(Output::Compute { batch: id, work, stamp });
        }
    }

    pub(crate) fn new_flight(
        &self,
        works: Vec<(u64, Work)>,
        accounts: Vec<AccountId>,
        owner: Option<NodeId>,
    ) -> Flight {
        Flight {
            since: works.iter().map(|(_, w)| w.since).min().unwrap_or(self.now),
            works,
            accounts,
            stage: Stage::Computing { stale: false },
            sent: self.now,
            batch: None,
            encoded: Bytes::new(),
            waiting: BTreeSet::new(),
            answered: false,
            slow: false,
            owner,
        }
    }

    /// The boot is in the upper half, so a restarted home never reuses one.
    pub(crate) fn batch_id(&mut self) -> BatchId {
        self.batches += 1;
        let epoch = self.record.as_ref().map(|r| r.id).unwrap_or_default();
        let counter = (u64::from(self.config.boot.0) << 32) | u64::from(self.batches);
        BatchId { epoch, home: self.me(), counter }
    }

    pub(crate) fn on_computed(&mut self, id: BatchId, result: Option<Batch>) {
        let Some(flight) = self.flights.get(&id) else { return };
        let Stage::Computing { stale } = flight.stage else { return };
        if stale {
            self.drop_computed(id);
            return;
        }
        let Some(batch) = result.filter(|batch| self.completes(id, batch)) else {
            self.finish_empty(id);
            return;
        };
        let Some(flight) = self.flights.get(&id) else { return };
        let fits = batch.id == id
            && !batch.accounts.is_empty()
            && batch.accounts.windows(2).all(|w| matches!(w, [a, b] if a.account < b.account))
            && batch.accounts.iter().all(|a| {
                flight.accounts.contains(&a.account)
                    && a.expected == self.version(a.account)
                    && a.head.version != a.expected
            });
        if !fits {
            let tokens = flight.tokens();
            let other = batch.accounts.iter().find(|a| a.expected != self.version(a.account));
            let other =
                other.map(|a| format!(": account {} at {}, not {}", a.account.0, a.expected, self.version(a.account)));
            self.outputs.push_back(Output::Dropped { batch: id });
            self.log(format!(
                "batch {id} was computed on another state than the present one{}",
                other.unwrap_or_default()
            ));
            if let Some(flight) = self.forget(id) {
                self.give_back(&flight);
            }
            self.fail(tokens, SubmitError::Unavailable("the account changed under the computation"));
            return;
        }
        self.start_sending(id, batch);
    }

    fn start_sending(&mut self, id: BatchId, batch: Batch) {
        let owner = self.flights.get(&id).and_then(|f| f.owner);
        let peers: Vec<NodeId> = self.commit_peers().into_iter().filter(|p| Some(*p) != owner).collect();
        let encoded: Bytes = if peers.is_empty() {
            Bytes::new()
        } else {
            message::batch_to(&batch, !self.trims()).encode_to_vec().into()
        };
        let (now, first) = (self.now, self.keeps(Rule::BackupFirst));
        let Some(flight) = self.flights.get_mut(&id) else { return };
        flight.stage = Stage::Sent;
        flight.sent = now;
        flight.batch = Some(batch);
        flight.encoded = encoded;
        flight.waiting = peers.iter().copied().filter(|_| first).collect();
        for peer in peers {
            self.send_flight(peer, id);
        }
        self.write_if_acknowledged(id);
    }

    /// Sends it, or again as it is: a backup that has it already acknowledges it once more.
    pub(crate) fn send_flight(&mut self, peer: NodeId, id: BatchId) {
        let Some(epoch) = self.record.as_ref().map(|r| r.id) else { return };
        if !self.peers.get(&peer).is_some_and(|p| p.level) {
            return;
        }
        let Some(flight) = self.flights.get(&id) else { return };
        let encoded = flight.encoded.clone();
        self.say_batch(peer, epoch, id, &encoded);
    }

    pub(crate) fn on_ack(&mut self, peer: NodeId, id: BatchId) {
        self.on_stream_ack(peer, id);
        let Some(flight) = self.flights.get_mut(&id) else { return };
        flight.waiting.remove(&peer);
        let fast = !flight.slow;
        if fast && let Some(peer) = self.peers.get_mut(&peer) {
            peer.slow = 0;
        }
        self.write_if_acknowledged(id);
    }

    fn write_if_acknowledged(&mut self, id: BatchId) {
        let agreed = self.trims();
        let Some(flight) = self.flights.get_mut(&id) else { return };
        if flight.stage != Stage::Sent || !flight.waiting.is_empty() {
            return;
        }
        let Some(batch) = &flight.batch else { return };
        flight.stage = Stage::Writing;
        let parts = parts(batch, agreed);
        self.write(parts, Pending::Local(id));
    }

    /// Whether every data node holds what is committed, so that older links of the chain are of no use.
    pub(crate) fn trims(&self) -> bool {
        self.record.as_ref().is_some_and(is_full)
    }

    pub(crate) fn on_local_written(&mut self, id: BatchId) {
        let Some(flight) = self.flights.remove(&id) else { return };
        let Some(batch) = &flight.batch else { return };
        let versions: Vec<(AccountId, Version)> = batch.accounts.iter().map(|a| (a.account, a.head.version)).collect();
        for (account, version) in &versions {
            self.set_version(*account, *version);
        }
        if flight.owner.is_none() {
            for account in &flight.accounts {
                self.orders.release(*account);
            }
        }
        self.outputs.push_back(Output::Committed { batch: id });
        let confirmed = link::Confirmed { accounts: message::versions_to(&versions) };
        for peer in self.commit_peers() {
            self.say(peer, Kind::Confirmed(confirmed.clone()));
        }
        self.stream(batch);
        if let Some(peer) = flight.owner {
            self.on_result_written(peer, &flight.accounts);
        }
    }

    fn finish_empty(&mut self, id: BatchId) {
        let Some(flight) = self.flights.get(&id) else { return };
        let tokens = flight.tokens();
        if let Some(peer) = flight.owner {
            let accounts = flight.accounts.clone();
            self.outputs.push_back(Output::Dropped { batch: id });
            self.forget(id);
            self.on_no_result(peer, &accounts);
            return;
        }
        // What was found is an answer from state, so it needs the right to serve it.
        if !matches!(self.serving(self.now), crate::Serving::Not(_)) {
            self.outputs.push_back(Output::Committed { batch: id });
        } else {
            self.outputs.push_back(Output::Dropped { batch: id });
            self.fail(tokens, SubmitError::Unavailable("this node may not answer now"));
        }
        self.forget(id);
    }

    fn drop_computed(&mut self, id: BatchId) {
        self.outputs.push_back(Output::Dropped { batch: id });
        let Some(flight) = self.forget(id) else { return };
        self.give_back(&flight);
        if flight.accounts.iter().all(|account| self.orders_account(*account)) {
            self.orders.put_back(flight.works);
        } else {
            self.fail(flight.tokens(), SubmitError::Unavailable(HOME_MOVED));
        }
    }

    /// Takes it out of flight without an answer.
    fn forget(&mut self, id: BatchId) -> Option<Flight> {
        let flight = self.flights.remove(&id)?;
        if flight.owner.is_none() {
            for account in &flight.accounts {
                self.orders.release(*account);
            }
        }
        Some(flight)
    }

    /// Results of computations that run now are not used: they were stamped with the epoch that is over.
    pub(crate) fn make_computing_stale(&mut self) {
        for flight in self.flights.values_mut() {
            if let Stage::Computing { stale } = &mut flight.stage {
                *stale = true;
            }
        }
    }

    /// This node orders these accounts no longer: what was sent is unknown, what waits was not done.
    pub(crate) fn give_up_ordering(&mut self) {
        self.make_computing_stale();
        let moved = |f: &Flight| f.accounts.iter().any(|account| !self.orders_account(*account));
        let sent = self.flights.iter().filter(|(_, f)| f.stage == Stage::Sent && moved(f));
        let sent: Vec<BatchId> = sent.map(|(id, _)| *id).collect();
        for id in sent {
            self.abandon(id);
        }
        let (record, me) = (self.record.as_ref(), self.config.node);
        let stays = |account: &AccountId| record.is_some_and(|r| r.home_of_account(*account) == me);
        let waiting = self.orders.take_unless(stays);
        self.fail(waiting, SubmitError::Unavailable(HOME_MOVED));
    }

    /// A batch that was sent and will not be finished by this home.
    pub(crate) fn abandon(&mut self, id: BatchId) {
        let Some(flight) = self.forget(id) else { return };
        self.give_back(&flight);
        self.outputs.push_back(Output::Dropped { batch: id });
        if !flight.answered {
            self.fail(flight.tokens(), SubmitError::Unknown("the home moved while it was committed"));
        }
    }

    /// What was sent waits no longer for who is not in the in-sync set any more.
    pub(crate) fn forget_left_out(&mut self) {
        let peers = self.commit_peers();
        for flight in self.flights.values_mut() {
            flight.waiting.retain(|id| peers.contains(id));
        }
        let ids: Vec<BatchId> = self.flights.keys().copied().collect();
        for id in ids {
            self.write_if_acknowledged(id);
        }
    }

    /// Batches that were sent and not yet written here: they go with the record of an epoch without the backup (X6).
    pub(crate) fn sent_flights(&self) -> (Vec<BatchId>, Vec<StoreWrite>) {
        let sent = self.flights.iter().filter(|(_, f)| f.stage == Stage::Sent);
        let (mut ids, mut writes) = (Vec::new(), Vec::new());
        for (id, flight) in sent {
            ids.push(*id);
            writes.extend(flight.batch.iter().flat_map(|b| parts(b, false)));
        }
        (ids, writes)
    }

    pub(crate) fn on_refuse(&mut self, peer: NodeId, id: BatchId, reason: u32, have: &[(AccountId, Version)]) {
        if self.on_stream_refused(peer, id, have) || !self.flights.contains_key(&id) {
            return;
        }
        match Reason::from_number(reason) {
            Some(Reason::Space) => {
                self.log(format!("node {} refused batch {id}: its disk is full", peer.0));
                // It may have room again before a heartbeat says that it had none: then that is news all the same.
                if let Some(peer) = self.peers.get_mut(&peer) {
                    peer.disk_ok = false;
                }
                self.leave_out(peer);
            }
            other => {
                self.log(format!("node {} refused batch {id}: {other:?}; versions are compared again", peer.0));
                self.stop_compare(peer);
                if let Some(peer) = self.peers.get_mut(&peer) {
                    peer.level = false;
                }
            }
        }
    }

    /// A backup that refused for space has room: what it refused goes out again, and it need not leave.
    pub(crate) fn on_room(&mut self, peer: NodeId) {
        if self.reduce == Some(peer) {
            self.reduce = None;
        }
        let waits: Vec<BatchId> =
            self.flights.iter().filter(|(_, f)| f.waiting.contains(&peer)).map(|(id, _)| *id).collect();
        for id in waits {
            self.send_flight(peer, id);
        }
    }

    /// Clients are not kept waiting for ever; a batch that was sent stays in flight all the same.
    pub(crate) fn check_waits(&mut self) {
        let (now, limit) = (self.now, self.config.timing.commit_wait);
        let old = self.orders.expired(now, limit);
        self.fail(old, SubmitError::Unavailable("no commit in time"));
        let mut unknown = Vec::new();
        for flight in self.flights.values_mut() {
            if !flight.answered
                && now.since(flight.since) >= limit
                && flight.stage != (Stage::Computing { stale: true })
            {
                flight.answered = true;
                unknown.extend(flight.tokens());
            }
        }
        self.fail(unknown, SubmitError::Unknown("no commit in time"));
    }

    /// A backup that talks but is slow again and again leaves the in-sync set by agreement.
    pub(crate) fn check_slowness(&mut self) {
        let (now, limit) = (self.now, self.config.timing.backup_slow);
        let mut slow = None;
        for flight in self.flights.values_mut() {
            if flight.stage != Stage::Sent || flight.slow || now.since(flight.sent) < limit {
                continue;
            }
            flight.slow = true;
            for id in &flight.waiting {
                let Some(peer) = self.peers.get_mut(id).filter(|p| p.level) else { continue };
                peer.slow += 1;
                if peer.slow >= SLOW_TIMES_MAX {
                    slow = Some(*id);
                }
            }
        }
        slow.into_iter().for_each(|id| self.leave_out(id));
    }

    /// The leader alone proposes it; another home's batches wait for it.
    fn leave_out(&mut self, peer: NodeId) {
        if self.record.as_ref().is_some_and(|r| r.home == self.me()) {
            self.reduce = Some(peer);
        }
    }
}

/// What is written for a batch on any node, in one synced write. `agreed`: every data node holds what is committed, so
/// neither undo rows nor older links are kept.
pub(crate) fn parts(batch: &Batch, agreed: bool) -> Vec<StoreWrite> {
    let mut parts = Vec::with_capacity(2 * batch.accounts.len() + 1);
    if !batch.bodies.is_empty() {
        parts.push(StoreWrite::Bodies(batch.bodies.clone()));
    }
    if !batch.records.is_empty() {
        parts.push(StoreWrite::Records(batch.records.clone()));
    }
    for account in &batch.accounts {
        parts.push(StoreWrite::Account(if agreed { without_undo(account) } else { account.clone() }));
        if agreed && account.expected != Version::default() {
            parts.push(StoreWrite::TrimChain { account: account.account, agreed: account.expected });
        }
    }
    parts
}

fn without_undo(account: &AccountBatch) -> AccountBatch {
    AccountBatch {
        account: account.account,
        expected: account.expected,
        head: account.head.clone(),
        rows: account.rows.clone(),
        refs: account.refs.clone(),
        undo: Vec::new(),
    }
}
