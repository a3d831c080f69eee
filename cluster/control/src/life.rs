//! Lives of the store. Normally there is one. An operator who has lost the majority makes a survivor the only voter: its
//! store is begun anew with itself as the whole membership, and the stores of the others are void from then on. Every
//! question between nodes carries the lineage of its store, so a void one neither votes nor is listened to, and is
//! emptied when the survivor brings the node up to date.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};

use openraft::{
    BasicNode, CommittedLeaderId, Entry, EntryPayload, LogId, Membership, Raft, SnapshotPolicy, StoredMembership, Vote,
};
use ports::config::{ConfigError, QuorumStatus};
use ports::peers::Peers;
use rocksdb::WriteBatch;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use vocab::NodeId;

use crate::disk::{Disk, encode, fatal};
use crate::log_store::{LogStore, PURGED_KEY, VOTE_KEY};
use crate::network::Network;
use crate::quorum::{Heard, watch_quorum};
use crate::state_machine::{Record, STATE_KEY, StateMachine};
use crate::types::{Message, RaftId, TypeConfig};
use crate::{Control, OpenError};

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
/// Key of the lineage; no key but that of a log entry begins with an `l`.
const LINEAGE_KEY: &[u8] = b"founders";

/// Who founded this store anew, oldest first; empty: nobody ever did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lineage(Vec<(u32, u64)>);

/// How another store stands to ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Relation {
    Same,
    /// Void since ours was founded anew.
    Void,
    /// Ours is void.
    Newer,
    /// Both were founded anew, apart.
    Forked,
}

impl Lineage {
    fn relation(&self, theirs: &Self) -> Relation {
        let (ours, theirs) = (&self.0, &theirs.0);
        match ours.len().cmp(&theirs.len()) {
            std::cmp::Ordering::Equal if ours == theirs => Relation::Same,
            std::cmp::Ordering::Greater if ours.starts_with(theirs) => Relation::Void,
            std::cmp::Ordering::Less if theirs.starts_with(ours) => Relation::Newer,
            _ => Relation::Forked,
        }
    }
}

/// Raft over one life of the store.
pub(crate) struct Life {
    raft: Raft<TypeConfig>,
    lineage: Lineage,
    /// Gone after the shutdown.
    disk: Option<Disk>,
    watcher: Option<JoinHandle<()>>,
}

impl Life {
    pub(crate) async fn start(
        node: NodeId,
        disk: Disk,
        machine: StateMachine,
        (peers, heard, status): (&Arc<dyn Peers>, &Arc<Heard>, &Arc<watch::Sender<QuorumStatus>>),
    ) -> Result<Self, OpenError> {
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
        let lineage: Lineage = disk.read(LINEAGE_KEY).unwrap_or_default();
        let network = Network::new(Arc::clone(peers), lineage.clone());
        let raft = Raft::new(RaftId::from(node.0), config, network, LogStore::new(disk.clone()), machine)
            .await
            .map_err(|error| failed(&error))?;
        let watcher = watch_quorum(node, raft.metrics(), Arc::clone(heard), Arc::clone(status));
        Ok(Self { raft, lineage, disk: Some(disk), watcher: Some(watcher) })
    }
}

impl Control {
    /// Raft of the present life.
    pub(crate) fn raft(&self) -> Raft<TypeConfig> {
        self.life.read().unwrap_or_else(PoisonError::into_inner).raft.clone()
    }

    /// Lineage of the present life.
    pub(crate) fn lineage(&self) -> Lineage {
        self.life.read().unwrap_or_else(PoisonError::into_inner).lineage.clone()
    }

    pub(crate) fn close_disk(&self) {
        self.life.write().unwrap_or_else(PoisonError::into_inner).disk = None;
    }

    /// Whether a question is of this life. The error is for the node that asked.
    pub(crate) async fn judge(&self, from: NodeId, theirs: Lineage, message: &Message) -> Result<(), String> {
        let relation = self.lineage().relation(&theirs);
        if relation != Relation::Forked {
            self.heard.forked().remove(&from);
        }
        match relation {
            Relation::Same => Ok(()),
            Relation::Void => {
                Err(format!("the settings on node {} are void: another node was made sole voter", from.0))
            }
            Relation::Newer if matches!(message, Message::Append(_) | Message::Snapshot(_)) => {
                let begun = self.me.upgrade().map(|me| tokio::spawn(async move { me.begin_anew(from, theirs).await }));
                if let Some(begun) = begun {
                    // Its own task: the caller may lose patience in the middle.
                    begun.await.map_err(|error| error.to_string())?;
                }
                Err("settings are begun anew: ask again".to_owned())
            }
            Relation::Newer => Err("settings here are void and wait to be brought up to date".to_owned()),
            Relation::Forked => {
                if self.heard.forked().insert(from) {
                    tracing::error!(
                        node = from.0,
                        "both nodes were made sole voter: their settings have gone two ways. On the one whose settings are \
                         to be given up: stop it, empty the folder `raft` in its data folder, start it"
                    );
                }
                Err("both nodes were made sole voter: settings have gone two ways".to_owned())
            }
        }
    }

    /// Empties a store that is void. What it knew is still shown until the new state is here.
    async fn begin_anew(&self, from: NodeId, lineage: Lineage) {
        tracing::warn!(
            node = from.0,
            "settings are void since that node was made sole voter: they come from there now"
        );
        self.renew(lineage.clone(), move |disk, batch| {
            let known: Record = disk.read(STATE_KEY).unwrap_or_default();
            batch.delete(VOTE_KEY);
            batch.delete(PURGED_KEY);
            batch.put(STATE_KEY, encode(&Record { state: known.state, ..Record::default() }));
        })
        .await;
    }

