//! What the service manager is told, by the protocol of `sd_notify(3)`: that the doors of this node listen, that its heart
//! beats, that it stops, and in one line how it does. Without `NOTIFY_SOCKET` in the environment nothing is told.
//!
//! The daemon speaks for itself and not through its guard, so that a daemon that hangs falls silent. The guard stays the
//! main process of the service: it is what the watchdog's signal goes to, and it outlives the daemon to tell the peer.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ports::cluster::ClusterStatus;
use vocab::limits::DISK_DEAD_MS;

/// The service manager's socket.
const SOCKET: &str = "NOTIFY_SOCKET";
/// Microseconds without a beat after which the service manager ends the service.
const WATCHDOG: &str = "WATCHDOG_USEC";
/// The process that it expects to beat. The guard takes this away for the daemon, which beats instead.
pub(crate) const WATCHDOG_PID: &str = "WATCHDOG_PID";

/// An engine whose loop has not turned for so long does not live (ms). It turns twenty times a second.
const IDLE_MAX_MS: u64 = 5_000;
/// Beats within one limit of the watchdog, so that a late one or a lost one is no death.
const BEATS_PER_LIMIT: u32 = 4;
/// How often the line is looked at where no watchdog waits.
const LINE_EVERY: Duration = Duration::from_secs(2);

/// What a heart is judged by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pulse {
    /// Since the engine's loop turned last (ms).
    pub(crate) idle_ms: u64,
    /// Since a write was synced last (ms).
    pub(crate) disk_silent_ms: u64,
}

impl Pulse {
    /// Whether to beat. What the process ends itself for counts here, too: it may hang too much to do it.
    const fn beats(self) -> bool {
        self.idle_ms < IDLE_MAX_MS && self.disk_silent_ms <= DISK_DEAD_MS
    }
}

/// Speaks to the service manager, if there is one.
#[derive(Clone, Debug)]
pub(crate) struct Notifier {
    line: Option<Arc<Line>>,
    limit: Option<Duration>,
}

#[derive(Debug)]
struct Line {
    socket: UnixDatagram,
    to: SocketAddr,
    stopping: AtomicBool,
}

impl Notifier {
    /// As the environment says. An address that cannot be understood is logged and nobody is told anything.
    pub(crate) fn from_environment() -> Self {
        let number = |name| std::env::var(name).ok()?.parse::<u64>().ok();
        let ours = std::env::var_os(WATCHDOG_PID).is_none() || number(WATCHDOG_PID) == Some(std::process::id().into());
        let limit = number(WATCHDOG).filter(|micros| ours && *micros > 0).map(Duration::from_micros);
        let Some(name) = std::env::var_os(SOCKET) else { return Self { line: None, limit: None } };
        Self::open(&name, limit).unwrap_or_else(|error| {
            tracing::warn!(%error, ?name, "the service manager cannot be told anything");
            Self { line: None, limit: None }
        })
    }

    fn open(name: &OsStr, limit: Option<Duration>) -> io::Result<Self> {
        let to = match name.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            [b'/', ..] => SocketAddr::from_pathname(name)?,
            _ => return Err(io::Error::from(io::ErrorKind::Unsupported)),
        };
        let socket = UnixDatagram::unbound()?;
        // A service manager that hangs must not hold up a worker.
        socket.set_nonblocking(true)?;
        Ok(Self { line: Some(Arc::new(Line { socket, to, stopping: AtomicBool::new(false) })), limit })
    }

    /// The doors listen. From now on `look` is asked how the node does and the service manager told, until it stops.
    pub(crate) fn ready(&self, look: impl Fn() -> (Pulse, String) + Send + 'static) {
        let Some(line) = self.line.clone() else { return };
        let (_, status) = look();
        line.say(&format!("READY=1\nSTATUS={status}"));
        let every = self.limit.map_or(LINE_EVERY, |limit| (limit / BEATS_PER_LIMIT).min(LINE_EVERY));
        tokio::spawn(beat(line, every, self.limit.is_some(), status, look));
    }

    /// The node stops by order. It still beats: a stop that hangs is ended by the time limit of a stop.
    pub(crate) fn stopping(&self) {
        let Some(line) = &self.line else { return };
        line.stopping.store(true, Ordering::Relaxed);
        line.say("STOPPING=1\nSTATUS=stopping: what is in flight is finished and handed over");
    }
}

impl Line {
    fn say(&self, text: &str) {
        if let Err(error) = self.socket.send_to_addr(text.as_bytes(), &self.to) {
            tracing::warn!(%error, "the service manager was not told");
        }
    }
}

async fn beat(
    line: Arc<Line>,
    every: Duration,
    watched: bool,
    mut told: String,
    look: impl Fn() -> (Pulse, String) + Send,
) {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let (pulse, status) = look();
        if !watched {
        } else if pulse.beats() {
            line.say("WATCHDOG=1");
        } else {
            tracing::warn!(pulse.idle_ms, pulse.disk_silent_ms, "the heart does not beat");
        }
        if status != told && !line.stopping.load(Ordering::Relaxed) {
            line.say(&format!("STATUS={status}"));
            told = status;
        }
    }
}

