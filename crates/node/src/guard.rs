//! The guard: parent of the daemon. The moment the daemon ends, for whatever reason, it takes the cluster address away
//! from this machine and tells the other nodes over mutual TLS that the process of this boot is gone, so they need not
//! wait for silence (DESIGN 6, 8).

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use topology::ClusterAddress;

use crate::config::NodeConfig;
use crate::files::{self, DataDir};

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

/// Runs `serve` as a child and ends with its status.
///
/// # Errors
/// When the child cannot be started.
pub fn run(config_path: &Path) -> anyhow::Result<ExitCode> {
    let config = NodeConfig::load(config_path)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(watch(config_path, &config))
}

async fn watch(config_path: &Path, config: &NodeConfig) -> anyhow::Result<ExitCode> {
    let data = DataDir(config.data_dir.clone());
    let program = std::env::current_exe().context("find our own program")?;
    let mut child = tokio::process::Command::new(program)
        .arg("serve")
        .arg("--config")
        .arg(config_path)
        .spawn()
        .context("start the daemon")?;
    let pid = child.id().context("the daemon has no process id")?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let status = loop {
        tokio::select! {
            status = child.wait() => break status.context("wait for the daemon")?,
            _ = terminate.recv() => pass_on(pid),
            _ = interrupt.recv() => pass_on(pid),
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

fn pass_on(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) {
        // The child may be gone already; wait() tells.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
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
    let Ok(identity) = crate::serve::node_tls(data) else { return };
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
