//! What the machine orders.

use bytes::Bytes;
use mailbox::op::{Gap, Marks};
use mailbox::rows::RowFormat;
use topology::EpochRecord;
use vocab::{AccountHead, AccountId, BatchId, BlobHash, EpochId, NodeId, StoreWrite, SubmitError, Version};

/// What the home adds to every batch; the driver completes it to a `mailbox::op::Stamp` with the time and its own
/// mailbox counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StampBase {
    /// Epoch of the batch.
    pub epoch: EpochId,
    /// Home that orders.
    pub home: NodeId,
    /// Whether the epoch is joint.
    pub joint: bool,
    /// The gap that is due, if any. It is taken by the first batch of the account; a session that reads the account
    /// while `head.gap_taken` is not `gap.epoch` first submits an operation that takes it (X8, X9).
    pub gap: Option<Gap>,
    /// The in-sync set lacks a member: before a session is shown anything, or told a UID, the account is marked served in
    /// the same batch that takes the gap (`mailbox::Applier::enter`; X9, X16), and undo rows are kept.
    pub marks: Option<Marks>,
    /// Format of rows that every data member reads.
    pub rows: RowFormat,
}

impl StampBase {
    /// Whether a session that is about to be shown this state, or told a UID of it, must first have the account entered
    /// (`mailbox::Applier::enter`). Accounts without state have nothing to show.
    #[must_use]
    pub fn entry_due(&self, head: &AccountHead) -> bool {
        let gap = self.gap.is_some_and(|gap| head.gap_taken != Some(gap.epoch));
        let mark = self.marks.is_some_and(|marks| !head.is_served_from(marks.from));
        (gap || mark) && head.version != Version::default()
    }
}

/// Where the state both branches come from can be restored (DESIGN 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MergeBase {
    /// The greatest version both know; the default one: the account was made on both sides, and nothing is common.
    pub version: Version,
    /// Restored from the guest's rows and undo rows; else from this node's.
    pub at_guest: bool,
}

