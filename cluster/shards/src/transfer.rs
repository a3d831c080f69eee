//! Account transfer, the one bulk mechanism: a consistent snapshot of one account is pulled row by row and body by
//! body, staged beside the old state and verified; the replica orders the switch (DESIGN 7).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use vocab::{AccountHead, AccountId, BlobHash, BlobRef, NodeId, RowWrite, Rows, StoreWrite, SubmitError, Table};
use wire::forward::{self as w, call, reply};

use crate::engine::Engine;

/// Rows of one answer (bytes, about): below a frame, so the link stays usable.
const ROWS_BYTES: usize = 512 * 1024;
/// A transfer nobody reads from is closed.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// Transfers open at once on the giving side.
const OPEN_MAX: usize = 64;

/// A transfer that is read from a peer.
struct Reading {
    from: NodeId,
    head: AccountHead,
    read: w::ReadTransfer,
}

/// Snapshots that peers read from.
#[derive(Default)]
pub(crate) struct Transfers {
    next: AtomicU64,
    open: Mutex<BTreeMap<u64, (Arc<dyn Rows>, Instant)>>,
}

impl Transfers {
    fn open(&self, rows: Arc<dyn Rows>) -> Option<u64> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|_, (_, used)| used.elapsed() < IDLE_MAX);
        if open.len() >= OPEN_MAX {
            return None;
        }
        let id = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        open.insert(id, (rows, Instant::now()));
        Some(id)
    }
    fn get(&self, id: u64) -> Option<Arc<dyn Rows>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let (rows, used) = open.get_mut(&id)?;
        *used = Instant::now();
        Some(Arc::clone(rows))
    }
    fn close(&self, id: u64) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }
}

impl Engine {
    pub(crate) fn serve_open(&self, account: AccountId) -> reply::Kind {
        let rows = self.store.snapshot(account);
        let head = rows.head().encode();
        match self.transfers.open(rows) {
            Some(transfer) => reply::Kind::Transfer(w::Transfer { transfer, head: head.into() }),
            None => crate::forward::failure(&SubmitError::Unavailable("too many transfers are open")),
        }
    }

    pub(crate) fn serve_read(&self, read: w::ReadTransfer) -> reply::Kind {
        let Some(rows) = self.transfers.get(read.transfer) else {
            return crate::forward::failure(&SubmitError::Unavailable("no such transfer"));
        };
        let after = read.resume.then(|| (u8::try_from(read.after_table).unwrap_or(u8::MAX), read.after_key));
        match self.store.export(&rows, after, ROWS_BYTES) {
            Ok(part) => {
                let last = part.is_empty();
                let row = |r: RowWrite| w::Row {
                    table: u32::from(r.table.0),
                    key: r.key,
                    value: r.value.unwrap_or_default(),
                    absent: false,
                };
                reply::Kind::Rows(w::Rows { rows: part.into_iter().map(row).collect(), last })
            }
            Err(damaged) => {
                tracing::error!(%damaged, "an account cannot be given to the other node");
                crate::forward::failure(&SubmitError::Unavailable(crate::DAMAGED))
            }
        }
    }

    pub(crate) fn serve_close(&self, transfer: u64) {
        self.transfers.close(transfer);
    }

    /// Pulls an account from a peer and stages it here; `Ok` gives the head the stage will have. Nothing a client
    /// can see has changed yet.
    pub(crate) async fn pull(&self, account: AccountId, from: NodeId) -> Result<AccountHead, SubmitError> {
        self.store.write(vec![StoreWrite::Unstage { account }]).await;
        let mut digest = 0u128;
        let mut reading = self.open_at(account, from).await?;
        while let Some(rows) = self.read_next(&mut reading).await? {
            let refs = refs_of(&rows);
            self.fetch_missing(from, refs.iter().map(|r| r.hash).collect()).await?;
            digest = rows.iter().fold(digest, |sum, row| sum.wrapping_add(mailbox::row_digest(row)));
            self.store.write(vec![StoreWrite::Stage { account, rows, refs }]).await;
        }
        let head = reading.head;
        if digest != head.digest {
            tracing::error!(
                account = account.0,
                node = from.0,
                "an account arrived with another digest than its head says"
            );
            return Err(SubmitError::Unavailable(crate::DAMAGED));
        }
        Ok(head)
    }

    /// Archives the state of an account: the peer's, or our own when `from` is this node. The branch is named after
    /// account and version, so archiving the same state twice is one branch.
    pub(crate) async fn archive(&self, account: AccountId, from: NodeId) -> Result<AccountHead, SubmitError> {
        let head = if from == self.node {
            self.archive_own(account).await?
        } else {
            self.archive_peers(account, from).await?
        };
        tracing::warn!(account = account.0, version = %head.version, node = from.0, "a branch was archived");
        metrics::counter!("twinpost_branches_archived_total").increment(1);
        Ok(head)
    }

