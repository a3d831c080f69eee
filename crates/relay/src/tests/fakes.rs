//! Ports in memory and a mail host on loopback.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use ports::Answer;
use ports::blobs::Blobs;
use ports::directory::{AddressClass, Directory, Identity, Login, Target};
use ports::intake::{Delivery, Intake};
use ports::outbox::Outbox;
use ports::resolver::{ResolveError, Resolver};
use queue::op::{Hold, QueueItem, QueueOp, QueueOutcome};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use vocab::{AccountId, Address, BlobHash, Domain, ForwardPath, LogRecord, MemoryRows, SubmitError, Timestamp};

pub(super) const BODY: &[u8] = b"Received: here\r\nSubject: hello\r\n\r\n.dot\r\n";

const STANDING: queue::op::Standing = queue::op::Standing {
    home: vocab::NodeId(1),
    hold: Some(queue::op::Hold { node: vocab::NodeId(1), until: Timestamp(0) }),
    joint: false,
};

/// The queue over its real state machine; `ops` remembers what was committed.
#[derive(Default)]
pub(super) struct FakeOutbox {
    rows: Mutex<MemoryRows>,
    pub ops: Mutex<Vec<QueueOp>>,
    /// What the log was told with what was committed.
    pub records: Mutex<Vec<LogRecord>>,
    pub held: Mutex<Option<Hold>>,
    /// So many ends come to a home that does not know the item yet.
    pub unknown_ends: Mutex<usize>,
    pub committed: Notify,
    changed: Notify,
}

impl FakeOutbox {
    pub(super) fn items(&self) -> Vec<QueueItem> {
        queue::read::list(&*self.rows.lock().expect("lock"), 100).expect("rows")
    }
    pub(super) fn commit(&self, op: QueueOp) -> QueueOutcome {
        let mut unknown = self.unknown_ends.lock().expect("lock");
        if *unknown > 0 && matches!(op, QueueOp::AttemptEnd { .. }) {
            *unknown -= 1;
            return QueueOutcome::Gone;
        }
        let mut rows = self.rows.lock().expect("lock");
        let (writes, _, outcome) = queue::apply(&*rows, &op, STANDING, crate::worker::wall()).expect("rows");
        rows.write(&writes);
        self.ops.lock().expect("lock").push(op);
        self.committed.notify_one();
        self.changed.notify_one();
        outcome
    }
}

impl Outbox for FakeOutbox {
    fn hold(&self) -> Option<Hold> {
        *self.held.lock().expect("lock")
    }
    fn release(&self) -> bool {
        self.held.lock().expect("lock").take().is_some()
    }
    fn is_worker(&self) -> bool {
        true
    }
    fn due(
        &self,
        now: Timestamp,
        limit: usize,
    ) -> Answer<'_, Result<(Vec<QueueItem>, Option<Timestamp>), SubmitError>> {
        let due = queue::read::due(&*self.rows.lock().expect("lock"), now, limit, self.hold().as_ref()).expect("rows");
        Box::pin(async move { Ok(due) })
    }
    fn list(&self, _limit: usize) -> Answer<'_, Result<Vec<QueueItem>, SubmitError>> {
        Box::pin(async move { Ok(self.items()) })
    }
    fn accepts(&self, _: usize) -> Answer<'_, Result<Vec<queue::op::AcceptRecord>, SubmitError>> {
        Box::pin(async { Ok(Vec::new()) })
    }
    fn submit(&self, op: QueueOp, records: Vec<LogRecord>) -> Answer<'_, Result<QueueOutcome, SubmitError>> {
        Box::pin(async move {
            let outcome = self.commit(op);
            if outcome == QueueOutcome::Done {
                self.records.lock().expect("lock").extend(records);
            }
            Ok(outcome)
        })
    }
    fn changed(&self) -> Answer<'_, ()> {
        Box::pin(self.changed.notified())
    }
}

pub(super) struct FakeBlobs;

impl Blobs for FakeBlobs {
    fn put(&self, body: Bytes) -> Answer<'_, Result<BlobHash, SubmitError>> {
        Box::pin(async move { Ok(BlobHash::of(&body)) })
    }
    fn get(&self, hash: BlobHash, from: u64, to: u64) -> Answer<'_, Result<Bytes, SubmitError>> {
        assert_eq!(hash, BlobHash::of(BODY));
        let range = usize::try_from(from).expect("small")..usize::try_from(to).expect("small").min(BODY.len());
        Box::pin(async move { Ok(Bytes::from_static(&BODY[range])) })
    }
}

/// Every domain's host is on loopback, but for `none.example` and `null.example`.
pub(super) struct FakeResolver;

