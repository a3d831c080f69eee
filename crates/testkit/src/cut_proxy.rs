//! A network cable for tests without privileges: a TCP proxy that can be cut, so that nothing arrives any more while
//! every connection stays open, as when a switch dies.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Bytes carried at once.
const PIECE_BYTES: usize = 64 * 1024;

/// One cable; cutting it holds back both directions, and new connections.
pub struct CutProxy {
    address: SocketAddr,
    to: watch::Sender<Option<SocketAddr>>,
    cut: watch::Sender<bool>,
    fuse: Arc<AtomicUsize>,
    stop: CancellationToken,
}

impl CutProxy {
    /// Listens at `at` (port 0: any) and carries everything to `to`, until it is dropped.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub async fn start(at: SocketAddr, to: SocketAddr) -> io::Result<Self> {
        let proxy = Self::bind(at).await?;
        proxy.lead_to(to);
        Ok(proxy)
    }

    /// Listens at `at`; connections wait until [`Self::lead_to`] says where to.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub async fn bind(at: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(at).await?;
        let address = listener.local_addr()?;
        let (to, cut, stop) = (watch::Sender::new(None), watch::Sender::new(false), CancellationToken::new());
        let fuse = Arc::new(AtomicUsize::new(usize::MAX));
        let ends = (cut.clone(), Arc::clone(&fuse));
        tokio::spawn(accept(listener, to.subscribe(), ends, stop.clone()));
        Ok(Self { address, to, cut, fuse, stop })
    }

    /// Where it leads from now on.
    pub fn lead_to(&self, to: SocketAddr) {
        self.to.send_replace(Some(to));
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts it or mends it. What was under way when it was cut arrives when it is mended, as TCP would send it again.
    pub fn cut(&self, cut: bool) {
        self.cut.send_replace(cut);
    }

    /// Cuts it once it has carried so many more bytes, both directions together.
    pub fn cut_after(&self, bytes: usize) {
        self.fuse.store(bytes, Ordering::SeqCst);
    }
}

impl Drop for CutProxy {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn accept(
    listener: TcpListener,
    to: watch::Receiver<Option<SocketAddr>>,
    (cut, fuse): (watch::Sender<bool>, Arc<AtomicUsize>),
    stop: CancellationToken,
) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((client, _)) = accepted else { continue };
        let (mut to, mut mended, stop) = (to.clone(), cut.subscribe(), stop.clone());
        let (cut, fuse) = (cut.clone(), Arc::clone(&fuse));
        tokio::spawn(async move {
            let carried = async {
                let _ = mended.wait_for(|cut| !*cut).await;
                let led = *to.wait_for(Option::is_some).await.map_err(io::Error::other)?;
                let server = TcpStream::connect(led.ok_or(io::ErrorKind::NotConnected)?).await?;
                client.set_nodelay(true)?;
                server.set_nodelay(true)?;
                let ((from, back), (answers, there)) = (client.into_split(), server.into_split());
                tokio::try_join!(carry(from, there, (&cut, &fuse)), carry(answers, back, (&cut, &fuse))).map(drop)
            };
            tokio::select! {
                () = stop.cancelled() => {}
                // The end of one side is the end of the other.
                _ = carried => {}
            }
        });
    }
}

async fn carry(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    (cut, fuse): (&watch::Sender<bool>, &AtomicUsize),
) -> io::Result<()> {
    let mut piece = vec![0; PIECE_BYTES];
    let mut mended = cut.subscribe();
    loop {
        let count = from.read(&mut piece).await?;
        let left = fuse.load(Ordering::SeqCst);
        if left < usize::MAX {
            fuse.store(left.saturating_sub(count), Ordering::SeqCst);
            if left <= count {
                fuse.store(usize::MAX, Ordering::SeqCst);
                cut.send_replace(true);
            }
        }
        let _ = mended.wait_for(|cut| !*cut).await;
        if count == 0 {
            // Ends both directions: half-closed connections are not what these tests are about.
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        to.write_all(piece.get(..count).unwrap_or_default()).await?;
    }
}
