//! Listening: binding, the accept loop, limits of connections, the gate of a node that does not serve (another node may
//! serve its clients, see [`crate::proxy`]), implicit TLS.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ports::Answer;
use socket2::{Domain, Protocol as SocketProtocol, SockRef, TcpKeepalive, Type};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use vocab::session::{Peer, Session};

use crate::drive::{Answerer, drive};
use crate::proxy::{Balancers, Proxy};
use crate::tls::Tls;
use crate::transport::{Socket, Transport};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;
/// Silence of the network after which a peer is asked whether it is still there.
const KEEPALIVE: Duration = Duration::from_secs(300);
/// Pause after a failed accept (out of file descriptors).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Why a connection is turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TurnedAway {
    /// This node does not serve now: `421 4.3.2`, `* BYE [UNAVAILABLE]`, `-ERR [SYS/TEMP]`.
    NotServing,
    /// Too many connections, of all or of this client: `421 4.7.0`, `* BYE [LIMIT]`, `-ERR [SYS/TEMP]`.
    TooMany,
}

/// Whether this connection may go on: the node serves, runs, and holds the address the client called.
#[derive(Clone, Default)]
pub struct Open([Option<watch::Receiver<bool>>; 3]);

impl Open {
    /// Open while all of these are true; `None` is always true. The first says whether this node serves.
    #[must_use]
    pub const fn while_all(conditions: [Option<watch::Receiver<bool>>; 3]) -> Self {
        Self(conditions)
    }
    /// What is left of it for a connection that another node serves.
    #[must_use]
    pub fn apart_from_serving(&self) -> Self {
        let [_, running, holding] = &self.0;
        Self([None, running.clone(), holding.clone()])
    }
    /// Whether the client called an address that this node may lose: the cluster address.
    #[must_use]
    pub fn is_by_address(&self) -> bool {
        self.0.last().is_some_and(Option::is_some)
    }
    /// Resolves when all conditions are true. Cancel-safe; never ends when an owner is gone.
    pub async fn opened(&mut self) {
        while !self.is_open() {
            let [a, b, c] = &mut self.0;
            tokio::select! {
                () = changes(a) => {}
                () = changes(b) => {}
                () = changes(c) => {}
            }
        }
    }
    /// Now.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.0.iter().flatten().all(|condition| *condition.borrow())
    }
    /// Resolves when one of the conditions is false or its owner is gone. Cancel-safe.
    pub async fn closed(&mut self) {
        async fn ends(condition: &mut Option<watch::Receiver<bool>>) {
            match condition {
                Some(condition) => drop(condition.wait_for(|open| !*open).await),
                None => std::future::pending().await,
            }
        }
        let [a, b, c] = &mut self.0;
        tokio::select! {
            () = ends(a) => {}
            () = ends(b) => {}
            () = ends(c) => {}
        }
    }
}

async fn changes(condition: &mut Option<watch::Receiver<bool>>) {
    let changed = match condition {
        Some(condition) => condition.changed().await.is_ok(),
        None => false,
    };
    if !changed {
        std::future::pending().await
    }
}

/// An accepted connection on its way to its protocol.
pub struct Connection {
    /// The bytes.
    pub transport: Transport,
    /// Who it is.
    pub peer: Peer,
    /// Until when.
    pub open: Open,
    /// For STARTTLS.
    pub tls: Option<Tls>,
    /// Counts it while it lives.
    pub place: Option<Place>,
}

/// One service behind one or more ports.
pub trait Service: Send + Sync + 'static {
    /// For logs and metrics.
    fn name(&self) -> &'static str;
    /// Whether it is closed while the node does not serve (administration is not).
    fn gated(&self) -> bool {
        true
    }
    /// What is said to a client that is turned away.
    fn farewell(&self, why: TurnedAway) -> &'static str;
    /// Runs a connection to its end.
    fn serve(&self, connection: Connection) -> Answer<'static, ()>;
}

/// A protocol of sealed sessions; every one is a [`Service`].
pub trait Protocol: Send + Sync + 'static {
    /// The machine.
    type Session: Session + 'static;
    /// Who answers its questions.
    type Answerer: Answerer<Self::Session> + 'static;
    /// For logs and metrics.
    fn name(&self) -> &'static str;
    /// One line with CRLF for a client that is turned away.
    fn farewell(&self, why: TurnedAway) -> &'static str;
    /// A new session for a connection.
    fn open(&self, peer: &Peer) -> (Self::Session, Self::Answerer);
}

