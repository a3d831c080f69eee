//! Both doors over loopback sockets: the real session, driver and answerer, ports in memory.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use ports::Answer;
use ports::cluster::{BranchStatus, Cluster, ClusterStatus, Departure, MembershipError, Others, Rescue};
use ports::directory::{AddressClass, Directory, Identity, Login, Target};
use ports::intake::{Delivery, Intake, Recipient};
use queue::op::{QueueItem, QueueOp, QueueOutcome};
use smtp::session::Role;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use vocab::error::NO_SPACE;
use vocab::log::{Direction, Entry, Mail, MailEvent, Record};
use vocab::session::Peer;
use vocab::{AccountId, Address, BlobHash, ForwardPath, LogRecord, NodeId, SubmitError, Timestamp};

use super::SmtpProtocol;
use crate::config::{FrontendConfig, Limits, ServicePorts};
use crate::context::{FrontendContext, Ports};
use crate::drive::drive;
use crate::listener::{Connection, Open, Protocol as _};
use crate::tls::{Tls, TlsFiles};
use crate::transport::{Socket, Transport};

#[derive(Default)]
struct Fake {
    deliveries: Mutex<Vec<Delivery>>,
}

fn unused<T>() -> Result<T, SubmitError> {
    Err(SubmitError::Unavailable("not part of this test"))
}

impl Intake for Fake {
    fn accept(&self, delivery: Delivery) -> Answer<'_, Result<(), SubmitError>> {
        Box::pin(async move {
            match delivery.reverse_path.to_string().as_str() {
                "<full@elsewhere.example>" => return Err(SubmitError::Unavailable(NO_SPACE)),
                "<unknown@elsewhere.example>" => return Err(SubmitError::Unknown("test")),
                _ => self.deliveries.lock().expect("lock").push(delivery),
            }
            Ok(())
        })
    }
}

/// `example.org` with anna (16), the alias team for anna (16), bob (17) and carol elsewhere; the password is `geheim`.
impl Directory for Fake {
    fn classify<'a>(&'a self, path: &'a ForwardPath) -> Answer<'a, Result<AddressClass, SubmitError>> {
        Box::pin(async move {
            let anna = Target::Local(AccountId(16));
            let carol = || Target::Remote(Address::parse("carol@elsewhere.example").expect("valid"));
            Ok(match path.to_string().as_str() {
                "<anna@example.org>" | "<postmaster>" => AddressClass::Own(vec![anna]),
                "<team@example.org>" => AddressClass::Own(vec![anna, Target::Local(AccountId(17)), carol()]),
                "<down@example.org>" => return Err(SubmitError::Unavailable("test")),
                other if other.ends_with("@example.org>") => AddressClass::NoSuchUser,
                _ => AddressClass::NotOurs,
            })
        })
    }
    fn authenticate<'a>(&'a self, login: &'a str, password: &'a str) -> Answer<'a, Result<Login, SubmitError>> {
        Box::pin(async move {
            let address = Address::parse("anna@example.org").expect("valid");
            Ok(match (login, password) {
                ("anna", "geheim") => Login::Accepted(Identity { account: AccountId(16), address }),
                _ => Login::Refused,
            })
        })
    }
    fn may_send_as(&self, identity: &Identity, address: &Address) -> bool {
        identity.address == *address
    }
    fn hash_password<'a>(&'a self, _: &'a str) -> Answer<'a, Bytes> {
        Box::pin(async { Bytes::new() })
    }
}

impl ports::blobs::Blobs for Fake {
    fn put(&self, _: Bytes) -> Answer<'_, Result<BlobHash, SubmitError>> {
        Box::pin(async { unused() })
    }
    fn get(&self, _: BlobHash, _: u64, _: u64) -> Answer<'_, Result<Bytes, SubmitError>> {
        Box::pin(async { unused() })
    }
}

impl ports::outbox::Outbox for Fake {
    fn hold(&self) -> Option<queue::op::Hold> {
        None
    }
    fn release(&self) -> bool {
        false
    }
    fn is_worker(&self) -> bool {
        false
    }
    fn due(&self, _: Timestamp, _: usize) -> Answer<'_, Result<(Vec<QueueItem>, Option<Timestamp>), SubmitError>> {
        Box::pin(async { unused() })
    }
    fn list(&self, _: usize) -> Answer<'_, Result<Vec<QueueItem>, SubmitError>> {
        Box::pin(async { unused() })
    }
    fn accepts(&self, _: usize) -> Answer<'_, Result<Vec<queue::op::AcceptRecord>, SubmitError>> {
        Box::pin(async { unused() })
    }
    fn submit(&self, _: QueueOp, _: Vec<LogRecord>) -> Answer<'_, Result<QueueOutcome, SubmitError>> {
        Box::pin(async { unused() })
    }
    fn changed(&self) -> Answer<'_, ()> {
        Box::pin(std::future::pending())
    }
}

