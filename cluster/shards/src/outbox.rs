//! [`Outbox`] over the engine: the queue is the system account `AccountId::QUEUE`.

use std::sync::Arc;

use ports::Answer;
use ports::outbox::Outbox;
use queue::op::{AcceptRecord, Hold, QueueItem, QueueOp, QueueOutcome};
use vocab::{AccountId, LogRecord, SubmitError, Timestamp};
use wire::forward::{self as w, call, reply};

use crate::engine::Engine;
use crate::forward;
use crate::retry::Retry;
use crate::work::{Done, Work};

/// [`Outbox`] over the engine.
pub struct EngineOutbox(pub(crate) Arc<Engine>);

impl Outbox for EngineOutbox {
    fn is_worker(&self) -> bool {
        self.0.works_queue()
    }

    fn hold(&self) -> Option<Hold> {
        self.0.queue_hold()
    }

    fn release(&self) -> bool {
        self.0.release_queue()
    }

    fn due(
        &self,
        now: Timestamp,
        limit: usize,
    ) -> Answer<'_, Result<(Vec<QueueItem>, Option<Timestamp>), SubmitError>> {
        Box::pin(async move {
            let rows = self.0.readable(AccountId::QUEUE).await?;
            queue::read::due(&*rows, now, limit, self.hold().as_ref())
                .map_err(|_| SubmitError::Unavailable(crate::DAMAGED))
        })
    }

    fn list(&self, limit: usize) -> Answer<'_, Result<Vec<QueueItem>, SubmitError>> {
        Box::pin(async move {
            let rows = self.0.readable(AccountId::QUEUE).await?;
            queue::read::list(&*rows, limit).map_err(|_| SubmitError::Unavailable(crate::DAMAGED))
        })
    }

    fn accepts(&self, limit: usize) -> Answer<'_, Result<Vec<AcceptRecord>, SubmitError>> {
        Box::pin(async move {
            let rows = self.0.readable(AccountId::QUEUE).await?;
            queue::read::accepts(&*rows, limit).map_err(|_| SubmitError::Unavailable(crate::DAMAGED))
        })
    }

    fn submit(&self, op: QueueOp, records: Vec<LogRecord>) -> Answer<'_, Result<QueueOutcome, SubmitError>> {
        Box::pin(async move {
            let mut retry = Retry::new();
            loop {
                match self.submit_once(&op, &records).await {
                    Err(error) => retry.pause(error).await?,
                    done => return done,
                }
            }
        })
    }

    fn changed(&self) -> Answer<'_, ()> {
        Box::pin(self.0.queue_changed.notified())
    }
}

impl EngineOutbox {
    async fn submit_once(&self, op: &QueueOp, records: &[LogRecord]) -> Result<QueueOutcome, SubmitError> {
        let home = self.0.home_of(AccountId::QUEUE).ok_or(SubmitError::Unavailable(crate::NOT_SERVING))?;
        if home == self.0.node {
            return match self.0.order(Work::Queue(op.clone(), records.to_vec())).await? {
                Done::Queue(outcome) => Ok(outcome),
                _ => Err(SubmitError::Unknown("an outcome of another kind")),
            };
        }
        let (op, records) = (queue::codec::encode_op(op), forward::records_to(records));
        let submit = w::QueueSubmit { op, records, ..Default::default() };
        match self.0.ask_home(home, AccountId::QUEUE, call::Kind::Queue(submit)).await? {
            reply::Kind::QueueOutcome(0) => Ok(QueueOutcome::Done),
            reply::Kind::QueueOutcome(_) => Ok(QueueOutcome::Gone),
            _ => Err(SubmitError::Unknown("the home answered something else")),
        }
    }
}
