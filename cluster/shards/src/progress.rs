//! How far a heal or first sync is, and how long it will take by what was done so far.

use std::sync::{Mutex, MutexGuard, PoisonError};

use ports::cluster::SyncStatus;
use replica::SyncProgress;
use vocab::{AccountId, Instant, NodeId};

use crate::engine::Engine;

/// Accounts whose size is looked up for one status; with more left the number is a lower bound.
const SIZED_ACCOUNTS_MAX: usize = 10_000;

/// When the sync under way was first seen, and what it had to do then.
#[derive(Default)]
pub(crate) struct Progress(Mutex<Option<Begun>>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Begun {
    node: NodeId,
    at: Instant,
    accounts: u64,
}

impl Progress {
    fn begun(&self) -> MutexGuard<'_, Option<Begun>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the present state; more to do than ever before, or another node, is a new beginning.
    pub(crate) fn look(&self, sync: Option<SyncProgress>, now: Instant) {
        let mut begun = self.begun();
        *begun = match (sync, *begun) {
            (None, _) => None,
            (Some(sync), Some(old)) if old.node == sync.node && old.accounts >= sync.accounts_left => Some(old),
            (Some(sync), _) => Some(Begun { node: sync.node, at: now, accounts: sync.accounts_left }),
        };
    }

    /// Accounts at the beginning, and seconds left.
    fn estimate(&self, sync: SyncProgress, now: Instant) -> (u64, Option<u64>) {
        let Some(begun) = self.begun().filter(|begun| begun.node == sync.node) else {
            return (sync.accounts_left, None);
        };
        let done = begun.accounts.saturating_sub(sync.accounts_left);
        let seconds = now.since(begun.at) * sync.accounts_left / done.max(1) / 1000;
        (begun.accounts, (done > 0).then_some(seconds))
    }
}

impl Engine {
    /// The node being brought up to date, as its anchor knows.
    pub(crate) fn sync_status(&self, sync: SyncProgress) -> SyncStatus {
        let (accounts, seconds_left) = self.progress.estimate(sync, self.now());
        SyncStatus {
            node: sync.node.0,
            accounts,
            accounts_left: sync.accounts_left,
            bytes_left: self.bytes_left(),
            seconds_left,
        }
    }

    /// Bytes of the messages in accounts that the node being brought up to date does not have yet; what it holds of
    /// them already is not taken off.
    pub(crate) fn bytes_left(&self) -> u64 {
        let accounts = self.machine().accounts_left();
        let bytes = |account: AccountId| -> u64 {
            let rows = self.store.snapshot(account);
            let mailboxes = mailbox::read::mailboxes(&*rows).unwrap_or_default();
            mailboxes.iter().map(|m| m.counts.bytes).sum()
        };
        accounts.into_iter().take(SIZED_ACCOUNTS_MAX).map(bytes).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_left_follows_what_was_done_and_a_new_sync_begins_anew() {
        let progress = Progress::default();
        let sync = |node: u32, accounts_left: u64| SyncProgress { node: NodeId(node), accounts_left };
        progress.look(Some(sync(2, 100)), Instant(1_000));
        assert_eq!(progress.estimate(sync(2, 100), Instant(1_500)), (100, None), "nothing is done yet");
        progress.look(Some(sync(2, 75)), Instant(6_000));
        assert_eq!(progress.estimate(sync(2, 75), Instant(6_000)), (100, Some(15)), "25 took 5 s");
        progress.look(Some(sync(3, 10)), Instant(7_000));
        assert_eq!(progress.estimate(sync(3, 10), Instant(7_000)), (10, None), "another node");
        progress.look(Some(sync(3, 20)), Instant(8_000));
        assert_eq!(progress.estimate(sync(3, 20), Instant(8_000)), (20, None), "compared anew");
        progress.look(None, Instant(9_000));
        assert_eq!(progress.estimate(sync(3, 5), Instant(9_000)), (5, None));
    }
}
