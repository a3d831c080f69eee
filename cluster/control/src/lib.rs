//! openraft around `topology`: the only crate that names openraft. Reads are answered from memory and never wait;
//! changes go to the leader, are durable on a majority of voters, and fail fast with the ways out when there is none.

mod disk;
mod log_store;
mod network;
mod propose;
mod quorum;
mod service;
mod state_machine;
mod types;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use openraft::{BasicNode, Raft, SnapshotPolicy};
use ports::Answer;
use ports::config::{Config, ConfigError, Proposed, QuorumStatus};
use ports::peers::Peers;
use tokio::sync::watch;
use topology::{ClusterState, ConfigOp};
use vocab::NodeId;

use disk::Disk;
use log_store::LogStore;
use network::Network;
use quorum::LeaderHeard;
use state_machine::{Shared, StateMachine};
use types::TypeConfig;

/// Leader's heartbeat (ms); also how long the leader waits for one append.
const HEARTBEAT_MS: u64 = 100;
/// A follower that hears no leader for a random time in this range stands for election (ms).
const ELECTION_MS: (u64, u64) = (400, 800);
/// Entries between two compactions of the log.
const SNAPSHOT_EVERY: u64 = 1000;
/// Entries kept behind a compaction, for followers that lag a little.
const LOG_KEPT: u64 = 200;
/// Sending a snapshot to a follower (ms).
const SNAPSHOT_WAIT_MS: u64 = 5_000;
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
    raft: Raft<TypeConfig>,
    peers: Arc<dyn Peers>,
    shared: Arc<Shared>,
    heard: Arc<LeaderHeard>,
    quorum: watch::Receiver<QuorumStatus>,
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
        let failed = |error: &dyn std::fmt::Display| OpenError::Raft(error.to_string());
        let config = openraft::Config {
            cluster_name: "twinpost".to_owned(),
            heartbeat_interval: HEARTBEAT_MS,
            election_timeout_min: ELECTION_MS.0,
            election_timeout_max: ELECTION_MS.1,
            install_snapshot_timeout: SNAPSHOT_WAIT_MS,
            snapshot_policy: SnapshotPolicy::LogsSinceLast(SNAPSHOT_EVERY),
            max_in_snapshot_log_to_keep: LOG_KEPT,
            ..openraft::Config::default()
        };
        let config = Arc::new(config.validate().map_err(|error| failed(&error))?);
        let network = Network::new(Arc::clone(&peers));
        let raft = Raft::new(u64::from(node.0), config, network, LogStore::new(disk), state_machine)
            .await
            .map_err(|error| failed(&error))?;
        let heard = Arc::new(LeaderHeard::default());
        let quorum = quorum::watch_quorum(node, raft.metrics(), Arc::clone(&heard));
        Ok(Arc::new(Self { node, raft, peers, shared, heard, quorum }))
    }

    /// Makes this node the only voter of a new cluster and applies the first entry ([`ConfigOp::Found`]). Repeating it
    /// after a crash in between is harmless.
    ///
    /// # Errors
    /// As [`Config::propose`].
    pub async fn found(&self, op: ConfigOp) -> Result<Proposed, ConfigError> {
        let unknown = |error: &dyn std::fmt::Display| ConfigError::Unknown(error.to_string());
        if !self.raft.is_initialized().await.map_err(|error| unknown(&error))? {
            let voters = BTreeMap::from([(u64::from(self.node.0), BasicNode::default())]);
            self.raft.initialize(voters).await.map_err(|error| unknown(&error))?;
        }
        let leads = self.raft.wait(Some(FOUND_WAIT)).state(openraft::ServerState::Leader, "found").await;
        leads.map_err(|error| unknown(&error))?;
        self.propose(op).await
    }

    /// Stops Raft and closes the store. Reads go on from memory.
    pub async fn shutdown(&self) {
        if let Err(error) = self.raft.shutdown().await {
            tracing::warn!(%error, "raft did not stop cleanly");
        }
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
}
