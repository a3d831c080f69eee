//! Who connects to the cluster port: the handshake, and what the connection is for. Calls go to the HTTP/2 server,
//! streams to whoever takes them.

use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ports::streams::StreamService;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use vocab::NodeId;

use crate::link::HANDSHAKE_WAIT;
use crate::peer_table::PeerTable;
use crate::streams::{STREAM_ALPN, prepare, take};
use crate::{TlsPems, TransportError, ca};

/// What HTTP/2 is called in a handshake.
const HTTP_ALPN: &[u8] = b"h2";
/// Pause after a failed accept (out of file descriptors).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Connections after their handshake that wait for the HTTP/2 server.
const WAITING_MAX: usize = 64;

/// Who takes streams; nobody until the front-ends stand.
pub(crate) type StreamTaker = Arc<OnceLock<Arc<dyn StreamService>>>;

/// The listening side of both kinds of connections. Without a certificate it goes on to the HTTP/2 server, which lets
/// such a caller do nothing but ask for admission.
///
/// # Errors
/// [`TransportError::Tls`].
pub(crate) fn server_tls(tls: &TlsPems) -> Result<ServerConfig, TransportError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(tls)?), Arc::clone(&provider))
        .allow_unauthenticated()
        .build()
        .map_err(unusable)?;
    let (chain, key) = identity(tls)?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(unusable)?;
    config.alpn_protocols = vec![HTTP_ALPN.to_vec(), STREAM_ALPN.to_vec()];
    // Nobody resumes. A ticket that the dialler has not read when it closes makes the kernel reset the connection, and what it
    // wrote last may be lost.
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// The dialling side of streams.
///
/// # Errors
/// [`TransportError::Tls`].
pub(crate) fn stream_tls(tls: &TlsPems) -> Result<ClientConfig, TransportError> {
    let (chain, key) = identity(tls)?;
    let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_root_certificates(roots(tls)?)
        .with_client_auth_cert(chain, key)
        .map_err(unusable)?;
    config.alpn_protocols = vec![STREAM_ALPN.to_vec()];
    Ok(config)
}

fn unusable(error: impl std::fmt::Display) -> TransportError {
    TransportError::Tls(error.to_string())
}

fn roots(tls: &TlsPems) -> Result<RootCertStore, TransportError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(tls.ca.as_bytes()) {
        roots.add(certificate.map_err(unusable)?).map_err(unusable)?;
    }
    Ok(roots)
}

/// This node's certificate with the CA behind it, so that a joiner sees the CA it was told to trust.
fn identity(tls: &TlsPems) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TransportError> {
    let text = format!("{}\n{}", tls.certificate.trim_end(), tls.ca);
    let chain = CertificateDer::pem_slice_iter(text.as_bytes()).collect::<Result<_, _>>().map_err(unusable)?;
    Ok((chain, PrivateKeyDer::from_pem_slice(tls.key.as_bytes()).map_err(unusable)?))
}

/// The member whose certificate this is.
///
/// # Errors
/// The reason for the caller's log.
pub(crate) fn member(table: &PeerTable, certificate: Option<&CertificateDer<'_>>) -> Result<NodeId, String> {
    let node = certificate
        .and_then(|certificate| ca::node_of(certificate))
        .ok_or("a certificate of a node of this cluster is required")?;
    if table.members.borrow().contains_key(&node) {
        return Ok(node);
    }
    Err(format!("node {} is no member of the cluster", node.0))
}

/// Connections for the HTTP/2 server; streams are run on the way. Stops listening when `stop` says so.
pub(crate) fn connections(
    table: Arc<PeerTable>,
    taker: StreamTaker,
    (listener, tls): (TcpListener, ServerConfig),
    stop: CancellationToken,
) -> ReceiverStream<io::Result<TlsStream<TcpStream>>> {
    let (sender, receiver) = mpsc::channel(WAITING_MAX);
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    tokio::spawn(async move {
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((socket, _)) => {
                    let (table, taker, acceptor) = (Arc::clone(&table), Arc::clone(&taker), acceptor.clone());
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
