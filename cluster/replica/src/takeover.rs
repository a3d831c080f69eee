//! Going on alone (DESIGN 6): process gone acts at once, silence needs the full window, and only a node of a pair without
//! a witness that was in the in-sync set of the newest epoch and has compared since boot may (X5, X7).

use topology::{EpochKind, EpochRecord};
use vocab::{Boot, EpochId, NodeId, limits};

use crate::config::Rule;
use crate::link::Gone;
use crate::output::Output;
use crate::{Pending, Replica};

/// What is known of a peer that must be left behind.
/// From the weakest to the strongest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Evidence {
    None,
    Silence,
    /// Its process is gone, as far as one can see from here.
    Refuses,
    /// Its process is gone, surely.
    Ended,
    /// An operator says so.
    Operator,
}

impl Evidence {
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "heard",
            Self::Silence => "silence on every path",
            Self::Refuses => "it refuses on every path",
            Self::Ended => "process gone",
            Self::Operator => "the word of an operator",
        }
    }
}

impl Replica {
    /// Silence is measured afresh: it may have been ours.
    pub(crate) fn on_pause(&mut self) {
        if !self.keeps(Rule::OwnPause) {
            return;
        }
        for peer in self.peers.values_mut().filter(|p| p.heard.is_some()) {
            peer.heard = Some(self.now);
        }
        self.silent_since = self.now;
    }

    pub(crate) fn on_guard_word(&mut self, id: NodeId, boot: Boot) {
        let Some(peer) = self.peers.get_mut(&id).filter(|p| p.boot == Some(boot)) else { return };
        peer.gone = Some(Gone::Ended);
        self.log(format!("the guard of node {} says that boot {} has ended", id.0, boot.0));
        self.make_certain();
    }

    /// Refused connections are often seen before the guard's word has come: that makes the solo epoch certain afterwards.
    pub(crate) fn make_certain(&mut self) {
        if self.entering.is_some() {
            return; // once that is in effect
        }
        let (me, peers) = (self.me(), &self.peers);
        let ended = |id: &NodeId| *id == me || peers.get(id).is_some_and(|p| p.gone == Some(Gone::Ended));
        let uncertain = |r: &&mut EpochRecord| r.kind == EpochKind::Solo && r.home == me && !r.certain;
        let Some(record) = self.record.as_mut().filter(uncertain) else { return };
        if !record.members.iter().all(ended) {
            return;
        }
        record.certain = true;
        record.on_silence = false;
        let (id, record) = (record.id, record.clone());
        self.log(format!("the solo epoch {id} is certain now"));
        self.saved.record = Some(record);
        let part = self.saved.to_write();
        self.write(vec![part], Pending::Newest);
    }

    pub(crate) fn on_reset_evidence(&mut self, id: NodeId) {
        // A link that came up meanwhile says otherwise.
        let Some(peer) = self.peers.get_mut(&id).filter(|p| p.link.is_none()) else { return };
        if peer.gone.is_none() {
            peer.gone = Some(Gone::Refuses);
            self.log(format!("node {} refuses on every path and the cluster address is silent", id.0));
        }
    }

    /// Members of the in-sync set other than this node, in whatever role it has.
    pub(crate) fn others_in_sync(&self, record: &EpochRecord) -> Vec<NodeId> {
        if record.is_home(self.me()) {
            return self.commit_peers();
        }
        record.in_sync.iter().filter(|n| **n != self.me()).copied().collect()
    }

    pub(crate) fn probe(&mut self, id: NodeId) {
        let Some(record) = &self.record else { return };
        let counts = self.others_in_sync(record).contains(&id);
        if counts && self.peers.get(&id).is_some_and(|p| !p.is_gone() && p.link.is_none() && p.boot.is_some()) {
            self.outputs.push_back(Output::Probe { peer: id });
        }
    }

    /// The home goes first; whoever would be next looks for it over the client network before its own window is over: a home
    /// that serves there goes on alone by itself, and a second side would be a split for nothing.
    pub(crate) fn look_for_silent(&mut self) {
        let Some(record) = self.record.clone().filter(|r| r.home != self.me() && r.in_sync.contains(&self.me())) else {
            return;
        };
        let (now, t1) = (self.now, self.config.timing.t1);
        for id in self.others_in_sync(&record) {
            let Some(peer) = self.peers.get_mut(&id) else { continue };
            let silent = peer.heard.is_some_and(|heard| now.since(heard) >= t1) && peer.gone.is_none();
            let due = peer.looked.is_none_or(|at| now.since(at) >= limits::LOOK_EVERY_MS);
            if silent && due {
                peer.looked = Some(now);
                self.outputs.push_back(Output::Look { peer: id });
            }
        }
    }

