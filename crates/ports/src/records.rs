//! Log records that commits wrote beside the mail, until the log has them.

use vocab::{Damaged, LogRecord};

/// The records of this node's commits, in the order they were written.
pub trait Records: Send + Sync {
    /// The next `limit` records behind the one with number `after`, each with its number; all are durable. 0: from the oldest.
    ///
    /// # Errors
    /// The disk cannot be read: try again later; nothing is lost.
    fn waiting(&self, after: u64, limit: usize) -> Result<Vec<(u64, LogRecord)>, Damaged>;
    /// The log has them, durably. They go with a later write; after a crash before it they are given again.
    fn forget(&self, numbers: Vec<u64>);
    /// How many wait.
    fn count(&self) -> u64;
}
