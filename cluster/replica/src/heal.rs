//! Back from alone to joint: who proposes what, when a guest is level, and the join mark (DESIGN 7; X11).

use topology::{EpochKind, EpochRecord};
use vocab::{EpochId, NodeId};

use crate::balance::gathered;
use crate::{Pending, Replica};

/// New batches wait at most this long for a guest that is nearly level (ms).
const HOLD_MS_MAX: u64 = 1_000;
/// After a hold without success the next one waits this long (ms).
const HOLD_PAUSE_MS: u64 = 1_000;
/// A node that left the in-sync set for space or slowness is taken back no earlier (ms).
const REDUCED_MS_MIN: u64 = 30_000;

impl Replica {
    /// When only what is on its way is missing, new batches are held; once nothing is, the mark is written.
    pub(crate) fn consider_join_mark(&mut self) {
        let Some(record) = self.record.as_ref().filter(|r| r.kind == EpochKind::Heal && r.home == self.config.node)
        else {
            return;
        };
        let (epoch, Some(guest)) = (record.id, record.guest) else { return };
        if self.saved.join_mark == Some(epoch) || self.entering.is_some() {
            return;
        }
        let near = self.compares.get(&guest).is_some_and(|c| c.is_heal() && c.is_near());
        if !near {
            self.hold = None;
            return;
        }
        match self.hold {
            None if self.now >= self.hold_not_before => self.hold = Some(self.now),
            None => return,
            Some(since) if self.now.since(since) > HOLD_MS_MAX => {
                self.hold = None;
                self.hold_not_before = self.now.plus_ms(HOLD_PAUSE_MS);
                return;
            }
            Some(_) => {}
        }
        let others = self.commit_peers();
        let with_others = others.is_empty()
            || (self.led == Some(epoch) && others.iter().all(|p| self.peers.get(p).is_some_and(|p| p.level)));
        let level = with_others && self.compares.get(&guest).is_some_and(|c| c.is_level());
        if level && self.flights.is_empty() {
            self.saved.join_mark = Some(epoch);
            let part = self.saved.to_write();
            self.write(vec![part], Pending::JoinMark(epoch));
            self.log(format!("node {} holds everything: join mark in epoch {epoch}", guest.0));
        }
    }

    /// From now on nothing is committed without the guest, until a newer epoch is known (X11).
    pub(crate) fn on_join_marked(&mut self, epoch: EpochId) {
        let Some(record) = self.record.as_ref().filter(|r| r.id == epoch) else { return };
        let Some(guest) = record.guest else { return };
        self.join_mark = Some(epoch);
        self.led = None;
        let was_level = self.compares.get(&guest).is_some_and(|c| c.is_heal() && c.is_level());
        self.stop_compare(guest);
        self.hold = None;
        // A link that broke meanwhile makes a new comparison, now as between members.
        if was_level {
            self.set_level(guest);
        }
    }

    /// Proposals the home or anchor makes when the register can decide.
    pub(crate) fn consider_proposals(&mut self) {
        let free = self.entering.is_none() && self.handover.is_none();
        let may = self.register.quorum && free && !self.is_superseded();
        let Some(record) = self.record.as_ref().filter(|r| may && r.home == self.config.node) else { return };
        let registered = self.register.record.as_ref().map(|r| r.id);
        if registered.is_some() && registered < Some(record.id) && self.is_waited_for(record) {
            return self.propose_again(record.clone());
        }
        let whole = record.in_sync == self.register.members;
        if whole && record.kind == EpochKind::Joint && self.reduce.is_none() {
            return;
        }
        let record = record.clone();
        // A decision that waits to be entered is not proposed over.
        if self.register.record.as_ref().is_some_and(|r| self.may_enter(r)) {
            return;
        }
        // What was proposed is decided and not entered yet: proposing on top of it would only restart the comparison.
        let waits = |r: &EpochRecord| r.home == record.home && r.id.number > record.id.number;
        if self.register.record.as_ref().is_some_and(waits) {
            return;
        }
        let in_register = registered == Some(record.id);
        // The register of a survivor that was made the only voter may be older than what the others had decided before.
        let follows = registered.is_some() && registered <= Some(record.id);
        let alone = record.is_alone(self.me());
        let compared = self.led == Some(record.id);
        let heal = record.kind == EpochKind::Heal;
        if heal && self.join_mark == Some(record.id) {
            if follows && compared {
                self.propose_joint(&record);
            }
        } else if !alone && in_register && self.reduce.is_some() {
            self.propose_reduced(&record);
        } else if whole && record.kind != EpochKind::Joint && compared {
            // Whoever was missing is no member any more.
            self.propose_joint(&record);
        } else if (alone || (follows && compared)) && !whole {
            let anew = !heal || !in_register || self.guest_went_alone(&record) || self.guest_is_away(&record);
            if anew {
                self.propose_heal(&record);
            }
        }
    }

    /// A member of this epoch is here that never entered it.
    fn is_waited_for(&self, record: &EpochRecord) -> bool {
        let behind = |id: &NodeId| self.peers.get(id).is_some_and(|p| p.hello && p.epoch() < Some(record.id));
        self.others_in_sync(record).iter().any(behind)
    }

    /// The register of a survivor that was made the only voter is older than what the others had decided before, and who had
    /// not entered that yet finds it nowhere: it is decided anew, as what it is.
    fn propose_again(&mut self, record: EpochRecord) {
        let id = EpochId { number: self.next_epoch_number(), author: 0 };
        self.propose(EpochRecord { id, parents: vec![record.id], ..record });
    }

