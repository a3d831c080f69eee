//! What is done with an account that changed on both nodes and cannot be merged: the other's branch is archived on both
//! nodes and every UIDVALIDITY here is raised before the other fetches. Expensive, never wrong (DESIGN 7).

use vocab::{AccountHead, AccountId, NodeId, Version};
use wire::link::{self, item::Kind};

use crate::Replica;
use crate::compare::{RETRY_MS, Step};
use crate::output::Output;

impl Replica {
    pub(crate) fn begin_archive(&mut self, peer: NodeId, account: AccountId, session: u64) {
        if !self.lock_for_fetch(peer, account) {
            return;
        }
        let own = self.number();
        self.set_step(peer, account, Step::Archiving { own, mine: false, theirs: false, floor: 0 });
        self.outputs.push_back(Output::ArchiveBranch { archive: own, account, from: Some(peer) });
        self.say(peer, Kind::Archive(link::Archive { session, account: account.0 }));
    }

    pub(crate) fn on_own_archive(&mut self, archive: u64, head: &AccountHead) {
        let found = self.compares.iter().find_map(|(peer, c)| {
            let mut own = c.todo.iter().filter(|(_, s)| matches!(s, Step::Archiving { own, .. } if *own == archive));
            own.next().map(|(account, _)| (*peer, *account))
        });
        let Some((peer, account)) = found else { return };
        self.archived(peer, account, true, head.version, head.uidvalidity);
    }

    pub(crate) fn on_own_archive_failed(&mut self, archive: u64) {
        self.on_own_archive(archive, &AccountHead::default());
    }

    pub(crate) fn on_their_archive(
        &mut self,
        peer: NodeId,
        session: u64,
        account: AccountId,
        version: Version,
        uidvalidity: u32,
    ) {
        if self.compare(peer, session).is_some() {
            self.archived(peer, account, false, version, uidvalidity);
        }
    }

    fn archived(&mut self, peer: NodeId, account: AccountId, here: bool, version: Version, uidvalidity: u32) {
        let Some(compare) = self.compares.get_mut(&peer) else { return };
        let expected = compare.theirs(account);
        let Some(Step::Archiving { mine, theirs, floor, .. }) = compare.todo.get_mut(&account) else { return };
        if version != expected || self.entering.is_some() {
            self.again(peer, account, RETRY_MS);
            return;
        }
        if here {
            *mine = true;
        } else {
            *theirs = true;
        }
        *floor = uidvalidity.max(*floor);
        let (both, floor) = (*mine && *theirs, *floor);
        if both {
            self.raise(peer, account, floor, expected);
        }
    }

    fn raise(&mut self, peer: NodeId, account: AccountId, floor: u32, branch: Version) {
        self.set_step(peer, account, Step::Raising);
        self.outputs.push_back(Output::Alert(format!(
            "account {} changed on both nodes while they were apart: the branch {branch} of node {} is archived on \
             both nodes and every UIDVALIDITY is raised",
            account.0, peer.0
        )));
        let id = self.batch_id();
        let flight = self.new_flight(Vec::new(), vec![account], Some(peer));
        self.flights.insert(id, flight);
        let stamp = self.stamp(account);
        self.outputs.push_back(Output::Raise { batch: id, account, floor, branch, stamp });
    }
}
