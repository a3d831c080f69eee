//! Planned handover: with everybody's agreement another member of the in-sync set becomes the home, or a member leaves
//! the set before it stops (DESIGN 5, 6). What is in flight is finished first, so nothing fails and nothing forks.

use topology::{EpochKind, EpochRecord};
use vocab::{EpochId, Instant, NodeId, SubmitError};

use crate::Replica;
use crate::balance::gathered;
use crate::output::{Output, Serving};

/// New batches wait at most this long for those in flight, before anything is proposed (ms).
const DRAIN_MS_MAX: u64 = 1_000;
/// A handover that nobody confirmed by then is given up (ms).
const HANDOVER_MS_MAX: u64 = 3_000;

/// Reasons for which a handover is refused, as they travel between nodes.
pub const HANDOVER_REASONS: [&str; 10] =
    [NOT_HOME, HANDOVER_BUSY, NO_QUORUM, HEALING, NOT_COMPARED, NOT_FIT, NO_OTHER, SLOW, ALONE, NOT_SURE];
const NOT_HOME: &str = "this node is not the home";
/// Why a handover is refused while another one is under way.
pub const HANDOVER_BUSY: &str = "the cluster is changing its epoch: ask again";
const NO_QUORUM: &str = "no quorum: nobody can confirm it";
const HEALING: &str = "a node is being brought up to date or is missing: ask again when all are in sync";
const NOT_COMPARED: &str = "the nodes are being compared: ask again";
const NOT_FIT: &str = "that node is not in sync, not linked or short of space";
const NO_OTHER: &str = "no other node is in sync";
const SLOW: &str = "what is in flight was not finished in time; nothing was changed";
const NOT_SURE: &str = "that node does not know yet whether it is still the home: ask again";
const ALONE: &str = "this node is the only one in sync: nobody can take its place";

/// A handover under way at the home that was asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Handover {
    to: NodeId,
    leaves: Option<NodeId>,
    from: EpochId,
    since: Instant,
    proposed: bool,
    /// Spread homes are gathered first: a node that leaves has batches of its own in flight otherwise.
    gathering: bool,
}

/// The home leaves by itself when its disk was full for so long and another has room (ms).
const FULL_MS_MAX: u64 = 2_000;

