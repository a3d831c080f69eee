//! Two and more transports over loopback with real TLS.
#![allow(missing_docs)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ports::Answer;
use ports::peers::{CallError, LinkUp, PeerEvents, PeerProgram, PeerService, Peers as _, Service};
use tokio::sync::{mpsc, watch};
use transport::ca::{self, Authority};
use transport::{
    ExamineReply, ExamineRequest, Handlers, JoinHandler, JoinReply, JoinRequest, Members, Probe, TlsPems, Transport,
    TransportConfig, Versions,
};
use vocab::{Boot, NodeId};

const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);

#[derive(Debug, PartialEq)]
enum Event {
    Up(NodeId, Boot, u64),
    Down(NodeId, u64, bool),
    Frame(NodeId, u64, Bytes),
    GuardWord(NodeId, Boot),
}

struct Recorder(mpsc::UnboundedSender<Event>);
impl PeerEvents for Recorder {
    fn link_up(&self, up: LinkUp) {
        let _ = self.0.send(Event::Up(up.peer, up.boot, up.link));
    }
    fn link_down(&self, peer: NodeId, link: u64, reset: bool) {
        let _ = self.0.send(Event::Down(peer, link, reset));
    }
    fn frame(&self, peer: NodeId, link: u64, frame: Bytes) {
        let _ = self.0.send(Event::Frame(peer, link, frame));
    }
}

struct Echo;
impl PeerService for Echo {
    fn serve(&self, from: NodeId, body: Bytes) -> Answer<'_, Result<Bytes, String>> {
        Box::pin(async move {
            if body.is_empty() {
                Err("nothing to say".to_owned())
            } else {
                Ok([&[from.0 as u8][..], &body].concat().into())
            }
        })
    }
}

struct Admission(Authority);
impl JoinHandler for Admission {
    fn join(&self, request: JoinRequest) -> Answer<'_, Result<JoinReply, String>> {
        Box::pin(async move {
            if request.secret.as_ref() != b"open sesame" {
                return Err("unknown token".to_owned());
            }
            let certificate = self.0.sign_node(&request.request, B, &[request.name]).map_err(|e| e.to_string())?;
            Ok(JoinReply { node: B.0, certificate, ..JoinReply::default() })
        })
    }
    fn examine(&self, request: ExamineRequest) -> Answer<'_, Result<ExamineReply, String>> {
        Box::pin(async move {
            if request.secret.as_ref() != b"open sesame" {
                return Err("unknown token".to_owned());
            }
            Ok(ExamineReply { next_node: B.0, ..ExamineReply::default() })
        })
    }
}

struct Node {
    transport: Arc<Transport>,
    events: mpsc::UnboundedReceiver<Event>,
    address: SocketAddr,
    tls: TlsPems,
}

#[derive(Clone, Copy)]
struct Start {
    node: NodeId,
    boot: u32,
    cluster: &'static str,
    versions: Versions,
    port: u16,
}

const fn plain(node: NodeId) -> Start {
    Start { node, boot: 1, cluster: "c1", versions: Versions::CURRENT, port: 0 }
}

async fn start(authority: &Authority, what: Start, members: &watch::Sender<Members>) -> Node {
    let issued = authority.issue_node(what.node, &["127.0.0.1".to_owned()]).expect("issue");
    let tls = TlsPems { ca: authority.certificate().to_owned(), certificate: issued.certificate, key: issued.key };
    let config = TransportConfig {
        node: what.node,
        boot: Boot(what.boot),
        cluster_id: what.cluster.to_owned(),
        listen: vec![SocketAddr::from(([127, 0, 0, 1], what.port))],
        tls: tls.clone(),
        versions: what.versions,
        program: "1.2.3".to_owned(),
    };
    let transport = Transport::new(config, members.subscribe()).expect("certificates");
    let (sender, events) = mpsc::unbounded_channel();
    let guard = sender.clone();
    let handlers = Handlers {
        events: Arc::new(Recorder(sender)),
        services: vec![(Service::Shards, Arc::new(Echo))],
        join: Arc::new(Admission(Authority::load(authority.certificate(), authority.key()).expect("CA"))),
        on_guard_word: Arc::new(move |node, boot| drop(guard.send(Event::GuardWord(node, boot)))),
    };
    let address = transport.start(handlers).await.expect("listen")[0];
    members.send_modify(|all| drop(all.insert(what.node, vec![address.to_string()])));
    Node { transport, events, address, tls }
}

