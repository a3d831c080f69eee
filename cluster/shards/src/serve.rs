//! Calls and frames from other nodes.

use std::collections::BTreeMap;
use std::sync::{Arc, MutexGuard, PoisonError};

use bytes::Bytes;
use ports::Answer;
use ports::journal::EventKind;
use ports::peers::{LinkUp, PeerEvents, PeerService};
use prost::Message as _;
use replica::Event;
use vocab::limits::BLOB_CHUNK_BYTES;
use vocab::{AccountId, BlobHash, InlineBody, NodeId, SubmitError};
use wire::forward::{self as w, call, reply};

use crate::bodies::chunks;
use crate::chunks::Collected;
use crate::engine::Engine;
use crate::forward;
use crate::work::{DeliveryWork, Done, Work};

impl PeerEvents for Engine {
    fn link_up(&self, up: LinkUp) {
        tracing::info!(peer = up.peer.0, boot = up.boot.0, link = up.link, "link up");
        self.note(EventKind::Link, &format!("link {} to node {} boot {} is up", up.link, up.peer.0, up.boot.0));
        if self.is_witness(up.peer) {
            self.witness_links().insert(up.peer, up.link);
            return;
        }
        self.tell(Event::LinkUp { peer: up.peer, boot: up.boot, link: up.link });
    }
    fn link_down(&self, peer: NodeId, link: u64, reset: bool) {
        tracing::info!(peer = peer.0, link, reset, "link down");
        let how = if reset { ", refused there" } else { "" };
        self.note(EventKind::Link, &format!("link {link} to node {} is down{how}", peer.0));
        let mut witnesses = self.witness_links();
        if witnesses.get(&peer) == Some(&link) {
            witnesses.remove(&peer);
            return;
        }
        drop(witnesses);
        self.tell(Event::LinkDown { peer, link });
    }
    fn frame(&self, peer: NodeId, link: u64, frame: Bytes) {
        self.tell(Event::Frame { peer, link, bytes: frame });
    }
}

impl PeerService for Engine {
    fn serve(&self, from: NodeId, body: Bytes) -> Answer<'_, Result<Bytes, String>> {
        Box::pin(async move {
            if self.is_witness(from) {
                tracing::error!(peer = from.0, "a witness asked for something that only nodes with mail may have");
                return Err("a witness is told nothing about mail".to_owned());
            }
            let kind = w::Call::decode(body).ok().and_then(|c| c.kind).ok_or("a call that is not understood")?;
            let reply = self.serve_call(from, kind).await.unwrap_or_else(|error| forward::failure(&error));
            Ok(forward::reply(reply))
        })
    }
}

impl Engine {
    /// Whether this member only votes. The replica never hears of its link, so nothing of the mail is ever put on it.
    fn is_witness(&self, node: NodeId) -> bool {
        self.config.current().members.get(&node).is_some_and(|member| !member.data)
    }

