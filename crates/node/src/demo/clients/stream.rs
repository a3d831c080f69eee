//! A line-based connection with or without TLS, every wait bounded by one time limit.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Longest line a server may send (bytes); an IMAP ENVELOPE can be long.
const LINE_BYTES_MAX: usize = 1024 * 1024;
/// Largest literal a server may announce (bytes).
const LITERAL_BYTES_MAX: usize = 128 * 1024 * 1024;
/// Read buffer of one connection (bytes).
const READ_BUFFER_BYTES: usize = 16 * 1024;

trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// TLS settings of a client that trusts exactly one CA file.
#[derive(Clone)]
pub struct Trust {
    config: Arc<rustls::ClientConfig>,
}

impl Trust {
    /// Trusts the certificates in `ca_file` (PEM) and nothing else.
    ///
    /// # Errors
    /// The file cannot be read or holds no certificate.
    pub fn from_file(ca_file: &Path) -> anyhow::Result<Self> {
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(ca_file).with_context(|| ca_file.display().to_string())? {
            roots.add(certificate?)?;
        }
        let config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { config: Arc::new(config) })
    }
}

/// A connection that reads lines and literals.
pub struct LineStream {
    io: Option<Box<dyn Duplex>>,
    peer: SocketAddr,
    buffer: Vec<u8>,
    start: usize,
    limit: Duration,
}

impl LineStream {
    /// Connects in the clear; `limit` bounds this and every later wait.
    ///
    /// # Errors
    /// No connection within the limit.
    pub async fn connect(peer: SocketAddr, limit: Duration) -> anyhow::Result<Self> {
        let io = tokio::time::timeout(limit, TcpStream::connect(peer))
            .await
            .with_context(|| format!("{peer}: no connection"))?
            .with_context(|| format!("{peer}"))?;
        io.set_nodelay(true)?;
        Ok(Self { io: Some(Box::new(io)), peer, buffer: Vec::new(), start: 0, limit })
    }

    /// Connects with implicit TLS.
    ///
    /// # Errors
    /// No connection, or a certificate that `trust` does not cover for the peer's address.
    pub async fn connect_tls(peer: SocketAddr, trust: &Trust, limit: Duration) -> anyhow::Result<Self> {
        let mut stream = Self::connect(peer, limit).await?;
        stream.start_tls(trust).await?;
        Ok(stream)
    }

    /// Turns the connection into a TLS one (after STARTTLS or STLS).
    ///
    /// # Errors
    /// Bytes were waiting in the clear, or the handshake failed; the connection is unusable then.
    pub async fn start_tls(&mut self, trust: &Trust) -> anyhow::Result<()> {
        if self.start < self.buffer.len() {
            bail!("{}: bytes in the clear after the start of TLS", self.peer);
        }
        let Some(io) = self.io.take() else { bail!("{}: connection is gone", self.peer) };
        let name = ServerName::IpAddress(self.peer.ip().into());
        let tls = tokio::time::timeout(self.limit, TlsConnector::from(trust.config.clone()).connect(name, io))
            .await
            .with_context(|| format!("{}: no TLS in time", self.peer))?
            .with_context(|| format!("{}: TLS", self.peer))?;
        self.io = Some(Box::new(tls));
        Ok(())
    }

    /// Changes the limit of every later wait.
    pub fn set_limit(&mut self, limit: Duration) {
        self.limit = limit;
    }

    /// Writes everything and flushes.
    ///
    /// # Errors
    /// The connection broke or stood still for the limit.
    pub async fn write(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        let (peer, limit) = (self.peer, self.limit);
        let io = self.io.as_mut().with_context(|| format!("{peer}: connection is gone"))?;
        tokio::time::timeout(limit, async {
            io.write_all(bytes).await?;
            io.flush().await
        })
        .await
        .with_context(|| format!("{peer}: write stands still"))?
        .with_context(|| format!("{peer}: write"))
    }

    /// Reads one line without its CRLF.
    ///
    /// # Errors
    /// The connection ended, stood still for the limit, or the line is too long.
    pub async fn read_line(&mut self) -> anyhow::Result<Vec<u8>> {
        let mut looked = 0;
        loop {
            let waiting = self.buffer.get(self.start..).unwrap_or_default();
            let found = waiting.get(looked..).unwrap_or_default().iter().position(|&byte| byte == b'\n');
            if let Some(at) = found.map(|at| at + looked) {
                let mut line = waiting.get(..at).unwrap_or_default().to_vec();
                self.start += at + 1;
                if line.last() == Some(&b'\r') {
                    line.pop();
                }
                return Ok(line);
            }
            looked = waiting.len();
            if looked > LINE_BYTES_MAX {
                bail!("{}: line too long", self.peer);
            }
            self.fill().await?;
        }
    }

    /// Reads exactly `count` bytes.
    ///
    /// # Errors
    /// As [`Self::read_line`].
    pub async fn read_exact(&mut self, count: usize) -> anyhow::Result<Vec<u8>> {
        if count > LITERAL_BYTES_MAX {
            bail!("{}: literal of {count} bytes", self.peer);
        }
        while self.buffer.len() - self.start < count {
            self.fill().await?;
        }
        let bytes = self.buffer.get(self.start..self.start + count).unwrap_or_default().to_vec();
        self.start += count;
        Ok(bytes)
    }

    async fn fill(&mut self) -> anyhow::Result<()> {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        let (peer, limit) = (self.peer, self.limit);
        let io = self.io.as_mut().with_context(|| format!("{peer}: connection is gone"))?;
        self.buffer.reserve(READ_BUFFER_BYTES);
        let count = tokio::time::timeout(limit, io.read_buf(&mut self.buffer))
            .await
            .with_context(|| format!("{peer}: no answer in {limit:?}"))?
            .with_context(|| format!("{peer}: read"))?;
        if count == 0 {
            bail!("{peer}: connection ended");
        }
        Ok(())
    }
}
