//! The small RocksDB of Raft. Every write is synced; any error ends the process, because a node that cannot trust its
//! log must not vote.

use std::fmt::Display;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use rocksdb::{DB, DBRecoveryMode, Direction, IteratorMode, Options, WriteBatch, WriteOptions};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::OpenError;

/// Version of everything stored here.
const FORMAT: u32 = 1;
/// Key of the format version.
const FORMAT_KEY: &[u8] = b"format";
/// Prefix of log entries; the rest of the key is the big-endian index.
const LOG_PREFIX: u8 = b'l';
/// Exit status of a process whose store failed: unavailable.
const EXIT_STORE: i32 = 2;
/// Memory of the store before it writes a file (bytes).
const WRITE_BUFFER_BYTES: usize = 4 * 1024 * 1024;

/// Ends the process with a clear message.
pub(crate) fn fatal(what: &str, error: &dyn Display) -> ! {
    tracing::error!(%error, "the store of the configuration failed: {what}; this process ends");
    eprintln!("twinpost: the store of the configuration failed: {what}: {error}");
    std::process::exit(EXIT_STORE)
}

/// Key of the log entry at this index.
pub(crate) fn log_key(index: u64) -> [u8; 9] {
    let mut key = [LOG_PREFIX; 9];
    if let Some(rest) = key.get_mut(1..) {
        rest.copy_from_slice(&index.to_be_bytes());
    }
    key
}

/// The database; clones share it. A store can be begun anew while the process runs (see `life`): what the Raft of an
/// earlier life still wants to write is not written any more.
#[derive(Clone)]
pub(crate) struct Disk {
    db: Arc<DB>,
    /// The present life.
    present: Arc<RwLock<u64>>,
    /// The life this handle belongs to.
    life: u64,
}

impl Disk {
    /// Opens or creates.
    pub(crate) fn open(path: &Path) -> Result<Self, OpenError> {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_write_buffer_size(WRITE_BUFFER_BYTES);
        options.set_keep_log_file_num(2);
        options.set_track_and_verify_wals_in_manifest(true);
        options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
        let disk = Self { db: Arc::new(DB::open(&options, path)?), present: Arc::default(), life: 0 };
        match disk.db.get(FORMAT_KEY)? {
            None => {
                let mut batch = WriteBatch::default();
                batch.put(FORMAT_KEY, FORMAT.to_string());
                disk.db.write_opt(batch, &synced())?;
            }
            Some(found) if found == FORMAT.to_string().as_bytes() => {}
            Some(found) => {
                let found = String::from_utf8_lossy(&found).into_owned();
                return Err(OpenError::Format { found, known: FORMAT, folder: path.display().to_string() });
            }
        }
        Ok(disk)
    }

    /// Writes atomically; returns when it is on the medium. Never returns to somebody of an earlier life.
    pub(crate) async fn write(&self, batch: WriteBatch) {
        let disk = self.clone();
        let written = tokio::task::spawn_blocking(move || {
            let present = disk.present.read().unwrap_or_else(PoisonError::into_inner);
            if *present != disk.life {
                return Ok(false);
            }
            disk.db.write_opt(batch, &synced()).map(|()| true)
        });
        match written.await {
            Ok(Ok(true)) => {}
            Ok(Ok(false)) => std::future::pending().await,
            Ok(Err(error)) => fatal("write", &error),
            // The runtime is going down and so is whoever waits for this write.
            Err(error) if error.is_cancelled() => std::future::pending().await,
            Err(error) => fatal("write", &error),
        }
    }

    /// Begins the next life: the whole log goes, `fill` says what is there instead, all in one synced write. Blocks.
    pub(crate) fn next_life(&self, fill: impl FnOnce(&Self, &mut WriteBatch)) -> Self {
        let mut present = self.present.write().unwrap_or_else(PoisonError::into_inner);
        let next = Self { life: *present + 1, ..self.clone() };
        let mut batch = WriteBatch::default();
        batch.delete_range(log_key(0), log_key(u64::MAX));
        fill(&next, &mut batch);
        if let Err(error) = self.db.write_opt(batch, &synced()) {
            fatal("begin anew", &error);
        }
        *present = next.life;
        next
    }

    /// The value under a key.
    pub(crate) fn read<T: DeserializeOwned>(&self, key: &[u8]) -> Option<T> {
        match self.db.get_pinned(key) {
            Ok(value) => value.map(|bytes| decode(&bytes)),
            Err(error) => fatal("read", &error),
        }
    }

    /// Log entries from `from` up to, without, `to`; fewer when the log is shorter.
    pub(crate) fn log<T: DeserializeOwned>(&self, from: u64, to: u64) -> Vec<T> {
        let start = log_key(from);
        let mut entries = Vec::new();
        for item in self.db.iterator(IteratorMode::From(&start, Direction::Forward)) {
            match item {
                Ok((key, value)) if key.first() == Some(&LOG_PREFIX) && *key < log_key(to)[..] => {
                    entries.push(decode(&value));
                }
                Ok(_) => break,
                Err(error) => fatal("read the log", &error),
            }
        }
        entries
    }

    /// The last log entry.
    pub(crate) fn last_log<T: DeserializeOwned>(&self) -> Option<T> {
        let end = log_key(u64::MAX);
        match self.db.iterator(IteratorMode::From(&end, Direction::Reverse)).next()? {
            Ok((key, value)) => (key.first() == Some(&LOG_PREFIX)).then(|| decode(&value)),
            Err(error) => fatal("read the log", &error),
        }
    }
}

fn synced() -> WriteOptions {
    let mut options = WriteOptions::default();
    options.set_sync(true);
    options
}

/// As stored.
pub(crate) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_else(|error| fatal("encode", &error))
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> T {
    serde_json::from_slice(bytes).unwrap_or_else(|error| fatal("a stored value cannot be read", &error))
}
