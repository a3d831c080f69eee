//! Who connects to the cluster port: the handshake, and what the connection is for. Calls go to the HTTP/2 server,
//! streams to whoever takes them.

use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ports::streams::StreamService;
use rustls::pki_types::CertificateDer;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use vocab::NodeId;

use crate::ca;
use crate::link::HANDSHAKE_WAIT;
use crate::peer_table::PeerTable;
use crate::streams::{STREAM_ALPN, prepare, take};

/// Pause after a failed accept (out of file descriptors).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Connections after their handshake that wait for the HTTP/2 server.
const WAITING_MAX: usize = 64;

/// Who takes streams; nobody until the front-ends stand.
pub(crate) type StreamTaker = Arc<OnceLock<Arc<dyn StreamService>>>;

/// The member whose certificate this is.
///
/// # Errors
/// The reason for the caller's log.
pub(crate) fn member(table: &PeerTable, certificate: Option<&CertificateDer<'_>>) -> Result<NodeId, String> {
    let known = certificate.and_then(|certificate| Some((certificate, ca::node_of(certificate)?)));
    let (certificate, node) = known.ok_or("a certificate of a node of this cluster is required")?;
    if !table.tls().accepts(certificate) {
        return Err(format!("the certificate of node {} is not of a CA that this cluster trusts now", node.0));
    }
    if table.members.borrow().contains_key(&node) {
        return Ok(node);
    }
    Err(format!("node {} is no member of the cluster", node.0))
}

/// Connections for the HTTP/2 server; streams are run on the way. Stops listening when `stop` says so.
pub(crate) fn connections(
    table: Arc<PeerTable>,
    taker: StreamTaker,
    listener: TcpListener,
    stop: CancellationToken,
) -> ReceiverStream<io::Result<TlsStream<TcpStream>>> {
    let (sender, receiver) = mpsc::channel(WAITING_MAX);
    tokio::spawn(async move {
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((socket, _)) => {
                    let (table, taker) = (Arc::clone(&table), Arc::clone(&taker));
                    let acceptor = TlsAcceptor::from(Arc::clone(&table.tls().server));
                    let (sender, stop) = (sender.clone(), stop.clone());
                    tokio::spawn(async move {
                        let sorted = sort(&table, &taker, acceptor, socket, sender);
                        tokio::select! {
                            () = stop.cancelled() => {}
                            () = sorted => {}
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "accepting a connection of a peer failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    });
    ReceiverStream::new(receiver)
}

async fn sort(
    table: &PeerTable,
    taker: &StreamTaker,
    acceptor: TlsAcceptor,
    socket: TcpStream,
    calls: mpsc::Sender<io::Result<TlsStream<TcpStream>>>,
) {
    let _ = socket.set_nodelay(true);
    let handshake = Box::pin(tokio::time::timeout(HANDSHAKE_WAIT, acceptor.accept(socket)));
    let tls = match handshake.await {
        Ok(Ok(tls)) => tls,
        Ok(Err(error)) => return tracing::debug!(%error, "handshake of a peer failed"),
        Err(_) => return tracing::debug!("handshake of a peer took too long"),
    };
    let (socket, session) = tls.get_ref();
    if session.alpn_protocol() != Some(STREAM_ALPN) {
        // The server is gone: this node stops.
        let _ = calls.send(Ok(tls)).await;
        return;
    }
    drop(calls);
    match member(table, session.peer_certificates().and_then(<[_]>::first)) {
        Ok(from) => {
            if let Err(error) = prepare(socket) {
                return tracing::debug!(node = from.0, %error, "stream ended before it began");
            }
            take(table, taker.get().cloned(), from, tls).await;
        }
        Err(reason) => tracing::warn!(%reason, "stream refused"),
    }
}
