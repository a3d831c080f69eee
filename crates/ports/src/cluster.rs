//! What an operator sees of the cluster on this node.

use serde::Serialize;
use vocab::{NodeId, SubmitError};

use crate::Answer;
use crate::config::ConfigError;
use crate::journal::ClusterEvent;

/// One node as seen from here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct NodeStatus {
    /// Id.
    pub id: u32,
    /// Name.
    pub name: String,
    /// Client-facing address.
    pub address: String,
    /// `primary` (holds the cluster address), `secondary`, `witness` (only votes), `unreachable`.
    pub role: String,
    /// Heard from within the silence window (always true for this node).
    pub reachable: bool,
    /// Member of the in-sync set.
    pub in_sync: bool,
    /// Votes on settings, and with two others on who goes on.
    pub votes: bool,
    /// Shards, of 64, whose changes this node orders.
    pub homes: usize,
    /// Version of its program, as it told when it was linked last; empty when it does not say, `None` while unknown.
    pub program: Option<String>,
    /// Messages between nodes that program speaks, lowest and highest.
    pub protocol: Option<(u32, u32)>,
    /// Stored rows it reads, lowest and highest.
    pub rows: Option<(u32, u32)>,
    /// Why this node and that one do not speak to each other although both run.
    pub refused: Option<String>,
}

/// Progress of bringing a node up to date.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SyncStatus {
    /// The node that is being brought up to date.
    pub node: u32,
    /// Accounts that differed when it began.
    pub accounts: u64,
    /// Accounts still to transfer.
    pub accounts_left: u64,
    /// Bytes still to transfer, as far as known.
    pub bytes_left: u64,
    /// Seconds it will take, by what was done so far; `None` before anything was.
    pub seconds_left: Option<u64>,
}

/// What this node merged since its start: accounts that had changed on both sides of a split.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MergeStatus {
    /// Accounts, without the outbound queue.
    pub accounts: u64,
    /// Messages under another UID than on one of the sides.
    pub renumbered: u64,
    /// Messages that one side expunged and the other changed: gone, and restorable for a time.
    pub recovered: u64,
    /// Documents kept twice: the winner, and the other one under a conflict name.
    pub kept_twice: u64,
    /// Mailboxes that took a new UIDVALIDITY.
    pub raised: u64,
}

/// What checking rows against their digests and bodies against their hashes has found on this node since its start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CheckStatus {
    /// Accounts looked at.
    pub accounts: u64,
    /// Bodies looked at.
    pub bodies: u64,
    /// Accounts and bodies that were damaged.
    pub damaged: u64,
    /// Of them, brought back from another node.
    pub repaired: u64,
    /// Damaged now: no other node could give a sound copy yet.
    pub broken: Vec<String>,
    /// End of the last whole pass (Unix milliseconds), over restarts.
    pub last_pass_ms: Option<u64>,
}

/// Everything at a glance.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ClusterStatus {
    /// Cluster name.
    pub cluster: String,
    /// Id of this node.
    pub node: u32,
    /// joined, solo, fenced, syncing, healing, waiting.
    pub mode: String,
    /// Epoch id as `number.author`.
    pub epoch: String,
    /// joint, reduced, solo, heal.
    pub epoch_kind: String,
    /// In-sync set.
    pub in_sync: Vec<u32>,
    /// Home of all shards without a home of their own.
    pub home: u32,
    /// The first of the cluster addresses.
    pub cluster_address: Option<String>,
    /// All of them, `ADDRESS` or `ADDRESS/PREFIX`.
    pub cluster_addresses: Vec<String>,
    /// Node that holds the cluster address.
    pub address_holder: Option<u32>,
    /// Nodes.
    pub nodes: Vec<NodeStatus>,
    /// Batches in flight and the age of the oldest in milliseconds.
    pub batches_in_flight: u64,
    /// Age of the oldest batch in flight (ms).
    pub oldest_batch_ms: u64,
    /// A node being brought up to date.
    pub sync: Option<SyncStatus>,
    /// What was found when stored data were checked.
    pub checks: CheckStatus,
    /// What was merged here.
    pub merges: MergeStatus,
    /// Archived branches (accounts that changed on both sides).
    pub branches: Vec<String>,
    /// Whether settings can be changed, and if not why and what to do.
    pub settings_locked: Option<String>,
    /// Things an operator must know.
    pub warnings: Vec<String>,
    /// Row format in which rows may have been written here; 0 = the first.
    pub rows_written: u32,
}

/// What an account was on one side of a split, kept on this node as it was.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BranchStatus {
    /// Its name.
    pub id: String,
    /// Account; 1 is the outbound queue.
    pub account: u64,
    /// When it was archived (Unix ms).
    pub archived_ms: u64,
    /// When it goes by itself (Unix ms).
    pub expires_ms: u64,
    /// Bytes of rows and bodies.
    pub bytes: u64,
    /// Bodies of messages.
    pub bodies: u64,
}

