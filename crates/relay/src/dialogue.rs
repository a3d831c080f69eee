//! Runs the sealed client over a socket.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rustls::pki_types::ServerName;
use smtp::client::{Client, ClientOutput, Job, Refusal};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::client::TlsStream;

use crate::noted::Noted;
use crate::tls::Connectors;

/// Waiting for a connection.
const CONNECT_WAIT: Duration = Duration::from_secs(30);
/// Waiting for a handshake.
const HANDSHAKE_WAIT: Duration = Duration::from_secs(60);
/// Waiting until one piece of data is taken (RFC 5321 §4.5.3.2.5).
const WRITE_WAIT: Duration = Duration::from_secs(3 * 60);
/// Data is written in pieces of this size.
const WRITE_BYTES: usize = 64 * 1024;
/// Saying goodbye may take this long and changes nothing.
const CLOSE_WAIT: Duration = Duration::from_secs(5);

/// A connection that takes no more may still have a reply for us.
const LAST_WORDS_WAIT: Duration = Duration::from_secs(5);

/// Which certificates do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Security {
    /// Any.
    Any,
    /// One for the host's name.
    Verified,
    /// The same, and TLS begins at once.
    ImplicitVerified,
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Closed,
}

impl Stream {
    async fn read(&mut self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read_buf(buffer).await,
            Self::Tls(stream) => stream.read_buf(buffer).await,
            Self::Closed => Ok(0),
        }
    }
    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        for piece in bytes.chunks(WRITE_BYTES) {
            let written = async {
                match self {
                    Self::Plain(stream) => stream.write_all(piece).await,
                    Self::Tls(stream) => {
                        stream.write_all(piece).await?;
                        stream.flush().await
                    }
                    Self::Closed => Err(io::ErrorKind::NotConnected.into()),
                }
            };
            timeout(WRITE_WAIT, written).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        }
        Ok(())
    }
    async fn close(&mut self) {
        let closed = async {
            match self {
                Self::Plain(stream) => stream.shutdown().await,
                Self::Tls(stream) => stream.shutdown().await,
                Self::Closed => Ok(()),
            }
        };
        // The outcome is known already.
        let _ = timeout(CLOSE_WAIT, closed).await;
    }
}

fn not_connected(status: &str, why: impl std::fmt::Display) -> Refusal {
    Refusal { permanent: false, elsewhere: true, status: status.to_owned(), diagnostic: why.to_string() }
}

async fn start_tls(
    connectors: &Connectors,
    stream: TcpStream,
    (host, security): (&str, Security),
) -> io::Result<Stream> {
    let connector = if security == Security::Any { &connectors.any } else { &connectors.verified };
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let handshake = timeout(HANDSHAKE_WAIT, connector.connect(name, stream)).await;
    let stream = handshake.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    Ok(Stream::Tls(Box::new(stream)))
}

/// One job with one recipient to one address.
///
/// # Errors
/// Why the recipient did not get it.
pub(crate) async fn run(
    connectors: &Connectors,
    address: SocketAddr,
    (host, security): (&str, Security),
    job: Job,
    mut noted: Option<Noted>,
) -> Result<(), Refusal> {
    let connected = timeout(CONNECT_WAIT, TcpStream::connect(address)).await;
    let stream = match connected {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(not_connected("4.4.1", error)),
        Err(_) => return Err(not_connected("4.4.1", "no connection in time")),
    };
    let _ = stream.set_nodelay(true);
    let mut stream = match security {
        Security::ImplicitVerified => start_tls(connectors, stream, (host, security))
            .await
            .map_err(|error| not_connected("4.7.5", format!("TLS handshake failed: {error}")))?,
        _ => Stream::Plain(stream),
    };
    let start = Instant::now();
    let now = || vocab::Instant(1 + u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX - 1));
    let mut client = Client::new(job, now());
    let mut input = Vec::new();
    let mut broken = false;
    loop {
        while let Some(output) = client.next_output() {
            match output {
                // A host that closed has often said why: its reply, or the end, is found by the next read.
                ClientOutput::Write(bytes) => {
                    if let Some(noted) = &mut noted {
                        noted.said(&bytes);
                    }
                    broken |= !broken && stream.write(&bytes).await.is_err();
                }
                ClientOutput::StartTls => {
                    input.clear();
                    noted.as_mut().into_iter().for_each(Noted::starts_tls);
                    let Stream::Plain(plain) = std::mem::replace(&mut stream, Stream::Closed) else { continue };
                    match start_tls(connectors, plain, (host, security)).await {
                        Ok(secure) => {
                            stream = secure;
                            client.on_tls(now());
                        }
                        Err(_) => client.on_end(),
                    }
                }
                ClientOutput::Done(outcome) => {
                    stream.close().await;
                    return outcome.into_iter().next().unwrap_or_else(|| Err(not_connected("4.3.0", "no recipient")));
                }
            }
        }
        let due = client.deadline().map_or_else(Instant::now, |at| start + Duration::from_millis(at.0));
        tokio::select! {
            read = stream.read(&mut input) => match read {
                Ok(1..) => {
                    let used = client.on_bytes(&input, now()).min(input.len());
                    if let (Some(noted), Some(bytes)) = (&mut noted, input.get(..used)) {
                        noted.heard(bytes);
                    }
                    input.drain(..used);
                }
                Ok(0) | Err(_) => client.on_end(),
            },
            () = tokio::time::sleep(LAST_WORDS_WAIT), if broken => client.on_end(),
            () = sleep_until(due) => client.on_deadline(now()),
        }
    }
}
