//! What a service manager hears of a node, and what its signals do: the guard is its main process, the daemon speaks.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use node::demo::pair::Pair;
use tokio::process::{Child, Command};

/// How long something that is awaited may take.
const LIMIT: Duration = Duration::from_secs(30);
/// The watchdog's limit; a beat comes four times as often.
const WATCHDOG: Duration = Duration::from_secs(2);

/// Stands for the service manager: starts a node's guard, and hears.
struct Manager {
    socket: UnixDatagram,
    guard: Child,
    /// Of the daemon.
    pid: i32,
}

/// One message.
fn hear(socket: &UnixDatagram) -> Option<String> {
    let mut bytes = [0u8; 1024];
    let length = socket.recv(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(bytes.get(..length)?).into_owned())
}

impl Manager {
    /// Starts the node, which must not run, and returns when it says that it is ready; gives that word.
    async fn start(pair: &Pair, node: usize, folder: &Path) -> anyhow::Result<(Self, String)> {
        let place = folder.join(format!("notify-{}", rand::random::<u32>()));
        let socket = UnixDatagram::bind(&place)?;
        socket.set_read_timeout(Some(LIMIT))?;
        let guard = Command::new(&pair.options.binary)
            .args(["guard", "--config"])
            .arg(pair.node(node)?.config())
            .env("NOTIFY_SOCKET", &place)
            .env("WATCHDOG_USEC", WATCHDOG.as_micros().to_string())
            // Some process that is not the daemon, as a service manager names the guard.
            .env("WATCHDOG_PID", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let first = tokio::task::block_in_place(|| hear(&socket)).context("no word at all")?;
        let pid = pair.node(node)?.live_pid().context("ready, and no daemon")?;
        Ok((Self { socket, guard, pid }, first))
    }

    /// Hears until a message fits.
    fn hear_until(&self, fits: impl Fn(&str) -> bool) -> anyhow::Result<String> {
        let begun = Instant::now();
        while begun.elapsed() < LIMIT {
            match tokio::task::block_in_place(|| hear(&self.socket)) {
                Some(word) if fits(&word) => return Ok(word),
                Some(_) => {}
                None => break,
            }
        }
        bail!("not heard in time")
    }

    /// Signals the guard and waits for its end.
    async fn end_by(&mut self, signal: Signal) -> anyhow::Result<ExitStatus> {
        let guard = i32::try_from(self.guard.id().context("guard")?)?;
        kill(Pid::from_raw(guard), signal)?;
        Ok(tokio::time::timeout(LIMIT, self.guard.wait()).await.context("the guard does not end")??)
    }
}

async fn manage(pair: &mut Pair, folder: &Path) -> anyhow::Result<()> {
    pair.stop().await;
    let (mut manager, first) = Manager::start(pair, 0, folder).await?;
    ensure!(first.starts_with("READY=1\nSTATUS="), "{first}");
    let doors = [pair.ports.smtp, pair.ports.imap, pair.ports.https];
    for port in doors {
        let door = std::net::SocketAddr::new(pair.node(0)?.address, port);
        std::net::TcpStream::connect(door).with_context(|| format!("ready, and {door} does not listen"))?;
    }
    let whole = "STATUS=primary, joined, alone in sync";
    // It may be so from the first word on; said once, so it is looked for before anything else is passed over.
    if !first.ends_with(whole) {
        manager.hear_until(|word| word == whole).with_context(|| format!("first: {first}"))?;
    }
    for _ in 0..3 {
        manager.hear_until(|word| word == "WATCHDOG=1")?;
    }
    let ended = manager.end_by(Signal::SIGTERM).await?;
    ensure!(ended.success(), "a planned stop: {ended}");
    manager.hear_until(|word| word.starts_with("STOPPING=1\n"))?;

    // A daemon that hangs falls silent; the watchdog's signal ends it through the guard, which says so.
    let (mut manager, _) = Manager::start(pair, 0, folder).await?;
    kill(Pid::from_raw(manager.pid), Signal::SIGSTOP)?;
    manager.socket.set_read_timeout(Some(WATCHDOG))?;
    let begun = Instant::now();
    while tokio::task::block_in_place(|| hear(&manager.socket)).is_some() {
        ensure!(begun.elapsed() < LIMIT, "a stopped daemon beats");
    }
    let ended = manager.end_by(Signal::SIGABRT).await?;
    ensure!(ended.code() == Some(2), "as after every violent end: {ended}");
    ensure!(pair.node(0)?.live_pid().is_none(), "the guard ended before the daemon");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_manager_hears_the_node_and_ends_it() {
    let mut fixture = e2e::single(1).await.expect("a node");
    let outcome = manage(&mut fixture.pair, fixture.folder.path()).await;
    if let Err(fault) = outcome {
        panic!("{fault:#}\n{}", e2e::logs(&fixture.pair));
    }
    fixture.pair.start_node(0).await.expect("starts again");
    fixture.pair.stop().await;
}
