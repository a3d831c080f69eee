//! The outbound queue for the relay worker and the operator.

use queue::op::{AcceptRecord, Hold, QueueItem, QueueOp, QueueOutcome};
use vocab::{LogRecord, SubmitError, Timestamp};

use crate::Answer;

/// The replicated queue.
pub trait Outbox: Send + Sync {
    /// Whether this node works the queue now (home of the queue account, serving).
    fn is_worker(&self) -> bool;
    /// What this node leaves to the other side: it works the queue alone on mere silence, and nobody confirmed yet that
    /// the other side is down (DESIGN 7). Failures of such items are not bounced meanwhile.
    fn hold(&self) -> Option<Hold>;
    /// An operator's word that the other side sends nothing: ends the hold of this epoch, until this process ends. False
    /// when there is none.
    fn release(&self) -> bool;
    /// Items due at `now` without a running attempt and not held, oldest first, at most `limit`; and when the next one is due.
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
    /// Accepted messages that still have to be placed with some of their recipients here, oldest first, at most `limit`.
    ///
    /// # Errors
    /// As [`Outbox::due`].
    fn accepts(&self, limit: usize) -> Answer<'_, Result<Vec<AcceptRecord>, SubmitError>>;
    /// Commits an operation, and with it what the log is to know of it.
    ///
    /// # Errors
    /// Unavailable or unknown; repeating is harmless.
    fn submit(&self, op: QueueOp, records: Vec<LogRecord>) -> Answer<'_, Result<QueueOutcome, SubmitError>>;
    /// Resolves when something was added or became due earlier than announced.
    fn changed(&self) -> Answer<'_, ()>;
}
