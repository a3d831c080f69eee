//! Founding, join tokens and admission. Node ids are never reused.

use std::collections::BTreeMap;
use std::net::IpAddr;

use vocab::{EpochId, NodeId};

use crate::apply::{Faults, fault};
use crate::epoch::{EpochKind, EpochRecord};
use crate::state::{ClusterState, Member, Rejection};

/// Id of the founding node.
const FIRST_NODE: NodeId = NodeId(1);
/// Longest name of a cluster or node (bytes).
const NAME_BYTES_MAX: usize = 255;
/// Members that store mail.
const DATA_NODES_MAX: usize = 3;
/// Members that only vote. A second one would make an even number of voters or outvote the pair.
const WITNESSES_MAX: usize = 1;
/// Further addresses of one node.
const PATHS_MAX: usize = 3;
/// Length of a token hash: BLAKE3 in hexadecimal.
const TOKEN_HASH_CHARS: usize = 64;

pub(crate) fn found(
    next: &mut ClusterState,
    (cluster_id, name): (&str, &str),
    member: &Member,
    cluster_address: Option<&str>,
) -> Result<(), Rejection> {
    let mut faults = Faults::default();
    faults.require(!cluster_id.is_empty(), "cluster_id", "is empty");
    faults.require(is_name(name), "name", "must be 1 to 255 bytes of printable text");
    faults.require(member.id == FIRST_NODE, "member/id", "the first node is node 1");
    faults.require(member.data, "member/data", "the first node must store mail");
    check_member(member, &mut faults);
    if let Some(address) = cluster_address {
        faults.require(address.parse::<IpAddr>().is_ok(), "cluster_address", "is no IP address");
    }
    faults.check()?;
    next.cluster_id = cluster_id.to_owned();
    next.name = name.to_owned();
    let address = cluster_address.and_then(|address| address.parse::<IpAddr>().ok());
    next.cluster_addresses = address.map(Into::into).into_iter().collect();
    next.members = BTreeMap::from([(member.id, member.clone())]);
    next.next_node = FIRST_NODE.0 + 1;
    next.epoch = Some(EpochRecord {
        id: EpochId { number: 1, author: 0 },
        kind: EpochKind::Joint,
        members: vec![member.id],
        in_sync: vec![member.id],
        home: member.id,
        homes: BTreeMap::new(),
        parents: Vec::new(),
        certain: true,
        on_silence: false,
        anchor: None,
        guest: None,
        gap: false,
    });
    Ok(())
}

pub(crate) fn add_token(next: &mut ClusterState, hash: &str, expires: u64) -> Result<(), Rejection> {
    let mut faults = Faults::default();
    let hex = hash.len() == TOKEN_HASH_CHARS && hash.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    faults.require(hex, "hash", "must be 64 lower-case hexadecimal digits");
    faults.require(expires > 0, "expires", "must be a time in Unix seconds");
    faults.require(!next.tokens.contains_key(hash), "hash", "this token exists already");
    faults.check()?;
    next.tokens.insert(hash.to_owned(), expires);
    Ok(())
}

pub(crate) fn admit(next: &mut ClusterState, token_hash: &str, now: u64, member: &Member) -> Result<NodeId, Rejection> {
    match next.tokens.get(token_hash) {
        None => return fault("token", "is unknown or was used already; make a new one with `twinpost cluster token`"),
        Some(expires) if *expires <= now => {
            return fault("token", "has expired; make a new one with `twinpost cluster token`");
        }
        Some(_) => {}
    }
    let mut faults = Faults::default();
    check_member(member, &mut faults);
    refuse_cluster_address(next, member, &mut faults);
    let in_epoch = |id: &NodeId| next.epoch.as_ref().is_some_and(|epoch| epoch.members.contains(id));
    let same = |other: &&Member| other.name == member.name || other.peer_address == member.peer_address;
    for other in next.members.values().filter(same).filter(|other| in_epoch(&other.id)) {
        let what = |field| format!("node {} has this {field} already", other.id.0);
        faults.require(other.name != member.name, "member/name", what("name"));
        faults.require(other.peer_address != member.peer_address, "member/peer_address", what("address"));
    }
    faults.check()?;
    // A member of that name that never was in an epoch is a join that broke off: it holds nothing.
    let stale: Vec<NodeId> =
        next.members.values().filter(same).filter(|other| !in_epoch(&other.id)).map(|other| other.id).collect();
    next.members.retain(|id, _| !stale.contains(id));
    check_room(next, member)?;
    next.tokens.remove(token_hash);
    next.tokens.retain(|_, expires| *expires > now);
    let id = NodeId(next.next_node);
    next.next_node += 1;
    next.members.insert(id, Member { id, ..member.clone() });
    Ok(id)
}

