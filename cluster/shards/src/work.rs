//! What waits for its turn at the home: operations of clients, deliveries, queue work, gaps.

use std::collections::BTreeSet;

use bytes::Bytes;
use mailbox::op::{AccountOp, Command, Outcome};
use ports::intake::Recipient;
use queue::op::{AcceptRecord, Accepted, LocalRecipient, QueueItem, QueueOp, QueueOutcome};
use vocab::{AccountId, BlobHash, CommandId, InlineBody, LogRecord, ReversePath, Timestamp};

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
    /// An operation on the outbound queue, and what the log is to know of it when it takes effect.
    Queue(QueueOp, Vec<LogRecord>),
    /// A message for several accounts and the queue at once, all of them at home here.
    Delivery(Box<DeliveryWork>),
    /// A message whose accounts have several homes: the accept record, and what leaves the cluster.
    Accept(Box<DeliveryWork>),
}

/// An accepted message whose body is durable, or small and with us.
#[derive(Clone, Debug)]
pub(crate) struct DeliveryWork {
    pub(crate) accept: CommandId,
    /// All commands of its origin up to this counter are settled.
    pub(crate) settled: u64,
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
    /// What the log is to know of it.
    pub(crate) records: Vec<LogRecord>,
}

/// What came of it.
#[derive(Clone, Debug)]
pub(crate) enum Done {
    Account(Outcome),
    Entered,
    Queue(QueueOutcome),
    /// Numbers of the recipients whose mailboxes refused the message; all others have it.
    Delivered(Vec<u32>),
    /// The accept record is there, or was and is settled.
    Accepted,
    /// Nothing: whoever sent it reported it settled before it came here.
    TooLate,
}

impl DeliveryWork {
    /// The accounts it changes, ascending.
    pub(crate) fn accounts(&self) -> Vec<AccountId> {
        let account = |r: &Recipient| match r {
            Recipient::Local { account, .. } => *account,
            Recipient::Remote { .. } => AccountId::QUEUE,
        };
        self.recipients.iter().map(account).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// What the queue has to do with it.
    pub(crate) fn accepted(&self, record: Option<AcceptRecord>) -> Accepted {
        let items = self.recipients.iter().filter_map(|recipient| match recipient {
            Recipient::Local { .. } => None,
            Recipient::Remote { number, address, original } => Some(QueueItem {
                id: self.accept.for_recipient(*number),
                reverse_path: self.reverse_path.clone(),
                recipient: address.clone(),
                original_recipient: original.clone(),
                blob: self.hash,
                size: self.size,
                smtputf8: self.smtputf8,
                eight_bit: self.eight_bit,
                accepted_at: self.at,
                attempts: 0,
                due: self.at,
                attempt: None,
                last_status: None,
                owner: None,
            }),
        });
        Accepted { accept: self.accept, settled: self.settled, items: items.collect(), record }
    }

    /// The promise to place it.
    pub(crate) fn record(&self) -> AcceptRecord {
        let local = self.recipients.iter().filter_map(|recipient| match recipient {
            Recipient::Remote { .. } => None,
            Recipient::Local { number, account, prefix } => {
                Some(LocalRecipient { number: *number, account: *account, prefix: prefix.clone() })
            }
        });
        AcceptRecord {
            accept: self.accept,
            reverse_path: self.reverse_path.clone(),
            recipients: local.collect(),
            blob: self.hash,
            size: self.size,
            facts: self.facts.clone(),
            smtputf8: self.smtputf8,
            eight_bit: self.eight_bit,
            accepted_at: self.at,
            owner: None,
        }
    }

    /// These recipients' part of a record that is fanned out; its body is durable on every home.
    pub(crate) fn of_record(record: &AcceptRecord, recipients: &[LocalRecipient]) -> Self {
        let local =
            |r: &LocalRecipient| Recipient::Local { number: r.number, account: r.account, prefix: r.prefix.clone() };
        Self {
            accept: record.accept,
            settled: 0,
            reverse_path: record.reverse_path.clone(),
            recipients: recipients.iter().map(local).collect(),
            hash: record.blob,
            size: record.size,
            body: None,
            facts: record.facts.clone(),
            smtputf8: record.smtputf8,
            eight_bit: record.eight_bit,
            at: record.accepted_at,
            // The accept record's own commit wrote them.
            records: Vec::new(),
        }
    }
}

impl Work {
    /// Whether it may make the disk fuller by more than a mark: what frees space is never refused for lack of it.
    pub(crate) fn needs_space(&self) -> bool {
        match self {
            Self::Enter(_) | Self::Queue(QueueOp::AttemptEnd { .. } | QueueOp::Settle { .. }, _) => false,
            Self::Account { command, .. } => !matches!(
                command.op,
                AccountOp::Expunge { .. }
                    | AccountOp::DeleteMailbox { .. }
                    | AccountOp::ForgetRecovered { .. }
                    | AccountOp::Purge
            ),
            Self::Queue(..) | Self::Delivery(_) | Self::Accept(_) => true,
        }
    }

    /// Bodies it names and does not carry: they must be durable at the home before it is ordered.
    pub(crate) fn bodies_elsewhere(&self) -> Vec<BlobHash> {
        match self {
            Self::Account { command: Command { op: AccountOp::Append { messages, .. }, .. }, bodies, .. } => {
                let carried = |hash| bodies.iter().any(|b| b.hash == hash);
                messages.iter().map(|m| m.blob).filter(|hash| !carried(*hash)).collect()
            }
            Self::Account { command: Command { op: AccountOp::Import { message, .. }, .. }, bodies, .. } => {
                let carried = bodies.iter().any(|b| b.hash == message.blob);
                if carried { Vec::new() } else { vec![message.blob] }
            }
            Self::Delivery(delivery) | Self::Accept(delivery) if delivery.body.is_none() => vec![delivery.hash],
            Self::Queue(QueueOp::Accept(accepted), _) => {
                accepted.record.iter().map(|r| r.blob).chain(accepted.items.iter().map(|item| item.blob)).collect()
            }
            _ => Vec::new(),
        }
    }

    /// The accounts it changes, ascending.
    pub(crate) fn accounts(&self) -> Vec<AccountId> {
        match self {
            Self::Account { account, .. } | Self::Enter(account) => vec![*account],
            Self::Queue(..) | Self::Accept(_) => vec![AccountId::QUEUE],
            Self::Delivery(delivery) => delivery.accounts(),
        }
    }
}
