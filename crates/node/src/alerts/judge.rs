//! What an operator must be told, from what a node sees. Pure.

use std::collections::BTreeSet;

use ports::cluster::{ClusterStatus, MergeStatus};
use serde::Serialize;

use super::merges;
use crate::checks::{CLOCK_REFUSE_MS, CLOCK_WARN_MS};

/// A disk with less than this part free is told of; with less than the second it is urgent (percent).
const DISK_LOW_PERCENT: u64 = 10;
const DISK_URGENT_PERCENT: u64 = 3;
/// A disk that will be full within this time, as it goes, is told of (hours).
const DISK_FULL_WITHIN_H: u64 = 72;
/// A certificate that ends within this time is told of; within the second it is urgent (days).
const CERTIFICATE_DAYS: i64 = 30;
const CERTIFICATE_URGENT_DAYS: i64 = 7;
/// The same for the cluster's CA, which an operator must exchange (days).
const CA_DAYS: i64 = 90;
/// A queue with more items than this, or an older one, is told of.
const QUEUE_ITEMS: usize = 1_000;
const QUEUE_OLDEST_S: u64 = 4 * 60 * 60;
/// Nodes that run different programs for longer than an upgrade takes are told of (ms).
const MIX_LASTS_MS: u64 = 60 * 60 * 1000;

/// How urgent it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Severity {
    /// Good to know.
    Info,
    /// To be looked at in the next days.
    Warning,
    /// To be looked at now.
    Critical,
}

/// Something an operator must know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Alert {
    /// What it is about: the same matter is told once while it lasts.
    pub(crate) key: String,
    /// How urgent.
    pub(crate) severity: Severity,
    /// What is the matter, and why.
    pub(crate) text: String,
    /// What to do.
    pub(crate) advice: String,
}

impl Alert {
    pub(super) fn new(key: impl Into<String>, severity: Severity, text: impl Into<String>, advice: &str) -> Self {
        Self { key: key.into(), severity, text: text.into(), advice: advice.to_owned() }
    }
}

/// Room on the disk of the mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    /// Bytes free, and all of them.
    pub(crate) free: u64,
    pub(crate) total: u64,
    /// Bytes it loses in an hour, by what was seen.
    pub(crate) loses_an_hour: u64,
}

/// What a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CertificateKind {
    /// The cluster's CA.
    Ca,
    /// Between nodes.
    Node,
    /// For clients, made by the cluster's CA.
    Clients,
    /// For clients, the operator's.
    OwnFiles,
}

impl CertificateKind {
    /// It is told of so many days before its end.
    const fn days(self) -> i64 {
        match self {
            Self::Ca => CA_DAYS,
            Self::Node | Self::Clients | Self::OwnFiles => CERTIFICATE_DAYS,
        }
    }
    /// What it is called, and what to do.
    const fn words(self) -> (&'static str, &'static str) {
        const BY_ITSELF: &str =
            "it is renewed by itself long before; `twinpost cluster certificates` says why it was not";
        match self {
            Self::Ca => ("certificate of the cluster's CA", "`twinpost cluster certificates rotate-ca`"),
            Self::Node => ("certificate between nodes", BY_ITSELF),
            Self::Clients => ("certificate for clients", BY_ITSELF),
            Self::OwnFiles => {
                ("certificate for clients", "put a newer one into the files of `[tls]`; it is read within seconds")
            }
        }
    }
}

/// A certificate of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Certificate {
    /// Which.
    pub(crate) kind: CertificateKind,
    /// Days until it ends; negative: since it ended.
    pub(crate) days_left: i64,
}

/// The clock of another node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Clock {
    /// The node, and its name.
    pub(crate) node: u32,
    pub(crate) name: String,
    /// Ahead of this node's (ms); negative: behind.
    pub(crate) ahead_ms: i64,
}

/// The outbound queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Queue {
    /// Items.
    pub(crate) items: usize,
    /// Age of the oldest (s).
    pub(crate) oldest_s: u64,
}

/// What a node sees.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// The cluster.
    pub(crate) status: ClusterStatus,
    /// This node leads: it tells of the cluster; every node tells of itself.
    pub(crate) leads: bool,
    /// Room for mail; `None`: unknown.
    pub(crate) room: Option<Room>,
    /// Room for the log, where it has a disk of its own.
    pub(crate) log_room: Option<Room>,
    /// Why the log is not written.
    pub(crate) log_fault: Option<String>,
    /// Certificates.
    pub(crate) certificates: Vec<Certificate>,
    /// The queue, where it is worked.
    pub(crate) queue: Option<Queue>,
    /// Clocks of the nodes that answer.
    pub(crate) clocks: Vec<Clock>,
    /// What this node merged lately.
    pub(crate) merged: MergeStatus,
    /// How long nodes have run different programs (ms).
    pub(crate) mixed_ms: u64,
    /// An exchange of the CA, and the members it waits for.
    pub(crate) rotation: Option<(topology::Rotation, Vec<vocab::NodeId>)>,
}