pub(crate) fn remove(next: &mut ClusterState, node: NodeId, epoch: EpochId) -> Result<(), Rejection> {
    let Some(member) = next.members.get(&node) else {
        return fault("node", format!("no node has the id {}", node.0));
    };
    if member.data {
        let have = next.epoch.as_ref();
        if let Some(newer) = have.filter(|have| have.id > epoch) {
            return Err(Rejection::Conflict(format!("epoch {} has begun meanwhile: ask again", newer.id)));
        }
        if have.is_some_and(|have| have.id == epoch && have.in_sync.contains(&node)) {
            return fault("node", format!("node {} is in sync; it must leave first: `twinpost cluster leave`", node.0));
        }
        if next.members.values().filter(|other| other.data).count() == 1 {
            return fault("node", format!("node {} is the only one that stores mail", node.0));
        }
    }
    next.members.remove(&node);
    Ok(())
}

/// A node says where it is to be found from now on; its id, its name and what it is for stay.
pub(crate) fn readdress(next: &mut ClusterState, moved: &Member) -> Result<(), Rejection> {
    let Some(old) = next.members.get(&moved.id) else {
        return fault("member/id", format!("no node has the id {}", moved.id.0));
    };
    let member = Member { name: old.name.clone(), data: old.data, ..moved.clone() };
    let mut faults = Faults::default();
    check_member(&member, &mut faults);
    refuse_cluster_address(next, &member, &mut faults);
    let taken = |path: &String| next.members.values().any(|m| m.id != member.id && m.peer_addresses().contains(path));
    for path in member.peer_addresses().iter().filter(|path| taken(path)) {
        faults.add("member/peer_address", format!("another node has the address {path} already"));
    }
    faults.check()?;
    next.members.insert(member.id, member);
    Ok(())
}

/// How many nodes that store mail, and how many witnesses, may still join.
#[must_use]
pub fn room(state: &ClusterState) -> (usize, usize) {
    let count = |data: bool| state.members.values().filter(|member| member.data == data).count();
    (DATA_NODES_MAX.saturating_sub(count(true)), WITNESSES_MAX.saturating_sub(count(false)))
}

/// Whether one more of its kind may join.
fn check_room(next: &ClusterState, member: &Member) -> Result<(), Rejection> {
    let alike = next.members.values().filter(|other| other.data == member.data).count();
    match member.data {
        true if alike >= DATA_NODES_MAX => {
            fault("member", format!("the cluster has {alike} nodes that store mail; more are not supported"))
        }
        false if alike >= WITNESSES_MAX => {
            fault("member", "the cluster has a witness already; one that is replaced must join under its old name")
        }
        _ => Ok(()),
    }
}

/// The cluster's address moves between nodes: it is no node's own.
fn refuse_cluster_address(next: &ClusterState, member: &Member, faults: &mut Faults) {
    let shared = next.cluster_addresses.iter().any(|one| member.address.parse() == Ok(one.address));
    faults.require(!shared, "member/address", "is an address of the cluster, which moves between nodes");
}

fn check_member(member: &Member, faults: &mut Faults) {
    faults.require(is_name(&member.name), "member/name", "must be 1 to 255 bytes of printable text");
    faults.require(is_host_port(&member.peer_address), "member/peer_address", "must be host:port");
    faults.require(member.paths.len() <= PATHS_MAX, "member/paths", format!("more than {PATHS_MAX} further paths"));
    for (number, path) in member.paths.iter().enumerate() {
        faults.require(is_host_port(path), format!("member/paths/{number}"), "must be host:port");
    }
    faults.require(member.address.parse::<IpAddr>().is_ok(), "member/address", "is no IP address");
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= NAME_BYTES_MAX && !text.chars().any(char::is_control)
}

fn is_host_port(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|p| p > 0))
}
