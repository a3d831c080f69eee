//! Logs of two nodes and a witness of nothing: what is noted anywhere is on the primary once, whoever is primary.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use audit::{Book, Collector, CollectorConfig, Numbered, Standing};
use bytes::Bytes;
use ports::log::{Filter, Page};
use ports::peers::{CallError, PeerService, Peers, Service};
use ports::records::Records;
use testkit::calls::answered_by;
use topology::{Keep, LogBody};
use vocab::log::{Access, Direction, Entry, Mail, MailEvent, Protocol, Record};
use vocab::{Boot, CommandId, Damaged, LogRecord, NodeId};

const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);

/// What commits left on one node.
#[derive(Default)]
struct Left(Mutex<BTreeMap<u64, LogRecord>>, std::sync::atomic::AtomicU64);

impl Left {
    fn put(&self, record: LogRecord) {
        let number = self.1.fetch_add(1, Ordering::SeqCst) + 1;
        self.0.lock().unwrap().insert(number, record);
    }
}

impl Records for Left {
    fn waiting(&self, after: u64, limit: usize) -> Result<Vec<(u64, LogRecord)>, Damaged> {
        let left = self.0.lock().unwrap();
        Ok(left.range(after + 1..).take(limit).map(|(number, record)| (*number, record.clone())).collect())
    }
    fn forget(&self, numbers: Vec<u64>) {
        self.0.lock().unwrap().retain(|number, _| !numbers.contains(number));
    }
    fn count(&self) -> u64 {
        self.0.lock().unwrap().len() as u64
    }
}

/// Calls between the nodes, by function call; `cut`: nobody is reached.
#[derive(Default)]
struct Wire {
    services: Mutex<BTreeMap<NodeId, Arc<dyn PeerService>>>,
    cut: AtomicBool,
    /// So many answers are lost after the call was served.
    lost: AtomicU32,
}

/// A node's way to the others.
fn end(node: NodeId, wire: Arc<Wire>) -> impl Peers {
    answered_by(move |to, service, body| {
        assert_eq!(service, Service::Log);
        let served = wire.services.lock().unwrap().get(&to).cloned();
        let wire = Arc::clone(&wire);
        let cut = wire.cut.load(Ordering::SeqCst);
        Box::pin(async move {
            let service = served.filter(|_| !cut).ok_or_else(|| CallError::NotSent("cut".into()))?;
            let answer = service.serve(node, body).await.map_err(CallError::Refused)?;
            let less = |lost: u32| lost.checked_sub(1);
            match wire.lost.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less) {
                Ok(_) => Err(CallError::Lost("the answer".into())),
                Err(_) => Ok(answer),
            }
        })
    })
}

struct Node {
    left: Arc<Left>,
    collector: Arc<Collector>,
    task: tokio::task::JoinHandle<()>,
    _folder: tempfile::TempDir,
}

struct World {
    wire: Arc<Wire>,
    standing: Arc<Mutex<Standing>>,
    nodes: BTreeMap<NodeId, Node>,
}

impl World {
    fn new() -> Self {
        let standing = Standing { primary: Some(A), ..Standing::default() };
        let mut world = Self { wire: Arc::default(), standing: Arc::new(Mutex::new(standing)), nodes: BTreeMap::new() };
        [A, B].into_iter().for_each(|node| world.start(node));
        world
    }

    fn start(&mut self, node: NodeId) {
        let (folder, left) = (tempfile::tempdir().unwrap(), Arc::<Left>::default());
        let seen = Arc::clone(&self.standing);
        let config = CollectorConfig {
            node,
            path: folder.path().join("logs"),
            peers: Arc::new(end(node, Arc::clone(&self.wire))),
            records: left.clone(),
            standing: Arc::new(move || {
                let now = seen.lock().unwrap().clone();
                Standing { others: [A, B].into_iter().filter(|other| *other != node).collect(), ..now }
            }),
        };
        let collector = Arc::new(Collector::open(config).unwrap());
        self.wire.services.lock().unwrap().insert(node, collector.service());
        let running = Arc::clone(&collector);
        let task = tokio::spawn(async move { running.run().await });
        self.nodes.insert(node, Node { left, collector, task, _folder: folder });
    }