/// Versions of the programs that run, each once, the heard nodes' alone; more than one: they differ.
pub(crate) fn programs(status: &ClusterStatus) -> BTreeSet<&str> {
    let told = status.nodes.iter().filter(|node| node.reachable).filter_map(|node| node.program.as_deref());
    told.collect()
}

/// Everything that is the matter now.
pub(crate) fn judge(seen: &Seen) -> Vec<Alert> {
    let mut alerts = Vec::new();
    of_node(seen, &mut alerts);
    if seen.leads {
        of_cluster(&seen.status, &mut alerts);
        alerts.extend(seen.queue.and_then(of_queue));
        alerts.extend(seen.clocks.iter().filter_map(of_clock));
        alerts.extend(of_programs(&seen.status, seen.mixed_ms));
        alerts.extend(seen.rotation.as_ref().and_then(|rotation| of_rotation(&seen.status, rotation)));
    }
    alerts
}

/// As a join judges clocks: 2 s apart is told, 30 s would be refused.
fn of_clock(clock: &Clock) -> Option<Alert> {
    let severity = match clock.ahead_ms.unsigned_abs() {
        CLOCK_REFUSE_MS.. => Severity::Critical,
        CLOCK_WARN_MS.. => Severity::Warning,
        _ => return None,
    };
    let way = if clock.ahead_ms > 0 { "ahead of" } else { "behind" };
    let apart = clock.ahead_ms.unsigned_abs() / 1000;
    let text = format!("the clock of node {} ({}) is {apart} s {way} this node's", clock.node, clock.name);
    let advice =
        "let both machines follow a time server (chrony, systemd-timesyncd); dates and retries are by their clocks";
    Some(Alert::new(format!("clock/{}", clock.node), severity, text, advice))
}

fn of_cluster(status: &ClusterStatus, alerts: &mut Vec<Alert>) {
    if let Some(reason) = &status.settings_locked {
        let advice = "bring the missing node back, or `twinpost cluster rescue` on the node that serves alone";
        alerts.push(Alert::new("quorum", Severity::Critical, format!("settings are locked: {reason}"), advice));
    }
    let others = status.nodes.iter().filter(|node| node.id != status.node);
    // Whoever is refused runs; every node tells of that itself.
    for node in others.clone().filter(|node| !node.reachable && node.refused.is_none()) {
        let text = format!("node {} ({}) is not heard", node.id, node.name);
        let advice = "look at its power, its network and its service; it catches up by itself when it is back";
        alerts.push(Alert::new(format!("peer-gone/{}", node.id), Severity::Critical, text, advice));
    }
    if status.epoch_kind == "solo" {
        let text = "this node goes on alone: what it takes in has one copy until another is back";
        let advice = "bring the other node back; when it is lost, `twinpost cluster rescue` and a new node";
        alerts.push(Alert::new("solo", Severity::Critical, text, advice));
    }
    let lacks = |node: &&ports::cluster::NodeStatus| node.reachable && !node.in_sync && node.role != "witness";
    for node in others.filter(lacks) {
        let text = format!("node {} ({}) is not in sync: mail is not copied to it yet", node.id, node.name);
        let advice =
            "nothing while it is being brought up to date (`twinpost status` says how far); else look at its disk";
        alerts.push(Alert::new(format!("out-of-sync/{}", node.id), Severity::Warning, text, advice));
    }
    if let Some(sync) = &status.sync {
        let text = format!("node {} is being brought up to date ({} accounts differed)", sync.node, sync.accounts);
        alerts.push(Alert::new("heal", Severity::Info, text, "nothing"));
    }
    if status.nodes.len() == 2 {
        let text = "two nodes without a witness: a missing node locks the settings, and a true split is possible";
        let advice = "let any third machine vote: `twinpost cluster token`, then `join --witness` there";
        alerts.push(Alert::new("no-witness", Severity::Info, text, advice));
    }
}

