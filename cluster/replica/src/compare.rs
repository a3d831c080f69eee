//! Comparing with another node: every connection begins with it, and nothing is ordered, served or granted before it
//! (DESIGN 5 and 7; X3, X5). The home of the epoch, or the anchor of a heal, leads it.
//!
//! Per account: equal; the other is behind and fetches; the other is ahead and this node fetches; both changed, then
//! the two are merged here (`merge`), or what cannot be is archived (`archive`), before the other fetches.

use std::collections::{BTreeMap, BTreeSet};

use topology::EpochKind;
use vocab::{AccountId, Batch, BatchId, EpochId, Instant, NodeId, Version, limits};
use wire::link::{self, item::Kind};

use crate::commit::Stage;
use crate::config::Rule;
use crate::guest::{FETCHES_MAX, FetchJob, Why};
use crate::merge::{Plan, Side};
use crate::output::Output;
use crate::{Replica, message};

/// Batches kept for an account while the guest fetches it; beyond that it fetches again.
pub(crate) const TAIL_BATCHES_MAX: usize = 1024;
/// Accounts whose chains are looked at at the same time; few enough that one a client asks for soon has its turn.
const STARTS_MAX: usize = 32;
/// Wait before an account whose transfer failed is tried again (ms).
pub(crate) const RETRY_MS: u64 = 500;

/// Where one account stands that is not level.
#[derive(Debug)]
pub(crate) enum Step {
    /// To be looked at, not before this time.
    Start(Instant),
    /// Our own chain is being read; `locked` when the account is out of ordering for it.
    OwnChain,
    /// Our chain, this one, lacks their version.
    TheirChain(Side),
    /// They are to fetch the queue once they have everything else.
    WantPull { keep: bool },
    /// They fetch; batches committed meanwhile follow.
    Pulling { tail: Option<Vec<(BatchId, Batch)>> },
    /// They are ahead: to be fetched once no batch of the account is in flight (X12). `keep`: our branch is archived
    /// first, because it is part of their state but not of their chain.
    /// `mine`: our version when that was found; a change since then is not to be overwritten.
    WantFetch { keep: bool, mine: Version },
    /// We fetch, the account is locked.
    Fetching,
    /// Both changed: to be merged once no batch of the account is in flight; their chain.
    WantMerge(Side),
    /// Locked, our own chain is being read for the merge.
    MergeChain(Side),
    /// Locked, their branch is to be fetched.
    WantBranch(Plan),
    /// Their branch is being fetched.
    Branch(Plan),
    /// The driver merges, or the result is being written. The other changed nothing: its version is one of our chain.
    Merging { silent: bool },
    /// Cannot be merged: to be archived once no batch of the account is in flight.
    WantArchive,
    /// Both nodes archive their branch.
    Archiving { own: u64, mine: bool, theirs: bool, floor: u32 },
    /// UIDVALIDITY is being raised here.
    Raising,
}

/// A comparison this node leads.
#[derive(Debug)]
pub(crate) struct Compare {
    pub(crate) session: u64,
    pub(crate) epoch: EpochId,
    pub(crate) heal: bool,
    pub(crate) theirs: BTreeMap<AccountId, Version>,
    /// Their whole list has come.
    pub(crate) known: bool,
    pub(crate) todo: BTreeMap<AccountId, Step>,
    pub(crate) locked: BTreeSet<AccountId>,
    /// They showed nothing while a data member was missing.
    pub(crate) unmarked: bool,
    /// Ours contains what they have: they fetch, or did.
    contained: BTreeSet<AccountId>,
    /// Streamed to the guest, not acknowledged.
    pub(crate) streaming: Vec<(BatchId, Vec<AccountId>)>,
}

impl Compare {
    pub fn left(&self) -> u64 {
        self.todo.len() as u64
    }
    pub fn todo_accounts(&self) -> impl Iterator<Item = AccountId> + '_ {
        self.todo.keys().copied()
    }
    /// Nothing is left but what is on its way.
    pub fn is_near(&self) -> bool {
        self.known && self.todo.is_empty()
    }
    pub fn is_level(&self) -> bool {
        self.is_near() && self.streaming.is_empty()
    }
    pub fn is_heal(&self) -> bool {
        self.heal
    }
    /// Parts of one batch may go at different times; they are answered in order.
    pub fn take_streamed(&mut self, id: BatchId) -> Option<Vec<AccountId>> {
        let at = self.streaming.iter().position(|(b, _)| *b == id)?;
        Some(self.streaming.remove(at).1)
    }
    /// Batches of this account are on their way to the other.
    fn streams(&self, account: AccountId) -> bool {
        self.streaming.iter().any(|(_, accounts)| accounts.contains(&account))
    }
    pub(crate) fn theirs(&self, account: AccountId) -> Version {
        self.theirs.get(&account).copied().unwrap_or_default()
    }
}

