//! Accepting a message for good: the commit behind 250 after DATA.

use bytes::Bytes;
use vocab::{AccountId, Address, CommandId, LogRecord, ReversePath, SubmitError, Timestamp};

use crate::Answer;

/// One recipient of a delivery; numbers start at 1 and are unique in the delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recipient {
    /// Into the INBOX of a local account.
    Local {
        /// Number within the delivery.
        number: u32,
        /// Account.
        account: AccountId,
        /// Return-Path and Delivered-To lines for this recipient.
        prefix: Bytes,
    },
    /// Into the outbound queue.
    Remote {
        /// Number within the delivery.
        number: u32,
        /// Where to.
        address: Address,
        /// Address before alias expansion, when it differs.
        original: Option<Address>,
    },
}

/// A message with its envelope, ready to be stored: Received is part of the body already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The accept id: command id of the whole, in the 250 reply, in Received and in every log line of the message.
    pub accept: CommandId,
    /// Envelope sender.
    pub reverse_path: ReversePath,
    /// Recipients after expansion, each account once.
    pub recipients: Vec<Recipient>,
    /// The body as accepted, Received first.
    pub body: Bytes,
    /// Encoded `mime::Facts` of the body.
    pub facts: Bytes,
    /// Came with SMTPUTF8.
    pub smtputf8: bool,
    /// Time of acceptance.
    pub at: Timestamp,
    /// What the log is to know of it: written with the commit, once.
    pub records: Vec<LogRecord>,
}

/// Takes messages.
pub trait Intake: Send + Sync {
    /// Resolves when the message is durable for every recipient on the whole in-sync set (250 2.0.0): placed, or, when
    /// its accounts have several homes, promised by an accept record that is fanned out from then on. A repeated call
    /// with the same accept id takes effect once.
    ///
    /// # Errors
    /// Unavailable: 451 4.3.2 (452 4.3.1 for space), nothing kept. Unknown: 451 4.3.2 too.
    fn accept(&self, delivery: Delivery) -> Answer<'_, Result<(), SubmitError>>;
    /// As [`Intake::accept`], and the message is on the disk of this node: for who gives up something of its own when it is.
    /// A home that went on alone has what it accepted on its own branch, which nobody else may ever see.
    ///
    /// # Errors
    /// As [`Intake::accept`]; unavailable, too, when only another branch has it: repeat later, it takes effect once.
    fn accept_here(&self, delivery: Delivery) -> Answer<'_, Result<(), SubmitError>> {
        self.accept(delivery)
    }
}
