//! The engine: one replica machine, its waiting work, and the handles to disk, peers and configuration.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mailbox::rows::RowFormat;
use ports::cluster::MergeStatus;
use ports::config::Config;
use ports::journal::{EventKind, Journal};
use ports::mail_store::MailStore;
use ports::peers::{Evidence, Peers};
use replica::{Event, MayRead, Replica, ReplicaConfig, Saved, Timing};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use vocab::limits::COMMIT_WAIT_MAX_MS;
use vocab::{
    AccountHead, AccountId, BatchId, Boot, CommandId, Damaged, EpochId, Instant, NodeId, StoreWrite, SubmitError,
};

use crate::blobs::SmallBodies;
use crate::check::Checks;
use crate::chunks::Collector;
use crate::compute::Computed;
use crate::fanout::FanOut;
use crate::fetches::Fetches;
use crate::grace::{Grace, wall};
use crate::merge::Branches;
use crate::progress::Progress;
use crate::tracker::Tracker;
use crate::transfer::Transfers;
use crate::watch::Watchers;
use crate::work::{Done, Work};

/// Name of the boot counter among the node-local records.
const BOOT_KEY: &str = "boot";

/// Who this node is and what it works with.
pub struct EngineConfig {
    /// This node.
    pub node: NodeId,
    /// This boot, from [`raise_boot`].
    pub boot: Boot,
    /// Takeover timing.
    pub timing: Timing,
    /// Disk.
    pub store: Arc<dyn MailStore>,
    /// Configuration.
    pub config: Arc<dyn Config>,
    /// Other nodes.
    pub peers: Arc<dyn Peers>,
    /// Evidence about their processes.
    pub evidence: Arc<dyn Evidence>,
    /// Where decisions are kept for the operator.
    pub journal: Option<Arc<dyn Journal>>,
    /// How long a node alone on mere silence leaves the other side's queue items to it (ms), [`QUEUE_GRACE_MS`] as a rule.
    pub queue_grace_ms: u64,
}

/// Inherited items wait that long in a solo epoch on mere silence: 2 h.
pub const QUEUE_GRACE_MS: u64 = 2 * 60 * 60 * 1000;

/// Raises the boot counter of this node durably; before anything is said to a peer. It is at least the time in seconds:
/// ids of commands are made from it, and a disk that was rolled back does not know of boots that were.
///
/// # Errors
/// [`Damaged`] when the counter on disk cannot be understood: the process must not start on a guess.
pub async fn raise_boot(store: &dyn MailStore) -> Result<Boot, Damaged> {
    let last = match store.meta(BOOT_KEY) {
        None => 0,
        Some(bytes) => u32::from_be_bytes(bytes.as_ref().try_into().map_err(|_| Damaged("boot counter".into()))?),
    };
    let next = next_boot(last, wall().seconds());
    let value = Some(next.to_be_bytes().to_vec().into());
    store.write(vec![StoreWrite::Meta { key: BOOT_KEY.into(), value }]).await;
    Ok(Boot(next))
}

/// The rule a negative control of the fault lab switches off. The product is built without it.
fn without() -> Option<replica::Rule> {
    #[cfg(feature = "lab")]
    if let Ok(name) = std::env::var("TWINPOST_LAB_WITHOUT") {
        tracing::error!(rule = name, "a rule is switched off: this build is for the fault lab only");
        return match name.as_str() {
            "backup-first" => Some(replica::Rule::BackupFirst),
            "home-lease" => Some(replica::Rule::HomeLease),
            "confirmed-reads" => Some(replica::Rule::ConfirmedReads),
            _ => None,
        };
    }
    None
}

fn next_boot(last: u32, seconds: u64) -> u32 {
    last.saturating_add(1).max(u32::try_from(seconds).unwrap_or(0))
}

