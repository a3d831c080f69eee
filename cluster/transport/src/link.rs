//! The ordered link of a pair: dialled by the lower node id, one at a time, built anew whenever it breaks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, Stream, StreamExt as _};
use ports::peers::LinkUp;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};
use vocab::limits::FRAME_BYTES_MAX;
use vocab::{Boot, NodeId};

use crate::dial::{DIAL_WAIT, describe};
use crate::handshake::hello;
use crate::paths::{self, Heard};
use crate::peer_table::{ActiveLink, PAYLOAD_BYTES_MAX, PeerTable};
use crate::probe::caused_by_reset;
use crate::proto::peer_client::PeerClient;
use crate::proto::{Frame, Hello, Part, frame};
use crate::{Handlers, Members};

/// First wait before a link is dialled again; doubles up to [`RETRY_MAX`]. Short, because takeover waits for it.
const RETRY_MIN: Duration = Duration::from_millis(50);
/// Longest wait between two dials.
const RETRY_MAX: Duration = Duration::from_millis(500);
/// Payload of one frame: the limit less what the frame's own fields need.
const PART_BYTES_MAX: usize = FRAME_BYTES_MAX - 64;
/// How long a handshake may take after the connection stands.
pub(crate) const HANDSHAKE_WAIT: Duration = DIAL_WAIT;
/// The same when there is another path, which is tried then: one cut just now must not take the time of a takeover.
const PATH_HANDSHAKE_WAIT: Duration = Duration::from_millis(500);

/// Keeps one dialling task per member with a higher id.
pub(crate) async fn dial_members(table: Arc<PeerTable>, handlers: Arc<Handlers>, stop: CancellationToken) {
    let mut members = table.members.clone();
    let mut tasks: BTreeMap<NodeId, CancellationToken> = BTreeMap::new();
    loop {
        let now: Members = members.borrow_and_update().clone();
        tasks.retain(|node, task| {
            now.contains_key(node) || {
                task.cancel();
                false
            }
        });
        for node in now.into_keys().filter(|node| *node > table.config.node) {
            tasks.entry(node).or_insert_with(|| {
                let task = stop.child_token();
                tokio::spawn(keep_link(Arc::clone(&table), Arc::clone(&handlers), node, task.clone()));
                task
            });
        }
        tokio::select! {
            () = stop.cancelled() => return,
            changed = members.changed() => if changed.is_err() {
                // Nobody will change the members any more; what is dialled stays.
                return stop.cancelled().await;
            },
        }
    }
}