    /// See [`ports::config::Config::become_sole_voter`].
    pub(crate) async fn found_anew(&self) -> Result<(), ConfigError> {
        let conflict = |text: &str| Err(ConfigError::Conflict(text.to_owned()));
        let status = self.quorum.borrow().clone();
        if status.quorum {
            return conflict("a majority of the voters answers: settings are not locked");
        }
        let last = self.raft().metrics().borrow().last_applied;
        let (Some(last), true) = (last, status.voters.contains(&self.node)) else {
            return conflict("the settings of the cluster have not come to this node yet");
        };
        let mut lineage = self.lineage();
        lineage.0.push((self.node.0, last.index));
        let (node, written) = (self.node, lineage.clone());
        let work = async move |me: Arc<Self>| {
            me.renew(written, move |disk, batch| refound(node, disk, batch)).await;
        };
        if let Some(me) = self.me.upgrade() {
            let done = tokio::spawn(async move { work(me).await }).await;
            done.map_err(|error| ConfigError::Unknown(error.to_string()))?;
        }
        if self.lineage() != lineage {
            return Err(ConfigError::Unknown("another life of the settings began meanwhile".to_owned()));
        }
        tracing::warn!(without = ?status.voters, "this node is the only one that votes on settings now");
        self.await_lead().await
    }

    /// Stops Raft, writes what the next life begins with, starts Raft over it.
    async fn renew(&self, lineage: Lineage, fill: impl FnOnce(&Disk, &mut WriteBatch) + Send + 'static) {
        let _one = self.renewing.lock().await;
        if self.lineage().relation(&lineage) != Relation::Newer {
            return;
        }
        let (raft, disk, watcher) = {
            let mut life = self.life.write().unwrap_or_else(PoisonError::into_inner);
            (life.raft.clone(), life.disk.clone(), life.watcher.take())
        };
        let Some(disk) = disk else { return };
        if let Err(error) = raft.shutdown().await {
            tracing::warn!(%error, "raft did not stop cleanly");
        }
        if let Some(watcher) = watcher {
            // It ends with its Raft; a panic of it has been reported.
            let _ = watcher.await;
        }
        let written = tokio::task::spawn_blocking(move || {
            disk.next_life(|disk, batch| {
                batch.put(LINEAGE_KEY, encode(&lineage));
                fill(disk, batch);
            })
        });
        let disk = written.await.unwrap_or_else(|error| fatal("begin anew", &error));
        let machine = StateMachine::reload(disk.clone(), Arc::clone(&self.shared));
        let life = Life::start(self.node, disk, machine, (&self.peers, &self.heard, &self.status)).await;
        *self.life.write().unwrap_or_else(PoisonError::into_inner) =
            life.unwrap_or_else(|error| fatal("start anew", &error));
    }
}

/// What the only voter goes on with: everything in its log counts as decided (whatever was acknowledged by a pair is in
/// it), under a membership of itself.
fn refound(node: NodeId, disk: &Disk, batch: &mut WriteBatch) {
    let mut record: Record = disk.read(STATE_KEY).unwrap_or_default();
    let from = record.applied.map_or(0, |applied| applied.index + 1);
    let rest: Vec<Entry<TypeConfig>> = disk.log(from, u64::MAX);
    let normal = |entry: &Entry<TypeConfig>| matches!(entry.payload, EntryPayload::Normal(_));
    let last = rest.last().map(|entry| entry.log_id).max(record.applied);
    for entry in rest.into_iter().filter(normal) {
        let index = entry.log_id.index;
        if let Err(rejection) = record.apply(entry).outcome {
            tracing::info!(index, %rejection, "a change in the log that is none");
        }
    }
    let id = RaftId::from(node.0);
    let vote: Vote<RaftId> = disk.read(VOTE_KEY).unwrap_or_default();
    let term = vote.leader_id.term.max(last.map_or(0, |last| last.leader_id.term)) + 1;
    let index = last.map_or(0, |last| last.index) + topology::LIFE_SPAN * id.max(1);
    let begin = LogId::new(CommittedLeaderId::new(term, id), index);
    let members = Membership::new(vec![BTreeSet::from([id])], BTreeMap::from([(id, BasicNode::default())]));
    record.applied = Some(begin);
    record.membership = StoredMembership::new(Some(begin), members);
    batch.put(VOTE_KEY, encode(&Vote::new(term, id)));
    batch.put(PURGED_KEY, encode(&begin));
    batch.put(STATE_KEY, encode(&record));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_void_only_for_those_that_come_from_it() {
        let lineage = |list: &[(u32, u64)]| Lineage(list.to_vec());
        let (first, one, two) = (lineage(&[]), lineage(&[(1, 7)]), lineage(&[(2, 7)]));
        let both = lineage(&[(1, 7), (2, 9)]);
        assert_eq!(one.relation(&one), Relation::Same);
        assert_eq!((first.relation(&one), one.relation(&first)), (Relation::Newer, Relation::Void));
        assert_eq!((both.relation(&one), first.relation(&both)), (Relation::Void, Relation::Newer));
        assert_eq!((one.relation(&two), both.relation(&two)), (Relation::Forked, Relation::Forked));
    }
}
