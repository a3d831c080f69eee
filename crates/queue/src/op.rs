//! What can be asked of the queue, and what is answered.

use vocab::{Address, BlobHash, CommandId, NodeId, ReversePath, Timestamp};

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

/// Who applies an operation: the home of the queue, and whether its epoch is a solo one on mere silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The home.
    pub home: NodeId,
    /// The other side may be alive: nothing changes its owner.
    pub uncertain: bool,
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

/// One operation on the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueueOp {
    /// Adds items; those whose id is there already are left alone.
    Enqueue(Vec<QueueItem>),
    /// Committed before the dialogue starts.
    AttemptStart {
        /// Item.
        id: CommandId,
        /// Node that tries.
        node: NodeId,
        /// When.
        at: Timestamp,
    },
    /// Committed after it.
    AttemptEnd {
        /// Item.
        id: CommandId,
        /// How it ended.
        result: AttemptResult,
    },
}

/// What an operation did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueueOutcome {
    /// Done.
    Done,
    /// No such item (delivered or failed meanwhile): do nothing.
    Gone,
}
