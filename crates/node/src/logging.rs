//! The log of this node, assembled: what is noted, what is shipped, and events as a part of it. It is opened beside
//! everything else, and again and again when it cannot be: mail waits for it no longer than [`OPEN_WAIT`].

use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc};
use std::time::Duration;

use audit::{Collector, CollectorConfig, PrimaryLogs, Standing};
use bytes::Bytes;
use control::Control;
use ports::Answer;
use ports::cluster::Cluster;
use ports::config::Config as _;
use ports::journal::{ClusterEvent, EventKind, Journal};
use ports::log::{Log, Logs};
use ports::peers::{PeerService, Peers};
use ports::records::Records;
use tokio::sync::SetOnce;
use vocab::NodeId;
use vocab::log::{Cluster as ClusterNote, Entry};

use crate::files::DataDir;
use crate::journal::FileJournal;

/// How long a start waits for the log; one that takes longer (its disk is slow) is used from when it is open.
const OPEN_WAIT: Duration = Duration::from_secs(2);
/// Pause before a log that could not be opened is tried again.
const OPEN_AGAIN: Duration = Duration::from_secs(10);

/// The log, open or not yet.
struct Late {
    collector: SetOnce<Arc<Collector>>,
    /// Why it is not open.
    fault: Mutex<String>,
    /// The thread that opens it goes on while this is here.
    opening: Mutex<Option<mpsc::Sender<()>>>,
}

impl Late {
    fn fault(&self) -> String {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Opens it, or tries until nobody wants it any more; `first` hears of the first attempt.
    fn open(&self, config: &CollectorConfig, first: &mpsc::SyncSender<()>, wanted: &mpsc::Receiver<()>) {
        let mut failed = false;
        loop {
            match Collector::open(config.clone()) {
                Ok(collector) => {
                    // Set once, here.
                    let _ = self.collector.set(Arc::new(collector));
                    if failed {
                        tracing::info!("the log is open");
                    }
                }
                Err(error) => {
                    if !std::mem::replace(&mut failed, true) {
                        tracing::error!(%error, "without a log; mail goes on, and it is tried again");
                    }
                    let text = format!("it could not be opened, and is tried again: {error}");
                    *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = text;
                }
            }
            // Nobody may listen any more.
            let _ = first.try_send(());
            let again = || wanted.recv_timeout(OPEN_AGAIN) == Err(mpsc::RecvTimeoutError::Timeout);
            if self.collector.get().is_some() || !again() {
                return;
            }
        }
    }
}

impl Log for Late {
    fn note(&self, entry: Entry) {
        match self.collector.get() {
            Some(collector) => collector.log().note(entry),
            None => metrics::counter!("twinpost_log_notes_dropped_total").increment(1),
        }
    }

    fn wants_protocol(&self) -> bool {
        self.collector.get().is_some_and(|collector| collector.log().wants_protocol())
    }
}

impl PeerService for Late {
    fn serve(&self, from: NodeId, body: Bytes) -> Answer<'_, Result<Bytes, String>> {
        Box::pin(async move {
            match self.collector.get() {
                Some(collector) => collector.service().serve(from, body).await,
                None => Err(format!("the log here is not open: {}", self.fault())),
            }
        })
    }
}

/// The log of this node; mail goes on without one.
#[derive(Clone)]
pub(crate) struct Logging {
    /// Takes notes.
    pub(crate) log: Arc<dyn Log>,
    /// Answers operators.
    pub(crate) logs: Arc<dyn Logs>,
    late: Arc<Late>,
}

impl Logging {
    /// Why nothing can be noted now; `None`: all is well.
    pub(crate) fn fault(&self) -> Option<String> {
        match self.late.collector.get() {
            Some(collector) => collector.fault(),
            None => Some(self.late.fault()),
        }
    }

