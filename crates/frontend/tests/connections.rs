//! The driver and the listeners over real sockets on loopback, with TLS.

mod fakes;

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fakes::House;
use frontend::clock;
use frontend::config::ClusterPorts;
use frontend::drive::{Answerer, INPUT_BYTES_MAX};
use frontend::listener::{Endpoint, Open, Places, Protocol, TurnedAway, accept_all, bind};
use frontend::tls::Tls;
use frontend::{Frontend, FrontendConfig, FrontendHandle};
use mailbox::op::{AccountOp, Change, Outcome};
use ports::Answer;
use ports::accounts::Accounts;
use ports::config::Config as _;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::sync::{Notify, broadcast, watch};
use vocab::session::{Output, Peer, Session};
use vocab::{Instant, MailboxId};

const PATIENCE: Duration = Duration::from_secs(20);

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("in time")
}

/// Repeats every line through a question. `tls`, `bye`, `nap` (a deadline in 50 ms) and `big` (a long answer) are special.
struct Toy {
    outputs: VecDeque<Output<String>>,
    waiting: bool,
    nap: Option<Instant>,
}

impl Toy {
    fn say(&mut self, text: &str) {
        self.outputs.push_back(Output::Write(Bytes::from(format!("{text}\r\n"))));
    }
}

impl Session for Toy {
    type Query = String;
    type Answer = String;
    fn on_bytes(&mut self, input: &[u8], now: Instant) -> usize {
        let end = input.iter().position(|b| *b == b'\n').filter(|_| !self.waiting);
        let Some(end) = end else { return 0 };
        match String::from_utf8_lossy(&input[..end]).trim() {
            "tls" => {
                self.say("begin");
                self.outputs.push_back(Output::StartTls);
            }
            "bye" => {
                self.say("bye");
                self.outputs.push_back(Output::Close);
            }
            "nap" => self.nap = Some(now.plus_ms(50)),
            "big" => self.say(&"x".repeat(3_000_000)),
            line => {
                self.waiting = true;
                self.outputs.push_back(Output::Ask(line.to_owned()));
            }
        }
        end + 1
    }
    fn on_end(&mut self, _: Instant) {
        self.say("ended");
        self.outputs.push_back(Output::Close);
    }
    fn on_answer(&mut self, answer: String, _: Instant) {
        self.waiting = false;
        self.say(&answer);
    }
    fn on_tls(&mut self, _: Instant) {
        self.say("safe");
    }
    fn on_deadline(&mut self, now: Instant) {
        assert!(self.nap.take().is_some_and(|at| at <= now));
        self.say("awake");
    }
    fn deadline(&self) -> Option<Instant> {
        self.nap
    }
    fn on_change(&mut self, _: Instant) {
        self.say("changed");
    }
    fn on_shutdown(&mut self, _: Instant) {
        self.say("going");
        self.outputs.push_back(Output::Close);
    }
    fn next_output(&mut self) -> Option<Output<String>> {
        self.outputs.pop_front()
    }
}

struct Echo {
    changes: Option<broadcast::Receiver<Change>>,
    sender: broadcast::Sender<Change>,
    gate: Arc<Notify>,
}

impl Answerer<Toy> for Echo {
    fn answer(&mut self, query: String) -> Answer<'_, String> {
        Box::pin(async move {
            match query.as_str() {
                "watch" => self.changes = Some(self.sender.subscribe()),
                "slow" => self.gate.notified().await,
                _ => {}
            }
            query
        })
    }
    fn watched(&mut self) -> Option<&mut broadcast::Receiver<Change>> {
        self.changes.as_mut()
    }
    fn concerns(&self, change: &Change) -> bool {
        matches!(change, Change::Hierarchy)
    }
}

struct ToyProtocol {
    sender: broadcast::Sender<Change>,
    gate: Arc<Notify>,
}

