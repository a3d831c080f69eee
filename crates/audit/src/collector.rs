//! All of the log on one node: the book, the writer, and the tasks that ship, copy, forward and forget.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ports::log::Log;
use ports::peers::{PeerService, Peers};
use ports::records::Records;
use tokio::task::JoinSet;
use topology::LogBody;
use vocab::NodeId;

use crate::book::{Book, LogError};
use crate::lab;
use crate::notes::{Notes, now_ms};
use crate::ship::{self, LogService};
use crate::syslog::Forwarder;

/// How often a node looks whether there is something to bring.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Pause after a failure: the primary is away, or its disk is slow.
const PAUSE: Duration = Duration::from_secs(2);
/// How often what is old is looked for.
const KEEP_EVERY: Duration = Duration::from_secs(60);

/// What the collector must know of the cluster, as it is now.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    /// Who holds the cluster address, as known here.
    pub primary: Option<NodeId>,
    /// Other nodes with mail.
    pub others: Vec<NodeId>,
    /// The setting.
    pub setting: LogBody,
    /// Names of nodes, for forwarding.
    pub names: Vec<(NodeId, String)>,
}

/// What the collector is given.
#[derive(Clone)]
pub struct CollectorConfig {
    /// This node.
    pub node: NodeId,
    /// Folder of the database.
    pub path: std::path::PathBuf,
    /// Other nodes.
    pub peers: Arc<dyn Peers>,
    /// What commits leave.
    pub records: Arc<dyn Records>,
    /// The cluster as it is now; asked often.
    pub standing: Arc<dyn Fn() -> Standing + Send + Sync>,
}

/// The log of this node at work.
pub struct Collector {
    book: Arc<Book>,
    notes: Arc<Notes>,
    protocol: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    writer: Mutex<Option<std::thread::JoinHandle<()>>>,
    config: CollectorConfig,
}

impl Collector {
    /// Opens the log and begins to take notes. Tasks run with [`Collector::run`].
    ///
    /// # Errors
    /// The folder cannot be used: mail goes on without a log, records of commits wait; try again later.
    pub fn open(config: CollectorConfig) -> Result<Self, LogError> {
        if lab::is_without(lab::COLLECTION) {
            return Err(LogError { path: config.path, what: "switched off".to_owned() });
        }
        let book = Arc::new(Book::open(&config.path, config.node)?);
        let (protocol, stop) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let started =
            Notes::start(Arc::clone(&book), Arc::clone(&config.records), Arc::clone(&protocol), Arc::clone(&stop));
        let (notes, writer) =
            started.map_err(|error| LogError { path: config.path.clone(), what: error.to_string() })?;
        Ok(Self { book, notes: Arc::new(notes), protocol, stop, writer: Mutex::new(Some(writer)), config })
    }

    /// Takes notes.
    #[must_use]
    pub fn log(&self) -> Arc<dyn Log> {
        Arc::clone(&self.notes) as Arc<dyn Log>
    }

    /// Why nothing can be written now; mail goes on, records wait. `None`: all is well.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        self.notes.fault()
    }

    /// Answers other nodes.
    #[must_use]
    pub fn service(&self) -> Arc<dyn PeerService> {
        Arc::new(LogService { book: Arc::clone(&self.book) })
    }

    /// The database.
    #[must_use]
    pub fn book(&self) -> Arc<Book> {
        Arc::clone(&self.book)
    }

    /// Writes what was noted until now, and takes no notes any more. Blocks for as long as the disk takes.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(writer) = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // A panic of the writer was reported by its own thread.
            let _ = writer.join();
        }
    }

    /// Ships, copies, forwards and forgets until it is dropped.
    pub async fn run(&self) {
        let mut tasks = JoinSet::new();
        let standing = || Arc::clone(&self.config.standing);
        if !lab::is_without(lab::SHIPPING) {
            tasks.spawn(bring_forever(
                Arc::clone(&self.book),
                self.config.node,
                Arc::clone(&self.config.peers),
                standing(),
                Arc::clone(&self.protocol),
            ));
        }
        tasks.spawn(forward_forever(Arc::clone(&self.book), self.config.node, standing()));
        tasks.spawn(keep_forever(Arc::clone(&self.book), standing(), Arc::clone(&self.config.records)));
        while tasks.join_next().await.is_some() {}
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn bring_forever(
    book: Arc<Book>,
    node: NodeId,
    peers: Arc<dyn Peers>,
    standing: Arc<dyn Fn() -> Standing + Send + Sync>,
    protocol: Arc<AtomicBool>,
) {
    let mut failing = false;
    loop {
        let now = standing();
        protocol.store(now.setting.protocol, Ordering::Relaxed);
        let done = match now.primary {
            Some(primary) if primary != node => ship::ship(&book, &*peers, primary, now.setting.copy).await,
            Some(_) => copy_all(&book, &*peers, &now).await,
            None => Ok(false),
        };
        let wait = match done {
            Ok(more) => {
                if std::mem::take(&mut failing) {
                    tracing::info!("the log reaches its other node again");
                }
                if more { Duration::ZERO } else { LOOK_EVERY }
            }
            Err(error) => {
                metrics::counter!("twinpost_log_ship_failures_total").increment(1);
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(%error, "the log cannot be brought to its other node now; it is kept here until then");
                }
                PAUSE
            }
        };
        tokio::time::sleep(wait).await;
    }
}

