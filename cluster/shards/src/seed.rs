//! A transfer to a node that was seeded: what the account's seed has in common with the other node's rows is taken from
//! it, range by range where the digests agree; only the rest is asked for. The result is verified as a whole, like that of
//! any transfer, and is a stage like any other: a seed is never a state.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use ports::mail_store::MailStore;
use vocab::{AccountHead, AccountId, BlobHash, Damaged, NodeId, RowWrite, Rows, StoreWrite, SubmitError, Table};
use wire::forward::{self as w, call, reply};

use crate::difference::row_from;
use crate::engine::Engine;
use crate::transfer::{Giving, Pulled, ROWS_BYTES, Reading, count, refs_of, with_rows};

/// Rows of one range (bytes, about).
const RANGE_BYTES: usize = 8 * 1024;
/// Rows summed up for one answer (bytes, about): it must not take long.
const SUMMARY_BYTES: usize = 8 * 1024 * 1024;

/// A place between rows: behind this table and key.
type After = Option<(u8, Bytes)>;

/// What a range is recognised by. Unlike the digest of an account it covers the rows of every table.
fn range_hash(rows: &[RowWrite]) -> BlobHash {
    let mut bytes = Vec::with_capacity(2 * RANGE_BYTES);
    for row in rows {
        let value = row.value.as_deref().unwrap_or_default();
        bytes.push(row.table.0);
        bytes.extend((row.key.len() as u64).to_be_bytes());
        bytes.extend((value.len() as u64).to_be_bytes());
        bytes.extend(&row.key[..]);
        bytes.extend(value);
    }
    BlobHash::of(&bytes)
}

/// Ranges of the rows behind `after`, at most about [`SUMMARY_BYTES`] of rows. Blocks.
fn summary(store: &dyn MailStore, giving: &Giving, mut after: After) -> Result<Vec<w::RowRange>, Damaged> {
    let (mut ranges, mut bytes) = (Vec::new(), 0);
    while bytes < SUMMARY_BYTES {
        let page = store.export(&giving.rows, after.take(), ROWS_BYTES)?;
        let Some(last) = page.last() else { break };
        after = Some((last.table.0, last.key.clone()));
        let mut rest = &page[..];
        while !rest.is_empty() {
            let mut size = 0;
            let mut fits = |row: &RowWrite| {
                size += row.size();
                size <= RANGE_BYTES
            };
            let (range, others) = rest.split_at(rest.iter().take_while(|row| fits(row)).count().max(1));
            bytes += range.iter().map(RowWrite::size).sum::<usize>();
            if let Some(last) = range.last() {
                ranges.push(w::RowRange {
                    table: u32::from(last.table.0),
                    last_key: last.key.clone(),
                    hash: range_hash(range).0.to_vec().into(),
                });
            }
            rest = others;
        }
    }
    Ok(ranges)
}

/// The rows of a seed, in order.
struct Cursor {
    store: Arc<dyn MailStore>,
    rows: Arc<dyn Rows>,
    page: VecDeque<RowWrite>,
    after: After,
    ended: bool,
}

impl Cursor {
    fn new(store: Arc<dyn MailStore>, rows: Arc<dyn Rows>) -> Self {
        Self { store, rows, page: VecDeque::new(), after: None, ended: false }
    }

    fn fill(&mut self) -> Result<(), Damaged> {
        if self.page.is_empty() && !self.ended {
            let page = self.store.export(&self.rows, self.after.take(), ROWS_BYTES)?;
            self.after = page.last().map(|last| (last.table.0, last.key.clone()));
            self.ended = page.is_empty();
            self.page = page.into();
        }
        Ok(())
    }

    /// The next rows up to and with this one.
    fn up_to(&mut self, table: Table, key: &Bytes) -> Result<Vec<RowWrite>, Damaged> {
        let mut found = Vec::new();
        loop {
            self.fill()?;
            let before = |row: &RowWrite| (row.table.0, &row.key) <= (table.0, key);
            match self.page.pop_front_if(|row| before(row)) {
                Some(row) => found.push(row),
                None => return Ok(found),
            }
        }
    }
}

/// A stage in the making.
struct Building {
    account: AccountId,
    from: NodeId,
    digest: u128,
    rows: u64,
    /// Of these, from the seed.
    kept: u64,
    bytes: u64,
    waiting: Vec<RowWrite>,
    waiting_bytes: usize,
}

impl Engine {
    pub(crate) async fn serve_summary(&self, ask: w::Summarize) -> Result<reply::Kind, SubmitError> {
        let giving = self.transfers.get(ask.transfer).ok_or(SubmitError::Unavailable("no such transfer"))?;
        let store = Arc::clone(&self.store);
        let after = ask.resume.then(|| (u8::try_from(ask.after_table).unwrap_or(u8::MAX), ask.after_key));
        let ranges = tokio::task::spawn_blocking(move || summary(&*store, &giving, after));
        let ranges = ranges.await.map_err(|_| SubmitError::Unavailable("a transfer ended badly"))?;
        let ranges = ranges.map_err(|damaged| {
            tracing::error!(%damaged, "an account cannot be given to the other node");
            SubmitError::Unavailable(crate::DAMAGED)
        })?;
        Ok(reply::Kind::Summary(w::Summary { ranges }))
    }

    /// Stages an account with the help of its seed; `None` when that came to nothing and all of it is to be transferred.
    pub(crate) async fn pull_seeded(
        &self,
        account: AccountId,
        from: NodeId,
        seed: Arc<dyn Rows>,
    ) -> Result<Option<Pulled>, SubmitError> {
        let mut reading = self.open_at(account, from, (None, true)).await?;
        let past = self.read_past(&reading).await?;
        let staged = self.stage_seeded(account, &mut reading, seed).await;
        let close = call::Kind::Close(w::CloseTransfer { transfer: reading.transfer() });
        // A close that is lost costs the peer a snapshot for a minute.
        let _ = self.ask(from, close).await;
        match staged {
            Ok(head) => Ok(Some(Pulled::Stage(head, past))),
            Err(error) => {
                tracing::warn!(account = account.0, %error, "the seed of an account is of no use: all of it is transferred");
                Ok(None)
            }
        }
    }

