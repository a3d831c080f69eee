//! What the caller of [`crate::Store::open`] chooses, and why opening may fail.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Memory for blocks read from disk (bytes); with buffers and the heads this keeps an idle node below 150 MB.
pub const BLOCK_CACHE_BYTES: usize = 64 * 1024 * 1024;
/// Interval of the small synced write of a store that has nothing else to write.
pub const IDLE_WRITE: Duration = Duration::from_secs(1);
/// Pause between two passes that look for bodies without references.
pub const SWEEP_PAUSE_MS: u64 = 10 * 60 * 1000;

/// An archived branch is deleted this long after its last row was written (ms).
pub use vocab::limits::BRANCH_KEEP_MS;

/// Choices of a store. The default is right for production.
#[derive(Clone)]
pub struct StoreOptions {
    /// Memory for blocks read from disk (bytes).
    pub block_cache_bytes: usize,
    /// Interval of the small synced write of an idle store.
    pub idle_write: Duration,
    /// A body without a reference is deleted after this time (ms).
    pub blob_orphan_ms: u64,
    /// Pause between two passes of the sweep (ms).
    pub sweep_pause_ms: u64,
    /// Called with the reason when the disk cannot be trusted any more. Must end the process; the default aborts.
    pub on_fatal: Arc<dyn Fn(&str) + Send + Sync>,
    /// Wall clock in ms since 1970, for the age of bodies without references.
    pub now_ms: Arc<dyn Fn() -> u64 + Send + Sync>,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            block_cache_bytes: BLOCK_CACHE_BYTES,
            idle_write: IDLE_WRITE,
            blob_orphan_ms: vocab::limits::BLOB_ORPHAN_MS,
            sweep_pause_ms: SWEEP_PAUSE_MS,
            on_fatal: Arc::new(|message| {
                eprintln!("twinpost: {message}");
                std::process::abort()
            }),
            now_ms: Arc::new(|| {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
            }),
        }
    }
}

/// Why a folder was not opened. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open: stop that one first.
    #[error("{} is in use by another process; stop it first", .0.display())]
    InUse(PathBuf),
    /// Written by another release: use that release, or give up this copy.
    #[error(
        "{} was written in a format this release does not know ({found}); use the release that wrote it, or empty the \
         folder and let this node fetch everything from the other one", .path.display()
    )]
    Format {
        /// The folder.
        path: PathBuf,
        /// What was found.
        found: String,
    },
    /// The bytes on disk are bad: repair by emptying the folder and fetching from the other node.
    #[error("{} is damaged: {what}; keep a copy, empty the folder and let this node fetch everything from the other one",
        .path.display())]
    Damaged {
        /// The folder.
        path: PathBuf,
        /// RocksDB's words.
        what: String,
    },
    /// The operating system refused: rights, space, no such folder.
    #[error("cannot open {}: {what}", .path.display())]
    System {
        /// The folder.
        path: PathBuf,
        /// The reason.
        what: String,
    },
}
