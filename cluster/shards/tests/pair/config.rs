//! The configuration of the pair: one register for both nodes, decided at once, locked while a node is missing.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use ports::Answer;
use ports::config::{Config, ConfigError, Proposed, QuorumStatus};
use tokio::sync::watch;
use topology::{ClusterState, ConfigOp, Member, Rejection};
use vocab::NodeId;

/// What Raft would agree on.
pub struct Register {
    state: Mutex<(ClusterState, u64)>,
    revision: watch::Sender<u64>,
    quorum: watch::Sender<QuorumStatus>,
}

pub fn member(id: u32) -> Member {
    let address = format!("127.0.0.{}", 30 + id);
    Member {
        id: NodeId(id),
        name: format!("node{id}"),
        peer_address: format!("{address}:6420"),
        address,
        data: true,
        paths: Vec::new(),
    }
}

impl Register {
    pub fn founded() -> Arc<Self> {
        let register = Self {
            state: Mutex::default(),
            revision: watch::Sender::new(0),
            quorum: watch::Sender::new(QuorumStatus { quorum: true, ..Default::default() }),
        };
        let found =
            ConfigOp::Found { cluster_id: "c".into(), name: "test".into(), member: member(1), cluster_address: None };
        register.apply(&found).expect("founded");
        Arc::new(register)
    }

    pub fn apply(&self, op: &ConfigOp) -> Result<Proposed, Rejection> {
        let mut state = self.state.lock().expect("state");
        let index = state.1 + 1;
        let (next, node) = topology::apply(&state.0, op, index)?;
        let revision = next.revision;
        *state = (next, index);
        drop(state);
        self.revision.send_replace(revision);
        Ok(Proposed { revision, node })
    }

    pub fn admit_second(&self) {
        let hash = "a".repeat(64);
        self.apply(&ConfigOp::AddToken { hash: hash.clone(), expires: 10 }).expect("token");
        self.apply(&ConfigOp::Admit { token_hash: hash, now: 1, member: member(2) }).expect("admitted");
    }

    pub fn set_quorum(&self, quorum: bool) {
        self.quorum.send_replace(QuorumStatus { quorum, ..Default::default() });
    }
}

/// The register as one process sees it.
pub struct View {
    pub register: Arc<Register>,
    pub dead: Arc<AtomicBool>,
}

impl Config for View {
    fn current(&self) -> Arc<ClusterState> {
        Arc::new(self.register.state.lock().expect("state").0.clone())
    }
    fn watch(&self) -> watch::Receiver<u64> {
        self.register.revision.subscribe()
    }
    fn propose(&self, op: ConfigOp) -> Answer<'_, Result<Proposed, ConfigError>> {
        Box::pin(async move {
            if self.dead.load(Ordering::SeqCst) || !self.register.quorum.borrow().quorum {
                return Err(ConfigError::Locked("no quorum".into()));
            }
            self.register.apply(&op).map_err(|rejection| ConfigError::Conflict(rejection.to_string()))
        })
    }
    fn quorum(&self) -> watch::Receiver<QuorumStatus> {
        self.register.quorum.subscribe()
    }
    fn add_voter(&self, _node: NodeId, _peer_address: String) -> Answer<'_, Result<(), ConfigError>> {
        Box::pin(async { Ok(()) })
    }
    fn become_sole_voter(&self) -> Answer<'_, Result<(), ConfigError>> {
        self.register.set_quorum(true);
        Box::pin(async { Ok(()) })
    }
}
