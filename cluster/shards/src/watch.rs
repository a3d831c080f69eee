//! Observers of accounts: sessions in IDLE hear of changes after their commit.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use mailbox::op::Change;
use tokio::sync::broadcast;
use vocab::AccountId;

/// Changes kept for a slow observer; beyond it the observer compares by modseq.
const KEPT: usize = 16;

/// Observers by account.
#[derive(Default)]
pub(crate) struct Watchers {
    inner: Mutex<HashMap<AccountId, broadcast::Sender<Change>>>,
}

impl Watchers {
    pub(crate) fn subscribe(&self, account: AccountId) -> broadcast::Receiver<Change> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.entry(account).or_insert_with(|| broadcast::channel(KEPT).0).subscribe()
    }
    pub(crate) fn tell(&self, account: AccountId, changes: impl IntoIterator<Item = Change>) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(sender) = inner.get(&account) else { return };
        if sender.receiver_count() == 0 {
            inner.remove(&account);
            return;
        }
        for change in changes {
            // No receiver is no fault: it left in this moment.
            let _ = sender.send(change);
        }
    }
    /// Everybody looks again: epochs changed, accounts were switched.
    pub(crate) fn tell_all(&self) {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        for sender in inner.values() {
            let _ = sender.send(Change::Hierarchy);
        }
    }
}
