//! What of the queue a node alone in an uncertain solo epoch leaves to the other side, and until when (DESIGN 7).

use std::sync::{Mutex, MutexGuard, PoisonError};

use queue::op::{Hold, Standing};
use topology::EpochKind;
use vocab::{EpochId, Timestamp};

use crate::engine::Engine;

/// The hold of the newest uncertain solo epoch. Counted from when this process first saw it: a restart begins it anew,
/// and forgets an operator's word, which errs towards waiting.
pub(crate) struct Grace {
    length_ms: u64,
    seen: Mutex<Option<Seen>>,
}

#[derive(Clone, Copy)]
struct Seen {
    epoch: EpochId,
    until: Timestamp,
    released: bool,
}

impl Grace {
    pub(crate) fn new(length_ms: u64) -> Self {
        Self { length_ms, seen: Mutex::default() }
    }

    fn seen(&self) -> MutexGuard<'_, Option<Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The hold in this epoch, begun now if it is new.
    fn of(&self, epoch: EpochId, now: Timestamp) -> Seen {
        let mut seen = self.seen();
        if let Some(seen) = seen.filter(|seen| seen.epoch == epoch) {
            return seen;
        }
        let new = Seen { epoch, until: now.plus_ms(self.length_ms), released: false };
        tracing::warn!(
            %epoch,
            wait_s = self.length_ms / 1000,
            "alone without a sure word that the other process has ended: queue items of the other node wait, \
             `twinpost queue release` sends them"
        );
        *seen.insert(new)
    }
}

impl Engine {
    /// See [`ports::outbox::Outbox::hold`].
    pub(crate) fn queue_hold(&self) -> Option<Hold> {
        let epoch = self.uncertain_solo()?;
        let seen = self.grace.of(epoch, wall());
        (!seen.released).then_some(Hold { node: self.node, until: seen.until })
    }

    /// See [`ports::outbox::Outbox::release`].
    pub(crate) fn release_queue(&self) -> bool {
        let held = self.queue_hold().is_some();
        if held {
            if let Some(seen) = self.grace.seen().as_mut() {
                seen.released = true;
            }
            tracing::warn!("queue items of the other node are sent by an operator's word");
            self.queue_changed.notify_one();
        }
        held
    }

    /// How this node stands when it applies an operation of the queue in an epoch that is joint, or not.
    pub(crate) fn standing(&self, joint: bool) -> Standing {
        Standing { home: self.node, hold: self.queue_hold(), joint }
    }

    fn uncertain_solo(&self) -> Option<EpochId> {
        let machine = self.machine();
        let record = machine.record()?;
        (record.kind == EpochKind::Solo && !record.certain && record.home == self.node).then_some(record.id)
    }
}

pub(crate) fn wall() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ha_15_a_hold_begins_with_its_epoch_and_only_with_it() {
        let grace = Grace::new(1000);
        let epoch = |number| EpochId { number, author: 1 };
        assert_eq!(grace.of(epoch(3), Timestamp(10)).until, Timestamp(1010));
        assert_eq!(grace.of(epoch(3), Timestamp(500)).until, Timestamp(1010));
        grace.seen().as_mut().expect("seen").released = true;
        assert!(grace.of(epoch(3), Timestamp(600)).released);
        let next = grace.of(epoch(5), Timestamp(2000));
        assert!(!next.released && next.until == Timestamp(3000));
    }
}
