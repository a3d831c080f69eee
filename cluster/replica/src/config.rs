//! Identity and times of one node's machine.

use vocab::{Boot, NodeId, limits};

/// Times; all settable, defaults in `vocab::limits`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Heartbeat interval (ms).
    pub heartbeat: u64,
    /// Read and home lease (ms); shorter than `t1`.
    pub lease: u64,
    /// Silence after which the holder of the cluster address goes on alone (ms).
    pub t1: u64,
    /// Silence after which the other node does (ms); longer than `t1`.
    pub t2: u64,
    /// Gap between own ticks that restarts the measuring of silence (ms).
    pub pause: u64,
    /// Delay of the next solo epoch on silence after a heal of one on silence (ms).
    pub hold_down: u64,
    /// Wait for a commit before the answer is "unknown" (ms).
    pub commit_wait: u64,
    /// A backup slower than this again and again leaves the in-sync set (ms).
    pub backup_slow: u64,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat: limits::HEARTBEAT_MS,
            lease: limits::LEASE_MS,
            t1: limits::T1_MS,
            t2: limits::T2_MS,
            pause: limits::PAUSE_MS,
            hold_down: limits::HOLD_DOWN_MS,
            commit_wait: limits::COMMIT_WAIT_MAX_MS,
            backup_slow: limits::BACKUP_SLOW_MS,
        }
    }
}

/// Who this node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaConfig {
    /// This node.
    pub node: NodeId,
    /// Its boot, raised durably by the driver before the machine is made.
    pub boot: Boot,
    /// Times.
    pub timing: Timing,
    /// Accounts that changed on both sides are merged: the driver can carry out `FetchBranch` and `Merge`. Else one
    /// branch is archived and every UIDVALIDITY raised.
    pub merge: bool,
    /// Greatest row format this program reads (`mailbox::rows::RowFormat`).
    pub rows: u32,
    /// A rule that a negative control switches off, to see that the checks notice.
    #[doc(hidden)]
    pub without: Option<Rule>,
}

/// Rules that can be switched off, one at a time, in simulations only.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// DESIGN 5: a change is on every backup before the home writes and answers.
    BackupFirst,
    /// X3, X4: nobody is left out while a lease of the old epoch may hold.
    LeaseWaits,
    /// A home serves only while the others of the in-sync set acknowledge.
    HomeLease,
    /// With a witness or a third node only a quorum decides who goes on.
    QuorumDecides,
    /// H20, X2: a backup shows only what the home has confirmed.
    ConfirmedReads,
    /// X13: what was taken over from one node is on all others before anything is served.
    LevelOthers,
    /// Rows are written in a format every member reads.
    LowerRows,
    /// X1: a backup shows nothing without a lease of the home.
    ReadLease,
    /// X3, H16: every connection begins with a comparison of versions.
    Comparing,
    /// X5: only who has compared since boot goes on alone.
    ComparedBeforeAlone,
    /// X6: the record of an epoch alone and the batches in flight are one write.
    SoloInOneWrite,
    /// X7: who heard of a newer epoch does not go on from its own.
    NewestEpoch,
    /// X8 (iii): a gap stays due until joint, in a heal too.
    GapUntilJoint,
    /// X10: out of its own solo epoch a node enters another's only as guest.
    GuestOnly,
    /// X11: from the join mark on nothing is committed without the guest.
    JoinMark,
    /// X12: the batch in flight is finished before an account is merged.
    FinishFirst,
    /// X14: what was never acknowledged is dropped, not merged.
    DropsTail,
    /// X15: a side counts as served unless its marks reach back to the base.
    MarksReachBack,
    /// X17: the base of a merge is common to both sides.
    CommonBase,
    /// H19: a branch that was not merged is not overwritten.
    MergesBranches,
    /// A side that is behind, and was shown while the other was missing, is merged, not overwritten: rule W counts for it.
    MergesShown,
    /// While a node is away a merge remembers what the branch went through: the node may stand there, and is behind then.
    RemembersWay,
    /// H28: an account is shown only with the branch of the guest merged.
    MergedReads,
    /// A guest takes the queue over after the accounts whose mail its accept records promise.
    QueueLast,
    /// H25: a pause of one's own is no silence of the others.
    OwnPause,
}
