//! Byte streams between transports over loopback with real TLS.
#![allow(missing_docs)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ports::Answer;
use ports::peers::{LinkUp, PeerEvents, PeerService, Peers as _, Service};
use ports::streams::{ByteStream, StreamError, StreamService, Streams as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{mpsc, watch};
use transport::ca::{Authority, Issued};
use transport::{
    ExamineReply, ExamineRequest, Handlers, JoinHandler, JoinReply, JoinRequest, Members, TlsPems, Transport,
    TransportConfig, Versions,
};
use vocab::{Boot, NodeId};

const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);
/// More than every buffer between two ends.
const MUCH: usize = 64 * 1024 * 1024;

type Taken = (NodeId, Box<dyn ByteStream>);

/// Ignores links, echoes calls, admits nobody.
struct Quiet;

impl PeerEvents for Quiet {
    fn link_up(&self, _: LinkUp) {}
    fn link_down(&self, _: NodeId, _: u64, _: bool) {}
    fn frame(&self, _: NodeId, _: u64, _: Bytes) {}
}

impl PeerService for Quiet {
    fn serve(&self, _: NodeId, body: Bytes) -> Answer<'_, Result<Bytes, String>> {
        Box::pin(async { Ok(body) })
    }
}

impl JoinHandler for Quiet {
    fn join(&self, _: JoinRequest) -> Answer<'_, Result<JoinReply, String>> {
        Box::pin(async { Err("no".to_owned()) })
    }
    fn examine(&self, _: ExamineRequest) -> Answer<'_, Result<ExamineReply, String>> {
        Box::pin(async { Err("no".to_owned()) })
    }
}

struct Taker(mpsc::UnboundedSender<Taken>);

impl StreamService for Taker {
    fn take(&self, from: NodeId, stream: Box<dyn ByteStream>) -> Answer<'static, ()> {
        let _ = self.0.send((from, stream));
        Box::pin(async {})
    }
}

struct Node {
    transport: Arc<Transport>,
    taken: mpsc::UnboundedReceiver<Taken>,
    address: SocketAddr,
}

impl Node {
    async fn start(authority: &Authority, node: NodeId, issued: Issued, members: &watch::Sender<Members>) -> Self {
        let tls = TlsPems { ca: authority.certificate().to_owned(), certificate: issued.certificate, key: issued.key };
        let config = TransportConfig {
            node,
            boot: Boot(1),
            cluster_id: "c1".to_owned(),
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 0))],
            tls,
            versions: Versions::CURRENT,
            program: "1.2.3".to_owned(),
        };
        let transport = Transport::new(config, members.subscribe()).expect("certificates");
        let handlers = Handlers {
            events: Arc::new(Quiet),
            services: vec![(Service::Shards, Arc::new(Quiet))],
            join: Arc::new(Quiet),
            on_guard_word: Arc::new(|_, _| {}),
        };
        let (sender, taken) = mpsc::unbounded_channel();
        transport.take_streams(Arc::new(Taker(sender)));
        let address = transport.start(handlers).await.expect("listen")[0];
        Self { transport, taken, address }
    }
    async fn taken(&mut self) -> Taken {
        soon(self.taken.recv()).await.expect("open")
    }
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), what).await.expect("in time")
}

struct Pair {
    authority: Authority,
    members: watch::Sender<Members>,
    a: Node,
    b: Node,
}

async fn pair() -> Pair {
    let authority = Authority::create("test", u64::MAX).expect("CA");
    let members = watch::channel(BTreeMap::new()).0;
    let a = Node::start(&authority, A, authority.issue_node(A, &[]).expect("issue"), &members).await;
    let b = Node::start(&authority, B, authority.issue_node(B, &[]).expect("issue"), &members).await;
    members.send_modify(|all| all.extend([(A, vec![a.address.to_string()]), (B, vec![b.address.to_string()])]));
    Pair { authority, members, a, b }
}

async fn ended(stream: &mut dyn ByteStream) {
    let mut rest = Vec::new();
    // A reset is an end too.
    let _ = soon(stream.read_to_end(&mut rest)).await;
    assert!(rest.is_empty(), "{} bytes came", rest.len());
}

