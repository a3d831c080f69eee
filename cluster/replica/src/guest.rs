//! The other side of a comparison: says what this disk holds, fetches what it is told to fetch, archives its branch.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use vocab::{AccountHead, AccountId, EpochId, NodeId, StoreWrite, Version};
use wire::link::{self, item::Kind};

use crate::output::Output;
use crate::{Pending, Replica, message};

/// Accounts fetched at the same time.
pub(crate) const FETCHES_MAX: usize = 4;

/// A fetch under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FetchJob {
    pub account: AccountId,
    pub from: NodeId,
    pub session: u64,
    /// Told to by the home (else this node is the home and takes over what the other has).
    pub asked: bool,
}

/// Work for the node that compares with us.
#[derive(Debug, Default)]
pub(crate) struct Guest {
    /// The comparison this node takes part in.
    session: Option<(NodeId, u64)>,
    /// Its opening question, until everything accepted is written.
    asked: Option<(NodeId, u64, EpochId)>,
    pulls: VecDeque<AccountId>,
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
        self.guest.asked = Some((from, session, epoch));
        self.follow.compared = false;
        self.forget_waiting();
    }

    /// Only what is written counts, and only between nodes in one epoch.
    pub(crate) fn answer_versions(&mut self) {
        let Some((from, session, epoch)) = self.guest.asked else { return };
        let record = self.record.as_ref().filter(|r| r.id == epoch && r.home == from && from != self.config.node);
        if record.is_none() || self.entering.is_some() || !self.follow.is_idle() || self.guest.is_switching() {
            return;
        }
        self.guest.asked = None;
        self.guest.session = Some((from, session));
        self.say_versions(from, session);
    }

    /// The link, the epoch or the comparison is over.
    pub(crate) fn stop_guest(&mut self, peer: NodeId) {
        if self.guest.asked.is_some_and(|(p, ..)| p == peer) {
            self.guest.asked = None;
        }
        if self.guest.session.is_none_or(|(p, _)| p != peer) {
            return;
        }
        self.guest.session = None;
        self.guest.pulls.clear();
        self.guest.chains.retain(|(p, _, _)| *p != peer);
        self.guest.archives.retain(|_, (p, _, _)| *p != peer);
        self.stop_fetches(peer, true);
    }

    pub(crate) fn stop_fetches(&mut self, peer: NodeId, asked: bool) {
        let over: Vec<u64> =
            self.guest.fetches.iter().filter(|(_, f)| f.from == peer && f.asked == asked).map(|(n, _)| *n).collect();
        for fetch in over {
            self.guest.fetches.remove(&fetch);
            self.outputs.push_back(Output::StopFetch { fetch });
        }
    }

    fn in_session(&self, peer: NodeId, session: u64) -> bool {
        self.guest.session == Some((peer, session)) && self.entering.is_none()
    }

    pub(crate) fn on_ask_chain(&mut self, from: NodeId, session: u64, account: AccountId) {
        if self.in_session(from, session) {
            self.guest.chains.push_back((from, session, account));
            self.outputs.push_back(Output::ReadChain { account });
        }
    }

    /// Answers the peer's question, if it was one.
    pub(crate) fn say_chain(&mut self, account: AccountId, versions: &[Version], lineage: &[Version]) {
        let mine = |q: &&(NodeId, u64, AccountId)| q.2 == account;
        let Some((to, session, _)) = self.guest.chains.iter().find(mine).copied() else { return };
        self.guest.chains.retain(|q| q.2 != account);
        let versions = versions.iter().map(message::bytes).collect();
        let lineage = lineage.iter().map(message::bytes).collect();
        self.say(to, Kind::Chain(link::Chain { session, account: account.0, versions, lineage }));
    }

    pub(crate) fn on_pull(&mut self, from: NodeId, session: u64, account: AccountId) {
        if self.in_session(from, session) {
            self.guest.pulls.push_back(account);
            self.step_pulls();
        }
    }

    fn step_pulls(&mut self) {
        let Some((from, session)) = self.guest.session else { return };
        while self.guest.fetches.len() < FETCHES_MAX {
            let Some(account) = self.guest.pulls.pop_front() else { return };
            self.fetch(FetchJob { account, from, session, asked: true });
        }
    }

    pub(crate) fn fetch(&mut self, job: FetchJob) {
        let fetch = self.number();
        self.guest.fetches.insert(fetch, job);
        self.outputs.push_back(Output::Fetch { fetch, account: job.account, from: job.from });
    }

    pub(crate) fn on_fetched(&mut self, fetch: u64, head: AccountHead) {
        let Some(job) = self.guest.fetches.remove(&fetch) else { return };
        let version = head.version;
        self.guest.switching.insert(job.account);
        let FetchJob { account, from, session, asked } = job;
        self.write(
            vec![StoreWrite::Switch { account, head }],
            Pending::Switch { account, version, session, peer: from, asked },
        );
        self.step_pulls();
    }

    pub(crate) fn on_fetch_failed(&mut self, fetch: u64) {
        let Some(job) = self.guest.fetches.remove(&fetch) else { return };
        if job.asked {
            self.say_now(job.from, job.session, job.account);
            self.step_pulls();
        } else {
            self.on_own_fetch_failed(job.from, job.account);
        }
    }

    /// Tells the home what this node holds now, whether or not the fetch came to anything.
    pub(crate) fn say_now(&mut self, to: NodeId, session: u64, account: AccountId) {
        if self.guest.session == Some((to, session)) {
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
