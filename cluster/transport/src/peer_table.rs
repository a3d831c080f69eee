//! What is known of each peer: its link's queue, its channel for calls, who may hold the link now.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use ports::peers::PeerProgram;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use vocab::limits::BATCH_BYTES_MAX;
use vocab::{Boot, NodeId};

use crate::handshake;
use crate::proto::Hello;
use crate::streams::StreamPlaces;
use crate::tls::Tls;
use crate::{Members, TransportConfig};

/// One payload of `send` (bytes): a batch at its limit and what encoding adds.
pub(crate) const PAYLOAD_BYTES_MAX: usize = BATCH_BYTES_MAX + BATCH_BYTES_MAX / 2;
/// Waiting bytes above which a link counts as stuck and is built anew.
pub(crate) const QUEUE_BYTES_MAX: usize = 4 * PAYLOAD_BYTES_MAX;

/// A refused handshake counts for so long; while it lasts it is refused again several times in this time.
const REFUSAL_LASTS: Duration = Duration::from_secs(5);

/// A link that is up.
pub(crate) struct ActiveLink {
    /// Number of the link.
    pub(crate) number: u64,
    /// Payloads to send.
    pub(crate) queue: mpsc::UnboundedSender<Bytes>,
    /// Bytes in the queue.
    pub(crate) queued: Arc<AtomicUsize>,
    /// Ends the link.
    pub(crate) close: CancellationToken,
}

/// One peer.
pub(crate) struct PeerSlot {
    link: Mutex<Option<ActiveLink>>,
    channel: Mutex<Option<Channel>>,
    /// Index of the address that was dialled last with success.
    path: AtomicUsize,
    /// What it told of its program last.
    program: Mutex<Option<PeerProgram>>,
    /// Why a handshake was refused last, by whom ever, and when.
    refusal: Mutex<Option<(Instant, String)>>,
    /// Ends the streams of both directions; a fresh one after each end.
    streams: Mutex<CancellationToken>,
    stop: CancellationToken,
    /// Streams opened here.
    pub(crate) streams_out: StreamPlaces,
    /// Streams the peer opened.
    pub(crate) streams_in: StreamPlaces,
    /// Held by the task that dials for calls.
    pub(crate) dialling: tokio::sync::Mutex<()>,
    /// Held while a link is up: the next one begins after the last one's `link_down`.
    pub(crate) turn: Arc<tokio::sync::Mutex<()>>,
}

/// The value, also after a panic elsewhere: every write under these locks is one assignment.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl PeerSlot {
    fn new(stop: &CancellationToken) -> Self {
        Self {
            link: Mutex::default(),
            channel: Mutex::default(),
            path: AtomicUsize::new(0),
            program: Mutex::default(),
            refusal: Mutex::default(),
            streams: Mutex::new(stop.child_token()),
            stop: stop.clone(),
            streams_out: StreamPlaces::default(),
            streams_in: StreamPlaces::default(),
            dialling: tokio::sync::Mutex::default(),
            turn: Arc::default(),
        }
    }
    /// What ends a stream that begins now.
    pub(crate) fn streams_end(&self) -> CancellationToken {
        locked(&self.streams).clone()
    }
    /// Ends all streams.
    pub(crate) fn end_streams(&self) {
        std::mem::replace(&mut *locked(&self.streams), self.stop.child_token()).cancel();
    }
    /// Puts the link in place.
    pub(crate) fn open(&self, link: ActiveLink) {
        *locked(&self.link) = Some(link);
    }
    /// Bytes that wait on the present link.
    fn queued(&self) -> usize {
        locked(&self.link).as_ref().map_or(0, |link| link.queued.load(Ordering::Relaxed))
    }
    /// Takes the link away, if it is still this one.
    pub(crate) fn close(&self, number: u64) {
        let mut link = locked(&self.link);
        if link.as_ref().is_some_and(|link| link.number == number) {
            *link = None;
        }
    }
    /// Orders the present link to end.
    pub(crate) fn interrupt(&self) {
        if let Some(link) = locked(&self.link).take() {
            link.close.cancel();
        }
    }
    /// The path in use.
    pub(crate) fn path(&self) -> usize {
        self.path.load(Ordering::Relaxed)
    }
    /// Another path works.
    pub(crate) fn set_path(&self, path: usize) {
        self.path.store(path, Ordering::Relaxed);
    }
    /// One of both does not accept the other's handshake.
    pub(crate) fn refuse(&self, reason: &str) {
        *locked(&self.refusal) = Some((Instant::now(), reason.to_owned()));
    }
    /// Why not, if it was not long ago.
    pub(crate) fn refusal(&self) -> Option<String> {
        let refusal = locked(&self.refusal);
        refusal.as_ref().filter(|(at, _)| at.elapsed() < REFUSAL_LASTS).map(|(_, reason)| reason.clone())
    }
    /// The channel for calls.
    pub(crate) fn channel(&self) -> Option<Channel> {
        locked(&self.channel).clone()
    }
    /// Remembers or forgets the channel for calls.
    pub(crate) fn set_channel(&self, channel: Option<Channel>) {
        *locked(&self.channel) = channel;
    }
}

