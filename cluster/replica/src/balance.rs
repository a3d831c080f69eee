//! Homes spread over the in-sync set, a setting: in a settled joint epoch the leader moves one shard after another to the
//! node it belongs to, each by an epoch of its own that changes nothing else (DESIGN 5, balanced homes).
//!
//! Nobody is left out by such an epoch, so none of its steps can lose or fork anything; what is done here makes no command
//! fail either. A home that loses a shard finishes what it has sent of it before it enters; the others take that from it
//! although they have entered already; and nobody begins to compare, and so to order, before all have entered.

use std::collections::BTreeMap;

use topology::EpochRecord;
use vocab::limits::SHARDS;
use vocab::{AccountId, EpochId, Instant, NodeId, ShardId};

use crate::Replica;
use crate::commit::Flight;
use crate::epoch::is_full;

/// Pause between two moves (ms): each is a comparison of all versions.
const MOVE_PAUSE_MS: u64 = 100;
/// A home that loses a shard waits at most this long for what it has sent (ms); what is left then is unknown to its client.
const DRAIN_MS_MAX: u64 = 1_000;

/// What is wanted, and when the last move was.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Balance {
    /// The setting.
    pub spread: bool,
    last: Instant,
}

/// Node that should be home of this shard: the leader of that of the queue, whose worker sends from one place; the others
/// in turn.
fn target(record: &EpochRecord, shard: ShardId, (spread, queue): (bool, ShardId)) -> NodeId {
    let count = record.in_sync.len();
    let leader = record.in_sync.iter().position(|id| *id == record.home);
    let Some(leader) = leader.filter(|_| spread && shard != queue) else { return record.home };
    let at = (leader + usize::from(shard.0)) % count.max(1);
    record.in_sync.get(at).copied().unwrap_or(record.home)
}

/// The first shard that is not where it should be, and where that is.
fn next_move(record: &EpochRecord, spread: bool) -> Option<(ShardId, NodeId)> {
    // Nearly always: this is asked after every event.
    if !spread && record.homes.is_empty() {
        return None;
    }
    let (shards, queue) = ((0..SHARDS).map(ShardId), AccountId::QUEUE.shard());
    shards
        .map(|shard| (shard, target(record, shard, (spread, queue))))
        .find(|(shard, to)| record.home_of(*shard) != *to)
}

impl Replica {
    /// Whether this node is home of the account in the epoch in effect.
    pub(crate) fn orders_account(&self, account: AccountId) -> bool {
        self.record.as_ref().is_some_and(|r| r.home_of_account(account) == self.config.node)
    }

    /// Leases are given with heartbeats, and not while an epoch is being entered: moves in step with them would let leases run
    /// out, and with them the service. So a move waits until they last over the next one; but not for ever, on slow links.
    fn leases_are_fresh(&self, record: &EpochRecord) -> bool {
        if self.now.since(self.balance.last) >= DRAIN_MS_MAX {
            return true;
        }
        let enough = self.now.plus_ms(self.config.timing.lease / 2);
        let given = |id: &NodeId| self.peers.get(id).is_some_and(|p| p.granted_until >= enough);
        let taken = |home: &NodeId| self.follow.leases.get(home).is_some_and(|until| *until >= enough);
        let others = record.all_homes().into_iter().filter(|home| *home != self.me());
        self.commit_peers().iter().all(given) && others.into_iter().all(|home| taken(&home))
    }

    /// Proposes the next move when everything is at rest.
    pub(crate) fn consider_balance(&mut self) {
        let me = self.me();
        let Some(record) = self.record.as_ref().filter(|r| r.home == me && is_full(r)) else { return };
        let Some((shard, to)) = next_move(record, self.balance.spread) else { return };
        let in_register = self.register.record.as_ref().map(|r| r.id) == Some(record.id);
        let calm = self.entering.is_none() && self.handover.is_none() && self.reduce.is_none() && !self.leaving;
        let paused = self.now.since(self.balance.last) < MOVE_PAUSE_MS;
        let at_rest = |id: &NodeId| {
            let fits = |p: &crate::link::Peer| p.level && p.disk_ok && p.told == Some(record.id);
            self.peers.get(id).is_some_and(|p| fits(p) && p.epoch() == Some(record.id))
        };
        let settled = self.is_compared(record) && self.commit_peers().iter().all(at_rest) && !self.is_superseded();
        if !in_register
            || !calm
            || paused
            || !settled
            || !self.leases_are_fresh(record)
            || self.disk_low
            || !self.may_propose()
        {
            return;
        }
        let mut homes = record.homes.clone();
        homes.remove(&shard.0);
        if to != record.home {
            homes.insert(shard.0, to);
        }
        let moved = EpochRecord {
            id: EpochId { number: self.next_epoch_number(), author: 0 },
            homes,
            parents: vec![record.id],
            certain: true,
            on_silence: false,
            ..record.clone()
        };
        self.balance.last = self.now;
        self.log(format!("shard {} moves to node {}", shard.0, to.0));
        self.propose(moved);
    }