fn of_node(seen: &Seen, alerts: &mut Vec<Alert>) {
    let status = &seen.status;
    if status.mode == "fenced" {
        let text = format!("node {} hears nobody and serves nothing", status.node);
        alerts.push(Alert::new("fenced", Severity::Critical, text, "mend its network"));
    }
    for node in &status.nodes {
        let Some(reason) = &node.refused else { continue };
        let text =
            format!("node {} ({}) and node {} do not speak to each other: {reason}", node.id, node.name, status.node);
        let advice = "install programs on both that have a version in common (`twinpost cluster upgrade-check`)";
        alerts.push(Alert::new(format!("refused/{}", node.id), Severity::Critical, text, advice));
    }
    for what in &status.checks.broken {
        let text = format!("stored data are damaged, and no other node could give a sound copy yet: {what}");
        let advice = "bring the other node back: it is tried every minute; when no copy is left, restore from a backup";
        alerts.push(Alert::new(format!("damaged/{what}"), Severity::Critical, text, advice));
    }
    if status.checks.damaged > 0 && status.checks.broken.is_empty() {
        let text = format!(
            "{} accounts or bodies were found damaged on node {} and brought back from another node",
            status.checks.damaged, status.node
        );
        alerts.push(Alert::new("repaired", Severity::Warning, text, "look at this machine's disk and memory"));
    }
    let advice = "make room, or give it a larger disk, before changes are refused";
    let disk = |key, name, room, advice| of_room((key, name), status.node, room, advice);
    alerts.extend(merges::alert(status.node, seen.merged));
    alerts.extend(seen.room.and_then(|room| disk("disk", "disk", room, advice)));
    let advice = "keep less of the log (`twinpost setting show log`), or give it a larger disk";
    alerts.extend(seen.log_room.and_then(|room| disk("disk/log", "disk of the log", room, advice)));
    if let Some(why) = &seen.log_fault {
        let text = format!("the log of node {} is not written; mail goes on and records wait: {why}", status.node);
        let advice = "look at the disk under the folder `logs`; what waits is written when it can be";
        alerts.push(Alert::new("log", Severity::Warning, text, advice));
    }
    for certificate in seen.certificates.iter().filter(|one| one.days_left < one.kind.days()) {
        let severity =
            if certificate.days_left < CERTIFICATE_URGENT_DAYS { Severity::Critical } else { Severity::Warning };
        let when = match certificate.days_left {
            days @ 0.. => format!("ends in {days} days"),
            days => format!("ended {} days ago", -days),
        };
        let (name, advice) = certificate.kind.words();
        let text = format!("the {name} of node {} {when}", status.node);
        alerts.push(Alert::new(format!("certificate/{name}"), severity, text, advice));
    }
}

fn of_room((key, name): (&str, &str), node: u32, room: Room, advice: &str) -> Option<Alert> {
    let percent = room.free.saturating_mul(100).checked_div(room.total)?;
    let hours = room.free.checked_div(room.loses_an_hour);
    let soon = hours.is_some_and(|hours| hours < DISK_FULL_WITHIN_H);
    if percent >= DISK_LOW_PERCENT && !soon {
        return None;
    }
    let urgent = percent < DISK_URGENT_PERCENT || hours.is_some_and(|hours| hours < 6);
    let forecast = hours.map(|hours| format!("; as it goes, full in {hours} h")).unwrap_or_default();
    let text = format!("the {name} of node {node} has {} MiB free ({percent} %){forecast}", room.free / (1024 * 1024));
    let severity = if urgent { Severity::Critical } else { Severity::Warning };
    Some(Alert::new(key, severity, text, advice))
}

fn of_programs(status: &ClusterStatus, mixed_ms: u64) -> Option<Alert> {
    let programs = programs(status);
    if programs.len() < 2 {
        return None;
    }
    let version = |version: &str| if version.is_empty() { "one that does not say" } else { version }.to_owned();
    let runs = |node: &ports::cluster::NodeStatus| {
        node.program.as_deref().map(|program| format!("node {}: {}", node.id, version(program)))
    };
    let all: Vec<String> = status.nodes.iter().filter(|node| node.reachable).filter_map(runs).collect();
    let severity = if mixed_ms >= MIX_LASTS_MS { Severity::Warning } else { Severity::Info };
    let text = format!("nodes run different programs ({})", all.join(", "));
    let advice = "bring all nodes to one version (`twinpost cluster upgrade-check`)";
    Some(Alert::new("version-mix", severity, text, advice))
}