async fn copy_all(book: &Arc<Book>, peers: &dyn Peers, now: &Standing) -> Result<bool, ship::ShipError> {
    if !now.setting.copy {
        let (book, others) = (Arc::clone(book), now.others.clone());
        let forgotten = tokio::task::spawn_blocking(move || ship::forget_copies(&book, &others)).await;
        forgotten.map_err(|error| ship::ShipError::Disk(error.to_string()))?.map_err(ship::ShipError::Disk)?;
        return Ok(false);
    }
    let (mut more, mut failed) = (false, None);
    for to in &now.others {
        match ship::copy(book, peers, *to).await {
            Ok(again) => more |= again,
            // One that is away must not keep the others from theirs.
            Err(error) => failed = Some(error),
        }
    }
    match failed {
        Some(error) if !more => Err(error),
        _ => Ok(more),
    }
}

async fn forward_forever(book: Arc<Book>, node: NodeId, standing: Arc<dyn Fn() -> Standing + Send + Sync>) {
    let mut forwarder: Option<Forwarder> = None;
    let mut failing = false;
    loop {
        let now = standing();
        let wanted = now.setting.syslog.filter(|_| now.primary == Some(node));
        if forwarder.as_ref().map(Forwarder::body) != wanted.as_ref() {
            forwarder = wanted.map(Forwarder::new);
            failing = false;
        }
        let host = |id: u32| {
            let name = now.names.iter().find(|(known, _)| known.0 == id).map(|(_, name)| name.clone());
            name.unwrap_or_else(|| format!("node{id}"))
        };
        let wait = match &mut forwarder {
            None => LOOK_EVERY,
            Some(forwarder) => match forwarder.forward(&book, host).await {
                Ok(more) => {
                    if std::mem::take(&mut failing) {
                        tracing::info!(server = forwarder.body().server, "the log is forwarded again");
                    }
                    if more { Duration::ZERO } else { LOOK_EVERY }
                }
                Err(error) => {
                    metrics::counter!("twinpost_log_forward_failures_total").increment(1);
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(%error, server = forwarder.body().server, "the log cannot be forwarded; it goes on there later");
                    }
                    PAUSE
                }
            },
        };
        tokio::time::sleep(wait).await;
    }
}

async fn keep_forever(book: Arc<Book>, standing: Arc<dyn Fn() -> Standing + Send + Sync>, records: Arc<dyn Records>) {
    let mut ticks = tokio::time::interval(KEEP_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let (old, setting) = (Arc::clone(&book), standing().setting);
        match tokio::task::spawn_blocking(move || old.drop_old(&setting, now_ms())).await {
            Ok(Ok(0)) | Err(_) => {}
            Ok(Ok(dropped)) => tracing::info!(dropped, "old log records went"),
            Ok(Err(error)) => tracing::warn!(%error, "old log records cannot be taken out"),
        }
        #[expect(clippy::cast_precision_loss, reason = "gauges for people")]
        let gauge = |n: u64| n as f64;
        metrics::gauge!("twinpost_log_records").set(gauge(book.counts().iter().sum()));
        metrics::gauge!("twinpost_log_bytes").set(gauge(book.bytes()));
        metrics::gauge!("twinpost_log_records_waiting").set(gauge(records.count()));
    }
}
