//! Changes: to the leader, wherever it is, and back; fails fast without quorum.

use std::collections::BTreeSet;
use std::sync::PoisonError;
use std::time::Duration;

use openraft::error::{ChangeMembershipError, ClientWriteError, RaftError};
use openraft::{BasicNode, ChangeMembers};
use ports::config::{ConfigError, Proposed, QuorumStatus};
use ports::peers::CallError;
use tokio::time::{Instant, timeout, timeout_at};
use topology::ConfigOp;
use vocab::NodeId;

use crate::Control;
use crate::network::ask;
use crate::types::{Applied, Committed, Message, ProposeReply, RaftId, Refusal, rejected};

/// How long a change waits for a quorum and for its commit.
const PROPOSE_WAIT: Duration = Duration::from_millis(2_000);
/// Pause before the leader is looked for again.
const RETRY: Duration = Duration::from_millis(50);
/// How long a new voter may take to catch up.
const VOTER_WAIT: Duration = Duration::from_secs(15);
/// A node that lost its vote is told of changes for so long.
const STALE_LEARNER_WAIT: Duration = Duration::from_secs(5);

type WriteError = RaftError<RaftId, ClientWriteError<RaftId, BasicNode>>;

impl Control {
    pub(crate) async fn propose_change(&self, op: ConfigOp) -> Result<Proposed, ConfigError> {
        let Committed { index, applied } = self.at_leader(Message::Propose(op), PROPOSE_WAIT).await?;
        self.await_applied(index).await?;
        let node = applied.outcome.map_err(rejected)?;
        Ok(Proposed { revision: applied.revision, node })
    }

    pub(crate) async fn add_voting_node(&self, node: NodeId, peer_address: String) -> Result<(), ConfigError> {
        let message = Message::AddVoter { node, peer_address };
        let Committed { index, .. } = self.at_leader(message, VOTER_WAIT + PROPOSE_WAIT).await?;
        self.await_applied(index).await
    }

    /// Finds the leader and has it done there; `wait` bounds the answer, looking for a leader takes [`PROPOSE_WAIT`].
    async fn at_leader(&self, message: Message, wait: Duration) -> Result<Committed, ConfigError> {
        let deadline = Instant::now() + PROPOSE_WAIT;
        let mut why = None;
        loop {
            let status = self.quorum.borrow().clone();
            let reply = match status.leader.filter(|_| status.quorum) {
                None => Err(Refusal::NotLeader),
                Some(leader) if leader == self.node => self.here(&message).await,
                Some(leader) => self.at_peer(leader, &message, wait, &mut why).await,
            };
            match reply {
                Ok(committed) => return Ok(committed),
                Err(Refusal::Unknown(reason)) => return Err(ConfigError::Unknown(reason)),
                Err(Refusal::Locked(reason)) => return Err(ConfigError::Locked(reason)),
                Err(Refusal::NotLeader) if Instant::now() + RETRY < deadline => tokio::time::sleep(RETRY).await,
                Err(Refusal::NotLeader) => return Err(ConfigError::Locked(ways_out(&status, why.as_deref()))),
            }
        }
    }

    async fn here(&self, message: &Message) -> ProposeReply {
        match message {
            Message::Propose(op) => self.commit_here(op.clone()).await,
            Message::AddVoter { node, peer_address } => self.add_voter_here(*node, peer_address.clone()).await,
            Message::Append(_) | Message::Vote(_) | Message::Snapshot(_) => Err(Refusal::NotLeader),
        }
    }