#[tokio::test]
async fn bytes_travel_both_ways_and_each_way_ends_by_itself() {
    let mut pair = pair().await;
    let sent: Vec<u8> = (0..3_000_000_u32).map(|i| (i % 251) as u8).collect();
    let mut near = soon(pair.a.transport.open(B)).await.expect("a stream");
    let (from, mut far) = pair.b.taken().await;
    assert_eq!((from, pair.a.transport.open_streams(B), pair.b.transport.open_streams(A)), (A, (1, 0), (0, 1)));
    let asking = async {
        near.write_all(&sent).await.expect("written");
        near.shutdown().await.expect("ended");
        let mut heard = Vec::new();
        near.read_to_end(&mut heard).await.expect("read");
        heard
    };
    let answering = async {
        let mut heard = Vec::new();
        far.read_to_end(&mut heard).await.expect("read");
        heard.reverse();
        far.write_all(&heard).await.expect("the other way is open still");
        far.shutdown().await.expect("ended");
    };
    let (mut heard, ()) = soon(async { tokio::join!(asking, answering) }).await;
    heard.reverse();
    assert!(heard == sent, "{} bytes", heard.len());
    drop((near, far));
    assert_eq!((pair.a.transport.open_streams(B), pair.b.transport.open_streams(A)), ((0, 0), (0, 0)));
}

#[tokio::test]
async fn a_slow_reader_holds_back_its_writer_and_nobody_else() {
    let mut pair = pair().await;
    let mut slow = soon(pair.a.transport.open(B)).await.expect("a stream");
    let (_, mut slow_far) = pair.b.taken().await;
    let mut writing = tokio::spawn(async move {
        slow.write_all(&vec![7; MUCH]).await.expect("written");
        slow.shutdown().await.expect("ended");
    });
    let waited = tokio::time::timeout(Duration::from_millis(500), &mut writing).await;
    assert!(waited.is_err(), "{MUCH} bytes were taken though nobody reads them");
    let mut other = soon(pair.b.transport.open(A)).await.expect("a stream the other way");
    let (_, mut other_far) = pair.a.taken().await;
    soon(other.write_all(b"hello")).await.expect("written");
    soon(other.flush()).await.expect("flushed");
    let mut heard = [0; 5];
    soon(other_far.read_exact(&mut heard)).await.expect("read");
    let call = soon(pair.a.transport.call(B, Service::Shards, Bytes::from_static(b"call"))).await;
    assert_eq!((&heard, call), (b"hello", Ok(Bytes::from_static(b"call"))));
    let mut all = Vec::new();
    soon(slow_far.read_to_end(&mut all)).await.expect("read");
    assert_eq!(all.len(), MUCH);
    soon(writing).await.expect("written in the end");
}

#[tokio::test]
async fn only_members_are_taken_and_only_the_right_one_is_reached() {
    let mut pair = pair().await;
    let outsider = pair.authority.issue_node(NodeId(7), &[]).expect("issue");
    let service = pair.authority.issue_service(&["mail.example.org".to_owned()]).expect("issue");
    let other_ca = Authority::create("other", u64::MAX).expect("CA");
    let stranger = other_ca.issue_node(B, &[]).expect("issue");
    for (authority, issued) in [(&pair.authority, outsider), (&pair.authority, service), (&other_ca, stranger)] {
        let node = Node::start(authority, NodeId(7), issued, &pair.members).await;
        // The handshake may be over for the dialler before the other side has looked; then the stream just ends.
        if let Ok(mut stream) = soon(node.transport.open(A)).await {
            ended(&mut stream).await;
        }
    }
    assert!(pair.a.taken.try_recv().is_err(), "nobody was let in");
    pair.members.send_modify(|all| drop(all.insert(NodeId(9), vec![pair.b.address.to_string()])));
    for unknown in [NodeId(8), NodeId(9)] {
        let error = soon(pair.a.transport.open(unknown)).await.err();
        assert!(matches!(error, Some(StreamError::Unreachable(_))), "{unknown:?}: {error:?}");
    }
    assert!(pair.b.taken.try_recv().is_err(), "node 2 is not node 9");
}

#[tokio::test]
async fn streams_end_with_the_membership_and_with_the_peer() {
    let mut pair = pair().await;
    let mut near = soon(pair.a.transport.open(B)).await.expect("a stream");
    let (_, mut far) = pair.b.taken().await;
    let address = pair.members.borrow().get(&B).cloned().expect("member");
    pair.members.send_modify(|all| drop(all.remove(&B)));
    ended(&mut near).await;
    drop(near);
    ended(&mut far).await;
    pair.members.send_modify(|all| drop(all.insert(B, address)));
    let mut near = soon(pair.a.transport.open(B)).await.expect("a member again");
    let (_, mut far) = pair.b.taken().await;
    pair.b.transport.stop();
    ended(&mut far).await;
    drop(far);
    ended(&mut near).await;
    soon(async {
        while !matches!(pair.a.transport.open(B).await, Err(StreamError::Unreachable(_))) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
