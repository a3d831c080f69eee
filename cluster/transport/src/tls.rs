//! The certificates in use now: they can be exchanged while everything runs, and connections that begin from then on use
//! the new ones. What stands goes on, unless a CA it rests on is trusted no more.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::streams::STREAM_ALPN;
use crate::{TlsPems, TransportError, dial};

/// What HTTP/2 is called in a handshake.
const HTTP_ALPN: &[u8] = b"h2";
/// A link on a certificate that is not accepted any more is ended after this time: its dialler moves it by itself before.
const MOVES_WITHIN: Duration = Duration::from_secs(10);
/// Certificates that are remembered as accepted; a cluster has a handful.
const ACCEPTED_MAX: usize = 256;

/// Everything that is made of one set of PEM texts.
pub(crate) struct Tls {
    /// What it is made of.
    pub(crate) pems: TlsPems,
    /// The listening side of both kinds of connections.
    pub(crate) server: Arc<ServerConfig>,
    /// The dialling side of streams.
    pub(crate) stream: Arc<ClientConfig>,
    /// How often a CA was taken away since the start.
    pub(crate) dropped: u64,
    clients: Arc<dyn ClientCertVerifier>,
    /// Hashes of certificates that were accepted.
    accepted: Mutex<HashSet<blake3::Hash>>,
}

impl Tls {
    /// # Errors
    /// [`TransportError::Tls`]: the texts are no certificates, or key and certificate do not belong together.
    pub(crate) fn new(pems: TlsPems, dropped: u64) -> Result<Self, TransportError> {
        dial::check_pems(&pems)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        // Without a certificate a caller goes on to the HTTP/2 server, which lets it do nothing but ask for admission.
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(&pems)?), provider)
            .allow_unauthenticated()
            .build()
            .map_err(unusable)?;
        let server = Arc::new(server(&pems, Arc::clone(&clients))?);
        let stream = Arc::new(stream(&pems)?);
        Ok(Self { pems, server, stream, dropped, clients, accepted: Mutex::default() })
    }

    /// What follows this: `dropped` rises when a CA of before is not among the new ones.
    ///
    /// # Errors
    /// As [`Tls::new`].
    pub(crate) fn replaced_by(&self, pems: TlsPems) -> Result<Self, TransportError> {
        let (old, new) = (authorities(&self.pems)?, authorities(&pems)?);
        let lost = old.iter().any(|ca| !new.contains(ca));
        Self::new(pems, self.dropped + u64::from(lost))
    }

    /// Whether one of the CAs trusted now signed this certificate. Asked for every call, because a connection outlives the
    /// trust under which it was made.
    pub(crate) fn accepts(&self, certificate: &CertificateDer<'_>) -> bool {
        let hash = blake3::hash(certificate);
        let mut accepted = self.accepted.lock().unwrap_or_else(PoisonError::into_inner);
        if accepted.contains(&hash) {
            return true;
        }
        let good = self.clients.verify_client_cert(certificate, &[], UnixTime::now()).is_ok();
        if good {
            if accepted.len() >= ACCEPTED_MAX {
                accepted.clear();
            }
            accepted.insert(hash);
        }
        good
    }
}

/// Ends what rests on this certificate some time after it is accepted no more.
pub(crate) async fn end_untrusted(
    mut tls: watch::Receiver<Arc<Tls>>,
    certificate: CertificateDer<'static>,
    end: CancellationToken,
) {
    let mut now = Arc::clone(&tls.borrow());
    while now.accepts(&certificate) {
        let dropped = now.dropped;
        let changed = tokio::select! {
            () = end.cancelled() => return,
            changed = tls.wait_for(|now| now.dropped != dropped) => changed.map(|now| Arc::clone(&now)),
        };
        let Ok(next) = changed else { return };
        now = next;
    }
    tokio::select! {
        () = end.cancelled() => {}
        () = tokio::time::sleep(MOVES_WITHIN) => end.cancel(),
    }
}

fn server(tls: &TlsPems, verifier: Arc<dyn ClientCertVerifier>) -> Result<ServerConfig, TransportError> {
    let (chain, key) = identity(tls)?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(unusable)?;
    config.alpn_protocols = vec![HTTP_ALPN.to_vec(), STREAM_ALPN.to_vec()];
    // Nobody resumes: a session of before would outlive the trust it rests on. And a ticket that the dialler has not read
    // when it closes makes the kernel reset the connection, and what it wrote last may be lost.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    Ok(config)
}

fn stream(tls: &TlsPems) -> Result<ClientConfig, TransportError> {
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

fn authorities(tls: &TlsPems) -> Result<Vec<CertificateDer<'static>>, TransportError> {
    CertificateDer::pem_slice_iter(tls.ca.as_bytes()).collect::<Result<_, _>>().map_err(unusable)
}

fn roots(tls: &TlsPems) -> Result<RootCertStore, TransportError> {
    let mut roots = RootCertStore::empty();
    for certificate in authorities(tls)? {
        roots.add(certificate).map_err(unusable)?;
    }
    Ok(roots)
}

fn identity(tls: &TlsPems) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TransportError> {
    let chain = CertificateDer::pem_slice_iter(tls.chain().as_bytes()).collect::<Result<_, _>>().map_err(unusable)?;
    Ok((chain, PrivateKeyDer::from_pem_slice(tls.key.as_bytes()).map_err(unusable)?))
}
