//! The other side of a comparison: says what this disk holds, fetches what it is told to fetch, archives its branch.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use vocab::{AccountBatch, AccountHead, AccountId, EpochId, NodeId, PastLink, StoreWrite, Version};
use wire::link::{self, item::Kind};

use crate::merge::Side;
use crate::output::Output;
use crate::{Pending, Replica, message};

/// Accounts fetched at the same time.
pub(crate) const FETCHES_MAX: usize = 4;

/// What a fetch is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// Told to by the home. `keep`: our own branch is archived before it is switched away.
    Asked { keep: bool },
    /// This node is the home and takes over what the other has; `keep` as above.
    Takeover { keep: bool },
    /// This node is the home and merges the other's branch.
    Merge,
}

impl Why {
    pub const fn is_asked(self) -> bool {
        matches!(self, Self::Asked { .. })
    }
    const fn keeps(self) -> bool {
        matches!(self, Self::Asked { keep: true } | Self::Takeover { keep: true })
    }
}

/// What came of a fetch.
#[derive(Clone, Debug)]
struct Staged {
    head: AccountHead,
    delta: Option<Box<AccountBatch>>,
    past: Vec<PastLink>,
    /// Archiving of our own branch, which comes first.
    archive: u64,
}

/// A fetch under way.
#[derive(Clone, Debug)]
pub(crate) struct FetchJob {
    pub account: AccountId,
    pub from: NodeId,
    pub session: u64,
    pub why: Why,
    /// It is done and waits for the archive.
    staged: Option<Staged>,
}

impl FetchJob {
    pub const fn new(account: AccountId, from: NodeId, session: u64, why: Why) -> Self {
        Self { account, from, session, why, staged: None }
    }
}

/// Work for the node that compares with us.
#[derive(Debug, Default)]
pub(crate) struct Guest {
    /// The comparisons this node takes part in, by the home that leads each.
    sessions: BTreeMap<NodeId, u64>,
    /// Their opening questions, until everything accepted is written.
    asked: BTreeMap<NodeId, (u64, EpochId)>,
    pulls: VecDeque<(NodeId, AccountId, bool)>,
    pub fetches: BTreeMap<u64, FetchJob>,
    /// Accounts being switched.
    switching: BTreeSet<AccountId>,
    chains: VecDeque<(NodeId, u64, AccountId)>,
    archives: BTreeMap<u64, (NodeId, u64, AccountId)>,
}

impl Guest {
    /// Accounts are being replaced right now; that cannot be stopped.
    pub fn is_switching(&self) -> bool {
        !self.switching.is_empty()
    }
    pub fn switches(&self, account: AccountId) -> bool {
        self.switching.contains(&account)
    }
    pub fn switched(&mut self, account: AccountId) {
        self.switching.remove(&account);
    }
    /// The account is about to be replaced: no batch fits it.
    pub fn is_busy(&self, account: AccountId) -> bool {
        self.switching.contains(&account) || self.fetches.values().any(|f| f.account == account)
    }
}

impl Replica {
    pub(crate) fn on_ask_versions(&mut self, from: NodeId, session: u64, epoch: EpochId) {
        self.stop_guest(from);
        self.guest.asked.insert(from, (session, epoch));
        self.follow.compared.remove(&from);
        self.forget_waiting(Some(from));
    }

    /// Only what is written counts, and only between nodes in one epoch.
    pub(crate) fn answer_versions(&mut self) {
        let Some(record) = self.record.as_ref().filter(|_| self.entering.is_none()) else { return };
        if self.guest.asked.is_empty() || self.guest.is_switching() {
            return;
        }
        let fits = |from: &NodeId, epoch: EpochId| {
            let led = record.id == epoch && record.is_home(*from) && *from != self.config.node;
            led && self.is_idle_for(*from)
        };
        let ready = self.guest.asked.iter().filter(|(from, (_, epoch))| fits(from, *epoch));
        let ready: Vec<(NodeId, u64)> = ready.map(|(from, (session, _))| (*from, *session)).collect();
        for (from, session) in ready {
            // From here on this home knows what we have: nothing comes from before a move any more.
            self.previous = None;
            self.guest.asked.remove(&from);
            self.guest.sessions.insert(from, session);
            self.say_versions(from, session);
        }
    }

