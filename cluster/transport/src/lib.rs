//! Mutually authenticated streams between nodes: one ordered link per pair with a version handshake, single calls,
//! admission by token, the guard's last word. Everything travels over TLS under the cluster's own CA.
//!
//! The lower node id dials the link; both sides dial for calls, on a connection of their own, so that a long batch on
//! the link never delays a heartbeat of Raft. Byte streams, for clients that another node serves, are a connection each.

mod accept;
pub mod ca;
mod client;
mod dial;
mod handshake;
mod judged;
mod link;
mod paths;
mod peer_table;
mod probe;
mod server;
mod streams;
mod tls;

/// Generated from `proto/peer.proto`.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod proto {
    tonic::include_proto!("twinpost.peer");
}

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use ports::Answer;
use ports::peers::{CallError, PeerEvents, PeerProgram, PeerService, Peers, Service};
use ports::streams::{ByteStream, StreamError, StreamService, Streams};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use vocab::{Boot, NodeId};

pub use client::{examine_call, join_call, send_guard_word};
pub use judged::judged_verifier;
pub use paths::refuses_on_every_path;
pub use probe::{Probe, probe_reset};
pub use proto::{ExamineReply, ExamineRequest, JoinReply, JoinRequest, MemberAddress, Neighbour};

use accept::StreamTaker;
use peer_table::PeerTable;
use tls::Tls;

/// Certificates of this node as PEM text.
#[derive(Clone, PartialEq, Eq)]
pub struct TlsPems {
    /// The cluster's CA, and a second one while it is exchanged.
    pub ca: String,
    /// This node's certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
}

impl TlsPems {
    /// This node's certificate with the CA behind it, so that a joiner sees the CA it was told to trust.
    fn chain(&self) -> String {
        format!("{}\n{}", self.certificate.trim_end(), self.ca)
    }
}

/// What the transport must know of this node.
#[derive(Clone)]
pub struct TransportConfig {
    /// This node.
    pub node: NodeId,
    /// This boot; raised durably before the transport starts.
    pub boot: Boot,
    /// Random id of the cluster; peers of another are refused.
    pub cluster_id: String,
    /// Where to listen for peers: one address for each path to this node.
    pub listen: Vec<SocketAddr>,
    /// Certificates.
    pub tls: TlsPems,
    /// Formats this build speaks.
    pub versions: Versions,
    /// Version of this program, for people.
    pub program: String,
}

/// Formats a build can speak; two builds need an overlap in both ranges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    /// Messages between nodes, lowest and highest.
    pub protocol: (u32, u32),
    /// Stored rows, lowest and highest.
    pub row_format: (u32, u32),
}

impl Versions {
    /// What this build speaks.
    pub const CURRENT: Self = Self { protocol: (1, 1), row_format: (1, 3) };
}

/// Addresses (`host:port`) of all members by node, this one included or not: one for each path to it, the one to be used
/// while it works first.
pub type Members = BTreeMap<NodeId, Vec<String>>;

/// Admits a new node.
pub trait JoinHandler: Send + Sync {
    /// The reply, or the reason for the joiner's operator. The token is checked here.
    fn join(&self, request: JoinRequest) -> Answer<'_, Result<JoinReply, String>>;
    /// What the joiner judges before it joins, for a token that may be used; nothing is changed.
    fn examine(&self, request: ExamineRequest) -> Answer<'_, Result<ExamineReply, String>>;
}

/// Takes the word of a peer's guard that the process of this boot has ended.
pub type OnGuardWord = Arc<dyn Fn(NodeId, Boot) + Send + Sync>;

/// Who is told what arrives.
pub struct Handlers {
    /// Links and frames.
    pub events: Arc<dyn PeerEvents>,
    /// Calls, by service; a service that is missing here is refused.
    pub services: Vec<(Service, Arc<dyn PeerService>)>,
    /// Admission.
    pub join: Arc<dyn JoinHandler>,
    /// The guard's word.
    pub on_guard_word: OnGuardWord,
}

/// Why the transport does not start.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The address cannot be bound: settings or another process.
    #[error("listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The system's error.
        source: std::io::Error,
    },
    /// Certificate or key cannot be used.
    #[error("certificates of this node: {0}")]
    Tls(String),
}