    /// What was noted until now is written; a disk that does not answer is waited for no longer than `wait`.
    pub(crate) async fn stop(&self, wait: Duration) {
        self.late.opening.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(collector) = self.late.collector.get().cloned() else { return };
        let stopped = tokio::task::spawn_blocking(move || collector.stop());
        if tokio::time::timeout(wait, stopped).await.is_err() {
            tracing::warn!("the last notes of the log could not be written in time");
        }
    }
}

/// What the log follows: known once the engine runs.
type Following = Arc<OnceLock<(Arc<Control>, Arc<dyn Cluster>)>>;

/// The log before the cluster is known to it.
pub(crate) struct Opened {
    pub(crate) logging: Logging,
    following: Following,
}

/// Opens the log in the data folder on a thread of its own, and waits [`OPEN_WAIT`] for it at most. What commits leave for one
/// that is not open waits beside the mail.
///
/// # Errors
/// The system gives no thread.
pub(crate) fn open(
    data: &DataDir,
    node: NodeId,
    peers: Arc<dyn Peers>,
    records: Arc<dyn Records>,
) -> std::io::Result<Opened> {
    let following = Following::default();
    let seen = Arc::clone(&following);
    let standing = move || seen.get().map(|(config, cluster)| standing(node, config, &**cluster)).unwrap_or_default();
    let config = CollectorConfig { node, path: data.logs(), peers, records, standing: Arc::new(standing) };
    let (opening, wanted) = mpsc::channel();
    let late = Arc::new(Late {
        collector: SetOnce::new(),
        fault: Mutex::new("it is being opened".to_owned()),
        opening: Mutex::new(Some(opening)),
    });
    let (book, standing) = (Arc::clone(&late), Arc::clone(&config.standing));
    let logs = PrimaryLogs {
        book: Arc::new(move || book.collector.get().map(|collector| collector.book()).ok_or_else(|| book.fault())),
        node,
        peers: Arc::clone(&config.peers),
        primary: Arc::new(move || standing().primary),
    };
    let (first, heard) = mpsc::sync_channel(1);
    let opener = Arc::clone(&late);
    std::thread::Builder::new().name("log-opener".to_owned()).spawn(move || opener.open(&config, &first, &wanted))?;
    if heard.recv_timeout(OPEN_WAIT).is_err() {
        tracing::warn!("the log takes long to open; mail does not wait for it");
    }
    let logging = Logging { log: late.clone(), logs: Arc::new(logs), late };
    Ok(Opened { logging, following })
}

impl Opened {
    /// For other nodes' calls.
    pub(crate) fn service(&self) -> Arc<dyn PeerService> {
        self.logging.late.clone()
    }

    /// From now on the cluster is known: the log is brought to the primary.
    pub(crate) fn follow(self, config: Arc<Control>, cluster: Arc<dyn Cluster>) -> Logging {
        // Set once, here.
        let _ = self.following.set((config, cluster));
        let late = Arc::clone(&self.logging.late);
        tokio::spawn(async move {
            let collector = Arc::clone(late.collector.wait().await);
            drop(late);
            collector.run().await;
        });
        self.logging
    }
}

fn standing(node: NodeId, config: &Control, cluster: &dyn Cluster) -> Standing {
    let state = config.current();
    let others = state.members.values().filter(|member| member.data && member.id != node).map(|member| member.id);
    Standing {
        primary: cluster.home(),
        others: others.collect(),
        setting: state.log(),
        names: state.members.values().map(|member| (member.id, member.name.clone())).collect(),
    }
}

/// Events of the cluster, also in the log.
pub(crate) struct LoggedJournal {
    pub(crate) journal: FileJournal,
    pub(crate) log: Arc<dyn Log>,
}

impl Journal for LoggedJournal {
    fn note(&self, kind: EventKind, text: &str) {
        self.journal.note(kind, text);
        let name = serde_json::to_value(kind).ok().and_then(|name| Some(name.as_str()?.to_owned()));
        self.log.note(Entry::Cluster(ClusterNote { kind: name.unwrap_or_default(), text: vocab::log::text(text) }));
    }

    fn recent(&self, limit: usize) -> Vec<ClusterEvent> {
        self.journal.recent(limit)
    }
}