impl Cluster for Fake {
    fn partners(&self) -> Vec<NodeId> {
        Vec::new()
    }
    fn events(&self, _: usize) -> Vec<ports::journal::ClusterEvent> {
        Vec::new()
    }
    fn status(&self) -> ClusterStatus {
        ClusterStatus::default()
    }
    fn node(&self) -> NodeId {
        NodeId(1)
    }
    fn serving(&self) -> watch::Receiver<bool> {
        watch::channel(true).1
    }
    fn home(&self) -> Option<NodeId> {
        None
    }
    fn holds_address(&self) -> watch::Receiver<bool> {
        watch::channel(false).1
    }
    fn branches(&self) -> Answer<'_, Result<Vec<BranchStatus>, SubmitError>> {
        Box::pin(async { Ok(Vec::new()) })
    }
    fn delete_branch(&self, _id: String) -> Answer<'_, Result<bool, SubmitError>> {
        Box::pin(async { Ok(false) })
    }
    fn start_alone(&self) -> Answer<'_, Result<(), SubmitError>> {
        Box::pin(async { unused() })
    }
    fn switch_over(&self, _: Option<NodeId>, _: bool) -> Answer<'_, Result<ports::cluster::Switchover, SubmitError>> {
        Box::pin(async { unused() })
    }
    fn leave(&self, _: bool) -> Answer<'_, Result<Departure, MembershipError>> {
        Box::pin(async { Ok(unused()?) })
    }
    fn remove(&self, _: NodeId, _: bool) -> Answer<'_, Result<Departure, MembershipError>> {
        Box::pin(async { Ok(unused()?) })
    }
    fn rescue(&self, _: Others, _: bool) -> Answer<'_, Result<Rescue, MembershipError>> {
        Box::pin(async { Ok(unused()?) })
    }
}

struct Door {
    fake: Arc<Fake>,
    protocol: SmtpProtocol,
    tls: Tls,
    _files: tempfile::TempDir,
}

/// A door with room for `memory` bytes of messages.
fn door(role: Role, memory: usize) -> Door {
    let files = tempfile::tempdir().expect("folder");
    let made = rcgen::generate_simple_self_signed(vec!["mail.example.org".to_owned()]).expect("certificate");
    let tls = TlsFiles { certificate: files.path().join("c.pem"), key: files.path().join("k.pem") };
    std::fs::write(&tls.certificate, made.cert.pem()).expect("written");
    std::fs::write(&tls.key, made.signing_key.serialize_pem()).expect("written");
    let fake = Arc::<Fake>::default();
    let ports = Ports {
        accounts: Arc::<testkit::fake_accounts::FakeAccounts>::default(),
        blobs: fake.clone(),
        config: testkit::fake_config::FakeConfig::founded(),
        directory: fake.clone(),
        intake: fake.clone(),
        outbox: fake.clone(),
        cluster: fake.clone(),
        streams: testkit::fake_streams::FakeStreams::new(NodeId(1)),
        log: Arc::new(ports::log::NoLog),
        logs: Arc::new(ports::log::NoLog),
    };
    let config = FrontendConfig {
        hostname: "mail.example.org".into(),
        address: Ipv4Addr::LOCALHOST.into(),
        cluster_ports: crate::config::ClusterPorts::WhileHeld,
        ports: ServicePorts::default(),
        tls: tls.clone(),
        allow_plaintext: false,
        message_size_max: 10 * 1024 * 1024,
        limits: Limits { message_memory_bytes: memory, ..Limits::default() },
        proxy_networks: Vec::new(),
    };
    let tls = Tls::load(tls).expect("certificate");
    Door { fake, protocol: SmtpProtocol::new(FrontendContext::new(ports, config), role), tls, _files: files }
}

impl Door {
    async fn connect(&self) -> Client<TcpStream> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("bind");
        let stream = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("connect");
        let (socket, from) = listener.accept().await.expect("accept");
        let peer = Peer { address: from.ip(), tls: false };
        let (session, answerer) = self.protocol.open(&peer);
        let transport = Transport::Plain(Socket::Tcp(socket));
        let connection =
            Connection { transport, peer, open: Open::default(), tls: Some(self.tls.clone()), place: None };
        tokio::spawn(drive(session, answerer, connection));
        Client(BufReader::new(stream))
    }
    fn deliveries(&self) -> Vec<Delivery> {
        self.fake.deliveries.lock().expect("lock").clone()
    }
}

