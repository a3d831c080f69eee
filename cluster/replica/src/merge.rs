//! An account that changed on both nodes is merged at the node that leads the comparison (DESIGN 7): the last batch is
//! finished and the account locked (X12), the base chosen from both chains, the other's branch fetched, and the result
//! committed like any batch, also to the rest of the in-sync set (X13); then the other fetches it.

use std::collections::BTreeSet;

use vocab::{AccountId, Batch, BatchId, ChainLink, NodeId, Version};
use wire::link;

use crate::commit::Flight;
use crate::compare::{RETRY_MS, Step};
use crate::config::Rule;
use crate::guest::{FETCHES_MAX, FetchJob, Why};
use crate::output::{MergeBase, Output};
use crate::{Replica, message};

/// What one side says of an account: its chain, the branches in it, whether clients were shown numbers of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Side {
    pub links: Vec<ChainLink>,
    pub lineage: Vec<Version>,
    pub served: bool,
    /// Its node was alone in no epoch since the last one with every data member in sync.
    pub never_alone: bool,
}

impl Side {
    /// `None` when a version is none. What is not said of a link is "no".
    pub fn from_wire(wire: &link::Chain) -> Option<Self> {
        let undo = wire.undo.iter().copied().chain(std::iter::repeat(false));
        let links = wire.versions.iter().zip(undo).map(|(version, undo)| {
            let version = Version::from_bytes(version)?;
            Some(ChainLink { version, undo })
        });
        let lineage = wire.lineage.iter().map(|version| Version::from_bytes(version));
        let (links, lineage) = (links.collect::<Option<_>>()?, lineage.collect::<Option<_>>()?);
        Some(Self { links, lineage, served: wire.served, never_alone: wire.never_alone })
    }

    pub fn to_wire(&self, session: u64, account: AccountId) -> link::Chain {
        link::Chain {
            session,
            account: account.0,
            versions: self.links.iter().map(|l| message::bytes(&l.version)).collect(),
            lineage: self.lineage.iter().map(message::bytes).collect(),
            undo: self.links.iter().map(|l| l.undo).collect(),
            served: self.served,
            never_alone: self.never_alone,
        }
    }

    pub fn position(&self, version: Version) -> Option<usize> {
        self.links.iter().rposition(|l| l.version == version)
    }

    /// Whether its state contains that of `version`.
    pub fn knows(&self, version: Version) -> bool {
        self.position(version).is_some() || self.lineage.contains(&version)
    }

    /// Whether the state at `version` can be restored: every link after it has undo rows.
    fn restores(&self, version: Version) -> bool {
        self.position(version).is_some_and(|at| self.links.iter().skip(at + 1).all(|l| l.undo))
    }

    /// Whether every batch since the account was made is on the chain, with undo rows: the oldest link of a chain that was
    /// cut has none.
    fn is_whole(&self) -> bool {
        !self.links.is_empty() && self.links.iter().all(|link| link.undo)
    }

    /// X14: it is ahead of what both know by one batch, which was the last its node took, and that was never alone: the
    /// batch was not acknowledged, and not shown (X2).
    pub fn is_tail_on(&self, other: &Self) -> bool {
        let mut newest = self.links.iter().rev();
        let before = newest.nth(1);
        self.never_alone && before.is_some_and(|link| other.knows(link.version))
    }

    /// Newest version of this chain that the other side knows.
    fn newest_known_to(&self, other: &Self) -> Option<Version> {
        let known: BTreeSet<Version> =
            other.links.iter().map(|l| l.version).chain(other.lineage.iter().copied()).collect();
        self.links.iter().rev().map(|l| l.version).find(|v| known.contains(v))
    }

    /// Its versions after this one, without the last.
    fn went_through(&self, since: Option<Version>) -> Vec<Version> {
        let from = since.and_then(|version| self.position(version)).map_or(0, |at| at + 1);
        let newer = self.links.iter().skip(from).map(|link| link.version);
        newer.take((self.links.len() - from).saturating_sub(1)).collect()
    }

    /// The last version but one, common or not: what a base must not be (X17).
    fn before_last(&self) -> Option<MergeBase> {
        let version = self.links.iter().rev().nth(1).map(|link| link.version)?;
        self.restores(version).then_some(MergeBase { version, at_guest: false })
    }

    /// X15: served too, unless the marks reach back to where the chains part.
    fn is_served(&self, parted: Option<Version>) -> bool {
        self.served || !parted.is_some_and(|version| self.restores(version))
    }
}

/// How two branches are merged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub base: Option<MergeBase>,
    /// Versions the guest went through since both parted, without its last.
    pub between: Vec<Version>,
    pub served: bool,
    pub guest_served: bool,
}

