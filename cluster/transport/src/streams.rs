//! Byte streams to and from other nodes: a TLS connection each, told from the calls of the same port by its ALPN name, so
//! that TCP itself holds back whoever writes too fast and a slow client delays nobody else.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use ports::streams::{ByteStream, StreamError, StreamService};
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use vocab::NodeId;

use crate::ca;
use crate::dial::{DIAL_WAIT, describe};
use crate::peer_table::PeerTable;

/// What a dialler of a stream asks for in its handshake.
pub(crate) const STREAM_ALPN: &[u8] = b"twinpost-stream";
/// Streams open at once with one peer, in each direction.
pub(crate) const STREAMS_PER_PEER_MAX: usize = 10_000;
/// Bytes that wait in the kernel for each direction of a stream, on each side.
const STREAM_BUFFER_BYTES: usize = 256 * 1024;
/// A peer whose host has been silent for this long while nothing was sent is asked whether it is still there ...
const SILENT_AFTER: Duration = Duration::from_secs(3);
/// ... this often ...
const ASK_EVERY: Duration = Duration::from_secs(2);
/// ... and this many times before the stream ends.
const ASK_TIMES: u32 = 3;
/// Bytes that a peer's host does not acknowledge for this long end the stream.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(9);

/// Counts the streams of one direction with one peer.
#[derive(Clone, Default)]
pub(crate) struct StreamPlaces(Arc<AtomicUsize>);

/// One counted stream.
struct StreamPlace(Arc<AtomicUsize>);

impl StreamPlaces {
    fn take(&self) -> Option<StreamPlace> {
        let taken = |open| (open < STREAMS_PER_PEER_MAX).then_some(open + 1);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken).ok()?;
        Some(StreamPlace(Arc::clone(&self.0)))
    }
    /// Streams now.
    pub(crate) fn open(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for StreamPlace {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A TLS stream that ends when its peer is no member any more or this node stops.
struct PeerStream<T> {
    tls: T,
    ended: Pin<Box<WaitForCancellationFutureOwned>>,
    _place: StreamPlace,
}

impl<T> PeerStream<T> {
    fn new(tls: T, end: &CancellationToken, place: StreamPlace) -> Self {
        Self { tls, ended: Box::pin(end.clone().cancelled_owned()), _place: place }
    }
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.ended.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::ErrorKind::ConnectionAborted.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for PeerStream<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.tls).poll_read(cx, buffer)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for PeerStream<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.tls).poll_write(cx, bytes)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.tls).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.tls).poll_shutdown(cx)
    }
}

/// Opens a stream to this member.
pub(crate) async fn open(table: &Arc<PeerTable>, to: NodeId) -> Result<Box<dyn ByteStream>, StreamError> {
    let slot = table.slot(to);
    let place = slot.streams_out.take().ok_or(StreamError::TooMany)?;
    let unreachable = |reason| StreamError::Unreachable(reason);
    let mut addresses = table.addresses(to);
    if addresses.is_empty() {
        return Err(unreachable(format!("node {} is no member", to.0)));
    }
    let used = slot.path().min(addresses.len().saturating_sub(1));
    addresses.swap(0, used);
    let name = ServerName::try_from(ca::node_name(to)).map_err(|error| unreachable(error.to_string()))?;
    let dialled = async {
        let socket = connect_any(&addresses).await?;
        prepare(&socket)?;
        TlsConnector::from(Arc::clone(&table.tls().stream)).connect(name, socket).await
    };
    let end = slot.streams_end();
    tokio::select! {
        dialled = tokio::time::timeout(DIAL_WAIT, dialled) => match dialled {
            Ok(Ok(tls)) => Ok(Box::new(PeerStream::new(tls, &end, place))),
            Ok(Err(error)) => Err(unreachable(describe(&error))),
            Err(_) => {
                let text = format!("no stream to {} in {} ms", addresses.join(" or "), DIAL_WAIT.as_millis());
                Err(unreachable(text))
            }
        },
        () = end.cancelled() => Err(unreachable("this node is stopping, or the other is no member".to_owned())),
    }
}

/// One path after the other.
async fn connect_any(addresses: &[String]) -> io::Result<TcpStream> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    let wait = DIAL_WAIT / u32::try_from(addresses.len() + 1).unwrap_or(2);
    for address in addresses {
        match tokio::time::timeout(wait, TcpStream::connect(address)).await {
            Ok(Ok(socket)) => return Ok(socket),
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}

/// Hands a stream of this member to whoever takes streams here, and runs it; without one it just ends.
pub(crate) async fn take<T: AsyncRead + AsyncWrite + Send + Sync + Unpin + 'static>(
    table: &PeerTable,
    service: Option<Arc<dyn StreamService>>,
    from: NodeId,
    tls: T,
) {
    let Some(service) = service else { return };
    let slot = table.slot(from);
    let Some(place) = slot.streams_in.take() else {
        tracing::warn!(node = from.0, "stream refused: there are too many");
        return;
    };
    service.take(from, Box::new(PeerStream::new(tls, &slot.streams_end(), place))).await;
}

/// No delay, bounded buffers, and an end when the other host is silent.
///
/// # Errors
/// The socket is closed.
pub(crate) fn prepare(socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let socket = SockRef::from(socket);
    socket.set_send_buffer_size(STREAM_BUFFER_BYTES)?;
    socket.set_recv_buffer_size(STREAM_BUFFER_BYTES)?;
    let keepalive = TcpKeepalive::new().with_time(SILENT_AFTER).with_interval(ASK_EVERY).with_retries(ASK_TIMES);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX))
}

/// Ends links, channels and streams of nodes that are removed.
pub(crate) async fn end_removed(table: Arc<PeerTable>) {
    let mut members = table.members.clone();
    loop {
        tokio::select! {
            () = table.stop.cancelled() => return,
            changed = members.changed() => if changed.is_err() { return },
        }
        let now = members.borrow_and_update().clone();
        for slot in table.slots_besides(&now) {
            slot.end_streams();
            slot.set_channel(None);
            slot.interrupt();
        }
    }
}
