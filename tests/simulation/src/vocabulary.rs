//! Words of the simulation: what can happen, what waits, what is answered.

use bytes::Bytes;
use mailbox::op::{Command, Outcome};
use queue::op::{QueueOp, QueueOutcome};
use replica::{Event, MergeBase, StampBase};
use topology::EpochRecord;
use vocab::{
    AccountHead, AccountId, BatchId, BlobHash, Boot, CommandId, EpochId, InlineBody, MemoryRows, NodeId, PastLink,
    RowWrite, ShardId, SubmitError, Version,
};

/// Key of the head within an archived branch.
pub(crate) const ARCHIVE_HEAD: &[u8] = b"head";

/// Virtual time (ms).
pub(crate) type Ms = u64;

/// What follows when a write is durable.
#[derive(Clone, Debug)]
pub(crate) enum After {
    Nothing,
    /// Tell the machine.
    Event(Event),
    /// A body is durable where it was sent: answer the call.
    Kept {
        node: usize,
        boot: Boot,
        job: u64,
        attempt: u32,
    },
    /// A large body is durable here.
    Spread {
        job: u64,
        attempt: u32,
    },
}

/// One intent of a client.
#[derive(Clone, Debug)]
pub(crate) enum Work {
    Account {
        account: AccountId,
        command: Command,
        /// Of an APPEND.
        body: Option<Bytes>,
    },
    /// Somebody wants to read before anything changed in this epoch.
    Enter(AccountId),
    Delivery {
        accept: CommandId,
        /// With their numbers among the recipients.
        accounts: Vec<(u32, AccountId)>,
        body: Bytes,
        inline: bool,
    },
    /// On the outbound queue.
    Queue {
        id: CommandId,
        op: QueueOp,
        /// Of a submission.
        body: Option<Bytes>,
    },
}

impl Work {
    pub(crate) fn accounts(&self) -> Vec<AccountId> {
        match self {
            Self::Queue { .. } => vec![AccountId::QUEUE],
            Self::Account { account, .. } | Self::Enter(account) => vec![*account],
            Self::Delivery { accounts, .. } => accounts.iter().map(|(_, account)| *account).collect(),
        }
    }

    /// Bodies it names and does not carry.
    pub(crate) fn bodies_elsewhere(&self) -> Vec<BlobHash> {
        match self {
            Self::Delivery { body, inline: false, .. } => vec![BlobHash::of(body)],
            Self::Queue { op: QueueOp::Accept(accepted), body: None, .. } => {
                accepted.record.iter().map(|record| record.blob).collect()
            }
            _ => Vec::new(),
        }
    }

    pub(crate) fn shard(&self) -> ShardId {
        self.accounts().first().copied().unwrap_or_default().shard()
    }

    pub(crate) fn id(&self) -> Option<CommandId> {
        match self {
            Self::Account { command, .. } => Some(command.id),
            Self::Queue { id, .. } => Some(*id),
            Self::Delivery { accept, .. } => Some(*accept),
            Self::Enter(_) => None,
        }
    }
}

/// What came of it, and on whose side: the home that committed alone, or nobody's.
#[derive(Clone, Debug)]
pub(crate) enum Done {
    Account(Outcome, Option<usize>),
    Entered,
    Delivered(Option<usize>),
    Queue(QueueOutcome, Option<usize>),
}

impl Done {
    /// Committed on this side; on none, what it was computed on counts.
    pub(crate) fn on_side(self, side: Option<usize>) -> Self {
        match self {
            Self::Account(outcome, before) => Self::Account(outcome, side.or(before)),
            Self::Delivered(before) => Self::Delivered(side.or(before)),
            Self::Queue(outcome, before) => Self::Queue(outcome, side.or(before)),
            other => other,
        }
    }
}

pub(crate) type Answer = Result<Done, SubmitError>;

/// Who waits for a token.
#[derive(Clone, Debug)]
pub(crate) enum Waiter {
    Job { job: u64, attempt: u32 },
    Remote { node: usize, boot: Boot, job: u64, attempt: u32 },
}

/// What a client waits for at a node.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) client: usize,
    pub(crate) serial: u64,
    pub(crate) deadline: Ms,
    pub(crate) attempt: u32,
    pub(crate) kind: JobKind,
    /// Nodes that must still say that they hold the large body.
    pub(crate) spreading: Vec<usize>,
}

#[derive(Clone, Debug)]
pub(crate) enum JobKind {
    Submit(Work),
    Read { account: AccountId, entry_asked: bool },
}

