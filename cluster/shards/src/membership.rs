//! Who goes for good: a node that leaves, a node that is lost, and a survivor that goes on without a majority. The home
//! says whether nothing hangs on the node (`replica`), the register forgets it (`topology`), the leader of the settings
//! takes its vote.

use std::time::Duration;

use ports::cluster::{Departure, MembershipError, Others, Rescue};
use replica::{Event, REMOVAL_REASONS, REMOVAL_WAITS, Serving};
use topology::ConfigOp;
use vocab::{EpochId, NodeId, SubmitError};
use wire::forward::{self as w, call, reply};

use crate::engine::Engine;

/// How long an epoch may take to settle before a member is removed.
const SETTLE_WAIT: Duration = Duration::from_secs(10);
/// How long the vote of a node that leaves may take to end.
const VOTE_WAIT: Duration = Duration::from_secs(10);
/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(100);

impl Engine {
    /// See [`ports::cluster::Cluster::leave`].
    pub(crate) async fn leave(&self, dry_run: bool) -> Result<Departure, MembershipError> {
        let departure = |home: NodeId| Departure { node: self.node.0, home: home.0 };
        if !self.config.current().members.contains_key(&self.node) {
            return Err(MembershipError::Refused("this node is no member of the cluster any more".to_owned()));
        }
        if !self.config.quorum().borrow().quorum {
            return Err(MembershipError::Unavailable(
                "no majority of the voters answers: nobody can confirm it".to_owned(),
            ));
        }
        let mut home = self.present_home()?;
        let in_sync = self.machine().record().is_some_and(|record| record.in_sync.contains(&self.node));
        if dry_run && !in_sync {
            return Ok(departure(home));
        }
        if !dry_run {
            self.tell(Event::Leaving(true));
        }
        if in_sync {
            home = match self.hand_over(home, None, Some(self.node), dry_run).await {
                Ok(home) => home,
                Err(error) => return Err(self.stay(error.into())),
            };
        }
        if !dry_run {
            self.leave_members().await.map_err(|error| self.stay(error))?;
            tracing::warn!("this node has left the cluster");
        }
        Ok(departure(home))
    }

    /// Nothing came of it: this node may be taken back into the in-sync set.
    fn stay(&self, error: MembershipError) -> MembershipError {
        tracing::warn!(%error, "this node stays in the cluster");
        self.tell(Event::Leaving(false));
        error
    }

    async fn leave_members(&self) -> Result<(), MembershipError> {
        let epoch = self.settled_epoch(self.node).await?;
        self.config.propose(ConfigOp::RemoveMember { node: self.node, epoch }).await?;
        let mut quorum = self.config.quorum();
        let unvoted = quorum.wait_for(|status| !status.voters.contains(&self.node));
        match tokio::time::timeout(VOTE_WAIT, unvoted).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(MembershipError::Unknown(
                "this node is no member any more but may still vote; it ends by itself once it does not".to_owned(),
            )),
        }
    }

    /// See [`ports::cluster::Cluster::remove`].
    pub(crate) async fn remove_member(&self, node: NodeId, dry_run: bool) -> Result<Departure, MembershipError> {
        let Some(member) = self.config.current().members.get(&node).cloned() else {
            return Err(MembershipError::Refused(format!("no node has the id {}", node.0)));
        };
        let home = self.present_home()?;
        let epoch = if member.data { self.settled_epoch(node).await? } else { EpochId::default() };
        if !dry_run {
            self.config.propose(ConfigOp::RemoveMember { node, epoch }).await?;
            tracing::warn!(
                node = node.0,
                name = member.name,
                "a node was removed from the cluster by an operator's word"
            );
        }
        Ok(Departure { node: node.0, home: home.0 })
    }

    /// The home's epoch, once the home says that this node may go.
    async fn settled_epoch(&self, node: NodeId) -> Result<EpochId, MembershipError> {
        let asked = tokio::time::Instant::now();
        loop {
            let reason = match self.ask_removal(node).await {
                Ok(epoch) => return Ok(epoch),
                Err(SubmitError::Unavailable(reason)) => reason,
                Err(error @ SubmitError::Unknown(_)) => return Err(error.into()),
            };
            let waits = !REMOVAL_REASONS.contains(&reason) || REMOVAL_WAITS.contains(&reason);
            if !waits {
                return Err(MembershipError::Refused(reason.to_owned()));
            }
            if asked.elapsed() > SETTLE_WAIT {
                return Err(MembershipError::Unavailable(reason.to_owned()));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn ask_removal(&self, node: NodeId) -> Result<EpochId, SubmitError> {
        let home = self.present_home()?;
        if home == self.node {
            return self.machine().may_remove(node, false).map_err(SubmitError::Unavailable);
        }
        match self.ask(home, call::Kind::MayRemove(w::MayRemove { node: node.0 })).await? {
            reply::Kind::Epoch(epoch) => Ok(EpochId { number: epoch.number, author: epoch.author }),
            _ => Err(SubmitError::Unknown("the home answered something else")),
        }
    }

    /// See [`ports::cluster::Cluster::rescue`].
    pub(crate) async fn rescue(&self, others: Others, dry_run: bool) -> Result<Rescue, MembershipError> {
        let refused = |text: String| Err(MembershipError::Refused(text));
        let quorum = self.config.quorum().borrow().clone();
        if quorum.quorum {
            return refused("a majority of the voters answers: settings are not locked".to_owned());
        }
        let now = self.now();
        let status = self.machine().status(now);
        let alone = status.record.as_ref().filter(|r| r.is_alone(self.node) && status.serving == Serving::Home);
        let Some(record) = alone else {
            return refused(
                "this node does not serve alone; when the other is off for good, say so first: `twinpost cluster \
                 start-alone`"
                    .to_owned(),
            );
        };
        let heard = |id: &NodeId| self.machine().hears(*id) || self.witness_links().contains_key(id);
        let without: Vec<NodeId> = quorum.voters.iter().filter(|id| **id != self.node).copied().collect();
        if let Some(other) = without.iter().find(|id| heard(id)) {
            return refused(format!("node {} is heard: it is not lost", other.0));
        }
        if !record.certain && others == Others::Unheard {
            return refused(
                "this node went on alone without a sure word that the other's process has ended, so it may be running: \
                 make sure that it is off, then say --others-are-down"
                    .to_owned(),
            );
        }
        if !dry_run {
            tracing::warn!(?without, "this node becomes the only voter by an operator's word");
            self.config.become_sole_voter().await?;
        }
        Ok(Rescue { node: self.node.0, without: without.iter().map(|id| id.0).collect() })
    }
}
