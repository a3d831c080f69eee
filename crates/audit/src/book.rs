//! The log's database: records by time, found by id, by what they name and by the order in which they came. All writes go
//! through one lock; a write is durable when it returns only where it says so.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use rocksdb::{ColumnFamily, ColumnFamilyDescriptor, DB, Direction, IteratorMode, Options, WriteBatch, WriteOptions};
use vocab::NodeId;
use vocab::log::{Entry, Record};

use crate::keys::{self, CLASSES, Class, Key};

/// Memory of one unflushed buffer (bytes).
const BUFFER_BYTES: usize = 8 * 1024 * 1024;
/// Log of RocksDB kept before buffers are flushed (bytes).
const WAL_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Why the log cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the log in {path}: {what}")]
pub struct LogError {
    /// Its folder.
    pub path: std::path::PathBuf,
    /// In words.
    pub what: String,
}

/// A record to be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Numbered {
    /// Node that made it.
    pub node: NodeId,
    /// Its number there.
    pub number: u64,
    /// Of a record that a commit wrote; empty otherwise.
    pub id: Bytes,
    /// [`Record`].
    pub bytes: Bytes,
}

/// A record that is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Kept {
    pub(crate) key: Key,
    /// When it came here, as a number.
    pub arrival: u64,
    /// As in [`Numbered`].
    pub id: Bytes,
    /// As it was written.
    pub bytes: Bytes,
}

impl Kept {
    /// What it is known by on every node.
    #[must_use]
    pub fn name(&self) -> Bytes {
        if self.id.is_empty() { Bytes::copy_from_slice(&self.key.to_bytes()) } else { self.id.clone() }
    }

    /// When it was made (Unix ms).
    #[must_use]
    pub const fn at(&self) -> u64 {
        self.key.at
    }

    /// As it is shipped.
    #[must_use]
    pub fn numbered(&self) -> Numbered {
        Numbered { node: self.key.node, number: self.key.number, id: self.id.clone(), bytes: self.bytes.clone() }
    }
}

/// Numbers that change with every write.
#[derive(Clone, Copy, Debug, Default)]
struct Counters {
    number: u64,
    arrival: u64,
    counts: [u64; 2],
}

/// The log of one node.
pub struct Book {
    db: DB,
    path: std::path::PathBuf,
    node: NodeId,
    name: Bytes,
    counters: Mutex<Counters>,
    /// See [`Book::vouch`].
    pub(crate) vouches: Mutex<u64>,
}

fn value_of(arrival: u64, record: &Numbered) -> Option<Vec<u8>> {
    let length = u16::try_from(record.id.len()).ok()?;
    Some([&arrival.to_be_bytes()[..], &length.to_be_bytes(), &*record.id, &*record.bytes].concat())
}

fn kept(key: &[u8], value: &[u8]) -> Option<Kept> {
    let (arrival, rest) = value.split_first_chunk::<8>()?;
    let (length, rest) = rest.split_first_chunk::<2>()?;
    let (id, bytes) = rest.split_at_checked(u16::from_be_bytes(*length).into())?;
    let (id, bytes) = (Bytes::copy_from_slice(id), Bytes::copy_from_slice(bytes));
    Some(Kept { key: Key::from_bytes(key)?, arrival: u64::from_be_bytes(*arrival), id, bytes })
}

/// What a record can be found by.
fn terms(record: &Record) -> Vec<[u8; 8]> {
    let texts: Vec<&String> = match &record.entry {
        Some(Entry::Mail(mail)) => {
            vec![&mail.sender, &mail.recipient, &mail.original, &mail.accept, &mail.message_id, &mail.user]
        }
        Some(Entry::Security(found)) => vec![&found.sender, &found.recipient],
        Some(Entry::Access(access)) => vec![&access.user],
        Some(Entry::Admin(admin)) => vec![&admin.user],
        Some(Entry::Cluster(_) | Entry::Protocol(_)) | None => Vec::new(),
    };
    let mut terms: Vec<_> = texts.into_iter().filter(|text| !text.is_empty()).map(|text| keys::term(text)).collect();
    terms.sort_unstable();
    terms.dedup();
    terms
}