impl Plan {
    /// A version of one chain that the other side has merged is the base, restored where it is a version. Else it is the
    /// greatest version of both chains (X17), restored where the undo rows reach back to it. An account that was made on
    /// both sides comes from the one without state. Without any of these nothing is assumed (M12).
    pub fn new(mine: &Side, theirs: &Side, without: Option<Rule>) -> Self {
        let (known, own) = (theirs.newest_known_to(mine), mine.newest_known_to(theirs));
        if known.is_none() && own.is_none() && mine.is_whole() && theirs.is_whole() {
            let base = Some(MergeBase { version: Version::default(), at_guest: false });
            return Self { base, between: theirs.went_through(None), served: mine.served, guest_served: theirs.served };
        }
        let merged_here = known.filter(|v| mine.position(*v).is_none());
        let merged_there = own.filter(|v| theirs.position(*v).is_none());
        let base = if let Some(version) = merged_here {
            theirs.restores(version).then_some(MergeBase { version, at_guest: true })
        } else if let Some(version) = merged_there {
            mine.restores(version).then_some(MergeBase { version, at_guest: false })
        } else {
            let at = |version: Version| {
                let at_guest = !mine.restores(version);
                (!at_guest || theirs.restores(version)).then_some(MergeBase { version, at_guest })
            };
            own.and_then(at)
        };
        // Where a side knows the other's version from its lineage only, nothing says since when it does.
        let (mut served, mut guest_served) = (mine.is_served(own), theirs.is_served(known));
        if without == Some(Rule::MarksReachBack) {
            (served, guest_served) = (mine.served, theirs.served);
        }
        let (served, guest_served) = (served || base.is_none(), guest_served || base.is_none());
        let base = if without == Some(Rule::CommonBase) { mine.before_last().or(base) } else { base };
        // Where nothing common is known, their chain may begin long before both parted: a third node that stands on this
        // side's way would be merged from there, and what was deleted since would be back.
        let between = known.map_or_else(Vec::new, |known| theirs.went_through(Some(known)));
        Self { base, between, served, guest_served }
    }
}

impl Replica {
    /// Out of ordering as soon as its last batch is done; few at a time, because nothing changes in them meanwhile.
    pub(crate) fn begin_merge(&mut self, peer: NodeId, account: AccountId) {
        let free = self.compares.get(&peer).is_some_and(|c| c.locked.len() < FETCHES_MAX);
        if !free || !self.lock_for_fetch(peer, account) {
            return;
        }
        let Some(compare) = self.compares.get_mut(&peer) else { return };
        if let Some(Step::WantMerge(theirs)) = compare.todo.remove(&account) {
            compare.todo.insert(account, Step::MergeChain(theirs));
            self.outputs.push_back(Output::ReadChain { account });
        }
    }

    /// Our chain as it is under the lock.
    pub(crate) fn plan_merge(&mut self, peer: NodeId, account: AccountId, version: Version, mine: &Side) {
        let Some(compare) = self.compares.get(&peer) else { return };
        let Some(Step::MergeChain(theirs)) = compare.todo.get(&account) else { return };
        let plan = Plan::new(mine, theirs, self.config.without);
        if version == self.version(account) {
            self.set_step(peer, account, Step::WantBranch(plan));
        } else {
            // Read before the last batch was written.
            self.again(peer, account, RETRY_MS);
        }
    }

    pub(crate) fn fetch_branch(&mut self, peer: NodeId, account: AccountId, session: u64) {
        let Some(compare) = self.compares.get(&peer) else { return };
        let Some(Step::WantBranch(plan)) =
            compare.todo.get(&account).filter(|_| self.guest.fetches.len() < FETCHES_MAX)
        else {
            return;
        };
        let plan = plan.clone();
        self.set_step(peer, account, Step::Branch(plan));
        self.fetch(FetchJob::new(account, peer, session, Why::Merge));
    }

    /// Their branch is staged. One that is not what they said before is not what the plan was made for.
    pub(crate) fn on_branch(&mut self, job: &FetchJob, fetch: u64, version: Version) {
        let (peer, account) = (job.from, job.account);
        let compare = self.compares.get(&peer);
        let theirs = compare.map(|c| c.theirs(account)).filter(|v| *v == version);
        let plan = match compare.and_then(|c| c.todo.get(&account)) {
            Some(Step::Branch(plan)) => Some(plan.clone()),
            _ => None,
        };
        // What is written while an epoch is being entered would belong to neither.
        let (Some(theirs), Some(plan), None) = (theirs, plan, &self.entering) else {
            self.outputs.push_back(Output::StopFetch { fetch });
            // A batch that was on its way when they last said what they have has come there: the next plan is for this.
            if let Some(compare) = self.compares.get_mut(&peer) {
                compare.theirs.insert(account, version);
            }
            self.again(peer, account, RETRY_MS);
            return;
        };
        let how = plan.base.map_or("without a common version".to_owned(), |b| format!("from base {}", b.version));
        self.log(format!(
            "account {}: branch {theirs} of node {} is merged into {} {how}",
            account.0,
            peer.0,
            self.version(account)
        ));
        let silent = plan.base.is_some_and(|base| base.version == theirs);
        self.set_step(peer, account, Step::Merging { silent });
        let (batch, mut stamp) = (self.batch_id(), self.stamp(account));
        let away = self.is_third_away();
        stamp.gap = stamp.gap.filter(|_| away);
        let flight = self.new_flight(Vec::new(), vec![account], Some(peer));
        self.flights.insert(batch, flight);
        let Plan { base, between, served, guest_served } = plan;
        // Who is away may stand at any of them, and is behind then and no branch of its own.
        let between = if away && self.keeps(Rule::RemembersWay) { between } else { Vec::new() };
        self.outputs.push_back(Output::Merge { batch, account, fetch, base, between, served, guest_served, stamp });
    }