async fn keep_link(table: Arc<PeerTable>, handlers: Arc<Handlers>, to: NodeId, task: CancellationToken) {
    let mut wait = RETRY_MIN;
    let mut said = String::new();
    let mut better = None;
    while !task.is_cancelled() {
        match dial_link(&table, &handlers, (to, better.take()), &task).await {
            Ok(None) => (wait, said) = (RETRY_MIN, String::new()),
            Ok(found) => {
                // It stands already on another path.
                (wait, said, better) = (RETRY_MIN, String::new(), found);
                continue;
            }
            Err(reason) => {
                if reason != said {
                    tracing::warn!(node = to.0, %reason, "no link to peer");
                    said = reason;
                }
            }
        }
        tokio::select! {
            () = task.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
        wait = RETRY_MAX.min(wait * 2);
    }
}

/// One link from dial to end, on a channel that stands already if there is one; the error is why there was none. Gives the
/// channel on a better path, if that was why it ended.
async fn dial_link(
    table: &Arc<PeerTable>,
    handlers: &Handlers,
    (to, better): (NodeId, Option<Channel>),
    task: &CancellationToken,
) -> Result<Option<Channel>, String> {
    // Before the dial, so that a CA dropped meanwhile is noticed.
    let dropped = table.tls().dropped;
    let channel = match better {
        Some(channel) => channel,
        None => paths::dial_any(table, to).await?,
    };
    let (ends, waiting) = LinkQueue::new(task.child_token());
    let (refuse, refusal) = mpsc::unbounded_channel();
    let first = Frame { kind: Some(frame::Kind::Hello(hello(&table.config))) };
    let refusal = UnboundedReceiverStream::new(refusal);
    let parts = stream::select(refusal, payloads(&ends, waiting));
    let outbound = stream::iter([first]).chain(parts);
    let mut client = PeerClient::new(channel).max_decoding_message_size(2 * FRAME_BYTES_MAX);
    let handshake = async {
        let mut inbound = client.link(outbound).await?.into_inner();
        let first = inbound.message().await?;
        Ok::<_, Status>((inbound, first))
    };
    let several = table.addresses(to).len() > 1;
    let wait = if several { PATH_HANDSHAKE_WAIT } else { HANDSHAKE_WAIT };
    let (inbound, first) = match tokio::time::timeout(wait, handshake).await {
        Ok(Ok(answered)) => answered,
        Ok(Err(status)) => {
            note_refusal(table, to, &status);
            return Err(describe(&status));
        }
        Err(_) => {
            paths::next_path(table, to);
            return Err("no handshake in time".to_owned());
        }
    };
    let boot = match first_hello(first).and_then(|hello| table.judge(to, &hello)) {
        Ok(boot) => boot,
        Err(reason) => {
            // The other side logs it too; the stream ends when both senders are gone.
            let _ = refuse.send(Frame { kind: Some(frame::Kind::Refused(reason.clone())) });
            drop((refuse, ends));
            tokio::time::sleep(RETRY_MIN).await;
            return Err(reason);
        }
    };
    drop(refuse);
    let (heard, close) = (Heard::new(), ends.close.clone());
    let watch = async {
        let found = paths::better_path(table, (to, dropped), &heard, &close).await;
        if let Some((_, path)) = &found {
            table.slot(to).set_path(*path);
            close.cancel();
        }
        found.map(|(channel, _)| channel)
    };
    let ((), found) = tokio::join!(run_link(table, handlers, (to, boot), ends, (inbound, &heard)), watch);
    Ok(found)
}

/// The Hello in the peer's first frame.
pub(crate) fn first_hello(first: Option<Frame>) -> Result<Hello, String> {
    match first.and_then(|frame| frame.kind) {
        Some(frame::Kind::Hello(hello)) => Ok(hello),
        Some(frame::Kind::Refused(reason)) => Err(reason),
        Some(frame::Kind::Part(_)) | None => Err("the first frame is no Hello".to_owned()),
    }
}

/// The sending half of a link.
pub(crate) struct LinkQueue {
    queue: mpsc::UnboundedSender<Bytes>,
    queued: Arc<AtomicUsize>,
    close: CancellationToken,
}

impl LinkQueue {
    /// The queue and what comes out of it; `close` ends the link.
    pub(crate) fn new(close: CancellationToken) -> (Self, mpsc::UnboundedReceiver<Bytes>) {
        let (queue, waiting) = mpsc::unbounded_channel();
        (Self { queue, queued: Arc::default(), close }, waiting)
    }
}

/// Queued payloads as frames, until the link closes.
pub(crate) fn payloads(link: &LinkQueue, waiting: mpsc::UnboundedReceiver<Bytes>) -> impl Stream<Item = Frame> + use<> {
    let queued = Arc::clone(&link.queued);
    let frames = UnboundedReceiverStream::new(waiting).flat_map(move |payload| {
        queued.fetch_sub(payload.len(), Ordering::Relaxed);
        stream::iter(split(payload))
    });
    frames.take_until(link.close.clone().cancelled_owned())
}

fn split(mut payload: Bytes) -> impl Iterator<Item = Frame> {
    let mut done = false;
    std::iter::from_fn(move || {
        if done {
            return None;
        }
        let data = payload.split_to(payload.len().min(PART_BYTES_MAX));
        done = payload.is_empty();
        Some(Frame { kind: Some(frame::Kind::Part(Part { data, more: !done })) })
    })
}

/// Waits for the turn, announces the link, hands frames on in order, announces its end.
pub(crate) async fn run_link(
    table: &PeerTable,
    handlers: &Handlers,
    (peer, boot): (NodeId, Boot),
    sending: LinkQueue,
    (mut inbound, heard): (Streaming<Frame>, &Heard),
) {
    let LinkQueue { queue, queued, close } = sending;
    let slot = table.slot(peer);
    slot.interrupt();
    let _turn = Arc::clone(&slot.turn).lock_owned().await;
    let link = table.next_link();
    // A restarted peer does not answer on the old connection for calls.
    slot.set_channel(None);
    slot.open(ActiveLink { number: link, queue, queued, close: close.clone() });
    if !table.members.borrow().contains_key(&peer) {
        // Removed since its certificate was looked at: whoever ends the links of removed nodes may have been here already.
        close.cancel();
    }
    tracing::info!(node = peer.0, boot = boot.0, link, "link to peer is up");
    handlers.events.link_up(LinkUp { peer, boot, link });
    heard.now();
    let end = read_frames(&mut inbound, &close, |payload| {
        heard.now();
        handlers.events.frame(peer, link, payload);
    })
    .await;
    slot.close(link);
    close.cancel();
    slot.set_channel(None);
    let reset = match &end {
        LinkEnd::Closed => false,
        LinkEnd::Lost(status) if caused_by_reset(status) && table.addresses(peer).len() < 2 => true,
        LinkEnd::Lost(_) | LinkEnd::Ended => paths::refuses_on_every_path(&table.addresses(peer)).await,
    };
    if let LinkEnd::Lost(status) = &end {
        note_refusal(table, peer, status);
    }
    let why = match &end {
        LinkEnd::Closed => "closed here".to_owned(),
        LinkEnd::Ended => "closed by the peer".to_owned(),
        LinkEnd::Lost(status) => describe(status),
    };
    tracing::info!(node = peer.0, link, reset, %why, "link to peer is down");
    handlers.events.link_down(peer, link, reset);
}

/// Keeps why the peer does not accept this node's handshake, if that is what it says.
fn note_refusal(table: &PeerTable, peer: NodeId, status: &Status) {
    if status.code() == Code::FailedPrecondition {
        table.slot(peer).refuse(&format!("it says: {}", status.message()));
    }
}

enum LinkEnd {
    Closed,
    Ended,
    Lost(Status),
}

async fn read_frames(
    inbound: &mut Streaming<Frame>,
    close: &CancellationToken,
    mut deliver: impl FnMut(Bytes),
) -> LinkEnd {
    let mut payload = BytesMut::new();
    loop {
        let next = tokio::select! {
            biased;
            () = close.cancelled() => return LinkEnd::Closed,
            next = inbound.message() => next,
        };
        match next {
            Ok(Some(Frame { kind: Some(frame::Kind::Part(part)) })) => {
                if payload.len() + part.data.len() > PAYLOAD_BYTES_MAX {
                    return LinkEnd::Lost(Status::resource_exhausted("payload above the limit"));
                }
                match (part.more, payload.is_empty()) {
                    (false, true) => deliver(part.data),
                    (more, _) => {
                        payload.extend_from_slice(&part.data);
                        if !more {
                            deliver(payload.split().freeze());
                        }
                    }
                }
            }
            Ok(Some(Frame { kind: Some(frame::Kind::Refused(reason)) })) => {
                return LinkEnd::Lost(Status::failed_precondition(reason));
            }
            Ok(Some(_)) => return LinkEnd::Lost(Status::invalid_argument("unexpected frame")),
            Ok(None) => return LinkEnd::Ended,
            Err(status) => return LinkEnd::Lost(status),
        }
    }
}
