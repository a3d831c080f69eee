//! Bodies. Under the bare hash lies a record: the whole body if it came in one piece, else its size and number of
//! chunks. The record is written with the last missing chunk, so a body is here if and only if its record is.

use bytes::{Bytes, BytesMut};
use rocksdb::{DB, WriteBatch};
use vocab::limits::{BLOB_CHUNK_BYTES, SMALL_BODY_MAX};
use vocab::rows::prefix_end;
use vocab::{BlobHash, Damaged};

use crate::disk::Disk;
use crate::snapshot::damaged;
use crate::{families, keys};

/// First byte of a record that holds the body itself.
const WHOLE: u8 = 1;
/// First byte of a record that holds size and number of chunks.
const CHUNKED: u8 = 2;

/// What lies under the bare hash.
enum Record<'a> {
    Whole(&'a [u8]),
    Chunked { total: u64 },
}

/// Value of a record with the whole body.
pub(crate) fn whole_record(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 + body.len());
    out.push(WHOLE);
    out.extend(body);
    out
}

/// Value of a record of a body in chunks.
pub(crate) fn chunked_record(total: u64) -> Vec<u8> {
    let mut out = vec![CHUNKED];
    out.extend(total.to_be_bytes());
    out
}

/// Writes a whole body, over whatever is there.
pub(crate) fn put_whole(db: &DB, batch: &mut WriteBatch, hash: BlobHash, bytes: &[u8]) {
    let family = families::family(db, families::BLOBS);
    if bytes.len() <= SMALL_BODY_MAX {
        batch.put_cf(family, hash.0, whole_record(bytes));
        return;
    }
    for (index, chunk) in (0u32..).zip(bytes.chunks(BLOB_CHUNK_BYTES)) {
        batch.put_cf(family, keys::chunk(hash, index), chunk);
    }
    batch.put_cf(family, hash.0, chunked_record(bytes.len() as u64));
}

fn parse(record: &[u8]) -> Option<Record<'_>> {
    match record.split_first()? {
        (&WHOLE, body) => Some(Record::Whole(body)),
        (&CHUNKED, total) => Some(Record::Chunked { total: u64::from_be_bytes(total.try_into().ok()?) }),
        _ => None,
    }
}

/// Chunks of a body of `total` bytes; an empty body has one empty chunk.
pub(crate) fn chunk_count(total: u64) -> u32 {
    u32::try_from(total.div_ceil(BLOB_CHUNK_BYTES as u64).max(1)).unwrap_or(u32::MAX)
}