impl Replica {
    /// Opens a comparison with everybody who needs one and is in the same epoch.
    pub(crate) fn start_compares(&mut self) {
        let Some(record) = self.record.as_ref().filter(|r| r.is_home(self.config.node)) else { return };
        if self.entering.is_some() || self.is_superseded() || self.guest.is_switching() || self.is_moving() {
            return;
        }
        let (epoch, members) = (record.id, self.commit_peers());
        let level = |id: &NodeId| self.peers.get(id).is_some_and(|p| p.level);
        // The guest comes after the others of the in-sync set.
        let settled = members.is_empty() || (self.led == Some(epoch) && members.iter().all(level));
        let heals = record.kind == EpochKind::Heal && settled;
        let guest = record.guest.filter(|guest| heals && !members.contains(guest));
        let wanted: Vec<NodeId> = members.into_iter().chain(guest).collect();
        for id in wanted {
            let heal = guest == Some(id);
            let fits = self.peers.get(&id).is_some_and(|p| p.hello && !p.level && p.epoch() == Some(epoch));
            if !fits || self.compares.contains_key(&id) {
                continue;
            }
            if !heal && !self.keeps(Rule::Comparing) {
                self.set_level(id);
                continue;
            }
            self.previous = None;
            let session = self.number();
            self.say(id, Kind::AskVersions(link::AskVersions { session, epoch: Some(message::epoch_to(epoch)) }));
            let compare = Compare {
                session,
                epoch,
                heal,
                theirs: BTreeMap::new(),
                known: false,
                unmarked: false,
                todo: BTreeMap::new(),
                locked: BTreeSet::new(),
                contained: BTreeSet::new(),
                streaming: Vec::new(),
            };
            self.compares.insert(id, compare);
            self.log(format!("comparing with node {} in epoch {epoch}", id.0));
        }
    }

    /// The comparison is over without a result; locks are given back.
    pub(crate) fn stop_compare(&mut self, peer: NodeId) {
        let compare = self.compares.remove(&peer);
        if self.compares.is_empty() {
            self.wanted.clear();
        }
        let Some(compare) = compare else { return };
        self.stop_fetches(peer, false);
        for flight in self.flights.values_mut().filter(|f| f.owner == Some(peer)) {
            // One that is under way ends as an ordinary batch, which frees the account.
            flight.owner = None;
            if let Stage::Computing { stale } = &mut flight.stage {
                *stale = true;
            }
        }
        for account in compare.locked {
            let raising = self.flights.values().any(|f| f.accounts.contains(&account));
            // One that is being replaced stays out of ordering until that is written.
            if !raising && !self.guest.switches(account) {
                self.orders.release(account);
            }
        }
        self.hold = None;
    }

    pub(crate) fn compare(&mut self, peer: NodeId, session: u64) -> Option<&mut Compare> {
        self.compares.get_mut(&peer).filter(|c| c.session == session)
    }

    /// `None` when it makes no sense.
    pub(crate) fn on_have_versions(&mut self, peer: NodeId, have: &link::HaveVersions) -> Option<()> {
        let list = message::versions_from(&have.accounts)?;
        if let Some(compare) = self.compare(peer, have.session) {
            compare.theirs.extend(list);
            compare.unmarked = have.unmarked;
            if have.last {
                self.on_all_versions(peer);
            }
        }
        Some(())
    }

    fn on_all_versions(&mut self, peer: NodeId) {
        let Some(compare) = self.compares.get_mut(&peer) else { return };
        compare.known = true;
        let theirs = compare.theirs.clone();
        let mine = self.versions.iter().flatten().map(|(a, _)| *a);
        // Each home compares the accounts of its own shards.
        let all = mine.chain(theirs.keys().copied()).filter(|account| self.orders_account(*account));
        let all: BTreeSet<AccountId> = all.collect();
        let now = self.now;
        let differ: Vec<AccountId> =
            all.into_iter().filter(|a| !self.is_level(*a, theirs.get(a).copied().unwrap_or_default())).collect();
        self.log(format!("node {} differs in {} accounts", peer.0, differ.len()));
        if let Some(compare) = self.compares.get_mut(&peer) {
            if compare.heal && self.apart.is_none() {
                let had = |a: &AccountId| (*a, theirs.get(a).copied().unwrap_or_default());
                self.apart = Some(differ.iter().map(had).collect());
            }
            compare.todo = differ.into_iter().map(|a| (a, Step::Start(now))).collect();
        }
        let compares = &self.compares;
        self.wanted.retain(|account, _| compares.values().any(|c| c.todo.contains_key(account)));
    }

