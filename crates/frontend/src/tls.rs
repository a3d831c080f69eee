//! The service certificate: from PEM files, reloaded when they change, never taken away when they are bad.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// New files are in use after this time, unless they are bad.
pub const RELOADED_WITHIN: Duration = Duration::from_secs(3);

/// PEM files of the certificate for clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificate chain, own certificate first.
    pub certificate: PathBuf,
    /// Private key (PKCS #8, SEC1 or PKCS #1).
    pub key: PathBuf,
}

type Stamp = [Option<(SystemTime, u64)>; 2];

/// The TLS settings new connections use; clones share them.
#[derive(Clone)]
pub struct Tls {
    files: TlsFiles,
    config: Arc<ArcSwap<ServerConfig>>,
    /// The files as they were before they were read.
    read: Stamp,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// They cannot be read, hold no certificate or key, or the two do not belong together.
    pub fn load(files: TlsFiles) -> io::Result<Self> {
        // Before the files are read: what changes from now on is read again.
        let stamp = stamp(&files);
        let config = read(&files)?;
        Ok(Self { files, config: Arc::new(ArcSwap::from_pointee(config)), read: stamp })
    }

    /// What to use for a connection that begins now.
    #[must_use]
    pub fn current(&self) -> Arc<ServerConfig> {
        self.config.load_full()
    }

    /// Looks for changed files for ever. Files that cannot be used leave the old certificate in place.
    pub async fn keep_fresh(self) {
        let mut seen = self.read;
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let now = stamp(&self.files);
            if now == seen {
                continue;
            }
            match read(&self.files) {
                Ok(config) => {
                    self.config.store(Arc::new(config));
                    tracing::info!(certificate = %self.files.certificate.display(), "certificate for clients reloaded");
                    seen = now;
                }
                // Perhaps half written: look again next time.
                Err(error) => tracing::warn!(%error, "new certificate for clients not usable, the old one stays"),
            }
        }
    }
}

fn stamp(files: &TlsFiles) -> Stamp {
    [&files.certificate, &files.key].map(|path| {
        let meta = std::fs::metadata(path).ok()?;
        Some((meta.modified().ok()?, meta.len()))
    })
}

fn read(files: &TlsFiles) -> io::Result<ServerConfig> {
    let bad = |path: &PathBuf, what: String| io::Error::other(format!("{}: {what}", path.display()));
    let chain = CertificateDer::pem_file_iter(&files.certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|e| bad(&files.certificate, e.to_string()))?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|e| bad(&files.key, e.to_string()))?;
    server_config(chain, key).map_err(|e| bad(&files.certificate, e.to_string()))
}

/// TLS 1.2 and 1.3, session tickets, no client certificates.
///
/// # Errors
/// The key does not belong to the certificate, or cannot be used.
pub fn server_config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ServerConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.ticketer = rustls::crypto::ring::Ticketer::new()?;
    config.send_tls13_tickets = 1;
    Ok(config)
}
