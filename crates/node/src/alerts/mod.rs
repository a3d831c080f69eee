//! Alerts: what is the matter is raised once, told by mail and webhook, listed, and cleared when it is over. Every node
//! tells of itself; the one that leads tells of the cluster.

mod board;
mod judge;
mod merges;
mod post;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use control::Control;
use ports::cluster::Cluster;
use ports::config::Config as _;
use ports::directory::Directory;
use ports::intake::Intake;
use ports::journal::{EventKind, Journal};
use ports::outbox::Outbox;
use serde_json::{Value, json};
use topology::{ClusterState, Rotation};
use vocab::NodeId;

use crate::certificates::disk;
use crate::clock::wall_ms;
use crate::files;
use crate::logging::Logging;
use crate::servers::Reporter;
use board::{Board, Change, Raised};
use judge::{Certificate, Queue, Room, Seen, Severity};
pub(crate) use judge::{CertificateKind, Clock};
use merges::Merges;
use post::Post;

/// How often this node looks.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Queue and certificates are read every so many looks.
const LOOKS_PER_READ: u32 = 30;
/// Items of the queue that are counted.
const QUEUE_COUNTED_MAX: usize = 10_000;
/// How far back the loss of room is measured (ms).
const ROOM_WINDOW_MS: u64 = 6 * 60 * 60 * 1000;

/// What alerts are made from, and by whom they are told.
pub(crate) struct Sources {
    pub(crate) node: NodeId,
    pub(crate) config: Arc<Control>,
    pub(crate) cluster: Arc<dyn Cluster>,
    pub(crate) outbox: Arc<dyn Outbox>,
    pub(crate) intake: Arc<dyn Intake>,
    pub(crate) directory: Arc<dyn Directory>,
    /// Gives command ids.
    pub(crate) accounts: Arc<dyn ports::accounts::Accounts>,
    pub(crate) journal: Arc<dyn Journal>,
    /// Folder of the mail, and of the log.
    pub(crate) mail: std::path::PathBuf,
    pub(crate) logs: std::path::PathBuf,
    /// The log.
    pub(crate) logging: Logging,
    /// Certificates by what they are for.
    pub(crate) certificates: Vec<(CertificateKind, std::path::PathBuf)>,
    pub(crate) hostname: String,
    /// Asks the other nodes.
    pub(crate) reporter: Arc<Reporter>,
}

/// The alerts of this node.
pub(crate) struct Alerts {
    board: Mutex<Board>,
}

impl Alerts {
    /// Begins to look; ends with the process.
    pub(crate) fn start(sources: Sources) -> Arc<Self> {
        let alerts = Arc::new(Self { board: Mutex::default() });
        tokio::spawn(Arc::clone(&alerts).run(sources));
        alerts
    }

    /// What is raised now, for the API.
    pub(crate) fn list(&self) -> Value {
        json!({ "alerts": self.board.lock().unwrap_or_else(PoisonError::into_inner).raised() })
    }

    async fn run(self: Arc<Self>, sources: Sources) {
        let post = Post::start(&sources);
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut looks, mut rooms, mut log_rooms, mut mixed_since) = (0u32, Rooms::default(), Rooms::default(), None);
        let mut merges = Merges::default();
        let (mut certificates, mut queue, mut clocks) = (Vec::new(), None, Vec::new());
        loop {
            ticks.tick().await;
            let status = sources.cluster.status();
            let leads = status.home == sources.node.0;
            if looks.is_multiple_of(LOOKS_PER_READ) {
                certificates = sources.certificates.iter().filter_map(|(kind, path)| days_left(*kind, path)).collect();
                queue = if leads { count(&*sources.outbox).await } else { None };
                clocks = if leads { sources.reporter.clocks().await } else { Vec::new() };
            }
            looks = looks.wrapping_add(1);
            let now = wall_ms();
            let room = rooms.look(now, &sources.mail);
            let merged = merges.look(now, status.merges);
            let own_disk = files::device(&sources.logs) != files::device(&sources.mail);
            let log_room = own_disk.then(|| log_rooms.look(now, &sources.logs)).flatten();
            let log_fault = sources.logging.fault();
            let rotation = rotation(&sources.config.current());
            mixed_since = (judge::programs(&status).len() > 1).then(|| mixed_since.unwrap_or(now));
            let mixed_ms = mixed_since.map_or(0, |since| now.saturating_sub(since));
            let (certificates, clocks) = (certificates.clone(), clocks.clone());
            let seen = Seen {
                status,
                leads,
                room,
                log_room,
                log_fault,
                certificates,
                queue,
                clocks,
                merged,
                mixed_ms,
                rotation,
            };
            let found = judge::judge(&seen);
            let changes = self.board.lock().unwrap_or_else(PoisonError::into_inner).step(now, found);
            for change in changes {
                tell(&sources, &seen, &post, &change);
            }
            self.count();
        }
    }

    fn count(&self) {
        let raised = self.board.lock().unwrap_or_else(PoisonError::into_inner).raised();
        for (name, severity) in
            [("info", Severity::Info), ("warning", Severity::Warning), ("critical", Severity::Critical)]
        {
            let count = raised.iter().filter(|one| one.alert.severity == severity).count();
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            metrics::gauge!("twinpost_alerts_raised", "severity" => name).set(f64::from(count));
        }
    }
}