    /// The link, the epoch or the comparison is over.
    pub(crate) fn stop_guest(&mut self, peer: NodeId) {
        self.guest.asked.remove(&peer);
        if self.guest.sessions.remove(&peer).is_none() {
            return;
        }
        self.guest.pulls.retain(|(p, ..)| *p != peer);
        self.guest.chains.retain(|(p, _, _)| *p != peer);
        self.guest.archives.retain(|_, (p, _, _)| *p != peer);
        self.stop_fetches(peer, true);
    }

    /// Another epoch is in effect: who led a comparison in an older one, and may not know of this one yet, tells this node
    /// nothing any more. What was asked for this epoch is answered.
    pub(crate) fn stop_guests(&mut self) {
        let asked = std::mem::take(&mut self.guest.asked);
        let leading: Vec<NodeId> = self.guest.sessions.keys().copied().collect();
        for peer in leading {
            self.stop_guest(peer);
        }
        self.guest.asked = asked;
    }

    pub(crate) fn stop_fetches(&mut self, peer: NodeId, asked: bool) {
        let over: Vec<u64> = self
            .guest
            .fetches
            .iter()
            .filter(|(_, f)| f.from == peer && f.why.is_asked() == asked)
            .map(|(n, _)| *n)
            .collect();
        for fetch in over {
            self.guest.fetches.remove(&fetch);
            self.outputs.push_back(Output::StopFetch { fetch });
        }
    }

    fn in_session(&self, peer: NodeId, session: u64) -> bool {
        self.guest.sessions.get(&peer) == Some(&session) && self.entering.is_none()
    }

    pub(crate) fn on_ask_chain(&mut self, from: NodeId, session: u64, account: AccountId) {
        if self.in_session(from, session) {
            self.guest.chains.push_back((from, session, account));
            self.outputs.push_back(Output::ReadChain { account });
        }
    }

    /// Answers the peer's question, if it was one.
    pub(crate) fn say_chain(&mut self, account: AccountId, mine: &Side) {
        let asks = |q: &&(NodeId, u64, AccountId)| q.2 == account;
        let Some((to, session, _)) = self.guest.chains.iter().find(asks).copied() else { return };
        self.guest.chains.retain(|q| q.2 != account);
        self.say(to, Kind::Chain(mine.to_wire(session, account)));
    }

    pub(crate) fn on_pull(&mut self, from: NodeId, session: u64, account: AccountId, keep: bool) {
        if self.in_session(from, session) {
            self.guest.pulls.push_back((from, account, keep));
            self.step_pulls();
        }
    }

    pub(crate) fn step_pulls(&mut self) {
        while self.guest.fetches.len() < FETCHES_MAX {
            let Some((from, account, keep)) = self.guest.pulls.pop_front() else { return };
            let Some(session) = self.guest.sessions.get(&from).copied() else { continue };
            self.fetch(FetchJob::new(account, from, session, Why::Asked { keep }));
        }
    }

    pub(crate) fn fetch(&mut self, job: FetchJob) {
        let fetch = self.number();
        let (account, from) = (job.account, job.from);
        self.outputs.push_back(if job.why == Why::Merge {
            Output::FetchBranch { fetch, account, from }
        } else {
            Output::Fetch { fetch, account, from }
        });
        self.guest.fetches.insert(fetch, job);
    }