async fn next(node: &mut Node) -> Event {
    tokio::time::timeout(Duration::from_secs(20), node.events.recv()).await.expect("an event in time").expect("open")
}

fn authority() -> Authority {
    Authority::create("test", u64::MAX).expect("CA")
}

fn members() -> watch::Sender<Members> {
    watch::channel(BTreeMap::new()).0
}

async fn pair() -> (Authority, watch::Sender<Members>, Node, Node) {
    let (authority, members) = (authority(), members());
    let mut a = start(&authority, plain(A), &members).await;
    let mut b = start(&authority, plain(B), &members).await;
    assert_eq!(next(&mut a).await, Event::Up(B, Boot(1), 1));
    assert_eq!(next(&mut b).await, Event::Up(A, Boot(1), 1));
    (authority, members, a, b)
}

#[tokio::test]
async fn frames_arrive_in_order_both_ways_and_big_ones_whole() {
    let (_, _, mut a, mut b) = pair().await;
    for number in 0..500_u32 {
        assert!(a.transport.send(B, Bytes::copy_from_slice(&number.to_be_bytes())));
        assert!(b.transport.send(A, Bytes::copy_from_slice(&number.to_le_bytes())));
    }
    let big: Bytes = (0..20_000_000_u32).map(|i| (i % 251) as u8).collect::<Vec<_>>().into();
    assert!(a.transport.send(B, big.clone()));
    assert!(a.transport.send(B, Bytes::new()));
    for number in 0..500_u32 {
        assert_eq!(next(&mut b).await, Event::Frame(A, 1, Bytes::copy_from_slice(&number.to_be_bytes())));
        assert_eq!(next(&mut a).await, Event::Frame(B, 1, Bytes::copy_from_slice(&number.to_le_bytes())));
    }
    assert!(next(&mut b).await == Event::Frame(A, 1, big), "a payload above the frame limit arrives whole");
    assert_eq!(next(&mut b).await, Event::Frame(A, 1, Bytes::new()));
    assert_eq!(a.transport.queued_bytes(B), 0);
}

#[tokio::test]
async fn calls_are_answered_refused_or_not_sent() {
    let (_, _, a, b) = pair().await;
    let call = |service, body: &'static [u8]| a.transport.call(B, service, Bytes::from_static(body));
    assert_eq!(call(Service::Shards, b"hi").await, Ok(Bytes::from_static(b"\x01hi")));
    assert_eq!(call(Service::Shards, b"").await, Err(CallError::Refused("nothing to say".to_owned())));
    assert!(matches!(call(Service::Control, b"x").await, Err(CallError::Refused(_))), "a service nobody registered");
    let stranger = a.transport.call(NodeId(9), Service::Shards, Bytes::from_static(b"x")).await;
    assert!(matches!(stranger, Err(CallError::NotSent(_))), "{stranger:?}");
    let big = Bytes::from(vec![7; 70 * 1024 * 1024]);
    let answer = b.transport.call(A, Service::Shards, big.clone()).await.expect("a call as large as a batch");
    assert_eq!(answer.len(), big.len() + 1);
}

