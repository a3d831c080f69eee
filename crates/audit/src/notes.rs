//! The thread that writes: what was noted, and what commits left beside the mail. A slow or full disk of the log holds up
//! nobody: notes are dropped and counted, records of commits wait where they are.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
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
/// A write that takes longer than this hangs.
const WRITE_HANGS: Duration = Duration::from_secs(10);

/// Wall clock (Unix ms).
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// How the writer does.
#[derive(Debug, Default)]
struct Health {
    /// Why the last write failed.
    fault: Option<String>,
    /// The write that is under way.
    begun: Option<Instant>,
}

/// Takes notes for the writer.
pub struct Notes {
    waiting: SyncSender<Record>,
    health: Arc<Mutex<Health>>,
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
    health: Arc<Mutex<Health>>,
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
        let health = Arc::<Mutex<Health>>::default();
        let writer =
            Writer { book, records, notes, taken: 0, looked: Instant::now(), stop, health: Arc::clone(&health) };
        let thread = std::thread::Builder::new().name("log-writer".to_owned()).spawn(move || writer.run())?;
        Ok((Self { waiting, health, protocol }, thread))
    }

    /// Why nothing can be written now; `None`: all is well.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        let health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        let hangs = health.begun.is_some_and(|begun| begun.elapsed() > WRITE_HANGS);
        health.fault.clone().or_else(|| hangs.then(|| "its disk does not answer".to_owned()))
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
        while !self.write(&batch) {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            std::thread::sleep(PAUSE);
        }
        metrics::counter!("twinpost_log_records_total").increment(count);
        self.taken = taken.last().copied().unwrap_or(self.taken);
        self.records.forget(taken);
    }

    /// Whether they are on the disk now.
    fn write(&self, batch: &[(Bytes, Bytes)]) -> bool {
        let health = || self.health.lock().unwrap_or_else(PoisonError::into_inner);
        health().begun = Some(Instant::now());
        let done = self.book.keep_own(batch.to_vec());
        let (now, before) = {
            let mut health = health();
            health.begun = None;
            let now = done.err();
            (now.clone(), std::mem::replace(&mut health.fault, now))
        };
        match (&now, before) {
            (Some(error), None) => tracing::error!(%error, "the log cannot be written; mail goes on, records wait"),
            (None, Some(_)) => tracing::info!("the log is written again"),
            _ => {}
        }
        if now.is_some() {
            metrics::counter!("twinpost_log_write_failures_total").increment(1);
        }
        now.is_none()
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
