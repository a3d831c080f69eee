//! Log records that were written with batches and wait until the log has them. A queue by number: whoever reads goes on
//! where it was, so that what is left of deleted keys is not walked over again.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use ports::records::Records;
use rocksdb::{DB, Direction, IteratorMode};
use vocab::limits::LOG_RECORDS_WAITING_MAX;
use vocab::{Damaged, LogRecord};

use crate::ledger::{Group, Ledger};
use crate::snapshot::damaged;
use crate::{Store, families};

/// What committer and reader share.
#[derive(Default)]
pub(crate) struct Waiting {
    count: AtomicU64,
    /// Numbers the log has; deleted with the next write.
    taken: Mutex<Vec<u64>>,
}

fn encode(record: &LogRecord) -> Option<Vec<u8>> {
    let length = u16::try_from(record.id.len()).ok()?;
    Some([&length.to_be_bytes(), &*record.id, &*record.bytes].concat())
}

fn decode(value: &[u8]) -> Option<LogRecord> {
    let (length, rest) = value.split_first_chunk::<2>()?;
    let (id, bytes) = rest.split_at_checked(u16::from_be_bytes(*length).into())?;
    Some(LogRecord { id: id.to_vec().into(), bytes: bytes.to_vec().into() })
}

fn number(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(key.try_into().ok()?))
}

/// The number behind the newest record, and how many there are.
pub(crate) fn load(db: &DB) -> Result<(u64, u64), rocksdb::Error> {
    let (mut next, mut count) = (0, 0);
    for item in db.iterator_cf(families::family(db, families::RECORDS), IteratorMode::Start) {
        next = number(&item?.0).map_or(next, |number| number + 1);
        count += 1;
    }
    Ok((next, count))
}

impl Waiting {
    pub(crate) fn begin(&self, count: u64) {
        self.count.store(count, Ordering::Relaxed);
    }
}

impl Ledger {
    pub(crate) fn add_records(&mut self, group: &mut Group, records: &[LogRecord]) {
        for record in records {
            let full = self.disk.records.count.load(Ordering::Relaxed) >= LOG_RECORDS_WAITING_MAX;
            // No id is longer than its length can say; one that were is as lost as one without room.
            let Some(value) = encode(record).filter(|_| !full) else {
                metrics::counter!("twinpost_log_records_dropped_total").increment(1);
                continue;
            };
            // Numbers begin at 1: 0 stands for "from the oldest".
            self.next_record = self.next_record.max(1);
            group.batch.put_cf(self.family(families::RECORDS), self.next_record.to_be_bytes(), value);
            self.next_record += 1;
            self.disk.records.count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Deletes what the log has taken, with whatever is written now.
    pub(crate) fn forget_records(&self, group: &mut Group) {
        let taken = std::mem::take(&mut *self.disk.records.taken.lock().unwrap_or_else(PoisonError::into_inner));
        let family = self.family(families::RECORDS);
        taken.iter().for_each(|number| group.batch.delete_cf(family, number.to_be_bytes()));
    }
}

impl Records for Store {
    fn waiting(&self, after: u64, limit: usize) -> Result<Vec<(u64, LogRecord)>, Damaged> {
        let family = families::family(&self.disk.db, families::RECORDS);
        let from = (after + 1).to_be_bytes();
        let mut found = Vec::new();
        for item in self.disk.db.iterator_cf(family, IteratorMode::From(&from, Direction::Forward)).take(limit) {
            let (key, value) = item.map_err(|error| damaged(&error))?;
            let unreadable = || Damaged("a log record that waits".to_owned());
            found.push((number(&key).ok_or_else(unreadable)?, decode(&value).ok_or_else(unreadable)?));
        }
        Ok(found)
    }

    fn forget(&self, numbers: Vec<u64>) {
        let waiting = &self.disk.records;
        let gone = numbers.len() as u64;
        waiting.taken.lock().unwrap_or_else(PoisonError::into_inner).extend(numbers);
        let less = |count: u64| Some(count.saturating_sub(gone));
        // The closure always gives a value.
        let _ = waiting.count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    fn count(&self) -> u64 {
        self.disk.records.count.load(Ordering::Relaxed)
    }
}