/// One token's work and whoever waits for it.
pub(crate) struct Waiting {
    pub(crate) work: Arc<Work>,
    pub(crate) answer: oneshot::Sender<Result<Done, SubmitError>>,
}

/// The engine of one node.
pub struct Engine {
    pub(crate) node: NodeId,
    pub(crate) boot: Boot,
    started: std::time::Instant,
    pub(crate) store: Arc<dyn MailStore>,
    pub(crate) config: Arc<dyn Config>,
    pub(crate) peers: Arc<dyn Peers>,
    pub(crate) evidence: Arc<dyn Evidence>,
    pub(crate) journal: Option<Arc<dyn Journal>>,
    pub(crate) replica: Mutex<Replica>,
    pub(crate) events: mpsc::UnboundedSender<Event>,
    waiting: Mutex<HashMap<u64, Waiting>>,
    pub(crate) witness_links: Mutex<BTreeMap<NodeId, u64>>,
    pub(crate) computed: Mutex<HashMap<BatchId, Computed>>,
    tokens: AtomicU64,
    tracker: Tracker,
    pub(crate) small: SmallBodies,
    pub(crate) transfers: Transfers,
    pub(crate) fetches: Fetches,
    pub(crate) branches: Branches,
    pub(crate) collector: Collector,
    written: mpsc::UnboundedSender<(u64, ports::Answer<'static, ()>)>,
    pub(crate) watchers: Watchers,
    pub(crate) confirmed: Notify,
    pub(crate) queue_changed: Notify,
    pub(crate) grace: Grace,
    pub(crate) fan_out: FanOut,
    pub(crate) checks: Checks,
    pub(crate) progress: Progress,
    /// What was merged.
    pub(crate) merges: Mutex<MergeStatus>,
    /// Items of the other side that wait in the queue, as last counted.
    pub(crate) held: AtomicU64,
    pub(crate) serving: watch::Sender<bool>,
    pub(crate) holds_address: watch::Sender<bool>,
    pub(crate) disk_low: AtomicBool,
    /// When the loop turned last (ms of this process).
    pub(crate) turned: AtomicU64,
    /// What is wrong with the cluster address here.
    pub(crate) address_fault: Mutex<Option<String>>,
    pub(crate) start_alone: Mutex<Vec<oneshot::Sender<Result<(), &'static str>>>>,
    pub(crate) handovers: Mutex<Option<oneshot::Sender<Result<NodeId, SubmitError>>>>,
}

impl Engine {
    /// Starts the engine: runs the machine until the process ends.
    ///
    /// # Errors
    /// [`Damaged`] when the node-local record of epochs cannot be understood: the process must not start on a guess; and
    /// when rows were written here that only a newer program reads.
    pub fn start(config: EngineConfig) -> Result<Arc<Self>, Damaged> {
        let saved = Saved::from_meta(config.store.meta(replica::META_KEY).as_deref())?;
        let reads = RowFormat::HIGHEST.number();
        if saved.rows > reads {
            let newer = format!("rows of format {} were written here, this program reads up to {reads}", saved.rows);
            return Err(Damaged(newer));
        }
        let (events, inbox) = mpsc::unbounded_channel();
        let (written, writes) = mpsc::unbounded_channel();
        let replica = ReplicaConfig {
            node: config.node,
            boot: config.boot,
            timing: config.timing,
            merge: true,
            rows: reads,
            without: without(),
        };
        let hold_down_ms = config.timing.hold_down;
        let (fan_out, accepted) = FanOut::new();
        let engine = Arc::new(Self {
            node: config.node,
            boot: config.boot,
            started: std::time::Instant::now(),
            store: config.store,
            config: config.config,
            peers: config.peers,
            evidence: config.evidence,
            journal: config.journal,
            replica: Mutex::new(Replica::new(replica, saved, Instant(0))),
            events,
            waiting: Mutex::default(),
            witness_links: Mutex::default(),
            computed: Mutex::default(),
            tokens: AtomicU64::new(0),
            tracker: Tracker::default(),
            small: SmallBodies::default(),
            transfers: Transfers::default(),
            fetches: Fetches::default(),
            branches: Branches::default(),
            collector: Collector::default(),
            written,
            watchers: Watchers::default(),
            confirmed: Notify::new(),
            queue_changed: Notify::new(),
            grace: Grace::new(config.queue_grace_ms),
            fan_out,
            checks: Checks::default(),
            progress: Progress::default(),
            merges: Mutex::default(),
            held: AtomicU64::new(0),
            serving: watch::Sender::new(false),
            holds_address: watch::Sender::new(false),
            disk_low: AtomicBool::new(false),
            turned: AtomicU64::new(0),
            address_fault: Mutex::default(),
            start_alone: Mutex::default(),
            handovers: Mutex::default(),
        });
        tokio::spawn(Arc::clone(&engine).run(inbox));
        tokio::spawn(Arc::clone(&engine).report_written(writes));
        tokio::spawn(Arc::clone(&engine).follow_register());
        tokio::spawn(Arc::clone(&engine).watch_disk());
        tokio::spawn(Arc::clone(&engine).check_forever());
        tokio::spawn(Arc::clone(&engine).fail_back_forever(hold_down_ms));
        tokio::spawn(Arc::clone(&engine).fan_out_forever(accepted));
        Ok(engine)
    }

