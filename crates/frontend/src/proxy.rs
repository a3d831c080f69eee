//! Which node serves a new connection, and the connections of one node that another node serves: their bytes are carried
//! as they come, so that TLS ends where they are served.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ports::Answer;
use ports::cluster::Cluster;
use ports::config::Config;
use ports::streams::{ByteStream, StreamService, Streams};
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use vocab::NodeId;

use crate::config::Network;
use crate::drive::timed;
use crate::listener::{Endpoint, Open, admit, serve_here};
use crate::proxy_header::ProxyHeader;
use crate::share::{Share, Shares};
use crate::transport::{Socket, read_some};

/// How long the other node has to take a connection; it is near, or it is not there.
const OPEN_WAIT: Duration = Duration::from_secs(3);
/// How long a node that opened a stream, or a balancer, has to say whose it is.
const HEADER_WAIT: Duration = Duration::from_secs(5);
/// How long a client may keep its side open after the node that served it has ended.
const END_WAIT: Duration = Duration::from_secs(5);
/// How often the node that serves a connection by choice is looked at; its own end of the connection is heard at once.
const PARTNER_LOOK: Duration = Duration::from_secs(2);
/// Looks in a row at which it does not serve until its connections here end.
const PARTNER_MISSES: u32 = 2;
/// Answers to the header: the connection is served from here on, or it is not.
const TAKEN: u8 = 1;
const REFUSED: u8 = 0;

/// Connections that one node accepted and another serves, as seen here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ProxyStatus {
    /// Accepted here, served elsewhere, now.
    pub open: u64,
    /// The same since this process started.
    pub total: u64,
    /// Accepted elsewhere, served here, now.
    pub taken_open: u64,
    /// The same since this process started.
    pub taken_total: u64,
}

#[derive(Default)]
struct Counter {
    open: AtomicU64,
    total: AtomicU64,
}

/// One counted connection.
struct Counted<'a>(&'a Counter, metrics::Gauge);

impl Counter {
    fn count(&self, direction: &'static str, service: &'static str) -> Counted<'_> {
        self.open.fetch_add(1, Ordering::Relaxed);
        self.total.fetch_add(1, Ordering::Relaxed);
        let labels = [("direction", direction), ("service", service)];
        metrics::counter!("twinpost_connections_proxied_total", &labels).increment(1);
        let gauge = metrics::gauge!("twinpost_connections_proxied_open", &labels);
        gauge.increment(1);
        Counted(self, gauge)
    }
    fn read(&self) -> (u64, u64) {
        (self.open.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed))
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
        self.1.decrement(1);
    }
}

/// Shared by all listeners.
pub struct Proxy {
    cluster: Arc<dyn Cluster>,
    streams: Arc<dyn Streams>,
    config: Arc<dyn Config>,
    given: Counter,
    taken: Counter,
    shares: Shares,
}

/// Another node serves a connection.
pub(crate) struct Assigned {
    /// Which.
    pub(crate) to: NodeId,
    /// By choice: this node could serve it, too.
    pub(crate) share: Option<Share>,
}

impl Proxy {
    /// Nothing proxied yet.
    #[must_use]
    pub fn new(cluster: Arc<dyn Cluster>, streams: Arc<dyn Streams>, config: Arc<dyn Config>) -> Self {
        let (given, taken) = (Counter::default(), Counter::default());
        Self { cluster, streams, config, given, taken, shares: Shares::default() }
    }

    /// Now.
    #[must_use]
    pub fn status(&self) -> ProxyStatus {
        let ((open, total), (taken_open, taken_total)) = (self.given.read(), self.taken.read());
        ProxyStatus { open, total, taken_open, taken_total }
    }

    /// The other node that serves a connection that begins now; `None` = this one. The one place where it is chosen.
    pub(crate) fn assign(&self, open: &Open, endpoint: &Endpoint) -> Option<Assigned> {
        let me = self.cluster.node();
        if open.is_open() {
            let load = Some(self.config.current().load()).filter(|load| load.spread && open.is_by_address())?;
            let others = self.cluster.partners();
            let share = self.shares.give(endpoint.name, (me, endpoint.places.count()), &others, &load)?;
            return Some(Assigned { to: share.to(), share: Some(share) });
        }
        self.cluster.home().filter(|home| *home != me).map(|to| Assigned { to, share: None })
    }

