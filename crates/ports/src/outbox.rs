//! The outbound queue for the relay worker and the operator.

use queue::op::{QueueItem, QueueOp, QueueOutcome};
use vocab::{SubmitError, Timestamp};

use crate::Answer;

/// The replicated queue.
pub trait Outbox: Send + Sync {
    /// Whether this node works the queue now (home of the queue account, serving).
    fn is_worker(&self) -> bool;
    /// Items due at `now` without a running attempt, oldest first, at most `limit`; and when the next one is due.
    ///
    /// # Errors
    /// Unavailable: this node may not read now.
    fn due(&self, now: Timestamp, limit: usize)
    -> Answer<'_, Result<(Vec<QueueItem>, Option<Timestamp>), SubmitError>>;
    /// All items, oldest first, at most `limit`, after `after` if given.
    ///
    /// # Errors
    /// As [`Outbox::due`].
    fn list(&self, limit: usize) -> Answer<'_, Result<Vec<QueueItem>, SubmitError>>;
    /// Commits an operation.
    ///
    /// # Errors
    /// Unavailable or unknown; repeating is harmless.
    fn submit(&self, op: QueueOp) -> Answer<'_, Result<QueueOutcome, SubmitError>>;
    /// Resolves when something was added or became due earlier than announced.
    fn changed(&self) -> Answer<'_, ()>;
}
