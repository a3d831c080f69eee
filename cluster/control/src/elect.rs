//! A leader whose process surely ended is succeeded at once, not after its lease.

use std::collections::BTreeSet;
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use vocab::NodeId;

use crate::Control;
use crate::quorum::node_of;

/// Attempts; after them Raft's own time-outs go on.
const ROUNDS: u32 = 6;
/// Length of a round of attempts.
const ROUND: Duration = Duration::from_millis(100);
/// From the second round on voters stand one after the other, the least id first.
const TURN: Duration = Duration::from_millis(50);

impl Control {
    /// The guard of a node says that its process ended. If that one led and a majority can be left, the others elect a leader
    /// at once. A word that comes late, when the node leads again, costs an election and nothing else. Returns at once.
    pub fn process_ended(&self, node: NodeId) {
        let Some(me) = self.me.upgrade() else { return };
        tokio::spawn(async move {
            // The word comes by every path: once is enough.
            if me.ended().insert(node) {
                me.succeed(node).await;
                me.ended().remove(&node);
            }
        });
    }

    fn ended(&self) -> MutexGuard<'_, BTreeSet<NodeId>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A voter refuses its vote while the lease of the leader it follows runs, unless it has stood for election itself. So all
    /// stand in the first round, and of equals the greatest id wins; whoever heard the word later than the question decides
    /// in the next one.
    async fn succeed(&self, gone: NodeId) {
        for round in 0..ROUNDS {
            let Some(place) = self.place_without(gone) else { return };
            let turn = if round == 0 { Duration::ZERO } else { TURN * place };
            tokio::time::sleep(turn).await;
            let leader = self.raft().metrics().borrow().current_leader.map(node_of);
            if leader.is_some_and(|leader| leader != gone) {
                return;
            }
            // In the first round without a leader: somebody stands already, and has this node's vote.
            if leader.is_some() || round > 0 {
                tracing::info!(leader = gone.0, round, "the leader's process ended: standing for election");
                if self.raft().trigger().elect().await.is_err() {
                    return;
                }
            }
            tokio::time::sleep(ROUND.saturating_sub(turn)).await;
        }
    }

    /// This node's place among the voters that are left; `None` when it has no vote, or two alone vote: one is no majority.
    fn place_without(&self, gone: NodeId) -> Option<u32> {
        let voters = self.quorum.borrow().voters.clone();
        let mut left: Vec<NodeId> = voters.iter().copied().filter(|voter| *voter != gone).collect();
        left.sort_unstable();
        let place = left.iter().position(|voter| *voter == self.node)?;
        (left.len() * 2 > voters.len()).then(|| u32::try_from(place).unwrap_or(u32::MAX))
    }
}
