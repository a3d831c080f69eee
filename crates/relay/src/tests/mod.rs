//! The relay over the real queue, with a mail host on loopback.

mod fakes;

use std::sync::Arc;
use std::time::Duration;

use fakes::{BODY, FakeBlobs, FakeDirectory, FakeIntake, FakeOutbox, FakeResolver, Host, host};
use ports::intake::Recipient;
use queue::op::{AttemptResult, Hold, QueueItem, QueueOp};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use testkit::fake_config::FakeConfig;
use topology::DocumentKind;
use vocab::log::{Direction, Entry, MailEvent, Record};
use vocab::{AccountId, Address, BlobHash, Boot, CommandId, NodeId, ReversePath, Timestamp};

use crate::worker::wall;
use crate::{Relay, RelayConfig, RelayPorts};

const PATIENCE: Duration = Duration::from_secs(20);

fn item(number: u32, to: &str) -> QueueItem {
    QueueItem {
        id: CommandId { origin: NodeId(1), boot: Boot(2), counter: 3, recipient: number },
        reverse_path: ReversePath::Address(Address::parse("anna@example.org").expect("valid")),
        recipient: Address::parse(to).expect("valid"),
        original_recipient: None,
        blob: BlobHash::of(BODY),
        size: BODY.len() as u64,
        smtputf8: false,
        eight_bit: false,
        accepted_at: wall(),
        attempts: 0,
        due: Timestamp(0),
        attempt: None,
        last_status: None,
        owner: None,
    }
}

struct Setup {
    outbox: Arc<FakeOutbox>,
    intake: Arc<FakeIntake>,
    config: Arc<FakeConfig>,
    _relay: tokio::task::JoinHandle<()>,
}

fn start(port: u16, items: Vec<QueueItem>) -> Setup {
    let (outbox, intake, config) = (Arc::<FakeOutbox>::default(), Arc::<FakeIntake>::default(), FakeConfig::founded());
    outbox.commit(QueueOp::Enqueue(items));
    let ports = RelayPorts {
        outbox: outbox.clone(),
        blobs: Arc::new(FakeBlobs),
        resolver: Arc::new(FakeResolver),
        config: config.clone(),
        directory: Arc::new(FakeDirectory),
        intake: intake.clone(),
        log: Arc::new(ports::log::NoLog),
    };
    let relay_config = RelayConfig { port, ..RelayConfig::new("mail.example.org".into(), NodeId(1)) };
    let relay = Relay::new(ports, relay_config).expect("TLS");
    let _relay = tokio::spawn(relay.run(std::future::pending()));
    Setup { outbox, intake, config, _relay }
}

impl Setup {
    /// The result of the attempt on the item, when it is committed.
    async fn result(&self, number: u32) -> AttemptResult {
        let found = async {
            loop {
                let waiting = self.outbox.committed.notified();
                let ops = self.outbox.ops.lock().expect("lock").clone();
                let ended = ops.into_iter().find_map(|op| match op {
                    QueueOp::AttemptEnd { id, result, .. } if id.recipient == number => Some(result),
                    _ => None,
                });
                match ended {
                    Some(result) => return result,
                    None => waiting.await,
                }
            }
        };
        tokio::time::timeout(PATIENCE, found).await.expect("an end of the attempt")
    }
}

async fn plain() -> Host {
    host(None, true).await
}

fn certificate() -> Arc<rustls::ServerConfig> {
    let made = rcgen::generate_simple_self_signed(vec!["other.example".to_owned()]).expect("certificate");
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let builder = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().expect("versions").with_no_client_auth();
    Arc::new(builder.with_single_cert(vec![made.cert.der().clone()], key).expect("certificate"))
}

/// An anchor that has not merged the queue yet does not know what the guest took in: its "gone" is not the end.
#[tokio::test]
async fn h13_the_end_of_an_attempt_is_offered_until_its_home_knows_the_item() {
    let mx = plain().await;
    let setup = start(mx.port, vec![item(1, "bob@elsewhere.example")]);
    *setup.outbox.unknown_ends.lock().expect("lock") = 1;
    assert_eq!(setup.result(1).await, AttemptResult::Delivered);
    assert!(setup.outbox.items().is_empty());
    assert_eq!((*setup.outbox.unknown_ends.lock().expect("lock"), mx.got.borrow().len()), (0, 1));
}

