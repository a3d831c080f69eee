//! The guard: parent of the daemon. The moment the daemon ends, for whatever reason, it takes the cluster address away
//! from this machine and tells the other nodes over mutual TLS that the process of this boot is gone, so they need not
//! wait for silence (DESIGN 6, 8).
//!
//! Under a service manager the guard is the main process: it is asked to stop, and it gets the signal of a watchdog that
//! heard nothing from the daemon. Both go on to the daemon, so that the guard is there when it has ended.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;
use topology::ClusterAddress;

use crate::config::{self, NodeConfig};
use crate::files::{self, DataDir};
use crate::notify::WATCHDOG_PID;

/// `twinpost guard`
#[derive(Debug, clap::Args)]
pub struct GuardArgs {
    /// Node file.
    #[arg(long, default_value = config::DEFAULT_CONFIG)]
    pub config: PathBuf,
    /// Wait until this machine is made a node (`cluster init`, `cluster join`) instead of refusing to start: for containers,
    /// in which that is done.
    #[arg(long)]
    pub wait: bool,
}

/// What the daemon leaves for its guard.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct GuardNote {
    /// Process id of the daemon that wrote it.
    pub pid: u32,
    /// Node id.
    pub node: u32,
    /// Its boot.
    pub boot: u32,
    /// Other members: id and peer addresses, one for each path.
    pub peers: Vec<(u32, Vec<String>)>,
    /// The cluster addresses, with those that this process may still have of before.
    #[serde(default)]
    pub cluster_addresses: Vec<ClusterAddress>,
}

/// How long the guard tries to reach a peer with its word.
const WORD_WAIT: Duration = Duration::from_secs(5);
/// How long a daemon that hangs may take to leave a core, where one is wanted. One that is stopped does not even notice that
/// it should end, and is killed then.
const ABORT_WAIT: Duration = Duration::from_secs(5);

/// How often the guard looks whether this machine was made a node.
const NODE_LOOK: Duration = Duration::from_millis(500);

/// Runs `serve` as a child and ends with its status.
///
/// # Errors
/// When the child cannot be started.
pub fn run(args: &GuardArgs) -> anyhow::Result<ExitCode> {
    let config = NodeConfig::load(&args.config)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        if args.wait && !await_node(&DataDir(config.data_dir.clone())).await? {
            return Ok(ExitCode::SUCCESS);
        }
        watch(&args.config, &config).await
    })
}

/// Returns when there is a node in the folder; false when the guard is asked to end before.
async fn await_node(data: &DataDir) -> anyhow::Result<bool> {
    // Asked for by name, because the first process of a container gets no signal that it does not ask for.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    if !data.identity().exists() {
        eprintln!("twinpost guard: waiting for `twinpost cluster init` or `twinpost cluster join` on this machine");
    }
    while !data.identity().exists() {
        tokio::select! {
            () = tokio::time::sleep(NODE_LOOK) => {}
            _ = terminate.recv() => return Ok(false),
            _ = interrupt.recv() => return Ok(false),
        }
    }
    Ok(true)
}

async fn watch(config_path: &Path, config: &NodeConfig) -> anyhow::Result<ExitCode> {
    let data = DataDir(config.data_dir.clone());
    let program = std::env::current_exe().context("find our own program")?;
    let mut child = tokio::process::Command::new(program)
        .arg("serve")
        .arg("--config")
        .arg(config_path)
        // The daemon beats for the watchdog, whatever process was meant to.
        .env_remove(WATCHDOG_PID)
        .spawn()
        .context("start the daemon")?;
    let pid = child.id().context("the daemon has no process id")?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangs = signal(SignalKind::from_raw(Signal::ABORT.as_raw()))?;
    let mut kill_at = None;
    let status = loop {
        tokio::select! {
            status = child.wait() => break status.context("wait for the daemon")?,
            _ = terminate.recv() => pass_on(pid, Signal::TERM),
            _ = interrupt.recv() => pass_on(pid, Signal::TERM),
            _ = hangs.recv() => {
                eprintln!("twinpost guard: the watchdog heard nothing from the daemon (process {pid}): it is ended");
                pass_on(pid, Signal::ABORT);
                kill_at = Some(Instant::now() + ABORT_WAIT);
            }
            () = at(kill_at) => {
                kill_at = None;
                pass_on(pid, Signal::KILL);
            }
        }
    };
    if let Some(note) = read_note(&data, pid) {
        // Whoever takes over announces the address; until then nobody should answer for it here.
        tokio::join!(remove_address(config, &note), tell_peers(&data, &note));
    }
    let code = status.code().and_then(|c| u8::try_from(c).ok());
    eprintln!("twinpost guard: the daemon (process {pid}) ended: {status}");
    Ok(code.map_or(ExitCode::from(2), ExitCode::from))
}

/// Returns at that moment; without one never.
async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

fn pass_on(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) {
        // The child may be gone already; wait() tells.
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// What the daemon left. Nothing when it ended before it had raised its boot: nobody has shaken hands with it.
fn read_note(data: &DataDir, pid: u32) -> Option<GuardNote> {
    let text = files::read_text(&data.guard()).ok()?;
    serde_json::from_str(&text).ok().filter(|note: &GuardNote| note.pid == pid)
}

async fn remove_address(config: &NodeConfig, note: &GuardNote) {
    let Some(provider) = &config.provider else { return };
    for address in &note.cluster_addresses {
        crate::address::remove(provider, *address).await;
    }
}

/// Says "process of boot N ended" to every other node, all at once.
async fn tell_peers(data: &DataDir, note: &GuardNote) {
    let Ok(identity) = crate::certificates::disk::node_tls(data) else { return };
    let words = note.peers.iter().map(|(peer, addresses)| {
        let tls = identity.clone();
        let boot = vocab::Boot(note.boot);
        async move {
            let word = transport::send_guard_word(&tls, vocab::NodeId(*peer), addresses, boot);
            match tokio::time::timeout(WORD_WAIT, word).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => eprintln!("twinpost guard: node {peer} not told: {error}"),
                Err(_) => eprintln!("twinpost guard: node {peer} not told in time"),
            }
        }
    });
    futures_util::future::join_all(words).await;
}
