//! The mail of another node's folder, or of a checkpoint of it, opened for reading alone: nothing in it is changed.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use rocksdb::{DB, IteratorMode};
use vocab::{AccountHead, AccountId, BlobHash, Damaged, RowWrite, Rows};

use crate::options::OpenError;
use crate::snapshot::{AccountSnapshot, damaged};
use crate::{blobs, families, format, keys, snapshot};

/// Memory for blocks read (bytes).
const CACHE_BYTES: usize = 16 * 1024 * 1024;

/// A store somebody else wrote.
pub struct Foreign {
    pub(crate) db: Arc<DB>,
}

impl Foreign {
    /// Opens the store in `path`; nobody else may have it open for writing.
    ///
    /// # Errors
    /// [`OpenError`] says what the operator can do.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        if !path.join("CURRENT").exists() {
            return Err(OpenError::System { path: path.to_owned(), what: "there is no mail in it".into() });
        }
        if is_locked(path) {
            return Err(OpenError::InUse(path.to_owned()));
        }
        format::check_families(path)?;
        let mut options = families::database_options();
        options.create_if_missing(false);
        options.create_missing_column_families(false);
        let descriptors = families::descriptors(CACHE_BYTES);
        let db = DB::open_cf_descriptors_read_only(&options, path, descriptors, false);
        let db = db.map_err(|error| format::open_error(path, &error))?;
        match db.get_cf(families::family(&db, families::META), keys::FORMAT) {
            Ok(Some(found)) if found == format::FORMAT_VERSION => Ok(Self { db: Arc::new(db) }),
            Ok(found) => Err(OpenError::Format {
                path: path.to_owned(),
                found: found
                    .map_or("no format record".into(), |f| String::from_utf8_lossy(&f).escape_default().to_string()),
            }),
            Err(error) => Err(format::open_error(path, &error)),
        }
    }

    /// Every account with its head, and what kept the list from being read to its end.
    #[must_use]
    pub fn accounts(&self) -> (Vec<(AccountId, Result<AccountHead, Damaged>)>, Option<Damaged>) {
        let mut found = Vec::new();
        for item in self.db.iterator_cf(families::family(&self.db, families::HEAD), IteratorMode::Start) {
            match item {
                Ok((key, value)) => {
                    let Some(account) = keys::account_of(&key) else { continue };
                    found.push((account, snapshot::decode_head(&value).map(|(_, head)| head)));
                }
                Err(error) => return (found, Some(damaged(&error))),
            }
        }
        (found, None)
    }

    /// The account as it was written last.
    #[must_use]
    pub fn snapshot(&self, account: AccountId) -> Arc<dyn Rows> {
        Arc::new(AccountSnapshot::take(Arc::clone(&self.db), account))
    }

    /// As [`ports::mail_store::MailStore::export`].
    ///
    /// # Errors
    /// [`Damaged`].
    pub fn export(rows: &dyn Rows, after: Option<(u8, Bytes)>, limit_bytes: usize) -> Result<Vec<RowWrite>, Damaged> {
        snapshot::export(rows, after, limit_bytes)
    }

    /// A whole body; `None` when it is not here or not what its name says.
    #[must_use]
    pub fn body(&self, hash: BlobHash) -> Option<Bytes> {
        let size = blobs::stored_size(&self.db, hash)?;
        blobs::read(&self.db, hash, 0, size).filter(|bytes| BlobHash::of(bytes) == hash)
    }
}

/// Whether a running process has the store open: RocksDB locks this file then.
fn is_locked(path: &Path) -> bool {
    use rustix::fs::{FlockOperation, fcntl_lock};
    let Ok(file) = std::fs::File::open(path.join("LOCK")) else { return false };
    fcntl_lock(&file, FlockOperation::NonBlockingLockShared)
        .is_err_and(|error| error == rustix::io::Errno::AGAIN || error == rustix::io::Errno::ACCESS)
}