impl Resolver for FakeResolver {
    fn mail_hosts<'a>(&'a self, domain: &'a Domain) -> Answer<'a, Result<Vec<String>, ResolveError>> {
        Box::pin(async move {
            match domain.as_str() {
                "none.example" => Err(ResolveError::NoSuchName),
                "null.example" => Err(ResolveError::NullMx),
                "broken.example" => Err(ResolveError::Temporary("no answer".into())),
                "loop.example" => Ok(vec!["mail.example.org".into()]),
                domain => Ok(vec![format!("mx.{domain}")]),
            }
        })
    }
    fn addresses<'a>(&'a self, _host: &'a str) -> Answer<'a, Result<Vec<IpAddr>, ResolveError>> {
        Box::pin(async move { Ok(vec![IpAddr::V4(Ipv4Addr::LOCALHOST)]) })
    }
}

/// `example.org` is ours.
pub(super) struct FakeDirectory;

impl Directory for FakeDirectory {
    fn classify<'a>(&'a self, path: &'a ForwardPath) -> Answer<'a, Result<AddressClass, SubmitError>> {
        Box::pin(async move {
            Ok(match path {
                ForwardPath::Address(a) if a.domain.as_str() != "example.org" => AddressClass::NotOurs,
                _ => AddressClass::Own(vec![Target::Local(AccountId(16))]),
            })
        })
    }
    fn authenticate<'a>(&'a self, _: &'a str, _: &'a str) -> Answer<'a, Result<Login, SubmitError>> {
        Box::pin(async { Ok(Login::Refused) })
    }
    fn may_send_as(&self, _: &Identity, _: &Address) -> bool {
        false
    }
    fn hash_password<'a>(&'a self, _: &'a str) -> Answer<'a, Bytes> {
        Box::pin(async { Bytes::new() })
    }
}

#[derive(Default)]
pub(super) struct FakeIntake {
    pub deliveries: Mutex<Vec<Delivery>>,
    /// So many calls fail before one succeeds.
    pub failures: Mutex<usize>,
}

impl Intake for FakeIntake {
    fn accept(&self, delivery: Delivery) -> Answer<'_, Result<(), SubmitError>> {
        Box::pin(async move {
            let mut failures = self.failures.lock().expect("lock");
            if *failures > 0 {
                *failures -= 1;
                return Err(SubmitError::Unavailable("test"));
            }
            self.deliveries.lock().expect("lock").push(delivery);
            Ok(())
        })
    }
}

/// What the mail host got: the envelope commands and the data of each message, and whether TLS was on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Got {
    pub envelope: Vec<String>,
    pub data: String,
    pub tls: bool,
}

/// A mail host; recipients that begin with `no` or `later` are refused for good or for now.
pub(super) struct Host {
    pub port: u16,
    pub got: watch::Receiver<Vec<Got>>,
}

pub(super) async fn host(tls: Option<Arc<rustls::ServerConfig>>, tls_works: bool) -> Host {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("bind");
    let port = listener.local_addr().expect("bound").port();
    let (tell, got) = watch::channel(Vec::new());
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let (tell, tls) = (tell.clone(), tls.clone());
            tokio::spawn(async move {
                let mut stream = BufReader::new(socket);
                if !dialogue(&mut stream, &tell, (tls.is_some(), false), true).await {
                    return;
                }
                let Some(tls) = tls.filter(|_| tls_works) else { return };
                let acceptor = tokio_rustls::TlsAcceptor::from(tls);
                if let Ok(stream) = acceptor.accept(stream.into_inner()).await {
                    dialogue(&mut BufReader::new(stream), &tell, (false, true), false).await;
                }
            });
        }
    });
    Host { port, got }
}

/// True = the client asked for TLS.
async fn dialogue<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut BufReader<S>,
    tell: &watch::Sender<Vec<Got>>,
    (offers_tls, tls): (bool, bool),
    greets: bool,
) -> bool {
    let mut got = Got { tls, ..Got::default() };
    if greets {
        stream.write_all(b"220 mx\r\n").await.expect("write");
    }
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
            return false;
        }
        let line = line.trim_end().to_owned();
        let reply = match line.split([' ', ':']).next().unwrap_or("") {
            "EHLO" if offers_tls => "250-mx\r\n250 STARTTLS",
            "EHLO" => "250 mx",
            "STARTTLS" => {
                stream.write_all(b"220 go\r\n").await.expect("write");
                return true;
            }
            "RCPT" if line.contains("<no") => "550 5.1.1 no such user",
            "RCPT" if line.contains("<later") => "451 4.2.0 later",
            "DATA" => {
                stream.write_all(b"354 go\r\n").await.expect("write");
                let mut data = String::new();
                while !data.ends_with("\r\n.\r\n") {
                    if stream.read_line(&mut data).await.unwrap_or(0) == 0 {
                        return false;
                    }
                }
                got.data = data;
                tell.send_modify(|all| all.push(got.clone()));
                "250 2.0.0 queued"
            }
            "QUIT" => {
                let _ = stream.write_all(b"221 bye\r\n").await;
                return false;
            }
            _ => "250 ok",
        };
        if line.starts_with("MAIL") || line.starts_with("RCPT") {
            got.envelope.push(line);
        }
        stream.write_all(format!("{reply}\r\n").as_bytes()).await.expect("write");
    }
}
