//! Two engines in one process over real stores.

pub mod config;
pub mod disk;
pub mod net;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use mailbox::op::{AccountOp, Outcome, Role};
use ports::accounts::Accounts as _;
use ports::cluster::{Cluster as _, ClusterStatus};
use ports::intake::{Delivery, Intake as _, Recipient};
use ports::mail_store::MailStore;
use shards::{Engine, EngineConfig};
use vocab::{AccountId, Boot, CommandId, NodeId, ReversePath, Rows, SubmitError, Timestamp};

use config::{Register, View};
use disk::{Disk, Seen};
use net::{Net, NoEvidence, Wire};

/// The account of all tests.
pub const ALICE: AccountId = AccountId(77);
/// Longest wait for anything; a node that left for want of room comes back after 30 s at the earliest.
const PATIENCE: Duration = Duration::from_secs(75);

/// One node: its folder outlives its process.
pub struct Node {
    pub id: NodeId,
    pub boot: Boot,
    pub store: Arc<store::Store>,
    pub engine: Arc<Engine>,
    pub full: Arc<AtomicBool>,
    /// What this process wrote.
    pub seen: Arc<Seen>,
    dead: Arc<AtomicBool>,
    _folder: tempfile::TempDir,
}

pub struct Pair {
    pub register: Arc<Register>,
    pub net: Arc<Net>,
    pub nodes: Vec<Node>,
}

/// A test that is over takes its folders away under engines that still run: that is no fault of a disk.
pub fn options(folder: &std::path::Path) -> store::StoreOptions {
    let (defaults, folder) = (store::StoreOptions::default(), folder.to_owned());
    let fatal = Arc::clone(&defaults.on_fatal);
    let on_fatal = Arc::new(move |reason: &str| {
        if folder.exists() {
            fatal(reason)
        }
    });
    store::StoreOptions { on_fatal, ..defaults }
}

async fn engine(
    id: NodeId,
    store: &Arc<store::Store>,
    (register, net): (&Arc<Register>, &Arc<Net>),
    (dead, full, seen): (&Arc<AtomicBool>, &Arc<AtomicBool>, &Arc<Seen>),
) -> (Arc<Engine>, Boot) {
    let disk = Disk { store: store.clone(), dead: dead.clone(), full: full.clone(), seen: seen.clone() };
    let disk = Arc::new(disk);
    let boot = shards::raise_boot(&*disk).await.expect("boot");
    let engine = Engine::start(EngineConfig {
        journal: None,
        node: id,
        boot,
        timing: Default::default(),
        store: disk,
        config: Arc::new(View { register: register.clone(), dead: dead.clone() }),
        peers: Arc::new(Wire { me: id, boot, net: net.clone() }),
        evidence: Arc::new(NoEvidence),
        queue_grace_ms: shards::QUEUE_GRACE_MS,
    })
    .expect("engine");
    net.add(id, boot, engine.peer_events(), engine.peer_service());
    (engine, boot)
}

impl Pair {
    pub async fn single() -> Self {
        let mut pair = Self { register: Register::founded(), net: Arc::default(), nodes: Vec::new() };
        pair.add(NodeId(1)).await;
        until("the node serves", || *pair.nodes[0].engine.cluster().serving().borrow()).await;
        pair
    }

    async fn add(&mut self, id: NodeId) {
        let folder = tempfile::tempdir().expect("folder");
        let store = store::Store::open(&folder.path().join("mail"), options(folder.path())).expect("store");
        let (dead, full) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let seen = Arc::<Seen>::default();
        let (engine, boot) = engine(id, &store, (&self.register, &self.net), (&dead, &full, &seen)).await;
        self.nodes.push(Node { id, boot, store, engine, full, seen, dead, _folder: folder });
    }

    pub async fn joint() -> Self {
        let mut pair = Self::single().await;
        pair.nodes[0].init().await;
        pair.register.admit_second();
        pair.add(NodeId(2)).await;
        pair.until_joint().await;
        pair
    }

    /// A pair with homes of shards on both nodes.
    pub async fn spread() -> Self {
        let pair = Self::joint().await;
        let body = serde_json::json!({ "spread": true });
        let (kind, name) = (topology::DocumentKind::Setting, topology::HOMES_SETTING.to_owned());
        pair.register.apply(&topology::ConfigOp::put(kind, name, body, None)).expect("a setting");
        pair.until_spread().await;
        pair
    }