#[tokio::test]
async fn a_stopped_peer_is_a_reset_and_its_next_boot_gets_a_new_link() {
    let (authority, members, mut a, b) = pair().await;
    let port = b.address.port();
    b.transport.stop();
    assert_eq!(next(&mut a).await, Event::Down(B, 1, true), "nobody listens there any more");
    assert!(!a.transport.send(B, Bytes::from_static(b"lost")));
    let refused = a.transport.call(B, Service::Shards, Bytes::from_static(b"x")).await;
    assert!(matches!(refused, Err(CallError::NotSent(_))), "{refused:?}");
    assert_eq!(transport::probe_reset(&b.address.to_string()).await, Probe::Refused);
    let mut again = start(&authority, Start { boot: 2, port, ..plain(B) }, &members).await;
    assert_eq!(next(&mut a).await, Event::Up(B, Boot(2), 2));
    assert_eq!(next(&mut again).await, Event::Up(A, Boot(1), 1));
    assert!(again.transport.send(A, Bytes::from_static(b"back")));
    assert_eq!(next(&mut a).await, Event::Frame(B, 2, Bytes::from_static(b"back")));
    assert_eq!(
        a.transport.call(B, Service::Shards, Bytes::from_static(b"x")).await,
        Ok(Bytes::from_static(b"\x01x")),
        "calls find the new process too"
    );
}

#[tokio::test]
async fn reset_from_either_side_builds_a_fresh_link() {
    let (_, _, mut a, mut b) = pair().await;
    for (round, dialler_resets) in [(2, true), (3, false)] {
        if dialler_resets {
            a.transport.reset(B)
        } else {
            b.transport.reset(A)
        }
        assert_eq!(next(&mut a).await, Event::Down(B, round - 1, false), "the peer lives");
        assert_eq!(next(&mut b).await, Event::Down(A, round - 1, false));
        assert_eq!(next(&mut a).await, Event::Up(B, Boot(1), round));
        assert_eq!(next(&mut b).await, Event::Up(A, Boot(1), round));
    }
}

/// Several dials happen in this time (they are retried after 50 to 500 ms); none may become a link, and both know why.
async fn refused_link(a: Start, b: Start, why: &str) {
    let (authority, members) = (authority(), members());
    let mut a = start(&authority, a, &members).await;
    let mut b = start(&authority, b, &members).await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert!(a.events.try_recv().is_err() && b.events.try_recv().is_err(), "no link may be announced");
    assert!(!a.transport.send(B, Bytes::from_static(b"x")) && !b.transport.send(A, Bytes::from_static(b"x")));
    for told in [a.transport.refused(B), b.transport.refused(A)] {
        assert!(told.as_ref().is_some_and(|told| told.contains(why)), "{why}: {told:?}");
    }
}

#[tokio::test]
async fn another_cluster_or_no_common_version_is_refused() {
    let newer = Versions { protocol: (2, 3), row_format: (1, 1) };
    let rows = Versions { protocol: (1, 1), row_format: (4, 5) };
    tokio::join!(
        refused_link(plain(A), Start { cluster: "c2", ..plain(B) }, "is not this cluster"),
        refused_link(plain(A), Start { versions: newer, ..plain(B) }, "no common protocol"),
        refused_link(Start { versions: newer, ..plain(A) }, plain(B), "no common protocol"),
        refused_link(Start { versions: rows, ..plain(A) }, plain(B), "no common row format"),
    );
}

#[tokio::test]
async fn overlapping_versions_link() {
    let (authority, members) = (authority(), members());
    let wide = Versions { protocol: (1, 4), row_format: (1, 2) };
    let mut a = start(&authority, plain(A), &members).await;
    assert_eq!(a.transport.program(B), None, "nothing was heard yet");
    let mut b = start(&authority, Start { versions: wide, ..plain(B) }, &members).await;
    assert_eq!(next(&mut a).await, Event::Up(B, Boot(1), 1));
    assert_eq!(next(&mut b).await, Event::Up(A, Boot(1), 1));
    let told = |protocol, rows| Some(PeerProgram { version: "1.2.3".to_owned(), protocol, rows });
    assert_eq!(a.transport.program(B), told((1, 4), (1, 2)));
    assert_eq!(b.transport.program(A), told(Versions::CURRENT.protocol, Versions::CURRENT.row_format));
    assert_eq!(b.transport.program(B), told((1, 4), (1, 2)), "of itself");
    assert_eq!((a.transport.refused(B), b.transport.refused(A)), (None, None));
}