/// An exchange of the CA that stands still: it waits for a node that is not heard, or for the operator.
fn of_rotation(status: &ClusterStatus, (rotation, waits): &(topology::Rotation, Vec<vocab::NodeId>)) -> Option<Alert> {
    let alert = |severity, text, advice| Some(Alert::new("ca-rotation", severity, text, advice));
    let away = |node: &&ports::cluster::NodeStatus| {
        node.id != status.node && !node.reachable && waits.iter().any(|waited| waited.0 == node.id)
    };
    if let Some(node) = status.nodes.iter().find(away) {
        let text = format!(
            "the exchange of the CA waits at the step \"{}\" for node {} ({}), which is not heard",
            rotation.step, node.id, node.name
        );
        let advice = "bring it back, or go on without it: `twinpost cluster remove`; it must join anew then";
        return alert(Severity::Warning, text, advice);
    }
    if rotation.hold && waits.is_empty() {
        let text = "every node trusts the old CA and the new one: the exchange waits for your word".to_owned();
        let advice = "when clients trust the new CA: `twinpost cluster certificates rotate-ca --go-on`";
        return alert(Severity::Info, text, advice);
    }
    None
}

fn of_queue(queue: Queue) -> Option<Alert> {
    let large = queue.items > QUEUE_ITEMS;
    if !large && queue.oldest_s <= QUEUE_OLDEST_S {
        return None;
    }
    let text = format!("{} items wait in the outbound queue, the oldest for {} min", queue.items, queue.oldest_s / 60);
    Some(Alert::new("queue", Severity::Warning, text, "`twinpost queue list` says what the other servers answered"))
}

#[cfg(test)]
mod tests {
    use ports::cluster::{NodeStatus, SyncStatus};

    use super::*;

    fn node(id: u32) -> NodeStatus {
        let role = if id == 1 { "primary" } else { "secondary" };
        NodeStatus {
            id,
            name: format!("n{id}"),
            role: role.into(),
            reachable: true,
            in_sync: true,
            ..Default::default()
        }
    }

    fn healthy() -> Seen {
        let status = ClusterStatus {
            node: 1,
            mode: "joined".into(),
            epoch_kind: "joint".into(),
            nodes: vec![node(1), node(2), NodeStatus { role: "witness".into(), in_sync: false, ..node(3) }],
            ..Default::default()
        };
        Seen {
            status,
            leads: true,
            room: None,
            log_room: None,
            log_fault: None,
            certificates: Vec::new(),
            queue: Some(Queue::default()),
            clocks: Vec::new(),
            merged: MergeStatus::default(),
            mixed_ms: 0,
            rotation: None,
        }
    }

    fn keys(seen: &Seen) -> Vec<String> {
        judge(seen).into_iter().map(|alert| alert.key).collect()
    }

    #[test]
    fn a_healthy_pair_with_a_witness_tells_of_nothing() {
        assert_eq!(judge(&healthy()), []);
    }

    #[test]
    fn ha_14_a_lost_node_locks_the_settings_and_the_ways_out_are_named() {
        let mut seen = healthy();
        seen.status.nodes = vec![node(1), NodeStatus { reachable: false, in_sync: false, ..node(2) }];
        seen.status.epoch_kind = "solo".into();
        seen.status.settings_locked = Some("no quorum".into());
        assert_eq!(keys(&seen), ["quorum", "peer-gone/2", "solo", "no-witness"]);
        let quorum = judge(&seen).remove(0);
        assert!(quorum.severity == Severity::Critical && quorum.advice.contains("cluster rescue"), "{quorum:?}");
        // The other nodes leave it to the one that leads.
        assert_eq!(keys(&Seen { leads: false, ..seen }), [""; 0]);
    }

    #[test]
    fn a_node_that_returns_is_told_of_until_it_is_in_sync() {
        let mut seen = healthy();
        seen.status.nodes[1].in_sync = false;
        seen.status.sync = Some(SyncStatus { node: 2, accounts: 5, ..Default::default() });
        assert_eq!(keys(&seen), ["out-of-sync/2", "heal"]);
    }

