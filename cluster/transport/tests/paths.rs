//! Two paths between two nodes: which one carries the link, and that losing one loses nothing.
#![allow(missing_docs)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ports::Answer;
use ports::peers::{LinkUp, PeerEvents, PeerService, Peers as _, Service};
use testkit::cut_proxy::CutProxy;
use tokio::sync::{mpsc, watch};
use transport::ca::Authority;
use transport::{
    ExamineReply, ExamineRequest, Handlers, JoinHandler, JoinReply, JoinRequest, Members, TlsPems, Transport,
    TransportConfig, Versions,
};
use vocab::{Boot, NodeId};

const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);
/// A takeover on silence comes after this.
const TAKEOVER: Duration = Duration::from_millis(1_500);
/// Everything here happens within this time, or never.
const LIMIT: Duration = Duration::from_secs(20);

#[derive(Debug, PartialEq)]
enum Event {
    Up(u64),
    Down(u64, bool),
    Frame(Bytes),
    GuardWord(Boot),
}

struct Recorder(mpsc::UnboundedSender<Event>);
impl PeerEvents for Recorder {
    fn link_up(&self, up: LinkUp) {
        let _ = self.0.send(Event::Up(up.link));
    }
    fn link_down(&self, _: NodeId, link: u64, reset: bool) {
        let _ = self.0.send(Event::Down(link, reset));
    }
    fn frame(&self, _: NodeId, _: u64, frame: Bytes) {
        let _ = self.0.send(Event::Frame(frame));
    }
}

struct Echo;
impl PeerService for Echo {
    fn serve(&self, _: NodeId, body: Bytes) -> Answer<'_, Result<Bytes, String>> {
        Box::pin(async move { Ok(body) })
    }
}

struct Nobody;
impl JoinHandler for Nobody {
    fn join(&self, _: JoinRequest) -> Answer<'_, Result<JoinReply, String>> {
        Box::pin(async { Err("nobody joins here".to_owned()) })
    }
    fn examine(&self, _: ExamineRequest) -> Answer<'_, Result<ExamineReply, String>> {
        Box::pin(async { Err("nobody joins here".to_owned()) })
    }
}

struct Node {
    transport: Arc<Transport>,
    events: mpsc::UnboundedReceiver<Event>,
    addresses: Vec<SocketAddr>,
    tls: TlsPems,
    beat: tokio::task::JoinHandle<()>,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.beat.abort();
        self.transport.stop();
    }
}

async fn start(authority: &Authority, node: NodeId, members: &watch::Sender<Members>) -> Node {
    let issued = authority.issue_node(node, &[]).expect("issue");
    let tls = TlsPems { ca: authority.certificate().to_owned(), certificate: issued.certificate, key: issued.key };
    let config = TransportConfig {
        node,
        boot: Boot(1),
        cluster_id: "c1".to_owned(),
        listen: vec![SocketAddr::from(([127, 0, 0, 1], 0)), SocketAddr::from(([127, 0, 0, 2], 0))],
        tls: tls.clone(),
        versions: Versions::CURRENT,
        program: "1.2.3".to_owned(),
    };
    let transport = Transport::new(config, members.subscribe()).expect("certificates");
    let (sender, events) = mpsc::unbounded_channel();
    let guard = sender.clone();
    let handlers = Handlers {
        events: Arc::new(Recorder(sender)),
        services: vec![(Service::Shards, Arc::new(Echo))],
        join: Arc::new(Nobody),
        on_guard_word: Arc::new(move |_, boot| drop(guard.send(Event::GuardWord(boot)))),
    };
    let addresses = transport.start(handlers).await.expect("listen");
    let beating = Arc::clone(&transport);
    // As the machine's heartbeats do.
    let beat = tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_millis(50)).await;
            for peer in [A, B] {
                beating.send(peer, Bytes::from_static(b"beat"));
            }
        }
    });
    Node { transport, events, addresses, tls, beat }
}

/// The next event that is no frame.
async fn next(node: &mut Node) -> Event {
    let event = async {
        loop {
            match node.events.recv().await.expect("open") {
                Event::Frame(_) => {}
                other => return other,
            }
        }
    };
    tokio::time::timeout(LIMIT, event).await.expect("an event in time")
}

async fn hears(node: &mut Node, wanted: &'static [u8]) {
    let heard = async { while node.events.recv().await.expect("open") != Event::Frame(Bytes::from_static(wanted)) {} };
    tokio::time::timeout(LIMIT, heard).await.expect("a frame in time");
}

/// Two nodes; B is reached through two cables.
struct Cables {
    a: Node,
    b: Node,
    first: CutProxy,
    second: CutProxy,
}

