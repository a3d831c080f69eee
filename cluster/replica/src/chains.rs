//! What two chains of versions say of an account that is not level: who is behind, whether both changed, and whether the one
//! that is behind may simply be overwritten.

use std::collections::BTreeMap;

use vocab::{AccountHead, AccountId, ChainLink, NodeId};
use wire::link::{self, item::Kind};

use crate::Replica;
use crate::compare::{Compare, Step};
use crate::config::Rule;
use crate::merge::Side;

impl Replica {
    pub(crate) fn on_own_chain(&mut self, account: AccountId, links: Vec<ChainLink>, head: AccountHead) {
        let served = head.is_served_from(self.saved.marks_from());
        let mine = Side { links, lineage: head.lineage, served, never_alone: self.saved.never_alone };
        self.say_chain(account, &mine);
        let waits = |c: &Compare| matches!(c.todo.get(&account), Some(Step::OwnChain | Step::MergeChain(_)));
        let peers: Vec<NodeId> = self.compares.iter().filter(|(_, c)| waits(c)).map(|(id, _)| *id).collect();
        for peer in peers {
            let Some(compare) = self.compares.get(&peer) else { continue };
            let (theirs, session) = (compare.theirs(account), compare.session);
            if matches!(compare.todo.get(&account), Some(Step::MergeChain(_))) {
                self.plan_merge(peer, account, head.version, &mine);
            } else if mine.position(theirs).is_some() && !self.may_have_shown(compare, account) {
                self.order_pull(peer, account, false);
            } else if mine.position(theirs).is_none() && mine.lineage.contains(&theirs) {
                // Their branch is part of our state already (an interrupted heal).
                self.order_pull(peer, account, self.config.merge);
            } else {
                self.set_step(peer, account, Step::TheirChain(mine.clone()));
                self.say(peer, Kind::AskChain(link::AskChain { session, account: account.0 }));
            }
        }
    }

    /// Whether the guest of this comparison may have shown its state of the account to clients while a member was missing.
    /// Not what it got from here in this heal epoch: it shows nothing itself.
    fn may_have_shown(&self, compare: &Compare, account: AccountId) -> bool {
        let came_with = |apart: &BTreeMap<_, _>| apart.get(&account) == Some(&compare.theirs(account));
        self.merges_shown(compare) && !compare.unmarked && self.apart.as_ref().is_none_or(came_with)
    }

    fn merges_shown(&self, compare: &Compare) -> bool {
        compare.heal && self.config.merge && self.keeps(Rule::MergesShown)
    }

    /// Whether a side that is behind is to be merged, because it was shown (rule W): a client that goes from the side that
    /// is ahead to this one and back has counted messages of the other as gone, and would not see them again below the
    /// UIDNEXT it knows. Where the other side has merged this branch, the numbers are above all that were shown.
    fn is_shown_behind(&self, compare: &Compare, behind: &Side, ahead: &Side) -> bool {
        let on_chain = behind.links.last().is_some_and(|last| ahead.position(last.version).is_some());
        self.merges_shown(compare) && behind.served && on_chain
    }

    pub(crate) fn on_their_chain(&mut self, peer: NodeId, session: u64, account: AccountId, chain: Side) {
        let (mine, merge, never_solo) = (self.version(account), self.config.merge, self.saved.never_solo);
        let Some(compare) = self.compares.get(&peer).filter(|c| c.session == session) else { return };
        let (heal, theirs) = (compare.heal, compare.theirs(account));
        let Some(Step::TheirChain(own)) = compare.todo.get(&account) else { return };
        let tail = compare.heal && never_solo && chain.is_tail_on(own);
        let dropped = tail && self.config.without != Some(Rule::DropsTail);
        // What is settled in their queue may be promised to accounts that are not here yet: merged, its records stay until then.
        let queue = account == AccountId::QUEUE && merge && heal && self.keeps(Rule::QueueLast);
        let behind = own.position(theirs).is_some();
        let (guest_shown, shown) =
            (self.is_shown_behind(compare, &chain, own), self.is_shown_behind(compare, own, &chain));
        if behind && !guest_shown {
            self.order_pull(peer, account, false);
        } else if !behind && chain.knows(mine) && !queue && !shown {
            self.log(format!("node {} is ahead in account {}", peer.0, account.0));
            let keep = merge && chain.position(mine).is_none();
            self.set_step(peer, account, Step::WantFetch { keep, mine });
        } else if !behind && dropped {
            // X14
            self.log(format!("account {}: the last batch of node {} was never acknowledged", account.0, peer.0));
            self.order_pull(peer, account, true);
        } else {
            self.log(format!("account {} changed on both nodes, or was shown on both, since they parted", account.0));
            if !self.keeps(Rule::MergesBranches) {
                return self.order_pull(peer, account, false);
            }
            self.set_step(peer, account, if merge { Step::WantMerge(chain) } else { Step::WantArchive });
        }
    }
}
