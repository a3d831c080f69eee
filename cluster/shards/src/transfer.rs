//! Account transfer, the one bulk mechanism: a consistent snapshot of one account is pulled row by row and body by
//! body, staged beside the old state and verified; the replica orders the switch (DESIGN 7).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, future, stream};
use vocab::{
    AccountBatch, AccountHead, AccountId, BlobHash, BlobRef, NodeId, PastLink, RowWrite, Rows, StoreWrite, SubmitError,
    Version,
};
use wire::forward::{self as w, call, reply};

use crate::difference::{Offer, row_from, row_to};
use crate::engine::Engine;

/// Rows of one answer (bytes, about): below a frame, so the link stays usable.
pub(crate) const ROWS_BYTES: usize = 512 * 1024;
/// Bodies of one account that are fetched at the same time.
const BODIES_AT_ONCE: usize = 16;
/// A transfer nobody reads from is closed.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// Transfers open at once on the giving side.
const OPEN_MAX: usize = 64;

/// A transfer that is read from a peer.
pub(crate) struct Reading {
    pub(crate) from: NodeId,
    pub(crate) head: AccountHead,
    /// Bytes of rows and bodies so far.
    pub(crate) bytes: u64,
    read: w::ReadTransfer,
    /// Only what differs is given.
    difference: bool,
    past: bool,
}

impl Reading {
    pub(crate) const fn transfer(&self) -> u64 {
        self.read.transfer
    }
    pub(crate) const fn has_past(&self) -> bool {
        self.past
    }
}

/// What came of a pull.
pub(crate) enum Pulled {
    /// All rows, staged; the head and the chain they belong to.
    Stage(AccountHead, Vec<PastLink>),
    /// What leads from the state here to the peer's.
    Difference(Box<AccountBatch>, Vec<PastLink>),
}

/// What a peer reads from.
pub(crate) struct Giving {
    pub(crate) rows: Arc<dyn Rows>,
    offer: Offer,
}

/// Snapshots that peers read from.
#[derive(Default)]
pub(crate) struct Transfers {
    next: AtomicU64,
    open: Mutex<BTreeMap<u64, (Arc<Giving>, Instant)>>,
}

impl Transfers {
    fn open(&self, giving: Giving) -> Option<u64> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|_, (_, used)| used.elapsed() < IDLE_MAX);
        if open.len() >= OPEN_MAX {
            return None;
        }
        let id = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        open.insert(id, (Arc::new(giving), Instant::now()));
        Some(id)
    }
    pub(crate) fn get(&self, id: u64) -> Option<Arc<Giving>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let (giving, used) = open.get_mut(&id)?;
        *used = Instant::now();
        Some(Arc::clone(giving))
    }
    fn close(&self, id: u64) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }
}

impl Engine {
    pub(crate) async fn serve_open(&self, open: w::OpenTransfer) -> Result<reply::Kind, SubmitError> {
        let store = Arc::clone(&self.store);
        let giving = tokio::task::spawn_blocking(move || {
            let account = AccountId(open.account);
            let rows = store.snapshot(account);
            let offer = Offer::new(&*store, account, &*rows, (Version::from_bytes(&open.have), open.past));
            offer.map(|offer| Giving { rows, offer })
        });
        let giving = giving.await.map_err(|_| SubmitError::Unavailable("a transfer ended badly"))?;
        let giving = giving.map_err(|damaged| {
            tracing::error!(%damaged, account = open.account, "an account cannot be given to the other node");
            SubmitError::Unavailable(crate::DAMAGED)
        })?;
        let (head, difference) = (giving.rows.head().encode().into(), giving.offer.difference.is_some());
        let past = giving.offer.has_past();
        let transfer = self.transfers.open(giving).ok_or(SubmitError::Unavailable("too many transfers are open"))?;
        Ok(reply::Kind::Transfer(w::Transfer { transfer, head, difference, past }))
    }

    pub(crate) fn serve_past(&self, read: &w::ReadPast) -> Result<reply::Kind, SubmitError> {
        let giving = self.transfers.get(read.transfer).ok_or(SubmitError::Unavailable("no such transfer"))?;
        Ok(reply::Kind::Past(giving.offer.past(read.position)))
    }