    fn primary(&self, node: NodeId) {
        self.standing.lock().unwrap().primary = Some(node);
    }

    fn book(&self, node: NodeId) -> Arc<Book> {
        self.nodes[&node].collector.book()
    }

    fn all(&self, node: NodeId) -> Vec<String> {
        let filter = Filter { limit: Some(10_000), ..Filter::default() };
        let mut names: Vec<String> = self.book(node).search(filter).unwrap().records.iter().map(name).collect();
        names.sort();
        names
    }

    /// A commit that both nodes wrote, or one of them.
    fn commit(&self, number: u64, on: &[NodeId]) {
        on.iter().for_each(|node| self.nodes[node].left.put(accepted(number)));
    }

    fn note(&self, node: NodeId, user: &str) {
        self.nodes[&node].collector.log().note(login(user));
    }

    async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let begun = Instant::now();
        while !holds(self) {
            assert!(begun.elapsed() < Duration::from_secs(30), "{what}: {:?} {:?}", self.all(A), self.all(B));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn login(user: &str) -> Entry {
    Entry::Access(Access { user: user.into(), success: true, ..Access::default() })
}

fn accepted(number: u64) -> LogRecord {
    let id = CommandId { origin: A, boot: Boot(1), counter: number, recipient: 1 };
    let mail = Mail {
        event: MailEvent::Accept.into(),
        accept: format!("m{number}"),
        sender: format!("ann{}@example.org", number % 2),
        recipient: "Bob@example.org".into(),
        direction: Direction::Within.into(),
        ..Mail::default()
    };
    Record::of_command(1_000 + number, id, mail)
}

fn name(line: &ports::log::Line) -> String {
    let get = |name: &str| line.get(name).and_then(|value| value.as_str()).unwrap_or_default().to_owned();
    get("accept") + &get("user")
}

fn expected(mails: std::ops::Range<u64>, users: &[&str]) -> Vec<String> {
    let mut all: Vec<String> = mails.map(|n| format!("m{n}")).chain(users.iter().map(|u| (*u).to_owned())).collect();
    all.sort();
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn ha_04_what_any_node_notes_is_on_the_primary_once_whoever_that_is() {
    let world = World::new();
    (0..50).for_each(|n| world.commit(n, &[A, B]));
    (50..60).for_each(|n| world.commit(n, &[B]));
    world.note(A, "anna");
    world.note(B, "bert");
    let all = expected(0..60, &["anna", "bert"]);
    world.until("on the primary", |w| w.all(A) == all && w.all(B).is_empty()).await;
    assert!([A, B].iter().all(|node| world.nodes[node].left.count() == 0), "what the log has waits no longer");

    // The primary goes with its log, and what comes meanwhile is kept by the other.
    world.wire.cut.store(true, Ordering::SeqCst);
    world.primary(B);
    (60..70).for_each(|n| world.commit(n, &[B]));
    (70..75).for_each(|n| world.commit(n, &[A]));
    world.until("each its own", |w| w.all(B).len() == 10 && w.all(A).len() == 67).await;
    // It is back: its log moves over.
    world.wire.cut.store(false, Ordering::SeqCst);
    let all = expected(0..75, &["anna", "bert"]);
    world.until("moved over", |w| w.all(B) == all && w.all(A).is_empty()).await;
    // And back again.
    world.primary(A);
    world.until("moved back", |w| w.all(A) == all && w.all(B).is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ha_04_an_answer_that_is_lost_makes_no_record_two_and_loses_none() {
    let world = World::new();
    world.wire.lost.store(3, Ordering::SeqCst);
    (0..20).for_each(|n| world.commit(n, &[B]));
    world.note(B, "bert");
    let all = expected(0..20, &["bert"]);
    world.until("on the primary", |w| w.all(A) == all && w.all(B).is_empty()).await;
    assert_eq!(world.book(A).counts(), [21, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn ha_04_a_primary_with_a_new_disk_gets_everything_a_secondary_still_has() {
    let mut world = World::new();
    world.standing.lock().unwrap().setting.copy = true;
    // What was there before the copy is not copied: it begins when it is set.
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    (0..20).for_each(|n| world.commit(n, &[A]));
    let all = expected(0..20, &[]);
    world.until("copied", |w| w.all(A) == all && w.all(B) == all).await;
    world.nodes[&A].task.abort();
    world.start(A);
    world.until("given back", |w| w.all(A) == all).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ha_04_what_a_secondary_was_told_is_kept_is_brought_back_when_that_is_the_primary_again() {
    let world = World::new();
    world.standing.lock().unwrap().setting.copy = true;
    (0..10).for_each(|n| world.commit(n, &[B]));
    let all = expected(0..10, &[]);
    // B brought it to A and has it still: by the setting here, by a full disk or a crash between the two in earnest.
    world.until("on both", |w| w.all(A) == all && w.all(B) == all).await;
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    world.standing.lock().unwrap().setting.copy = false;
    world.primary(B);
    world.until("on the new primary alone", |w| w.all(B) == all && w.all(A).is_empty()).await;
    world.primary(A);
    world.until("brought back", |w| w.all(A) == all).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn log_12_the_copy_has_what_was_made_after_it_was_set_and_no_more() {
    let world = World::new();
    (0..5).for_each(|n| world.commit(n, &[A]));
    world.until("on the primary", |w| w.all(A).len() == 5).await;
    world.standing.lock().unwrap().setting.copy = true;
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    (5..9).for_each(|n| world.commit(n, &[A]));
    world.note(B, "bert");
    let copied = expected(5..9, &["bert"]);
    world.until("copied", |w| w.all(B) == copied).await;
    world.until("all", |w| w.all(A) == expected(0..9, &["bert"])).await;
    assert_eq!(world.all(B), copied);
}

fn book() -> (tempfile::TempDir, Book) {
    let folder = tempfile::tempdir().unwrap();
    let book = Book::open(&folder.path().join("logs"), A).unwrap();
    (folder, book)
}

fn noted(at: u64, entry: Entry) -> (Bytes, Bytes) {
    (Bytes::new(), Record { at, entry: Some(entry) }.to_bytes())
}

fn accepts(page: &Page) -> Vec<String> {
    page.records.iter().map(name).collect()
}

#[test]
fn log_09_records_are_found_by_what_they_say_newest_first_and_page_by_page() {
    let (_folder, book) = book();
    book.keep_own((0..30).map(|n| (accepted(n).id, accepted(n).bytes)).collect()).unwrap();
    book.keep_own(vec![noted(1_005, login("anna")), noted(1_006, Entry::Protocol(Protocol::default()))]).unwrap();
    let ask = |filter: Filter| book.search(filter).unwrap();
    let all = ask(Filter::default());
    assert_eq!(accepts(&all)[..2], ["m29", "m28"]);
    assert_eq!(all.records.len(), 31, "the protocol log is asked for by name");
    assert_eq!(ask(Filter { kinds: vec!["protocol".into()], ..Filter::default() }).records.len(), 1);
    let by_id = ask(Filter { id: Some("M7".into()), ..Filter::default() });
    assert_eq!(accepts(&by_id), ["m7"]);
    let sender = || Filter { sender: Some("ANN1@example.org".into()), limit: Some(4), ..Filter::default() };
    let first = ask(sender());
    assert_eq!(accepts(&first), ["m29", "m27", "m25", "m23"]);
    let second = ask(Filter { page: first.next.clone(), ..sender() });
    assert_eq!(accepts(&second), ["m21", "m19", "m17", "m15"]);
    let between = ask(Filter { from_ms: Some(1_003), to_ms: Some(1_006), ..Filter::default() });
    assert_eq!(accepts(&between), ["anna", "m5", "m4", "m3"]);
    assert_eq!(ask(Filter { within: true, ..Filter::default() }).records.len(), 30);
    assert_eq!(accepts(&ask(Filter { outcome: Some("ok".into()), ..Filter::default() })), ["anna"]);
    assert_eq!(ask(Filter { outcome: Some("received".into()), ..Filter::default() }).records.len(), 30);
    let bad = book.search(Filter { kinds: vec!["post".into()], ..Filter::default() });
    assert!(bad.unwrap_err().to_string().contains("there are mail"));
    assert!(book.search(Filter { page: Some("zz".into()), ..Filter::default() }).is_err());
    // What comes after an answer.
    book.keep_own(vec![(accepted(90).id, accepted(90).bytes)]).unwrap();
    let since = ask(Filter { since: Some(all.arrival), ..Filter::default() });
    assert_eq!((accepts(&since), since.arrival), (vec!["m90".to_owned()], all.arrival + 1));
}

#[test]
fn log_14_what_is_too_old_or_too_many_goes_the_oldest_first() {
    let (_folder, book) = book();
    book.keep_own((0..30).map(|n| (accepted(n).id, accepted(n).bytes)).collect()).unwrap();
    let lines = (0..5).map(|n| noted(1_000 + n, Entry::Protocol(Protocol::default()))).collect();
    book.keep_own(lines).unwrap();
    let setting = |keep: Keep| LogBody { keep, ..LogBody::default() };
    let none = Keep { days: 0, records: 0, megabytes: 0 };
    assert_eq!(book.drop_old(&setting(Keep { records: 20, ..none }), 2_000).unwrap(), 10);
    assert_eq!(book.counts(), [20, 5]);
    let day = 24 * 60 * 60 * 1000;
    assert_eq!(book.drop_old(&setting(Keep { days: 1, ..none }), day + 1_015).unwrap(), 5);
    let left = book.search(Filter { limit: Some(100), ..Filter::default() }).unwrap();
    assert_eq!((accepts(&left).first().unwrap().as_str(), accepts(&left).last().unwrap().as_str()), ("m29", "m15"));
    assert_eq!(book.search(Filter { id: Some("m3".into()), ..Filter::default() }).unwrap().records, []);
    // An old one that comes once more is one again: nothing remembers it.
    assert_eq!(book.lacking(&[accepted(3).id, accepted(20).id]).unwrap(), [0]);
}

#[test]
fn numbers_go_on_after_a_restart_and_a_record_is_kept_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("logs");
    let first = Book::open(&path, A).unwrap();
    first.keep_own(vec![noted(1, login("anna")), noted(2, login("bert"))]).unwrap();
    let name = first.name();
    drop(first);
    let again = Book::open(&path, A).unwrap();
    assert_eq!((again.name(), again.counts(), again.arrival()), (name, [2, 0], 3));
    again.keep_own(vec![noted(3, login("carl"))]).unwrap();
    let numbers: Vec<u64> = again.from_arrival(0, 10).unwrap().iter().map(|kept| kept.numbered().number).collect();
    assert_eq!(numbers, [1, 2, 3]);
    let twice: Vec<Numbered> = again.from_arrival(0, 10).unwrap().iter().map(audit::Kept::numbered).collect();
    again.keep(&twice).unwrap();
    assert_eq!(again.counts(), [3, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_noted_before_a_planned_stop_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("logs");
    let left = Arc::<Left>::default();
    let config = CollectorConfig {
        node: A,
        path: path.clone(),
        peers: Arc::new(end(A, Arc::default())),
        records: left.clone(),
        standing: Arc::new(Standing::default),
    };
    let collector = Collector::open(config).unwrap();
    (0..100).for_each(|n| collector.log().note(login(&format!("user{n}"))));
    left.put(accepted(1));
    collector.stop();
    assert_eq!((collector.book().counts(), left.count()), ([101, 0], 0));
    drop(collector);
    assert_eq!(Book::open(&path, A).unwrap().counts(), [101, 0]);
}