/// Calls `see` with the record of the body if it is here.
fn with_record<T>(db: &DB, hash: BlobHash, see: impl FnOnce(Record<'_>) -> T) -> Option<T> {
    match db.get_pinned_cf(families::family(db, families::BLOBS), hash.0) {
        Ok(Some(record)) => match parse(&record) {
            Some(record) => Some(see(record)),
            None => {
                tracing::error!(%hash, "record of a body cannot be understood");
                None
            }
        },
        Ok(None) => None,
        Err(error) => {
            tracing::error!(%hash, %error, "body cannot be read");
            None
        }
    }
}

/// Number of chunks under (hash, number); 0 for a body kept whole, `None` when the body is not here.
pub(crate) fn stored_chunks(db: &DB, hash: BlobHash) -> Option<u32> {
    with_record(db, hash, |record| match record {
        Record::Whole(_) => 0,
        Record::Chunked { total } => chunk_count(total),
    })
}

/// Size of the body if it is here, for whoever only counts.
pub(crate) fn stored_size(db: &DB, hash: BlobHash) -> Option<u64> {
    with_record(db, hash, |record| match record {
        Record::Whole(body) => body.len() as u64,
        Record::Chunked { total } => total,
    })
}

/// Size of the body if it is here. Whoever asks for a body without references may be about to name it, so the sweep
/// leaves it alone from then on.
pub(crate) fn size(disk: &Disk, hash: BlobHash) -> Option<u64> {
    let size = stored_size(&disk.db, hash)?;
    let orphans = families::family(&disk.db, families::ORPHANS);
    if disk.db.get_pinned_cf(orphans, hash.0).is_ok_and(|found| found.is_some()) {
        disk.asked().insert(hash, disk.now_ms());
        // The sweep may have run between the two reads; it looks at the list before it deletes.
        return with_record(&disk.db, hash, |_| size);
    }
    Some(size)
}

/// Bytes `from..to` of the body, cut at its end.
pub(crate) fn read(db: &DB, hash: BlobHash, from: u64, to: u64) -> Option<Bytes> {
    let cut = |body: &[u8], from: u64, to: u64| {
        let to = usize::try_from(to).unwrap_or(usize::MAX).min(body.len());
        let from = usize::try_from(from).unwrap_or(usize::MAX).min(to);
        Bytes::copy_from_slice(body.get(from..to).unwrap_or_default())
    };
    let (ready, total) = with_record(db, hash, |record| match record {
        Record::Whole(body) => (Some(cut(body, from, to)), body.len() as u64),
        Record::Chunked { total } => (None, total),
    })?;
    if ready.is_some() {
        return ready;
    }
    let (to, size) = (to.min(total), BLOB_CHUNK_BYTES as u64);
    let mut out = BytesMut::with_capacity(usize::try_from(to.saturating_sub(from)).unwrap_or(0));
    let mut at = from;
    while at < to {
        let index = u32::try_from(at / size).ok()?;
        let start = u64::from(index) * size;
        let chunk = match db.get_pinned_cf(families::family(db, families::BLOBS), keys::chunk(hash, index)) {
            Ok(Some(chunk)) if chunk.len() as u64 == size.min(total - start) => chunk,
            Ok(_) => {
                tracing::error!(%hash, index, "chunk of a body is missing or too short");
                return None;
            }
            Err(error) => {
                tracing::error!(%hash, index, %error, "chunk of a body cannot be read");
                return None;
            }
        };
        out.extend(cut(&chunk, at - start, to - start));
        at = start + size;
    }
    Some(out.freeze())
}

/// Bodies with references, ascending, behind `after`.
pub(crate) fn named(db: &DB, after: Option<BlobHash>, limit: usize) -> Result<Vec<BlobHash>, Damaged> {
    let mut refs = db.raw_iterator_cf(families::family(db, families::BLOB_REFS));
    let seek_behind = |refs: &mut rocksdb::DBRawIterator<'_>, hash: BlobHash| match prefix_end(&hash.0) {
        Some(end) => refs.seek(end),
        // Nothing is behind the greatest hash.
        None => refs.seek([u8::MAX; keys::REF_BYTES + 1]),
    };
    match after {
        Some(hash) => seek_behind(&mut refs, hash),
        None => refs.seek_to_first(),
    }
    let mut found = Vec::new();
    while let Some(key) = refs.key().filter(|_| found.len() < limit) {
        let (hash, ..) = keys::ref_owner(key).ok_or_else(|| Damaged("reference to a body".into()))?;
        found.push(hash);
        seek_behind(&mut refs, hash);
    }
    refs.status().map_err(|error| damaged(&error))?;
    Ok(found)
}

/// Whether every byte of the body is here and its BLAKE3 is its name. Reads all of it.
pub(crate) fn verify(db: &DB, hash: BlobHash) -> bool {
    let mut hasher = blake3::Hasher::new();
    let mut at = 0;
    loop {
        match read(db, hash, at, at + BLOB_CHUNK_BYTES as u64) {
            None => return false,
            Some(bytes) if bytes.is_empty() => return *hasher.finalize().as_bytes() == hash.0,
            Some(bytes) => {
                hasher.update(&bytes);
                at += bytes.len() as u64;
            }
        }
    }
}
