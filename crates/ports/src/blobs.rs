//! Bodies by hash.

use bytes::Bytes;
use vocab::{BlobHash, SubmitError};

use crate::Answer;

/// Stored bodies.
pub trait Blobs: Send + Sync {
    /// Makes a body durable on the home and the backups before a change may name it. Bodies up to `SMALL_BODY_MAX`
    /// are not durable yet on return: they travel inside the batch.
    ///
    /// # Errors
    /// Unavailable: try again later (452 4.3.1 for space, 451 4.3.2 else).
    fn put(&self, body: Bytes) -> Answer<'_, Result<BlobHash, SubmitError>>;
    /// Bytes `from..to` of a body (`to` is cut at its end).
    ///
    /// # Errors
    /// Unavailable when it is not on this node and cannot be fetched from the peer.
    fn get(&self, hash: BlobHash, from: u64, to: u64) -> Answer<'_, Result<Bytes, SubmitError>>;
}
