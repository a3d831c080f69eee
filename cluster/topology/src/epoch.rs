//! The epoch record: who is a member, who must have a batch before it is committed, who orders changes (DESIGN 6).

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use vocab::limits::SHARDS;
use vocab::{AccountId, EpochId, NodeId, ShardId};

use crate::apply::Faults;
use crate::state::{ClusterState, Rejection};

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
    /// Whether whoever was left out is surely gone (guard's word, planned stop, fence, operator). Refused connections leave
    /// it uncertain: a firewall that starts to reject looks like a dead process.
    pub certain: bool,
    /// Whether somebody was left out on mere silence. A heal and the joint epoch after it carry it on: a hold-down begins.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub on_silence: bool,
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
    /// Home of the account's shard.
    #[must_use]
    pub fn home_of_account(&self, account: AccountId) -> NodeId {
        if self.homes.is_empty() { self.home } else { self.home_of(account.shard()) }
    }
    /// Whether this node orders changes of any shard. The leader, `home`, always counts.
    #[must_use]
    pub fn is_home(&self, node: NodeId) -> bool {
        self.home == node || self.homes.values().any(|home| *home == node)
    }
    /// Number of shards this node is home of.
    #[must_use]
    pub fn shards_of(&self, node: NodeId) -> usize {
        (0..SHARDS).filter(|shard| self.home_of(ShardId(*shard)) == node).count()
    }
    /// Every node that orders changes, ascending.
    #[must_use]
    pub fn all_homes(&self) -> BTreeSet<NodeId> {
        self.homes.values().copied().chain([self.home]).collect()
    }
    /// Whether this epoch only moves homes: whoever must hold a batch is the same as in `old`, which it follows.
    #[must_use]
    pub fn only_moves(&self, old: &Self) -> bool {
        let same = self.in_sync == old.in_sync && self.guest.is_none() && old.guest.is_none();
        same && self.id != old.id && self.parents.contains(&old.id)
    }
    /// Whether only this node must hold a batch.
    #[must_use]
    pub fn is_alone(&self, node: NodeId) -> bool {
        self.in_sync == [node]
    }
    /// The epoch whose gap is due in this one, if any. A heal carries on the gap of the epoch it follows, its first
    /// parent: a second stride on top could meet the numbers of the guest's own gap. So does a reduced epoch after a heal
    /// while another member is missing: it names two parents.
    #[must_use]
    pub fn gap_epoch(&self) -> Option<EpochId> {
        let carries = self.kind == EpochKind::Heal || (self.kind == EpochKind::Reduced && self.parents.len() > 1);
        let carried = self.parents.first().copied().filter(|_| carries);
        self.gap.then(|| carried.unwrap_or(self.id))
    }
    /// Windows in a round of gaps: one for every data node and epoch number modulo 8.
    #[must_use]
    pub fn gap_round(&self) -> u64 {
        self.members.len().max(1) as u64 * 8
    }

    /// k of the gap that is due (DESIGN 6): 1 + node index + number of data nodes x (epoch number mod 8).
    #[must_use]
    pub fn gap_k(&self, node: NodeId) -> u64 {
        let index = self.members.iter().position(|m| *m == node).unwrap_or(0) as u64;
        let number = self.gap_epoch().unwrap_or(self.id).number;
        1 + index + self.members.len().max(1) as u64 * (number % 8)
    }
}

/// The settings of a survivor that was made the only voter go on so many indices higher, times its node id (ADR 0009): nothing
/// made from an index in one life of the settings is made again in another.
pub const LIFE_SPAN: u64 = 1 << 32;

/// Compare-and-set of the epoch register. In a later life of the settings epochs are numbered from its first index on: those
/// that the lost voters decided without the survivor may have had the next numbers, and an id names one epoch for ever.
pub(crate) fn set_epoch(next: &mut ClusterState, expect: EpochId, record: &EpochRecord) -> Result<(), Rejection> {
    let have = next.epoch.as_ref().map(|epoch| epoch.id).unwrap_or_default();
    if have != expect {
        return Err(Rejection::Conflict(format!("the register holds epoch {have}, not {expect}")));
    }
    let mut faults = Faults::default();
    check_order(have, record, &mut faults);
    check_sets(next, record, &mut faults);
    check_kind(record, &mut faults);
    faults.check()?;
    let mut record = record.clone();
    let life = next.revision / LIFE_SPAN * LIFE_SPAN;
    if record.id.number < life {
        record.id.number += life;
    }
    next.epoch = Some(record);
    Ok(())
}

fn check_order(have: EpochId, record: &EpochRecord, faults: &mut Faults) {
    let newer = |other: EpochId| record.id.number > other.number;
    faults.require(newer(have), "epoch/id", format!("{} is not above the register's {have}", record.id));
    for parent in &record.parents {
        faults.require(newer(*parent), "epoch/id", format!("{} is not above its parent {parent}", record.id));
    }
}

fn check_sets(state: &ClusterState, record: &EpochRecord, faults: &mut Faults) {
    let ascending = |set: &[NodeId]| set.windows(2).all(|pair| pair.first() < pair.last());
    faults.require(ascending(&record.members), "epoch/members", "must be ascending, each once");
    faults.require(ascending(&record.in_sync), "epoch/in_sync", "must be ascending, each once");
    faults.require(!record.in_sync.is_empty(), "epoch/in_sync", "is empty");
    for id in &record.members {
        let data = state.members.get(id).is_some_and(|member| member.data);
        faults.require(data, "epoch/members", format!("node {} is no data member of the cluster", id.0));
    }
    for id in &record.in_sync {
        faults.require(record.members.contains(id), "epoch/in_sync", format!("node {} is no member", id.0));
    }
    let homes = record.homes.iter().map(|(shard, home)| (format!("epoch/homes/{shard}"), home));
    for (place, home) in homes.chain([("epoch/home".to_owned(), &record.home)]) {
        faults.require(record.in_sync.contains(home), place, format!("node {} is not in sync", home.0));
    }
    for shard in record.homes.keys().filter(|shard| **shard >= SHARDS) {
        faults.add(format!("epoch/homes/{shard}"), format!("there are {SHARDS} shards"));
    }
}

fn check_kind(record: &EpochRecord, faults: &mut Faults) {
    match record.kind {
        EpochKind::Joint => {
            faults.require(record.in_sync == record.members, "epoch/in_sync", "joint: every member is in sync");
        }
        EpochKind::Solo => faults.require(record.in_sync.len() == 1, "epoch/in_sync", "solo: one node alone"),
        EpochKind::Reduced => {}
        EpochKind::Heal => {
            let anchor = record.anchor.is_some_and(|anchor| record.in_sync.contains(&anchor));
            faults.require(anchor, "epoch/anchor", "heal: names an anchor that is in sync");
            let guest = record.guest.is_some_and(|g| record.members.contains(&g) && !record.in_sync.contains(&g));
            faults.require(guest, "epoch/guest", "heal: names a guest, a member that is not in sync yet");
        }
    }
}