impl Protocol for ToyProtocol {
    type Session = Toy;
    type Answerer = Echo;
    fn name(&self) -> &'static str {
        "toy"
    }
    fn farewell(&self, why: TurnedAway) -> &'static str {
        if why == TurnedAway::TooMany { "full\r\n" } else { "closed\r\n" }
    }
    fn open(&self, peer: &Peer) -> (Toy, Echo) {
        let mut toy = Toy { outputs: VecDeque::new(), waiting: false, nap: None };
        toy.say(if peer.tls { "hello safe" } else { "hello" });
        (toy, Echo { changes: None, sender: self.sender.clone(), gate: self.gate.clone() })
    }
}

/// A listening toy.
struct Server {
    address: SocketAddr,
    changes: broadcast::Sender<Change>,
    gate: Arc<Notify>,
    running: watch::Sender<bool>,
    places: Arc<Places>,
    certificate: CertificateDer<'static>,
    _folder: tempfile::TempDir,
}

impl Server {
    fn start(implicit_tls: bool) -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let settings = fakes::settings(folder.path());
        let certificate = CertificateDer::from_pem_file(&settings.tls.certificate).expect("certificate");
        let (changes, gate) = (broadcast::Sender::new(4), Arc::new(Notify::new()));
        let listener = bind(settings.address, 0).expect("bind");
        let address = listener.local_addr().expect("address");
        let (running, is_running) = watch::channel(true);
        let places = Places::new("toy", 3, 3);
        let endpoint = Endpoint {
            name: "toy",
            service: Arc::new(ToyProtocol { sender: changes.clone(), gate: gate.clone() }),
            port: address.port(),
            implicit_tls,
            tls: Tls::load(settings.tls).expect("TLS"),
            places: places.clone(),
            proxy: None,
            balancers: None,
        };
        tokio::spawn(accept_all(listener, endpoint, Open::while_all([Some(is_running), None, None])));
        Self { address, changes, gate, running, places, certificate, _folder: folder }
    }
    async fn connect(&self) -> Client<TcpStream> {
        Client(BufReader::new(soon(TcpStream::connect(self.address)).await.expect("connect")))
    }
}

struct Client<T>(BufReader<T>);

impl<T: AsyncRead + AsyncWrite + Unpin> Client<T> {
    async fn send(&mut self, text: &str) {
        soon(self.0.get_mut().write_all(text.as_bytes())).await.expect("send");
        soon(self.0.get_mut().flush()).await.expect("flush");
    }
    async fn line(&mut self) -> String {
        let mut line = String::new();
        soon(self.0.read_line(&mut line)).await.expect("line");
        line.trim_end().to_owned()
    }
    async fn expect(&mut self, lines: &[&str]) {
        for line in lines {
            assert_eq!(self.line().await, *line);
        }
    }
    async fn secure(self, certificate: &CertificateDer<'static>) -> Client<tokio_rustls::client::TlsStream<T>> {
        Client(BufReader::new(secure(self.0.into_inner(), certificate).await.expect("handshake")))
    }
}

async fn secure<T: AsyncRead + AsyncWrite + Unpin>(
    stream: T,
    certificate: &CertificateDer<'static>,
) -> std::io::Result<tokio_rustls::client::TlsStream<T>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate.clone()).expect("root");
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = "localhost".try_into().expect("name");
    soon(tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream)).await
}

#[tokio::test]
async fn orders_are_obeyed_in_order_and_pipelining_works() {
    let server = Server::start(false);
    let mut client = server.connect().await;
    client.send("a\r\nb\r\nnap\r\n").await;
    client.expect(&["hello", "a", "b", "awake"]).await;
    client.send("c\r\nbye\r\nnever\r\n").await;
    client.expect(&["c", "bye", ""]).await;
    let mut client = server.connect().await;
    client.send("half a line").await;
    client.0.get_mut().shutdown().await.expect("shutdown");
    client.expect(&["hello", "ended", ""]).await;
}

#[tokio::test]
async fn what_was_sent_in_plaintext_before_tls_is_thrown_away() {
    let server = Server::start(false);
    let mut client = server.connect().await;
    client.expect(&["hello"]).await;
    client.send("tls\r\ninjected\r\n").await;
    client.expect(&["begin"]).await;
    let mut client = client.secure(&server.certificate).await;
    client.expect(&["safe"]).await;
    client.send("a\r\nbye\r\n").await;
    client.expect(&["a", "bye", ""]).await;
}

