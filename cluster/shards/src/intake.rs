//! [`Intake`] over the engine: the commit behind 250.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use ports::Answer;
use ports::intake::{Delivery, Intake, Recipient};
use vocab::limits::SMALL_BODY_MAX;
use vocab::{AccountId, BlobHash, NodeId, SubmitError};
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
                settled: self.0.settled_of(delivery.accept),
                reverse_path: delivery.reverse_path,
                recipients: delivery.recipients,
                hash,
                size: delivery.body.len() as u64,
                eight_bit: !delivery.body.is_ascii(),
                body: small.then(|| delivery.body.clone()),
                facts: delivery.facts,
                smtputf8: delivery.smtputf8,
                at: delivery.at,
                records: delivery.records,
            };
            let result = self.0.accept(&work, &delivery.body).await;
            self.0.settle(delivery.accept, &result);
            if let Err(error) = &result {
                tracing::warn!(accept = %delivery.accept, %error, "message not accepted");
            }
            result
        })
    }
    fn accept_here(&self, delivery: Delivery) -> Answer<'_, Result<(), SubmitError>> {
        Box::pin(async move {
            let local = delivery.recipients.iter().filter_map(|recipient| match recipient {
                Recipient::Local { number, account, .. } => Some((*number, *account)),
                Recipient::Remote { .. } => None,
            });
            let (accept, local): (_, Vec<(u32, AccountId)>) = (delivery.accept, local.collect());
            self.accept(delivery).await?;
            for (number, account) in local {
                if !self.0.is_owed_here(accept, number, account)? {
                    tracing::warn!(%accept, account = account.0, "accepted on another branch only");
                    return Err(SubmitError::Unavailable(crate::PLACED_ELSEWHERE));
                }
            }
            Ok(())
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

    /// Runs a delivery at the home of its accounts, here or there, in one batch. When they have several homes, the accept
    /// record at the home of the queue is the commit behind 250 (H14), and the fan-out follows.
    async fn deliver(&self, work: DeliveryWork) -> Result<(), SubmitError> {
        let mut accounts = work.accounts();
        let homes = accounts.iter().map(|account| self.home_of(*account)).collect::<Option<BTreeSet<_>>>();
        let homes = homes.ok_or(SubmitError::Unavailable(crate::NOT_SERVING))?;
        let record = homes.len() > 1;
        if record {
            accounts = vec![AccountId::QUEUE];
        }
        let home = match homes.first() {
            Some(home) if !record => *home,
            _ => self.home_of(AccountId::QUEUE).ok_or(SubmitError::Unavailable(crate::NOT_SERVING))?,
        };
        let refused = if home != self.node {
            self.deliver_there(home, &accounts, &work, record).await?
        } else if record {
            self.accept_here(work).await.map(|()| Vec::new())?
        } else {
            self.deliver_here(work).await?
        };
        if refused.is_empty() { Ok(()) } else { Err(SubmitError::Unavailable(crate::REFUSED)) }
    }

    /// Has another home run a delivery; numbers of the recipients whose mailboxes refused it.
    pub(crate) async fn deliver_there(
        &self,
        home: NodeId,
        accounts: &[AccountId],
        work: &DeliveryWork,
        record: bool,
    ) -> Result<Vec<u32>, SubmitError> {
        match self.ask_homes(home, accounts, forward::accept_call(work, record)).await? {
            reply::Kind::Done(done) => Ok(done.refused),
            _ => Err(SubmitError::Unknown("the home answered something else")),
        }
    }

    /// Runs a delivery at this home, which is that of all its accounts; numbers of the recipients whose mailboxes refused it.
    pub(crate) async fn deliver_here(&self, work: DeliveryWork) -> Result<Vec<u32>, SubmitError> {
        match self.order(Work::Delivery(Box::new(work))).await? {
            Done::Delivered(refused) => Ok(refused),
            Done::TooLate => Err(SubmitError::Unavailable(crate::TOO_LATE)),
            _ => Err(SubmitError::Unknown("an outcome of another kind")),
        }
    }

    /// Keeps the accept record at this home of the queue; its fan-out begins at once.
    pub(crate) async fn accept_here(&self, work: DeliveryWork) -> Result<(), SubmitError> {
        let record = work.record();
        match self.order(Work::Accept(Box::new(work))).await? {
            Done::Accepted => {
                self.fan_out.begin(record);
                Ok(())
            }
            Done::TooLate => Err(SubmitError::Unavailable(crate::TOO_LATE)),
            _ => Err(SubmitError::Unknown("an outcome of another kind")),
        }
    }
}
