//! Other nodes that answer calls and are on no link.

use bytes::Bytes;
use ports::Answer;
use ports::peers::{CallError, PeerProgram, Peers, Service};
use vocab::NodeId;

/// Each call is answered by this function; every frame is lost.
pub fn answered_by<F>(answer: F) -> impl Peers
where
    F: Fn(NodeId, Service, Bytes) -> Answer<'static, Result<Bytes, CallError>> + Send + Sync,
{
    Calls(answer)
}

struct Calls<F>(F);

impl<F> Peers for Calls<F>
where
    F: Fn(NodeId, Service, Bytes) -> Answer<'static, Result<Bytes, CallError>> + Send + Sync,
{
    fn send(&self, _: NodeId, _: Bytes) -> bool {
        false
    }
    fn call(&self, to: NodeId, service: Service, body: Bytes) -> Answer<'_, Result<Bytes, CallError>> {
        (self.0)(to, service, body)
    }
    fn reset(&self, _: NodeId) {}
    fn program(&self, _: NodeId) -> Option<PeerProgram> {
        None
    }
    fn refused(&self, _: NodeId) -> Option<String> {
        None
    }
}
