//! Entering epochs: durable before in effect, and only those this node may enter (DESIGN 6; X6, X7, X10).

use topology::{EpochKind, EpochRecord};
use vocab::{BatchId, EpochId, Instant, NodeId};

use crate::config::Rule;
use crate::link::Gone;
use crate::output::Output;
use crate::{Pending, RegisterView, Replica, Saved};

/// Wait before a proposal that failed, or that nobody answered, is made again (ms).
const PROPOSE_AGAIN_MS: u64 = 500;
/// A proposal without an answer counts as failed after this time (ms).
const PROPOSE_WAIT_MS: u64 = 5_000;

/// A compare-and-set under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Proposal {
    id: EpochId,
    since: Instant,
}

/// Every data member is in sync: what is committed is everywhere, so nothing is kept for a merge.
pub(crate) fn is_full(record: &EpochRecord) -> bool {
    record.kind == EpochKind::Joint && record.members.len() == record.in_sync.len()
}

impl Replica {
    /// Newest epoch known, voted for or heard of (X7).
    pub(crate) fn newest(&self) -> Option<&EpochRecord> {
        let known = [self.saved.newest.as_ref(), self.record.as_ref(), self.entering.as_ref()];
        known.into_iter().flatten().max_by_key(|r| r.id)
    }

    /// What peers are told: an epoch that is still being written may never have been.
    pub(crate) fn announced(&self) -> Option<&EpochRecord> {
        [self.saved.newest.as_ref(), self.record.as_ref()].into_iter().flatten().max_by_key(|r| r.id)
    }

    /// A number above every epoch anybody near has spoken of.
    pub(crate) fn next_epoch_number(&self) -> u64 {
        let heard = self.peers.values().flat_map(|p| [p.record.as_ref(), p.newest.as_ref()]).flatten();
        let own = [self.newest(), self.register.record.as_ref()].into_iter().flatten();
        heard.chain(own).map(|r| r.id.number).max().unwrap_or(0) + 1
    }

    /// Remembers a newer epoch durably: a node that knows of one never starts alone from an older one.
    pub(crate) fn hear(&mut self, record: &EpochRecord) {
        if self.newest().is_some_and(|n| n.id >= record.id) || !self.keeps(Rule::NewestEpoch) {
            return;
        }
        let me = self.me();
        // A node that may serve without that one is not stopped by its solo epoch: that is a fork, and a heal ends it.
        let without = |r: &EpochRecord| r.in_sync.contains(&me) && !r.in_sync.contains(&record.home);
        if self.record.as_ref().is_some_and(without)
            && self.join_mark.is_none()
            && record.kind == EpochKind::Solo
            && record.home != me
        {
            return;
        }
        if !record.members.contains(&me) {
            return;
        }
        self.log(format!("heard of epoch {} ({:?})", record.id, record.kind));
        self.saved.newest = Some(record.clone());
        let part = self.saved.to_write();
        self.write(vec![part], Pending::Newest);
    }

    pub(crate) fn on_register(&mut self, record: Option<EpochRecord>, members: Vec<NodeId>, voters: u32, quorum: bool) {
        if let Some(record) = &record {
            self.hear(record);
        }
        if self.proposal.is_some_and(|p| record.as_ref().is_some_and(|r| r.id >= p.id)) {
            self.proposal = None;
        }
        let same = record.as_ref().map(|r| r.id) == self.register.record.as_ref().map(|r| r.id);
        let learned = if same { self.register.learned } else { self.now };
        self.register = RegisterView { record, members, voters, quorum, learned };
    }

    /// Enters the epoch of the register when it is newer and this node may.
    pub(crate) fn consider_register(&mut self) {
        if self.entering.is_some() {
            return;
        }
        let Some(new) = &self.register.record else {
            self.found();
            return;
        };
        if !self.may_enter(new) {
            return;
        }
        let (me, new) = (self.me(), new.clone());
        if new.home == me && !self.may_leave_out(&new) {
            return; // looked at again with the next tick
        }
        if self.waits_to_move(&new) {
            return;
        }
        if new.is_home(me) {
            self.make_computing_stale();
            if self.flights.values().any(|f| f.stage == crate::commit::Stage::Writing) {
                return; // milliseconds: their epoch is the one they were sent in
            }
        }
        self.enter(new);
    }