    async fn archive_own(&self, account: AccountId) -> Result<AccountHead, SubmitError> {
        let rows = self.store.snapshot(account);
        let head = rows.head();
        let branch = branch_name(account, &head);
        let mut after = None;
        loop {
            let part = self.store.export(&rows, after.take(), ROWS_BYTES);
            let part = part.map_err(|_| SubmitError::Unavailable(crate::DAMAGED))?;
            let Some(last) = part.last() else { break };
            after = Some((last.table.0, last.key.clone()));
            self.store.write(part.into_iter().map(|row| archive_row(&branch, row)).collect()).await;
        }
        self.store.write(vec![archive_head(&branch, &head)]).await;
        Ok(head)
    }

    async fn archive_peers(&self, account: AccountId, from: NodeId) -> Result<AccountHead, SubmitError> {
        let mut reading = self.open_at(account, from).await?;
        let branch = branch_name(account, &reading.head);
        let mut digest = 0u128;
        while let Some(rows) = self.read_next(&mut reading).await? {
            self.fetch_missing(from, refs_of(&rows).iter().map(|r| r.hash).collect()).await?;
            digest = rows.iter().fold(digest, |sum, row| sum.wrapping_add(mailbox::row_digest(row)));
            self.store.write(rows.into_iter().map(|row| archive_row(&branch, row)).collect()).await;
        }
        if digest != reading.head.digest {
            tracing::error!(
                account = account.0,
                node = from.0,
                "a branch arrived with another digest than its head says"
            );
            return Err(SubmitError::Unavailable(crate::DAMAGED));
        }
        self.store.write(vec![archive_head(&branch, &reading.head)]).await;
        Ok(reading.head)
    }

    async fn open_at(&self, account: AccountId, from: NodeId) -> Result<Reading, SubmitError> {
        let open = call::Kind::Open(w::OpenTransfer { account: account.0 });
        let reply::Kind::Transfer(transfer) = self.ask(from, open).await? else {
            return Err(SubmitError::Unavailable("the peer answered something else"));
        };
        let head = AccountHead::decode(&transfer.head).map_err(|_| SubmitError::Unavailable(crate::DAMAGED))?;
        Ok(Reading { from, head, read: w::ReadTransfer { transfer: transfer.transfer, ..Default::default() } })
    }

    /// The next rows, `None` after the last; the peer's snapshot is closed then.
    async fn read_next(&self, reading: &mut Reading) -> Result<Option<Vec<RowWrite>>, SubmitError> {
        let reply::Kind::Rows(part) = self.ask(reading.from, call::Kind::Read(reading.read.clone())).await? else {
            return Err(SubmitError::Unavailable("the peer answered something else"));
        };
        let Some(last) = part.rows.last() else {
            let close = call::Kind::Close(w::CloseTransfer { transfer: reading.read.transfer });
            // A close that is lost costs the peer a snapshot for a minute.
            let _ = self.ask(reading.from, close).await;
            return Ok(None);
        };
        reading.read.resume = true;
        reading.read.after_table = last.table;
        reading.read.after_key = last.key.clone();
        let row = |r: w::Row| RowWrite {
            table: Table(u8::try_from(r.table).unwrap_or(u8::MAX)),
            key: r.key,
            value: Some(r.value),
        };
        Ok(Some(part.rows.into_iter().map(row).collect()))
    }

    async fn fetch_missing(&self, from: NodeId, hashes: BTreeSet<BlobHash>) -> Result<(), SubmitError> {
        for hash in hashes {
            if !self.store.has_blob(hash) {
                self.fetch_blob(from, hash).await?;
            }
        }
        Ok(())
    }
}

/// References of the bodies these rows name.
fn refs_of(rows: &[RowWrite]) -> Vec<BlobRef> {
    rows.iter().flat_map(|row| mailbox::blob_ref_of(row).or_else(|| queue::blob_ref_of(row))).collect()
}

fn archive_row(branch: &str, row: RowWrite) -> StoreWrite {
    let refs = refs_of(std::slice::from_ref(&row)).into_iter().map(|r| r.hash).collect();
    let mut key = vec![row.table.0];
    key.extend_from_slice(&row.key);
    StoreWrite::Archive { branch: branch.to_owned(), key: key.into(), value: row.value.unwrap_or_default(), refs }
}

fn branch_name(account: AccountId, head: &AccountHead) -> String {
    format!("{:x}-{}", account.0, head.version)
}

fn archive_head(branch: &str, head: &AccountHead) -> StoreWrite {
    let key = Bytes::from_static(b"head");
    StoreWrite::Archive { branch: branch.to_owned(), key, value: head.encode().into(), refs: Vec::new() }
}