/// How a node with mail does, in one line: `primary, joined, in sync with node 2`.
pub(crate) fn line(status: &ClusterStatus) -> String {
    let role = status.nodes.iter().find(|node| node.id == status.node).map_or("no member yet", |node| &node.role);
    let mut words = vec![role.to_owned(), status.mode.clone()];
    let others: Vec<String> =
        status.in_sync.iter().filter(|id| **id != status.node).map(|id| format!("node {id}")).collect();
    words.push(match &status.sync {
        Some(sync) if sync.node == status.node => format!("brought up to date, {} accounts left", sync.accounts_left),
        Some(sync) => format!("brings node {} up to date, {} accounts left", sync.node, sync.accounts_left),
        None if !status.in_sync.contains(&status.node) => "not in sync".to_owned(),
        None if others.is_empty() => "alone in sync".to_owned(),
        None => format!("in sync with {}", others.join(" and ")),
    });
    match status.warnings.len() {
        0 => {}
        1 => words.push("1 warning (twinpost status)".to_owned()),
        many => words.push(format!("{many} warnings (twinpost status)")),
    }
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use ports::cluster::{NodeStatus, SyncStatus};

    use super::*;

    fn status() -> ClusterStatus {
        let node = |id, role: &str| NodeStatus { id, role: role.to_owned(), ..NodeStatus::default() };
        ClusterStatus {
            node: 1,
            mode: "joined".to_owned(),
            in_sync: vec![1, 2],
            nodes: vec![node(1, "primary"), node(2, "secondary")],
            ..ClusterStatus::default()
        }
    }

    #[test]
    fn the_line_says_role_mode_and_who_is_in_sync() {
        assert_eq!(line(&status()), "primary, joined, in sync with node 2");
        let warned = ClusterStatus { warnings: vec!["x".into(), "y".into()], ..status() };
        assert_eq!(line(&warned), "primary, joined, in sync with node 2, 2 warnings (twinpost status)");
        let solo = ClusterStatus { mode: "solo".into(), in_sync: vec![1], ..status() };
        assert_eq!(line(&solo), "primary, solo, alone in sync");
        let away = ClusterStatus { node: 2, mode: "waiting".into(), in_sync: vec![1], ..status() };
        assert_eq!(line(&away), "secondary, waiting, not in sync");
        let sync = SyncStatus { node: 2, accounts_left: 7, ..SyncStatus::default() };
        let heals = ClusterStatus { in_sync: vec![1], sync: Some(sync.clone()), ..status() };
        assert_eq!(line(&heals), "primary, joined, brings node 2 up to date, 7 accounts left");
        let healed = ClusterStatus { node: 2, in_sync: vec![1], sync: Some(sync), ..status() };
        assert_eq!(line(&healed), "secondary, joined, brought up to date, 7 accounts left");
        assert_eq!(
            line(&ClusterStatus { nodes: Vec::new(), ..status() }),
            "no member yet, joined, in sync with node 2"
        );
    }

    #[test]
    fn a_heart_beats_only_while_engine_and_disk_do() {
        let well = Pulse { idle_ms: 60, disk_silent_ms: 1_200 };
        assert!(well.beats());
        assert!(!Pulse { idle_ms: IDLE_MAX_MS, ..well }.beats());
        assert!(!Pulse { disk_silent_ms: DISK_DEAD_MS + 1, ..well }.beats());
    }

    fn heard(manager: &UnixDatagram) -> Option<String> {
        let mut bytes = [0u8; 512];
        let length = manager.recv(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(bytes.get(..length)?).into_owned())
    }

    async fn hears_from(manager: UnixDatagram, name: &OsStr) {
        manager.set_read_timeout(Some(Duration::from_secs(10))).expect("time limit");
        let notifier = Notifier::open(name, Some(Duration::from_millis(40))).expect("opened");
        let ill = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&ill);
        notifier.ready(move || {
            let idle_ms = if seen.load(Ordering::Relaxed) { IDLE_MAX_MS } else { 0 };
            (Pulse { idle_ms, disk_silent_ms: 0 }, if idle_ms == 0 { "well" } else { "ill" }.to_owned())
        });
        let next = |manager: UnixDatagram| async move {
            tokio::task::spawn_blocking(move || (heard(&manager), manager)).await.expect("heard")
        };
        let (first, manager) = next(manager).await;
        assert_eq!(first.as_deref(), Some("READY=1\nSTATUS=well"));
        let (second, mut manager) = next(manager).await;
        assert_eq!(second.as_deref(), Some("WATCHDOG=1"));
        ill.store(true, Ordering::Relaxed);
        // Beats of before may be under way.
        loop {
            let (word, back) = next(manager).await;
            manager = back;
            match word.as_deref() {
                Some("WATCHDOG=1") => {}
                Some("STATUS=ill") => break,
                other => panic!("{other:?}"),
            }
        }
        manager.set_read_timeout(Some(Duration::from_millis(200))).expect("time limit");
        let (silence, manager) = next(manager).await;
        assert_eq!(silence, None, "no beat while it is ill");
        notifier.stopping();
        let (last, _) = next(manager).await;
        assert!(last.is_some_and(|word| word.starts_with("STOPPING=1\n")));
    }

    #[tokio::test]
    async fn a_service_manager_hears_by_path_and_by_abstract_name() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("notify");
        hears_from(UnixDatagram::bind(&path).expect("bound"), path.as_os_str()).await;
        let name = format!("twinpost-notify-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("name");
        hears_from(UnixDatagram::bind_addr(&address).expect("bound"), OsStr::new(&format!("@{name}"))).await;
        assert!(Notifier::open(OsStr::new("vsock:2:1"), None).is_err());
    }
}
