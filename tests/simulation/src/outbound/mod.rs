//! The outbound queue: submissions to remote recipients, one relay worker per node, and remote hosts that take a message,
//! ask to come again, refuse it, or are lost after the dot. The clock of the queue runs faster than that of the nodes, so
//! that a history of seconds sees retries, lost attempts and the end of a grace.

mod relay;
mod submit;

use queue::op::{Hold, QueueItem, Standing};
use topology::EpochKind;
use vocab::{CommandId, EpochId, Timestamp};

use crate::vocabulary::{Ms, node_id};
use crate::world::{WALL_START, World};

pub(crate) use submit::Submitter;

/// How much faster the queue's clock runs.
const FASTER: Ms = 60;
/// The grace of an uncertain solo epoch (ms of the queue's clock).
const GRACE_MS: u64 = 2 * 60 * 1000;
/// Marks the jobs of a relay worker, which no client waits for.
pub(crate) const RELAY: usize = usize::MAX;

/// An attempt of a worker.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    item: QueueItem,
    /// When it was started.
    at: Timestamp,
    /// When its start was asked for, the last time.
    asked: Timestamp,
    /// The guest that was heard out then (H28).
    heard_out: Option<usize>,
    /// The epoch it was begun in.
    epoch: EpochId,
    step: Step,
    tries: u32,
}

#[derive(Clone, Debug)]
enum Step {
    /// The start is being committed.
    Start,
    /// The report of this failure is being made durable.
    Bounce(queue::Failure, CommandId),
    /// The end is being committed.
    End(queue::AttemptResult),
}

/// What a relay worker keeps in its process.
#[derive(Default)]
pub(crate) struct Worker {
    attempts: std::collections::BTreeMap<u64, Attempt>,
    count: u64,
    /// Epoch on mere silence it has seen, and since when (virtual time, which nobody sets).
    grace: Option<(EpochId, Ms)>,
}

impl World {
    /// The queue's clock at a node.
    pub(crate) fn queue_clock(&self, n: usize) -> Timestamp {
        Timestamp(WALL_START + self.now * FASTER + self.nodes[n].wall)
    }

    /// What this node leaves to the other side, as the engine says it.
    fn hold(&mut self, n: usize) -> Option<Hold> {
        let (wall, now, me) = (self.queue_clock(n), self.now, node_id(n));
        let process = self.nodes[n].process.as_mut()?;
        let record = process.replica.record()?;
        let uncertain = record.kind == EpochKind::Solo && !record.certain && record.home == me;
        let epoch = Some(record.id).filter(|_| uncertain)?;
        let since = match process.worker.grace {
            Some((seen, since)) if seen == epoch => since,
            _ => now,
        };
        process.worker.grace = Some((epoch, since));
        let left = GRACE_MS.saturating_sub((now - since) * FASTER);
        Some(Hold { node: me, until: wall.plus_ms(left) })
    }

    /// How this node stands when it applies an operation of the queue in an epoch that is joint, or not.
    pub(crate) fn standing(&mut self, n: usize, joint: bool) -> Standing {
        Standing { home: node_id(n), hold: self.hold(n), joint }
    }
}
