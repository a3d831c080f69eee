//! The small RocksDB of Raft. Every write is synced; any error ends the process, because a node that cannot trust its
//! log must not vote.

use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;

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

/// The database; clones share it.
#[derive(Clone)]
pub(crate) struct Disk(Arc<DB>);

impl Disk {
    /// Opens or creates.
    pub(crate) fn open(path: &Path) -> Result<Self, OpenError> {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_write_buffer_size(WRITE_BUFFER_BYTES);
        options.set_keep_log_file_num(2);
        options.set_track_and_verify_wals_in_manifest(true);
        options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
        let disk = Self(Arc::new(DB::open(&options, path)?));
        match disk.0.get(FORMAT_KEY)? {
            None => {
                let mut batch = WriteBatch::default();
                batch.put(FORMAT_KEY, FORMAT.to_string());
                disk.0.write_opt(batch, &synced())?;
            }
            Some(found) if found == FORMAT.to_string().as_bytes() => {}
            Some(found) => {
                let found = String::from_utf8_lossy(&found).into_owned();
                return Err(OpenError::Format { found, known: FORMAT, folder: path.display().to_string() });
            }
        }
        Ok(disk)
    }

    /// Writes atomically; returns when it is on the medium.
    pub(crate) async fn write(&self, batch: WriteBatch) {
        let db = Arc::clone(&self.0);
        let written = tokio::task::spawn_blocking(move || db.write_opt(batch, &synced())).await;
        match written {
            Ok(Ok(())) => {}
            Ok(Err(error)) => fatal("write", &error),
            // The runtime is going down and so is whoever waits for this write.
            Err(error) if error.is_cancelled() => std::future::pending().await,
            Err(error) => fatal("write", &error),
        }
    }

    /// The value under a key.
    pub(crate) fn read<T: DeserializeOwned>(&self, key: &[u8]) -> Option<T> {
        match self.0.get_pinned(key) {
            Ok(value) => value.map(|bytes| decode(&bytes)),
            Err(error) => fatal("read", &error),
        }
    }

    /// Log entries from `from` up to, without, `to`; fewer when the log is shorter.
    pub(crate) fn log<T: DeserializeOwned>(&self, from: u64, to: u64) -> Vec<T> {
        let start = log_key(from);
        let mut entries = Vec::new();
        for item in self.0.iterator(IteratorMode::From(&start, Direction::Forward)) {
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
        match self.0.iterator(IteratorMode::From(&end, Direction::Reverse)).next()? {
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
