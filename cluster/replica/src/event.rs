//! What the machine is told.

use bytes::Bytes;
use topology::EpochRecord;
use vocab::{
    AccountBatch, AccountHead, AccountId, Batch, BatchId, BlobHash, Boot, ChainLink, NodeId, PastLink, Version,
};

/// One thing that happened. After every event the driver drains `next_output` until `None`.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Time passed: at least once per heartbeat interval, and at [`crate::Replica::deadline`].
    Tick,
    /// This machine slept or the process was stopped (boot-time clock against monotonic clock): silence is measured
    /// afresh. A gap between two `Tick`s is noticed without it.
    Paused,
    /// A link in both directions is up; the transport has checked certificate, cluster and version ranges.
    LinkUp {
        /// The peer.
        peer: NodeId,
        /// Its boot.
        boot: Boot,
        /// Counts links; frames of an older one are ignored.
        link: u64,
    },
    /// The link is gone.
    LinkDown {
        /// The peer.
        peer: NodeId,
        /// Which link.
        link: u64,
    },
    /// A frame arrived, in order per link.
    Frame {
        /// The peer.
        peer: NodeId,
        /// Which link.
        link: u64,
        /// The frame.
        bytes: Bytes,
    },
    /// A change wants to be ordered here. Answered once, by [`crate::Output::Committed`] of the batch that carries
    /// the token or by [`crate::Output::Failed`].
    Submit {
        /// Chosen by the driver, unique in this boot.
        token: u64,
        /// Accounts it changes; one, or several of this home for one delivery.
        accounts: Vec<AccountId>,
    },
    /// A client reads this account: when it is to be merged or transferred, it goes before others.
    Wanted(AccountId),
    /// Answer to [`crate::Output::Compute`] and [`crate::Output::Raise`]: the batch under the id that was given, or
    /// `None` when there is nothing to write (all refused, or repeated).
    Computed {
        /// Id named in the order.
        batch: BatchId,
        /// What to commit.
        result: Option<Batch>,
    },
    /// A write is synced.
    Written {
        /// Token of [`crate::Output::Write`].
        token: u64,
    },
    /// Answer to [`crate::Output::CheckBlobs`] and [`crate::Output::FetchBlobs`].
    BlobsChecked {
        /// Token of the question.
        token: u64,
        /// Bodies that are not whole on this disk.
        missing: Vec<BlobHash>,
    },
    /// Answer to [`crate::Output::ReadVersions`]: every account that has state, as written on this disk.
    Versions(Vec<(AccountId, Version)>),
    /// Answer to [`crate::Output::ReadChain`].
    Chain {
        /// The account.
        account: AccountId,
        /// Links since the last agreed version, the present one last.
        links: Vec<ChainLink>,
        /// The head: `lineage` (branches merged or archived into the present state) and `served` are looked at.
        head: AccountHead,
    },
    /// The epoch register or the members changed, or quorum came or went. Given at start too.
    Register {
        /// The register, as applied on this node.
        record: Option<EpochRecord>,
        /// Data members, ascending.
        members: Vec<NodeId>,
        /// Voters of the register, the witness too. From three on only a quorum decides who goes on without whom.
        voters: u32,
        /// Whether a proposal can be decided now.
        quorum: bool,
    },
    /// A probe target (gateway, DNS, a configured host) answered, or did not. One counts once it answered since boot.
    Target {
        /// Chosen by the driver, one number per target.
        target: u32,
        /// Whether it answered this time.
        answered: bool,
    },
    /// An epoch this node voted for or heard of that may not be decided yet (X7). Optional.
    Heard(EpochRecord),
    /// The compare-and-set did not happen, or nobody knows: it is tried again later if it still makes sense.
    ProposeFailed,
    /// The peer's guard says the process of this boot has ended: process gone.
    GuardWord {
        /// The peer.
        peer: NodeId,
        /// Which boot ended.
        boot: Boot,
    },
    /// Answer to [`crate::Output::Probe`], only when positive: the peer refused on cluster port and mail port on every
    /// path, and the cluster address is silent: process gone, unless a firewall answers for it.
    ResetEvidence {
        /// The peer.
        peer: NodeId,
    },
    /// Answer to [`crate::Output::Look`], only when positive: the peer is not heard, and serves clients all the same.
    Answers {
        /// The peer.
        peer: NodeId,
    },
    /// The operator says the peer is down. Answered by [`crate::Output::StartAlone`].
    StartAlone,
    /// Hand over (at the home only): `to` becomes the home, and `leaves` leaves the in-sync set. See
    /// [`crate::Replica::may_hand_over`]. Answered by [`crate::Output::HandedOver`].
    Handover {
        /// The new home; `None`: whoever fits.
        to: Option<NodeId>,
        /// Who is about to stop.
        leaves: Option<NodeId>,
    },
    /// This node is about to stop: it is not taken back into the in-sync set. Or it is not after all.
    Leaving(bool),
    /// Whether homes are to be spread over the in-sync set, a setting; without it one node is home of every shard.
    Spread(bool),
    /// A fetch is staged and verified.
    Fetched {
        /// Number of [`crate::Output::Fetch`].
        fetch: u64,
        /// Head of the staged state.
        head: AccountHead,
        /// Instead of a stage: what leads from the state here to that head, when the peer could tell (`Fetch` only).
        delta: Option<Box<AccountBatch>>,
        /// The peer's version chain up to that head, oldest first, as far as it could be had; with `delta` the links behind
        /// `delta.expected`, all with undo rows. From then on this node can say and restore what the peer can.
        past: Vec<PastLink>,
    },
    /// A fetch came to nothing; the stage is to be thrown away by the driver.
    FetchFailed {
        /// Number of [`crate::Output::Fetch`].
        fetch: u64,
    },
    /// The branch is durable in the archive of this node.
    BranchArchived {
        /// Number of [`crate::Output::ArchiveBranch`].
        archive: u64,
        /// Head of the archived state.
        head: AccountHead,
    },
    /// The branch could not be archived now.
    ArchiveFailed {
        /// Number of [`crate::Output::ArchiveBranch`].
        archive: u64,
    },
    /// Free space on this disk fell below the reserve, or is above it again.
    DiskLow(bool),
    /// Milliseconds since this disk last synced anything.
    DiskSilent(u64),
}