    /// Whether an epoch of the register is newer than ours and this node may be part of it.
    pub(crate) fn may_enter(&self, new: &EpochRecord) -> bool {
        let me = self.me();
        let newer = self.record.as_ref().is_none_or(|r| new.id > r.id);
        let own_solo = self.record.as_ref().is_some_and(|r| r.kind == EpochKind::Solo && r.home == me);
        // X10: out of a solo epoch of its own a node enters another's only as guest of a heal.
        let unheard = own_solo && new.home != me && new.in_sync.contains(&me) && self.keeps(Rule::GuestOnly);
        // X4, X7: what was decided before the other side went on alone is not entered after hearing of that.
        let stale = self.saved.newest.as_ref().is_some_and(|n| n.id.number >= new.id.number && n.id > new.id);
        newer && new.members.contains(&me) && !unheard && !(stale && new.home == me)
    }

    /// First epoch of a cluster of one.
    fn found(&mut self) {
        let me = self.me();
        if self.record.is_some() || self.register.members != [me] {
            return;
        }
        let record = EpochRecord {
            id: EpochId { number: 1, author: 0 },
            kind: EpochKind::Joint,
            members: vec![me],
            in_sync: vec![me],
            home: me,
            homes: std::collections::BTreeMap::new(),
            parents: Vec::new(),
            certain: true,
            on_silence: false,
            anchor: None,
            guest: None,
            gap: false,
        };
        self.propose(record);
    }

    /// Nobody is left out while it may serve: a home waits until the last lease it gave has run out, also one from before
    /// its restart (X3); a new home for the longest lease of the old epoch, counted from when it learned of the
    /// compare-and-set (X4). Neither waits for who has written the new epoch or has surely ended.
    fn may_leave_out(&self, new: &EpochRecord) -> bool {
        let Some(old) = self.record.as_ref().filter(|_| self.keeps(Rule::LeaseWaits)) else { return true };
        let was_home = old.is_home(self.me());
        let mut others = self.others_in_sync(old);
        others.extend(old.guest.filter(|guest| !was_home && *guest != self.me()));
        let over = |id: &NodeId| {
            let peer = self.peers.get(id);
            let lease = self.register.learned.plus_ms(self.config.timing.lease);
            let ended = peer.is_some_and(|p| p.gone == Some(Gone::Ended) || p.epoch() >= Some(new.id));
            let given = peer.map_or(Instant(0), |p| p.granted_until).max(self.boot_leases_until);
            let until = match (was_home, old.is_home(*id)) {
                (true, false) => given,
                (true, true) => given.max(lease),
                (false, _) => lease,
            };
            ended || self.now >= until
        };
        others.iter().filter(|id| !new.in_sync.contains(id)).all(over)
    }

    /// One synced write: the record and, when this node alone is in sync, every batch in flight (X6).
    pub(crate) fn enter(&mut self, new: EpochRecord) {
        self.log(format!("entering epoch {} ({:?}), in sync {:?}, home {}", new.id, new.kind, new.in_sync, new.home.0));
        let (mut flights, mut batches) = (Vec::new(), Vec::new());
        if new.is_alone(self.me()) && new.home == self.me() && self.keeps(Rule::SoloInOneWrite) {
            (flights, batches) = self.sent_flights();
            for id in &flights {
                if let Some(flight) = self.flights.get_mut(id) {
                    flight.stage = crate::commit::Stage::Writing;
                }
            }
        }
        self.make_computing_stale();
        let joint = if is_full(&new) { new.id.number } else { self.saved.joint };
        let newest = self.saved.newest.take().filter(|n| n.id > new.id);
        let (never_alone, never_solo) = self.stays_steady(&new);
        let skipped = self.record.as_ref().is_none_or(|old| !new.parents.contains(&old.id));
        let marks_anew = if skipped { Some(new.id) } else { self.saved.marks_anew };
        let short = new.in_sync.contains(&self.me()) && !is_full(&new);
        self.saved = Saved {
            record: Some(new.clone()),
            newest,
            join_mark: self.saved.join_mark.filter(|mark| *mark == new.id),
            was_in_sync: self.saved.was_in_sync || new.in_sync.contains(&self.me()),
            joint,
            never_alone,
            never_solo,
            marks_anew: marks_anew.filter(|_| !is_full(&new)),
            never_short: is_full(&new) || (self.saved.never_short && !short),
            rows: self.saved.rows,
        };
        let mut parts = vec![self.saved.to_write()];
        parts.append(&mut batches);
        self.entering = Some(new.clone());
        self.write(parts, Pending::Epoch(Box::new(new), flights));
    }

