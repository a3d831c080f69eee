//! Planned handovers: the order goes to the home, whoever was asked, and comes back with who serves now.

use std::sync::PoisonError;
use std::time::Duration;

use ports::cluster::Switchover;
use replica::Event;
use tokio::sync::oneshot;
use vocab::{AccountId, NodeId, SubmitError};
use wire::forward::{self as w, call, reply};

use crate::engine::Engine;

/// Whoever waits for a handover hears of it by then; the machine gives up earlier.
const ANSWER_WAIT: Duration = Duration::from_secs(10);
/// A node that stops waits no longer to be let go.
const LEAVE_WAIT: Duration = Duration::from_secs(4);

impl Engine {
    /// See [`ports::cluster::Cluster::switch_over`].
    pub(crate) async fn switch_over(&self, to: Option<NodeId>, dry_run: bool) -> Result<Switchover, SubmitError> {
        // Who is meant may have been the home once: only the home itself knows that it still is.
        let from = self.present_home()?;
        let home = self.hand_over(from, to, None, dry_run).await?;
        Ok(Switchover { from: from.0, to: home.0 })
    }

    /// Before a planned stop: this node leaves the in-sync set, and if it is the home another one becomes it first. When
    /// nobody can take its place it just stops.
    pub async fn leave_before_stop(&self) {
        let Ok(home) = self.present_home() else { return };
        self.tell(Event::Leaving(true));
        let left = tokio::time::timeout(LEAVE_WAIT, self.hand_over(home, None, Some(self.node), false)).await;
        match left {
            Ok(Ok(home)) => tracing::info!(home = home.0, "left the in-sync set before the stop"),
            Ok(Err(error)) => tracing::info!(%error, "stopping without leaving the in-sync set"),
            Err(_) => tracing::warn!("stopping before anybody agreed"),
        }
    }

    pub(crate) fn present_home(&self) -> Result<NodeId, SubmitError> {
        self.home_of(AccountId::QUEUE).ok_or(SubmitError::Unavailable(crate::NOT_SERVING))
    }

    pub(crate) async fn hand_over(
        &self,
        home: NodeId,
        to: Option<NodeId>,
        leaves: Option<NodeId>,
        dry_run: bool,
    ) -> Result<NodeId, SubmitError> {
        if home == self.node {
            return self.hand_over_here(to, leaves, dry_run).await;
        }
        let number = |id: Option<NodeId>| id.map_or(0, |id| id.0);
        let ask = call::Kind::Handover(w::Handover { to: number(to), leaves: number(leaves), dry_run });
        match self.ask(home, ask).await? {
            reply::Kind::Home(home) => Ok(NodeId(home)),
            _ => Err(SubmitError::Unknown("the home answered something else")),
        }
    }

    async fn hand_over_here(
        &self,
        to: Option<NodeId>,
        leaves: Option<NodeId>,
        dry_run: bool,
    ) -> Result<NodeId, SubmitError> {
        let possible = self.machine().may_hand_over(to, leaves);
        let home = possible.map_err(SubmitError::Unavailable)?;
        if dry_run {
            return Ok(home);
        }
        let (answer, answered) = oneshot::channel();
        {
            // One order at a time: the machine's answer does not say to which it belongs.
            let mut waiting = self.handovers.lock().unwrap_or_else(PoisonError::into_inner);
            if waiting.as_ref().is_some_and(|other| !other.is_closed()) {
                return Err(SubmitError::Unavailable(replica::HANDOVER_BUSY));
            }
            *waiting = Some(answer);
        }
        tracing::warn!(
            to = home.0,
            leaves = leaves.map(|id| id.0),
            "handing over by an operator's word, a planned stop or a failback"
        );
        self.tell(Event::Handover { to, leaves });
        match tokio::time::timeout(ANSWER_WAIT, answered).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) | Err(_) => Err(SubmitError::Unknown("no answer")),
        }
    }

    /// The machine's answer, for who waits for one.
    pub(crate) fn handed_over(&self, result: &Result<NodeId, SubmitError>) {
        if let Some(answer) = self.handovers.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // Whoever asked may have gone.
            let _ = answer.send(result.clone());
        }
    }

    /// Another node asks this one, which it takes for the home.
    pub(crate) async fn serve_handover(&self, from: NodeId, ask: &w::Handover) -> Result<reply::Kind, SubmitError> {
        let node = |number: u32| (number != 0).then_some(NodeId(number));
        let leaves = node(ask.leaves);
        if leaves.is_some_and(|id| id != from) {
            return Err(SubmitError::Unavailable("a node leaves by its own word only"));
        }
        self.must_be_home(AccountId::QUEUE)?;
        let home = self.hand_over_here(node(ask.to), leaves, ask.dry_run).await?;
        Ok(reply::Kind::Home(home.0))
    }
}