#[tokio::test]
async fn a_certificate_of_another_ca_gets_nothing() {
    let members = members();
    let mut a = start(&authority(), plain(A), &members).await;
    let b = start(&authority(), plain(B), &members).await;
    let answer = b.transport.call(A, Service::Shards, Bytes::from_static(b"x")).await;
    assert!(matches!(answer, Err(CallError::NotSent(_) | CallError::Lost(_))), "{answer:?}");
    let word = transport::send_guard_word(&b.tls, A, &[a.address.to_string()], Boot(1)).await;
    assert!(word.is_err(), "{word:?}");
    assert!(a.events.try_recv().is_err());
}

#[tokio::test]
async fn a_node_that_is_no_member_and_a_service_certificate_get_nothing() {
    let (authority, members) = (authority(), members());
    let mut a = start(&authority, plain(A), &members).await;
    let address = a.address.to_string();
    let outsider = authority.issue_node(NodeId(7), &[]).expect("issue");
    let service = authority.issue_service(&["mail.example.org".to_owned()]).expect("issue");
    for issued in [outsider, service] {
        let tls = TlsPems { ca: authority.certificate().to_owned(), certificate: issued.certificate, key: issued.key };
        assert!(transport::send_guard_word(&tls, A, std::slice::from_ref(&address), Boot(1)).await.is_err());
    }
    assert!(a.events.try_recv().is_err());
    let names = ["node-2.twinpost.internal".to_owned()];
    assert!(authority.issue_service(&names).is_err(), "no operator's name can pass for a node");
}

/// A pair of which one node is removed by the other, whose list it does not see.
async fn removed_gets_nothing(stays: NodeId, goes: NodeId) {
    let authority = authority();
    let (of_stays, of_goes) = (members(), members());
    let mut first = start(&authority, plain(stays), &of_stays).await;
    let mut second = start(&authority, plain(goes), &of_goes).await;
    of_stays.send_modify(|all| drop(all.insert(goes, vec![second.address.to_string()])));
    of_goes.send_modify(|all| drop(all.insert(stays, vec![first.address.to_string()])));
    assert_eq!(next(&mut first).await, Event::Up(goes, Boot(1), 1));
    assert_eq!(next(&mut second).await, Event::Up(stays, Boot(1), 1));
    let call = || second.transport.call(stays, Service::Shards, Bytes::from_static(b"x"));
    call().await.expect("a member is answered");
    // The certificate stays valid in itself; what counts is the list of members.
    of_stays.send_modify(|all| drop(all.remove(&goes)));
    assert_eq!(next(&mut first).await, Event::Down(goes, 1, false), "the link ends");
    let refused = call().await;
    assert!(matches!(&refused, Err(CallError::Refused(why)) if why.contains("no member")), "{refused:?}");
    let address = [first.address.to_string()];
    let word = transport::send_guard_word(&second.tls, stays, &address, Boot(1)).await;
    assert!(word.as_ref().is_err_and(|why| why.contains("no member")), "{word:?}");
    let stream = ports::streams::Streams::open(&*second.transport, stays).await;
    if let Ok(mut stream) = stream {
        // Whoever dials learns of the refusal by the end of the stream.
        let mut byte = [0u8; 1];
        let read = tokio::io::AsyncReadExt::read(&mut stream, &mut byte);
        let read = tokio::time::timeout(Duration::from_secs(20), read).await.expect("it ends");
        assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    }
    // It dials again all the time; several of its dials happen here, and none becomes a link.
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert!(!first.transport.send(goes, Bytes::from_static(b"x")));
    second.transport.send(stays, Bytes::from_static(b"frame of a removed node"));
    let late = first.events.try_recv();
    assert!(late.is_err(), "nothing of it arrives: {late:?}");
}

#[tokio::test]
async fn ha_21_the_certificate_of_a_removed_node_is_refused_whoever_dials() {
    tokio::join!(removed_gets_nothing(A, B), removed_gets_nothing(B, A));
}