struct Client<S>(BufReader<S>);

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// The next reply, its last line.
    async fn reply(&mut self) -> String {
        loop {
            let mut line = String::new();
            assert!(self.0.read_line(&mut line).await.expect("read") > 0, "closed");
            if line.as_bytes().get(3) != Some(&b'-') {
                return line.trim_end().to_owned();
            }
        }
    }
    async fn say(&mut self, text: &str) {
        self.0.write_all(format!("{text}\r\n").as_bytes()).await.expect("write");
    }
    async fn expect(&mut self, text: &str, reply: &str) -> String {
        self.say(text).await;
        let got = self.reply().await;
        assert!(got.starts_with(reply), "{text}: {got}");
        got
    }
}

async fn start_tls(mut client: Client<TcpStream>) -> Client<tokio_rustls::client::TlsStream<TcpStream>> {
    client.expect("STARTTLS", "220 2.0.0").await;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(testing::AnyCertificate(provider)))
        .with_no_client_auth();
    let name = rustls::pki_types::ServerName::try_from("mail.example.org").expect("name");
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    Client(BufReader::new(connector.connect(name, client.0.into_inner()).await.expect("handshake")))
}

mod testing {
    use std::sync::Arc;

    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use rustls::crypto::CryptoProvider;
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
    use rustls::{DigitallySignedStruct, Error, SignatureScheme};

    #[derive(Debug)]
    pub(super) struct AnyCertificate(pub Arc<CryptoProvider>);

    impl ServerCertVerifier for AnyCertificate {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            Ok(ServerCertVerified::assertion())
        }
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }
        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }
        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.0.signature_verification_algorithms.supported_schemes()
        }
    }
}

#[tokio::test]
async fn a_stranger_delivers_once_per_account_with_the_accept_id_everywhere() {
    let door = door(Role::Mx, 1024 * 1024);
    let mut client = door.connect().await;
    assert!(client.reply().await.starts_with("220 mail.example.org"));
    client.expect("EHLO client.example", "250 STARTTLS").await;
    client.expect("MAIL FROM:<a@elsewhere.example>", "250 2.1.0").await;
    client.expect("RCPT TO:<anna@example.org>", "250 2.1.5").await;
    client.expect("RCPT TO:<team@example.org>", "250 2.1.5").await;
    client.expect("RCPT TO:<x@elsewhere.example>", "550 5.7.1").await;
    client.expect("RCPT TO:<nobody@example.org>", "550 5.1.1").await;
    client.expect("RCPT TO:<down@example.org>", "451 4.3.2").await;
    client.expect("DATA", "354").await;
    let reply = client.expect("Subject: x\r\n\r\nhello\r\n.", "250 2.0.0 accepted as ").await;
    let deliveries = door.deliveries();
    let [delivery] = deliveries.as_slice() else { panic!("{deliveries:?}") };
    let accept = delivery.accept.to_string();
    assert!(reply.ends_with(&accept), "{reply} {accept}");
    let body = String::from_utf8(delivery.body.to_vec()).expect("text");
    assert!(body.starts_with("Received: from client.example ([127.0.0.1])\r\n\tby mail.example.org with ESMTP id "));
    assert!(body.contains(&format!(" id {accept};")), "two recipients, no `for`: {body}");
    assert!(body.ends_with("\r\nSubject: x\r\n\r\nhello\r\n") && !body.contains("Message-ID"), "{body}");
    assert_eq!(delivery.facts, mime::facts_of(&delivery.body).encode());
    let prefix = |to: &str| Bytes::from(format!("Return-Path: <a@elsewhere.example>\r\nDelivered-To: {to}\r\n"));
    let address = Address::parse("carol@elsewhere.example").expect("valid");
    let original = Address::parse("team@example.org").ok();
    let expected = [
        Recipient::Local { number: 1, account: AccountId(16), prefix: prefix("anna@example.org") },
        Recipient::Local { number: 2, account: AccountId(17), prefix: prefix("team@example.org") },
        Recipient::Remote { number: 3, address, original },
    ];
    assert_eq!(delivery.recipients, expected);
    client.expect("QUIT", "221").await;
}

fn told(delivery: &Delivery) -> Vec<Mail> {
    let mail = |record: &LogRecord| match Record::from_bytes(&record.bytes).expect("a record").entry {
        Some(Entry::Mail(mail)) => mail,
        other => panic!("{other:?}"),
    };
    delivery.records.iter().map(mail).collect()
}