    /// A data member is neither in sync nor the guest: it may have gone on from numbers that the guest brings.
    fn is_third_away(&self) -> bool {
        let away = |r: &topology::EpochRecord, id: &NodeId| !r.in_sync.contains(id) && r.guest != Some(*id);
        self.record.as_ref().is_some_and(|r| r.members.iter().any(|id| away(r, id)))
    }

    fn merges(&self, peer: NodeId, account: AccountId) -> bool {
        self.compares.get(&peer).is_some_and(|c| matches!(c.todo.get(&account), Some(Step::Merging { .. })))
    }

    /// A merge that does not name the branch it contains would be made again after a crash.
    pub(crate) fn completes(&self, id: BatchId, batch: &Batch) -> bool {
        let Some(flight) = self.flights.get(&id) else { return false };
        let Some(peer) = flight.owner else { return true };
        flight.accounts.iter().filter(|a| self.merges(peer, **a)).all(|account| {
            let Some(compare) = self.compares.get(&peer) else { return false };
            let theirs = compare.theirs(*account);
            let silent = matches!(compare.todo.get(account), Some(Step::Merging { silent: true }));
            batch.accounts.iter().any(|a| a.account == *account && (silent || a.head.lineage.contains(&theirs)))
        })
    }

    /// The merge, or what stands for it, is on this disk: now the other fetches.
    pub(crate) fn on_result_written(&mut self, peer: NodeId, accounts: &[AccountId]) {
        for account in accounts {
            let merged = self.merges(peer, *account);
            self.order_pull(peer, *account, merged);
        }
    }

    /// Rows of one side are damaged: what cannot be merged is archived.
    pub(crate) fn on_no_result(&mut self, peer: NodeId, accounts: &[AccountId]) {
        for account in accounts {
            if self.merges(peer, *account) {
                self.log(format!("account {} could not be merged", account.0));
                self.set_step(peer, *account, Step::WantArchive);
            } else {
                self.order_pull(peer, *account, false);
            }
        }
    }

    /// A batch of a comparison that came to nothing: its accounts are looked at again.
    pub(crate) fn give_back(&mut self, flight: &Flight) {
        let Some(peer) = flight.owner else { return };
        for account in &flight.accounts {
            self.again(peer, *account, RETRY_MS);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vocab::AccountHead;

    fn version(n: u8) -> Version {
        Version([n; 16])
    }

    /// A chain of these; what comes before `undo` has no undo rows.
    fn side(links: &[u8], undo: u8, head: &AccountHead) -> Side {
        let links = links.iter().map(|n| ChainLink { version: version(*n), undo: *n > undo });
        Side { links: links.collect(), lineage: head.lineage.clone(), served: true, never_alone: false }
    }

    #[test]
    fn versions_from_before_two_sides_parted_are_not_remembered_as_the_others() {
        // Both come from 3. The anchor's chain was cut since and nothing common is left on it.
        let anchor = AccountHead { version: version(7), ..AccountHead::default() };
        let guest = AccountHead { version: version(21), ..AccountHead::default() };
        let plan = Plan::new(&side(&[6, 7], 6, &anchor), &side(&[1, 2, 3, 20, 21], 1, &guest), None);
        assert_eq!((plan.base, plan.guest_served), (None, true));
        let mut result = AccountHead { version: version(30), ..anchor };
        result.remember(&guest, &plan.between, false);
        // A third node stands where the anchor once was: older than 3 is nothing that both made since.
        let third = AccountHead { version: version(5), ..AccountHead::default() };
        let plan = Plan::new(&side(&[7, 30], 7, &result), &side(&[1, 2, 3, 4, 5], 1, &third), None);
        assert_eq!(plan.base, None, "from 3, what 4 made and 6 deleted would be taken for new");
        // The branch itself is known, and who stands on it after the merge is behind it.
        let late = Plan::new(&side(&[7, 30], 7, &result), &side(&[1, 2, 3, 20, 21, 22], 1, &guest), None);
        assert_eq!(late.base.map(|base| base.version), Some(version(21)));
    }
}