    #[test]
    fn different_programs_are_told_of_and_urgently_when_they_refuse_each_other() {
        let mut seen = healthy();
        for (node, program) in seen.status.nodes.iter_mut().zip(["0.2.0", "0.2.0", "0.1.0"]) {
            node.program = Some(program.into());
        }
        let severity =
            |seen: &Seen| judge(seen).into_iter().map(|alert| (alert.key, alert.severity)).collect::<Vec<_>>();
        assert_eq!(severity(&seen), [("version-mix".to_owned(), Severity::Info)], "an upgrade is under way");
        seen.mixed_ms = MIX_LASTS_MS;
        assert_eq!(severity(&seen), [("version-mix".to_owned(), Severity::Warning)], "it was left half done");
        assert!(judge(&seen)[0].text.contains("node 3: 0.1.0"), "{:?}", judge(&seen));
        seen.status.nodes[2].reachable = false;
        assert_eq!(keys(&seen), ["peer-gone/3"], "what an absent node ran says nothing");
        seen.status.nodes[2].refused = Some("no common protocol".into());
        assert_eq!(severity(&seen), [("refused/3".to_owned(), Severity::Critical)]);
        seen.leads = false;
        assert_eq!(keys(&seen), ["refused/3"], "the one that is refused may be alone with it");
    }

    #[test]
    fn an_exchange_of_the_ca_that_stands_still_is_told_of() {
        let rotation = topology::CertificatesBody::default().begin(("old", "new"), vocab::NodeId(1), true);
        let rotation = rotation.expect("begun").rotation.expect("under way");
        let mut seen = healthy();
        let told = |seen: &Seen| judge(seen).into_iter().find(|alert| alert.key == "ca-rotation");
        seen.rotation = Some((rotation.clone(), vec![vocab::NodeId(2)]));
        assert_eq!(told(&seen), None, "node 2 is at work");
        seen.status.nodes[1].reachable = false;
        let held = told(&seen).expect("told");
        assert!(held.severity == Severity::Warning && held.text.contains("node 2 (n2)"), "{held:?}");
        seen.rotation = Some((rotation, Vec::new()));
        assert_eq!(told(&seen).map(|alert| alert.severity), Some(Severity::Info));
    }

    #[test]
    fn a_disk_is_told_of_by_what_is_free_and_by_how_fast_it_fills() {
        let room = |free, loses_an_hour| {
            let room = Room { free, total: 1_000, loses_an_hour };
            of_room(("disk", "disk"), 1, room, "make room").map(|alert| alert.severity)
        };
        assert_eq!(room(500, 0), None);
        assert_eq!(room(90, 0), Some(Severity::Warning));
        assert_eq!(room(20, 0), Some(Severity::Critical));
        assert_eq!(room(500, 10), Some(Severity::Warning), "full in 50 hours");
        assert_eq!(room(500, 100), Some(Severity::Critical), "full in 5 hours");
        assert_eq!(room(500, 5), None, "full in 100 hours");
    }

    #[test]
    fn ha_04_a_log_that_is_not_written_is_told_of_by_its_node() {
        let mut seen = healthy();
        seen.leads = false;
        seen.log_fault = Some("no space".into());
        seen.log_room = Some(Room { free: 0, total: 1_000, loses_an_hour: 0 });
        assert_eq!(keys(&seen), ["disk/log", "log"]);
    }

    #[test]
    fn clocks_that_are_apart_are_told_by_the_one_that_leads() {
        let clock = |ahead_ms| Clock { node: 2, name: "n2".into(), ahead_ms };
        let told = |ahead_ms, leads| {
            let alerts = judge(&Seen { clocks: vec![clock(ahead_ms)], leads, ..healthy() });
            alerts.into_iter().find(|alert| alert.key == "clock/2").map(|alert| (alert.severity, alert.text))
        };
        assert_eq!(told(1_999, true), None);
        assert_eq!(told(-2_000, true).expect("told").0, Severity::Warning);
        assert!(told(-2_000, true).expect("told").1.ends_with("2 s behind this node's"));
        assert_eq!(told(30_000, true).expect("told").0, Severity::Critical);
        assert_eq!(told(30_000, false), None, "once, not by both");
    }

    #[test]
    fn certificates_queues_and_damage_are_told_of() {
        let mut seen = healthy();
        seen.certificates = [
            (CertificateKind::Ca, 100),
            (CertificateKind::Node, 20),
            (CertificateKind::Clients, 31),
            (CertificateKind::OwnFiles, -1),
        ]
        .map(|(kind, days_left)| Certificate { kind, days_left })
        .to_vec();
        seen.queue = Some(Queue { items: 3, oldest_s: 5 * 60 * 60 });
        seen.status.checks.damaged = 2;
        let alerts = judge(&seen);
        let told: Vec<_> = alerts.iter().map(|alert| (alert.key.as_str(), alert.severity)).collect();
        let expected = [
            ("repaired", Severity::Warning),
            ("certificate/certificate between nodes", Severity::Warning),
            ("certificate/certificate for clients", Severity::Critical),
            ("queue", Severity::Warning),
        ];
        assert_eq!(told, expected);
    }
}