impl Replica {
    /// Whether the home can hand over now, and to whom. `to`: who becomes the home, `None` = whoever fits (the home
    /// stays where it is unless it is the one that leaves). `leaves`: who leaves the in-sync set.
    ///
    /// # Errors
    /// The reason, one of [`HANDOVER_REASONS`]; most go away by themselves.
    pub fn may_hand_over(&self, to: Option<NodeId>, leaves: Option<NodeId>) -> Result<NodeId, &'static str> {
        let me = self.me();
        let record = self.record.as_ref().filter(|r| r.home == me).ok_or(NOT_HOME)?;
        if to == Some(me) && leaves.is_none() {
            // Nothing is changed, so nobody need agree; but an epoch from before an absence says nothing.
            return match self.serving(self.now) {
                Serving::Home if self.handover.is_none() => Ok(me),
                Serving::Home => Err(HANDOVER_BUSY),
                _ => Err(NOT_SURE),
            };
        }
        if record.is_alone(me) {
            return Err(if leaves == Some(me) { ALONE } else { NO_OTHER });
        }
        if !self.register.quorum {
            return Err(NO_QUORUM);
        }
        let current = self.register.record.as_ref().map(|r| r.id) == Some(record.id);
        if !current || self.entering.is_some() || self.is_superseded() || self.handover.is_some() {
            return Err(HANDOVER_BUSY);
        }
        if record.gap || record.guest.is_some() || record.kind == EpochKind::Solo || self.reduce.is_some() {
            return Err(HEALING);
        }
        if !self.is_compared(record) {
            return Err(NOT_COMPARED);
        }
        let fits = |id: &NodeId| {
            // Not on the word of a link that is down without our having heard of it: who slept may find another boot there.
            let level = self.peers.get(id).is_some_and(|p| p.level && p.disk_ok && p.link.is_some());
            let level = level && self.in_contact(*id);
            record.in_sync.contains(id) && leaves != Some(*id) && (*id == me || level)
        };
        if leaves.is_some_and(|id| !record.in_sync.contains(&id)) {
            return Err(NOT_FIT);
        }
        match to {
            Some(to) => fits(&to).then_some(to).ok_or(NOT_FIT),
            // A backup that leaves moves nothing.
            None if leaves.is_some_and(|id| id != me) => Ok(me),
            None => record.in_sync.iter().find(|id| **id != me && fits(id)).copied().ok_or(NO_OTHER),
        }
    }

    /// The member still fits that was chosen when the handover began.
    fn still_fits(&self, handover: Handover) -> bool {
        handover.to == self.me() || self.in_contact(handover.to)
    }

    pub(crate) fn on_handover(&mut self, to: Option<NodeId>, leaves: Option<NodeId>) {
        match (self.may_hand_over(to, leaves), self.record.as_ref().map(|r| r.id)) {
            (Ok(to), Some(from)) if to != self.me() || leaves.is_some() => {
                self.begin_handover(to, leaves, from);
            }
            (Ok(to), _) => self.outputs.push_back(Output::HandedOver(Ok(to))),
            (Err(reason), _) => self.outputs.push_back(Output::HandedOver(Err(SubmitError::Unavailable(reason)))),
        }
    }

    fn begin_handover(&mut self, to: NodeId, leaves: Option<NodeId>, from: EpochId) {
        self.log(format!("handing over to node {}, leaving: {leaves:?}", to.0));
        let gathering = leaves.is_some() && self.record.as_ref().is_some_and(|r| !r.homes.is_empty());
        self.handover = Some(Handover { to, leaves, from, since: self.now, proposed: false, gathering });
    }

    /// A home that has no room refuses every change, and one full disk must not stop two nodes: it lets another one that
    /// has room go on without it (DESIGN 5).
    pub(crate) fn consider_space(&mut self) {
        let full = self.full_since.is_some_and(|since| self.now.since(since) >= FULL_MS_MAX);
        let me = self.me();
        let Some(from) = self.record.as_ref().filter(|r| full && r.home == me).map(|r| r.id) else { return };
        // Should it fail, the next try comes after as long a wait.
        self.full_since = Some(self.now);
        if let Ok(to) = self.may_hand_over(None, Some(me)) {
            let text = format!("the disk of node {} is full: node {} goes on without it", me.0, to.0);
            self.outputs.push_back(Output::Alert(text));
            self.begin_handover(to, Some(me), from);
        }
    }

    /// This node is about to stop, or is not after all: it is not taken back into the in-sync set meanwhile.
    pub(crate) fn on_leaving(&mut self, leaving: bool) {
        self.leaving = leaving;
        self.beat_all();
    }

    /// Nothing new is ordered while what is in flight is finished and the register decides.
    pub(crate) fn is_handing_over(&self) -> bool {
        self.handover.is_some_and(|h| self.record.as_ref().is_some_and(|r| r.id == h.from))
    }

    pub(crate) fn consider_handover(&mut self) {
        let Some(handover) = self.handover else { return };
        let Some(record) = self.record.clone() else { return };
        let waited = self.now.since(handover.since);
        let gathered = handover.gathering && record.home == self.me() && record.homes.is_empty();
        if gathered && record.id != handover.from {
            // Once compared again, the second step: who leaves, leaves.
            if self.is_compared(&record) {
                let from = record.id;
                self.handover = Some(Handover { from, proposed: false, gathering: false, ..handover });
            }
        } else if record.id == handover.from {
            if !handover.proposed && self.flights.is_empty() {
                if !self.still_fits(handover) {
                    return self.end_handover(Err(SubmitError::Unavailable(NOT_FIT)));
                }
                if self.may_propose() && self.entering.is_none() {
                    self.propose_handover(&record, handover);
                }
            } else if !handover.proposed && waited > DRAIN_MS_MAX {
                return self.end_handover(Err(SubmitError::Unavailable(SLOW)));
            }
        } else if record.home != handover.to || handover.leaves.is_some_and(|id| record.in_sync.contains(&id)) {
            return self.end_handover(Err(SubmitError::Unavailable(HANDOVER_BUSY)));
        } else if record.home == self.me() || self.is_taken_over(&record) {
            return self.end_handover(Ok(record.home));
        }
        if waited > HANDOVER_MS_MAX {
            self.end_handover(Err(SubmitError::Unknown("nobody confirmed it in time; it may still happen")));
        }
    }

    /// The new home holds the address, so it has compared with everybody and serves.
    fn is_taken_over(&self, record: &EpochRecord) -> bool {
        self.peers.get(&record.home).is_some_and(|p| p.holds_address && p.epoch() == Some(record.id))
    }

    fn end_handover(&mut self, result: Result<NodeId, SubmitError>) {
        self.handover = None;
        self.log(format!("handover: {result:?}"));
        self.outputs.push_back(Output::HandedOver(result));
    }

    fn propose_handover(&mut self, record: &EpochRecord, handover: Handover) {
        let Handover { to, leaves, gathering, .. } = handover;
        let leaves = leaves.filter(|_| !gathering);
        let stays = |id: &NodeId| leaves != Some(*id);
        if let Some(handover) = self.handover.as_mut() {
            handover.proposed = true;
        }
        self.propose(EpochRecord {
            id: EpochId { number: self.next_epoch_number(), author: 0 },
            kind: if leaves.is_some() { EpochKind::Reduced } else { record.kind },
            members: self.present_members(record),
            in_sync: record.in_sync.iter().filter(|id| stays(id)).copied().collect(),
            home: if gathering { self.me() } else { to },
            homes: gathered(),
            parents: vec![record.id],
            certain: true,
            on_silence: false,
            ..record.clone()
        });
    }

    /// Nobody ordered anything since the comparison but with everybody of the same set, so what that comparison was good
    /// for it still is: an epoch that only moves the home takes nobody's right to go on alone (X5).
    pub(crate) fn keeps_comparison(&self, old: Option<&EpochRecord>, new: &EpochRecord) -> bool {
        old.is_some_and(|old| {
            let compared = self.is_compared(old) || self.entitled == Some(old.id);
            compared && new.only_moves(old)
        })
    }
}