/// A merge that was ordered.
#[derive(Clone, Debug)]
pub(crate) struct Merge {
    pub(crate) batch: BatchId,
    pub(crate) account: AccountId,
    pub(crate) fetch: u64,
    pub(crate) base: Option<MergeBase>,
    pub(crate) between: Vec<Version>,
    pub(crate) served: bool,
    pub(crate) guest_served: bool,
    pub(crate) stamp: StampBase,
}

/// Why an account is pulled from the peer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pull {
    Fetch(u64),
    Archive(u64),
    /// For a merge.
    Branch(u64),
}

/// A peer's state of an account with the chain that led to it.
#[derive(Clone, Debug)]
pub(crate) struct Branch {
    pub(crate) rows: MemoryRows,
    pub(crate) chain: Vec<PastLink>,
}

/// What a peer gives of an account.
#[derive(Clone, Debug)]
pub(crate) struct Given {
    pub(crate) pull: Pull,
    pub(crate) account: AccountId,
    pub(crate) head: AccountHead,
    /// The version the rows and links lead on from; `None`: all there are.
    pub(crate) since: Option<Version>,
    pub(crate) rows: Vec<RowWrite>,
    pub(crate) chain: Vec<PastLink>,
    pub(crate) bodies: Vec<InlineBody>,
}

/// What happens inside one process.
#[derive(Clone, Debug)]
pub(crate) enum Inner {
    Event(Event),
    /// Whether the disk has room at this moment.
    LookAtDisk,
    Tick,
    Connected {
        peer: usize,
        boot: Boot,
        link: u64,
    },
    Disconnected {
        peer: usize,
        link: u64,
    },
    Frame {
        peer: usize,
        link: u64,
        bytes: Bytes,
    },
    Compute {
        batch: BatchId,
        work: Vec<(AccountId, Vec<u64>)>,
        stamp: StampBase,
    },
    Raise {
        batch: BatchId,
        account: AccountId,
        floor: u32,
        branch: Version,
        stamp: StampBase,
    },
    Merge(Box<Merge>),
    Step(u64),
    /// A forwarded change arrives.
    Forwarded {
        from: usize,
        boot: Boot,
        job: u64,
        attempt: u32,
        work: Work,
    },
    /// A large body arrives.
    Keep {
        from: usize,
        boot: Boot,
        job: u64,
        attempt: u32,
        body: Bytes,
    },
    Result {
        job: u64,
        attempt: u32,
        answer: Answer,
    },
    Kept {
        job: u64,
        attempt: u32,
        by: usize,
    },
    /// A peer asks for an account.
    Give {
        to: usize,
        boot: Boot,
        pull: Pull,
        account: AccountId,
        /// What the asker has.
        have: Option<Version>,
    },
    Given(Box<Given>),
    PullLost(Pull),
    GiveBlobs {
        to: usize,
        boot: Boot,
        token: u64,
        hashes: Vec<BlobHash>,
    },
    GivenBlobs {
        token: u64,
        hashes: Vec<BlobHash>,
        bodies: Vec<InlineBody>,
    },
    ProbeEnds {
        peer: usize,
    },
    Learn(EpochRecord),
    Quorum(bool),
    /// A session in IDLE looks again.
    WatchLook(usize),
    /// Whoever fans out looks for records that others left behind.
    FanOutLook,
    /// The relay worker looks for work.
    RelayTick,
    /// The end of this attempt is offered once more.
    EndAgain(u64),
    /// The dialogue of this attempt ends.
    Dialogue(u64),
}

/// One entry of the future.
#[derive(Clone, Debug)]
pub(crate) enum Happening {
    /// For the process of this boot; waits while it is paused, is void when it is gone.
    To(usize, Boot, Inner),
    Synced {
        node: usize,
        generation: u64,
    },
    /// The transport of a pair looks whether it can connect.
    Connect(usize, usize),
    Decide {
        node: usize,
        boot: Boot,
        expect: EpochId,
        record: EpochRecord,
    },
    Reconsider,
    Client(usize),
    Told {
        client: usize,
        serial: u64,
        answer: Option<Answer>,
    },
    Fault,
    Start(usize),
    Resume(usize, u64),
    /// Of a disk or a probe target.
    Mishap(crate::mishaps::Mishap),
    Extra(crate::extras::Extra),
    /// Of a node that has said it leaves; false: it stays after all.
    Stop(usize, bool),
    HealNet(u64),
    Sample,
    HealAll,
    /// With the second control a node that waits goes on alone by itself.
    Impatience(usize, Boot),
}

/// Number of the node at this place.
pub(crate) fn node_id(index: usize) -> NodeId {
    NodeId(u32::try_from(index + 1).unwrap_or(u32::MAX))
}

/// Place of this node.
pub(crate) fn index_of(node: NodeId) -> usize {
    usize::try_from(node.0.saturating_sub(1)).unwrap_or(0)
}