    /// A stream on which that node serves this client; `None` = serve it here, also because this node can do so again.
    pub(crate) async fn open(
        &self,
        to: NodeId,
        endpoint: &Endpoint,
        ends: (SocketAddr, SocketAddr),
        open: &Open,
    ) -> Option<Box<dyn ByteStream>> {
        let (mut able, was_able) = (open.clone(), open.is_open());
        let asked = tokio::time::timeout(OPEN_WAIT, self.ask(to, endpoint.name, ends));
        let answered = tokio::select! {
            answered = asked => answered.unwrap_or_else(|_| Err("no answer in time".to_owned())),
            () = able.opened(), if !was_able => return None,
        };
        match answered {
            Ok(stream) => Some(stream),
            Err(reason) => {
                metrics::counter!("twinpost_connections_proxy_failed_total", "service" => endpoint.name).increment(1);
                tracing::debug!(service = endpoint.name, node = to.0, %reason, "node does not take this connection");
                None
            }
        }
    }

    async fn ask(
        &self,
        to: NodeId,
        service: &str,
        ends: (SocketAddr, SocketAddr),
    ) -> Result<Box<dyn ByteStream>, String> {
        let mut stream = self.streams.open(to).await.map_err(|error| error.to_string())?;
        let header = ProxyHeader { ends: Some(ends), service: Some(service.to_owned()) };
        let told = async {
            stream.write_all(&header.encode()).await?;
            stream.flush().await?;
            stream.read_u8().await
        };
        match told.await {
            Ok(TAKEN) => Ok(stream),
            Ok(_) => Err("it does not serve".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Carries a connection until both sides have ended, the home moved elsewhere, or this node gives up the address or
    /// stops.
    pub(crate) async fn carry(
        &self,
        assigned: Assigned,
        service: &'static str,
        (client, far): (Socket, Box<dyn ByteStream>),
        open: Open,
    ) {
        let Assigned { to, share } = assigned;
        let _counted = self.given.count("out", service);
        let mut here = open.apart_from_serving();
        tokio::select! {
            result = both_ways(client, far) => if let Err(error) = result {
                tracing::debug!(service, node = to.0, %error, "proxied connection broken");
            },
            () = self.moved(to) => tracing::debug!(service, node = to.0, "proxied connection ended: the home has moved"),
            () = self.lost(to, share.as_ref()) => tracing::debug!(service, node = to.0, "proxied connection ended: not in sync"),
            () = here.closed() => {}
        }
    }

    /// For a connection this node could serve itself: resolves when the other node may not serve any more.
    async fn lost(&self, to: NodeId, share: Option<&Share>) {
        if share.is_none() {
            return std::future::pending().await;
        }
        // A pause of the other process is none of its end.
        let mut missing = 0;
        while missing < PARTNER_MISSES {
            tokio::time::sleep(PARTNER_LOOK).await;
            let there = self.cluster.partners().contains(&to) || !*self.cluster.serving().borrow();
            missing = if there { 0 } else { missing + 1 };
        }
    }

    /// Resolves when clients are served again, and not by this home any more: it may hang and never end its connections,
    /// and whoever connects anew is served. Never for a node that is not the home.
    async fn moved(&self, from: NodeId) {
        let mut serving = self.cluster.serving();
        if self.cluster.home() != Some(from) {
            return std::future::pending().await;
        }
        while !*serving.borrow_and_update() || self.cluster.home() == Some(from) {
            if serving.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }
}

/// Balancers outside of the cluster, which say whose connection it is.
pub struct Balancers {
    networks: Vec<Network>,
    config: Arc<dyn Config>,
}

impl Balancers {
    /// In these networks. The cluster's own nodes are none, wherever they stand: they look at each other's ports.
    #[must_use]
    pub fn new(networks: Vec<Network>, config: Arc<dyn Config>) -> Self {
        Self { networks, config }
    }

    fn include(&self, address: IpAddr) -> bool {
        let is_node = || {
            let state = self.config.current();
            state.members.values().any(|member| member.address.parse() == Ok(address))
        };
        self.networks.iter().any(|network| network.contains(address)) && !is_node()
    }

    /// Whose connection it is, and the address it called: as a balancer says, or as the socket does.
    ///
    /// # Errors
    /// A balancer that says nothing or something else: the connection is dropped.
    pub(crate) async fn ends(
        &self,
        socket: &mut Socket,
        own: (SocketAddr, SocketAddr),
    ) -> io::Result<(SocketAddr, SocketAddr)> {
        if !self.include(own.0.ip().to_canonical()) {
            return Ok(own);
        }
        let read = tokio::time::timeout(HEADER_WAIT, ProxyHeader::read(socket)).await;
        let header = read.map_err(|_| io::ErrorKind::TimedOut)??;
        Ok(header.ends.unwrap_or(own))
    }
}

async fn both_ways(client: Socket, far: Box<dyn ByteStream>) -> io::Result<()> {
    let (mut client_reads, mut client_writes) = tokio::io::split(client);
    let (mut far_reads, mut far_writes) = tokio::io::split(far);
    let mut up = std::pin::pin!(one_way(&mut client_reads, &mut far_writes));
    let mut down = std::pin::pin!(one_way(&mut far_reads, &mut client_writes));
    tokio::select! {
        up = &mut up => {
            up?;
            down.await
        }
        down = &mut down => {
            down?;
            tokio::time::timeout(END_WAIT, up).await.unwrap_or(Ok(()))
        }
    }
}

/// Passes on bytes, then the end. Holds no buffer while nothing comes; a reader that stalls makes the writer wait, and
/// ends both after a while.
async fn one_way(from: &mut (impl AsyncRead + Unpin), to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    loop {
        let mut bytes = Vec::new();
        if read_some(from, &mut bytes).await? == 0 {
            return timed(to.shutdown()).await;
        }
        timed(to.write_all(&bytes)).await?;
        timed(to.flush()).await?;
    }
}

/// Serves connections that other nodes accepted; never passes them on again.
pub(crate) struct ProxiedDoor {
    pub(crate) proxy: Arc<Proxy>,
    pub(crate) endpoints: Arc<[Endpoint]>,
    pub(crate) open: Open,
    pub(crate) config: Arc<dyn Config>,
}

impl ProxiedDoor {
    /// What the header asks for, if this node serves it to this node.
    fn judge(&self, from: NodeId, header: &ProxyHeader) -> Result<(Endpoint, SocketAddr), &'static str> {
        if !self.config.current().members.get(&from).is_some_and(|member| member.data) {
            return Err("the node is no data node");
        }
        let (client, _) = header.ends.ok_or("no client is named")?;
        let wanted = header.service.as_deref().ok_or("no service is named")?;
        let endpoint = self.endpoints.iter().find(|endpoint| endpoint.name == wanted).ok_or("no such service here")?;
        if !self.open.is_open() {
            return Err("this node does not serve now");
        }
        Ok((endpoint.clone(), client))
    }
}

impl StreamService for ProxiedDoor {
    fn take(&self, from: NodeId, mut stream: Box<dyn ByteStream>) -> Answer<'static, ()> {
        let door = Self {
            proxy: self.proxy.clone(),
            endpoints: self.endpoints.clone(),
            open: self.open.clone(),
            config: self.config.clone(),
        };
        Box::pin(async move {
            let read = tokio::time::timeout(HEADER_WAIT, ProxyHeader::read(&mut stream)).await;
            let header = match read {
                Ok(Ok(header)) => header,
                Ok(Err(error)) => return tracing::warn!(node = from.0, %error, "connection of a node refused"),
                Err(_) => return tracing::warn!(node = from.0, "a node says nothing on its stream"),
            };
            match door.judge(from, &header) {
                Ok((endpoint, client)) => door.serve(from, (endpoint, client), stream).await,
                Err(reason) => {
                    tracing::debug!(node = from.0, reason, "connection of a node refused");
                    let _ = timed(answer(&mut stream, REFUSED)).await;
                    let _ = timed(stream.shutdown()).await;
                }
            }
        })
    }
}

async fn answer(stream: &mut Box<dyn ByteStream>, answer: u8) -> io::Result<()> {
    stream.write_all(&[answer]).await?;
    stream.flush().await
}

impl ProxiedDoor {
    async fn serve(&self, from: NodeId, (endpoint, client): (Endpoint, SocketAddr), mut stream: Box<dyn ByteStream>) {
        if timed(answer(&mut stream, TAKEN)).await.is_err() {
            return;
        }
        let client = client.ip().to_canonical();
        let name = endpoint.name;
        metrics::counter!("twinpost_connections_total", "service" => endpoint.service.name()).increment(1);
        tracing::debug!(service = name, %client, node = from.0, "serving a client of another node");
        let _counted = self.proxy.taken.count("in", name);
        let Some((socket, place)) = admit(Socket::Stream(stream), client, &endpoint).await else { return };
        let begun = Box::pin(serve_here(socket, client, endpoint, self.open.clone(), place)).await;
        if let Some(run) = begun {
            run.await;
        }
    }
}
