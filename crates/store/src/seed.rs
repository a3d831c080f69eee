//! A new node's store, seeded with accounts and bodies of another node's checkpoint. Only what is whole is taken over:
//! rows whose digest is that of their head, bodies whose hash is their name. What identifies the other node - its records,
//! version chains, archived branches - is not copied, and no account has a state afterwards: the first sync gives it one,
//! and takes from the seed what it would transfer anyway.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use rocksdb::{DB, WriteBatch, WriteOptions};
use vocab::{AccountId, BlobHash, BlobRef, Damaged, RowWrite, Rows};

use crate::foreign::Foreign;
use crate::options::OpenError;
use crate::snapshot::{encode_head, export};
use crate::{blobs, families, format, keys};

/// Generation of every seed.
const GENERATION: u32 = 1;
/// Rows and references written at once (bytes, about).
const WRITE_BYTES: usize = 4 * 1024 * 1024;

/// What the store does not know of a row.
#[derive(Clone, Copy)]
pub struct RowRules {
    /// What it adds to the digest of its account.
    pub digest: fn(&RowWrite) -> u128,
    /// The body it names.
    pub blob_ref: fn(&RowWrite) -> Option<BlobRef>,
}

/// A seeded store in the making; a store only after [`SeedWriter::finish`].
pub struct SeedWriter {
    db: DB,
    path: PathBuf,
}

impl SeedWriter {
    /// Begins in folder `path`, which must not exist.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn create(path: &Path) -> Result<Self, OpenError> {
        if path.exists() {
            return Err(OpenError::System { path: path.to_owned(), what: "it exists already".into() });
        }
        let descriptors = families::descriptors(crate::BLOCK_CACHE_BYTES);
        let db = DB::open_cf_descriptors(&families::database_options(), path, descriptors);
        let db = db.map_err(|error| format::open_error(path, &error))?;
        Ok(Self { db, path: path.to_owned() })
    }

    /// Copies the rows of an account; gives the bodies they name. `Err` inside: they are not what the head says, and
    /// nothing of them stays.
    ///
    /// # Errors
    /// [`OpenError`]: the new store cannot be written.
    pub fn put_account(
        &self,
        account: AccountId,
        rows: &dyn Rows,
        rules: RowRules,
    ) -> Result<Result<BTreeSet<BlobHash>, Damaged>, OpenError> {
        let head = rows.head();
        let copied = match self.copy_rows(account, rows, rules)? {
            Ok((digest, refs)) if digest == head.digest => Ok(refs),
            Ok(_) => Err(Damaged("its digest is not that of its rows".into())),
            Err(damaged) => Err(damaged),
        };
        let mut batch = WriteBatch::default();
        let refs = match copied {
            Ok(refs) => refs,
            Err(damaged) => {
                let (from, to) = (keys::generation(account, GENERATION), keys::generation(account, GENERATION + 1));
                batch.delete_range_cf(families::family(&self.db, families::ROWS), from, to);
                batch.delete_range_cf(families::family(&self.db, families::OUTCOMES), from, to);
                self.write(batch)?;
                return Ok(Err(damaged));
            }
        };
        for reference in &refs {
            let key = keys::blob_ref(reference.hash, account, GENERATION, reference.placement);
            batch.put_cf(families::family(&self.db, families::BLOB_REFS), key, []);
        }
        let meta = families::family(&self.db, families::META);
        batch.put_cf(meta, keys::seed(account), encode_head(GENERATION, &head));
        self.write(batch)?;
        Ok(Ok(refs.iter().map(|reference| reference.hash).collect()))
    }

    fn copy_rows(
        &self,
        account: AccountId,
        rows: &dyn Rows,
        rules: RowRules,
    ) -> Result<Result<(u128, Vec<BlobRef>), Damaged>, OpenError> {
        let (mut digest, mut refs, mut after) = (0u128, Vec::new(), None);
        loop {
            let part = match export(rows, after.take(), WRITE_BYTES) {
                Ok(part) => part,
                Err(damaged) => return Ok(Err(damaged)),
            };
            let Some(last) = part.last() else { return Ok(Ok((digest, refs))) };
            after = Some((last.table.0, last.key.clone()));
            let mut batch = WriteBatch::default();
            for row in &part {
                digest = digest.wrapping_add((rules.digest)(row));
                refs.extend((rules.blob_ref)(row));
                let key = keys::row(account, GENERATION, row.table, &row.key);
                let value = row.value.as_deref().unwrap_or_default();
                batch.put_cf(families::of_table(&self.db, row.table), key, value);
            }
            self.write(batch)?;
        }
    }

    /// Copies a body; false when the checkpoint has no sound copy of it.
    ///
    /// # Errors
    /// [`OpenError`]: the new store cannot be written.
    pub fn put_body(&self, from: &Foreign, hash: BlobHash) -> Result<bool, OpenError> {
        if blobs::stored_size(&self.db, hash).is_some() {
            return Ok(true);
        }
        let Some(bytes) = from.body(hash) else { return Ok(false) };
        let mut batch = WriteBatch::default();
        blobs::put_whole(&self.db, &mut batch, hash, &bytes);
        self.write(batch)?;
        Ok(true)
    }

    /// Makes a store of it: everything is on disk when this returns.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn finish(self) -> Result<(), OpenError> {
        let failed = |error: rocksdb::Error| format::open_error(&self.path, &error);
        for name in families::ALL {
            self.db.flush_cf(families::family(&self.db, name)).map_err(failed)?;
        }
        // Last: without it the folder is not opened.
        let mut synced = WriteOptions::default();
        synced.set_sync(true);
        let meta = families::family(&self.db, families::META);
        self.db.put_cf_opt(meta, keys::FORMAT, format::FORMAT_VERSION, &synced).map_err(failed)
    }

    fn write(&self, batch: WriteBatch) -> Result<(), OpenError> {
        // The flush at the end makes it durable.
        let mut unlogged = WriteOptions::default();
        unlogged.disable_wal(true);
        self.db.write_opt(batch, &unlogged).map_err(|error| format::open_error(&self.path, &error))
    }
}
