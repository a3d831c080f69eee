//! Going on by quorum (DESIGN 6): with a witness or a third data node the register decides by compare-and-set who goes on
//! without whom, and nobody opens a solo epoch but by the word of an operator. And fencing: who is cut off from the
//! others and from whatever else could be asked serves nothing.

use topology::{EpochKind, EpochRecord};
use vocab::{EpochId, NodeId};

use crate::Replica;
use crate::config::Rule;
use crate::takeover::Evidence;

/// Voters up to which both sides of a cut are equals: a pair without a witness.
const PAIR_VOTERS: u32 = 2;

/// A link is dialled anew within this time (ms): one attempt that hangs, and the longest pause after it.
const REDIAL_MS: u64 = 1_500;

impl Replica {
    /// Whether a rule holds; only a negative control switches one off.
    pub(crate) fn keeps(&self, rule: Rule) -> bool {
        self.config.without != Some(rule)
    }

    /// A third voter makes one side of every cut the minority.
    pub(crate) fn by_quorum(&self) -> bool {
        self.register.voters > PAIR_VOTERS && self.keeps(Rule::QuorumDecides)
    }

    /// Data members a new record names: those of the register, and whoever is in sync.
    pub(crate) fn present_members(&self, record: &EpochRecord) -> Vec<NodeId> {
        let known = if self.register.members.is_empty() { &record.members } else { &self.register.members };
        let mut members: Vec<NodeId> = known.iter().chain(&record.in_sync).copied().collect();
        members.sort_unstable();
        members.dedup();
        members
    }

    /// Proposes an epoch without the members of the in-sync set that are gone or silent, this node as home: the home of
    /// the epoch does, or when it is among them any other member. One of several wins the compare-and-set.
    pub(crate) fn consider_takeover(&mut self) {
        let Some(record) = &self.record else { return };
        let me = self.me();
        let may = self.register.quorum && self.entering.is_none() && !self.is_superseded();
        let current = self.register.record.as_ref().map(|r| r.id) == Some(record.id);
        if !may || !current || !record.in_sync.contains(&me) {
            return;
        }
        let lost = self.lost(record);
        if lost.is_empty() || (record.home != me && !lost.iter().any(|(id, _)| *id == record.home)) {
            return;
        }
        let record = record.clone();
        if self.may_propose() {
            self.propose_without(&record, &lost);
        }
    }

    /// Others that must acknowledge and do not, with what is known of them.
    fn lost(&self, record: &EpochRecord) -> Vec<(NodeId, Evidence)> {
        let others = self.others_in_sync(record);
        let found = others.into_iter().map(|id| (id, self.evidence(record, id)));
        found.filter(|(_, evidence)| *evidence != Evidence::None).collect()
    }

    fn propose_without(&mut self, record: &EpochRecord, lost: &[(NodeId, Evidence)]) {
        let gone = |id: &NodeId| lost.iter().any(|(l, _)| l == id);
        // A guest whose join mark is written counts as in sync here, but not in the register: it is left out too.
        let in_sync: Vec<NodeId> = record.in_sync.iter().filter(|id| !gone(id)).copied().collect();
        let why = lost.iter().map(|(id, evidence)| format!("node {}: {}", id.0, evidence.name()));
        self.log(format!("going on by quorum without {}", why.collect::<Vec<_>>().join(", ")));
        self.propose(EpochRecord {
            id: EpochId { number: self.next_epoch_number(), author: 0 },
            kind: EpochKind::Reduced,
            members: self.present_members(record),
            in_sync,
            home: self.me(),
            homes: std::collections::BTreeMap::new(),
            parents: vec![record.id],
            certain: lost.iter().all(|(_, evidence)| *evidence == Evidence::Ended),
            on_silence: lost.iter().any(|(_, evidence)| *evidence == Evidence::Silence),
            anchor: None,
            guest: None,
            gap: true,
        });
    }

    pub(crate) fn on_target(&mut self, target: u32, answered: bool) {
        if answered || self.targets.contains_key(&target) {
            self.targets.insert(target, answered);
        }
    }

    /// Fences this node or ends it. An operator's word ends it too: a node that is alone by right needs nobody.
    pub(crate) fn consider_fence(&mut self) {
        let why = self.why_fenced();
        if why == self.fenced {
            self.unfence_at = None;
            return;
        }
        if why.is_none() && self.comes_back_alone() {
            return;
        }
        let before = std::mem::replace(&mut self.fenced, why);
        match (why, before) {
            (Some(why), _) => {
                let text = format!("this node fences itself: {why}");
                self.outputs.push_back(crate::Output::Alert(text));
            }
            (None, Some(before)) => self.log(format!("fenced no longer; it was: {before}")),
            (None, None) => {}
        }
    }

    /// A probe target answers again, or the quorum does, and the other node is not heard yet. The silence so far was this
    /// node's own, and those are often the first to be heard, before what was decided meanwhile: the fence stays until a
    /// link had the time to be dialled anew, and a full window of silence after it.
    fn comes_back_alone(&mut self) -> bool {
        let Some(record) = self.record.clone() else { return false };
        let gone = |id: &NodeId| self.peers.get(id).is_some_and(crate::link::Peer::is_gone);
        let unheard = self.others_in_sync(&record).iter().any(|id| self.is_silent(&record, *id) && !gone(id));
        let window = self.config.timing.t2 + REDIAL_MS;
        let until = *self.unfence_at.get_or_insert(self.now.plus_ms(window));
        unheard && self.now < until
    }

    fn why_fenced(&self) -> Option<&'static str> {
        let record = self.record.as_ref().filter(|r| r.in_sync.contains(&self.config.node))?;
        let others = self.others_in_sync(record);
        let silent = |id: &NodeId| self.is_silent(record, *id);
        if self.by_quorum() {
            let minority = !self.register.quorum && others.iter().any(silent);
            return minority.then_some("no contact with the in-sync set and no quorum");
        }
        // While the peer is heard, or surely gone, targets do not matter; with none that counts the rule is off.
        let gone = |id: &NodeId| self.peers.get(id).is_some_and(crate::link::Peer::is_gone);
        let isolated = !others.is_empty()
            && others.iter().all(|id| silent(id) && !gone(id))
            && !self.targets.is_empty()
            && self.targets.values().all(|answered| !answered);
        isolated.then_some("neither the other node nor any probe target answers")
    }
}
