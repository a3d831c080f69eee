//! What of the queue a node alone in an uncertain solo epoch leaves to the other side, and until when (DESIGN 7).

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use queue::op::{Hold, Standing};
use topology::EpochKind;
use vocab::{EpochId, Timestamp};

use crate::engine::Engine;

/// The hold of the newest uncertain solo epoch. Counted from when this process first saw it, by a clock that nobody sets: a
/// restart begins it anew, and forgets an operator's word, which errs towards waiting.
pub(crate) struct Grace {
    length_ms: u64,
    seen: Mutex<Option<Seen>>,
}

#[derive(Clone, Copy)]
struct Seen {
    epoch: EpochId,
    since: Instant,
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
    fn of(&self, epoch: EpochId, now: Instant) -> Seen {
        let mut seen = self.seen();
        if let Some(seen) = seen.filter(|seen| seen.epoch == epoch) {
            return seen;
        }
        let new = Seen { epoch, since: now, released: false };
        tracing::warn!(
            %epoch,
            wait_s = self.length_ms / 1000,
            "alone without a sure word that the other process has ended: queue items of the other node wait, \
             `twinpost queue release` sends them"
        );
        *seen.insert(new)
    }

    /// When it ends, on the wall clock as it stands now: what is left does not change when that is set.
    fn until(&self, seen: Seen, now: Instant, wall: Timestamp) -> Timestamp {
        let passed = u64::try_from(now.saturating_duration_since(seen.since).as_millis()).unwrap_or(u64::MAX);
        wall.plus_ms(self.length_ms.saturating_sub(passed))
    }
}

impl Engine {
    /// See [`ports::outbox::Outbox::hold`].
    pub(crate) fn queue_hold(&self) -> Option<Hold> {
        let epoch = self.uncertain_solo()?;
        let now = Instant::now();
        let seen = self.grace.of(epoch, now);
        (!seen.released).then(|| Hold { node: self.node, until: self.grace.until(seen, now, wall()) })
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
        let (grace, start) = (Grace::new(1000), Instant::now());
        let epoch = |number| EpochId { number, author: 1 };
        let at = |ms| start + std::time::Duration::from_millis(ms);
        let until = |number, ms, wall| grace.until(grace.of(epoch(number), at(ms)), at(ms), Timestamp(wall)).0;
        assert_eq!(until(3, 0, 10), 1010);
        assert_eq!(until(3, 500, 510), 1010);
        assert_eq!(until(3, 600, 9_000_000), 9_000_400, "a clock that is set forwards ends it no sooner");
        assert_eq!(until(3, 700, 5), 305, "nor backwards later");
        assert_eq!(until(3, 1_200, 77), 77, "over");
        grace.seen().as_mut().expect("seen").released = true;
        assert!(grace.of(epoch(3), at(600)).released);
        assert!(!grace.of(epoch(5), at(2_000)).released);
        assert_eq!(until(5, 2_000, 2_000), 3_000);
    }
}
