//! One connection's bytes, plain or TLS, with no buffer held while it is idle.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use ports::streams::ByteStream;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Longest TLS handshake.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes taken from the socket at once.
const READ_BYTES: usize = 8 * 1024;
/// How long a closed connection waits for the peer's own end, so that our last words are not lost to a reset.
const LINGER: Duration = Duration::from_secs(1);
/// Bytes thrown away while lingering.
const LINGER_BYTES_MAX: usize = 256 * 1024;

/// What a connection came on.
pub enum Socket {
    /// The client's own connection to this node.
    Tcp(TcpStream),
    /// A client of another node, through that node.
    Stream(Box<dyn ByteStream>),
}

/// A connected stream.
pub enum Transport {
    /// Before TLS, or without.
    Plain(Socket),
    /// Encrypted.
    Tls(Box<TlsStream<Socket>>),
    /// Gone: a handshake failed.
    Closed,
}

impl Transport {
    /// Whether TLS is on.
    #[must_use]
    pub const fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// Does the server's side of the handshake.
    ///
    /// # Errors
    /// The peer speaks no TLS we accept, is too slow, or TLS was on already: drop the connection.
    pub async fn start_tls(&mut self, config: Arc<rustls::ServerConfig>) -> io::Result<()> {
        let Self::Plain(stream) = std::mem::replace(self, Self::Closed) else {
            return Err(io::Error::other("TLS is on already"));
        };
        // Boxed: the handshake's state is large and gone after it.
        let handshake = Box::pin(TlsAcceptor::from(config).accept(stream));
        let stream =
            tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await.map_err(|_| io::ErrorKind::TimedOut)??;
        *self = Self::Tls(Box::new(stream));
        Ok(())
    }

    /// Appends what arrived to `input` and returns how much; 0 = the peer ended its side. Cancel-safe.
    ///
    /// # Errors
    /// The connection is broken.
    pub async fn read_into(&mut self, input: &mut Vec<u8>) -> io::Result<usize> {
        read_some(self, input).await
    }

    /// Says goodbye (close_notify, FIN) and waits a moment for the peer's own end.
    pub async fn close(mut self) {
        let goodbye = async {
            if self.shutdown().await.is_err() {
                return;
            }
            let mut dropped = Vec::new();
            let mut total = 0;
            while let Ok(read) = self.read_into(&mut dropped).await {
                total += read;
                if read == 0 || total > LINGER_BYTES_MAX {
                    return;
                }
                dropped.clear();
            }
        };
        let _ = tokio::time::timeout(LINGER, goodbye).await;
    }
}

/// Appends what arrived to `input` and returns how much; 0 = the end. Cancel-safe. The read buffer lives on the stack of
/// the poll, so an idle connection holds none.
pub(crate) async fn read_some(from: &mut (impl AsyncRead + Unpin), input: &mut Vec<u8>) -> io::Result<usize> {
    std::future::poll_fn(|cx| {
        let mut bytes = [0; READ_BYTES];
        let mut buffer = ReadBuf::new(&mut bytes);
        ready!(Pin::new(&mut *from).poll_read(cx, &mut buffer))?;
        input.extend_from_slice(buffer.filled());
        Poll::Ready(Ok(buffer.filled().len()))
    })
    .await
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Stream(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Stream(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Stream(stream) => Pin::new(stream).poll_flush(cx),
        }
    }
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Stream(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

fn closed<T>() -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::ErrorKind::NotConnected.into()))
}

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => match ready!(Pin::new(stream.as_mut()).poll_read(cx, buffer)) {
                // A peer that drops TCP without close_notify has ended all the same; sessions frame their own data.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(())),
                other => Poll::Ready(other),
            },
            Self::Closed => closed(),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_write(cx, bytes),
            Self::Closed => closed(),
        }
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
            Self::Closed => closed(),
        }
    }
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
            Self::Closed => Poll::Ready(Ok(())),
        }
    }
}
