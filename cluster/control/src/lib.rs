//! openraft around `topology`: the only crate that names openraft. Reads are answered from memory and never wait;
//! changes go to the leader, are durable on a majority of voters, and fail fast with the ways out when there is none.

mod disk;
mod elect;
mod life;
mod log_store;
mod network;
mod propose;
mod quorum;
mod service;
mod state_machine;
mod types;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, RwLock, Weak};
use std::time::{Duration, Instant};

use openraft::BasicNode;
use ports::Answer;
use ports::config::{Config, ConfigError, Proposed, QuorumStatus};
use ports::peers::Peers;
use tokio::sync::watch;
use topology::{ClusterState, ConfigOp};
use vocab::NodeId;

use disk::Disk;
use life::Life;
use quorum::Heard;
use state_machine::{Shared, StateMachine};

/// How long `found` waits to become leader of itself.
const FOUND_WAIT: Duration = Duration::from_secs(10);

/// Why the configuration's own store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder cannot be opened: permissions, damage, or another process has it.
    #[error("open the store of the configuration: {0}")]
    Disk(#[from] rocksdb::Error),
    /// Written by another version of the program.
    #[error("the store of the configuration has format {found}, this program knows {known}; empty the folder {folder}")]
    Format {
        /// What is there.
        found: String,
        /// What is known.
        known: u32,
        /// Where.
        folder: String,
    },
    /// Raft did not start.
    #[error("start raft: {0}")]
    Raft(String),
}

/// The replicated configuration of this node.
pub struct Control {
    node: NodeId,
    me: Weak<Self>,
    /// Replaced when the store is begun anew.
    life: RwLock<Life>,
    renewing: tokio::sync::Mutex<()>,
    /// Nodes whose processes have ended just now.
    ended: Mutex<BTreeSet<NodeId>>,
    peers: Arc<dyn Peers>,
    shared: Arc<Shared>,
    heard: Arc<Heard>,
    status: Arc<watch::Sender<QuorumStatus>>,
    quorum: watch::Receiver<QuorumStatus>,
    /// Since when learners are known that are no members any more.
    stale_learners: Mutex<Option<Instant>>,
}

impl Control {
    /// Opens the store and starts Raft. A node with an empty store waits to be founded or added.
    ///
    /// # Errors
    /// The folder cannot be used.
    pub async fn open(path: &Path, node: NodeId, peers: Arc<dyn Peers>) -> Result<Arc<Self>, OpenError> {
        let disk = Disk::open(path)?;
        let state_machine = StateMachine::load(disk.clone());
        let shared = state_machine.shared();
        let heard = Arc::new(Heard::default());
        let (status, quorum) = watch::channel(QuorumStatus::default());
        let status = Arc::new(status);
        let life = Life::start(node, disk, state_machine, (&peers, &heard, &status)).await?;
        Ok(Arc::new_cyclic(|me| Self {
            node,
            me: me.clone(),
            life: RwLock::new(life),
            renewing: tokio::sync::Mutex::default(),
            ended: Mutex::default(),
            peers,
            shared,
            heard,
            status,
            quorum,
            stale_learners: Mutex::default(),
        }))
    }

    /// Makes this node the only voter of a new cluster and applies the first entry ([`ConfigOp::Found`]). Repeating it
    /// after a crash in between is harmless.
    ///
    /// # Errors
    /// As [`Config::propose`].
    pub async fn found(&self, op: ConfigOp) -> Result<Proposed, ConfigError> {
        let unknown = |error: &dyn std::fmt::Display| ConfigError::Unknown(error.to_string());
        if !self.raft().is_initialized().await.map_err(|error| unknown(&error))? {
            let voters = BTreeMap::from([(u64::from(self.node.0), BasicNode::default())]);
            self.raft().initialize(voters).await.map_err(|error| unknown(&error))?;
        }
        self.await_lead().await?;
        self.propose(op).await
    }

    async fn await_lead(&self) -> Result<(), ConfigError> {
        let leads = self.raft().wait(Some(FOUND_WAIT)).state(openraft::ServerState::Leader, "found").await;
        leads.map(drop).map_err(|error| ConfigError::Unknown(error.to_string()))
    }

    /// Stops Raft and closes the store. Reads go on from memory.
    pub async fn shutdown(&self) {
        if let Err(error) = self.raft().shutdown().await {
            tracing::warn!(%error, "raft did not stop cleanly");
        }
        self.close_disk();
    }
}

impl Config for Control {
    fn current(&self) -> Arc<ClusterState> {
        self.shared.state.load_full()
    }
    fn watch(&self) -> watch::Receiver<u64> {
        self.shared.revision.subscribe()
    }
    fn propose(&self, op: ConfigOp) -> Answer<'_, Result<Proposed, ConfigError>> {
        Box::pin(self.propose_change(op))
    }
    fn quorum(&self) -> watch::Receiver<QuorumStatus> {
        self.quorum.clone()
    }
    fn add_voter(&self, node: NodeId, peer_address: String) -> Answer<'_, Result<(), ConfigError>> {
        Box::pin(self.add_voting_node(node, peer_address))
    }
    fn become_sole_voter(&self) -> Answer<'_, Result<(), ConfigError>> {
        Box::pin(self.found_anew())
    }
}
