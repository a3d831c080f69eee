//! Byte streams between nodes over mutual TLS: how a client that one node accepted is served by another.

use tokio::io::{AsyncRead, AsyncWrite};
use vocab::NodeId;

use crate::Answer;

/// Bytes both ways with an end of each; dropping it ends both.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> ByteStream for T {}

/// Why there is no stream; nothing was sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// No member, no connection, or not the member it should be.
    #[error("node not reachable: {0}")]
    Unreachable(String),
    /// So many streams to this node are open already.
    #[error("too many streams to this node")]
    TooMany,
}

/// Opens streams to other nodes.
pub trait Streams: Send + Sync {
    /// A stream to this member. What it carries is between its two ends; how much waits in between is bounded, so a
    /// slow reader makes the writer wait. It ends with the peer's process, or when its host has been silent for a while.
    ///
    /// # Errors
    /// [`StreamError`], within a few seconds.
    fn open(&self, to: NodeId) -> Answer<'_, Result<Box<dyn ByteStream>, StreamError>>;
}

/// Takes streams that other nodes open.
pub trait StreamService: Send + Sync {
    /// Runs a stream to its end. `from` is a member, proven by its certificate.
    fn take(&self, from: NodeId, stream: Box<dyn ByteStream>) -> Answer<'static, ()>;
}
