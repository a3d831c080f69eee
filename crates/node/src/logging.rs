//! The log of this node, assembled: what is noted, what is shipped, and events as a part of it.

use std::sync::Arc;

use audit::{Collector, CollectorConfig, Standing};
use control::Control;
use ports::Answer;
use ports::cluster::Cluster;
use ports::config::Config as _;
use ports::journal::{ClusterEvent, EventKind, Journal};
use ports::log::{Filter, Log, Logs, NoLog, Page, SearchError};
use ports::peers::{PeerService, Peers};
use ports::records::Records;
use vocab::NodeId;
use vocab::log::{Cluster as ClusterNote, Entry};

use crate::files::DataDir;
use crate::journal::FileJournal;

/// Nobody can read a log that could not be opened.
struct NoLogs(String);

impl Logs for NoLogs {
    fn search(&self, _: Filter) -> Answer<'_, Result<Page, SearchError>> {
        Box::pin(async { Err(SearchError::Unavailable(self.0.clone())) })
    }
}

/// The log of this node; mail goes on without one.
#[derive(Clone)]
pub(crate) struct Logging {
    /// Takes notes.
    pub(crate) log: Arc<dyn Log>,
    /// Answers operators.
    pub(crate) logs: Arc<dyn Logs>,
    /// Or why there is none.
    collector: Result<Arc<Collector>, String>,
}

impl Logging {
    /// Why nothing can be noted now; `None`: all is well.
    pub(crate) fn fault(&self) -> Option<String> {
        match &self.collector {
            Ok(collector) => collector.fault(),
            Err(why) => Some(format!("it could not be opened, and is tried again with the next start: {why}")),
        }
    }

    /// What was noted until now is written; a disk that does not answer is waited for no longer than `wait`.
    pub(crate) async fn stop(&self, wait: std::time::Duration) {
        let Ok(collector) = self.collector.clone() else { return };
        let stopped = tokio::task::spawn_blocking(move || collector.stop());
        if tokio::time::timeout(wait, stopped).await.is_err() {
            tracing::warn!("the last notes of the log could not be written in time");
        }
    }
}

/// What the log follows: known once the engine runs.
type Following = Arc<std::sync::OnceLock<(Arc<Control>, Arc<dyn Cluster>)>>;

/// The log before the cluster is known to it.
pub(crate) struct Opened {
    pub(crate) logging: Logging,
    following: Following,
}

/// Opens the log in the data folder. One that cannot be opened is said, and mail goes on: what commits leave for it waits.
pub(crate) fn open(data: &DataDir, node: NodeId, peers: Arc<dyn Peers>, records: Arc<dyn Records>) -> Opened {
    let following = Following::default();
    let seen = Arc::clone(&following);
    let standing = move || seen.get().map(|(config, cluster)| standing(node, config, &**cluster)).unwrap_or_default();
    let config = CollectorConfig { node, path: data.logs(), peers, records, standing: Arc::new(standing) };
    let logging = match Collector::open(config) {
        Ok(collector) => {
            let collector = Arc::new(collector);
            Logging { log: collector.log(), logs: collector.logs(), collector: Ok(collector) }
        }
        Err(error) => {
            tracing::error!(%error, "without a log until the next start; mail goes on");
            let why = error.to_string();
            Logging { log: Arc::new(NoLog), logs: Arc::new(NoLogs(why.clone())), collector: Err(why) }
        }
    };
    Opened { logging, following }
}

impl Opened {
    /// For other nodes' calls.
    pub(crate) fn service(&self) -> Option<Arc<dyn PeerService>> {
        self.logging.collector.as_ref().ok().map(|collector| collector.service())
    }

    /// From now on the cluster is known: the log is brought to the primary.
    pub(crate) fn follow(self, config: Arc<Control>, cluster: Arc<dyn Cluster>) -> Logging {
        // Set once, here.
        let _ = self.following.set((config, cluster));
        if let Ok(collector) = self.logging.collector.clone() {
            tokio::spawn(async move { collector.run().await });
        }
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
