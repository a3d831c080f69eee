//! Transfers under way, one per account: a newer one, or the machine's word, really ends the older.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use replica::Event;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use vocab::{AccountId, NodeId, StoreWrite, SubmitError};

use crate::engine::Engine;
use crate::transfer::Pulled;

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
    /// The machine was told that it is staged.
    told: Arc<AtomicBool>,
    cancel: CancellationToken,
    task: JoinHandle<()>,
}

/// A repair under way; it ends when its place is closed.
struct Repairing {
    cancel: CancellationToken,
    ended: CancellationToken,
}

/// The last transfer of each account.
#[derive(Default)]
pub(crate) struct Fetches {
    running: Mutex<BTreeMap<AccountId, Running>>,
    repairs: Mutex<BTreeMap<AccountId, Repairing>>,
    /// For bodies larger than a chunk.
    pub(crate) large: tokio::sync::Mutex<()>,
}

impl Fetches {
    /// A place for a repair of this account; `None` while it is transferred or repaired. A transfer that begins later
    /// cancels it and waits for its end.
    pub(crate) fn begin_repair(&self, account: AccountId) -> Option<CancellationToken> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let mut repairs = self.repairs.lock().unwrap_or_else(PoisonError::into_inner);
        // A transfer whose task has ended may wait, staged, for its switch.
        let free = !running.contains_key(&account) && !repairs.contains_key(&account);
        free.then(|| {
            let cancel = CancellationToken::new();
            repairs.insert(account, Repairing { cancel: cancel.clone(), ended: CancellationToken::new() });
            cancel
        })
    }

    /// The transfer has ended and its stage is gone, or about to go by a write that is ordered already.
    fn forget(&self, account: AccountId, fetch: u64) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if running.get(&account).is_some_and(|running| running.fetch == fetch) {
            running.remove(&account);
        }
    }

    /// The stage of this account became its state, by a write that is ordered.
    pub(crate) fn switched(&self, account: AccountId) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if running.get(&account).is_some_and(|running| running.told.load(Ordering::SeqCst)) {
            running.remove(&account);
        }
    }

    /// The repair has ended and left no stage.
    pub(crate) fn end_repair(&self, account: AccountId) {
        let mut repairs = self.repairs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(repair) = repairs.remove(&account) {
            repair.ended.cancel();
        }
    }

    /// Stops a repair of this account; resolves when it has ended.
    fn stop_repair(&self, account: AccountId) -> Option<CancellationToken> {
        let repairs = self.repairs.lock().unwrap_or_else(PoisonError::into_inner);
        repairs.get(&account).map(|repair| {
            repair.cancel.cancel();
            repair.ended.clone()
        })
    }
}

impl Engine {
    /// Starts a transfer; an older one of the account ends first, so that stages never mix.
    pub(crate) fn start_fetch(self: &Arc<Self>, fetch: u64, account: AccountId, from: NodeId, purpose: Purpose) {
        let mut running = self.fetches.running.lock().unwrap_or_else(PoisonError::into_inner);
        let older = running.remove(&account);
        let repair = self.fetches.stop_repair(account);
        let cancel = CancellationToken::new();
        let told = Arc::new(AtomicBool::new(false));
        let (engine, stop, tells) = (Arc::clone(self), cancel.clone(), Arc::clone(&told));
        let task = tokio::spawn(async move {
            if let Some(older) = older {
                older.cancel.cancel();
                // A task that panicked has ended too.
                let _ = older.task.await;
            }
            if let Some(ended) = repair {
                ended.cancelled().await;
            }
            engine.fetch(fetch, (account, from), purpose, (stop, tells)).await;
        });
        running.insert(account, Running { fetch, told, cancel, task });
    }

    async fn pull_for(&self, account: AccountId, from: NodeId, purpose: Purpose) -> Result<Pulled, SubmitError> {
        match purpose {
            Purpose::Switch => self.pull_newer(account, from).await,
            Purpose::Merge => self.pull(account, from).await.map(|head| Pulled::Stage(head, Vec::new())),
        }
    }

    async fn fetch(
        &self,
        fetch: u64,
        (account, from): (AccountId, NodeId),
        purpose: Purpose,
        (stop, told): (CancellationToken, Arc<AtomicBool>),
    ) {
        let pulled = tokio::select! {
            biased;
            () = stop.cancelled() => None,
            pulled = self.pull_for(account, from, purpose) => Some(pulled),
        };
        match pulled {
            Some(Ok(pulled)) => {
                let (head, delta, past) = match pulled {
                    Pulled::Stage(head, past) => (head, None, past),
                    Pulled::Difference(batch, past) => (batch.head.clone(), Some(batch), past),
                };
                if purpose == Purpose::Merge {
                    self.branches.keep(fetch, from, head.clone());
                }
                told.store(true, Ordering::SeqCst);
                self.tell(Event::Fetched { fetch, head, delta, past });
            }
            Some(Err(error)) => {
                tracing::warn!(account = account.0, from = from.0, %error, "an account could not be transferred");
                self.store.write(vec![StoreWrite::Unstage { account }]).await;
                self.fetches.forget(account, fetch);
                self.tell(Event::FetchFailed { fetch });
            }
            None => {
                self.store.write(vec![StoreWrite::Unstage { account }]).await;
                self.fetches.forget(account, fetch);
            }
        }
    }

    /// Whether the stage of the account is still the one of this fetch.
    pub(crate) fn is_staged(&self, account: AccountId, fetch: u64) -> bool {
        let running = self.fetches.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.get(&account).is_some_and(|running| running.fetch == fetch)
    }

    /// A merge has used its stage: it is thrown away, unless a newer transfer of the account has begun.
    pub(crate) fn end_stage(&self, account: AccountId, fetch: u64) {
        let mut running = self.fetches.running.lock().unwrap_or_else(PoisonError::into_inner);
        if running.get(&account).is_some_and(|running| running.fetch == fetch) {
            // Ordered with the call; nobody waits for it.
            drop(self.store.write(vec![StoreWrite::Unstage { account }]));
            running.remove(&account);
        }
    }

    /// Ends a transfer and throws its stage away.
    pub(crate) fn stop_fetch(&self, fetch: u64) {
        let mut running = self.fetches.running.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((account, found)) = running.iter().find(|(_, running)| running.fetch == fetch) else { return };
        let account = *account;
        tracing::debug!(fetch, account = account.0, "transfer abandoned");
        found.cancel.cancel();
        self.branches.forget(fetch);
        if found.task.is_finished() {
            // Ordered with the call; nobody waits for it.
            drop(self.store.write(vec![StoreWrite::Unstage { account }]));
            running.remove(&account);
        }
    }
}