    /// The newer epoch of the register, if it only moves homes.
    fn move_ahead(&self) -> Option<&EpochRecord> {
        let record = self.record.as_ref()?;
        self.register.record.as_ref().filter(|new| new.id > record.id && new.only_moves(record))
    }

    /// Whether this record goes on where ours is, with the same nodes: who is in it already acknowledges us as before.
    pub(crate) fn moves_on(&self, new: &EpochRecord) -> bool {
        let me = self.me();
        new.home == me || self.record.as_ref().is_some_and(|r| new.home == r.home && new.only_moves(r))
    }

    /// A move that takes shards from this node is decided: nothing new is ordered until it is in effect.
    pub(crate) fn loses_homes(&self) -> bool {
        let (Some(new), Some(old)) = (self.move_ahead(), self.record.as_ref()) else { return false };
        let me = self.me();
        (0..SHARDS).map(ShardId).any(|shard| old.home_of(shard) == me && new.home_of(shard) != me)
    }

    /// What this node has in flight of shards it loses is finished before it enters.
    pub(crate) fn waits_to_move(&self, new: &EpochRecord) -> bool {
        let me = self.me();
        let moves = self.record.as_ref().is_some_and(|old| new.only_moves(old));
        let lost = |f: &Flight| f.accounts.iter().any(|account| new.home_of_account(*account) != me);
        let in_time = self.now.since(self.register.learned) < DRAIN_MS_MAX;
        moves && in_time && self.flights.values().any(lost)
    }

    /// The epoch before a move, for what its homes have still in flight: as long as nobody has begun to compare.
    pub(crate) fn finishes_before_moving(&self, epoch: EpochId) -> Option<&EpochRecord> {
        self.previous.as_ref().filter(|old| old.id == epoch)
    }

    /// A move is in effect here and not everywhere: whoever lost a shard may have something of it in flight.
    pub(crate) fn is_moving(&self) -> bool {
        let id = self.record.as_ref().map(|r| r.id);
        let entered = |peer: &NodeId| self.peers.get(peer).is_some_and(|p| p.epoch() >= id);
        self.previous.is_some() && !self.commit_peers().iter().all(entered)
    }
}

/// All homes back at the leader.
pub(crate) const fn gathered() -> BTreeMap<u8, NodeId> {
    BTreeMap::new()
}

#[cfg(test)]
mod tests {
    use topology::EpochKind;

    use super::*;

    fn record(nodes: u32, home: u32) -> EpochRecord {
        let all: Vec<NodeId> = (1..=nodes).map(NodeId).collect();
        EpochRecord {
            id: EpochId { number: 1, author: 0 },
            kind: EpochKind::Joint,
            members: all.clone(),
            in_sync: all,
            home: NodeId(home),
            homes: gathered(),
            parents: Vec::new(),
            certain: true,
            on_silence: false,
            anchor: None,
            guest: None,
            gap: false,
        }
    }

    fn settle(mut record: EpochRecord, spread: bool) -> (EpochRecord, usize) {
        let mut moves = 0;
        while let Some((shard, to)) = next_move(&record, spread) {
            record.homes.remove(&shard.0);
            if to != record.home {
                record.homes.insert(shard.0, to);
            }
            moves += 1;
        }
        (record, moves)
    }

    #[test]
    fn shards_are_spread_evenly_and_come_back_one_by_one() {
        for (nodes, home) in [(2, 1), (2, 2), (3, 1), (3, 3)] {
            let (spread, moves) = settle(record(nodes, home), true);
            let count = |n: u32| (0..SHARDS).filter(|s| spread.home_of(ShardId(*s)) == NodeId(n)).count();
            let counts: Vec<usize> = (1..=nodes).map(count).collect();
            let fair = usize::from(SHARDS) / nodes as usize;
            assert!(counts.iter().all(|c| c.abs_diff(fair) <= 2), "{counts:?} for {nodes} nodes");
            assert_eq!(moves, spread.homes.len(), "each shard moves once");
            assert_eq!(spread.home_of(AccountId::QUEUE.shard()), NodeId(home), "the queue stays at the leader");
            let (back, again) = settle(spread, false);
            assert!(back.homes.is_empty() && again == moves);
        }
    }

    #[test]
    fn one_node_is_home_of_everything() {
        assert_eq!(next_move(&record(1, 1), true), None);
    }
}