    /// Links to witnesses.
    pub(crate) fn witness_links(&self) -> MutexGuard<'_, BTreeMap<NodeId, u64>> {
        self.witness_links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn serve_call(&self, from: NodeId, kind: call::Kind) -> Result<reply::Kind, SubmitError> {
        let bad = SubmitError::Unavailable("a call that makes no sense");
        Ok(match kind {
            call::Kind::Submit(submit) => {
                let account = AccountId(submit.account);
                let command = mailbox::codec::decode_command(&submit.command).map_err(|_| bad)?;
                let inline = |bytes: Bytes| InlineBody { hash: BlobHash::of(&bytes), bytes };
                let bodies = submit.bodies.into_iter().map(inline).collect();
                self.must_be_home(account)?;
                match self.order(Work::Account { account, command, bodies }).await? {
                    Done::Account(outcome) => reply::Kind::Outcome(mailbox::codec::encode_outcome(&outcome)),
                    _ => return Err(SubmitError::Unknown("an outcome of another kind")),
                }
            }
            call::Kind::Queue(submit) => {
                self.must_be_home(AccountId::QUEUE)?;
                let op = queue::codec::decode_op(&submit.op).map_err(|_| bad)?;
                match self.order(Work::Queue(op, forward::records_from(submit.records))).await? {
                    Done::Queue(queue::op::QueueOutcome::Done) => reply::Kind::QueueOutcome(0),
                    Done::Queue(queue::op::QueueOutcome::Gone) => reply::Kind::QueueOutcome(1),
                    _ => return Err(SubmitError::Unknown("an outcome of another kind")),
                }
            }
            call::Kind::Accept(accept) => {
                let record = accept.record;
                let work = forward::accept_work(accept).ok_or(bad)?;
                tracing::info!(accept = %work.accept, from = from.0, record, "message forwarded to its home");
                reply::Kind::Done(w::Done { refused: self.serve_accept(work, record).await? })
            }
            call::Kind::Open(open) => self.serve_open(open).await?,
            call::Kind::Past(read) => self.serve_past(&read)?,
            call::Kind::Read(read) => self.serve_read(read),
            call::Kind::Summarize(ask) => self.serve_summary(ask).await?,
            call::Kind::Close(close) => {
                self.serve_close(close.transfer);
                reply::Kind::Done(w::Done::default())
            }
            call::Kind::Undo(read) => self.serve_undo(&read)?,
            call::Kind::ReadBlob(read) => self.serve_blob(&read)?,
            call::Kind::WriteBlob(write) => self.keep_chunk(from, write).await?,
            call::Kind::Enter(enter) => {
                let account = AccountId(enter.account);
                self.must_be_home(account)?;
                self.order(Work::Enter(account)).await?;
                reply::Kind::Done(w::Done::default())
            }
            call::Kind::MayRemove(ask) => {
                let node = NodeId(ask.node);
                let removable = self.machine().may_remove(node, node == from);
                let epoch = removable.map_err(SubmitError::Unavailable)?;
                reply::Kind::Epoch(w::Epoch { number: epoch.number, author: epoch.author })
            }
            call::Kind::Heads(ask) => reply::Kind::Heads(self.head_page(AccountId(ask.after))?),
            call::Kind::Handover(ask) => self.serve_handover(from, &ask).await?,
            call::Kind::HasBlobs(has) => {
                let here = |bytes: &Bytes| BlobHash::from_bytes(bytes).is_some_and(|hash| self.store.has_blob(hash));
                reply::Kind::Missing(w::Missing { hashes: has.hashes.into_iter().filter(|b| !here(b)).collect() })
            }
        })
    }

    async fn serve_accept(&self, work: DeliveryWork, record: bool) -> Result<Vec<u32>, SubmitError> {
        if record {
            self.must_be_home(AccountId::QUEUE)?;
            return self.accept_here(work).await.map(|()| Vec::new());
        }
        work.accounts().into_iter().try_for_each(|account| self.must_be_home(account))?;
        self.deliver_here(work).await
    }

    /// A forwarded change is ordered here or refused: it never travels on, so two nodes that take each other for the
    /// home cannot play ball with it.
    pub(crate) fn must_be_home(&self, account: AccountId) -> Result<(), SubmitError> {
        match self.home_of(account) {
            Some(home) if home == self.node => Ok(()),
            _ => Err(SubmitError::Unavailable(crate::NOT_SERVING)),
        }
    }

    fn serve_blob(&self, read: &w::ReadBlob) -> Result<reply::Kind, SubmitError> {
        let missing = SubmitError::Unavailable("no such body");
        let hash = BlobHash::from_bytes(&read.hash).ok_or(missing.clone())?;
        let total = self.store.blob_size(hash).ok_or(missing.clone())?;
        let to = read.from.saturating_add(BLOB_CHUNK_BYTES as u64);
        let bytes = self.store.blob(hash, read.from, to).ok_or(missing)?;
        Ok(reply::Kind::Blob(w::Blob { bytes, total }))
    }

    async fn keep_chunk(&self, from: NodeId, write: w::WriteBlob) -> Result<reply::Kind, SubmitError> {
        self.check_space()?;
        let bad = SubmitError::Unavailable("a body chunk that makes no sense");
        let hash = BlobHash::from_bytes(&write.hash).ok_or(bad.clone())?;
        match self.collector.add(from, hash, (write.index, write.total), write.chunk) {
            Collected::Waits => {}
            Collected::Whole(body) => self.store.write(chunks(hash, &body)).await,
            Collected::Busy => return Err(SubmitError::Unavailable("too many bodies arrive at once")),
            Collected::Wrong => {
                tracing::error!(%hash, from = from.0, "a body arrived that is not what its name says");
                return Err(bad);
            }
        }
        Ok(reply::Kind::Done(w::Done::default()))
    }
}

impl Engine {
    /// The engine as receiver of links and frames.
    #[must_use]
    pub fn peer_events(self: &Arc<Self>) -> Arc<dyn PeerEvents> {
        Arc::clone(self) as Arc<dyn PeerEvents>
    }
    /// The engine as server of calls between engines.
    #[must_use]
    pub fn peer_service(self: &Arc<Self>) -> Arc<dyn PeerService> {
        Arc::clone(self) as Arc<dyn PeerService>
    }
}
