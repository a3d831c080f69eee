//! What waits for its turn at the home: operations of clients, deliveries, queue work, gaps.

use std::collections::BTreeSet;

use bytes::Bytes;
use mailbox::op::{AccountOp, Command, Outcome};
use ports::intake::Recipient;
use queue::op::{QueueOp, QueueOutcome};
use vocab::{AccountId, BlobHash, CommandId, InlineBody, ReversePath, Timestamp};

/// One intent, ordered by the replica and computed by [`crate::compute`].
#[derive(Clone, Debug)]
pub(crate) enum Work {
    /// An operation on one account.
    Account {
        /// Which.
        account: AccountId,
        /// What.
        command: Command,
        /// Small bodies it names.
        bodies: Vec<InlineBody>,
    },
    /// The gap and the served mark of this epoch, because a session wants to read.
    Enter(AccountId),
    /// An operation on the outbound queue.
    Queue(QueueOp),
    /// A message for several accounts and the queue at once.
    Delivery(Box<DeliveryWork>),
}

/// An accepted message whose body is durable, or small and with us.
#[derive(Clone, Debug)]
pub(crate) struct DeliveryWork {
    pub(crate) accept: CommandId,
    pub(crate) reverse_path: ReversePath,
    pub(crate) recipients: Vec<Recipient>,
    pub(crate) hash: BlobHash,
    pub(crate) size: u64,
    /// The body when it is small enough to travel inside the batch.
    pub(crate) body: Option<Bytes>,
    pub(crate) facts: Bytes,
    pub(crate) smtputf8: bool,
    pub(crate) eight_bit: bool,
    pub(crate) at: Timestamp,
}

/// What came of it.
#[derive(Clone, Debug)]
pub(crate) enum Done {
    Account(Outcome),
    Entered,
    Queue(QueueOutcome),
    Delivered,
}

impl Work {
    /// Whether it may make the disk fuller by more than a mark: what frees space is never refused for lack of it.
    pub(crate) fn needs_space(&self) -> bool {
        match self {
            Self::Enter(_) | Self::Queue(QueueOp::AttemptEnd { .. }) => false,
            Self::Account { command, .. } => !matches!(
                command.op,
                AccountOp::Expunge { .. }
                    | AccountOp::DeleteMailbox { .. }
                    | AccountOp::ForgetRecovered { .. }
                    | AccountOp::Purge
            ),
            Self::Queue(_) | Self::Delivery(_) => true,
        }
    }

    /// Bodies it names and does not carry: they must be durable at the home before it is ordered.
    pub(crate) fn bodies_elsewhere(&self) -> Vec<BlobHash> {
        match self {
            Self::Account { command: Command { op: AccountOp::Append { messages, .. }, .. }, bodies, .. } => {
                let carried = |hash| bodies.iter().any(|b| b.hash == hash);
                messages.iter().map(|m| m.blob).filter(|hash| !carried(*hash)).collect()
            }
            Self::Delivery(delivery) if delivery.body.is_none() => vec![delivery.hash],
            _ => Vec::new(),
        }
    }

    /// The accounts it changes, ascending.
    pub(crate) fn accounts(&self) -> Vec<AccountId> {
        match self {
            Self::Account { account, .. } | Self::Enter(account) => vec![*account],
            Self::Queue(_) => vec![AccountId::QUEUE],
            Self::Delivery(delivery) => {
                let account = |r: &Recipient| match r {
                    Recipient::Local { account, .. } => *account,
                    Recipient::Remote { .. } => AccountId::QUEUE,
                };
                delivery.recipients.iter().map(account).collect::<BTreeSet<_>>().into_iter().collect()
            }
        }
    }
}
