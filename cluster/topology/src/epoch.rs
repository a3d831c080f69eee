//! The epoch record: who is a member, who must have a batch before it is committed, who orders changes (DESIGN 6).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use vocab::{EpochId, NodeId, ShardId};

/// Kind of an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EpochKind {
    /// All data members are in sync (a single node is joint with itself).
    Joint,
    /// Agreed by both sides or a quorum: excluded members know it and are barred from starting alone.
    Reduced,
    /// Opened by one node without quorum; its in-sync set is itself.
    Solo,
    /// Granted when quorum is back: names anchor and guest. A joining node is the guest of a heal too.
    Heal,
}

/// One epoch. A local synced record on every node; with quorum it follows the Raft register by compare-and-set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// (number, author).
    pub id: EpochId,
    /// Kind.
    pub kind: EpochKind,
    /// Data members, ascending.
    pub members: Vec<NodeId>,
    /// Members that must hold a batch durably before it is committed, ascending. Never empty.
    pub in_sync: Vec<NodeId>,
    /// Home of every shard that `homes` does not name.
    pub home: NodeId,
    /// Homes that differ (balancing).
    pub homes: BTreeMap<u8, NodeId>,
    /// Epochs this one follows; two when it heals a fork.
    pub parents: Vec<EpochId>,
    /// Solo only: whether the peer is surely gone (guard's word, reset evidence, planned stop, fence, operator).
    pub certain: bool,
    /// Heal only: who keeps serving.
    pub anchor: Option<NodeId>,
    /// Heal only: who is brought to the anchor's state. One at a time.
    pub guest: Option<NodeId>,
    /// A gap is due in this epoch: it began without a member of the previous in-sync set that was not heard out.
    pub gap: bool,
}

impl EpochRecord {
    /// Home of this shard.
    #[must_use]
    pub fn home_of(&self, shard: ShardId) -> NodeId {
        self.homes.get(&shard.0).copied().unwrap_or(self.home)
    }
    /// Whether only this node must hold a batch.
    #[must_use]
    pub fn is_alone(&self, node: NodeId) -> bool {
        self.in_sync == [node]
    }
    /// k of the gap (DESIGN 6): 1 + node index + number of data nodes x (epoch number mod 8).
    #[must_use]
    pub fn gap_k(&self, node: NodeId) -> u64 {
        let index = self.members.iter().position(|m| *m == node).unwrap_or(0) as u64;
        1 + index + self.members.len().max(1) as u64 * (self.id.number % 8)
    }
}
