//! What can be asked of the queue, and what is answered.

use bytes::Bytes;
use vocab::{AccountId, Address, BlobHash, CommandId, NodeId, ReversePath, Timestamp};

/// One recipient's relay work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueItem {
    /// Accept id with the recipient's number: the same on every branch.
    pub id: CommandId,
    /// Where failures are reported.
    pub reverse_path: ReversePath,
    /// Who it is for.
    pub recipient: Address,
    /// ORCPT or the address before alias expansion, when it differs.
    pub original_recipient: Option<Address>,
    /// The body as accepted (Received is part of it).
    pub blob: BlobHash,
    /// Bytes of the body.
    pub size: u64,
    /// Needs SMTPUTF8 on the way.
    pub smtputf8: bool,
    /// Has octets above 127.
    pub eight_bit: bool,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// Attempts so far.
    pub attempts: u32,
    /// When the next attempt is due.
    pub due: Timestamp,
    /// An attempt that was started and has not ended: who, when (committed before the dialogue).
    pub attempt: Option<(NodeId, Timestamp)>,
    /// Status and text of the last deferral, for `queue list` and the bounce.
    pub last_status: Option<Failure>,
    /// Home that took the item in, or that tried it last with certainty: both sides of a split agree on it, and only
    /// this one sends at once. None in rows of older builds: everybody's.
    pub owner: Option<NodeId>,
}

/// Who applies an operation: the home of the queue, and what it leaves to the other side while its epoch is a solo one on
/// mere silence: the other side may be alive, so nothing changes its owner, and nothing held is begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The home.
    pub home: NodeId,
    /// Some in a solo epoch on mere silence, after the end of the grace, too.
    pub hold: Option<Hold>,
    /// Whether the epoch is joint. Only there is it forgotten what ran: elsewhere a branch that knows less may still come.
    pub joint: bool,
}

/// What a node alone on mere silence leaves to the other side (DESIGN 7): items of other owners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    /// This node: its own items are not held.
    pub node: NodeId,
    /// Until then (time of this node); afterwards they are sent, and still not bounced.
    pub until: Timestamp,
}

impl Hold {
    /// Whether the item belongs to the other side.
    #[must_use]
    pub fn is_foreign(&self, item: &QueueItem) -> bool {
        item.owner.is_some_and(|owner| owner != self.node)
    }
}

/// An SMTP answer or a local reason as RFC 3464 wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Enhanced status, for instance `5.1.1` (RFC 3463).
    pub status: String,
    /// The remote reply as received, or our own words.
    pub diagnostic: String,
    /// Host that answered, if any.
    pub remote: Option<String>,
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttemptResult {
    /// Taken over by the next hop.
    Delivered,
    /// Try again at this time.
    Deferred(Failure, Timestamp),
    /// Given up; the caller has made the bounce durable before (idempotent by the item's id).
    Failed(Failure),
}

/// A recipient of ours that an accept record still owes the message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalRecipient {
    /// Number within the message; with the accept id it makes the id of the placement.
    pub number: u32,
    /// Account.
    pub account: AccountId,
    /// Return-Path and Delivered-To lines for this recipient.
    pub prefix: Bytes,
}

/// A message that was answered with 250 and still has to be placed in accounts of several homes (DESIGN 5). It is
/// kept until every recipient has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcceptRecord {
    /// The accept id.
    pub accept: CommandId,
    /// Envelope sender.
    pub reverse_path: ReversePath,
    /// Whom it is for; recipients elsewhere are queue items of their own.
    pub recipients: Vec<LocalRecipient>,
    /// The body as accepted.
    pub blob: BlobHash,
    /// Bytes of the body.
    pub size: u64,
    /// Encoded `mime::Facts` of the body.
    pub facts: Bytes,
    /// Came with SMTPUTF8.
    pub smtputf8: bool,
    /// Has octets above 127.
    pub eight_bit: bool,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// Home of the queue that took it in; for people, it decides nothing.
    pub owner: Option<NodeId>,
}

/// What accepting a message puts into the queue, all of it or nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The accept id. A second call under the same id changes nothing, whatever became of the first one's items.
    pub accept: CommandId,
    /// Its origin says that all its commands up to this counter are settled: their ids are forgotten.
    pub settled: u64,
    /// Recipients that are not ours.
    pub items: Vec<QueueItem>,
    /// Recipients of ours, when they are not written in the same batch.
    pub record: Option<AcceptRecord>,
}

/// One operation on the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueueOp {
    /// Adds items; those whose id is there already are left alone. Of a message use [`QueueOp::Accept`], which also
    /// remembers that it ran.
    Enqueue(Vec<QueueItem>),
    /// The part of an accepted message that the queue has to do with. Gone: its origin has settled it long ago.
    Accept(Box<Accepted>),
    /// Every recipient of an accept record has the message. Gone: it was settled before.
    Settle {
        /// The accept id.
        accept: CommandId,
    },
    /// Committed before the dialogue starts.
    AttemptStart {
        /// Item.
        id: CommandId,
        /// Node that tries.
        node: NodeId,
        /// When.
        at: Timestamp,
        /// Attempts the item had before: a start that comes late starts nothing.
        attempts: u32,
    },
    /// Committed after it.
    AttemptEnd {
        /// Item.
        id: CommandId,
        /// Node and time of the start; a deferral that comes late defers nothing.
        attempt: (NodeId, Timestamp),
        /// How it ended.
        result: AttemptResult,
    },
}

/// What an operation did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueueOutcome {
    /// Done.
    Done,
    /// No such item (delivered or failed meanwhile), or the operation came too late: do nothing.
    Gone,
}
