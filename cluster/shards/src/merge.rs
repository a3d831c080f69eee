//! Merging a guest's branch into this node's: the branch is staged beside the present state, the state both come from is
//! restored from undo rows, and `mailbox::merge` or `queue::merge` makes an ordinary batch of it (DESIGN 7).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use mailbox::merge::{Branch, MergeInput, Merged};
use mailbox::op::Stamp;
use replica::{Event, MergeBase, StampBase};
use vocab::{
    AccountBatch, AccountHead, AccountId, Batch, BatchId, Damaged, MemoryRows, NodeId, Overlay, RowWrite, Rows,
    SubmitError, Version,
};
use wire::forward::{self as w, call, reply};

use crate::compute::Computed;
use crate::difference::{row_from, row_to};
use crate::engine::Engine;

/// Undo rows of one answer (bytes, about).
const UNDO_BYTES: usize = 512 * 1024;
/// Undo rows taken for one account; beyond that the account is merged as if nothing common could be restored.
const UNDO_ROWS_MAX: usize = 4_000_000;

/// A staged branch.
#[derive(Clone, Debug)]
struct Staged {
    from: NodeId,
    head: AccountHead,
}

/// Branches that wait for their merge, by number of the fetch.
#[derive(Default)]
pub(crate) struct Branches {
    staged: Mutex<BTreeMap<u64, Staged>>,
}

impl Branches {
    pub(crate) fn keep(&self, fetch: u64, from: NodeId, head: AccountHead) {
        self.staged.lock().unwrap_or_else(PoisonError::into_inner).insert(fetch, Staged { from, head });
    }
    pub(crate) fn forget(&self, fetch: u64) {
        self.staged.lock().unwrap_or_else(PoisonError::into_inner).remove(&fetch);
    }
    fn take(&self, fetch: u64) -> Option<Staged> {
        self.staged.lock().unwrap_or_else(PoisonError::into_inner).remove(&fetch)
    }
}

/// [`replica::Output::Merge`].
pub(crate) struct MergeOrder {
    pub(crate) batch: BatchId,
    pub(crate) account: AccountId,
    pub(crate) fetch: u64,
    pub(crate) base: Option<MergeBase>,
    pub(crate) between: Vec<Version>,
    pub(crate) served: bool,
    pub(crate) guest_served: bool,
    pub(crate) stamp: StampBase,
}

impl Engine {
    /// Carries the order out. What cannot be merged is answered with nothing: the machine then archives the branch.
    pub(crate) async fn merge(self: Arc<Self>, order: MergeOrder) {
        let (batch, account, fetch) = (order.batch, order.account, order.fetch);
        let result = match self.merged(order).await {
            Ok(result) => Some(result),
            Err(error) => {
                tracing::error!(account = account.0, %error, "the branches of an account could not be merged");
                None
            }
        };
        self.end_stage(account, fetch);
        self.tell(Event::Computed { batch, result });
    }

    async fn merged(self: &Arc<Self>, order: MergeOrder) -> Result<Batch, SubmitError> {
        let gone = SubmitError::Unavailable("the branch is no longer staged");
        let staged = self.branches.take(order.fetch).ok_or(gone)?;
        let undo = self.undo_of(&order, &staged).await?;
        let engine = Arc::clone(self);
        let task = tokio::task::spawn_blocking(move || engine.merge_rows(&order, &staged, undo));
        let merged = task.await.map_err(|_| SubmitError::Unavailable("the merge ended badly"))?;
        merged.map_err(|damaged| {
            tracing::error!(%damaged, "a merge met damaged rows");
            SubmitError::Unavailable(crate::DAMAGED)
        })
    }

    /// What leads from the side that can restore it back to the common state; `None` = there is no common state, or it is
    /// that of an account without rows.
    async fn undo_of(&self, order: &MergeOrder, staged: &Staged) -> Result<Option<Vec<RowWrite>>, SubmitError> {
        let Some(base) = order.base else { return Ok(None) };
        if base.version == Version::default() {
            return Ok(None);
        }
        if base.at_guest {
            return self.read_undo(order.account, staged, base.version).await;
        }
        let undo = self.store.undo_since(order.account, base.version);
        undo.map_err(|_| SubmitError::Unavailable(crate::DAMAGED))
    }

    async fn read_undo(
        &self,
        account: AccountId,
        staged: &Staged,
        version: Version,
    ) -> Result<Option<Vec<RowWrite>>, SubmitError> {
        let bytes = |version: Version| Bytes::copy_from_slice(&version.0);
        let mut read = w::ReadUndo {
            account: account.0,
            version: bytes(version),
            head: bytes(staged.head.version),
            ..w::ReadUndo::default()
        };
        let mut undo = Vec::new();
        loop {
            let reply::Kind::Rows(part) = self.ask(staged.from, call::Kind::Undo(read.clone())).await? else {
                return Err(SubmitError::Unavailable("the peer answered something else"));
            };
            let Some(last) = part.rows.last() else { return Ok(Some(undo)) };
            read.resume = true;
            read.after_table = last.table;
            read.after_key = last.key.clone();
            undo.extend(part.rows.into_iter().map(row_from));
            if undo.len() > UNDO_ROWS_MAX {
                tracing::warn!(account = account.0, "too much has changed to restore the common state");
                return Ok(None);
            }
        }
    }