    /// Whether this node, in this epoch too, was never alone and never in solo since the last full epoch. One that was
    /// brought up to date by another does not know what that one was.
    fn stays_steady(&self, new: &EpochRecord) -> (bool, bool) {
        if is_full(new) {
            return (true, true);
        }
        let me = self.me();
        let was_guest = self.record.as_ref().is_some_and(|r| r.guest == Some(me)) && new.in_sync.contains(&me);
        let alone = new.is_alone(me);
        let solo = alone && new.kind == EpochKind::Solo;
        (self.saved.never_alone && !alone && !was_guest, self.saved.never_solo && !solo && !was_guest)
    }

    pub(crate) fn on_entered(&mut self, new: EpochRecord, flights: &[BatchId]) {
        self.entering = None;
        let entitled = self.keeps_comparison(self.record.as_ref(), &new).then_some(new.id);
        let old = self.record.replace(new.clone());
        self.entitled = entitled;
        let ended_mark = self.join_mark.take().filter(|mark| *mark != new.id);
        self.join_mark = self.saved.join_mark;
        let me = self.me();
        // Left out for space or slowness; who was lost is taken back as soon as it is heard.
        if self.reduce.take().is_some_and(|out| !new.in_sync.contains(&out)) {
            self.reduced_at = Some(self.now);
        }
        if new.kind == EpochKind::Reduced && new.home == me && new.gap && new.parents.len() == 1 {
            let text =
                format!("going on in epoch {} without the nodes that are lost, in sync {:?}", new.id, new.in_sync);
            self.outputs.push_back(Output::Alert(text));
        }
        if new.kind == EpochKind::Joint && new.on_silence {
            // The solo epoch that was healed had been opened on silence.
            self.hold_down_until = self.now.plus_ms(self.config.timing.hold_down);
        }
        // Its letting go may not have been heard: the link can come back later than the register.
        let alone = |o: &EpochRecord| o.kind == EpochKind::Solo && !o.certain && o.home == me;
        if old.as_ref().is_some_and(alone) && new.kind == EpochKind::Heal && new.home == me {
            self.claim_address();
        }
        self.previous = old.clone().filter(|old| new.only_moves(old));
        if new.is_alone(me)
            && let Some(old) = &old
        {
            self.show_unconfirmed(old);
        }
        self.follow.compared.clear();
        self.follow.confirmed.clear();
        for id in flights {
            self.on_local_written(*id);
        }
        let leading: Vec<NodeId> = self.compares.keys().copied().collect();
        for peer in leading {
            self.stop_compare(peer);
        }
        self.apart = None;
        self.stop_guests();
        self.hold = None;
        // From the join mark on the guest stays level: every batch went to it.
        let takes_in =
            |o: EpochRecord| o.guest.is_some_and(|g| new.in_sync.contains(&g)) && new.parents.contains(&o.id);
        let joined = ended_mark.is_some() && old.is_some_and(takes_in);
        self.led = if joined && new.home == me { Some(new.id) } else { None };
        if !joined {
            for peer in self.peers.values_mut() {
                peer.level = false;
                peer.told = None;
            }
        }
        if new.is_home(me) {
            self.forget_waiting(None);
        }
        self.give_up_ordering();
        self.find_late();
        self.make_certain();
        if new.is_alone(me) && new.home == me {
            self.led = Some(new.id);
        }
        self.forget_left_out();
        self.log(format!("epoch {} ({:?}) is in effect", new.id, new.kind));
        self.beat_all();
    }

    /// Whether a compare-and-set can be asked for: one at a time.
    pub(crate) fn may_propose(&self) -> bool {
        let waits = self.proposal.is_some_and(|p| self.now.since(p.since) <= PROPOSE_WAIT_MS);
        !waits && self.register.quorum && self.now >= self.propose_not_before
    }

    /// Asks for a compare-and-set, if it can be.
    pub(crate) fn propose(&mut self, record: EpochRecord) {
        if !self.may_propose() {
            return;
        }
        let expect = self.register.record.as_ref().map(|r| r.id).unwrap_or_default();
        self.proposal = Some(Proposal { id: record.id, since: self.now });
        self.log(format!("proposing epoch {} ({:?}) after {expect}", record.id, record.kind));
        self.outputs.push_back(Output::Propose { expect, record });
    }

    pub(crate) fn on_propose_failed(&mut self) {
        self.proposal = None;
        self.propose_not_before = self.now.plus_ms(PROPOSE_AGAIN_MS);
    }
}
