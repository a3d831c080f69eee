//! Bodies: durable on the home and the backups before a change names them; small ones travel inside the batch.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use ports::Answer;
use ports::blobs::Blobs;
use vocab::limits::SMALL_BODY_MAX;
use vocab::{BlobHash, InlineBody, SubmitError};

use crate::engine::Engine;

/// How long a small body waits for the change that names it.
const SMALL_BODY_WAIT: Duration = Duration::from_secs(60);
/// Small bodies that may wait at once (bytes); above it the oldest go.
const SMALL_BODIES_MAX_BYTES: usize = 64 * 1024 * 1024;

/// Small bodies between `put` and the operation that names them.
#[derive(Default)]
pub(crate) struct SmallBodies {
    inner: Mutex<Small>,
}

#[derive(Default)]
struct Small {
    bodies: HashMap<BlobHash, (Bytes, Instant)>,
    bytes: usize,
}

impl SmallBodies {
    fn keep(&self, hash: BlobHash, body: Bytes) {
        let mut small = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        small.bytes += body.len();
        if let Some((old, _)) = small.bodies.insert(hash, (body, now)) {
            small.bytes -= old.len();
        }
        while small.bytes > SMALL_BODIES_MAX_BYTES {
            let Some(oldest) = small.bodies.iter().min_by_key(|(_, (_, at))| *at).map(|(h, _)| *h) else { break };
            if let Some((old, _)) = small.bodies.remove(&oldest) {
                small.bytes -= old.len();
            }
        }
    }
    /// The bodies among these hashes that wait here.
    pub(crate) fn find(&self, hashes: impl Iterator<Item = BlobHash>) -> Vec<InlineBody> {
        let small = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        hashes.filter_map(|hash| small.bodies.get(&hash).map(|(b, _)| InlineBody { hash, bytes: b.clone() })).collect()
    }
    /// The change that names them is committed: they are on the disk.
    pub(crate) fn forget(&self, bodies: &[InlineBody]) {
        let mut small = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        for body in bodies {
            if let Some((old, _)) = small.bodies.remove(&body.hash) {
                small.bytes -= old.len();
            }
        }
    }
    /// Forgets what nobody asked for in time.
    pub(crate) fn sweep(&self) {
        let mut small = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        small.bodies.retain(|_, (_, at)| at.elapsed() < SMALL_BODY_WAIT);
        small.bytes = small.bodies.values().map(|(b, _)| b.len()).sum();
    }
    fn get(&self, hash: BlobHash) -> Option<Bytes> {
        let small = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        small.bodies.get(&hash).map(|(b, _)| b.clone())
    }
}

/// [`Blobs`] over the engine.
pub struct EngineBlobs(pub(crate) Arc<Engine>);

impl Blobs for EngineBlobs {
    fn put(&self, body: Bytes) -> Answer<'_, Result<BlobHash, SubmitError>> {
        Box::pin(async move {
            let hash = BlobHash::of(&body);
            if body.len() <= SMALL_BODY_MAX {
                self.0.small.keep(hash, body);
            } else {
                self.0.spread(hash, &body).await?;
            }
            Ok(hash)
        })
    }

    fn get(&self, hash: BlobHash, from: u64, to: u64) -> Answer<'_, Result<Bytes, SubmitError>> {
        Box::pin(async move {
            if let Some(bytes) = self.0.store.blob(hash, from, to) {
                return Ok(bytes);
            }
            if let Some(body) = self.0.small.get(hash) {
                let cut = |n: u64| usize::try_from(n).unwrap_or(usize::MAX).min(body.len());
                return Ok(body.slice(cut(from).min(cut(to))..cut(to)));
            }
            for node in self.0.members() {
                if node != self.0.node && self.0.fetch_blob(node, hash).await.is_ok() {
                    tracing::warn!(%hash, node = node.0, "a body was missing here and was fetched from the other node");
                    return self.0.store.blob(hash, from, to).ok_or(SubmitError::Unavailable(crate::DAMAGED));
                }
            }
            tracing::error!(%hash, "a body is on no node that can be reached");
            Err(SubmitError::Unavailable(crate::DAMAGED))
        })
    }
}