    /// Equal, or ahead by just the batch that is in flight to it.
    fn is_level(&self, account: AccountId, theirs: Version) -> bool {
        let flight = self.flights.values().find(|f| f.batch.is_some() && f.accounts.contains(&account));
        let has_it = flight.and_then(|f| f.next(account)).is_some_and(|next| next == theirs);
        // One that is being written here counts as written; one that only was sent goes out again.
        has_it || (theirs == self.version(account) && flight.is_none_or(|f| f.stage == Stage::Sent))
    }

    /// Goes on with every account that can go on.
    pub(crate) fn step_compares(&mut self) {
        let peers: Vec<NodeId> = self.compares.keys().copied().collect();
        for peer in peers {
            let now = self.now;
            let ready = |s: &Step| match s {
                Step::Start(at) => *at <= now,
                Step::WantFetch { .. } | Step::WantMerge(_) | Step::WantBranch(_) | Step::WantArchive => true,
                _ => false,
            };
            let Some(compare) = self.compares.get(&peer) else { continue };
            let last = compare.todo.len() == 1;
            let ready = |s: &Step| ready(s) || (last && matches!(s, Step::WantPull { .. }));
            let under_way = |s: &&Step| !matches!(s, Step::Start(_) | Step::Pulling { .. });
            let mut room = STARTS_MAX.saturating_sub(compare.todo.values().filter(under_way).count());
            let wanted = self.wanted.keys().filter_map(|account| compare.todo.get_key_value(account));
            let rest = compare.todo.iter().filter(|(account, _)| !self.wanted.contains_key(account));
            let next = wanted.chain(rest).filter(|(account, step)| match step {
                // What is on its way to the other would change what is fetched there.
                Step::Start(_) if ready(step) && room > 0 && !compare.streams(**account) => {
                    room -= 1;
                    true
                }
                Step::Start(_) => false,
                _ => ready(step),
            });
            let accounts: Vec<AccountId> = next.map(|(account, _)| *account).collect();
            for account in accounts {
                self.step_account(peer, account);
            }
            self.finish_compare(peer);
        }
    }

    /// Whether a client's interest in this account would change anything.
    #[must_use]
    pub fn is_behind(&self, account: AccountId) -> bool {
        let compared = self.compares.values().any(|compare| compare.todo.contains_key(&account));
        (compared || self.lacks_branch(account)) && !self.wanted.contains_key(&account)
    }

    /// A client asked for this account.
    pub(crate) fn want(&mut self, account: AccountId) {
        if self.is_behind(account) {
            self.wanted.insert(account, self.now);
        }
    }

    /// The guest of a heal led here, as long as it is in touch and has not got the join mark.
    #[must_use]
    pub fn guest_in_touch(&self) -> Option<NodeId> {
        let record = self.record.as_ref().filter(|r| r.kind == EpochKind::Heal && r.home == self.me())?;
        let linked = |guest: &NodeId| self.peers.get(guest).is_some_and(|p| p.link.is_some());
        record.guest.filter(|guest| linked(guest) && !self.commit_peers().contains(guest))
    }

    /// Whether the guest of a heal may hold a branch of this account that is not part of our state (H28).
    fn lacks_branch(&self, account: AccountId) -> bool {
        let Some(guest) = self.guest_in_touch() else { return false };
        let Some(compare) = self.compares.get(&guest).filter(|c| c.known) else { return true };
        let open = compare.todo.contains_key(&account) && !compare.contained.contains(&account);
        open && compare.theirs(account) != Version::default()
    }

    /// Whether a reader of this account waits for the merge: clients of the guest would see their mail vanish (H28). Not
    /// for ever: a merge that does not come about must not take the account away.
    pub(crate) fn reads_wait(&self, account: AccountId, now: Instant) -> bool {
        let patient = |since: &Instant| now.since(*since) < limits::HEAL_READ_WAIT_MAX_MS;
        self.keeps(Rule::MergedReads) && self.lacks_branch(account) && self.wanted.get(&account).is_none_or(patient)
    }