#[tokio::test]
async fn mail_is_relayed_after_its_start_is_committed() {
    let mx = plain().await;
    let setup = start(mx.port, vec![item(1, "bob@elsewhere.example")]);
    assert_eq!(setup.result(1).await, AttemptResult::Delivered);
    let got = mx.got.borrow().clone();
    assert_eq!(got[0].envelope, ["MAIL FROM:<anna@example.org>", "RCPT TO:<bob@elsewhere.example>"]);
    assert_eq!(got[0].data, "Received: here\r\nSubject: hello\r\n\r\n..dot\r\n.\r\n");
    let ops = setup.outbox.ops.lock().expect("lock").clone();
    assert!(matches!(&ops[1], QueueOp::AttemptStart { node: NodeId(1), .. }), "{ops:?}");
    assert!(setup.outbox.items().is_empty());
    assert!(setup.intake.deliveries.lock().expect("lock").is_empty());
}

#[tokio::test]
async fn log_03_the_end_of_every_attempt_is_told_to_the_log_with_its_commit() {
    let mx = plain().await;
    let setup = start(mx.port, vec![item(1, "bob@elsewhere.example"), item(2, "later@elsewhere.example")]);
    setup.result(1).await;
    setup.result(2).await;
    let records = setup.outbox.records.lock().expect("lock").clone();
    let told: Vec<_> = records
        .iter()
        .map(|record| match Record::from_bytes(&record.bytes).expect("a record").entry {
            Some(Entry::Mail(mail)) => mail,
            other => panic!("{other:?}"),
        })
        .collect();
    let of = |recipient: &str| told.iter().find(|mail| mail.recipient == recipient).expect("told");
    let sent = of("bob@elsewhere.example");
    assert_eq!((sent.event(), sent.subject.as_str(), sent.attempt), (MailEvent::Deliver, "hello", 1));
    assert_eq!((sent.sender.as_str(), sent.direction()), ("anna@example.org", Direction::Out));
    let later = of("later@elsewhere.example");
    assert_eq!((later.event(), later.status.as_str()), (MailEvent::Defer, "4.2.0"));
    assert!(later.outcome.contains("later"), "{later:?}");
    assert_eq!(sent.accept, later.accept, "both are found by the accept id of the message");
}

#[tokio::test]
async fn any_certificate_will_do_and_broken_tls_is_left_out() {
    let mx = host(Some(certificate()), true).await;
    let setup = start(mx.port, vec![item(1, "bob@elsewhere.example")]);
    assert_eq!(setup.result(1).await, AttemptResult::Delivered);
    assert!(mx.got.borrow()[0].tls);
    let mx = host(Some(certificate()), false).await;
    let setup = start(mx.port, vec![item(1, "bob@elsewhere.example")]);
    assert_eq!(setup.result(1).await, AttemptResult::Delivered);
    assert!(!mx.got.borrow()[0].tls);
}

#[tokio::test]
async fn a_temporary_failure_is_deferred_with_its_reason() {
    let mx = plain().await;
    let setup = start(mx.port, vec![item(1, "later@elsewhere.example"), item(2, "x@broken.example")]);
    let AttemptResult::Deferred(failure, due) = setup.result(1).await else { panic!("not deferred") };
    assert_eq!((failure.status.as_str(), failure.diagnostic.as_str()), ("4.2.0", "451 4.2.0 later"));
    assert_eq!(failure.remote.as_deref(), Some("mx.elsewhere.example [127.0.0.1]"));
    assert!(due > wall() && due <= wall().plus_ms(60_000));
    let AttemptResult::Deferred(failure, _) = setup.result(2).await else { panic!("not deferred") };
    assert_eq!(failure.status, "4.4.3");
    assert_eq!(setup.outbox.items().iter().map(|i| i.attempts).collect::<Vec<_>>(), [1, 1]);
    assert!(setup.intake.deliveries.lock().expect("lock").is_empty());
}

#[tokio::test]
async fn a_permanent_failure_makes_one_bounce_before_the_item_goes() {
    let mx = plain().await;
    let setup = start(mx.port, vec![item(1, "nobody@elsewhere.example")]);
    assert!(matches!(setup.result(1).await, AttemptResult::Failed(f) if f.status == "5.1.1"));
    let deliveries = setup.intake.deliveries.lock().expect("lock").clone();
    let [bounce] = deliveries.as_slice() else { panic!("{deliveries:?}") };
    assert_eq!(bounce.reverse_path, ReversePath::Null);
    assert_eq!(bounce.accept.recipient, 0x8000_0100);
    let [Recipient::Local { number, account: AccountId(16), prefix }] = bounce.recipients.as_slice() else {
        panic!("{bounce:?}")
    };
    assert_eq!(*number, 0x8000_0100);
    assert_eq!(&prefix[..], b"Return-Path: <>\r\nDelivered-To: anna@example.org\r\n");
    let body = String::from_utf8(bounce.body.to_vec()).expect("text");
    assert!(body.contains("Final-Recipient: rfc822; nobody@elsewhere.example\r\n"), "{body}");
    assert!(body.contains("Subject: hello\r\n") && !body.contains("dot"), "{body}");
    assert!(!bounce.facts.is_empty());
}

