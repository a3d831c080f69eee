//! Who may be taken off the list of members, as the home sees it (DESIGN 6, Membership).

use vocab::{EpochId, NodeId};

use crate::Replica;

/// Reasons for which a member is not removed, as they travel between nodes; all but the last two are for the operator.
pub const REMOVAL_REASONS: [&str; 5] = [IN_SYNC, HEARD, IS_HOME, CHANGING, ELSEWHERE];
const IN_SYNC: &str = "that node is in sync: run `twinpost cluster leave` on it, or wait until it counts as lost";
const HEARD: &str = "that node is heard: run `twinpost cluster leave` on it, or switch it off";
const IS_HOME: &str = "that node orders changes: run `twinpost cluster leave` on it";
const CHANGING: &str = "the cluster is changing its epoch: ask again";
const ELSEWHERE: &str = "the node that orders changes is another one: ask again";

/// Reasons of [`REMOVAL_REASONS`] that go away by themselves.
pub const REMOVAL_WAITS: [&str; 2] = [CHANGING, ELSEWHERE];

impl Replica {
    /// Whether this node is linked and not silent.
    #[must_use]
    pub fn hears(&self, node: NodeId) -> bool {
        let t1 = self.config.timing.t1;
        let heard = |p: &crate::link::Peer| p.link.is_some() && p.heard.is_some_and(|at| self.now.since(at) < t1);
        self.peers.get(&node).is_some_and(heard)
    }

    /// The epoch in effect here, if this node is its home and `node` may go for good: nothing is committed only with it,
    /// and it is not there, or has asked for it `itself` after leaving the in-sync set.
    ///
    /// # Errors
    /// One of [`REMOVAL_REASONS`].
    pub fn may_remove(&self, node: NodeId, itself: bool) -> Result<EpochId, &'static str> {
        let me = self.me();
        let record = self.record.as_ref().filter(|r| r.home == me).ok_or(ELSEWHERE)?;
        if node == me {
            return Err(IS_HOME);
        }
        if record.in_sync.contains(&node) || self.commit_peers().contains(&node) {
            return Err(IN_SYNC);
        }
        let marking = self.saved.join_mark != self.join_mark;
        if marking || self.entering.is_some() || self.handover.is_some() || self.is_superseded() {
            return Err(CHANGING);
        }
        if !itself && self.hears(node) {
            return Err(HEARD);
        }
        Ok(record.id)
    }
}