fn class_of(record: &Record) -> Class {
    if matches!(record.entry, Some(Entry::Protocol(_))) { Class::Protocol } else { Class::Main }
}

fn number(bytes: &[u8]) -> u64 {
    bytes.first_chunk::<8>().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

impl Book {
    /// Opens or founds the log in a folder.
    ///
    /// # Errors
    /// The folder cannot be used; the text says why. Mail does not depend on it.
    pub fn open(path: &Path, node: NodeId) -> Result<Self, LogError> {
        let failed = |error: rocksdb::Error| LogError { path: path.to_owned(), what: error.to_string() };
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        options.set_max_total_wal_size(WAL_BYTES_MAX);
        options.set_max_open_files(128);
        options.set_max_background_jobs(2);
        options.set_keep_log_file_num(2);
        options.set_stats_dump_period_sec(0);
        let family = |name: &&str| {
            let mut options = Options::default();
            options.set_write_buffer_size(BUFFER_BYTES);
            options.set_compression_type(rocksdb::DBCompressionType::Zstd);
            // What was shipped or has grown old leaves from the front.
            options.add_compact_on_deletion_collector_factory(4096, 1024, 0.0);
            ColumnFamilyDescriptor::new(*name, options)
        };
        let db = DB::open_cf_descriptors(&options, path, keys::ALL.iter().map(family)).map_err(failed)?;
        let mut book = Self {
            db,
            path: path.to_owned(),
            node,
            name: Bytes::new(),
            counters: Mutex::default(),
            vouches: Mutex::default(),
        };
        let read = |key: &[u8]| book.db.get_cf(book.family(keys::META), key).map_err(failed);
        let counts = read(keys::COUNTS)?.unwrap_or_default();
        let counters = Counters {
            number: read(keys::NUMBER)?.map_or(1, |bytes| number(&bytes)),
            arrival: read(keys::ARRIVAL)?.map_or(1, |bytes| number(&bytes)),
            counts: [number(&counts), counts.get(8..).map_or(0, number)],
        };
        let name = read(keys::NAME)?;
        book.counters = Mutex::new(counters);
        book.name = match name {
            Some(name) => name.into(),
            None => {
                let name: [u8; 16] = rand::random();
                let mut batch = WriteBatch::default();
                batch.put_cf(book.family(keys::META), keys::NAME, name);
                book.write(batch, true).map_err(|what| LogError { path: path.to_owned(), what })?;
                Bytes::copy_from_slice(&name)
            }
        };
        Ok(book)
    }

    /// Name of this log: one that was lost and founded anew has another.
    #[must_use]
    pub fn name(&self) -> Bytes {
        self.name.clone()
    }

    /// Its folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn family(&self, name: &str) -> &ColumnFamily {
        self.db.cf_handle(name).expect("opened with every family")
    }

    pub(crate) fn db(&self) -> &DB {
        &self.db
    }

    fn counters(&self) -> MutexGuard<'_, Counters> {
        self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self, batch: WriteBatch, synced: bool) -> Result<(), String> {
        let mut options = WriteOptions::default();
        options.set_sync(synced);
        self.db.write_opt(batch, &options).map_err(|error| error.to_string())
    }

    /// Records of each class.
    #[must_use]
    pub fn counts(&self) -> [u64; 2] {
        self.counters().counts
    }

    /// Bytes of all of them on disk, about.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let size = |name: &&str| {
            let property = self.db.property_int_value_cf(self.family(name), "rocksdb.total-sst-files-size");
            property.ok().flatten().unwrap_or_default()
        };
        keys::ALL.iter().map(size).sum()
    }

    /// The next arrival: everything here came before it.
    #[must_use]
    pub fn arrival(&self) -> u64 {
        self.counters().arrival
    }

    /// Keeps records of this node, and numbers them; durable when it returns. Those that are here already are passed over.
    ///
    /// # Errors
    /// The disk: nothing was kept.
    pub fn keep_own(&self, records: Vec<(Bytes, Bytes)>) -> Result<(), String> {
        let mut counters = self.counters();
        let first = counters.number;
        let numbered = (first..).zip(records);
        let records: Vec<Numbered> =
            numbered.map(|(number, (id, bytes))| Numbered { node: self.node, number, id, bytes }).collect();
        let next = first + records.len() as u64;
        self.keep_under(&mut counters, next, &records)
    }

    /// Keeps records of other nodes; durable when it returns. Those that are here already are passed over.
    ///
    /// # Errors
    /// The disk: nothing was kept.
    pub fn keep(&self, records: &[Numbered]) -> Result<(), String> {
        let mut counters = self.counters();
        let next = counters.number;
        self.keep_under(&mut counters, next, records)
    }

    fn keep_under(&self, counters: &mut Counters, next: u64, records: &[Numbered]) -> Result<(), String> {
        let (mut after, mut batch) = (Counters { number: next, ..*counters }, WriteBatch::default());
        let mut names = std::collections::HashSet::new();
        for record in records {
            // What is no record of this program's form is kept all the same, as one without a time.
            let read = Record::from_bytes(&record.bytes).unwrap_or_default();
            let key = Key { class: class_of(&read), at: read.at, node: record.node, number: record.number };
            let bytes = key.to_bytes();
            let name = if record.id.is_empty() { Bytes::copy_from_slice(&bytes) } else { record.id.clone() };
            if self.has(&name)? || !names.insert(name) {
                continue;
            }
            let Some(value) = value_of(after.arrival, record) else { continue };
            batch.put_cf(self.family(keys::LOG), bytes, value);
            batch.put_cf(self.family(keys::ARRIVALS), after.arrival.to_be_bytes(), bytes);
            if !record.id.is_empty() {
                batch.put_cf(self.family(keys::IDS), &record.id, bytes);
            }
            for term in terms(&read) {
                batch.put_cf(self.family(keys::TERMS), [&term[..], &bytes].concat(), b"");
            }
            after.arrival += 1;
            if let Some(count) = after.counts.get_mut(key.class as usize) {
                *count += 1;
            }
        }
        self.count(&mut batch, &after);
        self.write(batch, true)?;
        *counters = after;
        Ok(())
    }

    fn has(&self, name: &[u8]) -> Result<bool, String> {
        let family = if name.len() == keys::KEY_BYTES { keys::LOG } else { keys::IDS };
        let found = self.db.get_pinned_cf(self.family(family), name);
        found.map(|found| found.is_some()).map_err(|error| error.to_string())
    }

    /// Which of these records, by [`Kept::name`], are not here, by index.
    ///
    /// # Errors
    /// The disk.
    pub fn lacking(&self, names: &[Bytes]) -> Result<Vec<u32>, String> {
        let mut lacking = Vec::new();
        for (index, name) in (0..).zip(names) {
            if !self.has(name)? {
                lacking.push(index);
            }
        }
        Ok(lacking)
    }

    fn count(&self, batch: &mut WriteBatch, counters: &Counters) {
        let meta = self.family(keys::META);
        batch.put_cf(meta, keys::NUMBER, counters.number.to_be_bytes());
        batch.put_cf(meta, keys::ARRIVAL, counters.arrival.to_be_bytes());
        let counts: Vec<u8> = counters.counts.iter().flat_map(|count| count.to_be_bytes()).collect();
        batch.put_cf(meta, keys::COUNTS, counts);
    }

    /// The next records in the order they came, from this arrival on.
    ///
    /// # Errors
    /// The disk.
    pub fn from_arrival(&self, arrival: u64, limit: usize) -> Result<Vec<Kept>, String> {
        let from = arrival.to_be_bytes();
        let mode = IteratorMode::From(&from, Direction::Forward);
        let mut found = Vec::new();
        for item in self.db.iterator_cf(self.family(keys::ARRIVALS), mode).take(limit) {
            let (_, key) = item.map_err(|error| error.to_string())?;
            let value = self.db.get_pinned_cf(self.family(keys::LOG), &key).map_err(|error| error.to_string())?;
            found.extend(value.and_then(|value| kept(&key, &value)));
        }
        Ok(found)
    }

    /// The record under a key.
    pub(crate) fn at(&self, key: &[u8]) -> Result<Option<Kept>, String> {
        let value = self.db.get_pinned_cf(self.family(keys::LOG), key).map_err(|error| error.to_string())?;
        Ok(value.and_then(|value| kept(key, &value)))
    }

    pub(crate) fn kept(key: &[u8], value: &[u8]) -> Option<Kept> {
        kept(key, value)
    }

    /// Takes records out again: the primary has them, or they have grown old.
    ///
    /// # Errors
    /// The disk: nothing was taken out.
    pub fn drop_records(&self, records: &[Kept]) -> Result<(), String> {
        if records.is_empty() {
            return Ok(());
        }
        let mut counters = self.counters();
        let (mut after, mut batch) = (*counters, WriteBatch::default());
        for record in records {
            let bytes = record.key.to_bytes();
            // Somebody else may have been quicker.
            if self.at(&bytes)?.is_none() {
                continue;
            }
            batch.delete_cf(self.family(keys::LOG), bytes);
            batch.delete_cf(self.family(keys::ARRIVALS), record.arrival.to_be_bytes());
            if !record.id.is_empty() {
                batch.delete_cf(self.family(keys::IDS), &record.id);
            }
            for term in terms(&Record::from_bytes(&record.bytes).unwrap_or_default()) {
                batch.delete_cf(self.family(keys::TERMS), [&term[..], &bytes].concat());
            }
            if let Some(count) = after.counts.get_mut(record.key.class as usize) {
                *count = count.saturating_sub(1);
            }
        }
        self.count(&mut batch, &after);
        self.write(batch, false)?;
        *counters = after;
        Ok(())
    }

    /// The oldest records of a class.
    ///
    /// # Errors
    /// The disk.
    pub fn oldest(&self, class: Class, limit: usize) -> Result<Vec<Kept>, String> {
        let from = [class as u8];
        let mode = IteratorMode::From(&from, Direction::Forward);
        let mut found = Vec::new();
        for item in self.db.iterator_cf(self.family(keys::LOG), mode).take(limit) {
            let (key, value) = item.map_err(|error| error.to_string())?;
            match kept(&key, &value) {
                Some(record) if record.key.class == class => found.push(record),
                Some(_) => break,
                None => {}
            }
        }
        Ok(found)
    }

    /// The arrival up to which a destination has everything; `None`: it was never asked for.
    ///
    /// # Errors
    /// The disk.
    pub fn cursor(&self, destination: &str) -> Result<Option<u64>, String> {
        let key = [keys::CURSOR, destination.as_bytes()].concat();
        let found = self.db.get_cf(self.family(keys::META), key).map_err(|error| error.to_string())?;
        Ok(found.map(|bytes| number(&bytes)))
    }

    /// Records a destination has not taken yet, the oldest first, `limit` at most, and where they begin. One that was not
    /// known begins with what comes from now on.
    ///
    /// # Errors
    /// The disk.
    pub fn waiting_for(&self, destination: &str, limit: usize) -> Result<(u64, Vec<Kept>), String> {
        let from = match self.cursor(destination)? {
            Some(from) => from,
            None => {
                let from = self.arrival();
                self.set_cursor(destination, Some(from))?;
                from
            }
        };
        Ok((from, self.from_arrival(from, limit)?))
    }

    /// Remembers it; `None` forgets the destination.
    ///
    /// # Errors
    /// The disk.
    pub fn set_cursor(&self, destination: &str, arrival: Option<u64>) -> Result<(), String> {
        let (key, mut batch) = ([keys::CURSOR, destination.as_bytes()].concat(), WriteBatch::default());
        let meta = self.family(keys::META);
        match arrival {
            Some(arrival) => batch.put_cf(meta, key, arrival.to_be_bytes()),
            None => batch.delete_cf(meta, key),
        }
        self.write(batch, false)
    }

    pub(crate) fn read_meta(&self, key: &[u8]) -> Result<Option<Vec<u8>>, String> {
        self.db.get_cf(self.family(keys::META), key).map_err(|error| error.to_string())
    }

    pub(crate) fn write_meta(&self, key: &[u8], value: &[u8], synced: bool) -> Result<(), String> {
        let mut batch = WriteBatch::default();
        batch.put_cf(self.family(keys::META), key, value);
        self.write(batch, synced)
    }

    /// Classes and what of them is here.
    #[must_use]
    pub fn by_class(&self) -> Vec<(Class, u64)> {
        CLASSES.into_iter().zip(self.counts()).collect()
    }
}