impl<P: Protocol> Service for P {
    fn name(&self) -> &'static str {
        Protocol::name(self)
    }
    fn farewell(&self, why: TurnedAway) -> &'static str {
        Protocol::farewell(self, why)
    }
    fn serve(&self, connection: Connection) -> Answer<'static, ()> {
        let (session, answerer) = self.open(&connection.peer);
        Box::pin(drive(session, answerer, connection))
    }
}

/// The network a client is counted under: its IPv4 address or its IPv6 /64.
#[must_use]
pub fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64))),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// Counts connections of one service, in all and by client network.
pub struct Places {
    name: &'static str,
    max: usize,
    per_network_max: usize,
    taken: Mutex<(usize, HashMap<IpAddr, usize>)>,
}

/// One counted connection; gives its place back when dropped.
pub struct Place {
    places: Arc<Places>,
    network: IpAddr,
}

impl Places {
    /// No connections yet.
    #[must_use]
    pub fn new(name: &'static str, max: usize, per_network_max: usize) -> Arc<Self> {
        Arc::new(Self { name, max, per_network_max, taken: Mutex::default() })
    }
    /// A place for this client, or `None` when there are too many.
    #[must_use]
    pub fn take(self: &Arc<Self>, client: IpAddr) -> Option<Place> {
        let network = network_of(client);
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let (total, by_network) = &mut *taken;
        let here = by_network.get(&network).copied().unwrap_or(0);
        if *total >= self.max || here >= self.per_network_max {
            return None;
        }
        *total += 1;
        by_network.insert(network, here + 1);
        metrics::gauge!("twinpost_connections_open", "service" => self.name).increment(1);
        Some(Place { places: self.clone(), network })
    }
    /// Connections now.
    #[must_use]
    pub fn count(&self) -> usize {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Place {
    /// The service it is a place of.
    #[must_use]
    pub fn service(&self) -> &'static str {
        self.places.name
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let (total, by_network) = &mut *taken;
        *total = total.saturating_sub(1);
        if let Some(here) = by_network.get_mut(&self.network) {
            *here = here.saturating_sub(1);
            if *here == 0 {
                by_network.remove(&self.network);
            }
        }
        metrics::gauge!("twinpost_connections_open", "service" => self.places.name).decrement(1);
    }
}

/// A service on a port.
#[derive(Clone)]
pub struct Endpoint {
    /// Name among the doors, told to a node that serves a connection for this one.
    pub name: &'static str,
    /// Who serves.
    pub service: Arc<dyn Service>,
    /// Where.
    pub port: u16,
    /// TLS from the first byte.
    pub implicit_tls: bool,
    /// The certificate.
    pub tls: Tls,
    /// Places, shared by all ports of the service.
    pub places: Arc<Places>,
    /// Finds another node for its connections while this one does not serve.
    pub proxy: Option<Arc<Proxy>>,
    /// Who may say that its connections are somebody else's.
    pub balancers: Option<Arc<Balancers>>,
}

/// Binds a listening socket.
///
/// # Errors
/// The address is not here, or the port is taken.
pub fn bind(address: IpAddr, port: u16) -> io::Result<TcpListener> {
    listen(address, port, false)
}

/// Binds a listening socket on an address that may be elsewhere now.
///
/// # Errors
/// The port is taken.
pub fn bind_ahead(address: IpAddr, port: u16) -> io::Result<TcpListener> {
    listen(address, port, true)
}

fn listen(address: IpAddr, port: u16, ahead: bool) -> io::Result<TcpListener> {
    let address = SocketAddr::new(address, port);
    let socket = socket2::Socket::new(Domain::for_address(address), Type::STREAM, Some(SocketProtocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
        socket.set_freebind_v6(ahead)?;
    } else {
        socket.set_freebind_v4(ahead)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Accepts for ever (until the task is ended). `open` is what every connection of this listener depends on, beside
/// what its service adds.
pub async fn accept_all(listener: TcpListener, endpoint: Endpoint, open: Open) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                metrics::counter!("twinpost_connections_total", "service" => endpoint.service.name()).increment(1);
                // Boxed, so that a connection holds no room for its beginning while it runs.
                let beginning = Box::pin(receive(stream, peer, endpoint.clone(), open.clone()));
                tokio::spawn(async move {
                    let begun = beginning.await;
                    if let Some(run) = begun {
                        run.await;
                    }
                });
            }
            Err(error) => {
                tracing::warn!(service = endpoint.service.name(), %error, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// The beginning of a connection; returns the rest of its life, unless it was turned away.
async fn receive(stream: TcpStream, client: SocketAddr, endpoint: Endpoint, open: Open) -> Option<Answer<'static, ()>> {
    let _ = stream.set_nodelay(true);
    let _ = SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE));
    let called = stream.local_addr().ok()?;
    let (mut socket, mut ends) = (Socket::Tcp(stream), (client, called));
    if let Some(balancers) = &endpoint.balancers {
        ends = match balancers.ends(&mut socket, ends).await {
            Ok(ends) => ends,
            Err(error) => {
                metrics::counter!("twinpost_proxy_headers_refused_total", "service" => endpoint.name).increment(1);
                tracing::warn!(service = endpoint.name, balancer = %client.ip(), %error, "no PROXY header");
                return None;
            }
        };
    }
    let address = ends.0.ip().to_canonical();
    let (socket, place) = admit(socket, address, &endpoint).await?;
    if let Some(proxy) = endpoint.proxy.clone()
        && let Some(assigned) = proxy.assign(&open, &endpoint)
        && let Some(far) = proxy.open(assigned.to, &endpoint, ends, &open).await
    {
        return Some(Box::pin(async move {
            let _place = place;
            proxy.carry(assigned, endpoint.name, (socket, far), open).await;
        }));
    }
    serve_here(socket, address, endpoint, open, place).await
}

/// A place for this client; without one the connection is turned away.
pub(crate) async fn admit(socket: Socket, client: IpAddr, endpoint: &Endpoint) -> Option<(Socket, Place)> {
    if let Some(place) = endpoint.places.take(client) {
        return Some((socket, place));
    }
    metrics::counter!("twinpost_connections_refused_total", "service" => endpoint.service.name()).increment(1);
    // Under pressure no handshake is spent on a goodbye: behind implicit TLS the connection just ends.
    if !endpoint.implicit_tls {
        say(Transport::Plain(socket), endpoint.service.farewell(TurnedAway::TooMany)).await;
    }
    None
}

/// Begins a connection at this node, or says why it cannot be; returns the rest of its life.
pub(crate) async fn serve_here(
    socket: Socket,
    client: IpAddr,
    endpoint: Endpoint,
    open: Open,
    place: Place,
) -> Option<Answer<'static, ()>> {
    let mut transport = Transport::Plain(socket);
    if endpoint.implicit_tls
        && let Err(error) = transport.start_tls(endpoint.tls.current()).await
    {
        handshake_failed(endpoint.service.name(), client, &error);
        return None;
    }
    if !open.is_open() {
        say(transport, endpoint.service.farewell(TurnedAway::NotServing)).await;
        return None;
    }
    let peer = Peer { address: client, tls: transport.is_tls() };
    // The guard of the place moves along and is dropped with the connection.
    let connection = Connection { transport, peer, open, tls: Some(endpoint.tls), place: Some(place) };
    Some(endpoint.service.serve(connection))
}

/// Counts a client that speaks no TLS we accept, or none at all; its connection just ends.
pub(crate) fn handshake_failed(service: &'static str, client: IpAddr, error: &io::Error) {
    metrics::counter!("twinpost_tls_failures_total", "service" => service).increment(1);
    tracing::debug!(service, %client, %error, "TLS handshake failed");
}

async fn say(mut transport: Transport, text: &str) {
    if transport.write_all(text.as_bytes()).await.is_ok() {
        transport.close().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_in_all_and_by_network() {
        let places = Places::new("test", 3, 2);
        let (a, b) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        let first = places.take(a).expect("room");
        let _second = places.take(a).expect("room");
        assert!(places.take(a).is_none(), "per network");
        let _third = places.take(b).expect("room");
        assert!(places.take(b).is_none(), "in all");
        drop(first);
        assert!(places.take(a).is_some());
        assert_eq!(places.count(), 2);
    }

    #[test]
    fn an_ipv6_client_is_its_network() {
        let of = |text: &str| network_of(text.parse().expect("address"));
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff"));
        assert_ne!(of("2001:db8:0:1::1"), of("2001:db8::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
    }
}
