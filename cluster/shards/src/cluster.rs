//! [`Cluster`] over the engine: what an operator sees, and the one thing only an operator may say.

use std::sync::{Arc, PoisonError};

use ports::Answer;
use ports::cluster::{
    BranchStatus, Cluster, ClusterStatus, Departure, MembershipError, NodeStatus, Others, Rescue, Switchover,
};
use ports::config::QuorumStatus;
use ports::journal::ClusterEvent;
use ports::peers::Peers;
use replica::{Event, ReplicaStatus, Serving};
use tokio::sync::{oneshot, watch};
use vocab::limits::T2_MS;
use vocab::{NodeId, SubmitError};

use crate::engine::Engine;

/// [`Cluster`] over the engine.
pub struct EngineCluster(pub(crate) Arc<Engine>);

impl Engine {
    /// The engine behind each port.
    #[must_use]
    pub fn cluster(self: &Arc<Self>) -> Arc<EngineCluster> {
        Arc::new(EngineCluster(Arc::clone(self)))
    }
    /// Accounts.
    #[must_use]
    pub fn accounts(self: &Arc<Self>) -> Arc<crate::EngineAccounts> {
        Arc::new(crate::EngineAccounts(Arc::clone(self)))
    }
    /// Bodies.
    #[must_use]
    pub fn blobs(self: &Arc<Self>) -> Arc<crate::EngineBlobs> {
        Arc::new(crate::EngineBlobs(Arc::clone(self)))
    }
    /// Intake.
    #[must_use]
    pub fn intake(self: &Arc<Self>) -> Arc<crate::EngineIntake> {
        Arc::new(crate::EngineIntake(Arc::clone(self)))
    }
    /// Outbox.
    #[must_use]
    pub fn outbox(self: &Arc<Self>) -> Arc<crate::EngineOutbox> {
        Arc::new(crate::EngineOutbox(Arc::clone(self)))
    }
}

impl Cluster for EngineCluster {
    fn status(&self) -> ClusterStatus {
        let engine = &self.0;
        let now = engine.now();
        let replica = engine.machine().status(now);
        let state = engine.config.current();
        let holder = self.address_holder(&replica);
        let heard = |id: NodeId| {
            id == engine.node
                || engine.witness_links().contains_key(&id)
                || replica.heard.iter().any(|(n, ms)| *n == id && ms.is_some_and(|ms| ms <= T2_MS))
        };
        let in_sync = replica.record.as_ref().map(|r| r.in_sync.clone()).unwrap_or_default();
        let quorum = engine.config.quorum().borrow().clone();
        let programs = Programs { peers: &*engine.peers, replica: &replica };
        let nodes = state.members.values().map(|member| {
            programs.fill(NodeStatus {
                id: member.id.0,
                name: member.name.clone(),
                address: member.address.clone(),
                role: if !heard(member.id) {
                    "unreachable".to_owned()
                } else if !member.data {
                    "witness".to_owned()
                } else if holder == Some(member.id) {
                    "primary".to_owned()
                } else {
                    "secondary".to_owned()
                },
                reachable: heard(member.id),
                in_sync: in_sync.contains(&member.id),
                votes: quorum.voters.contains(&member.id),
                homes: replica.record.as_ref().map_or(0, |record| record.shards_of(member.id)),
                ..NodeStatus::default()
            })
        });
        let warnings = self.warnings(&replica, &quorum);
        ClusterStatus {
            cluster: state.name.clone(),
            node: engine.node.0,
            mode: replica.mode.name().to_owned(),
            epoch: replica.record.as_ref().map(|r| r.id.to_string()).unwrap_or_default(),
            epoch_kind: replica.record.as_ref().map(|r| kind_name(r.kind)).unwrap_or_default().to_owned(),
            in_sync: in_sync.iter().map(|n| n.0).collect(),
            home: replica.record.as_ref().map_or(0, |r| r.home.0),
            cluster_address: state.cluster_addresses.first().map(|one| one.address.to_string()),
            cluster_addresses: state.cluster_addresses.iter().map(ToString::to_string).collect(),
            address_holder: holder.map(|n| n.0),
            nodes: nodes.collect(),
            batches_in_flight: replica.in_flight,
            oldest_batch_ms: replica.oldest_ms,
            sync: replica.sync.map(|sync| engine.sync_status(sync)),
            checks: engine.checks.status(),
            merges: *engine.merges.lock().unwrap_or_else(PoisonError::into_inner),
            branches: engine.store.branches(),
            settings_locked: (!quorum.quorum).then(|| LOCKED.to_owned()),
            warnings,
            rows_written: replica.rows,
        }
    }

    fn node(&self) -> NodeId {
        self.0.node
    }

    fn serving(&self) -> watch::Receiver<bool> {
        self.0.serving.subscribe()
    }

    fn home(&self) -> Option<NodeId> {
        self.0.machine().newest_home()
    }

    fn partners(&self) -> Vec<NodeId> {
        self.0.machine().partners()
    }

    fn events(&self, limit: usize) -> Vec<ClusterEvent> {
        self.0.journal.as_ref().map(|journal| journal.recent(limit)).unwrap_or_default()
    }

    fn holds_address(&self) -> watch::Receiver<bool> {
        self.0.holds_address.subscribe()
    }