    /// Milliseconds since this process started: the machine's clock.
    pub(crate) fn now(&self) -> Instant {
        Instant(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    pub(crate) fn machine(&self) -> MutexGuard<'_, Replica> {
        self.replica.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the machine something; the loop takes it in order.
    pub(crate) fn tell(&self, event: Event) {
        // The loop ends only with the process.
        let _ = self.events.send(event);
    }

    /// Keeps it for the operator.
    pub(crate) fn note(&self, kind: EventKind, text: &str) {
        if let Some(journal) = &self.journal {
            journal.note(kind, text);
        }
    }

    /// The guard of a peer says that the process of this boot ended.
    pub fn guard_word(&self, peer: NodeId, boot: Boot) {
        tracing::warn!(peer = peer.0, boot = boot.0, "the peer's guard says its process ended");
        self.tell(Event::GuardWord { peer, boot });
    }

    pub(crate) fn home_of(&self, account: AccountId) -> Option<NodeId> {
        self.machine().home(account.shard())
    }

    pub(crate) fn may_read(&self, account: AccountId, version: vocab::Version) -> MayRead {
        let now = self.now();
        self.machine().may_read(account, version, now)
    }

    /// The epoch in which a session that reads this account must have the home enter it first, also when it reads at a
    /// backup: what that shows counts as shown by this side (X16).
    pub(crate) fn entry_due(&self, account: AccountId, head: &AccountHead) -> Option<EpochId> {
        let stamp = self.machine().stamp(account);
        let due = account != AccountId::QUEUE && stamp.entry_due(head);
        due.then_some(stamp.epoch)
    }

    /// Nodes that must hold a large body before a change names it: the home and its backups, as known here.
    pub(crate) fn holders(&self) -> Vec<NodeId> {
        let machine = self.machine();
        let mut nodes = machine.record().map(|r| r.in_sync.clone()).unwrap_or_default();
        nodes.extend(machine.body_peers());
        nodes.extend(machine.home(AccountId::QUEUE.shard()));
        nodes.sort_unstable();
        nodes.dedup();
        nodes
    }

    pub(crate) fn members(&self) -> Vec<NodeId> {
        self.machine().record().map(|r| r.members.clone()).unwrap_or_default()
    }

    /// A fresh command id of this node and boot.
    pub(crate) fn command_id(&self) -> CommandId {
        CommandId { origin: self.node, boot: self.boot, counter: self.tracker.next(), recipient: 0 }
    }

    pub(crate) fn settled(&self) -> u64 {
        self.tracker.settled()
    }

    /// What the origin of this id, if it is this process, has settled.
    pub(crate) fn settled_of(&self, id: CommandId) -> u64 {
        if id.origin == self.node && id.boot == self.boot && id.recipient == 0 { self.settled() } else { 0 }
    }

    /// Whether this account was there and is removed for good. An account that this node has not heard of yet is not.
    pub(crate) fn is_removed(&self, account: AccountId) -> bool {
        let state = self.config.current();
        state.revision >= account.0 && state.account_by_id(account).is_none()
    }

    /// Whether this node works the queue now: it is its home and serves.
    pub(crate) fn works_queue(&self) -> bool {
        self.home_of(AccountId::QUEUE) == Some(self.node) && *self.serving.borrow()
    }

    pub(crate) fn settle<T>(&self, id: CommandId, result: &Result<T, SubmitError>) {
        if id.origin == self.node && id.boot == self.boot && !matches!(result, Err(SubmitError::Unknown(_))) {
            self.tracker.settle(id.counter);
        }
    }

    pub(crate) fn check_space(&self) -> Result<(), SubmitError> {
        if self.disk_low.load(Ordering::Relaxed) { Err(SubmitError::Unavailable(crate::NO_SPACE)) } else { Ok(()) }
    }

    /// Orders work at this home and waits for its commit.
    pub(crate) async fn order(&self, work: Work) -> Result<Done, SubmitError> {
        if work.needs_space() {
            self.check_space()?;
        }
        if work.bodies_elsewhere().into_iter().any(|hash| !self.store.has_blob(hash)) {
            return Err(SubmitError::Unavailable(crate::NO_BODY));
        }
        let token = self.tokens.fetch_add(1, Ordering::Relaxed) + 1;
        let (answer, answered) = oneshot::channel();
        let accounts = work.accounts();
        if accounts.is_empty() {
            return Ok(Done::Delivered(Vec::new()));
        }
        let waiting = Waiting { work: Arc::new(work), answer };
        self.waiting().insert(token, waiting);
        self.tell(Event::Submit { token, accounts });
        match tokio::time::timeout(Duration::from_millis(COMMIT_WAIT_MAX_MS + 1_000), answered).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) | Err(_) => {
                // The machine answers by itself in time; nothing may stay behind if it did not.
                self.waiting().remove(&token);
                Err(SubmitError::Unknown("no commit in time"))
            }
        }
    }