#[tokio::test]
async fn implicit_tls_carries_large_outputs() {
    let server = Server::start(true);
    let mut client = server.connect().await.secure(&server.certificate).await;
    client.expect(&["hello safe"]).await;
    client.send("big\r\na\r\n").await;
    assert_eq!(client.line().await.len(), 3_000_000);
    client.expect(&["a"]).await;
}

#[tokio::test]
async fn changes_wake_a_session_that_watches() {
    let server = Server::start(false);
    let mut client = server.connect().await;
    client.send("watch\r\n").await;
    client.expect(&["hello", "watch"]).await;
    server.changes.send(Change::Mailbox(MailboxId::default())).expect("watched");
    server.changes.send(Change::Hierarchy).expect("watched");
    client.expect(&["changed"]).await;
    // More than the channel holds is a lag, and a lag wakes too.
    (0..10).for_each(|_| drop(server.changes.send(Change::Mailbox(MailboxId::default()))));
    client.expect(&["changed"]).await;
}

#[tokio::test]
async fn a_question_is_answered_to_its_end_and_input_meanwhile_is_bounded() {
    let server = Server::start(false);
    let mut client = server.connect().await;
    client.send("slow\r\n").await;
    client.expect(&["hello"]).await;
    // The driver stops reading at its bound; the kernel's buffers fill and the write stalls.
    let flood = format!("{}\r\n", "y".repeat(1000)).repeat(250 * INPUT_BYTES_MAX / 1000);
    let stalled =
        tokio::time::timeout(Duration::from_millis(300), client.0.get_mut().write_all(flood.as_bytes())).await;
    assert!(stalled.is_err(), "{} bytes were taken", flood.len());
    server.gate.notify_one();
    client.expect(&["slow"]).await;
    assert_eq!(client.line().await.len(), 1000);
}

#[tokio::test]
async fn a_stopping_node_says_goodbye_and_turns_others_away() {
    let server = Server::start(false);
    let mut client = server.connect().await;
    client.expect(&["hello"]).await;
    server.running.send_replace(false);
    client.expect(&["going", ""]).await;
    server.connect().await.expect(&["closed", ""]).await;
}