    fn branches(&self) -> Answer<'_, Result<Vec<BranchStatus>, SubmitError>> {
        Box::pin(self.0.archived_branches())
    }

    fn delete_branch(&self, id: String) -> Answer<'_, Result<bool, SubmitError>> {
        Box::pin(self.0.delete_branch(id))
    }

    fn start_alone(&self) -> Answer<'_, Result<(), SubmitError>> {
        Box::pin(async move {
            let (answer, answered) = oneshot::channel();
            self.0.start_alone.lock().unwrap_or_else(PoisonError::into_inner).push(answer);
            tracing::warn!("an operator says that the other node is down");
            self.0.tell(Event::StartAlone);
            match answered.await {
                Ok(result) => result.map_err(SubmitError::Unavailable),
                Err(_) => Err(SubmitError::Unknown("no answer")),
            }
        })
    }

    fn switch_over(&self, to: Option<NodeId>, dry_run: bool) -> Answer<'_, Result<Switchover, SubmitError>> {
        Box::pin(self.0.switch_over(to, dry_run))
    }

    fn leave(&self, dry_run: bool) -> Answer<'_, Result<Departure, MembershipError>> {
        Box::pin(self.0.leave(dry_run))
    }

    fn remove(&self, node: NodeId, dry_run: bool) -> Answer<'_, Result<Departure, MembershipError>> {
        Box::pin(self.0.remove_member(node, dry_run))
    }

    fn rescue(&self, others: Others, dry_run: bool) -> Answer<'_, Result<Rescue, MembershipError>> {
        Box::pin(self.0.rescue(others, dry_run))
    }
}

/// What nodes told of their programs.
struct Programs<'a> {
    peers: &'a dyn Peers,
    replica: &'a ReplicaStatus,
}

impl Programs<'_> {
    fn fill(&self, node: NodeStatus) -> NodeStatus {
        let id = NodeId(node.id);
        let refused = || self.peers.refused(id).filter(|_| !node.reachable).or_else(|| self.unreadable(id));
        let (refused, told) = (refused(), self.peers.program(id));
        NodeStatus {
            refused,
            protocol: told.as_ref().map(|program| program.protocol),
            rows: told.as_ref().map(|program| program.rows),
            program: told.map(|program| program.version),
            ..node
        }
    }

    fn unreadable(&self, id: NodeId) -> Option<String> {
        let (_, reads) = self.replica.unreadable.iter().find(|(other, _)| *other == id)?;
        let written = self.replica.rows;
        Some(format!("it reads rows up to format {reads}, up to {written} may have been written here"))
    }
}

/// Why settings cannot be changed, and the ways out.
const LOCKED: &str = "no quorum: changes need a majority of the nodes that vote. Bring the missing ones back, or when they \
                      are lost or off for long, `twinpost cluster rescue` on the node that serves alone; mail goes on \
                      meanwhile and settings can be read";

impl EngineCluster {
    /// Things an operator must know, each with what to do where that is not plain.
    fn warnings(&self, replica: &ReplicaStatus, quorum: &QuorumStatus) -> Vec<String> {
        let (engine, state) = (&self.0, self.0.config.current());
        let mut warnings = replica.warnings.clone();
        if let Serving::Not(reason) = replica.serving {
            warnings.push(format!("this node does not serve clients: {reason}"));
        }
        if let Some(fault) = &*engine.address_fault.lock().unwrap_or_else(PoisonError::into_inner) {
            warnings.push(format!("cluster address: {fault}"));
        }
        let held = engine.held.load(std::sync::atomic::Ordering::Relaxed);
        if held > 0 {
            warnings.push(format!(
                "{held} items of the queue belong to the other node and wait, because this one is alone on mere silence: \
                 `twinpost queue list` says until when, `twinpost queue release` sends them now"
            ));
        }
        let late = engine.fan_out.late();
        if late > 0 {
            warnings.push(format!(
                "{late} accepted messages have waited for more than {} s to be placed with all of their recipients: \
                 `twinpost queue list` names them (`accepts`), the log says what they wait for",
                crate::fanout::LATE_MS / 1000
            ));
        }
        for what in engine.checks.status().broken {
            warnings.push(format!("damaged on this node, and no other node could give a sound copy yet: {what}"));
        }
        for other in &quorum.forked {
            warnings.push(format!(
                "node {} and this one were both made sole voter, and their settings have gone two ways: on the one whose \
                 settings are to be given up stop the service, empty the folder `raft` in its data folder, start it",
                other.0
            ));
        }
        let witnesses = state.members.values().filter(|member| !member.data).count();
        if state.members.len() == 2 && witnesses == 0 {
            warnings.push(
                "two nodes without a witness: a missing node locks the settings, and a true split is healed by \
                 merging afterwards"
                    .to_owned(),
            );
        }
        warnings
    }

    /// This node when it holds the address; else the home of the epoch, which holds it in a pair.
    fn address_holder(&self, replica: &ReplicaStatus) -> Option<NodeId> {
        if replica.holds_address {
            return Some(self.0.node);
        }
        replica.record.as_ref().map(|r| r.home).filter(|home| *home != self.0.node)
    }
}

fn kind_name(kind: topology::EpochKind) -> &'static str {
    match kind {
        topology::EpochKind::Joint => "joint",
        topology::EpochKind::Reduced => "reduced",
        topology::EpochKind::Solo => "solo",
        topology::EpochKind::Heal => "heal",
    }
}
