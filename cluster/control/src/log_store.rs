//! Raft's log and vote on the disk.

use std::fmt::Debug;
use std::ops::{Bound, RangeBounds};

use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{Entry, LogId, LogState, OptionalSend, RaftLogReader, StorageError, Vote};
use rocksdb::WriteBatch;

use crate::disk::{Disk, encode, log_key};
use crate::types::{RaftId, TypeConfig};

/// Key of the vote.
pub(crate) const VOTE_KEY: &[u8] = b"vote";
/// Key of the id of the last entry that was purged.
pub(crate) const PURGED_KEY: &[u8] = b"purged";

type Stored<T> = Result<T, StorageError<RaftId>>;

/// Log and vote; clones share the disk.
#[derive(Clone)]
pub(crate) struct LogStore {
    disk: Disk,
}

impl LogStore {
    pub(crate) const fn new(disk: Disk) -> Self {
        Self { disk }
    }
    fn last(&self) -> Option<Entry<TypeConfig>> {
        self.disk.last_log()
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Stored<Vec<Entry<TypeConfig>>> {
        let from = match range.start_bound() {
            Bound::Included(from) => *from,
            Bound::Excluded(from) => from.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(to) => to.saturating_add(1),
            Bound::Excluded(to) => *to,
            Bound::Unbounded => u64::MAX,
        };
        Ok(self.disk.log(from, to))
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Stored<LogState<TypeConfig>> {
        let purged: Option<LogId<RaftId>> = self.disk.read(PURGED_KEY);
        let last = self.last().map(|entry| entry.log_id);
        Ok(LogState { last_purged_log_id: purged, last_log_id: last.or(purged) })
    }
    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }
    async fn save_vote(&mut self, vote: &Vote<RaftId>) -> Stored<()> {
        let mut batch = WriteBatch::default();
        batch.put(VOTE_KEY, encode(vote));
        self.disk.write(batch).await;
        Ok(())
    }
    async fn read_vote(&mut self) -> Stored<Option<Vote<RaftId>>> {
        Ok(self.disk.read(VOTE_KEY))
    }
    async fn append<I>(&mut self, entries: I, callback: LogFlushed<TypeConfig>) -> Stored<()>
    where
        I: IntoIterator<Item = Entry<TypeConfig>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut batch = WriteBatch::default();
        for entry in entries {
            batch.put(log_key(entry.log_id.index), encode(&entry));
        }
        self.disk.write(batch).await;
        callback.log_io_completed(Ok(()));
        Ok(())
    }
    async fn truncate(&mut self, log_id: LogId<RaftId>) -> Stored<()> {
        let mut batch = WriteBatch::default();
        if let Some(last) = self.last() {
            (log_id.index..=last.log_id.index).for_each(|index| batch.delete(log_key(index)));
        }
        self.disk.write(batch).await;
        Ok(())
    }
    async fn purge(&mut self, log_id: LogId<RaftId>) -> Stored<()> {
        let mut batch = WriteBatch::default();
        let first: Vec<Entry<TypeConfig>> = self.disk.log(0, log_id.index.saturating_add(1));
        first.iter().for_each(|entry| batch.delete(log_key(entry.log_id.index)));
        batch.put(PURGED_KEY, encode(&log_id));
        self.disk.write(batch).await;
        Ok(())
    }
}