    async fn at_peer(
        &self,
        leader: NodeId,
        message: &Message,
        wait: Duration,
        why: &mut Option<String>,
    ) -> ProposeReply {
        match timeout(wait + RETRY, ask::<ProposeReply>(&*self.peers, leader, &self.lineage(), message)).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(CallError::NotSent(reason) | CallError::Refused(reason))) => {
                *why = Some(reason);
                Err(Refusal::NotLeader)
            }
            Ok(Err(CallError::Lost(reason))) => Err(Refusal::Unknown(reason)),
            Err(_) => Err(Refusal::Unknown(format!("node {} did not answer in time", leader.0))),
        }
    }

    /// Commits at this node if it leads and hears a majority.
    pub(crate) async fn commit_here(&self, op: ConfigOp) -> ProposeReply {
        let deadline = Instant::now() + PROPOSE_WAIT;
        self.check_leads()?;
        let op = match self.prepare(op, deadline).await? {
            Ok(op) => op,
            Err(rejected) => return Ok(rejected),
        };
        match timeout_at(deadline, self.raft().client_write(op)).await {
            Ok(Ok(written)) => Ok(Committed { index: written.log_id.index, applied: written.data }),
            Ok(Err(error)) => Err(refusal(&error)),
            Err(_) => Err(Refusal::Unknown(
                "a majority did not confirm the change in time; it takes effect if they do later".to_owned(),
            )),
        }
    }

    /// Judges a change by this program; the inner error is the answer to one that is rejected.
    async fn prepare(&self, op: ConfigOp, deadline: Instant) -> Result<Result<ConfigOp, Committed>, Refusal> {
        let state = self.shared.state.load_full();
        if let Ok(op) = topology::prepare(&state, &op) {
            return Ok(Ok(op));
        }
        // A leader that was just elected may not have applied yet what is committed.
        match timeout_at(deadline, self.raft().ensure_linearizable()).await {
            Ok(Ok(_)) => {}
            Ok(Err(RaftError::Fatal(error))) => return Err(Refusal::Unknown(error.to_string())),
            Ok(Err(RaftError::APIError(_))) | Err(_) => return Err(Refusal::NotLeader),
        }
        let state = self.shared.state.load_full();
        let index = self.raft().metrics().borrow().last_applied.map_or(0, |applied| applied.index);
        let rejected =
            |rejection| Committed { index, applied: Applied { revision: state.revision, outcome: Err(rejection) } };
        Ok(topology::prepare(&state, &op).map_err(rejected))
    }

    /// Learner, caught up, voter; at this node if it leads.
    pub(crate) async fn add_voter_here(&self, node: NodeId, peer_address: String) -> ProposeReply {
        self.check_leads()?;
        let id = RaftId::from(node.0);
        let membership = self.raft().metrics().borrow().membership_config.membership().clone();
        // A change that broke off half-way (two configurations at once) is finished below.
        if membership.get_joint_config().len() == 1 && membership.voter_ids().any(|voter| voter == id) {
            let index = self.raft().metrics().borrow().last_applied.map_or(0, |applied| applied.index);
            return Ok(Committed { index, applied: Applied { revision: 0, outcome: Ok(None) } });
        }
        let work = async {
            self.drop_stale_learners(node).await?;
            self.raft().add_learner(id, BasicNode::new(peer_address), true).await?;
            self.raft().change_membership(ChangeMembers::AddVoterIds(BTreeSet::from([id])), false).await
        };
        match timeout(VOTER_WAIT, work).await {
            Ok(Ok(written)) => Ok(Committed { index: written.log_id.index, applied: written.data }),
            Ok(Err(error)) => Err(refusal(&error)),
            Err(_) => Err(Refusal::Unknown(format!("node {} did not catch up in time", node.0))),
        }
    }

    /// Learners that are no members are joins that broke off.
    async fn drop_stale_learners(&self, adding: NodeId) -> Result<(), WriteError> {
        let state = self.shared.state.load_full();
        let membership = self.raft().metrics().borrow().membership_config.membership().clone();
        let is_stale = |id: &RaftId| {
            let node = crate::quorum::node_of(*id);
            node != adding && !state.members.contains_key(&node)
        };
        let stale: BTreeSet<RaftId> = membership.learner_ids().filter(is_stale).collect();
        if !stale.is_empty() {
            self.raft().change_membership(ChangeMembers::RemoveNodes(stale), false).await?;
        }
        Ok(())
    }

    /// At the leader: takes the vote from nodes that are no members any more. True when it did something.
    ///
    /// # Errors
    /// As [`ports::config::Config::propose`]; repeating it is harmless.
    pub async fn drop_stale_voters(&self) -> Result<bool, ConfigError> {
        let metrics = self.raft().metrics().borrow().clone();
        let membership = metrics.membership_config.membership();
        let state = self.shared.state.load_full();
        // A leader that has not applied its own log yet may know a voter and not the member.
        let behind = metrics.last_applied.map(|id| id.index) < metrics.membership_config.log_id().map(|id| id.index);
        if behind || state.cluster_id.is_empty() || self.check_leads().is_err() {
            return Ok(false);
        }
        let is_stale = |id: &RaftId| !state.members.contains_key(&crate::quorum::node_of(*id));
        let stale: BTreeSet<RaftId> = membership.voter_ids().filter(is_stale).collect();
        if !stale.is_empty() {
            // Kept as learners for a while: whoever leaves must hear that it has no vote any more.
            self.change_voters(ChangeMembers::RemoveVoters(stale), true).await?;
            return Ok(true);
        }
        let stale: BTreeSet<RaftId> = membership.learner_ids().filter(is_stale).collect();
        let waited = {
            let mut since = self.stale_learners.lock().unwrap_or_else(PoisonError::into_inner);
            match stale.is_empty() {
                true => {
                    *since = None;
                    false
                }
                false => since.get_or_insert_with(std::time::Instant::now).elapsed() >= STALE_LEARNER_WAIT,
            }
        };
        if waited {
            self.change_voters(ChangeMembers::RemoveNodes(stale), false).await?;
        }
        Ok(waited)
    }

    async fn change_voters(&self, change: ChangeMembers<RaftId, BasicNode>, retain: bool) -> Result<(), ConfigError> {
        let raft = self.raft();
        match timeout(VOTER_WAIT, raft.change_membership(change, retain)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(ConfigError::Unknown(error.to_string())),
            Err(_) => Err(ConfigError::Unknown("a majority did not confirm it in time".to_owned())),
        }
    }

    fn check_leads(&self) -> Result<(), Refusal> {
        let status = self.quorum.borrow();
        // Without a majority yet: whoever asks tries again until its deadline. After a cut has healed, a follower hears
        // its leader before the leader has heard a majority.
        if status.leader == Some(self.node) && status.quorum { Ok(()) } else { Err(Refusal::NotLeader) }
    }

    /// The change is visible here when this returns.
    async fn await_applied(&self, index: u64) -> Result<(), ConfigError> {
        let applied = self.raft().wait(Some(PROPOSE_WAIT)).applied_index_at_least(Some(index), "own change").await;
        applied.map(drop).map_err(|_| ConfigError::Unknown("committed, but not applied on this node yet".to_owned()))
    }
}

fn refusal(error: &WriteError) -> Refusal {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(_)) => Refusal::NotLeader,
        RaftError::APIError(ClientWriteError::ChangeMembershipError(ChangeMembershipError::InProgress(_))) => {
            Refusal::NotLeader
        }
        RaftError::APIError(ClientWriteError::ChangeMembershipError(error)) => Refusal::Locked(error.to_string()),
        RaftError::Fatal(error) => Refusal::Unknown(error.to_string()),
    }
}

/// Reason and ways out, for the operator.
fn ways_out(status: &QuorumStatus, why: Option<&str>) -> String {
    let voters: Vec<String> = status.voters.iter().map(|voter| voter.0.to_string()).collect();
    let detail = why.map(|why| format!(" ({why})")).unwrap_or_default();
    if voters.is_empty() {
        return format!("this node is not part of a cluster yet{detail}; use `twinpost cluster init` or `join`");
    }
    format!(
        "no majority of the voting nodes {} can be reached{detail}; settings can be read but not changed. Ways out: bring \
         the other node back, repair the network between the nodes, or, when it is lost or off for long, make the node that \
         serves alone the only voter: `twinpost cluster rescue`",
        voters.join(", ")
    )
}