    /// Answers a peer's [`call::Kind::Undo`].
    pub(crate) fn serve_undo(&self, read: &w::ReadUndo) -> Result<reply::Kind, SubmitError> {
        let bad = || SubmitError::Unavailable("no such version");
        let account = AccountId(read.account);
        let version = Version::from_bytes(&read.version).ok_or_else(bad)?;
        let head = self.store.head(account).map_err(|_| SubmitError::Unavailable(crate::DAMAGED))?;
        if Version::from_bytes(&read.head) != Some(head.version) {
            return Err(SubmitError::Unavailable("the account has changed"));
        }
        let undo = self.store.undo_since(account, version).map_err(|_| SubmitError::Unavailable(crate::DAMAGED))?;
        let mut undo = undo.ok_or_else(bad)?;
        undo.sort_by(|a, b| (a.table, &a.key).cmp(&(b.table, &b.key)));
        let after =
            |row: &RowWrite| !read.resume || (u32::from(row.table.0), &row.key) > (read.after_table, &read.after_key);
        let (mut rows, mut bytes) = (Vec::new(), 0);
        for row in undo.into_iter().filter(after) {
            bytes += row.size();
            rows.push(row_to(row));
            if bytes > UNDO_BYTES {
                break;
            }
        }
        let last = rows.is_empty();
        Ok(reply::Kind::Rows(w::Rows { rows, last }))
    }

    fn merge_rows(&self, order: &MergeOrder, staged: &Staged, undo: Option<Vec<RowWrite>>) -> Result<Batch, Damaged> {
        let account = order.account;
        let anchor = self.store.snapshot(account);
        let guest = self.store.staged(account, staged.head.clone());
        // Rows of two transfers must never be taken for one state.
        if !self.is_staged(account, order.fetch) {
            return Err(Damaged("the branch is being transferred again".into()));
        }
        let under = if order.base.is_some_and(|base| base.at_guest) { &guest } else { &anchor };
        let base = undo.map(|undo| {
            let mut base = Overlay::new(&**under);
            base.write(&undo);
            base
        });
        let nothing = MemoryRows::default();
        let made_twice = order.base.is_some_and(|base| base.version == Version::default());
        let base = if made_twice { Some(&nothing as &dyn Rows) } else { base.as_ref().map(|base| base as &dyn Rows) };
        let stamp = self.stamp(order.batch, order.stamp);
        let part = if account == AccountId::QUEUE {
            merge_queue((base, &*anchor, &*guest), &order.between, stamp, order.batch)?
        } else {
            let input = MergeInput {
                account,
                base,
                common: order.base.map(|base| base.version).unwrap_or_default(),
                anchor: Branch { rows: &*anchor, served: order.served },
                guest: Branch { rows: &*guest, served: order.guest_served },
                between: &order.between,
                stamp,
            };
            let merged = mailbox::merge::merge(&input, order.batch)?;
            self.report(order, &merged);
            let Merged { batch, changes, .. } = merged;
            self.keep(order.batch, Computed { answers: Vec::new(), changes: vec![(account, changes)] });
            batch
        };
        Ok(Batch { id: order.batch, accounts: vec![part], bodies: Vec::new(), records: Vec::new() })
    }

    fn report(&self, order: &MergeOrder, merged: &Merged) {
        let report = &merged.report;
        metrics::counter!("twinpost_accounts_merged_total").increment(1);
        metrics::counter!("twinpost_merge_messages_renumbered_total").increment(report.renumbered);
        metrics::counter!("twinpost_merge_messages_recovered_total").increment(report.recovered);
        metrics::counter!("twinpost_merge_documents_kept_twice_total").increment(report.kept_twice);
        {
            let mut merges = self.merges.lock().unwrap_or_else(PoisonError::into_inner);
            merges.accounts += 1;
            merges.renumbered += report.renumbered;
            merges.recovered += report.recovered;
            merges.kept_twice += report.kept_twice;
            merges.raised += report.raised.len() as u64;
        }
        tracing::warn!(
            account = order.account.0,
            renumbered = report.renumbered,
            recovered = report.recovered,
            kept_twice = report.kept_twice,
            conflicts = ?report.conflicts,
            raised = ?report.raised,
            "an account that changed on both nodes was merged"
        );
    }
}

/// The queue's rows know no mailboxes; its version and lineage are kept like those of any account.
fn merge_queue(
    (base, anchor, guest): (Option<&dyn Rows>, &dyn Rows, &dyn Rows),
    between: &[Version],
    stamp: Stamp,
    batch: BatchId,
) -> Result<AccountBatch, Damaged> {
    let (rows, refs, report) = queue::merge(base, anchor, guest, stamp.at)?;
    tracing::warn!(?report, "the outbound queues of both nodes were merged");
    let mut head = anchor.head();
    let theirs = guest.head();
    head.remember(&theirs, between, false);
    head.modseq = head.modseq.max(theirs.modseq) + 1;
    mailbox::finish_rows(anchor, AccountId::QUEUE, rows, refs, head, batch)
}
