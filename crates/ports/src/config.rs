//! The replicated configuration.

use std::sync::Arc;

use tokio::sync::watch;
use topology::{ClusterState, ConfigOp, Fault};
use vocab::NodeId;

use crate::Answer;

/// Why a change was not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The change is wrong; all faults with their places (API 422, exit 1).
    #[error("refused: {}", .0.iter().map(|f| format!("{}: {}", f.place, f.what)).collect::<Vec<_>>().join("; "))]
    Refused(Vec<Fault>),
    /// Compare failed: somebody changed it meanwhile (API 409/412).
    #[error("conflict: {0}")]
    Conflict(String),
    /// No quorum: nothing can be changed; the text names the reason and the ways out (API 503, exit 2).
    #[error("configuration is locked: {0}")]
    Locked(String),
    /// Sent, no answer in time: may or may not have happened.
    #[error("outcome unknown: {0}")]
    Unknown(String),
}

/// What came of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposed {
    /// Revision (Raft index) of the change.
    pub revision: u64,
    /// Node id given by [`ConfigOp::Admit`].
    pub node: Option<NodeId>,
}

/// Health of the configuration's own replication.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QuorumStatus {
    /// Whether changes can be made now.
    pub quorum: bool,
    /// The Raft leader.
    pub leader: Option<NodeId>,
    /// Voters.
    pub voters: Vec<NodeId>,
    /// Nodes that were made sole voter apart from this one: settings forked by an operator's word on both sides, and
    /// neither takes the other's.
    pub forked: Vec<NodeId>,
}

/// The configuration of the cluster. Reads never wait and go on without quorum.
pub trait Config: Send + Sync {
    /// The newest state known here.
    fn current(&self) -> Arc<ClusterState>;
    /// Changes its value (the revision) after every applied change.
    fn watch(&self) -> watch::Receiver<u64>;
    /// Proposes a change from any node; resolves when it is applied here.
    ///
    /// # Errors
    /// Each says what to do; fails fast without quorum.
    fn propose(&self, op: ConfigOp) -> Answer<'_, Result<Proposed, ConfigError>>;
    /// Quorum as seen here, and changes of it.
    fn quorum(&self) -> watch::Receiver<QuorumStatus>;
    /// Makes an admitted node a learner, waits until it has caught up, makes it a voter.
    ///
    /// # Errors
    /// As [`Config::propose`].
    fn add_voter(&self, node: NodeId, peer_address: String) -> Answer<'_, Result<(), ConfigError>>;
    /// Makes this node the only voter, without the others: everything its log holds counts as decided, and what the
    /// others hold is void from now on; they take it over from here when they return. For an operator who knows that
    /// they are lost or off.
    ///
    /// # Errors
    /// Conflict: a majority answers, or this node holds nothing to go on with; nothing was changed.
    fn become_sole_voter(&self) -> Answer<'_, Result<(), ConfigError>>;
}