#[tokio::test]
async fn log_02_the_log_is_told_once_of_each_recipient_as_it_was_named() {
    let door = door(Role::Mx, 1024 * 1024);
    let mut client = door.connect().await;
    client.reply().await;
    client.expect("EHLO client.example", "250").await;
    client.expect("MAIL FROM:<a@elsewhere.example>", "250 2.1.0").await;
    client.expect("RCPT TO:<anna@example.org>", "250 2.1.5").await;
    client.expect("RCPT TO:<team@example.org>", "250 2.1.5").await;
    client.expect("DATA", "354").await;
    client.expect("Subject: =?utf-8?q?=C3=A4?=\r\nMessage-ID: <1@x>\r\n\r\nhello\r\n.", "250 2.0.0").await;
    let delivery = door.deliveries().remove(0);
    let [anna, team] = &told(&delivery)[..] else { panic!("{delivery:?}") };
    assert_eq!((anna.recipient.as_str(), anna.direction()), ("anna@example.org", Direction::In));
    // Whatever an alias leads to, it is one record; this one leads out of the house too.
    assert_eq!((team.recipient.as_str(), team.direction()), ("team@example.org", Direction::Through));
    assert_eq!((anna.event(), anna.subject.as_str(), anna.size), (MailEvent::Accept, "ä", delivery.body.len() as u64));
    assert_eq!((anna.sender.as_str(), anna.host.as_str()), ("a@elsewhere.example", "127.0.0.1"));
    assert!(anna.message_id.contains("1@x") && anna.accept == delivery.accept.to_string(), "{anna:?}");
    assert_ne!(delivery.records[0].id, delivery.records[1].id);
}

#[tokio::test]
async fn svc_01_relaying_needs_tls_and_login_and_submission_completes_the_header() {
    let door = door(Role::Submission, 1024 * 1024);
    let mut client = door.connect().await;
    client.reply().await;
    client.expect("EHLO laptop", "250 STARTTLS").await;
    client.expect("AUTH PLAIN AGFubmEAZ2VoZWlt", "538 5.7.11").await;
    let mut client = start_tls(client).await;
    client.expect("EHLO laptop", "250 AUTH PLAIN LOGIN").await;
    client.expect("MAIL FROM:<anna@example.org>", "530 5.7.0").await;
    client.expect("AUTH PLAIN AGFubmEAd3Jvbmc=", "535 5.7.8").await;
    client.expect("AUTH PLAIN AGFubmEAZ2VoZWlt", "235 2.7.0").await;
    client.expect("MAIL FROM:<other@example.org>", "553 5.7.1").await;
    client.expect("MAIL FROM:<anna@example.org>", "250 2.1.0").await;
    client.expect("RCPT TO:<far@elsewhere.example>", "250 2.1.5").await;
    client.expect("DATA", "354").await;
    client.expect("Subject: x\r\n\r\nhello\r\n.", "250 2.0.0").await;
    let delivery = door.deliveries().remove(0);
    let body = String::from_utf8(delivery.body.to_vec()).expect("text");
    let accept = delivery.accept;
    assert!(body.contains(&format!("with ESMTPSA id {accept}\r\n\tfor <far@elsewhere.example>;\r\n")), "{body}");
    assert!(body.contains("\r\nDate: "), "{body}");
    assert!(body.contains(&format!("\r\nMessage-ID: <{accept}@mail.example.org>\r\nSubject: x")), "{body}");
    assert!(matches!(&delivery.recipients[..], [Recipient::Remote { number: 1, original: None, .. }]));
}

#[tokio::test]
async fn what_cannot_be_kept_now_is_answered_4yz_and_memory_is_given_back() {
    let door = door(Role::Mx, 600 * 1024);
    let mut client = door.connect().await;
    client.reply().await;
    client.expect("EHLO c", "250").await;
    for (from, end) in [("full", "452 4.3.1"), ("unknown", "451 4.3.2")] {
        client.expect(&format!("MAIL FROM:<{from}@elsewhere.example>"), "250").await;
        client.expect("RCPT TO:<anna@example.org>", "250").await;
        client.expect("DATA", "354").await;
        client.expect("x: y\r\n.", end).await;
    }
    // One above the memory there is, then one that fits, again and again: nothing leaks.
    for (lines, end) in [(20_000, "452 4.3.1"), (4_000, "250 2.0.0"), (4_000, "250 2.0.0"), (4_000, "250 2.0.0")] {
        client.expect("MAIL FROM:<a@elsewhere.example>", "250").await;
        client.expect("RCPT TO:<anna@example.org>", "250").await;
        client.expect("DATA", "354").await;
        let body = "0123456789 0123456789 0123456789 0123456789 0123456789\r\n".repeat(lines);
        client.expect(&format!("x: y\r\n\r\n{body}."), end).await;
    }
    assert_eq!(door.deliveries().len(), 3);
}
