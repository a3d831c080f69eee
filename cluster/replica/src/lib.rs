//! Every replication decision of one node, as a sealed machine: events in, outputs out, `now` as an argument.
//!
//! The machine orders and decides; the driver computes (`mailbox::apply` on its store) and does I/O. Rules are those of
//! DESIGN 5 to 7; where a rule has a number (X1 to X24) the comment and the test name it.

mod config;
mod event;
mod message;
mod output;
mod persist;
mod status;

use std::collections::VecDeque;

pub use config::{ReplicaConfig, Timing};
pub use event::Event;
pub use output::{MayRead, Output, Serving, StampBase};
pub use persist::{META_KEY, Saved};
pub use status::{Mode, ReplicaStatus, SyncProgress};
use topology::EpochRecord;
use vocab::{AccountId, EpochId, Instant, NodeId, ShardId, Version};

/// The replication machine of one node.
#[derive(Debug)]
pub struct Replica {
    config: ReplicaConfig,
    saved: Saved,
    outputs: VecDeque<Output>,
}

impl Replica {
    /// A machine that knows what the disk knows. Nothing is in effect before the first events.
    #[must_use]
    pub fn new(config: ReplicaConfig, saved: Saved, now: Instant) -> Self {
        let _ = now;
        Self { config, saved, outputs: VecDeque::from([Output::ReadVersions]) }
    }
    /// Takes one event.
    pub fn on(&mut self, event: Event, now: Instant) {
        let _ = (event, now);
    }
    /// The next order; drained until `None` after every event.
    pub fn next_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }
    /// When to send `Tick` at the latest.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        None
    }
    /// Whether and how this node serves clients.
    #[must_use]
    pub fn serving(&self, now: Instant) -> Serving {
        let _ = now;
        Serving::Not("not started")
    }
    /// Whether a snapshot of `account` at `version` may be shown to a client (X1, X2). Ask after taking it.
    #[must_use]
    pub fn may_read(&self, account: AccountId, version: Version, now: Instant) -> MayRead {
        let _ = (account, version, now);
        MayRead::No("not started")
    }
    /// The node that orders changes of this shard, by the epoch in effect.
    #[must_use]
    pub fn home(&self, shard: ShardId) -> Option<NodeId> {
        self.record().map(|r| r.home_of(shard))
    }
    /// The epoch in effect.
    #[must_use]
    pub fn record(&self) -> Option<&EpochRecord> {
        self.saved.record.as_ref()
    }
    /// Stamp of a batch of this account now.
    #[must_use]
    pub fn stamp(&self, account: AccountId) -> StampBase {
        let _ = account;
        let home = self.config.node;
        StampBase { epoch: self.record().map_or(EpochId::default(), |r| r.id), home, joint: false, gap: None }
    }
    /// Peers that must hold a large body durably before the change that names it is submitted.
    #[must_use]
    pub fn body_peers(&self) -> Vec<NodeId> {
        Vec::new()
    }
    /// Everything at a glance.
    #[must_use]
    pub fn status(&self, now: Instant) -> ReplicaStatus {
        ReplicaStatus {
            mode: Mode::Unformed,
            record: self.saved.record.clone(),
            newest: None,
            serving: self.serving(now),
            in_flight: 0,
            oldest_ms: 0,
            waiting: 0,
            sync: None,
            heard: Vec::new(),
            holds_address: false,
            warnings: Vec::new(),
        }
    }
}
