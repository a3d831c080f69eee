//! The listening side. A certificate of a member is required for everything but `Join` and `Examine`.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::stream::{self, Stream, StreamExt as _};
use ports::peers::{PeerService, Service};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};
use vocab::limits::FRAME_BYTES_MAX;
use vocab::{Boot, NodeId};

use crate::accept::{self, StreamTaker};
use crate::client::service_number;
use crate::dial::{HTTP_FRAME_BYTES, WINDOW_BYTES, describe};
use crate::handshake::{hello, overlap};
use crate::link::{HANDSHAKE_WAIT, LinkQueue, first_hello, payloads, run_link};
use crate::paths::Heard;
use crate::peer_table::{PAYLOAD_BYTES_MAX, PeerTable};
use crate::proto::admission_server::{Admission, AdmissionServer};
use crate::proto::peer_server::{Peer, PeerServer};
use crate::proto::{
    CallReply, CallRequest, ExamineReply, ExamineRequest, Frame, GuardWordReply, GuardWordRequest, JoinReply,
    JoinRequest, call_reply, frame,
};
use crate::{Handlers, tls};

/// Calls and streams of one connection at a time.
const STREAMS_MAX: u32 = 10_000;
/// A request to join (bytes): a few names and a certificate request.
const JOIN_BYTES_MAX: usize = 64 * 1024;

/// Serves in the background until `stop`.
pub(crate) fn serve(
    table: &Arc<PeerTable>,
    handlers: &Arc<Handlers>,
    taker: &StreamTaker,
    listener: TcpListener,
    stop: CancellationToken,
) {
    let door = Arc::new(Door { table: Arc::clone(table), handlers: Arc::clone(handlers) });
    let peers = PeerServer::from_arc(Arc::clone(&door))
        .max_decoding_message_size(2 * PAYLOAD_BYTES_MAX.max(FRAME_BYTES_MAX))
        .max_encoding_message_size(2 * PAYLOAD_BYTES_MAX);
    // Asked before a byte of a message is read, so that a stranger cannot make this node take in large ones.
    let for_members = Arc::clone(&door);
    let peers =
        InterceptedService::new(peers, move |request: Request<()>| for_members.member(&request).map(|_| request));
    let admission = AdmissionServer::from_arc(door).max_decoding_message_size(JOIN_BYTES_MAX);
    let router = Server::builder()
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_frame_size(HTTP_FRAME_BYTES)
        .max_concurrent_streams(STREAMS_MAX)
        .add_service(peers)
        .add_service(admission);
    let incoming = accept::connections(Arc::clone(table), Arc::clone(taker), listener, stop.clone());
    tokio::spawn(async move {
        if let Err(error) = router.serve_with_incoming_shutdown(incoming, stop.cancelled_owned()).await {
            tracing::error!(error = %describe(&error), "listener for peers ended");
        }
    });
}

struct Door {
    table: Arc<PeerTable>,
    handlers: Arc<Handlers>,
}

impl Door {
    /// The member whose certificate this connection showed.
    fn member<T>(&self, request: &Request<T>) -> Result<NodeId, Status> {
        let chain = request.peer_certs();
        let certificate = chain.as_ref().and_then(|chain| chain.first());
        accept::member(&self.table, certificate).map_err(Status::unauthenticated)
    }

    fn service(&self, number: u32) -> Option<&Arc<dyn PeerService>> {
        let known: &Vec<(Service, Arc<dyn PeerService>)> = &self.handlers.services;
        known.iter().find(|(service, _)| service_number(*service) == number).map(|(_, handler)| handler)
    }
}

type FrameStream = Pin<Box<dyn Stream<Item = Result<Frame, Status>> + Send>>;

#[tonic::async_trait]
impl Peer for Door {
    type LinkStream = FrameStream;

    async fn link(&self, request: Request<Streaming<Frame>>) -> Result<Response<FrameStream>, Status> {
        let peer = self.member(&request)?;
        let certificate = request.peer_certs().and_then(|chain| chain.first().cloned());
        let mut inbound = request.into_inner();
        let first = tokio::time::timeout(HANDSHAKE_WAIT, inbound.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("no Hello in time"))??;
        let judged = first_hello(first).and_then(|hello| self.table.judge(peer, &hello));
        let boot = judged.map_err(|reason| {
            tracing::warn!(node = peer.0, %reason, "link refused");
            Status::failed_precondition(reason)
        })?;
        let close = self.table.stop.child_token();
        if let Some(certificate) = certificate {
            tokio::spawn(tls::end_untrusted(self.table.tls.subscribe(), certificate, close.clone()));
        }
        let (sending, waiting) = LinkQueue::new(close);
        let first = Frame { kind: Some(frame::Kind::Hello(hello(&self.table.config))) };
        let outbound = stream::iter([first]).chain(payloads(&sending, waiting)).map(Ok);
        let (table, handlers) = (Arc::clone(&self.table), Arc::clone(&self.handlers));
        tokio::spawn(async move {
            run_link(&table, &handlers, (peer, boot), sending, (inbound, &Heard::new())).await;
        });
        Ok(Response::new(Box::pin(outbound)))
    }

    async fn call(&self, request: Request<CallRequest>) -> Result<Response<CallReply>, Status> {
        let from = self.member(&request)?;
        let CallRequest { service, body, protocol } = request.into_inner();
        overlap("protocol", self.table.config.versions.protocol, protocol.as_ref())
            .map_err(Status::failed_precondition)?;
        let handler = self.service(service);
        let handler = handler.ok_or_else(|| Status::failed_precondition(format!("no service {service} here")))?;
        let answer = match handler.serve(from, body).await {
            Ok(body) => call_reply::Answer::Body(body),
            Err(reason) => call_reply::Answer::Refused(reason),
        };
        Ok(Response::new(CallReply { answer: Some(answer) }))
    }

    async fn guard_word(&self, request: Request<GuardWordRequest>) -> Result<Response<GuardWordReply>, Status> {
        let peer = self.member(&request)?;
        let boot = Boot(request.into_inner().boot);
        tracing::warn!(node = peer.0, boot = boot.0, "the peer's guard says that its process has ended");
        (self.handlers.on_guard_word)(peer, boot);
        Ok(Response::new(GuardWordReply {}))
    }
}

#[tonic::async_trait]
impl Admission for Door {
    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinReply>, Status> {
        let request = request.into_inner();
        let name = request.name.clone();
        match self.handlers.join.join(request).await {
            Ok(reply) => {
                tracing::info!(%name, node = reply.node, "node joined");
                Ok(Response::new(reply))
            }
            Err(reason) => {
                tracing::warn!(%name, %reason, "join refused");
                Err(Status::permission_denied(reason))
            }
        }
    }

    async fn examine(&self, request: Request<ExamineRequest>) -> Result<Response<ExamineReply>, Status> {
        let request = request.into_inner();
        let name = request.name.clone();
        let reply = self.handlers.join.examine(request).await.map_err(|reason| {
            tracing::warn!(%name, %reason, "question of a joiner refused");
            Status::permission_denied(reason)
        })?;
        Ok(Response::new(reply))
    }
}