#[tokio::test]
async fn the_guards_word_arrives_with_node_and_boot() {
    let (_, _, mut a, b) = pair().await;
    transport::send_guard_word(&b.tls, A, &[a.address.to_string()], Boot(1)).await.expect("sent");
    assert_eq!(next(&mut a).await, Event::GuardWord(B, Boot(1)));
}

#[tokio::test]
async fn joining_needs_the_right_ca_and_the_right_secret() {
    let (authority, members) = (authority(), members());
    let a = start(&authority, plain(A), &members).await;
    let address = a.address.to_string();
    let own = ca::request_node().expect("key");
    let request = |secret: &'static [u8]| JoinRequest {
        secret: Bytes::from_static(secret),
        name: "beta".to_owned(),
        request: own.request.clone(),
        ..JoinRequest::default()
    };
    let right = ca::ca_hash(authority.certificate()).expect("hash");
    let wrong = ca::ca_hash(Authority::create("other", u64::MAX).expect("CA").certificate()).expect("hash");
    let error = transport::join_call(&address, &wrong, request(b"open sesame")).await.expect_err("wrong CA");
    assert!(error.contains("token"), "{error}");
    let error = transport::join_call(&address, &right, request(b"guess")).await.expect_err("wrong secret");
    assert_eq!(error, "unknown token");
    let question = |secret: &'static [u8]| ExamineRequest { secret: Bytes::from_static(secret), ..Default::default() };
    let error = transport::examine_call(&address, &wrong, question(b"open sesame"), || 7).await.expect_err("wrong CA");
    assert!(error.contains("token"), "{error}");
    let error = transport::examine_call(&address, &right, question(b"guess"), || 7).await.expect_err("wrong secret");
    assert_eq!(error, "unknown token");
    let (facts, around) =
        transport::examine_call(&address, &right, question(b"open sesame"), || 7).await.expect("told");
    assert_eq!((facts.next_node, around), (B.0, (7, 7)));
    let huge = JoinRequest { name: "x".repeat(1_000_000), ..request(b"open sesame") };
    assert!(transport::join_call(&address, &right, huge).await.is_err(), "a stranger cannot send much");
    let reply = transport::join_call(&address, &right, request(b"open sesame")).await.expect("admitted");
    assert_eq!(reply.node, B.0);
    // The certificate that came back works with the key that never travelled.
    members.send_modify(|all| drop(all.insert(B, vec!["127.0.0.1:9".to_owned()])));
    let tls = TlsPems { ca: authority.certificate().to_owned(), certificate: reply.certificate, key: own.key };
    transport::send_guard_word(&tls, A, std::slice::from_ref(&address), Boot(5)).await.expect("a member now");
}

/// A certificate for this node by `issuer`, under the trust of all of `trusted`.
fn certified(node: NodeId, issuer: &Authority, trusted: &[&Authority]) -> TlsPems {
    let issued = issuer.issue_node(node, &["127.0.0.1".to_owned()]).expect("issue");
    let ca = trusted.iter().map(|one| one.certificate()).collect::<Vec<_>>().join("");
    TlsPems { ca, certificate: issued.certificate, key: issued.key }
}

async fn calls_work(a: &Node, b: &Node) {
    for (from, to) in [(a, B), (b, A)] {
        let answer = from.transport.call(to, Service::Shards, Bytes::from_static(b"x")).await;
        assert!(answer.is_ok(), "{answer:?}");
    }
}

