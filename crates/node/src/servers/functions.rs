//! The state of each function of a node (MON-07), decided from what the node sees.

use ports::cluster::ClusterStatus;
use serde::Serialize;

/// How a function does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum State {
    /// It does its work.
    Running,
    /// Switched off in the node file.
    Stopped,
    /// It does not do its work; the text says why.
    Abnormal,
    /// Not yet: this node has just started, or waits for another one.
    GettingReady,
    /// Not yet: this node is brought up to date.
    Syncing,
}

/// One function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Function {
    name: &'static str,
    state: State,
    /// Why, for people; empty when there is nothing to say.
    #[serde(skip_serializing_if = "String::is_empty")]
    text: String,
}

impl Function {
    fn new(name: &'static str, state: State, text: impl Into<String>) -> Self {
        Self { name, state, text: text.into() }
    }
}

/// What a node knows of itself.
pub(crate) struct Seen<'a> {
    pub(crate) status: &'a ClusterStatus,
    /// Whether it serves clients itself.
    pub(crate) serving: bool,
    /// Doors by name, and whether the node file opens them.
    pub(crate) doors: &'a [(&'static str, bool)],
    /// Why its log is not written.
    pub(crate) log_fault: Option<String>,
}

/// All functions of a node with mail.
pub(crate) fn functions(seen: &Seen<'_>) -> Vec<Function> {
    let status = seen.status;
    let (state, text) = service(seen);
    let door = |(name, open): &(&'static str, bool)| match open {
        true => Function::new(name, state, text.clone()),
        false => Function::new(name, State::Stopped, "not in the node file"),
    };
    let mut all: Vec<Function> = seen.doors.iter().map(door).collect();
    all.push(relay(status));
    all.push(replication(status));
    all.push(settings(status.settings_locked.as_deref()));
    all.push(cluster_address(status));
    all.push(match &seen.log_fault {
        None => Function::new("log", State::Running, ""),
        Some(why) => Function::new("log", State::Abnormal, why.clone()),
    });
    all
}

/// Settings are all that a witness does.
pub(crate) fn settings(locked: Option<&str>) -> Function {
    match locked {
        None => Function::new("settings", State::Running, ""),
        Some(reason) => Function::new("settings", State::Abnormal, reason),
    }
}

/// Whether clients are served, here or through another node.
fn service(seen: &Seen<'_>) -> (State, String) {
    let by_other = format!("clients are passed on to node {}", seen.status.home);
    match (&*seen.status.mode, seen.serving) {
        ("fenced", _) => (State::Abnormal, "fenced: cut off from the others".to_owned()),
        (_, true) => (State::Running, String::new()),
        ("syncing" | "healing", false) => (State::Syncing, by_other),
        _ => (State::GettingReady, "waits for the other nodes".to_owned()),
    }
}

fn relay(status: &ClusterStatus) -> Function {
    if status.home == status.node {
        return Function::new("relay", State::Running, "");
    }
    Function::new("relay", State::Running, format!("node {} sends", status.home))
}

fn replication(status: &ClusterStatus) -> Function {
    let name = "replication";
    let data = status.nodes.iter().filter(|node| node.role != "witness");
    let missing: Vec<String> = data.filter(|node| !node.in_sync).map(|node| node.id.to_string()).collect();
    let here = status.in_sync.contains(&status.node);
    match (&*status.mode, missing.is_empty()) {
        ("syncing" | "healing", _) => Function::new(name, State::Syncing, ""),
        ("waiting", _) => Function::new(name, State::GettingReady, "waits for the other nodes"),
        (_, true) => Function::new(name, State::Running, ""),
        _ if here => Function::new(name, State::Abnormal, format!("without node {}", missing.join(", "))),
        _ => Function::new(name, State::Abnormal, "this node is not in sync"),
    }
}

fn cluster_address(status: &ClusterStatus) -> Function {
    let name = "cluster-address";
    match (status.cluster_address.is_some(), status.address_holder) {
        (false, _) => Function::new(name, State::Stopped, "the cluster has none"),
        (true, Some(holder)) if holder == status.node => Function::new(name, State::Running, "held here"),
        (true, Some(holder)) => Function::new(name, State::Running, format!("held by node {holder}")),
        (true, None) => Function::new(name, State::Abnormal, "nobody holds it"),
    }
}

#[cfg(test)]
mod tests {
    use ports::cluster::NodeStatus;

    use super::*;

    fn joined() -> ClusterStatus {
        let node = |id: u32| NodeStatus { id, in_sync: true, role: "secondary".into(), ..NodeStatus::default() };
        ClusterStatus {
            node: 1,
            home: 1,
            mode: "joined".into(),
            in_sync: vec![1, 2],
            nodes: vec![node(1), node(2)],
            cluster_address: Some("192.0.2.9".into()),
            address_holder: Some(1),
            ..ClusterStatus::default()
        }
    }

    fn of(status: &ClusterStatus, serving: bool, name: &str) -> (State, String) {
        let doors = [("imap", true), ("pop3", false)];
        let all = functions(&Seen { status, serving, doors: &doors, log_fault: None });
        let found = all.into_iter().find(|function| function.name == name).expect(name);
        (found.state, found.text)
    }

    #[test]
    fn mon_07_a_pair_that_is_joined_runs_and_a_door_that_is_off_is_stopped() {
        let status = joined();
        for name in ["imap", "relay", "replication", "settings", "cluster-address", "log"] {
            assert_eq!(of(&status, true, name).0, State::Running, "{name}");
        }
        assert_eq!(of(&status, true, "pop3").0, State::Stopped);
        let other = ClusterStatus { node: 2, ..joined() };
        assert_eq!(of(&other, true, "cluster-address"), (State::Running, "held by node 1".into()));
    }

    #[test]
    fn mon_07_what_is_missing_is_said_by_each_function() {
        let mut status = joined();
        (status.mode, status.in_sync) = ("solo".into(), vec![1]);
        status.nodes[1].in_sync = false;
        status.settings_locked = Some("no quorum".into());
        assert_eq!(of(&status, true, "imap").0, State::Running);
        assert_eq!(of(&status, true, "replication"), (State::Abnormal, "without node 2".into()));
        assert_eq!(of(&status, true, "settings"), (State::Abnormal, "no quorum".into()));
        status.mode = "fenced".into();
        assert_eq!(of(&status, false, "imap").0, State::Abnormal);
        status.mode = "syncing".into();
        assert_eq!(
            (of(&status, false, "imap").0, of(&status, false, "replication").0),
            (State::Syncing, State::Syncing)
        );
        (status.mode, status.address_holder) = ("waiting".into(), None);
        assert_eq!(of(&status, false, "imap").0, State::GettingReady);
        assert_eq!(of(&status, false, "cluster-address").0, State::Abnormal);
    }
}
