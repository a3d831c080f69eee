//! State and operations: what Raft stores and ships, as JSON. New fields are added with a default, names never change.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use vocab::{EpochId, NodeId};

use crate::addresses::ClusterAddress;
use crate::epoch::EpochRecord;

/// A member of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Never reused.
    pub id: NodeId,
    /// Host name shown to people.
    pub name: String,
    /// Address and port of the node-to-node listener (`192.0.2.11:6420`).
    pub peer_address: String,
    /// The node's own client-facing address (IP), for probes of the mail port and for administration.
    pub address: String,
    /// Stores mail (false: witness).
    pub data: bool,
    /// Further addresses of that listener, on other networks: used when `peer_address` does not answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
}

impl Member {
    /// Every address of the node-to-node listener, the one to be used while it works first.
    #[must_use]
    pub fn peer_addresses(&self) -> Vec<String> {
        std::iter::once(&self.peer_address).chain(&self.paths).cloned().collect()
    }
}

/// Kind of a document; new kinds need no change of the state machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DocumentKind {
    /// A domain we are responsible for; name = A-labels.
    Domain,
    /// An account; name = its address. Body: [`AccountBody`].
    Account,
    /// An alias; name = its address. Body: [`AliasBody`].
    Alias,
    /// Cluster-wide settings by name (relay host, default domain, service names).
    Setting,
}

/// Revisions begin above this number, because account ids are revisions and those below 16 are system accounts.
pub const REVISION_BASE: u64 = 16;

/// The revision that the change at this Raft index makes.
#[must_use]
pub const fn revision_at(index: u64) -> u64 {
    index.saturating_add(REVISION_BASE)
}

/// A typed document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    /// Schema version of the body.
    pub schema: u32,
    /// JSON body, checked against the kind's schema when it is proposed.
    pub body: serde_json::Value,
    /// Revision of its last change.
    pub revision: u64,
    /// Revision that created it (the account id of an account, see [`revision_at`]).
    pub created: u64,
}

/// Body of a domain document.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainBody {
    /// The domain whose accounts may log in by local part alone; at most one.
    #[serde(default)]
    pub default: bool,
}

/// Body of an account document. No password here: the hash is an account document in the account's own rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountBody {
    /// Display name.
    #[serde(default)]
    pub name: String,
    /// Whether it may log in and get mail.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Bytes; `None` = no limit.
    #[serde(default)]
    pub quota_bytes: Option<u64>,
}

fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
const fn is_false(value: &bool) -> bool {
    !*value
}

/// Body of an alias document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AliasBody {
    /// Addresses it stands for, own or foreign; at least one.
    pub targets: Vec<String>,
}

/// One fault of a proposed change, with its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// Where: `account/bob@example.org/body/quota_bytes`.
    pub place: String,
    /// What is wrong, in words an administrator can act on.
    pub what: String,
}

/// Why a change was not made; nothing of it took effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Rejection {
    /// The change itself is wrong: every fault, not only the first.
    #[error("refused: {}", .0.iter().map(|f| format!("{}: {}", f.place, f.what)).collect::<Vec<_>>().join("; "))]
    Faults(Vec<Fault>),
    /// A compare failed: somebody changed it meanwhile. Read again and decide anew.
    #[error("conflict: {0}")]
    Conflict(String),
}

/// A change of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConfigOp {
    /// First entry: cluster id, name, first member, first epoch.
    Found {
        /// Random, never changed.
        cluster_id: String,
        /// Shown to people.
        name: String,
        /// The first node.
        member: Member,
        /// Cluster address (IP, without port), if any.
        cluster_address: Option<String>,
    },
    /// Stores a one-use join token: BLAKE3 of the secret, expiry in Unix seconds.
    AddToken {
        /// Hex hash of the secret.
        hash: String,
        /// Unix seconds.
        expires: u64,
    },
    /// Uses a token and admits a node under the next free id; refused when the token is unknown, used or expired.
    Admit {
        /// Hex hash of the token's secret.
        token_hash: String,
        /// Time of the home in Unix seconds (for the expiry).
        now: u64,
        /// The new node; its `id` is ignored and given here.
        member: Member,
    },
    /// Where a node is to be found changes; name and kind of the member are ignored.
    Readdress {
        /// The node with its addresses.
        member: Member,
    },
    /// Takes a member off the list. It loses its vote and its place among the nodes that store mail; its id is never
    /// given again. Refused for a node in sync and for the last one that stores mail.
    RemoveMember {
        /// Who goes.
        node: NodeId,
        /// Epoch in effect at the home that looked: one that is newer than the register is its own and names nobody else
        /// in sync. The register must not hold a newer one.
        epoch: EpochId,
    },
    /// The cluster addresses; the nodes take them over while they run. At most one of each family.
    SetAddresses {
        /// All of them; empty: none any more.
        addresses: Vec<ClusterAddress>,
    },
    /// Compare-and-set of the epoch register.
    SetEpoch {
        /// The register must hold this epoch.
        expect: EpochId,
        /// The new one; its number must be greater than every parent's.
        record: EpochRecord,
    },
    /// Writes a document; `expect` = revision it must have (0 = must not exist, `None` = do not care).
    Put {
        /// Kind.
        kind: DocumentKind,
        /// Name within the kind, normalised.
        name: String,
        /// JSON body.
        body: serde_json::Value,
        /// Compare.
        expect: Option<u64>,
        /// The body was judged by the leader, and [`crate::prepare`] made this of what was proposed: whoever applies it
        /// takes it as it is. Programs of two versions would judge it differently, and their states would part.
        #[serde(default, skip_serializing_if = "is_false")]
        judged: bool,
    },
    /// Removes a document.
    Remove {
        /// Kind.
        kind: DocumentKind,
        /// Name.
        name: String,
    },
}

impl ConfigOp {
    /// A document as it is proposed.
    #[must_use]
    pub fn put(kind: DocumentKind, name: impl Into<String>, body: serde_json::Value, expect: Option<u64>) -> Self {
        Self::Put { kind, name: name.into(), body, expect, judged: false }
    }
}

/// Everything Raft agrees on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterState {
    /// Random id; empty before [`ConfigOp::Found`].
    pub cluster_id: String,
    /// Name.
    pub name: String,
    /// Revision of the last applied change.
    pub revision: u64,
    /// Members by id.
    pub members: BTreeMap<NodeId, Member>,
    /// Next node id to give; ids are never reused.
    pub next_node: u32,
    /// The epoch register.
    pub epoch: Option<EpochRecord>,
    /// Cluster addresses, at most one of each family, IPv4 first.
    #[serde(rename = "cluster_address", with = "crate::addresses::stored", default)]
    pub cluster_addresses: Vec<ClusterAddress>,
    /// Unused join tokens: hash to expiry.
    pub tokens: BTreeMap<String, u64>,
    /// Documents by kind, then name.
    pub documents: BTreeMap<DocumentKind, BTreeMap<String, Document>>,
}