#[tokio::test]
async fn a_renewed_certificate_is_used_and_breaks_no_link() {
    let (authority, _, mut a, mut b) = pair().await;
    calls_work(&a, &b).await;
    let ends = 4_000_000_000;
    let short = Authority::load(authority.certificate(), authority.key()).expect("CA").until(ends);
    for (node, id) in [(&a, A), (&b, B)] {
        let tls = certified(id, &short, &[&authority]);
        let facts = ca::CertificateFacts::read(&tls.certificate).expect("facts");
        let root = ca::CertificateFacts::read(authority.certificate()).expect("facts");
        assert!(facts.ends == ends && facts.names_issuer(&root) && !root.names_issuer(&facts), "{facts:?}");
        // A key of another certificate is noticed, and what was stays.
        let wrong = TlsPems { key: certified(id, &short, &[&authority]).key, ..tls.clone() };
        assert!(node.transport.set_tls(wrong).is_err());
        node.transport.set_tls(tls).expect("good");
    }
    calls_work(&a, &b).await;
    assert!(a.transport.send(B, Bytes::from_static(b"on the old link")));
    assert_eq!(next(&mut b).await, Event::Frame(A, 1, Bytes::from_static(b"on the old link")));
    assert!(a.events.try_recv().is_err() && b.events.try_recv().is_err(), "nothing went down");
    a.transport.reset(B);
    assert_eq!(next(&mut a).await, Event::Down(B, 1, false));
    assert_eq!(next(&mut a).await, Event::Up(B, Boot(1), 2), "new links stand on the new certificates");
}

#[tokio::test]
async fn the_ca_is_exchanged_and_the_old_one_gets_nothing_afterwards() {
    let (old, members, mut a, mut b) = pair().await;
    let new = Authority::create("test", u64::MAX).expect("CA");
    let (address, nodes) = (a.address.to_string(), [A, B]);
    // Somebody with the old CA's key passes for node 2, and has a connection for calls.
    let impostor = TransportConfig {
        node: B,
        boot: Boot(1),
        cluster_id: "c1".to_owned(),
        listen: Vec::new(),
        tls: certified(B, &old, &[&old, &new]),
        versions: Versions::CURRENT,
        program: String::new(),
    };
    let impostor = Transport::new(impostor, members.subscribe()).expect("certificates");
    let call = || impostor.call(A, Service::Shards, Bytes::from_static(b"x"));
    call().await.expect("nobody knows yet");
    for (issuer, trusted) in [(&old, vec![&old, &new]), (&new, vec![&new, &old])] {
        for (node, id) in [&a, &b].into_iter().zip(nodes) {
            node.transport.set_tls(certified(id, issuer, &trusted)).expect("good");
            calls_work(&a, &b).await;
        }
    }
    assert!(a.events.try_recv().is_err() && b.events.try_recv().is_err(), "nothing went down");
    call().await.expect("the old one is still trusted");
    let last: Vec<TlsPems> = nodes.iter().map(|id| certified(*id, &new, &[&new])).collect();
    for (node, tls) in [&a, &b].into_iter().zip(last) {
        node.transport.set_tls(tls).expect("good");
        calls_work(&a, &b).await;
    }
    // Who dialled the link moves it at once.
    assert_eq!(next(&mut a).await, Event::Down(B, 1, false));
    assert_eq!(next(&mut a).await, Event::Up(B, Boot(1), 2));
    assert!(matches!(next(&mut b).await, Event::Down(..)));
    let refused = call().await;
    assert!(refused.is_err(), "on the connection that stands as on a new one: {refused:?}");
    let word = transport::send_guard_word(&certified(B, &old, &[&old, &new]), A, &[address], Boot(1)).await;
    assert!(word.is_err(), "{word:?}");
    let hash = ca::ca_hash(old.certificate()).expect("hash");
    let token = transport::join_call(&a.address.to_string(), &hash, JoinRequest::default()).await;
    assert!(token.as_ref().is_err_and(|why| why.contains("has changed its CA")), "{token:?}");
}

#[tokio::test]
async fn a_link_of_a_dropped_ca_that_its_dialler_keeps_is_ended() {
    let (_old, _, a, mut b) = pair().await;
    let new = Authority::create("test", u64::MAX).expect("CA");
    b.transport.set_tls(certified(B, &new, &[&new])).expect("good");
    assert_eq!(next(&mut b).await, Event::Down(A, 1, false));
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert!(!a.transport.send(B, Bytes::from_static(b"x")) && b.events.try_recv().is_err(), "and none follows");
}