    /// The guest is not there, and another data member that lacks something is.
    fn guest_is_away(&self, heal: &EpochRecord) -> bool {
        let here = |id: &NodeId| self.peers.get(id).is_some_and(|p| p.hello);
        let guest = heal.guest.filter(|guest| !here(guest));
        guest.is_some() && self.choose_guest(heal).is_some_and(|other| Some(other) != guest)
    }

    /// The guest has started alone since this heal began (an operator said so): it enters only a newer one (X10).
    fn guest_went_alone(&self, heal: &EpochRecord) -> bool {
        let theirs = heal.guest.and_then(|guest| self.peers.get(&guest)).and_then(|p| p.record.as_ref());
        theirs.is_some_and(|r| Some(r.home) == heal.guest && r.id > heal.id)
    }

    fn propose_joint(&mut self, heal: &EpochRecord) {
        let mut in_sync = heal.in_sync.clone();
        // Without a join mark the guest is one that was taken off the list of members before it was up to date.
        in_sync.extend(heal.guest.filter(|_| self.join_mark == Some(heal.id)));
        in_sync.sort_unstable();
        in_sync.dedup();
        let members = self.present_members(heal);
        // While another member is missing a gap stays due.
        let whole = in_sync == members;
        let carried = heal.gap_epoch().filter(|id| !whole && *id != heal.id);
        self.propose(EpochRecord {
            id: EpochId { number: self.next_epoch_number(), author: 0 },
            kind: if whole { EpochKind::Joint } else { EpochKind::Reduced },
            members,
            in_sync,
            homes: gathered(),
            parents: carried.into_iter().chain([heal.id]).collect(),
            anchor: None,
            guest: None,
            gap: heal.gap && !whole,
            ..heal.clone()
        });
    }

    fn propose_heal(&mut self, record: &EpochRecord) {
        let Some(guest) = self.choose_guest(record) else { return };
        // First the epoch whose gap is carried on, then the one this follows, then the guest's.
        let carried = record.gap_epoch().unwrap_or(record.id);
        let mut parents = vec![carried];
        parents.extend(Some(record.id).filter(|id| *id != carried));
        parents.extend(self.peers.get(&guest).and_then(|p| p.epoch()).filter(|id| *id != record.id));
        let theirs = self.peers.get(&guest).and_then(|p| p.record.as_ref()).filter(|r| r.kind == EpochKind::Solo);
        let members = self.present_members(record);
        self.propose(EpochRecord {
            id: EpochId { number: self.next_epoch_number(), author: 0 },
            kind: EpochKind::Heal,
            members,
            homes: gathered(),
            parents,
            certain: record.certain && theirs.is_none_or(|r| r.certain),
            // Carried on to joint: the hold-down follows a solo epoch opened on silence.
            on_silence: record.on_silence || theirs.is_some_and(|r| r.on_silence),
            anchor: Some(self.me()),
            guest: Some(guest),
            ..record.clone()
        });
    }

    /// A data member that is heard, has space, and for which this node is the anchor: the only solo side, else the
    /// holder of the cluster address, else the lower id. One that was just left out for its silence may have a link still;
    /// as guest it would be waited for by every reader of what it may have changed.
    fn choose_guest(&self, record: &EpochRecord) -> Option<NodeId> {
        let me = self.me();
        let waits =
            record.kind == EpochKind::Reduced && self.reduced_at.is_some_and(|at| self.now.since(at) < REDUCED_MS_MIN);
        if waits {
            return None;
        }
        let fits = |id: &NodeId| {
            let Some(peer) = self.peers.get(id).filter(|p| p.hello && p.disk_ok) else { return false };
            if !self.is_heard(peer) {
                return false;
            }
            let alone = peer.record.as_ref().is_some_and(|r| r.is_alone(*id) && r.home == *id);
            let anchor = match (self.address_held, peer.holds_address) {
                (true, false) => true,
                (false, true) => false,
                _ => me < *id,
            };
            // The side a quorum has chosen is the anchor of a node it has left out and an operator has started.
            let quorum = self.by_quorum();
            let chosen = |us: NodeId, them: NodeId| {
                let over = |r: &EpochRecord| r.in_sync.contains(&us) && !r.in_sync.contains(&them);
                quorum && self.register.record.as_ref().is_some_and(over)
            };
            // One that never entered its epoch and heard of another's solo epoch since then does not enter it any more.
            // Nor does one that had entered it, with a join mark or while it was being written, go on after hearing of ours.
            let stands_back = peer.newest.as_ref().is_some_and(|n| n.id == record.id && Some(n.id) > peer.epoch());
            let entered = peer.epoch() == self.register.record.as_ref().map(|r| r.id) && !stands_back;
            chosen(me, *id) || ((!alone || anchor) && !(entered && chosen(*id, me)))
        };
        self.register.members.iter().filter(|id| !record.in_sync.contains(id)).find(|id| fits(id)).copied()
    }

    /// A backup without space, or slow again and again, is left out by agreement: one full disk must not stop two nodes.
    fn propose_reduced(&mut self, record: &EpochRecord) {
        let Some(out) = self.reduce else { return };
        // From the join mark on the guest is in sync: joint comes first.
        let joining = record.kind == EpochKind::Heal && self.join_mark == Some(record.id);
        if !self.peers.get(&out).is_some_and(|p| p.hello) || joining || !record.in_sync.contains(&out) {
            return;
        }
        self.propose(EpochRecord {
            id: EpochId { number: self.next_epoch_number(), author: 0 },
            kind: EpochKind::Reduced,
            members: self.present_members(record),
            in_sync: record.in_sync.iter().filter(|n| **n != out).copied().collect(),
            homes: gathered(),
            anchor: None,
            guest: None,
            parents: record.gap_epoch().filter(|id| *id != record.id).into_iter().chain([record.id]).collect(),
            ..record.clone()
        });
    }
}
