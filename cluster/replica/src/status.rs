//! What an operator sees of replication on this node.

use topology::EpochRecord;
use vocab::{EpochId, NodeId};

use crate::output::Serving;

/// Mode of this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// No epoch yet.
    Unformed,
    /// In an epoch and compared, or alone by right.
    Joined,
    /// In a solo epoch of its own.
    Solo,
    /// Waits for its peer or for an operator.
    Waiting,
    /// Compares with its peer.
    Comparing,
    /// Cut off from the others and from whatever else could be asked: serves nothing and does not go on alone.
    Fenced,
    /// Keeps serving while it brings a guest to its state.
    Anchor,
    /// Is brought to the anchor's state; serves nothing of its own.
    Syncing,
}

impl Mode {
    /// Word for status pages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unformed => "unformed",
            Self::Joined => "joined",
            Self::Solo => "solo",
            Self::Waiting => "waiting",
            Self::Comparing => "comparing",
            Self::Fenced => "fenced",
            Self::Anchor => "healing",
            Self::Syncing => "syncing",
        }
    }
}

/// A node being brought up to date, as the anchor sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyncProgress {
    /// The guest.
    pub node: NodeId,
    /// Accounts that are not level yet.
    pub accounts_left: u64,
}

/// Everything at a glance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaStatus {
    /// Mode.
    pub mode: Mode,
    /// Epoch in effect.
    pub record: Option<EpochRecord>,
    /// Newest epoch known or heard of.
    pub newest: Option<EpochId>,
    /// What clients get.
    pub serving: Serving,
    /// Batches in flight.
    pub in_flight: u64,
    /// Age of the oldest (ms).
    pub oldest_ms: u64,
    /// Commands that wait for their account.
    pub waiting: u64,
    /// A node being brought up to date.
    pub sync: Option<SyncProgress>,
    /// Peers with milliseconds since they were heard; `None` = not since boot.
    pub heard: Vec<(NodeId, Option<u64>)>,
    /// Whether this node should hold the cluster address.
    pub holds_address: bool,
    /// Things an operator must know.
    pub warnings: Vec<String>,
    /// Row format in which rows may have been written here; 0 = the first.
    pub rows: u32,
    /// Peers that are not taken in because one of both cannot read the other's rows, with the greatest format each reads.
    pub unreadable: Vec<(NodeId, u32)>,
}
