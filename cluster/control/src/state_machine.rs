//! `topology` as Raft's state machine: the whole state is written after every apply, so it is its own snapshot.

use std::io::Cursor;
use std::sync::Arc;

use arc_swap::ArcSwap;
use openraft::storage::RaftStateMachine;
use openraft::{
    BasicNode, Entry, EntryPayload, LogId, OptionalSend, RaftSnapshotBuilder, Snapshot, SnapshotMeta, StorageError,
    StorageIOError, StoredMembership,
};
use rocksdb::WriteBatch;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use topology::ClusterState;

use crate::disk::{Disk, encode};
use crate::types::{Applied, RaftId, TypeConfig};

/// Key of the state.
pub(crate) const STATE_KEY: &[u8] = b"state";

type Stored<T> = Result<T, StorageError<RaftId>>;

/// What others see of the state.
pub(crate) struct Shared {
    /// Newest applied state.
    pub(crate) state: ArcSwap<ClusterState>,
    /// Its revision, for those who wait.
    pub(crate) revision: watch::Sender<u64>,
}

/// State with what Raft must know of it.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) applied: Option<LogId<RaftId>>,
    pub(crate) membership: StoredMembership<RaftId, BasicNode>,
    pub(crate) state: ClusterState,
}

impl Record {
    pub(crate) fn apply(&mut self, entry: Entry<TypeConfig>) -> Applied {
        self.applied = Some(entry.log_id);
        match entry.payload {
            EntryPayload::Blank => Applied { revision: 0, outcome: Ok(None) },
            EntryPayload::Membership(membership) => {
                self.membership = StoredMembership::new(Some(entry.log_id), membership);
                Applied { revision: 0, outcome: Ok(None) }
            }
            EntryPayload::Normal(op) => {
                let outcome = topology::apply(&self.state, &op, entry.log_id.index).map(|(next, given)| {
                    self.state = next;
                    given
                });
                Applied { revision: self.state.revision, outcome }
            }
        }
    }
}

/// The state machine.
#[derive(Clone)]
pub(crate) struct StateMachine {
    disk: Disk,
    record: Record,
    shared: Arc<Shared>,
}

impl StateMachine {
    /// As it was after the last apply.
    pub(crate) fn load(disk: Disk) -> Self {
        let record: Record = disk.read(STATE_KEY).unwrap_or_default();
        let state = ArcSwap::from_pointee(record.state.clone());
        let revision = watch::Sender::new(record.state.revision);
        Self { disk, record, shared: Arc::new(Shared { state, revision }) }
    }
    /// As `load`, for those who look at `shared` already.
    pub(crate) fn reload(disk: Disk, shared: Arc<Shared>) -> Self {
        let record: Record = disk.read(STATE_KEY).unwrap_or_default();
        let machine = Self { disk, record, shared };
        machine.show();
        machine
    }
    /// What others see.
    pub(crate) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }
    /// Writes, then shows.
    async fn publish(&mut self) {
        let mut batch = WriteBatch::default();
        batch.put(STATE_KEY, encode(&self.record));
        self.disk.write(batch).await;
        self.show();
    }
    fn show(&self) {
        self.shared.state.store(Arc::new(self.record.state.clone()));
        let revision = self.record.state.revision;
        self.shared.revision.send_if_modified(|old| std::mem::replace(old, revision) != revision);
    }
    fn snapshot(&self) -> Option<Snapshot<TypeConfig>> {
        let last = self.record.applied?;
        let meta = SnapshotMeta {
            last_log_id: Some(last),
            last_membership: self.record.membership.clone(),
            snapshot_id: format!("{}-{}", last.leader_id, last.index),
        };
        Some(Snapshot { meta, snapshot: Box::new(Cursor::new(encode(&self.record.state))) })
    }
}

impl RaftSnapshotBuilder<TypeConfig> for StateMachine {
    async fn build_snapshot(&mut self) -> Stored<Snapshot<TypeConfig>> {
        let nothing = || StorageIOError::read_state_machine(&std::io::Error::other("nothing is applied yet"));
        self.snapshot().ok_or_else(|| nothing().into())
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Stored<(Option<LogId<RaftId>>, StoredMembership<RaftId, BasicNode>)> {
        Ok((self.record.applied, self.record.membership.clone()))
    }
    async fn apply<I>(&mut self, entries: I) -> Stored<Vec<Applied>>
    where
        I: IntoIterator<Item = Entry<TypeConfig>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let applied = entries.into_iter().map(|entry| self.record.apply(entry)).collect();
        self.publish().await;
        Ok(applied)
    }
    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }
    async fn begin_receiving_snapshot(&mut self) -> Stored<Box<Cursor<Vec<u8>>>> {
        Ok(Box::default())
    }
    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta<RaftId, BasicNode>,
        snapshot: Box<Cursor<Vec<u8>>>,
    ) -> Stored<()> {
        let state = serde_json::from_slice(snapshot.get_ref())
            .map_err(|error| StorageIOError::read_snapshot(Some(meta.signature()), &std::io::Error::other(error)))?;
        self.record = Record { applied: meta.last_log_id, membership: meta.last_membership.clone(), state };
        self.publish().await;
        Ok(())
    }
    async fn get_current_snapshot(&mut self) -> Stored<Option<Snapshot<TypeConfig>>> {
        Ok(self.snapshot())
    }
}
