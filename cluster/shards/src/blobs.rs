//! Bodies: durable on the home and the backups before a change names them; small ones travel inside the batch.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use ports::Answer;
use ports::blobs::Blobs;
use ports::peers::{CallError, Service};
use vocab::limits::{BLOB_CHUNK_BYTES, SMALL_BODY_MAX};
use vocab::{BlobHash, InlineBody, NodeId, StoreWrite, SubmitError};
use wire::forward::{self as w, call, reply};

use crate::engine::Engine;
use crate::forward;

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

impl Engine {
    /// Makes a large body durable here and on every node that will have to hold the change naming it.
    pub(crate) async fn spread(&self, hash: BlobHash, body: &Bytes) -> Result<(), SubmitError> {
        self.check_space()?;
        if !self.store.has_blob(hash) {
            self.store.write(chunks(hash, body)).await;
        }
        for node in self.holders() {
            if node != self.node {
                self.push_blob(node, hash, body).await?;
            }
        }
        Ok(())
    }

    async fn push_blob(&self, to: NodeId, hash: BlobHash, body: &Bytes) -> Result<(), SubmitError> {
        let has = call::Kind::HasBlobs(w::HasBlobs { hashes: vec![hash.0.to_vec().into()] });
        match self.ask(to, has).await? {
            reply::Kind::Missing(missing) if missing.hashes.is_empty() => return Ok(()),
            _ => {}
        }
        for part in chunks(hash, body) {
            let StoreWrite::BlobChunk { hash, index, total, bytes } = part else { continue };
            let chunk =
                call::Kind::WriteBlob(w::WriteBlob { hash: hash.0.to_vec().into(), index, total, chunk: bytes });
            self.ask(to, chunk).await?;
        }
        Ok(())
    }

    /// One call to another engine.
    pub(crate) async fn ask(&self, to: NodeId, kind: call::Kind) -> Result<reply::Kind, SubmitError> {
        match self.peers.call(to, Service::Shards, forward::call(kind)).await {
            Ok(bytes) => forward::understand(bytes),
            Err(CallError::NotSent(_)) => Err(SubmitError::Unavailable("the other node cannot be reached")),
            Err(CallError::Refused(_)) => Err(SubmitError::Unavailable("the other node refused")),
            Err(CallError::Lost(_)) => Err(SubmitError::Unknown("the other node did not answer")),
        }
    }

    /// Fetches a whole body from a peer and makes it durable here; checks its hash.
    pub(crate) async fn fetch_blob(&self, from: NodeId, hash: BlobHash) -> Result<(), SubmitError> {
        let mut body = Vec::new();
        loop {
            let read = call::Kind::ReadBlob(w::ReadBlob { hash: hash.0.to_vec().into(), from: body.len() as u64 });
            let reply::Kind::Blob(blob) = self.ask(from, read).await? else {
                return Err(SubmitError::Unavailable("the peer does not have a body"));
            };
            body.extend_from_slice(&blob.bytes);
            if body.len() as u64 >= blob.total {
                break;
            }
            if blob.bytes.is_empty() {
                return Err(SubmitError::Unavailable("the peer sent an empty part of a body"));
            }
        }
        let body = Bytes::from(body);
        if BlobHash::of(&body) != hash {
            tracing::error!(%hash, node = from.0, "a body arrived with another hash; the peer's copy is damaged");
            return Err(SubmitError::Unavailable("a body arrived damaged"));
        }
        self.store.write(chunks(hash, &body)).await;
        Ok(())
    }
}

/// A body as writes of one synced write.
pub(crate) fn chunks(hash: BlobHash, body: &Bytes) -> Vec<StoreWrite> {
    if body.len() <= SMALL_BODY_MAX {
        return vec![StoreWrite::Bodies(vec![InlineBody { hash, bytes: body.clone() }])];
    }
    let total = body.len() as u64;
    (0u32..)
        .zip((0..body.len()).step_by(BLOB_CHUNK_BYTES))
        .map(|(index, from)| StoreWrite::BlobChunk {
            hash,
            index,
            total,
            bytes: body.slice(from..body.len().min(from + BLOB_CHUNK_BYTES)),
        })
        .collect()
}

/// [`Blobs`] over the engine.
pub struct EngineBlobs(pub(crate) Arc<Engine>);

impl Blobs for EngineBlobs {
    fn put(&self, body: Bytes) -> Answer<'_, Result<BlobHash, SubmitError>> {
        Box::pin(async move {
            let hash = BlobHash::of(&body);
            if body.len() <= SMALL_BODY_MAX {
                self.0.check_space()?;
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