    pub(crate) fn on_answers(&mut self, id: NodeId) {
        let now = self.now;
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if peer.answered.replace(now).is_none() {
            self.log(format!("node {} is not heard, but serves clients: not going on without it", id.0));
        }
    }

    /// The window of the home is the shorter one: it goes first.
    pub(crate) fn is_silent(&self, record: &EpochRecord, id: NodeId) -> bool {
        let timing = &self.config.timing;
        let window = if record.home == self.me() { timing.t1 } else { timing.t2 };
        let heard = self.peers.get(&id).and_then(|p| p.heard).unwrap_or(self.silent_since);
        self.now.since(heard) >= window
    }

    pub(crate) fn evidence(&self, record: &EpochRecord, id: NodeId) -> Evidence {
        match self.peers.get(&id).and_then(|p| p.gone) {
            Some(Gone::Ended) => Evidence::Ended,
            Some(Gone::Refuses) => Evidence::Refuses,
            None if self.is_silent(record, id) => Evidence::Silence,
            None => Evidence::None,
        }
    }

    /// As `evidence`; what was only not heard since boot, or in the hold-down, or serves clients, is none for going on alone.
    fn evidence_alone(&self, record: &EpochRecord, id: NodeId) -> Evidence {
        let Some(peer) = self.peers.get(&id) else { return Evidence::None };
        let free = self.now >= self.hold_down_until && self.now >= peer.granted_until && peer.heard.is_some();
        let serves = peer.answered.is_some_and(|at| self.now.since(at) < limits::ANSWER_COUNTS_MS);
        let waits = serves && record.home != self.me();
        match self.evidence(record, id) {
            Evidence::Silence if !free || waits => Evidence::None,
            evidence => evidence,
        }
    }

    /// Opens a solo epoch when the rules and the evidence allow it.
    pub(crate) fn consider_solo(&mut self) {
        if self.by_quorum() {
            return self.consider_takeover();
        }
        let Some(record) = self.record.as_ref().filter(|_| self.fenced.is_none()) else { return };
        let me = self.me();
        let compared =
            self.is_compared(record) || self.entitled == Some(record.id) || !self.keeps(Rule::ComparedBeforeAlone);
        let counts = record.in_sync.contains(&me) && compared && self.entering.is_none();
        let newest = self.newest().is_none_or(|n| n.id == record.id) || !self.keeps(Rule::NewestEpoch);
        let others = self.others_in_sync(record);
        if !counts || !newest || others.is_empty() {
            return;
        }
        let evidence: Vec<Evidence> = others.iter().map(|id| self.evidence_alone(record, *id)).collect();
        if evidence.contains(&Evidence::None) {
            return;
        }
        self.go_solo(evidence.into_iter().min().unwrap_or(Evidence::None));
    }

    fn go_solo(&mut self, evidence: Evidence) {
        let Some(record) = self.record.clone() else { return };
        let me = self.me();
        let solo = EpochRecord {
            id: EpochId { number: self.next_epoch_number(), author: me.0 },
            kind: EpochKind::Solo,
            members: record.members.clone(),
            in_sync: vec![me],
            home: me,
            homes: std::collections::BTreeMap::new(),
            parents: vec![record.id],
            certain: evidence >= Evidence::Ended,
            on_silence: evidence == Evidence::Silence,
            anchor: None,
            guest: None,
            gap: true,
        };
        let text = format!("going on alone in epoch {} after {}: {}", solo.id, record.id, evidence.name());
        self.outputs.push_back(Output::Alert(text));
        self.enter(solo);
    }

    pub(crate) fn on_start_alone(&mut self) {
        let answer = self.may_start_alone();
        self.outputs.push_back(Output::StartAlone(answer));
        if answer.is_ok() {
            self.go_solo(Evidence::Operator);
        }
    }

    fn may_start_alone(&self) -> Result<(), &'static str> {
        let record = self.record.as_ref().ok_or("this node is in no epoch yet")?;
        if self.versions.is_none() || self.entering.is_some() || self.guest.is_switching() {
            return Err("this node is changing its epoch: ask again");
        }
        if record.is_alone(self.me()) && self.join_mark.is_none() && !self.is_superseded() {
            return Err("this node serves alone already");
        }
        if !self.saved.was_in_sync {
            return Err("this node never held the mail of the cluster");
        }
        if record.members.iter().any(|id| self.hears(*id)) {
            return Err("the other node is heard: it is not down");
        }
        Ok(())
    }
}