    pub(crate) fn set_step(&mut self, peer: NodeId, account: AccountId, step: Step) {
        if let Some(compare) = self.compares.get_mut(&peer) {
            compare.todo.insert(account, step);
        }
    }

    pub(crate) fn again(&mut self, peer: NodeId, account: AccountId, wait_ms: u64) {
        self.unlock(peer, account);
        self.set_step(peer, account, Step::Start(self.now.plus_ms(wait_ms)));
    }

    fn level(&mut self, peer: NodeId, account: AccountId) {
        self.unlock(peer, account);
        self.wanted.remove(&account);
        if let Some(compare) = self.compares.get_mut(&peer) {
            compare.todo.remove(&account);
            if compare.heal
                && let Some(apart) = &mut self.apart
            {
                apart.remove(&account);
            }
        }
    }

    fn lock(&mut self, peer: NodeId, account: AccountId) -> bool {
        let finish_first = self.keeps(Rule::FinishFirst);
        let Some(compare) = self.compares.get_mut(&peer) else { return false };
        if compare.locked.contains(&account) {
            return true;
        }
        let free = self.orders.lock(account) || !finish_first;
        if free {
            compare.locked.insert(account);
        }
        free
    }

    fn unlock(&mut self, peer: NodeId, account: AccountId) {
        let Some(compare) = self.compares.get_mut(&peer) else { return };
        if compare.locked.remove(&account) {
            self.orders.release(account);
        }
    }

    fn step_account(&mut self, peer: NodeId, account: AccountId) {
        let Some(compare) = self.compares.get(&peer) else { return };
        let (theirs, session) = (compare.theirs(account), compare.session);
        match compare.todo.get(&account) {
            Some(Step::Start(_)) => self.start_account(peer, account, theirs),
            Some(Step::WantFetch { keep, mine }) => {
                let (keep, mine) = (*keep, *mine);
                if self.guest.fetches.len() < FETCHES_MAX && self.lock_for_fetch(peer, account) {
                    if self.version(account) != mine {
                        return self.again(peer, account, 0);
                    }
                    self.set_step(peer, account, Step::Fetching);
                    self.fetch(FetchJob::new(account, peer, session, Why::Takeover { keep }));
                }
            }
            Some(Step::WantPull { keep }) => {
                let keep = *keep;
                self.begin_pull(peer, account, keep);
            }
            Some(Step::WantMerge(_)) => self.begin_merge(peer, account),
            Some(Step::WantBranch(_)) => self.fetch_branch(peer, account, session),
            Some(Step::WantArchive) => self.begin_archive(peer, account, session),
            _ => {}
        }
    }

    fn start_account(&mut self, peer: NodeId, account: AccountId, theirs: Version) {
        if self.is_level(account, theirs) {
            self.level(peer, account);
        } else if theirs == Version::default() {
            self.order_pull(peer, account, false);
        } else if self.version(account) == Version::default() {
            self.set_step(peer, account, Step::WantFetch { keep: false, mine: Version::default() });
            self.step_account(peer, account);
        } else {
            self.set_step(peer, account, Step::OwnChain);
            self.outputs.push_back(Output::ReadChain { account });
        }
    }

    /// A batch that was sent before the link broke cannot be finished on a state that is to be replaced. One that is being
    /// written, with an epoch that waits for nobody (X6), will be part of that state.
    pub(crate) fn lock_for_fetch(&mut self, peer: NodeId, account: AccountId) -> bool {
        let sent = |f: &crate::commit::Flight| {
            f.stage == Stage::Sent && f.accounts.contains(&account) && f.waiting.contains(&peer)
        };
        let stuck: Vec<BatchId> = self.flights.iter().filter(|(_, f)| sent(f)).map(|(id, _)| *id).collect();
        for id in stuck {
            self.abandon(id);
        }
        self.lock(peer, account)
    }

    /// Our state contains theirs: they fetch. A guest takes the queue last: its accept records are settled in ours, and until
    /// it has the accounts whose mail they promise it keeps its own, which it would place once more if it had to go on alone.
    pub(crate) fn order_pull(&mut self, peer: NodeId, account: AccountId, keep_branch: bool) {
        self.unlock(peer, account);
        let Some(compare) = self.compares.get_mut(&peer) else { return };
        compare.contained.insert(account);
        if account == AccountId::QUEUE && compare.heal && self.config.without != Some(Rule::QueueLast) {
            self.set_step(peer, account, Step::WantPull { keep: keep_branch });
        } else {
            self.begin_pull(peer, account, keep_branch);
        }
    }

