//! One change, validated as a whole, applied as a whole.

use vocab::NodeId;

use crate::state::{ClusterState, ConfigOp, Fault, Rejection, revision_at};
use crate::{addresses, documents, epoch, members};

/// Collects faults with their places.
#[derive(Default)]
pub(crate) struct Faults(Vec<Fault>);

impl Faults {
    /// Notes one fault.
    pub(crate) fn add(&mut self, place: impl Into<String>, what: impl Into<String>) {
        self.0.push(Fault { place: place.into(), what: what.into() });
    }
    /// Notes a fault unless `holds`.
    pub(crate) fn require(&mut self, holds: bool, place: impl Into<String>, what: impl Into<String>) {
        if !holds {
            self.add(place, what);
        }
    }
    /// `Err` with everything noted.
    pub(crate) fn check(self) -> Result<(), Rejection> {
        if self.0.is_empty() { Ok(()) } else { Err(Rejection::Faults(self.0)) }
    }
}

/// One fault as a rejection.
pub(crate) fn fault<T>(place: impl Into<String>, what: impl Into<String>) -> Result<T, Rejection> {
    Err(Rejection::Faults(vec![Fault { place: place.into(), what: what.into() }]))
}

/// What the leader commits of a proposed change: the same change, in which names are in stored form and bodies are judged
/// by the leader's program alone. The state must have everything that was committed before.
///
/// # Errors
/// As [`apply`]; nothing is to be committed.
pub fn prepare(state: &ClusterState, op: &ConfigOp) -> Result<ConfigOp, Rejection> {
    let ConfigOp::Put { kind, name, body, expect, .. } = op else { return Ok(op.clone()) };
    let name = documents::judge(state, (*kind, name), body, (*expect, false))?;
    Ok(ConfigOp::Put { kind: *kind, name, body: body.clone(), expect: *expect, judged: true })
}

/// The state after the change committed at Raft index `index`, and the node id that [`ConfigOp::Admit`] gave. A
/// rejected change leaves the old state as it is, and every node rejects it alike.
///
/// # Errors
/// Faults: correct the change. Conflict: read again, it changed meanwhile.
pub fn apply(state: &ClusterState, op: &ConfigOp, index: u64) -> Result<(ClusterState, Option<NodeId>), Rejection> {
    if state.cluster_id.is_empty() != matches!(op, ConfigOp::Found { .. }) {
        let what = if state.cluster_id.is_empty() { "the cluster is not founded" } else { "the cluster exists" };
        return Err(Rejection::Conflict(what.to_owned()));
    }
    let mut next = state.clone();
    next.revision = revision_at(index);
    let mut given = None;
    match op {
        ConfigOp::Found { cluster_id, name, member, cluster_address } => {
            members::found(&mut next, (cluster_id, name), member, cluster_address.as_deref())?;
        }
        ConfigOp::AddToken { hash, expires } => members::add_token(&mut next, hash, *expires)?,
        ConfigOp::Admit { token_hash, now, member } => {
            given = Some(members::admit(&mut next, token_hash, *now, member)?);
        }
        ConfigOp::Readdress { member } => members::readdress(&mut next, member)?,
        ConfigOp::RemoveMember { node, epoch } => members::remove(&mut next, *node, *epoch)?,
        ConfigOp::SetAddresses { addresses } => addresses::set(&mut next, addresses)?,
        ConfigOp::SetEpoch { expect, record } => epoch::set_epoch(&mut next, *expect, record)?,
        ConfigOp::Put { kind, name, body, expect, judged } => {
            documents::put(&mut next, (*kind, name), body, (*expect, *judged))?;
        }
        ConfigOp::Remove { kind, name } => documents::remove(&mut next, *kind, name)?,
    }
    Ok((next, given))
}