#[tokio::test]
async fn dns_says_never_and_nobody_is_told_about_null_paths() {
    let mx = plain().await;
    let nobody = QueueItem { reverse_path: ReversePath::Null, ..item(3, "x@none.example") };
    let items = vec![item(1, "x@none.example"), item(2, "x@null.example"), nobody, item(4, "x@loop.example")];
    let setup = start(mx.port, items);
    for (number, status) in [(1, "5.1.2"), (2, "5.1.10"), (3, "5.1.2"), (4, "5.4.6")] {
        assert!(matches!(setup.result(number).await, AttemptResult::Failed(f) if f.status == status), "{number}");
    }
    assert_eq!(setup.intake.deliveries.lock().expect("lock").len(), 3);
}

#[tokio::test]
async fn que_03_after_five_days_a_temporary_failure_is_final() {
    let mx = plain().await;
    let old = Timestamp(wall().0 - queue::schedule::GIVE_UP_AFTER_MS);
    let foreign = ReversePath::Address(Address::parse("eve@far.example").expect("valid"));
    let aged = QueueItem { accepted_at: old, reverse_path: foreign, ..item(1, "later@elsewhere.example") };
    let setup = start(mx.port, vec![aged]);
    assert!(matches!(setup.result(1).await, AttemptResult::Failed(f) if f.status == "4.2.0"));
    let deliveries = setup.intake.deliveries.lock().expect("lock").clone();
    assert!(matches!(&deliveries[0].recipients[..], [Recipient::Remote { address, original: None, .. }]
        if address.to_string() == "eve@far.example"));
    assert!(String::from_utf8_lossy(&deliveries[0].body).contains("Status: 5.2.0\r\n"));
}

#[tokio::test]
async fn ha_15_mail_of_the_other_node_is_not_bounced_while_that_node_may_be_alive() {
    let mx = plain().await;
    let setup = start(mx.port, vec![]);
    *setup.outbox.held.lock().expect("lock") = Some(Hold { node: NodeId(2), until: Timestamp(0) });
    setup.outbox.commit(QueueOp::Enqueue(vec![item(1, "nobody@elsewhere.example")]));
    assert!(matches!(setup.result(1).await, AttemptResult::Deferred(f, _) if f.status == "5.1.1"));
    assert!(setup.intake.deliveries.lock().expect("lock").is_empty());
    // Its own is.
    *setup.outbox.held.lock().expect("lock") = Some(Hold { node: NodeId(1), until: Timestamp(0) });
    setup.outbox.commit(QueueOp::Enqueue(vec![item(2, "nobody@elsewhere.example")]));
    assert!(matches!(setup.result(2).await, AttemptResult::Failed(f) if f.status == "5.1.1"));
    assert_eq!(setup.intake.deliveries.lock().expect("lock").len(), 1);
}

#[tokio::test]
async fn an_item_stays_until_its_bounce_is_durable() {
    let mx = plain().await;
    let setup = start(mx.port, vec![]);
    *setup.intake.failures.lock().expect("lock") = 1;
    setup.outbox.commit(QueueOp::Enqueue(vec![item(1, "nobody@elsewhere.example")]));
    assert!(matches!(setup.result(1).await, AttemptResult::Deferred(f, _) if f.status == "5.1.1"));
    assert_eq!(setup.outbox.items().len(), 1);
}

#[tokio::test]
async fn a_relay_host_takes_everything_and_a_bad_setting_nothing() {
    let mx = plain().await;
    let setup = start(1, vec![]);
    let put = |body| setup.config.put(DocumentKind::Setting, crate::route::SETTING, body);
    put(serde_json::json!({"host": "127.0.0.1", "port": mx.port}));
    setup.outbox.commit(QueueOp::Enqueue(vec![item(1, "x@none.example")]));
    assert_eq!(setup.result(1).await, AttemptResult::Delivered);
    put(serde_json::json!({"host": "127.0.0.1", "port": mx.port, "tls": "required"}));
    setup.outbox.commit(QueueOp::Enqueue(vec![item(2, "x@none.example")]));
    assert!(matches!(setup.result(2).await, AttemptResult::Deferred(f, _) if f.status == "4.7.4"));
    put(serde_json::json!({"hosts": 5}));
    setup.outbox.commit(QueueOp::Enqueue(vec![item(3, "x@none.example")]));
    assert!(matches!(setup.result(3).await, AttemptResult::Deferred(f, _) if f.status == "4.3.5"));
}

#[tokio::test]
async fn a_host_that_cannot_be_reached_is_tried_later() {
    let closed = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
        listener.local_addr().expect("bound").port()
    };
    let setup = start(closed, vec![item(1, "bob@elsewhere.example")]);
    assert!(matches!(setup.result(1).await, AttemptResult::Deferred(f, _) if f.status == "4.4.1"));
}
