//! Large bodies that arrive in chunks: collected in memory, checked against their name, written by one synced write.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use vocab::limits::{BLOB_CHUNK_BYTES, MESSAGE_SIZE_MAX};
use vocab::{BlobHash, NodeId};

/// A body whose next chunk does not come is forgotten.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// Bytes of all bodies that are being collected.
const COLLECTED_BYTES_MAX: u64 = 4 * MESSAGE_SIZE_MAX as u64;

struct Part {
    total: u64,
    chunks: BTreeMap<u32, Bytes>,
    used: Instant,
}

/// What came of a chunk.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Collected {
    /// More to come.
    Waits,
    /// The whole body; its hash is its name.
    Whole(Bytes),
    /// Makes no sense, or the body has another hash.
    Wrong,
    /// Too many at once.
    Busy,
}

/// Bodies that are being collected, by sender.
#[derive(Default)]
pub(crate) struct Collector {
    parts: Mutex<HashMap<(NodeId, BlobHash), Part>>,
}

impl Collector {
    pub(crate) fn add(&self, from: NodeId, hash: BlobHash, (index, total): (u32, u64), chunk: Bytes) -> Collected {
        let size = BLOB_CHUNK_BYTES as u64;
        let start = u64::from(index) * size;
        let fits = total <= MESSAGE_SIZE_MAX as u64 && start < total && chunk.len() as u64 == size.min(total - start);
        if !fits {
            return Collected::Wrong;
        }
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        parts.retain(|_, part| part.used.elapsed() < IDLE_MAX);
        let held: u64 = parts.values().map(|part| part.total).sum();
        if !parts.contains_key(&(from, hash)) && held.saturating_add(total) > COLLECTED_BYTES_MAX {
            return Collected::Busy;
        }
        let new = || Part { total, chunks: BTreeMap::new(), used: Instant::now() };
        let part = parts.entry((from, hash)).or_insert_with(new);
        if part.total != total {
            return Collected::Wrong;
        }
        part.used = Instant::now();
        part.chunks.insert(index, chunk);
        if (part.chunks.len() as u64) < total.div_ceil(size) {
            return Collected::Waits;
        }
        let Some(part) = parts.remove(&(from, hash)) else { return Collected::Waits };
        drop(parts);
        let mut body = BytesMut::with_capacity(usize::try_from(total).unwrap_or(0));
        part.chunks.values().for_each(|chunk| body.extend_from_slice(chunk));
        let body = body.freeze();
        if BlobHash::of(&body) == hash { Collected::Whole(body) } else { Collected::Wrong }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_whole_with_its_last_chunk_and_its_own_hash() {
        let body = Bytes::from(vec![7u8; BLOB_CHUNK_BYTES + 10]);
        let (first, rest) = (body.slice(..BLOB_CHUNK_BYTES), body.slice(BLOB_CHUNK_BYTES..));
        let (hash, total) = (BlobHash::of(&body), body.len() as u64);
        let collector = Collector::default();
        assert_eq!(collector.add(NodeId(2), hash, (1, total), rest.clone()), Collected::Waits);
        assert_eq!(collector.add(NodeId(2), hash, (0, total), first.clone()), Collected::Whole(body));
        let other = BlobHash::of(b"other");
        assert_eq!(collector.add(NodeId(2), other, (0, total), first.clone()), Collected::Waits);
        assert_eq!(collector.add(NodeId(2), other, (1, total), rest), Collected::Wrong);
        assert_eq!(collector.add(NodeId(2), hash, (2, total), first), Collected::Wrong);
    }
}