    pub(crate) fn waiting(&self) -> MutexGuard<'_, HashMap<u64, Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers a write that was ordered; the machine hears of its end in the order of the calls.
    pub(crate) fn ordered(&self, token: u64, written: ports::Answer<'static, ()>) {
        // The task that waits ends only with the process.
        let _ = self.written.send((token, written));
    }

    /// Writes share syncs in call order, so waiting for them one after the other costs nothing; reports that overtake
    /// each other would set versions back.
    async fn report_written(self: Arc<Self>, mut writes: mpsc::UnboundedReceiver<(u64, ports::Answer<'static, ()>)>) {
        while let Some((token, written)) = writes.recv().await {
            written.await;
            self.tell(Event::Written { token });
        }
    }

    /// Answers one token.
    pub(crate) fn answer(&self, token: u64, result: Result<Done, SubmitError>) {
        if let Some(waiting) = self.waiting().remove(&token) {
            // Whoever waited may have given up.
            let _ = waiting.answer.send(result);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_is_above_the_last_and_not_below_the_time() {
        assert_eq!(next_boot(0, 1_700_000_000), 1_700_000_000);
        assert_eq!(next_boot(1_700_000_000, 1_700_000_000), 1_700_000_001, "twice in one second");
        assert_eq!(next_boot(1_800_000_000, 1_700_000_000), 1_800_000_001, "a clock that went back");
        assert_eq!(next_boot(7, u64::MAX), 8, "a clock that says nothing of use");
    }
}
