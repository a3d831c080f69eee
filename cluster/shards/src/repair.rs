//! Bringing back from another node what is damaged on this one.

use std::sync::Arc;
use std::time::Duration;

use vocab::{AccountId, BlobHash, InlineBody, NodeId, StoreWrite, SubmitError};

use crate::engine::Engine;

/// An account that changes while it is copied is copied again, so often.
const TRIES_MAX: u32 = 5;
/// Pause between two tries.
const TRY_PAUSE: Duration = Duration::from_millis(200);

impl Engine {
    /// Replaces the rows of an account by those of another node at the same version: same head, same chain. True when
    /// its rows are sound afterwards.
    pub(crate) async fn repair_account(&self, account: AccountId) -> bool {
        for node in self.sources() {
            for _ in 0..TRIES_MAX {
                match self.copy_rows(account, node).await {
                    Ok(true) if self.is_account_sound(account).await => {
                        tracing::warn!(account = account.0, from = node.0, "the rows of an account were repaired");
                        return true;
                    }
                    Ok(_) => {}
                    Err(error) => {
                        tracing::warn!(account = account.0, from = node.0, %error, "an account could not be repaired");
                        break;
                    }
                }
                tokio::time::sleep(TRY_PAUSE).await;
            }
        }
        false
    }

    /// True when the other node's rows were of the version this node holds and have taken the place of ours.
    async fn copy_rows(&self, account: AccountId, from: NodeId) -> Result<bool, SubmitError> {
        let Some(cancel) = self.fetches.begin_repair(account) else {
            return Err(SubmitError::Unavailable("the account is being transferred"));
        };
        let head = tokio::select! {
            biased;
            () = cancel.cancelled() => Err(SubmitError::Unavailable("the account is being transferred")),
            pulled = self.pull(account, from) => pulled,
        };
        let done = match &head {
            Ok(head) if !cancel.is_cancelled() => {
                let mine = self.store.head(account).map(|mine| mine.version);
                let fits = mine.is_ok_and(|mine| mine == head.version);
                self.store
                    .write(vec![StoreWrite::SwapStage { account, version: head.version, digest: head.digest }])
                    .await;
                fits
            }
            Ok(_) | Err(_) => {
                self.store.write(vec![StoreWrite::Unstage { account }]).await;
                false
            }
        };
        self.fetches.end_repair(account);
        head.map(|_| done)
    }

    /// Puts a sound copy in the place of a damaged or missing body. True when it is sound afterwards.
    pub(crate) async fn repair_body(&self, hash: BlobHash) -> bool {
        for node in self.sources() {
            match self.read_body(node, hash).await {
                Ok(bytes) => {
                    self.store.write(vec![StoreWrite::RepairBody(InlineBody { hash, bytes })]).await;
                    let store = Arc::clone(&self.store);
                    if tokio::task::spawn_blocking(move || store.is_blob_sound(hash)).await.unwrap_or(false) {
                        tracing::warn!(%hash, from = node.0, "a body was repaired");
                        return true;
                    }
                }
                Err(error) => tracing::warn!(%hash, from = node.0, %error, "a body could not be repaired"),
            }
        }
        false
    }

    /// Other nodes with mail, those in sync first.
    fn sources(&self) -> Vec<NodeId> {
        let record = self.machine().record().cloned();
        let Some(record) = record else { return Vec::new() };
        let late = record.members.iter().filter(|id| !record.in_sync.contains(id));
        record.in_sync.iter().chain(late).copied().filter(|id| *id != self.node).collect()
    }
}