/// All peers.
pub(crate) struct PeerTable {
    /// This node.
    pub(crate) config: TransportConfig,
    /// Members and addresses.
    pub(crate) members: watch::Receiver<Members>,
    /// Ends everything.
    pub(crate) stop: CancellationToken,
    /// Certificates in use.
    pub(crate) tls: watch::Sender<Arc<Tls>>,
    slots: Mutex<BTreeMap<NodeId, Arc<PeerSlot>>>,
    links: AtomicU64,
}

impl PeerTable {
    pub(crate) fn new(
        config: TransportConfig,
        members: watch::Receiver<Members>,
        tls: Tls,
        stop: CancellationToken,
    ) -> Self {
        let (tls, _) = watch::channel(Arc::new(tls));
        Self { config, members, stop, tls, slots: Mutex::default(), links: AtomicU64::new(0) }
    }
    /// The certificates in use now.
    pub(crate) fn tls(&self) -> Arc<Tls> {
        Arc::clone(&self.tls.borrow())
    }
    /// Connections that begin from now on use these; calls go over new ones at once.
    pub(crate) fn set_tls(&self, tls: Tls) {
        self.tls.send_replace(Arc::new(tls));
        for slot in locked(&self.slots).values() {
            slot.set_channel(None);
        }
    }
    /// The slot of this node.
    pub(crate) fn slot(&self, node: NodeId) -> Arc<PeerSlot> {
        Arc::clone(locked(&self.slots).entry(node).or_insert_with(|| Arc::new(PeerSlot::new(&self.stop))))
    }
    /// The slots of nodes that are no members.
    pub(crate) fn slots_besides(&self, members: &Members) -> Vec<Arc<PeerSlot>> {
        let slots = locked(&self.slots);
        slots.iter().filter(|(node, _)| !members.contains_key(node)).map(|(_, slot)| Arc::clone(slot)).collect()
    }
    /// Where the node listens now: an address for each path.
    pub(crate) fn addresses(&self, node: NodeId) -> Vec<String> {
        self.members.borrow().get(&node).cloned().unwrap_or_default()
    }
    /// Judges a peer's Hello and keeps what it says; the error is the reason for both logs.
    pub(crate) fn judge(&self, peer: NodeId, hello: &Hello) -> Result<Boot, String> {
        let slot = self.slot(peer);
        *locked(&slot.program) = Some(handshake::program(hello));
        handshake::judge_hello(&self.config, peer, hello).inspect_err(|reason| slot.refuse(reason))
    }
    /// What is known of a node's program.
    pub(crate) fn program(&self, of: NodeId) -> Option<PeerProgram> {
        if of == self.config.node {
            return Some(handshake::program(&handshake::hello(&self.config)));
        }
        locked(&self.slot(of).program).clone()
    }
    /// A fresh link number.
    pub(crate) fn next_link(&self) -> u64 {
        self.links.fetch_add(1, Ordering::Relaxed) + 1
    }
    pub(crate) fn send(&self, to: NodeId, payload: Bytes) -> bool {
        if payload.len() > PAYLOAD_BYTES_MAX {
            tracing::error!(node = to.0, bytes = payload.len(), "payload above the limit is not sent");
            return false;
        }
        let slot = self.slot(to);
        let link = locked(&slot.link);
        let Some(link) = link.as_ref() else { return false };
        let bytes = payload.len();
        if link.queued.fetch_add(bytes, Ordering::Relaxed) + bytes > QUEUE_BYTES_MAX {
            tracing::warn!(node = to.0, "link is stuck, closing it");
            link.close.cancel();
            return false;
        }
        link.queue.send(payload).is_ok()
    }
    pub(crate) fn reset(&self, to: NodeId) {
        let slot = self.slot(to);
        slot.set_channel(None);
        slot.interrupt();
    }
    pub(crate) fn queued_bytes(&self, to: NodeId) -> usize {
        self.slot(to).queued()
    }
}