#[tokio::test]
async fn connections_are_limited_and_places_given_back() {
    let server = Server::start(false);
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = server.connect().await;
        client.expect(&["hello"]).await;
        clients.push(client);
    }
    server.connect().await.expect(&["full", ""]).await;
    drop(clients);
    soon(async {
        while server.places.count() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    server.connect().await.expect(&["hello"]).await;
}

/// A front-end over fakes.
struct Doors {
    house: House,
    handle: FrontendHandle,
    folder: tempfile::TempDir,
}

impl Doors {
    fn start(cluster_address: Option<IpAddr>) -> Self {
        Self::start_with(cluster_address, ClusterPorts::WhileHeld)
    }
    fn start_with(cluster_address: Option<IpAddr>, cluster_ports: ClusterPorts) -> Self {
        let (house, folder) = (House::new(), tempfile::tempdir().expect("folder"));
        house.config.set_cluster_address(cluster_address.map(|a| a.to_string()));
        let settings = FrontendConfig { cluster_ports, ..fakes::settings(folder.path()) };
        let handle = Frontend::start(settings, house.ports(), house.administration());
        Self { house, handle: handle.expect("start"), folder }
    }
    fn certificate(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(self.folder.path().join("service.pem")).expect("certificate")
    }
    async fn connect(&self, service: &str) -> Client<TcpStream> {
        let stream = soon(TcpStream::connect(self.handle.addresses()[service])).await.expect("connect");
        Client(BufReader::new(stream))
    }
}

#[tokio::test]
async fn pro_05_pop3_copies_are_local_and_uidl_is_stable() {
    let doors = Doors::start(None);
    let (accounts, id) = (&doors.house.accounts, vocab::AccountId(20));
    let init = Accounts::submit(accounts.as_ref(), id, accounts.command_id(), AccountOp::Init).await;
    assert!(matches!(init, Ok(Outcome::Done)), "{init:?}");
    accounts.deliver(id, "Return-Path: <a@example.net>\r\n", "Subject: one\r\n\r\n.dot\r\n");
    accounts.deliver(id, "Return-Path: <>\r\n", &"0123456789abcde\r\n".repeat(60_000));
    let mut client = doors.connect("pop3").await;
    assert!(client.line().await.starts_with("+OK mail.example.org"));
    client.send("STLS\r\n").await;
    assert!(client.line().await.starts_with("+OK"));
    let mut client = client.secure(&doors.certificate()).await;
    client.send("USER u1\r\nPASS wrong\r\n").await;
    assert!(client.line().await.starts_with("+OK"));
    assert!(client.line().await.starts_with("-ERR [AUTH]"));
    let mut client = doors.connect("pop3s").await.secure(&doors.certificate()).await;
    assert!(client.line().await.starts_with("+OK"));
    client.send("USER u1\r\nPASS secret\r\nSTAT\r\nRETR 1\r\nRETR 2\r\nDELE 1\r\n").await;
    client.expect(&["+OK now the password", "+OK 2 messages", "+OK 2 1020069", "+OK 52 octets"]).await;
    client.expect(&["Return-Path: <a@example.net>", "Subject: one", "", "..dot", ".", "+OK 1020017 octets"]).await;
    client.expect(&["Return-Path: <>"]).await;
    for _ in 0..60_000 {
        assert_eq!(client.line().await, "0123456789abcde");
    }
    client.expect(&[".", "+OK message 1 deleted"]).await;
    // A snapshot per session: what comes meanwhile is for the next one.
    accounts.deliver(id, "", "Subject: three\r\n\r\n");
    client.send("STAT\r\nUIDL 2\r\nQUIT\r\n").await;
    client.expect(&["+OK 1 1020017"]).await;
    let uid = client.line().await;
    client.expect(&["+OK goodbye", ""]).await;
    let mut client = doors.connect("pop3s").await.secure(&doors.certificate()).await;
    client.expect_greeting().await;
    client.send("USER u1\r\nPASS secret\r\nUIDL 1\r\n").await;
    client.expect(&["+OK now the password", "+OK 2 messages", &uid.replace("+OK 2", "+OK 1")]).await;
    // When mail cannot be read the answer is never "wrong password".
    accounts.set_unavailable(true);
    let mut client = doors.connect("pop3").await;
    client.expect_greeting().await;
    client.send("USER u1\r\nPASS secret\r\n").await;
    client.expect(&["+OK now the password"]).await;
    assert!(client.line().await.starts_with("-ERR [SYS/TEMP]"));
}

#[tokio::test]
async fn a_node_that_does_not_serve_says_so_but_can_be_administered() {
    let doors = Doors::start(None);
    doors.house.cluster.serving.send_replace(false);
    assert!(doors.connect("smtp").await.line().await.starts_with("421 4.3.2"));
    assert!(doors.connect("pop3").await.line().await.starts_with("-ERR [SYS/TEMP]"));
    let mut client = doors.connect("pop3s").await.secure(&doors.certificate()).await;
    assert!(client.line().await.starts_with("-ERR [SYS/TEMP]"));
    let mut client = doors.connect("https").await.secure(&doors.certificate()).await;
    client.send("GET /health/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
    assert_eq!(client.line().await, "HTTP/1.1 503 Service Unavailable");
    let mut rest = String::new();
    soon(client.0.read_to_string(&mut rest)).await.expect("answer");
    assert!(rest.ends_with("not serving\n"), "{rest}");
    doors.house.cluster.serving.send_replace(true);
    assert!(doors.connect("smtp").await.line().await.starts_with("220 "));
    soon(doors.handle.stop()).await;
}

#[tokio::test]
async fn the_cluster_address_is_open_only_while_it_is_held() {
    let shared = IpAddr::from(Ipv4Addr::new(127, 0, 0, 73));
    let doors = Doors::start(Some(shared));
    let at = SocketAddr::new(shared, doors.handle.addresses()["pop3"].port());
    assert!(TcpStream::connect(at).await.is_err(), "not held");
    let open = async || {
        soon(async {
            loop {
                if let Ok(stream) = TcpStream::connect(at).await {
                    return Client(BufReader::new(stream));
                }
                tokio::task::yield_now().await;
            }
        })
        .await
    };
    for _ in 0..3 {
        doors.house.cluster.holds.send_replace(true);
        let mut client = open().await;
        assert!(client.line().await.starts_with("+OK"));
        doors.house.cluster.holds.send_replace(false);
        assert!(client.line().await.starts_with("-ERR [SYS/TEMP]"), "connections on the address end with it");
        client.expect(&[""]).await;
        soon(async {
            while TcpStream::connect(at).await.is_ok() {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

#[tokio::test]
async fn ports_bound_ahead_take_connections_only_while_the_address_is_held() {
    // Not on this machine: binding ahead needs no address.
    let elsewhere = IpAddr::from(Ipv4Addr::new(192, 0, 2, 73));
    assert!(frontend::listener::bind(elsewhere, 0).is_err(), "192.0.2.73 is here");
    frontend::listener::bind_ahead(elsewhere, 0).expect("bound ahead");
    frontend::listener::bind_ahead("2001:db8::73".parse().expect("address"), 0).expect("bound ahead");

    let shared = IpAddr::from(Ipv4Addr::new(127, 0, 0, 74));
    let doors = Doors::start_with(Some(shared), ClusterPorts::Always(watch::Sender::default().subscribe()));
    let at = SocketAddr::new(shared, doors.handle.addresses()["pop3"].port());
    let connect = async || {
        soon(async {
            loop {
                if let Ok(stream) = TcpStream::connect(at).await {
                    return Client(BufReader::new(stream));
                }
                tokio::task::yield_now().await;
            }
        })
        .await
    };
    for _ in 0..3 {
        assert!(connect().await.line().await.starts_with("-ERR [SYS/TEMP]"), "not held");
        doors.house.cluster.holds.send_replace(true);
        let mut client = soon(async {
            loop {
                let mut client = connect().await;
                if client.line().await.starts_with("+OK") {
                    return client;
                }
            }
        })
        .await;
        doors.house.cluster.holds.send_replace(false);
        assert!(client.line().await.starts_with("-ERR [SYS/TEMP]"), "connections on the address end with it");
        client.expect(&[""]).await;
    }
}

#[tokio::test]
async fn ha_19_an_address_that_was_changed_takes_connections_until_it_is_let_go() {
    let [old, new] = [75, 76].map(|last| IpAddr::from(Ipv4Addr::new(127, 0, 0, last)));
    let kept = watch::Sender::new(std::collections::BTreeSet::from([old]));
    let doors = Doors::start_with(Some(old), ClusterPorts::Always(kept.subscribe()));
    doors.house.cluster.holds.send_replace(true);
    let port = doors.handle.addresses()["pop3"].port();
    let greeted = async |address: IpAddr| {
        soon(async {
            loop {
                if let Ok(stream) = TcpStream::connect(SocketAddr::new(address, port)).await {
                    let mut client = Client(BufReader::new(stream));
                    if client.line().await.starts_with("+OK") {
                        return client;
                    }
                }
                tokio::task::yield_now().await;
            }
        })
        .await
    };
    let mut before = greeted(old).await;
    let addresses = vec![topology::ClusterAddress::from(new)];
    doors.house.config.propose(topology::ConfigOp::SetAddresses { addresses }).await.expect("set");
    greeted(new).await;
    // The new one is not here yet for whoever moves them: both take connections.
    greeted(old).await;
    kept.send_replace([new].into());
    assert!(before.line().await.starts_with("-ERR [SYS/TEMP]"), "connections on the old address end with it");
    soon(async {
        while TcpStream::connect(SocketAddr::new(old, port)).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    greeted(new).await;
}

#[tokio::test]
async fn ha_19_both_families_are_open_while_held_and_one_is_changed_beside_the_other() {
    let [old, new] = [77, 78].map(|last| IpAddr::from(Ipv4Addr::new(127, 0, 0, last)));
    let v6: IpAddr = "::1".parse().expect("address");
    let doors = Doors::start(None);
    let port = doors.handle.addresses()["pop3"].port();
    let change = async |all: &[IpAddr]| {
        let addresses = all.iter().map(|ip| (*ip).into()).collect();
        doors.house.config.propose(topology::ConfigOp::SetAddresses { addresses }).await.expect("set");
    };
    let is_open = async |address: IpAddr| TcpStream::connect(SocketAddr::new(address, port)).await.ok();
    let awaited = async |address: IpAddr, open: bool| {
        soon(async {
            while is_open(address).await.is_some() != open {
                tokio::task::yield_now().await;
            }
        })
        .await;
    };
    change(&[old, v6]).await;
    assert!(is_open(old).await.is_none() && is_open(v6).await.is_none(), "not held");
    doors.house.cluster.holds.send_replace(true);
    awaited(old, true).await;
    awaited(v6, true).await;
    let mut stays = Client(BufReader::new(is_open(v6).await.expect("open")));
    assert!(stays.line().await.starts_with("+OK"));
    change(&[new, v6]).await;
    awaited(new, true).await;
    awaited(old, false).await;
    stays.0.write_all(b"NOOP\r\n").await.expect("sent");
    assert!(!stays.line().await.starts_with("-ERR [SYS"), "a connection on the address that stays goes on");
    doors.house.cluster.holds.send_replace(false);
    awaited(new, false).await;
    awaited(v6, false).await;
}

#[tokio::test]
async fn a_new_certificate_is_used_without_a_restart_and_a_bad_one_is_not() {
    let doors = Doors::start(None);
    let old = doors.certificate();
    let key = doors.folder.path().join("service.key");
    std::fs::write(&key, "no key").expect("write");
    doors.connect("pop3s").await.secure(&old).await.expect_greeting().await;
    let files = frontend::tls::TlsFiles { certificate: doors.folder.path().join("service.pem"), key };
    fakes::write_certificate(&files);
    let new = doors.certificate();
    soon(async {
        loop {
            let stream = TcpStream::connect(doors.handle.addresses()["pop3s"]).await.expect("connect");
            if secure(stream, &new).await.is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

impl<T: AsyncRead + AsyncWrite + Unpin> Client<T> {
    async fn expect_greeting(&mut self) {
        assert!(self.line().await.starts_with("+OK"));
    }
}

#[test]
fn the_clock_never_goes_back_and_knows_far_deadlines() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("runtime");
    runtime.block_on(async {
        let now = clock::now();
        assert!(now.0 > 0 && clock::now() >= now);
        assert!(clock::to_tokio(Instant(u64::MAX)) > tokio::time::Instant::now());
        assert!(clock::to_tokio(Instant(0)) <= tokio::time::Instant::now());
    });
}

/// The files are written anew after they were read, before anybody looks for changes.
#[tokio::test]
async fn a_certificate_written_while_the_front_ends_start_is_used() {
    let folder = tempfile::tempdir().expect("folder");
    let (certificate, key) = (folder.path().join("a.pem"), folder.path().join("a.key"));
    let files = frontend::tls::TlsFiles { certificate, key };
    fakes::write_certificate(&files);
    let tls = Tls::load(files.clone()).expect("loaded");
    let before = tls.current();
    // File systems tell times coarsely: another length or another time.
    std::thread::sleep(Duration::from_millis(20));
    fakes::write_certificate(&files);
    let watching = tokio::spawn(tls.clone().keep_fresh());
    tokio::time::sleep(frontend::tls::RELOADED_WITHIN).await;
    assert!(!Arc::ptr_eq(&before, &tls.current()), "the new one");
    watching.abort();
}
