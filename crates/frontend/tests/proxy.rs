//! A node that does not serve carries its clients to one that does, over sockets and real doors on both sides.

mod fakes;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use fakes::House;
use frontend::config::FrontendConfig;
use frontend::proxy_header::ProxyHeader;
use frontend::{Frontend, FrontendHandle};
use mailbox::op::AccountOp;
use ports::Answer;
use ports::accounts::Accounts as _;
use ports::streams::{ByteStream, StreamService};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;
use vocab::{AccountId, NodeId};

/// Where the client stands, so that it is told from the nodes.
const CLIENT: [u8; 4] = [127, 0, 0, 99];
/// The node that serves.
const HOME: NodeId = NodeId(2);

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), what).await.expect("in time")
}

struct Doors {
    house: House,
    handle: FrontendHandle,
    folder: tempfile::TempDir,
}

impl Doors {
    fn start(change: impl FnOnce(&mut FrontendConfig)) -> Self {
        let (house, folder) = (House::new(), tempfile::tempdir().expect("folder"));
        let mut settings = fakes::settings(folder.path());
        change(&mut settings);
        let handle = Frontend::start(settings, house.ports(), house.administration()).expect("start");
        Self { house, handle, folder }
    }
    fn serve(&self, yes: bool) {
        self.house.cluster.serving.send_replace(yes);
    }
    fn certificate(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(self.folder.path().join("service.pem")).expect("certificate")
    }
    async fn connect(&self, service: &str) -> Client<TcpStream> {
        let socket = TcpSocket::new_v4().expect("socket");
        socket.bind(SocketAddr::from((CLIENT, 0))).expect("bind");
        Client(BufReader::new(soon(socket.connect(self.handle.addresses()[service])).await.expect("connect")))
    }
    /// Open and all connections: carried to others, taken from others.
    async fn proxied(&self) -> [u64; 4] {
        let mut client = self.connect("https").await.secure(&self.certificate()).await;
        let head = format!(
            "GET /api/v1/cluster HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {}\r\n\r\n",
            fakes::TOKEN
        );
        client.send(&head).await;
        let mut text = String::new();
        soon(client.0.read_to_string(&mut text)).await.expect("answer");
        let body = text.split_once("\r\n\r\n").expect("a body").1;
        let status: serde_json::Value = serde_json::from_str(body).expect("JSON");
        ["open", "total", "taken_open", "taken_total"].map(|key| status["proxied"][key].as_u64().expect("a number"))
    }
    async fn await_proxied(&self, expected: [u64; 4]) {
        soon(async {
            while self.proxied().await != expected {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

/// A node that does not serve, and the home that it knows and reaches.
fn pair(change: impl Fn(&mut FrontendConfig)) -> (Doors, Doors) {
    let (near, home) = (Doors::start(&change), Doors::start(&change));
    near.serve(false);
    *near.house.cluster.home.lock().expect("lock") = Some(HOME);
    near.house.streams.reach(HOME, Some(home.handle.proxied()));
    (near, home)
}

struct Client<T>(BufReader<T>);

impl<T: AsyncRead + AsyncWrite + Unpin> Client<T> {
    async fn send(&mut self, text: &str) {
        soon(self.0.get_mut().write_all(text.as_bytes())).await.expect("send");
        soon(self.0.get_mut().flush()).await.expect("flush");
    }
    async fn line(&mut self) -> String {
        let mut line = Vec::new();
        // A reset is an end too.
        let _ = soon(self.0.read_until(b'\n', &mut line)).await;
        String::from_utf8_lossy(&line).trim_end().to_owned()
    }
    async fn expect(&mut self, begin: &str) {
        let line = self.line().await;
        assert!(line.starts_with(begin), "{line:?}, not {begin:?}");
    }
    async fn expect_end(&mut self) {
        assert_eq!(self.line().await, "");
    }
    async fn secure(self, certificate: &CertificateDer<'static>) -> Client<tokio_rustls::client::TlsStream<T>> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate.clone()).expect("root");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = "localhost".try_into().expect("name");
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        Client(BufReader::new(soon(connector.connect(name, self.0.into_inner())).await.expect("handshake")))
    }
}

#[tokio::test]
async fn every_mail_door_is_served_by_the_home_and_tls_ends_there() {
    let (near, home) = pair(|_| {});
    let (accounts, id) = (&home.house.accounts, AccountId(20));
    accounts.submit(id, accounts.command_id(), AccountOp::Init).await.expect("account");
    let body = "0123456789abcde\r\n".repeat(60_000);
    accounts.deliver(id, "", &body);
    near.connect("smtp").await.expect("220 ").await;
    near.connect("submission").await.expect("220 ").await;
    near.connect("imap").await.expect("* OK").await;
    near.connect("pop3").await.expect("+OK").await;
    for (service, begin) in [("submissions", "220 "), ("imaps", "* OK"), ("pop3s", "+OK")] {
        near.connect(service).await.secure(&home.certificate()).await.expect(begin).await;
    }
    let mut client = near.connect("pop3").await;
    client.expect("+OK").await;
    client.send("STLS\r\n").await;
    client.expect("+OK").await;
    let mut client = client.secure(&home.certificate()).await;
    client.send("USER u1\r\nPASS secret\r\nRETR 1\r\nQUIT\r\n").await;
    for begin in ["+OK now", "+OK 1 messages", "+OK 1020000 octets"] {
        client.expect(begin).await;
    }
    for _ in 0..60_000 {
        assert_eq!(client.line().await, "0123456789abcde");
    }
    for end in [".", "+OK goodbye", ""] {
        assert_eq!(client.line().await, end);
    }
    // All have ended on both nodes.
    near.await_proxied([0, 8, 0, 0]).await;
    home.await_proxied([0, 0, 0, 8]).await;
    // Administration is the node's own.
    near.connect("https").await.secure(&near.certificate()).await;
}

#[tokio::test]
async fn whoever_can_serve_again_does_and_what_was_carried_goes_on() {
    let (near, home) = pair(|_| {});
    let mut carried = near.connect("pop3").await;
    carried.expect("+OK").await;
    near.serve(true);
    near.connect("pop3").await.expect("+OK").await;
    assert_eq!(near.proxied().await, [1, 1, 0, 0]);
    carried.send("NOOP\r\n").await;
    carried.expect("-ERR").await;
    // The home stops serving: its clients are told, wherever they came in.
    home.serve(false);
    carried.expect("-ERR [SYS/TEMP]").await;
    carried.expect_end().await;
    near.await_proxied([0, 1, 0, 0]).await;
    // A carried connection ends with the node that carries it, too.
    near.serve(false);
    home.serve(true);
    let mut carried = near.connect("imap").await;
    carried.expect("* OK").await;
    soon(near.handle.stop()).await;
    carried.expect_end().await;
    home.await_proxied([0, 0, 0, 2]).await;
}

#[tokio::test]
async fn a_home_that_hangs_loses_its_clients_to_the_node_that_took_over() {
    let (near, _home) = pair(|_| {});
    let mut carried = near.connect("pop3").await;
    carried.expect("+OK").await;
    *near.house.cluster.home.lock().expect("lock") = Some(NodeId(1));
    near.serve(true);
    carried.expect_end().await;
    near.connect("pop3").await.expect("+OK").await;
    near.await_proxied([0, 1, 0, 0]).await;
}

#[tokio::test]
async fn without_a_home_in_reach_clients_are_told_to_come_again() {
    let (near, home) = pair(|_| {});
    let turned_away = async || {
        near.connect("smtp").await.expect("421 4.3.2").await;
        near.connect("imap").await.expect("* BYE [UNAVAILABLE]").await;
        near.connect("pop3s").await.secure(&near.certificate()).await.expect("-ERR [SYS/TEMP]").await;
    };
    home.serve(false);
    turned_away().await;
    home.serve(true);
    near.house.streams.reach(HOME, None);
    turned_away().await;
    *near.house.cluster.home.lock().expect("lock") = Some(NodeId(1));
    near.house.streams.reach(NodeId(1), Some(home.handle.proxied()));
    turned_away().await;
    *near.house.cluster.home.lock().expect("lock") = None;
    turned_away().await;
    assert_eq!((near.proxied().await, home.proxied().await), ([0; 4], [0; 4]));
}

#[tokio::test]
async fn a_carried_connection_is_never_carried_again() {
    let (near, home) = pair(|_| {});
    // The home does not serve either, and believes that the other one does.
    home.serve(false);
    *home.house.cluster.home.lock().expect("lock") = Some(NodeId(1));
    home.house.streams.reach(NodeId(1), Some(near.handle.proxied()));
    near.connect("smtp").await.expect("421 4.3.2").await;
    home.connect("smtp").await.expect("421 4.3.2").await;
    assert_eq!((near.proxied().await, home.proxied().await), ([0; 4], [0; 4]));
}

/// Says nothing on a stream until it is let go.
struct Silent(mpsc::UnboundedSender<Box<dyn ByteStream>>);

impl StreamService for Silent {
    fn take(&self, _: NodeId, stream: Box<dyn ByteStream>) -> Answer<'static, ()> {
        let _ = self.0.send(stream);
        Box::pin(async {})
    }
}

#[tokio::test]
async fn a_node_that_can_serve_again_does_not_wait_for_a_silent_home() {
    let near = Doors::start(|_| {});
    near.serve(false);
    *near.house.cluster.home.lock().expect("lock") = Some(HOME);
    let (sender, mut asked) = mpsc::unbounded_channel();
    near.house.streams.reach(HOME, Some(Arc::new(Silent(sender))));
    let mut client = near.connect("smtp").await;
    let mut stream = soon(asked.recv()).await.expect("asked");
    let header = soon(ProxyHeader::read(&mut stream)).await.expect("a header");
    let (from, called) = header.ends.expect("a client");
    assert_eq!((from.ip(), called), (IpAddr::from(CLIENT), near.handle.addresses()["smtp"]));
    assert_eq!(header.service.as_deref(), Some("smtp"));
    near.serve(true);
    client.expect("220 ").await;
}

#[tokio::test]
async fn limits_count_the_clients_own_address_on_both_nodes() {
    let (near, home) = pair(|settings| settings.limits.connections_per_address_max = 2);
    let mut first = near.connect("imap").await;
    first.expect("* OK").await;
    let mut second = home.connect("imap").await;
    second.expect("* OK").await;
    // Two at the home: the next is told so by the home, though the accepting node has room.
    near.connect("imap").await.expect("* BYE [LIMIT]").await;
    drop(second);
    home.await_proxied([0, 0, 1, 2]).await;
    let _held = soon(async {
        loop {
            let mut client = near.connect("imap").await;
            if client.line().await.starts_with("* OK") {
                return client;
            }
        }
    })
    .await;
    // Two at the accepting node: it says so itself, the home is not asked.
    near.house.streams.reach(HOME, None);
    near.connect("imap").await.expect("* BYE [LIMIT]").await;
}

#[tokio::test]
async fn streams_that_ask_for_nothing_sensible_are_refused() {
    let home = Doors::start(|_| {});
    let ends = Some((SocketAddr::from((CLIENT, 1)), SocketAddr::from(([127, 0, 0, 1], 25))));
    let header = |service: Option<&str>| ProxyHeader { ends, service: service.map(str::to_owned) }.encode();
    let open = |from: NodeId, bytes: Vec<u8>| {
        let taking = home.handle.proxied();
        async move {
            let (mut near, far) = tokio::io::duplex(64 * 1024);
            tokio::spawn(taking.take(from, Box::new(far)));
            near.write_all(&bytes).await.expect("sent");
            let mut begin = Vec::new();
            let _ = soon((&mut near).take(5).read_to_end(&mut begin)).await;
            begin
        }
    };
    let one = NodeId(1);
    assert_eq!(open(one, header(Some("smtp"))).await, b"\x01220 ");
    for service in [None, Some("https"), Some("gopher"), Some("")] {
        assert_eq!(open(one, header(service)).await, b"\0", "{service:?}");
    }
    assert_eq!(open(one, ProxyHeader::default().encode()).await, b"\0", "no client");
    assert_eq!(open(NodeId(9), header(Some("smtp"))).await, b"\0", "no data node");
    assert_eq!(open(one, b"EHLO there, this is no header\r\n".to_vec()).await, b"");
}

#[tokio::test]
async fn a_balancer_says_whose_connection_it_is_and_nobody_else_may() {
    let home = Doors::start(|settings| {
        settings.proxy_networks = vec!["127.0.0.96/28".parse().expect("network")];
        settings.limits.connections_per_address_max = 1;
    });
    let named = |client: &str| {
        let ends = Some((client.parse().expect("address"), SocketAddr::from(([127, 0, 0, 1], 143))));
        ProxyHeader { ends, service: None }.encode()
    };
    // Each client is counted by itself, though all come from the balancer.
    let mut held = Vec::new();
    for (client, begin) in [("192.0.2.1:4", "* OK"), ("192.0.2.2:4", "* OK"), ("192.0.2.1:5", "* BYE [LIMIT]")] {
        let mut balancer = home.connect("imap").await;
        balancer.0.get_mut().write_all(&named(client)).await.expect("sent");
        balancer.expect(begin).await;
        held.push(balancer);
    }
    // TLS begins behind the header.
    let mut balancer = home.connect("pop3s").await;
    balancer.0.get_mut().write_all(&named("192.0.2.3:4")).await.expect("sent");
    balancer.secure(&home.certificate()).await.expect("+OK").await;
    // The balancer's own look at the port.
    let mut balancer = home.connect("smtp").await;
    balancer.0.get_mut().write_all(&ProxyHeader::default().encode()).await.expect("sent");
    balancer.expect("220 ").await;
    // A balancer that sends something else is dropped without a word.
    let mut balancer = home.connect("pop3").await;
    balancer.send("USER u1\r\nPASS secret\r\n").await;
    balancer.expect_end().await;
    // From elsewhere the header is a line that makes no sense, and the client stays who it is.
    let mut stranger = Client(BufReader::new(TcpStream::connect(home.handle.addresses()["pop3"]).await.expect("open")));
    stranger.0.get_mut().write_all(&named("192.0.2.9:4")).await.expect("sent");
    stranger.expect("+OK").await;
    stranger.expect("-ERR").await;
    // The API is not a balancer's business.
    assert_eq!(home.proxied().await, [0; 4]);
}

#[tokio::test]
async fn a_node_in_a_network_of_balancers_is_no_balancer() {
    // The member's address is 127.0.0.1, and so is this client's.
    let home = Doors::start(|settings| settings.proxy_networks = vec!["127.0.0.0/8".parse().expect("network")]);
    let mut node = Client(BufReader::new(TcpStream::connect(home.handle.addresses()["smtp"]).await.expect("open")));
    node.expect("220 ").await;
}
