//! The configuration in memory: the real state machine, no Raft.

use std::sync::{Arc, Mutex, PoisonError};

use ports::Answer;
use ports::config::{Config, ConfigError, Proposed, QuorumStatus};
use tokio::sync::watch;
use topology::{ClusterState, ConfigOp, DocumentKind, Member, Rejection};
use vocab::NodeId;

/// A configuration whose changes apply at once, unless it is locked.
pub struct FakeConfig {
    state: Mutex<Arc<ClusterState>>,
    locked: Mutex<Option<String>>,
    revision: watch::Sender<u64>,
    quorum: watch::Sender<QuorumStatus>,
}

impl FakeConfig {
    /// A founded cluster of one node at 127.0.0.1.
    ///
    /// # Panics
    /// When founding fails, which would be a fault of the test.
    #[must_use]
    pub fn founded() -> Arc<Self> {
        let member = Member {
            id: NodeId(1),
            name: "n1".into(),
            peer_address: "127.0.0.1:6420".into(),
            address: "127.0.0.1".into(),
            data: true,
            paths: Vec::new(),
        };
        let quorum =
            QuorumStatus { quorum: true, leader: Some(NodeId(1)), voters: vec![NodeId(1)], ..QuorumStatus::default() };
        let fake = Self {
            state: Mutex::default(),
            locked: Mutex::default(),
            revision: watch::Sender::new(0),
            quorum: watch::Sender::new(quorum),
        };
        let found = ConfigOp::Found { cluster_id: "test".into(), name: "test".into(), member, cluster_address: None };
        fake.apply(&found).expect("founding");
        Arc::new(fake)
    }
    /// Refuses changes from now on with this reason, or takes them again.
    pub fn lock(&self, reason: Option<&str>) {
        *self.locked.lock().unwrap_or_else(PoisonError::into_inner) = reason.map(str::to_owned);
    }
    /// Sets the cluster address, as founding would.
    ///
    /// # Panics
    /// It is none.
    pub fn set_cluster_address(&self, address: Option<String>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let address = address.map(|text| text.parse::<topology::ClusterAddress>().expect("an address"));
        let next = ClusterState { cluster_addresses: address.into_iter().collect(), ..ClusterState::clone(&state) };
        *state = Arc::new(next);
    }
    /// Writes a document.
    ///
    /// # Panics
    /// When it is refused.
    pub fn put(&self, kind: DocumentKind, name: &str, body: serde_json::Value) {
        let op = ConfigOp::put(kind, name, body, None);
        self.apply(&op).expect("document");
    }
    fn apply(&self, op: &ConfigOp) -> Result<Proposed, ConfigError> {
        if let Some(reason) = self.locked.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            return Err(ConfigError::Locked(reason));
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let index = state.revision + 1;
        let (next, node) = topology::apply(&state, op, index).map_err(|rejection| match rejection {
            Rejection::Faults(faults) => ConfigError::Refused(faults),
            Rejection::Conflict(text) => ConfigError::Conflict(text),
        })?;
        let revision = next.revision;
        *state = Arc::new(next);
        self.revision.send_replace(revision);
        Ok(Proposed { revision, node })
    }
}

impl Config for FakeConfig {
    fn current(&self) -> Arc<ClusterState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
    fn watch(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }
    fn propose(&self, op: ConfigOp) -> Answer<'_, Result<Proposed, ConfigError>> {
        let result = self.apply(&op);
        Box::pin(async move { result })
    }
    fn quorum(&self) -> watch::Receiver<QuorumStatus> {
        self.quorum.subscribe()
    }
    fn add_voter(&self, _: NodeId, _: String) -> Answer<'_, Result<(), ConfigError>> {
        Box::pin(async { Ok(()) })
    }
    fn become_sole_voter(&self) -> Answer<'_, Result<(), ConfigError>> {
        Box::pin(async { Err(ConfigError::Conflict("one node only".to_owned())) })
    }
}