    fn begin_pull(&mut self, peer: NodeId, account: AccountId, keep_branch: bool) {
        let Some(session) = self.compares.get(&peer).map(|c| c.session) else { return };
        self.set_step(peer, account, Step::Pulling { tail: Some(Vec::new()) });
        self.say(peer, Kind::Pull(link::Pull { session, account: account.0, keep_branch }));
    }

    pub(crate) fn on_now(&mut self, peer: NodeId, session: u64, account: AccountId, version: Version) {
        let mine = self.version(account);
        let Some(compare) = self.compare(peer, session) else { return };
        let failed = compare.theirs(account) == version;
        compare.theirs.insert(account, version);
        let Some(Step::Pulling { tail }) = compare.todo.get_mut(&account) else { return };
        let tail = tail.take().unwrap_or_default();
        let starts = |(_, b): &(BatchId, Batch)| b.accounts.iter().any(|a| a.expected == version);
        if version == mine {
            self.level(peer, account);
        } else if let Some(from) = tail.iter().position(starts) {
            self.level(peer, account);
            for (id, batch) in tail.into_iter().skip(from) {
                self.stream_to(peer, id, &batch);
            }
        } else {
            self.again(peer, account, if failed { RETRY_MS } else { 0 });
        }
    }

    pub(crate) fn on_own_switch(&mut self, peer: NodeId, session: u64, account: AccountId) {
        let Some(compare) = self.compare(peer, session) else {
            self.orders.release(account);
            return;
        };
        if matches!(compare.todo.get(&account), Some(Step::Fetching)) {
            self.again(peer, account, 0);
        }
    }

    /// X3, X13: what is taken over from one node is not on the others yet. They are compared again before anything is
    /// ordered, served or granted.
    pub(crate) fn unlevel_others(&mut self, from: NodeId) {
        let others: Vec<NodeId> = self.commit_peers().into_iter().filter(|id| *id != from).collect();
        if others.is_empty() || !self.keeps(Rule::LevelOthers) {
            return;
        }
        self.led = None;
        for id in others {
            self.stop_compare(id);
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.level = false;
                peer.told = None;
            }
        }
    }

    pub(crate) fn on_own_fetch_failed(&mut self, peer: NodeId, account: AccountId) {
        self.again(peer, account, RETRY_MS);
    }

    /// Between members of the in-sync set being level is enough; a heal ends with the join mark.
    fn finish_compare(&mut self, peer: NodeId) {
        if !self.compares.get(&peer).is_some_and(|c| !c.heal && c.is_level()) {
            return;
        }
        self.stop_compare(peer);
        self.set_level(peer);
    }

    /// The peer holds what we hold: unfinished batches go out again, as they are.
    pub(crate) fn set_level(&mut self, peer: NodeId) {
        let Some(record) = &self.record else { return };
        let id = record.id;
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.level = true;
            peer.told = None;
        }
        let all = self.commit_peers().iter().all(|p| self.peers.get(p).is_some_and(|p| p.level));
        if all {
            self.led = Some(id);
        }
        self.log(format!("node {} is level in epoch {id}", peer.0));
        self.tell_compared();
        let waits: Vec<BatchId> =
            self.flights.iter().filter(|(_, f)| f.waiting.contains(&peer)).map(|(id, _)| *id).collect();
        for id in waits {
            self.send_flight(peer, id);
        }
    }

    /// A backup that is level and in our epoch hears that what it holds is confirmed, but for what is in flight.
    pub(crate) fn tell_compared(&mut self) {
        let Some(record) = self.record.as_ref().filter(|r| r.is_home(self.config.node)) else { return };
        let id = record.id;
        if self.led != Some(id) || self.entering.is_some() {
            return;
        }
        let untold = |p: &crate::link::Peer| p.level && p.epoch() == Some(id) && p.told != Some(id);
        if !self.peers.values().any(untold) {
            return;
        }
        // What is only being computed may come to nothing, and then nobody would confirm what the backup holds.
        let sent = self.flights.values().filter(|f| f.batch.is_some());
        let in_flight: BTreeSet<u64> = sent.flat_map(|f| &f.accounts).map(|a| a.0).collect();
        for peer in self.peers.values_mut() {
            if untold(peer) {
                peer.told = Some(id);
                let in_flight = in_flight.iter().copied().collect();
                peer.say(Kind::Compared(link::Compared { session: 0, epoch: Some(message::epoch_to(id)), in_flight }));
            }
        }
    }
}