    async fn stage_seeded(
        &self,
        account: AccountId,
        reading: &mut Reading,
        seed: Arc<dyn Rows>,
    ) -> Result<AccountHead, SubmitError> {
        self.store.write(vec![StoreWrite::Unstage { account }]).await;
        let mut cursor = Cursor::new(Arc::clone(&self.store), seed);
        let mut building = Building {
            account,
            from: reading.from,
            digest: 0,
            rows: 0,
            kept: 0,
            bytes: 0,
            waiting: Vec::new(),
            waiting_bytes: 0,
        };
        self.build_by_ranges(&mut building, reading, &mut cursor).await?;
        self.write_built(&mut building).await?;
        if building.digest != reading.head.digest {
            return Err(SubmitError::Unavailable(crate::DAMAGED));
        }
        reading.bytes += building.bytes;
        let (rows, kept, bytes) = (building.rows, building.kept, reading.bytes);
        tracing::info!(account = account.0, rows, kept, bytes, "an account was brought up to date from its seed");
        metrics::counter!("twinpost_seeded_rows_total").increment(kept);
        count(reading, "seeded");
        Ok(reading.head.clone())
    }

    async fn build_by_ranges(
        &self,
        building: &mut Building,
        reading: &mut Reading,
        cursor: &mut Cursor,
    ) -> Result<(), SubmitError> {
        let unreadable = |_: Damaged| SubmitError::Unavailable(crate::DAMAGED);
        let (mut after, mut differs_from): (After, Option<After>) = (None, None);
        loop {
            let ranges = self.ask_summary(reading, after.as_ref()).await?;
            let last = ranges.is_empty();
            for range in ranges {
                let table = Table(u8::try_from(range.table).unwrap_or(u8::MAX));
                let mine = cursor.up_to(table, &range.last_key).map_err(unreadable)?;
                if range.hash[..] == range_hash(&mine).0 {
                    if let (Some(from), Some(until)) = (differs_from.take(), &after) {
                        self.read_range(building, reading, (from, until.clone())).await?;
                    }
                    building.kept += mine.len() as u64;
                    self.build(building, mine).await?;
                } else if differs_from.is_none() {
                    differs_from = Some(after.clone());
                }
                after = Some((table.0, range.last_key));
            }
            if last {
                break;
            }
        }
        if let (Some(from), Some(until)) = (differs_from, after) {
            self.read_range(building, reading, (from, until)).await?;
        }
        Ok(())
    }

    async fn ask_summary(
        &self,
        reading: &Reading,
        after: Option<&(u8, Bytes)>,
    ) -> Result<Vec<w::RowRange>, SubmitError> {
        let (after_table, after_key) = after.map(|(t, k)| (u32::from(*t), k.clone())).unwrap_or_default();
        let ask = w::Summarize { transfer: reading.transfer(), resume: after.is_some(), after_table, after_key };
        match self.ask(reading.from, call::Kind::Summarize(ask)).await? {
            reply::Kind::Summary(summary) => Ok(summary.ranges),
            _ => Err(SubmitError::Unavailable("the peer answered something else")),
        }
    }

    /// The other node's rows behind the first place, up to and with the row of the second.
    async fn read_range(
        &self,
        building: &mut Building,
        reading: &mut Reading,
        (mut after, until): (After, (u8, Bytes)),
    ) -> Result<(), SubmitError> {
        loop {
            let (after_table, after_key) = after.clone().map(|(t, k)| (u32::from(t), k)).unwrap_or_default();
            let read = w::ReadTransfer {
                transfer: reading.transfer(),
                resume: after.is_some(),
                after_table,
                after_key,
                bounded: true,
                until_table: u32::from(until.0),
                until_key: until.1.clone(),
            };
            let reply::Kind::Rows(part) = self.ask(reading.from, call::Kind::Read(read)).await? else {
                return Err(SubmitError::Unavailable("the peer answered something else"));
            };
            let mut rows: Vec<RowWrite> = part.rows.into_iter().map(row_from).collect();
            rows.retain(|row| (row.table.0, &row.key) <= (until.0, &until.1));
            let Some(last) = rows.last() else { return Ok(()) };
            let end = (last.table.0, last.key.clone());
            building.bytes += rows.iter().map(|row| row.size() as u64).sum::<u64>();
            self.build(building, rows).await?;
            if end == until {
                return Ok(());
            }
            after = Some(end);
        }
    }

    async fn build(&self, building: &mut Building, rows: Vec<RowWrite>) -> Result<(), SubmitError> {
        building.digest = with_rows(building.digest, &rows);
        building.rows += rows.len() as u64;
        building.waiting_bytes += rows.iter().map(RowWrite::size).sum::<usize>();
        building.waiting.extend(rows);
        if building.waiting_bytes >= ROWS_BYTES {
            self.write_built(building).await?;
        }
        Ok(())
    }

    async fn write_built(&self, building: &mut Building) -> Result<(), SubmitError> {
        let rows = std::mem::take(&mut building.waiting);
        building.waiting_bytes = 0;
        let refs = refs_of(&rows);
        building.bytes += self.fetch_missing(building.from, refs.iter().map(|r| r.hash).collect()).await?;
        self.store.write(vec![StoreWrite::Stage { account: building.account, rows, refs }]).await;
        Ok(())
    }
}