fn tell(sources: &Sources, seen: &Seen, post: &Post, change: &Change) {
    let (word, raised) = match change {
        Change::Raised(raised) => ("raised", raised),
        Change::Cleared(raised) => ("cleared", raised),
    };
    let after = match change {
        Change::Cleared(raised) if raised.alert.key == "heal" => healed(seen),
        _ => String::new(),
    };
    let text = format!("alert {word}: {}{after}", raised.alert.text);
    sources.journal.note(EventKind::Alert, &text);
    tracing::warn!(key = raised.alert.key, severity = ?raised.alert.severity, "{text}");
    let setting = sources.config.current().alerts();
    if raised.alert.severity > Severity::Info || setting.info {
        post.tell(document(sources, word, raised, &after), setting);
    }
}

/// An exchange of the CA, and the members it waits for.
fn rotation(state: &ClusterState) -> Option<(Rotation, Vec<NodeId>)> {
    let rotation = state.certificates().1.rotation?;
    let waits = rotation.waits_for(&state.members);
    Some((rotation, waits))
}

/// What a heal left behind for people.
fn healed(seen: &Seen) -> String {
    let branches = seen.status.branches.len();
    match (seen.status.epoch_kind.as_str(), branches) {
        ("heal", _) => "; it goes on".to_owned(),
        (_, 0) => "; done".to_owned(),
        (_, branches) => format!("; done, {branches} accounts have a branch archived (`twinpost cluster branches`)"),
    }
}

fn document(sources: &Sources, word: &str, raised: &Raised, after: &str) -> Value {
    let state = sources.config.current();
    json!({
        "event": word,
        "cluster": state.name,
        "node": sources.node.0,
        "at_ms": wall_ms(),
        "since_ms": raised.since_ms,
        "key": raised.alert.key,
        "severity": raised.alert.severity,
        "text": format!("{}{after}", raised.alert.text),
        "advice": raised.alert.advice,
    })
}

async fn count(outbox: &dyn Outbox) -> Option<Queue> {
    let items = outbox.list(QUEUE_COUNTED_MAX).await.ok()?;
    let now = wall_ms() / 1000;
    let oldest_s = items.first().map_or(0, |item| now.saturating_sub(item.accepted_at.seconds()));
    Some(Queue { items: items.len(), oldest_s })
}

fn days_left(kind: CertificateKind, path: &std::path::Path) -> Option<Certificate> {
    let ends = i64::try_from(disk::facts(path).ok()?.ends).unwrap_or(i64::MAX);
    let left = ends - i64::try_from(wall_ms() / 1000).unwrap_or(i64::MAX);
    Some(Certificate { kind, days_left: left.div_euclid(24 * 60 * 60) })
}

/// Room as it was.
#[derive(Default)]
struct Rooms {
    /// Time (ms) and bytes free, the oldest first.
    seen: std::collections::VecDeque<(u64, u64)>,
}

impl Rooms {
    fn look(&mut self, now: u64, folder: &std::path::Path) -> Option<Room> {
        let (free, total) = files::room(folder).ok()?;
        Some(Room { free, total, loses_an_hour: self.note(now, free) })
    }

    /// Bytes lost an hour; 0 before half an hour was seen.
    fn note(&mut self, now: u64, free: u64) -> u64 {
        const EVERY_MS: u64 = 5 * 60 * 1000;
        const FIRST_MS: u64 = 30 * 60 * 1000;
        if self.seen.back().is_none_or(|(at, _)| now.saturating_sub(*at) >= EVERY_MS) {
            self.seen.push_back((now, free));
        }
        while self.seen.front().is_some_and(|(at, _)| now.saturating_sub(*at) > ROOM_WINDOW_MS) {
            self.seen.pop_front();
        }
        let Some((at, before)) = self.seen.front().copied() else { return 0 };
        let passed = now.saturating_sub(at);
        if passed < FIRST_MS { 0 } else { before.saturating_sub(free).saturating_mul(60 * 60 * 1000) / passed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loss_of_room_is_measured_over_hours() {
        let (mut rooms, minute) = (Rooms::default(), 60 * 1000);
        assert_eq!(rooms.note(0, 1_000_000), 0);
        assert_eq!(rooms.note(20 * minute, 900_000), 0, "too early to say");
        assert_eq!(rooms.note(60 * minute, 700_000), 300_000);
        assert_eq!(rooms.note(120 * minute, 800_000), 100_000, "something was deleted");
        let later = rooms.note(120 * minute + ROOM_WINDOW_MS, 800_000);
        assert_eq!(later, 0, "what is long ago does not count");
    }
}