/// The cluster on this node.
pub trait Cluster: Send + Sync {
    /// Now.
    fn status(&self) -> ClusterStatus;
    /// This node.
    fn node(&self) -> NodeId;
    /// Whether clients may be served (else 421 / BYE).
    fn serving(&self) -> tokio::sync::watch::Receiver<bool>;
    /// The home of the newest epoch known here: who serves clients while this node may not; perhaps this node.
    fn home(&self) -> Option<NodeId>;
    /// Other nodes that may serve clients of the cluster address beside this one; none unless this node leads and nobody
    /// is being brought up to date.
    fn partners(&self) -> Vec<NodeId>;
    /// What this node decided and why: the newest events, the oldest of them first.
    fn events(&self, limit: usize) -> Vec<ClusterEvent>;
    /// Whether this node should hold the cluster address now. `true` sent again is an order to claim it anew.
    fn holds_address(&self) -> tokio::sync::watch::Receiver<bool>;
    /// Archived branches on this node, with their sizes.
    ///
    /// # Errors
    /// Unavailable when rows of one are damaged.
    fn branches(&self) -> Answer<'_, Result<Vec<BranchStatus>, SubmitError>>;
    /// Deletes an archived branch on this node before its time; false when there is none of this name.
    ///
    /// # Errors
    /// As `branches`.
    fn delete_branch(&self, id: String) -> Answer<'_, Result<bool, SubmitError>>;
    /// Operator's word that the peer is down: opens a solo epoch with the gap.
    ///
    /// # Errors
    /// Unavailable with the reason when it makes no sense (peer is heard, node never was in sync).
    fn start_alone(&self) -> Answer<'_, Result<(), SubmitError>>;
    /// Makes another in-sync node the home and holder of the cluster address, whoever is it now; `None`: whoever fits.
    /// What is in flight is finished first. With `dry_run` only says who it would be.
    ///
    /// # Errors
    /// Unavailable with the reason: nothing was changed. Unknown: it may still happen.
    fn switch_over(&self, to: Option<NodeId>, dry_run: bool) -> Answer<'_, Result<Switchover, SubmitError>>;
    /// This node leaves the cluster for good: it hands over, leaves the in-sync set by agreement, loses its vote and its
    /// place. On return it may be switched off; its process ends by itself.
    ///
    /// # Errors
    /// Refused and Unavailable: nothing was changed, or this node only left the in-sync set and is taken back. Unknown:
    /// look before it is asked again; asking again is harmless.
    fn leave(&self, dry_run: bool) -> Answer<'_, Result<Departure, MembershipError>>;
    /// Takes a node that is lost off the list of members. What was acknowledged only there is lost with it.
    ///
    /// # Errors
    /// As `leave`; refused while the node is in sync or heard.
    fn remove(&self, node: NodeId, dry_run: bool) -> Answer<'_, Result<Departure, MembershipError>>;
    /// Makes this node, which serves alone, the only one that votes on settings, until the others are back.
    /// `others`: wanted as down when nothing but an operator's word says so.
    ///
    /// # Errors
    /// As `leave`; refused while settings are not locked, this node does not serve alone, or another voter is heard.
    fn rescue(&self, others: Others, dry_run: bool) -> Answer<'_, Result<Rescue, MembershipError>>;
}

/// Why the list of members is as it was, or may not be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MembershipError {
    /// It makes no sense as things are; the text says what to do instead (API 409, exit 1).
    #[error("{0}")]
    Refused(String),
    /// Not now (API 503, exit 2).
    #[error("{0}")]
    Unavailable(String),
    /// May have happened (API 503, exit 2).
    #[error("nobody knows whether it was done ({0}): look before you repeat it")]
    Unknown(String),
}

impl From<SubmitError> for MembershipError {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::Unavailable(reason) => Self::Unavailable(reason.to_owned()),
            SubmitError::Unknown(reason) => Self::Unknown(reason.to_owned()),
        }
    }
}

impl From<ConfigError> for MembershipError {
    fn from(error: ConfigError) -> Self {
        match error {
            ConfigError::Refused(_) => Self::Refused(error.to_string()),
            ConfigError::Conflict(text) => Self::Refused(text),
            ConfigError::Locked(text) => Self::Unavailable(text),
            ConfigError::Unknown(text) => Self::Unknown(text),
        }
    }
}

/// What an operator says of the nodes that are not heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Others {
    /// Nothing.
    Unheard,
    /// They are off.
    Down,
}

/// A node that left, or would.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Departure {
    /// Who goes.
    pub node: u32,
    /// The home afterwards.
    pub home: u32,
}

/// A node that votes alone now, or would.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rescue {
    /// The only voter.
    pub node: u32,
    /// Who votes no longer; they get their vote back when they return.
    pub without: Vec<u32>,
}

/// What a switchover did or would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Switchover {
    /// The home before.
    pub from: u32,
    /// The home after.
    pub to: u32,
}
