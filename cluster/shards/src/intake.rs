//! [`Intake`] over the engine: the commit behind 250.

use std::sync::Arc;

use bytes::Bytes;
use ports::Answer;
use ports::intake::{Delivery, Intake};
use vocab::limits::SMALL_BODY_MAX;
use vocab::{AccountId, BlobHash, SubmitError};
use wire::forward::reply;

use crate::engine::Engine;
use crate::forward;
use crate::retry::Retry;
use crate::work::{DeliveryWork, Done, Work};

/// [`Intake`] over the engine.
pub struct EngineIntake(pub(crate) Arc<Engine>);

impl Intake for EngineIntake {
    fn accept(&self, delivery: Delivery) -> Answer<'_, Result<(), SubmitError>> {
        Box::pin(async move {
            let hash = BlobHash::of(&delivery.body);
            let small = delivery.body.len() <= SMALL_BODY_MAX;
            let work = DeliveryWork {
                accept: delivery.accept,
                reverse_path: delivery.reverse_path,
                recipients: delivery.recipients,
                hash,
                size: delivery.body.len() as u64,
                eight_bit: !delivery.body.is_ascii(),
                body: small.then(|| delivery.body.clone()),
                facts: delivery.facts,
                smtputf8: delivery.smtputf8,
                at: delivery.at,
            };
            let result = self.0.accept(&work, &delivery.body).await;
            self.0.settle(delivery.accept, &result);
            if let Err(error) = &result {
                tracing::warn!(accept = %delivery.accept, %error, "message not accepted");
            }
            result
        })
    }
}

impl Engine {
    async fn accept(&self, work: &DeliveryWork, body: &Bytes) -> Result<(), SubmitError> {
        let mut retry = Retry::new();
        loop {
            let spread = if work.body.is_none() { self.spread(work.hash, body).await } else { Ok(()) };
            let result = match spread {
                Ok(()) => self.deliver(work.clone()).await,
                failed => failed,
            };
            match result {
                Err(error) => retry.pause(error).await?,
                done => return done,
            }
        }
    }

    /// Runs a delivery at the home of its accounts, here or there.
    async fn deliver(&self, work: DeliveryWork) -> Result<(), SubmitError> {
        // Until homes are spread over nodes, all shards are at home on one node, so one batch takes all recipients.
        let home = self.home_of(AccountId::QUEUE).ok_or(SubmitError::Unavailable(crate::NOT_SERVING))?;
        if home != self.node {
            return match self.ask_home(home, AccountId::QUEUE, forward::accept_call(&work)).await? {
                reply::Kind::Done(_) => Ok(()),
                _ => Err(SubmitError::Unknown("the home answered something else")),
            };
        }
        self.deliver_here(work).await
    }

    /// Runs a delivery at this home.
    pub(crate) async fn deliver_here(&self, work: DeliveryWork) -> Result<(), SubmitError> {
        match self.order(Work::Delivery(Box::new(work))).await? {
            Done::Delivered => Ok(()),
            _ => Err(SubmitError::Unknown("an outcome of another kind")),
        }
    }
}