async fn cables() -> Cables {
    let mut cables = laid(usize::MAX).await;
    assert_eq!(next(&mut cables.a).await, Event::Up(1));
    assert_eq!(next(&mut cables.b).await, Event::Up(1));
    cables
}

/// The first cable is cut once it has carried so many bytes.
async fn laid(carries: usize) -> Cables {
    let authority = Authority::create("test", u64::MAX).expect("CA");
    let members = watch::channel(BTreeMap::new()).0;
    let b = start(&authority, B, &members).await;
    let free = |ip: [u8; 4]| SocketAddr::from((ip, 0));
    let first = CutProxy::start(free([127, 0, 0, 1]), b.addresses[0]).await.expect("a proxy");
    let second = CutProxy::start(free([127, 0, 0, 2]), b.addresses[1]).await.expect("a proxy");
    let a = start(&authority, A, &members).await;
    let to_a: Vec<String> = a.addresses.iter().map(ToString::to_string).collect();
    let to_b = vec![first.address().to_string(), second.address().to_string()];
    first.cut_after(carries);
    members.send_replace(BTreeMap::from([(A, to_a), (B, to_b)]));
    Cables { a, b, first, second }
}

#[tokio::test]
async fn the_first_path_is_used_while_it_works_and_the_link_moves_when_it_is_cut_and_back() {
    let Cables { mut a, mut b, first, second: _second } = cables().await;
    assert_eq!(a.transport.path(B), 0);
    first.cut(true);
    assert_eq!(next(&mut a).await, Event::Down(1, false));
    assert_eq!(next(&mut a).await, Event::Up(2));
    assert_eq!(a.transport.path(B), 1);
    assert!(a.transport.send(B, Bytes::from_static(b"on the second path")));
    hears(&mut b, b"on the second path").await;
    let body = Bytes::from_static(b"question");
    assert_eq!(a.transport.call(B, Service::Shards, body.clone()).await, Ok(body));
    first.cut(false);
    assert_eq!(next(&mut a).await, Event::Down(2, false));
    assert_eq!(next(&mut a).await, Event::Up(3));
    assert_eq!(a.transport.path(B), 0, "back on the first one");
}

#[tokio::test]
async fn the_other_path_does_not_matter_while_the_first_works_and_with_both_cut_the_link_just_stays_silent() {
    let Cables { mut a, b: _b, first, second } = cables().await;
    second.cut(true);
    assert!(a.transport.send(B, Bytes::from_static(b"x")));
    first.cut(true);
    let quiet = tokio::time::timeout(Duration::from_millis(1_500), next(&mut a)).await;
    assert!(quiet.is_err(), "nobody knows a better path: {quiet:?}");
    first.cut(false);
    hears(&mut a, b"beat").await;
    assert_eq!(a.transport.path(B), 0);
}

/// Wherever in the making of a link its path is cut (TCP, TLS, HTTP/2, handshake, or just after): it stands on the other one.
#[tokio::test]
async fn a_path_cut_while_the_link_is_made_is_left_behind() {
    for carried in (500..4_000).step_by(500) {
        let begun = std::time::Instant::now();
        let Cables { a, b: _b, first: _first, second: _second } = laid(carried).await;
        let stands = async {
            while a.transport.path(B) == 0 || !a.transport.send(B, Bytes::from_static(b"x")) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(LIMIT, stands).await.expect("a link on the second path");
        let after = begun.elapsed();
        assert!(after < TAKEOVER, "cut after {carried} bytes: {after:?}");
        println!("cut after {carried} bytes: on the second path after {after:?}");
    }
}

#[tokio::test]
async fn the_guards_word_and_evidence_use_every_path() {
    let Cables { mut a, mut b, first, second } = cables().await;
    let to_b = [first.address().to_string(), second.address().to_string()];
    first.cut(true);
    transport::send_guard_word(&a.tls, B, &to_b, Boot(1)).await.expect("by the second path");
    let word = async { while next(&mut b).await != Event::GuardWord(Boot(1)) {} };
    tokio::time::timeout(LIMIT, word).await.expect("the word");
    assert!(!transport::refuses_on_every_path(&to_b).await, "somebody listens");
    let dead = ["127.0.0.1:9".to_owned(), to_b[1].clone()];
    assert!(!transport::refuses_on_every_path(&dead).await, "on one path somebody listens");
    assert!(transport::refuses_on_every_path(&dead[..1]).await);
    assert!(!transport::refuses_on_every_path(&[]).await, "no path is no evidence");
    assert_eq!(next(&mut a).await, Event::Down(1, false), "the link looks for its own way");
}
