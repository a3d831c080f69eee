//! The format of the folder: a record that is checked before anything else is read. Unknown formats are refused, never
//! guessed.

use std::path::Path;

use rocksdb::{DB, IteratorMode, Options, WriteBatch, WriteOptions};

use crate::options::OpenError;
use crate::{families, keys};

/// The only format this release reads and writes.
pub const FORMAT_VERSION: &[u8] = b"twinpost-store-2";

/// Refuses a folder with families this release does not know, before RocksDB touches it.
pub(crate) fn check_families(path: &Path) -> Result<(), OpenError> {
    if !path.join("CURRENT").exists() {
        return Ok(());
    }
    let found = DB::list_cf(&Options::default(), path).map_err(|error| open_error(path, &error))?;
    let strange = |name: &&String| *name != "default" && !families::ALL.contains(&name.as_str());
    match found.iter().find(strange) {
        Some(name) => Err(OpenError::Format { path: path.to_owned(), found: format!("family {name}") }),
        None => Ok(()),
    }
}

/// Checks the record, or writes it into a folder that holds nothing yet.
pub(crate) fn check_record(db: &DB, path: &Path) -> Result<(), OpenError> {
    let meta = families::family(db, families::META);
    match db.get_cf(meta, keys::FORMAT).map_err(|error| open_error(path, &error))? {
        Some(found) if found == FORMAT_VERSION => Ok(()),
        Some(found) => Err(OpenError::Format {
            path: path.to_owned(),
            found: String::from_utf8_lossy(&found).escape_default().to_string(),
        }),
        None if is_empty(db, path)? => {
            let mut batch = WriteBatch::default();
            batch.put_cf(meta, keys::FORMAT, FORMAT_VERSION);
            let mut synced = WriteOptions::default();
            synced.set_sync(true);
            db.write_opt(batch, &synced).map_err(|error| open_error(path, &error))
        }
        None => Err(OpenError::Format { path: path.to_owned(), found: "no format record".into() }),
    }
}

fn is_empty(db: &DB, path: &Path) -> Result<bool, OpenError> {
    for name in families::ALL {
        if let Some(item) = db.iterator_cf(families::family(db, name), IteratorMode::Start).next() {
            item.map_err(|error| open_error(path, &error))?;
            return Ok(false);
        }
    }
    Ok(true)
}

/// Sorts RocksDB's error by what the operator does next.
pub(crate) fn open_error(path: &Path, error: &rocksdb::Error) -> OpenError {
    let (path, what) = (path.to_owned(), error.to_string());
    match error.kind() {
        rocksdb::ErrorKind::Corruption => OpenError::Damaged { path, what },
        _ if what.contains("While lock file") || what.contains("lock hold by") => OpenError::InUse(path),
        _ => OpenError::System { path, what },
    }
}
