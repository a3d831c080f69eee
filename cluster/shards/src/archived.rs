//! Archived branches of this node as an operator sees them.

use std::sync::Arc;

use ports::cluster::BranchStatus;
use vocab::limits::BRANCH_KEEP_MS;
use vocab::{StoreWrite, SubmitError};

use crate::engine::Engine;

impl Engine {
    pub(crate) async fn archived_branches(&self) -> Result<Vec<BranchStatus>, SubmitError> {
        let store = Arc::clone(&self.store);
        let read = move || -> Result<Vec<BranchStatus>, vocab::Damaged> {
            let mut all = Vec::new();
            for name in store.branches() {
                let Some(branch) = store.branch(&name)? else { continue };
                all.push(BranchStatus {
                    account: account_of(&name),
                    archived_ms: branch.written_ms,
                    expires_ms: branch.written_ms.saturating_add(BRANCH_KEEP_MS),
                    bytes: branch.bytes,
                    bodies: branch.bodies,
                    id: name,
                });
            }
            Ok(all)
        };
        let read = tokio::task::spawn_blocking(read).await;
        read.map_err(|_| SubmitError::Unavailable("the branches could not be read"))?.map_err(|damaged| {
            tracing::error!(%damaged, "an archived branch cannot be read");
            SubmitError::Unavailable(crate::DAMAGED)
        })
    }

    pub(crate) async fn delete_branch(&self, id: String) -> Result<bool, SubmitError> {
        let store = Arc::clone(&self.store);
        let name = id.clone();
        let known = tokio::task::spawn_blocking(move || store.branches().contains(&name)).await;
        if !known.map_err(|_| SubmitError::Unavailable("the branches could not be read"))? {
            return Ok(false);
        }
        self.store.write(vec![StoreWrite::DropBranch { branch: id.clone() }]).await;
        tracing::warn!(branch = id, "an archived branch is deleted by an operator's word");
        Ok(true)
    }
}

/// The account in the name of a branch: the hex number before the first dash.
fn account_of(name: &str) -> u64 {
    let number = name.split('-').next().unwrap_or_default();
    u64::from_str_radix(number, 16).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_branch_names_its_account() {
        assert_eq!(account_of("1f-0123456789abcdef"), 31);
        assert_eq!(account_of("1-ff"), 1, "the queue");
    }
}