    pub async fn until_spread(&self) {
        self.until_joint().await;
        let both = |node: &Node| node.status().nodes.iter().all(|member| member.homes > 30);
        until("every node is home of its share of shards", || self.nodes.iter().all(both)).await;
    }

    pub async fn until_joint(&self) {
        until("the pair is joint and serves", || {
            self.nodes.iter().all(|node| {
                let status = node.status();
                status.epoch_kind == "joint" && status.in_sync == [1, 2] && *node.engine.cluster().serving().borrow()
            })
        })
        .await;
    }

    /// The process of this node ends; its guard says so to the other.
    pub fn kill(&mut self, at: usize) {
        self.nodes[at].dead.store(true, Ordering::SeqCst);
        self.register.set_quorum(false);
        self.net.remove(self.nodes[at].id);
        let (gone, boot) = (self.nodes[at].id, self.nodes[at].boot);
        self.nodes[1 - at].engine.guard_word(gone, boot);
    }

    /// A new process over the same folder, and the quorum is there again.
    pub async fn restart(&mut self, at: usize) {
        self.restart_locked(at).await;
        self.register.set_quorum(true);
    }

    /// A new process over the same folder.
    pub async fn restart_locked(&mut self, at: usize) {
        let dead = Arc::<AtomicBool>::default();
        let (node, seen) = (&self.nodes[at], Arc::<Seen>::default());
        let hands = (&dead, &node.full, &seen);
        let (engine, boot) = engine(node.id, &node.store, (&self.register, &self.net), hands).await;
        let node = &mut self.nodes[at];
        (node.engine, node.boot, node.dead, node.seen) = (engine, boot, dead, seen);
    }
}

impl Node {
    pub fn status(&self) -> ClusterStatus {
        self.engine.cluster().status()
    }

    pub async fn init(&self) {
        let accounts = self.engine.accounts();
        let made = accounts.submit(ALICE, accounts.command_id(), AccountOp::Init).await;
        assert_eq!(made, Ok(Outcome::Done));
    }

    /// A message for Alice under a fresh accept id.
    pub async fn send(&self, body: &Bytes) -> Result<CommandId, SubmitError> {
        let accept = self.engine.accounts().command_id();
        self.send_as(accept, body).await.map(|()| accept)
    }

    pub async fn send_as(&self, accept: CommandId, body: &Bytes) -> Result<(), SubmitError> {
        self.send_to(accept, vec![local(1, ALICE)], body).await
    }

    pub async fn send_to(
        &self,
        accept: CommandId,
        recipients: Vec<Recipient>,
        body: &Bytes,
    ) -> Result<(), SubmitError> {
        deliver(self.engine.clone(), accept, recipients, body.clone()).await
    }

    /// Messages in Alice's INBOX as a client of this node sees them.
    pub async fn count(&self) -> usize {
        count_of(&*self.engine.accounts().snapshot(ALICE).await.expect("readable"))
    }

    /// Messages in Alice's INBOX as they lie on this disk.
    pub fn on_disk(&self) -> usize {
        self.on_disk_of(ALICE)
    }

    pub fn on_disk_of(&self, account: AccountId) -> usize {
        count_of(&*self.store.snapshot(account))
    }
}

pub async fn deliver(
    engine: Arc<Engine>,
    accept: CommandId,
    recipients: Vec<Recipient>,
    body: Bytes,
) -> Result<(), SubmitError> {
    engine.intake().accept(delivery(accept, recipients, body)).await
}

pub fn delivery(accept: CommandId, recipients: Vec<Recipient>, body: Bytes) -> Delivery {
    Delivery {
        accept,
        reverse_path: ReversePath::Null,
        recipients,
        facts: mime::facts_of(&body).encode(),
        body,
        smtputf8: false,
        at: Timestamp(1_700_000_000_000),
        records: Vec::new(),
    }
}

pub fn local(number: u32, account: AccountId) -> Recipient {
    Recipient::Local { number, account, prefix: Bytes::from_static(b"X: y\r\n") }
}

fn count_of(rows: &dyn Rows) -> usize {
    let inbox = mailbox::read::mailbox_by_role(rows, Role::Inbox).expect("rows");
    inbox.map_or(0, |inbox| mailbox::read::uids(rows, inbox.id).expect("rows").len())
}

pub fn message(text: &str) -> Bytes {
    Bytes::from(format!("From: <bob@example.org>\r\nSubject: {text}\r\n\r\n{text}\r\n"))
}

/// Waits for a condition, not for a time.
pub async fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !holds() {
        assert!(tokio::time::Instant::now() < deadline, "did not come true: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
