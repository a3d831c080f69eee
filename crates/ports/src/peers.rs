//! Other nodes: an ordered link of frames and single calls, both over mutual TLS.

use bytes::Bytes;
use vocab::{Boot, NodeId};

use crate::Answer;

/// Why a call has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// Never sent: nothing happened.
    #[error("peer not reachable: {0}")]
    NotSent(String),
    /// Sent, no answer: may have happened.
    #[error("no answer from peer: {0}")]
    Lost(String),
    /// The peer answered with this error text.
    #[error("peer refused: {0}")]
    Refused(String),
}

/// What a call is about; the receiver routes by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Service {
    /// Raft messages, for `control`.
    Control,
    /// Forwarded operations, bodies, transfers, for `shards`.
    Shards,
    /// Probes and guard words, for `shards`.
    Watch,
    /// The log, for `audit`.
    Log,
    /// What a node tells of itself, for `node`.
    Report,
    /// Certificates, for the keeper of each node.
    Certificates,
}

/// A node's program, as the node tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerProgram {
    /// Version, for people; empty when the program does not say.
    pub version: String,
    /// Messages between nodes it speaks, lowest and highest.
    pub protocol: (u32, u32),
    /// Stored rows it reads, lowest and highest.
    pub rows: (u32, u32),
}

/// Sending to other nodes.
pub trait Peers: Send + Sync {
    /// Puts a frame on the link; frames of one link arrive in order or the link goes down. False = no link now.
    fn send(&self, to: NodeId, frame: Bytes) -> bool;
    /// One question, one answer.
    ///
    /// # Errors
    /// Whether it may have happened.
    fn call(&self, to: NodeId, service: Service, body: Bytes) -> Answer<'_, Result<Bytes, CallError>>;
    /// Closes the link, so that it is built anew with a fresh handshake.
    fn reset(&self, to: NodeId);
    /// What this node told of its program in its last handshake, accepted or not; of this node itself its own. `None`: none
    /// since the start of this process.
    fn program(&self, of: NodeId) -> Option<PeerProgram>;
    /// Why one of both does not accept the other's handshake; `None` when no handshake was refused in the last seconds.
    fn refused(&self, of: NodeId) -> Option<String>;
}

/// What a handshake told (cluster id, version ranges and certificate are checked by the transport; no overlap is
/// refused with the reason).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkUp {
    /// The peer.
    pub peer: NodeId,
    /// Its boot.
    pub boot: Boot,
    /// Counts links, so frames of an old one are told apart.
    pub link: u64,
}

/// Receiving from other nodes; called by the transport, in order per link.
pub trait PeerEvents: Send + Sync {
    /// A link is up, in both directions.
    fn link_up(&self, up: LinkUp);
    /// It is gone; `reset` when the peer's side refused or reset the connection (evidence, not proof).
    fn link_down(&self, peer: NodeId, link: u64, reset: bool);
    /// A frame.
    fn frame(&self, peer: NodeId, link: u64, frame: Bytes);
}

/// Serves calls from other nodes.
pub trait PeerService: Send + Sync {
    /// The answer, or an error text for the caller.
    fn serve(&self, from: NodeId, body: Bytes) -> Answer<'_, Result<Bytes, String>>;
}

/// Evidence that a peer's process is gone, gathered from outside of the link (DESIGN 6).
pub trait Evidence: Send + Sync {
    /// True only when the peer's kernel refused (TCP reset) on the cluster port and the mail port of every path, and,
    /// asked by a node that does not hold the cluster address, nobody answers on it at application level within
    /// 100 ms. Any doubt is false.
    fn process_gone(&self, peer: NodeId) -> Answer<'_, bool>;
    /// True only when somebody serves clients now, at application level, on the peer's own address or on the cluster address,
    /// asked over the client network; within 200 ms. Any doubt is false.
    fn serves(&self, peer: NodeId) -> Answer<'_, bool>;
}
