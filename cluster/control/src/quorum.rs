//! Whether the configuration can be changed now, as seen from this node.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use openraft::error::Fatal;
use openraft::{BasicNode, RaftMetrics, ServerState};
use ports::config::QuorumStatus;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use vocab::NodeId;

use crate::disk::fatal;
use crate::types::RaftId;

/// Silence after which a majority, or the leader, counts as gone. Shorter than T1, longer than a lost heartbeat or two.
const SILENCE: Duration = Duration::from_millis(1_000);
/// How often silence is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// What was heard of others, besides what Raft keeps.
#[derive(Default)]
pub(crate) struct Heard {
    leader: Mutex<Option<(NodeId, Instant)>>,
    forked: Mutex<BTreeSet<NodeId>>,
}

impl Heard {
    /// A leader's message was taken.
    pub(crate) fn note(&self, leader: NodeId) {
        *self.leader.lock().unwrap_or_else(PoisonError::into_inner) = Some((leader, Instant::now()));
    }
    fn recently(&self, leader: NodeId) -> bool {
        let heard = *self.leader.lock().unwrap_or_else(PoisonError::into_inner);
        heard.is_some_and(|(node, at)| node == leader && at.elapsed() < SILENCE)
    }
    /// Nodes whose settings have gone another way than ours.
    pub(crate) fn forked(&self) -> MutexGuard<'_, BTreeSet<NodeId>> {
        self.forked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Raft's id as ours.
pub(crate) fn node_of(id: RaftId) -> NodeId {
    NodeId(u32::try_from(id).unwrap_or(0))
}

fn judge_quorum(metrics: &RaftMetrics<RaftId, BasicNode>, heard: &Heard) -> QuorumStatus {
    let voters = metrics.membership_config.membership().voter_ids().map(node_of).collect();
    let leader = metrics.current_leader.map(node_of);
    let quorum = if metrics.state == ServerState::Leader {
        metrics.millis_since_quorum_ack.is_some_and(|ms| Duration::from_millis(ms) < SILENCE)
    } else {
        leader.is_some_and(|leader| heard.recently(leader))
    };
    let forked = heard.forked().iter().copied().collect();
    QuorumStatus { quorum: quorum && metrics.running_state.is_ok(), leader, voters, forked }
}

/// Keeps the status up to date until Raft stops.
pub(crate) fn watch_quorum(
    node: NodeId,
    mut metrics: watch::Receiver<RaftMetrics<RaftId, BasicNode>>,
    heard: Arc<Heard>,
    sender: Arc<watch::Sender<QuorumStatus>>,
) -> JoinHandle<()> {
    sender.send_replace(judge_quorum(&metrics.borrow(), &heard));
    tokio::spawn(async move {
        loop {
            let stopped = tokio::select! {
                changed = metrics.changed() => changed.is_err(),
                () = tokio::time::sleep(LOOK) => false,
            };
            if let Err(error) = &metrics.borrow().running_state
                && !matches!(error, Fatal::Stopped)
            {
                fatal("raft ended", error);
            }
            let now = judge_quorum(&metrics.borrow_and_update(), &heard);
            let now = if stopped { QuorumStatus { quorum: false, leader: None, ..now } } else { now };
            sender.send_if_modified(|old| {
                if old.quorum != now.quorum {
                    tracing::info!(node = node.0, quorum = now.quorum, leader = ?now.leader, "quorum of the configuration");
                }
                std::mem::replace(old, now.clone()) != now
            });
            if stopped || sender.is_closed() {
                return;
            }
        }
    })
}
