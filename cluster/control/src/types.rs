//! What Raft is made of here, and what its nodes say to each other (JSON; the configuration is small and rare).

use std::io::Cursor;

use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse, VoteRequest,
    VoteResponse,
};
use ports::config::ConfigError;
use serde::{Deserialize, Serialize};
use topology::{ConfigOp, Rejection};
use vocab::NodeId;

use crate::life::Lineage;

openraft::declare_raft_types!(
    /// Raft over [`ConfigOp`].
    pub TypeConfig:
        D = ConfigOp,
        R = Applied,
        SnapshotData = Cursor<Vec<u8>>,
);

/// Raft's name of a node.
pub(crate) type RaftId = u64;
/// Error of a Raft call at the peer.
pub(crate) type RaftError<E = openraft::error::Infallible> = openraft::error::RaftError<RaftId, E>;

/// What an entry did to the state; kept so that whoever proposed it is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Applied {
    /// Revision after it, 0 for entries that are Raft's own.
    pub revision: u64,
    /// Node id given, or why nothing changed.
    pub outcome: Result<Option<NodeId>, Rejection>,
}

/// A question with the life of the store it comes from.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Envelope<M> {
    /// Whose log this is.
    pub(crate) lineage: Lineage,
    /// The question.
    pub(crate) message: M,
}

/// A question to another node.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Message {
    /// Raft.
    Append(AppendEntriesRequest<TypeConfig>),
    /// Raft.
    Vote(VoteRequest<RaftId>),
    /// Raft.
    Snapshot(InstallSnapshotRequest<TypeConfig>),
    /// To the leader: please propose.
    Propose(ConfigOp),
    /// To the leader: please make a voter.
    AddVoter { node: NodeId, peer_address: String },
}

/// Answers, by question.
pub(crate) type AppendReply = Result<AppendEntriesResponse<RaftId>, RaftError>;
pub(crate) type VoteReply = Result<VoteResponse<RaftId>, RaftError>;
pub(crate) type SnapshotReply =
    Result<InstallSnapshotResponse<RaftId>, RaftError<openraft::error::InstallSnapshotError>>;
pub(crate) type ProposeReply = Result<Committed, Refusal>;

/// A change that is committed and applied at the leader.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Committed {
    /// Log index of the entry.
    pub(crate) index: u64,
    /// What it did.
    pub(crate) applied: Applied,
}

/// Why the leader did not commit a change.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Refusal {
    /// Asked the wrong node: ask again.
    NotLeader,
    /// No quorum; nothing happened.
    Locked(String),
    /// May have happened.
    Unknown(String),
}

/// A rejection as the port says it.
pub(crate) fn rejected(rejection: Rejection) -> ConfigError {
    match rejection {
        Rejection::Faults(faults) => ConfigError::Refused(faults),
        Rejection::Conflict(what) => ConfigError::Conflict(what),
    }
}
