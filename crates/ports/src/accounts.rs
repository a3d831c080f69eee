//! Reading and changing accounts from any node.

use std::sync::Arc;

use mailbox::op::{AccountOp, Change, Outcome};
use tokio::sync::broadcast;
use vocab::{AccountId, CommandId, Rows, SubmitError};

use crate::Answer;

/// The mailboxes, wherever they are at home.
pub trait Accounts: Send + Sync {
    /// A fresh command id of this node and boot. Use one id for one intent; a retry of it carries the same.
    fn command_id(&self) -> CommandId;
    /// Resolves when the operation is committed on the whole in-sync set and written here. `Ok` may be a refusal.
    ///
    /// # Errors
    /// Unavailable: nothing changed. Unknown: ask again with the same id.
    fn submit(&self, account: AccountId, id: CommandId, op: AccountOp) -> Answer<'_, Result<Outcome, SubmitError>>;
    /// A consistent snapshot that shows at least everything announced to anyone earlier (DESIGN 5: lease, confirmed
    /// version), marked as served if the epoch wants marks.
    ///
    /// # Errors
    /// Unavailable: this node may not read now (answer UNAVAILABLE / 421).
    fn snapshot(&self, account: AccountId) -> Answer<'_, Result<Arc<dyn Rows>, SubmitError>>;
    /// Changes of this account after their commit, from now on. A lagging receiver compares by modseq.
    fn watch(&self, account: AccountId) -> broadcast::Receiver<Change>;
}
