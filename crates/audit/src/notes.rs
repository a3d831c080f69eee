//! The thread that writes: what was noted, and what commits left beside the mail. A slow or full disk of the log holds up
//! nobody: notes are dropped and counted, records of commits wait where they are.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use ports::log::Log;
use ports::records::Records;
use vocab::log::{Entry, Record};

use crate::book::Book;

/// Notes that wait for the writer; beyond it they are dropped and counted.
pub const NOTES_WAITING_MAX: usize = 20_000;
/// Records of one write.
const AT_ONCE: usize = 2_000;
/// How often what commits left is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Pause after a write that failed.
const PAUSE: Duration = Duration::from_secs(1);

/// Wall clock (Unix ms).
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Takes notes for the writer.
pub struct Notes {
    waiting: SyncSender<Record>,
    protocol: Arc<AtomicBool>,
}

impl Log for Notes {
    fn note(&self, entry: Entry) {
        let record = Record { at: now_ms(), entry: Some(entry) };
        if self.waiting.try_send(record).is_err() {
            metrics::counter!("twinpost_log_notes_dropped_total").increment(1);
        }
    }
    fn wants_protocol(&self) -> bool {
        self.protocol.load(Ordering::Relaxed)
    }
}

/// The writer's own.
pub(crate) struct Writer {
    book: Arc<Book>,
    records: Arc<dyn Records>,
    notes: Receiver<Record>,
    /// Number of the last record of a commit that was taken.
    taken: u64,
    looked: Instant,
    stop: Arc<AtomicBool>,
    /// The last write failed, and that was said.
    failing: bool,
}

impl Notes {
    /// A taker of notes and the writer behind it, which runs on a thread of its own until `stop`.
    pub(crate) fn start(
        book: Arc<Book>,
        records: Arc<dyn Records>,
        protocol: Arc<AtomicBool>,
        stop: Arc<AtomicBool>,
    ) -> std::io::Result<(Self, std::thread::JoinHandle<()>)> {
        let (waiting, notes) = sync_channel(NOTES_WAITING_MAX);
        let writer = Writer { book, records, notes, taken: 0, looked: Instant::now(), stop, failing: false };
        let thread = std::thread::Builder::new().name("log-writer".to_owned()).spawn(move || writer.run())?;
        Ok((Self { waiting, protocol }, thread))
    }
}

impl Writer {
    fn run(mut self) {
        while !self.stop.load(Ordering::Relaxed) {
            self.round(false);
        }
        self.round(true);
    }

    /// `last`: what is there now is written still, without a wait.
    fn round(&mut self, last: bool) {
        let mut batch: Vec<(Bytes, Bytes)> = Vec::new();
        let wait = if last { Duration::ZERO } else { LOOK_EVERY.saturating_sub(self.looked.elapsed()) };
        match self.notes.recv_timeout(wait) {
            Ok(note) => batch.push((Bytes::new(), note.to_bytes())),
            // Everybody who notes has gone: then only commits leave something.
            Err(RecvTimeoutError::Disconnected) => std::thread::sleep(wait),
            Err(RecvTimeoutError::Timeout) => {}
        }
        while batch.len() < AT_ONCE
            && let Ok(note) = self.notes.try_recv()
        {
            batch.push((Bytes::new(), note.to_bytes()));
        }
        let mut taken = Vec::new();
        if last || self.looked.elapsed() >= LOOK_EVERY {
            taken = self.take(&mut batch);
        }
        if batch.is_empty() {
            return;
        }
        let count = batch.len() as u64;
        while let Err(error) = self.book.keep_own(batch.clone()) {
            metrics::counter!("twinpost_log_write_failures_total").increment(1);
            if !std::mem::replace(&mut self.failing, true) {
                tracing::error!(%error, "the log cannot be written; mail goes on, records wait");
            }
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            std::thread::sleep(PAUSE);
        }
        if std::mem::take(&mut self.failing) {
            tracing::info!("the log is written again");
        }
        metrics::counter!("twinpost_log_records_total").increment(count);
        self.taken = taken.last().copied().unwrap_or(self.taken);
        self.records.forget(taken);
    }

    /// Adds what commits left; its numbers.
    fn take(&mut self, batch: &mut Vec<(Bytes, Bytes)>) -> Vec<u64> {
        match self.records.waiting(self.taken, AT_ONCE) {
            Ok(records) => {
                // More wait: no pause before the next round.
                if records.len() < AT_ONCE {
                    self.looked = Instant::now();
                }
                let (numbers, records): (Vec<u64>, Vec<_>) = records.into_iter().unzip();
                batch.extend(records.into_iter().map(|record| (record.id, record.bytes)));
                numbers
            }
            Err(damaged) => {
                self.looked = Instant::now();
                tracing::error!(%damaged, "log records beside the mail cannot be read");
                Vec::new()
            }
        }
    }
}
