//! The one thread that writes. It takes all waiting writes, joins them into one batch, syncs once and answers them in
//! the order they came: concurrency shares syncs. Nothing is ever written without the log or without a sync.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Instant;

use rocksdb::{WriteBatch, WriteOptions};
use tokio::sync::oneshot;
use vocab::StoreWrite;

use crate::disk::Disk;
use crate::ledger::{Group, Ledger};
use crate::sweep::Sweep;
use crate::{families, keys};

/// A group takes no further write above this size (bytes); a single larger write goes alone.
pub const GROUP_BYTES_MAX: usize = 8 * 1024 * 1024;

/// RocksDB's counter of errors in flushes and compactions: there is no event for them in the binding.
const BACKGROUND_ERRORS: &str = "rocksdb.background-errors";

/// An order to the committer.
pub(crate) enum Order {
    /// Write and answer when synced.
    Write(Vec<StoreWrite>, oneshot::Sender<()>),
    /// Delete the seeds that nobody took.
    DropSeeds,
    /// Run one whole pass of the sweep and answer with the number of deleted bodies.
    Sweep(oneshot::Sender<u64>),
}

/// The writing thread's state.
pub(crate) struct Committer {
    disk: Arc<Disk>,
    ledger: Ledger,
    sweep: Sweep,
    orders: Receiver<Order>,
    last_tick: Instant,
}

/// The disk failed and `on_fatal` came back: only in tests. Unanswered writes stay unanswered.
struct Stopped;

impl Committer {
    pub(crate) fn new(ledger: Ledger, orders: Receiver<Order>) -> Self {
        let disk = Arc::clone(&ledger.disk);
        Self { sweep: Sweep::new(disk.now_ms()), disk, ledger, orders, last_tick: Instant::now() }
    }

    /// Until the store is dropped.
    pub(crate) fn run(mut self) {
        while let Ok(true) = self.step() {}
    }

    /// Waits for something to do and does it; `false` when the store is gone.
    fn step(&mut self) -> Result<bool, Stopped> {
        let wait = self.disk.options.idle_write.saturating_sub(self.last_tick.elapsed());
        match self.orders.recv_timeout(wait) {
            Ok(order) => self.commit(order)?,
            Err(RecvTimeoutError::Timeout) => self.write_tick()?,
            Err(RecvTimeoutError::Disconnected) => return Ok(false),
        }
        if self.last_tick.elapsed() >= self.disk.options.idle_write {
            self.last_tick = Instant::now();
            self.check_background()?;
            self.sweep_step()?;
        }
        Ok(true)
    }

    /// Joins `first` and everything that waits behind it into one synced write.
    fn commit(&mut self, first: Order) -> Result<(), Stopped> {
        let mut group = Group::default();
        self.ledger.forget_records(&mut group);
        let mut answers = Vec::new();
        let mut next = Some(first);
        let mut sweep = None;
        while let Some(order) = next.take() {
            match order {
                Order::Write(parts, answer) => {
                    if let Err(damage) = self.ledger.add(&mut group, parts) {
                        return self.stop(&format!("reading before a write failed: {damage}"));
                    }
                    answers.push(answer);
                }
                Order::DropSeeds => {
                    for account in self.disk.seeded() {
                        tracing::info!(account = account.0, "the seed of an account was not needed");
                        self.ledger.end_seed(&mut group, account);
                    }
                }
                Order::Sweep(answer) => {
                    sweep = Some(answer);
                    break;
                }
            }
            if group.batch.size_in_bytes() < GROUP_BYTES_MAX {
                next = self.orders.try_recv().ok();
            }
        }
        if !answers.is_empty() || !group.batch.is_empty() {
            metrics::histogram!("twinpost_store_group_writes")
                .record(f64::from(u32::try_from(answers.len()).unwrap_or(0)));
            self.write(group)?;
        }
        for answer in answers {
            // Whoever asked may have gone; the write counts all the same.
            let _ = answer.send(());
        }
        if let Some(answer) = sweep {
            let _ = answer.send(self.sweep_pass()?);
        }
        Ok(())
    }

    /// Writes and publishes one group.
    fn write(&mut self, group: Group) -> Result<(), Stopped> {
        let begun = Instant::now();
        let bytes = group.batch.size_in_bytes();
        self.write_synced(group.batch)?;
        self.disk.publish(group.entries);
        metrics::histogram!("twinpost_store_write_seconds").record(begun.elapsed().as_secs_f64());
        metrics::counter!("twinpost_store_written_bytes_total").increment(bytes as u64);
        Ok(())
    }

    fn write_synced(&mut self, batch: WriteBatch) -> Result<(), Stopped> {
        let mut synced = WriteOptions::default();
        synced.set_sync(true);
        match self.disk.db.write_opt(batch, &synced) {
            Ok(()) => {
                self.disk.note_synced();
                Ok(())
            }
            Err(error) => self.stop(&format!("a write failed: {error}")),
        }
    }

    fn stop<T>(&self, what: &str) -> Result<T, Stopped> {
        self.disk.fatal(what);
        Err(Stopped)
    }

    /// The small write that shows whether the disk still answers.
    fn write_tick(&mut self) -> Result<(), Stopped> {
        let mut batch = WriteBatch::default();
        let meta = families::family(&self.disk.db, families::META);
        batch.put_cf(meta, keys::TICK, self.disk.now_ms().to_be_bytes());
        self.write_synced(batch)
    }

    fn check_background(&self) -> Result<(), Stopped> {
        match self.disk.db.property_int_value(BACKGROUND_ERRORS) {
            Ok(Some(0) | None) => Ok(()),
            Ok(Some(count)) => self.stop(&format!("{count} flushes or compactions failed")),
            Err(error) => self.stop(&format!("the database no longer answers: {error}")),
        }
    }

    fn sweep_step(&mut self) -> Result<(), Stopped> {
        if self.sweep.is_due(self.disk.now_ms(), self.disk.options.sweep_pause_ms) {
            self.sweep_once()?;
        }
        Ok(())
    }

    fn sweep_pass(&mut self) -> Result<u64, Stopped> {
        let before = self.sweep.deleted;
        self.sweep.restart();
        while self.sweep.is_running() {
            self.sweep_once()?;
        }
        Ok(self.sweep.deleted - before)
    }

    fn sweep_once(&mut self) -> Result<(), Stopped> {
        let mut group = Group::default();
        let disk = Arc::clone(&self.disk);
        // Held over the write: a reader that asks for a body either is seen here, or sees that it is gone.
        let mut asked = disk.asked();
        if let Err(damage) = self.sweep.step(&mut self.ledger, &asked, &mut group) {
            return self.stop(&format!("looking for unused bodies failed: {damage}"));
        }
        if !self.sweep.is_running() {
            let oldest = disk.now_ms().saturating_sub(disk.options.blob_orphan_ms);
            asked.retain(|_, at| *at > oldest);
        }
        if group.batch.is_empty() { Ok(()) } else { self.write(group) }
    }
}