/// One order to the driver, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Put this frame on the link. A link that is down is reported by its event; nothing else is asked.
    Send {
        /// The peer.
        to: NodeId,
        /// The frame.
        frame: Bytes,
    },
    /// Write all parts atomically and synced, then answer [`crate::Event::Written`]. Writes are done in order.
    Write {
        /// For the answer.
        token: u64,
        /// Parts.
        parts: Vec<StoreWrite>,
    },
    /// Apply these commands on the present state and answer [`crate::Event::Computed`]. No other batch of these
    /// accounts is in flight. Tokens of one account are applied in order.
    Compute {
        /// Id the batch gets.
        batch: BatchId,
        /// Tokens by account, ascending; a token of several accounts appears under each of them.
        work: Vec<(AccountId, Vec<u64>)>,
        /// Stamp of every command.
        stamp: StampBase,
    },
    /// As `Compute`, but for one operation of the machine's own: `AccountOp::RaiseUidValidity` with a floor not below
    /// `floor`, and `branch` added to the lineage of the head.
    Raise {
        /// Id the batch gets.
        batch: BatchId,
        /// The account.
        account: AccountId,
        /// Clock of the archived branch.
        floor: u32,
        /// Version of the archived branch.
        branch: Version,
        /// Stamp.
        stamp: StampBase,
    },
    /// The batch is durable wherever it must be: answer its tokens, tell observers of its accounts.
    Committed {
        /// The batch.
        batch: BatchId,
    },
    /// Forget what was computed for this batch: its tokens come again in another one, or fail.
    Dropped {
        /// The batch.
        batch: BatchId,
    },
    /// Answer these tokens.
    Failed {
        /// Tokens of `Submit`.
        tokens: Vec<u64>,
        /// With what.
        error: SubmitError,
    },
    /// These accounts have a new version that may be read now, and no batch that was committed here says so: the home has
    /// confirmed it, or was lost and this node orders them now, or it was taken from another node. Wake readers that wait and
    /// observers.
    Readable {
        /// The accounts.
        accounts: Vec<AccountId>,
    },
    /// Are these bodies whole on this disk? Answer [`crate::Event::BlobsChecked`].
    CheckBlobs {
        /// For the answer.
        token: u64,
        /// Bodies.
        hashes: Vec<BlobHash>,
    },
    /// Pull these bodies from the peer, durably; answer [`crate::Event::BlobsChecked`] with what is still missing.
    FetchBlobs {
        /// For the answer.
        token: u64,
        /// Who has them.
        from: NodeId,
        /// Bodies.
        hashes: Vec<BlobHash>,
    },
    /// Answer [`crate::Event::Versions`].
    ReadVersions,
    /// Answer [`crate::Event::Chain`].
    ReadChain {
        /// The account.
        account: AccountId,
    },
    /// Compare-and-set the epoch register. Success is seen in [`crate::Event::Register`].
    Propose {
        /// What the register must hold; the default id when it is empty.
        expect: EpochId,
        /// The new record.
        record: EpochRecord,
    },
    /// Pull one consistent snapshot of the account with its missing bodies from the peer, stage it, verify its digest
    /// and answer [`crate::Event::Fetched`] or `FetchFailed`. The machine then orders the switch.
    Fetch {
        /// For the answer.
        fetch: u64,
        /// The account.
        account: AccountId,
        /// Who has it.
        from: NodeId,
    },
    /// As `Fetch`, for a merge: the peer's branch with its undo rows is staged and verified, nothing is switched. Answered
    /// alike; the stage stays until `Merge` has used it or `StopFetch` comes.
    FetchBranch {
        /// For the answer.
        fetch: u64,
        /// The account.
        account: AccountId,
        /// Who has it.
        from: NodeId,
    },
    /// Merge the staged branch of this fetch into the present state (`mailbox::merge`, `queue::merge`) and answer
    /// [`crate::Event::Computed`]; no other batch of the account is in flight. `base` = `None`: nothing common can be
    /// restored, placements of both sides are kept under raised UIDVALIDITYs (M12). The stage is thrown away after it.
    Merge {
        /// Id the batch gets.
        batch: BatchId,
        /// The account.
        account: AccountId,
        /// Number of the `FetchBranch`.
        fetch: u64,
        /// The common ancestor.
        base: Option<MergeBase>,
        /// Versions of the guest's branch at which a node that is away may stand; to be remembered (`AccountHead::remember`).
        between: Vec<Version>,
        /// Whether clients were shown numbers here since the fork.
        served: bool,
        /// Whether the guest's clients were.
        guest_served: bool,
        /// Stamp.
        stamp: StampBase,
    },
    /// Throw the stage of an abandoned fetch away; no answer.
    StopFetch {
        /// Number of the fetch.
        fetch: u64,
    },
    /// Copy the whole state of the account into the archive, durably, with the bodies it needs: this node's own
    /// (`from` is `None`) or the peer's. Answer [`crate::Event::BranchArchived`] or `ArchiveFailed`. Archiving the
    /// same version twice is one branch.
    ArchiveBranch {
        /// For the answer.
        archive: u64,
        /// The account.
        account: AccountId,
        /// Whose state.
        from: Option<NodeId>,
    },
    /// Answer to [`crate::Event::Handover`]: the home that serves now; or Unavailable (nothing was changed) or Unknown.
    HandedOver(Result<NodeId, SubmitError>),
    /// Gather reset evidence about this peer now; answer [`crate::Event::ResetEvidence`] only when it is positive.
    Probe {
        /// The peer.
        peer: NodeId,
    },
    /// Ask this peer, and the cluster address, over the client network whether somebody serves there now; answer
    /// [`crate::Event::Answers`] only when somebody does.
    Look {
        /// The peer.
        peer: NodeId,
    },
    /// This node should hold the cluster address, or give it up. Said again while it is held: another node held it too, so it is
    /// to be claimed anew.
    AddressHeld(bool),
    /// What `serving` answers has changed: end sessions that may not go on, open listeners that may.
    ServingChanged,
    /// Answer to [`crate::Event::StartAlone`].
    StartAlone(Result<(), &'static str>),
    /// Something an operator must know.
    Alert(String),
    /// A decision with its evidence, for the log.
    Log(String),
}

/// Whether this node serves clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Serving {
    /// Reads and changes are done here.
    Home,
    /// Reads may be local, changes go to the home.
    Backup,
    /// Neither; reads and changes may be forwarded to a home that is reachable, else UNAVAILABLE / 421.
    Not(&'static str),
}

/// Whether a snapshot at some version may be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MayRead {
    /// Show it.
    Yes,
    /// The home has not confirmed this version yet: [`Output::Readable`] will tell, take a new snapshot then.
    Wait,
    /// What the guest of a heal has of this account is not merged yet (H28): tell [`crate::Event::Wanted`], ask again. Lasts
    /// `vocab::limits::HEAL_READ_WAIT_MAX_MS` at most while the guest is in touch.
    Merging,
    /// Not here: ask the home.
    No(&'static str),
}