/// Sends to other nodes; made before its handlers exist, because they need it.
pub struct Transport {
    table: Arc<PeerTable>,
    taker: StreamTaker,
    stop: CancellationToken,
}

impl Transport {
    /// Nothing is dialled and nothing heard before [`Transport::start`], but calls can be made.
    ///
    /// # Errors
    /// [`TransportError::Tls`].
    pub fn new(config: TransportConfig, members: watch::Receiver<Members>) -> Result<Arc<Self>, TransportError> {
        let stop = CancellationToken::new();
        let tls = Tls::new(config.tls.clone(), 0)?;
        let table = PeerTable::new(config, members, tls, stop.clone());
        Ok(Arc::new(Self { table: Arc::new(table), taker: StreamTaker::default(), stop }))
    }

    /// Listens and dials; returns the bound addresses.
    ///
    /// # Errors
    /// [`TransportError::Listen`].
    pub async fn start(&self, handlers: Handlers) -> Result<Vec<SocketAddr>, TransportError> {
        let handlers = Arc::new(handlers);
        let mut bound = Vec::new();
        for address in self.table.config.listen.clone() {
            let failed = |source| TransportError::Listen { address, source };
            let listener = TcpListener::bind(address).await.map_err(failed)?;
            bound.push(listener.local_addr().map_err(failed)?);
            server::serve(&self.table, &handlers, &self.taker, listener, self.stop.clone());
        }
        tokio::spawn(streams::end_removed(Arc::clone(&self.table)));
        tokio::spawn(link::dial_members(Arc::clone(&self.table), handlers, self.stop.clone()));
        Ok(bound)
    }

    /// Names who takes streams that other nodes open; until then, and if nobody is named, they just end. Only the first
    /// call counts.
    pub fn take_streams(&self, service: Arc<dyn StreamService>) {
        let _ = self.taker.set(service);
    }

    /// Whether [`Self::set_tls`] could use these.
    ///
    /// # Errors
    /// [`TransportError::Tls`].
    pub fn check_tls(tls: &TlsPems) -> Result<(), TransportError> {
        Tls::new(tls.clone(), 0).map(drop)
    }

    /// Uses these certificates for every connection that begins from now on. Nothing is broken: links and streams go on, and
    /// calls under way get their answers. Where a CA of before is missing, links move to new connections, calls on old ones
    /// are refused, and a peer's link that it has not moved ends after some seconds; streams stay until they end.
    ///
    /// # Errors
    /// [`TransportError::Tls`]: they cannot be used, and those of before stay.
    pub fn set_tls(&self, tls: TlsPems) -> Result<(), TransportError> {
        let next = self.table.tls().replaced_by(tls)?;
        self.table.set_tls(next);
        Ok(())
    }

    /// Closes every link and stream and stops listening; handlers still hear of links that went down.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Which of the addresses of this node the link to it stands on, if this node dialled it.
    #[must_use]
    pub fn path(&self, to: NodeId) -> usize {
        self.table.slot(to).path()
    }

    /// Bytes that wait to be sent to this node.
    #[must_use]
    pub fn queued_bytes(&self, to: NodeId) -> usize {
        self.table.queued_bytes(to)
    }

    /// Streams open with this node, opened here and there.
    #[must_use]
    pub fn open_streams(&self, peer: NodeId) -> (usize, usize) {
        let slot = self.table.slot(peer);
        (slot.streams_out.open(), slot.streams_in.open())
    }
}

impl Streams for Transport {
    fn open(&self, to: NodeId) -> Answer<'_, Result<Box<dyn ByteStream>, StreamError>> {
        Box::pin(streams::open(&self.table, to))
    }
}

impl Drop for Transport {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Peers for Transport {
    fn send(&self, to: NodeId, frame: Bytes) -> bool {
        self.table.send(to, frame)
    }
    fn call(&self, to: NodeId, service: Service, body: Bytes) -> Answer<'_, Result<Bytes, CallError>> {
        Box::pin(client::call(&self.table, to, service, body))
    }
    fn reset(&self, to: NodeId) {
        self.table.reset(to);
    }
    fn program(&self, of: NodeId) -> Option<PeerProgram> {
        self.table.program(of)
    }
    fn refused(&self, of: NodeId) -> Option<String> {
        self.table.slot(of).refusal()
    }
}
