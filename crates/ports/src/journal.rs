//! What a node decided and why, kept for its operator over restarts.

use serde::{Deserialize, Serialize};

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EventKind {
    /// A decision of replication, with its evidence.
    Decision,
    /// Something an operator must know.
    Alert,
    /// A link to another node came up or went down.
    Link,
    /// The cluster address came or went.
    Address,
    /// An operator's order.
    Order,
    /// The process started or ends.
    Process,
    /// A certificate was renewed, or the cluster's CA is exchanged.
    Certificate,
}

/// One event of one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterEvent {
    /// Wall clock of the node (Unix milliseconds).
    pub at_ms: u64,
    /// Node that noted it.
    pub node: u32,
    /// What it is about.
    pub kind: EventKind,
    /// In words.
    pub text: String,
}

/// Keeps events. Noting one never waits for a disk, and losing the last ones in a crash loses nothing but them.
pub trait Journal: Send + Sync {
    /// Notes an event now.
    fn note(&self, kind: EventKind, text: &str);
    /// The newest events, the oldest of them first.
    fn recent(&self, limit: usize) -> Vec<ClusterEvent>;
}
