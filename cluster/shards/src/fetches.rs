//! Transfers under way, one per account: a newer one, or the machine's word, really ends the older.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use replica::Event;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use vocab::{AccountId, NodeId, StoreWrite};

use crate::engine::Engine;

/// What becomes of an account that is fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// It replaces the state here.
    Switch,
    /// It is merged into the state here.
    Merge,
}

struct Running {
    fetch: u64,
    cancel: CancellationToken,
    task: JoinHandle<()>,
}

/// The last transfer of each account.
#[derive(Default)]
pub(crate) struct Fetches {
    running: Mutex<BTreeMap<AccountId, Running>>,
}

impl Engine {
    /// Starts a transfer; an older one of the account ends first, so that stages never mix.
    pub(crate) fn start_fetch(self: &Arc<Self>, fetch: u64, account: AccountId, from: NodeId, purpose: Purpose) {
        let mut running = self.fetches.running.lock().unwrap_or_else(PoisonError::into_inner);
        let older = running.remove(&account);
        let cancel = CancellationToken::new();
        let (engine, stop) = (Arc::clone(self), cancel.clone());
        let task = tokio::spawn(async move {
            if let Some(older) = older {
                older.cancel.cancel();
                // A task that panicked has ended too.
                let _ = older.task.await;
            }
            engine.fetch(fetch, (account, from), purpose, stop).await;
        });
        running.insert(account, Running { fetch, cancel, task });
    }

    async fn fetch(&self, fetch: u64, (account, from): (AccountId, NodeId), purpose: Purpose, stop: CancellationToken) {
        let pulled = tokio::select! {
            biased;
            () = stop.cancelled() => None,
            pulled = self.pull(account, from) => Some(pulled),
        };
        match pulled {
            Some(Ok(head)) => {
                if purpose == Purpose::Merge {
                    self.branches.keep(fetch, from, head.clone());
                }
                self.tell(Event::Fetched { fetch, head, delta: None });
            }
            Some(Err(error)) => {
                tracing::warn!(account = account.0, from = from.0, %error, "an account could not be transferred");
                self.store.write(vec![StoreWrite::Unstage { account }]).await;
                self.tell(Event::FetchFailed { fetch });
            }
            None => self.store.write(vec![StoreWrite::Unstage { account }]).await,
        }
    }

    /// Whether the stage of the account is still the one of this fetch.
    pub(crate) fn is_staged(&self, account: AccountId, fetch: u64) -> bool {
        let running = self.fetches.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.get(&account).is_some_and(|running| running.fetch == fetch)
    }

    /// A merge has used its stage: it is thrown away, unless a newer transfer of the account has begun.
    pub(crate) fn end_stage(&self, account: AccountId, fetch: u64) {
        let running = self.fetches.running.lock().unwrap_or_else(PoisonError::into_inner);
        if running.get(&account).is_some_and(|running| running.fetch == fetch) {
            // Ordered with the call; nobody waits for it.
            drop(self.store.write(vec![StoreWrite::Unstage { account }]));
        }
    }

    /// Ends a transfer and throws its stage away.
    pub(crate) fn stop_fetch(&self, fetch: u64) {
        let running = self.fetches.running.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((account, found)) = running.iter().find(|(_, running)| running.fetch == fetch) else { return };
        tracing::debug!(fetch, account = account.0, "transfer abandoned");
        found.cancel.cancel();
        self.branches.forget(fetch);
        if found.task.is_finished() {
            // Ordered with the call; nobody waits for it.
            drop(self.store.write(vec![StoreWrite::Unstage { account: *account }]));
        }
    }
}