    pub(crate) fn on_fetched(
        &mut self,
        fetch: u64,
        head: AccountHead,
        delta: Option<Box<AccountBatch>>,
        past: Vec<PastLink>,
    ) {
        let Some(job) = self.guest.fetches.get(&fetch) else { return };
        let (account, why, mine) = (job.account, job.why, self.version(job.account));
        if why == Why::Merge {
            if let Some(job) = self.guest.fetches.remove(&fetch) {
                self.on_branch(&job, fetch, head.version);
            }
            return;
        }
        let leads = past.last().is_some_and(|link| link.version == head.version);
        let fits = |d: &AccountBatch| d.account == account && d.expected == mine && d.head == head && leads;
        if delta.as_ref().is_some_and(|d| !fits(d)) || (!past.is_empty() && !leads) {
            self.log(format!("what was fetched of account {} does not continue its state", account.0));
            self.on_fetch_failed(fetch);
            return;
        }
        let keep = why.keeps() && mine != Version::default();
        let archive = self.number();
        if let Some(job) = self.guest.fetches.get_mut(&fetch) {
            job.staged = Some(Staged { head, delta, past, archive });
        }
        if keep {
            self.outputs.push_back(Output::ArchiveBranch { archive, account, from: None });
        } else {
            self.switch(fetch);
        }
    }

    fn switch(&mut self, fetch: u64) {
        // Its write would come behind that of the epoch, under which the account may be this node's own to change.
        if self.entering.is_some() {
            self.outputs.push_back(Output::StopFetch { fetch });
            return self.on_fetch_failed(fetch);
        }
        let Some(FetchJob { account, from, session, why, staged: Some(staged) }) = self.guest.fetches.remove(&fetch)
        else {
            return;
        };
        let version = staged.head.version;
        if !why.is_asked() {
            self.unlevel_others(from);
        }
        self.guest.switching.insert(account);
        let part = match staged.delta {
            Some(delta) => StoreWrite::Advance { batch: *delta, past: staged.past },
            None => StoreWrite::Switch { account, head: staged.head, past: staged.past },
        };
        self.write(vec![part], Pending::Switch { account, version, session, peer: from, asked: why.is_asked() });
        self.step_pulls();
    }

    pub(crate) fn on_fetch_failed(&mut self, fetch: u64) {
        let Some(job) = self.guest.fetches.remove(&fetch) else { return };
        if job.why.is_asked() {
            self.say_now(job.from, job.session, job.account);
            self.step_pulls();
        } else {
            self.on_own_fetch_failed(job.from, job.account);
        }
    }

    /// The fetch that waits for this archive.
    fn fetch_behind(&self, archive: u64) -> Option<u64> {
        let waits = |f: &FetchJob| f.staged.as_ref().is_some_and(|s| s.archive == archive);
        self.guest.fetches.iter().find(|(_, f)| waits(f)).map(|(fetch, _)| *fetch)
    }

    /// Tells the home what this node holds now, whether or not the fetch came to anything.
    pub(crate) fn say_now(&mut self, to: NodeId, session: u64, account: AccountId) {
        if self.guest.sessions.get(&to) == Some(&session) {
            let version = message::bytes(&self.version(account));
            self.say(to, Kind::Now(link::Now { session, account: account.0, version }));
        }
    }

    pub(crate) fn on_archive(&mut self, from: NodeId, session: u64, account: AccountId) {
        if self.in_session(from, session) {
            let archive = self.number();
            self.guest.archives.insert(archive, (from, session, account));
            self.outputs.push_back(Output::ArchiveBranch { archive, account, from: None });
        }
    }

    pub(crate) fn on_archived(&mut self, archive: u64, head: AccountHead) {
        if let Some(fetch) = self.fetch_behind(archive) {
            self.switch(fetch);
            return;
        }
        let Some((to, session, account)) = self.guest.archives.remove(&archive) else {
            self.on_own_archive(archive, &head);
            return;
        };
        let done = link::Archived {
            session,
            account: account.0,
            version: message::bytes(&head.version),
            uidvalidity: head.uidvalidity,
        };
        self.say(to, Kind::Archived(done));
    }

    pub(crate) fn on_archive_failed(&mut self, archive: u64) {
        if let Some(fetch) = self.fetch_behind(archive) {
            self.outputs.push_back(Output::StopFetch { fetch });
            self.on_fetch_failed(fetch);
            return;
        }
        match self.guest.archives.remove(&archive) {
            // The anchor sees an answer with another version and starts this account again.
            Some((to, session, account)) => {
                let version = message::bytes(&Version::default());
                self.say(to, Kind::Archived(link::Archived { session, account: account.0, version, uidvalidity: 0 }));
            }
            None => self.on_own_archive_failed(archive),
        }
    }
}
