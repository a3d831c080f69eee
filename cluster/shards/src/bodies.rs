//! Making a large body durable wherever the change that names it will need it, and fetching what is missing.

use std::time::Duration;

use bytes::Bytes;
use ports::peers::{CallError, Service};
use vocab::limits::{BLOB_CHUNK_BYTES, MESSAGE_SIZE_MAX, SMALL_BODY_MAX};
use vocab::{AccountId, BlobHash, InlineBody, NodeId, StoreWrite, SubmitError};
use wire::forward::{self as w, call, reply};

use crate::engine::Engine;
use crate::forward;
use crate::retry::Retry;

/// How often a call under way asks whether its receiver still matters.
const RELEVANCE_PAUSE: Duration = Duration::from_millis(50);

/// Who of many may hold a large body in memory.
type Turns = tokio::sync::Mutex<()>;
type Turn<'a> = tokio::sync::MutexGuard<'a, ()>;

impl Engine {
    /// Makes a large body durable here and on every node that will have to hold the change naming it; waits through a
    /// takeover as long as a commit may take.
    pub(crate) async fn spread(&self, hash: BlobHash, body: &Bytes) -> Result<(), SubmitError> {
        let mut retry = Retry::new();
        loop {
            match self.spread_once(hash, body).await {
                Err(error) => retry.pause(error).await?,
                Ok(()) => return Ok(()),
            }
        }
    }

    async fn spread_once(&self, hash: BlobHash, body: &Bytes) -> Result<(), SubmitError> {
        let home = self.home_of(AccountId::QUEUE).ok_or(SubmitError::Unavailable(crate::NOT_SERVING))?;
        if home == self.node {
            self.check_space()?;
        }
        if !self.store.has_blob(hash) && self.check_space().is_ok() {
            self.store.write(chunks(hash, body)).await;
        }
        for node in self.holders() {
            if node == self.node {
                continue;
            }
            let pushed = tokio::select! {
                pushed = self.push_blob(node, hash, body) => pushed,
                () = self.until_not(|| self.holders().contains(&node)) => Ok(()),
            };
            match pushed {
                Err(SubmitError::Unavailable(crate::NO_SPACE)) if node != home => {
                    // The batch is refused there for the same reason, and the node leaves the in-sync set by that.
                    tracing::warn!(node = node.0, %hash, "a backup has no room for a body");
                }
                pushed => pushed?,
            }
        }
        Ok(())
    }

    /// Resolves when something is true no longer.
    async fn until_not(&self, holds: impl Fn() -> bool) {
        while holds() {
            tokio::time::sleep(RELEVANCE_PAUSE).await;
        }
    }

    pub(crate) async fn push_blob(&self, to: NodeId, hash: BlobHash, body: &Bytes) -> Result<(), SubmitError> {
        if self.peer_has(to, hash).await? {
            return Ok(());
        }
        for part in chunks(hash, body) {
            let StoreWrite::BlobChunk { hash, index, total, bytes } = part else { continue };
            let write = w::WriteBlob { hash: hash.0.to_vec().into(), index, total, chunk: bytes };
            self.ask(to, call::Kind::WriteBlob(write)).await?;
        }
        // Two senders of one body may have taken chunks from each other: only the whole body counts.
        if self.peer_has(to, hash).await? {
            return Ok(());
        }
        Err(SubmitError::Unavailable("the other node does not have the whole body yet"))
    }

    async fn peer_has(&self, to: NodeId, hash: BlobHash) -> Result<bool, SubmitError> {
        let has = call::Kind::HasBlobs(w::HasBlobs { hashes: vec![hash.0.to_vec().into()] });
        match self.ask(to, has).await? {
            reply::Kind::Missing(missing) => Ok(missing.hashes.is_empty()),
            _ => Err(SubmitError::Unavailable("the other node answered something else")),
        }
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

    /// A change for the home of an account; given up as unknown when the home moves meanwhile.
    pub(crate) async fn ask_home(
        &self,
        home: NodeId,
        account: AccountId,
        kind: call::Kind,
    ) -> Result<reply::Kind, SubmitError> {
        self.ask_homes(home, &[account], kind).await
    }

    /// As [`Engine::ask_home`] for several accounts of one home.
    pub(crate) async fn ask_homes(
        &self,
        home: NodeId,
        accounts: &[AccountId],
        kind: call::Kind,
    ) -> Result<reply::Kind, SubmitError> {
        tokio::select! {
            answer = self.ask(home, kind) => answer,
            () = self.until_not(|| accounts.iter().all(|account| self.home_of(*account) == Some(home))) => {
                Err(SubmitError::Unknown("the home moved before it answered"))
            }
        }
    }

    /// Fetches a whole body from a peer and makes it durable here; checks its hash.
    pub(crate) async fn fetch_blob(&self, from: NodeId, hash: BlobHash) -> Result<(), SubmitError> {
        let body = self.read_body(from, hash).await?;
        self.store.write(chunks(hash, &body)).await;
        Ok(())
    }

    /// As [`Engine::fetch_blob`], one of many: of those larger than one chunk only one is in memory at a time. Gives its size.
    pub(crate) async fn fetch_one_of_many(&self, from: NodeId, hash: BlobHash) -> Result<u64, SubmitError> {
        let (mut turn, turns) = (None, &self.fetches.large);
        let body = self.read_body_in_turn(from, hash, Some((turns, &mut turn))).await?;
        self.store.write(chunks(hash, &body)).await;
        drop(turn);
        Ok(body.len() as u64)
    }

    /// A whole body of a peer; its hash is checked.
    pub(crate) async fn read_body(&self, from: NodeId, hash: BlobHash) -> Result<Bytes, SubmitError> {
        self.read_body_in_turn(from, hash, None).await
    }

    async fn read_body_in_turn<'a>(
        &self,
        from: NodeId,
        hash: BlobHash,
        mut turn: Option<(&'a Turns, &mut Option<Turn<'a>>)>,
    ) -> Result<Bytes, SubmitError> {
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
            if blob.bytes.is_empty() || body.len() > MESSAGE_SIZE_MAX + BLOB_CHUNK_BYTES {
                return Err(SubmitError::Unavailable("the peer sent a part of a body that makes no sense"));
            }
            if let Some((turns, mine)) = turn.take() {
                *mine = Some(turns.lock().await);
            }
        }
        let body = Bytes::from(body);
        if BlobHash::of(&body) != hash {
            tracing::error!(%hash, node = from.0, "a body arrived with another hash; the peer's copy is damaged");
            return Err(SubmitError::Unavailable("a body arrived damaged"));
        }
        Ok(body)
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