    pub(crate) fn serve_read(&self, read: w::ReadTransfer) -> reply::Kind {
        let Some(giving) = self.transfers.get(read.transfer) else {
            return crate::forward::failure(&SubmitError::Unavailable("no such transfer"));
        };
        let after = read.resume.then(|| (u8::try_from(read.after_table).unwrap_or(u8::MAX), read.after_key));
        let part = match giving.offer.difference {
            Some(_) => Ok(giving.offer.rows(after)),
            None => self.store.export(&giving.rows, after, ROWS_BYTES),
        };
        let part = part.map(|mut rows| {
            if read.bounded {
                let until = (read.until_table, &read.until_key);
                rows.retain(|row| (u32::from(row.table.0), &row.key) <= until);
            }
            rows
        });
        match part {
            Ok(part) => {
                let last = part.is_empty();
                reply::Kind::Rows(w::Rows { rows: part.into_iter().map(row_to).collect(), last })
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

    /// Pulls what differs from the state here, or the whole account into a stage when that cannot be had. Nothing a client
    /// can see has changed yet.
    pub(crate) async fn pull_newer(&self, account: AccountId, from: NodeId) -> Result<Pulled, SubmitError> {
        let mine = self.store.head(account).map_err(|_| SubmitError::Unavailable(crate::DAMAGED))?.version;
        if let Some(seed) = self.store.seed(account).filter(|_| mine == Version::default())
            && let Some(pulled) = self.pull_seeded(account, from, seed).await?
        {
            return Ok(pulled);
        }
        let mut reading = self.open_at(account, from, (Some(mine), true)).await?;
        let past = self.read_past(&reading).await?;
        if reading.difference && !past.is_empty() {
            match self.read_difference(account, &mut reading).await? {
                Some(batch) if batch.expected == mine => {
                    count(&reading, "difference");
                    return Ok(Pulled::Difference(Box::new(batch), past));
                }
                _ => tracing::error!(
                    account = account.0,
                    node = from.0,
                    "what differs in an account does not lead to the other node's state: all of it is transferred"
                ),
            }
        }
        if reading.difference {
            reading = self.open_at(account, from, (None, true)).await?;
            let past = self.read_past(&reading).await?;
            return Ok(Pulled::Stage(self.stage(account, reading).await?, past));
        }
        Ok(Pulled::Stage(self.stage(account, reading).await?, past))
    }

    /// Pulls all rows of an account into a stage, without its chain.
    pub(crate) async fn pull(&self, account: AccountId, from: NodeId) -> Result<AccountHead, SubmitError> {
        let reading = self.open_at(account, from, (None, false)).await?;
        self.stage(account, reading).await
    }

    /// Stages and verifies all rows; gives the head the stage will have.
    async fn stage(&self, account: AccountId, mut reading: Reading) -> Result<AccountHead, SubmitError> {
        self.store.write(vec![StoreWrite::Unstage { account }]).await;
        let mut digest = 0u128;
        while let Some(rows) = self.read_next(&mut reading).await? {
            let refs = refs_of(&rows);
            reading.bytes += self.fetch_missing(reading.from, refs.iter().map(|r| r.hash).collect()).await?;
            digest = with_rows(digest, &rows);
            self.store.write(vec![StoreWrite::Stage { account, rows, refs }]).await;
        }
        if digest != reading.head.digest {
            tracing::error!(
                account = account.0,
                node = reading.from.0,
                "an account arrived with another digest than its head says"
            );
            return Err(SubmitError::Unavailable(crate::DAMAGED));
        }
        count(&reading, "full");
        Ok(reading.head)
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
        let mut reading = self.open_at(account, from, (None, false)).await?;
        let branch = branch_name(account, &reading.head);
        let mut digest = 0u128;
        while let Some(rows) = self.read_next(&mut reading).await? {
            reading.bytes += self.fetch_missing(from, refs_of(&rows).iter().map(|r| r.hash).collect()).await?;
            digest = with_rows(digest, &rows);
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

    /// `have`: the version here, when the difference to it is enough; then the chain or only what is behind it.
    pub(crate) async fn open_at(
        &self,
        account: AccountId,
        from: NodeId,
        (have, past): (Option<Version>, bool),
    ) -> Result<Reading, SubmitError> {
        let have = have.map(|have| Bytes::copy_from_slice(&have.0)).unwrap_or_default();
        let open = call::Kind::Open(w::OpenTransfer { account: account.0, have, past });
        let reply::Kind::Transfer(transfer) = self.ask(from, open).await? else {
            return Err(SubmitError::Unavailable("the peer answered something else"));
        };
        let head = AccountHead::decode(&transfer.head).map_err(|_| SubmitError::Unavailable(crate::DAMAGED))?;
        let read = w::ReadTransfer { transfer: transfer.transfer, ..Default::default() };
        Ok(Reading { from, head, bytes: 0, read, difference: transfer.difference, past: transfer.past })
    }

    /// The next rows, `None` after the last; the peer's snapshot is closed then.
    pub(crate) async fn read_next(&self, reading: &mut Reading) -> Result<Option<Vec<RowWrite>>, SubmitError> {
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
        let rows: Vec<RowWrite> = part.rows.into_iter().map(row_from).collect();
        reading.bytes += rows.iter().map(|row| row.size() as u64).sum::<u64>();
        Ok(Some(rows))
    }

    /// Bytes of the bodies that were not here.
    pub(crate) async fn fetch_missing(&self, from: NodeId, hashes: BTreeSet<BlobHash>) -> Result<u64, SubmitError> {
        let missing: Vec<BlobHash> = hashes.into_iter().filter(|hash| !self.store.has_blob(*hash)).collect();
        let fetches = stream::iter(missing).map(|hash| self.fetch_one_of_many(from, hash));
        // They share round trips and syncs.
        fetches.buffer_unordered(BODIES_AT_ONCE).try_fold(0, |sum, size| future::ready(Ok(sum + size))).await
    }
}

/// Digest of an account that has these rows besides (R6.2).
pub(crate) fn with_rows(digest: u128, rows: &[RowWrite]) -> u128 {
    rows.iter().fold(digest, |sum, row| sum.wrapping_add(mailbox::row_digest(row)))
}

pub(crate) fn count(reading: &Reading, kind: &'static str) {
    metrics::counter!("twinpost_accounts_transferred_total", "kind" => kind).increment(1);
    metrics::counter!("twinpost_transferred_bytes_total", "kind" => kind).increment(reading.bytes);
}

/// References of the bodies these rows name.
pub(crate) fn refs_of(rows: &[RowWrite]) -> Vec<BlobRef> {
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
