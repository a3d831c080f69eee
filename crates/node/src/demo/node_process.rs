//! One node as processes: the guard, and the serving process it watches.

use std::net::IpAddr;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal};
use tokio::process::{Child, Command};

use super::pair::{LOOK_INTERVAL, PairOptions, START_LIMIT};
use crate::config::Ports;

/// How long a process may take to end when asked.
const END_LIMIT: Duration = Duration::from_secs(10);
/// How much of a log is shown when something went wrong (lines).
const LOG_LINES: usize = 25;

/// One node of a pair.
pub struct NodeProcess {
    /// Node id.
    pub id: usize,
    /// Name.
    pub name: String,
    /// Its own address.
    pub address: IpAddr,
    folder: PathBuf,
    guard: Option<Child>,
    leave: bool,
}

impl NodeProcess {
    /// Writes the node file; starts nothing.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn new(options: &PairOptions, id: usize, address: IpAddr, ports: &Ports) -> anyhow::Result<Self> {
        let name = format!("n{id}");
        let folder = options.dir.join(&name);
        std::fs::create_dir_all(&folder)?;
        let node = Self { id, name, address, folder, guard: None, leave: false };
        let text = format!(
            "name = \"{name}\"\nhostname = \"{name}.{domain}\"\naddress = \"{address}\"\ndata_dir = {data:?}\n\
             allow_plaintext = {plain}\nlog = {log:?}\n{keys}\n[ports]\n{ports}\n{more}",
            keys = options.keys.get(id.saturating_sub(1)).map(String::as_str).unwrap_or_default(),
            more = options.more,
            name = node.name,
            domain = options.domain,
            data = node.data_dir(),
            plain = options.allow_plaintext,
            log = options.log,
            ports = ports.named().map(|(name, port)| format!("{name} = {port}\n")).collect::<String>(),
        );
        std::fs::write(node.config(), text)?;
        Ok(node)
    }

    /// The node file.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.folder.join("twinpost.toml")
    }

    /// Everything the node keeps.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// What guard and serving process print.
    #[must_use]
    pub fn log_file(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// The last lines of the log.
    #[must_use]
    pub fn log_end(&self) -> String {
        let text = std::fs::read(self.log_file()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        lines.get(lines.len().saturating_sub(LOG_LINES)..).unwrap_or_default().join("\n")
    }

    /// The serving process, if it runs.
    #[must_use]
    pub fn live_pid(&self) -> Option<i32> {
        let text = std::fs::read_to_string(self.data_dir().join("twinpost.pid")).ok()?;
        let pid = text.trim().parse().ok()?;
        names_file(pid, &self.config()).then_some(pid)
    }

    /// The guard, if it was started here and runs.
    #[must_use]
    pub fn guard_pid(&self) -> Option<i32> {
        let pid = self.guard.as_ref()?.id()?;
        i32::try_from(pid).ok()
    }

    /// Starts guard and serving process; returns when the latter wrote its pid.
    ///
    /// # Errors
    /// It ended or wrote none in time; the end of the log is in the message.
    pub async fn start(&mut self, binary: &Path) -> anyhow::Result<()> {
        // The guard ends after its process; until then the addresses may be in use.
        self.await_end().await;
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log_file())?;
        let guard = Command::new(binary)
            .arg("guard")
            .arg("--config")
            .arg(self.config())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // The log is a file.
            .env("NO_COLOR", "1")
            // Ctrl-C at the terminal reaches this program alone, which then ends the nodes in order.
            .process_group(0)
            .spawn()
            .with_context(|| binary.display().to_string())?;
        self.guard = Some(guard);
        let start = Instant::now();
        while self.live_pid().is_none() {
            let ended = self.guard.as_mut().and_then(|guard| guard.try_wait().ok().flatten());
            if ended.is_some() || start.elapsed() > START_LIMIT {
                bail!("{} did not start ({ended:?}); its log ends:\n{}", self.name, self.log_end());
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        Ok(())
    }

    /// SIGKILL to the serving process, which then is gone; the guard is left to report it.
    ///
    /// # Errors
    /// It does not run.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        let pid = self.live_pid().with_context(|| format!("{} does not run", self.name))?;
        send(pid, Signal::KILL);
        while names_file(pid, &self.config()) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    /// SIGKILL to the guard's process group: nobody is left to report the end.
    ///
    /// # Errors
    /// It does not run.
    pub async fn kill_group(&mut self) -> anyhow::Result<()> {
        let pid = self.live_pid().with_context(|| format!("{} does not run", self.name))?;
        let guard = self.guard_pid().with_context(|| format!("{}: no guard", self.name))?;
        if let Some(group) = Pid::from_raw(guard) {
            let _ = rustix::process::kill_process_group(group, Signal::KILL);
        }
        // In case the serving process left the group.
        send(pid, Signal::KILL);
        self.await_end().await;
        Ok(())
    }

    /// SIGSTOP or SIGCONT to guard and serving process.
    pub fn pause(&self, stopped: bool) {
        let signal = if stopped { Signal::STOP } else { Signal::CONT };
        for pid in self.guard_pid().into_iter().chain(self.live_pid()) {
            send(pid, signal);
        }
    }

    /// Waits until every thread of the serving process has stopped: a signal is sent, not obeyed at once.
    ///
    /// # Errors
    /// Not within a time in which any write should have ended.
    pub async fn await_paused(&self) -> anyhow::Result<()> {
        let pid = self.live_pid().with_context(|| format!("{} does not run", self.name))?;
        let begun = Instant::now();
        while !is_stopped(pid) {
            if begun.elapsed() > END_LIMIT {
                bail!("{} does not stop", self.name);
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    /// SIGTERM to the guard, which passes it on.
    pub fn ask_to_end(&self) {
        for pid in self.guard_pid().into_iter().chain(self.live_pid()) {
            send(pid, Signal::TERM);
        }
    }

    /// Waits until guard and serving process are gone; kills them after a limit.
    pub async fn await_end(&mut self) -> Option<ExitStatus> {
        let status = match self.guard.as_mut() {
            Some(guard) => match tokio::time::timeout(END_LIMIT, guard.wait()).await {
                Ok(status) => status.ok(),
                Err(_) => {
                    let _ = guard.kill().await;
                    Some(ExitStatus::from_raw(9))
                }
            },
            None => None,
        };
        self.guard = None;
        if let Some(pid) = self.live_pid() {
            send(pid, Signal::KILL);
            while names_file(pid, &self.config()) {
                tokio::time::sleep(LOOK_INTERVAL).await;
            }
        }
        status
    }

    /// Lets the processes outlive this value.
    pub fn leave_running(&mut self) {
        self.leave = true;
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        if self.leave {
            return;
        }
        for pid in self.guard_pid().into_iter().chain(self.live_pid()) {
            send(pid, Signal::KILL);
        }
    }
}

/// Whether process `pid` runs (is no zombie) and its command line names `file`.
#[must_use]
pub fn names_file(pid: i32, file: &Path) -> bool {
    // The command line of a zombie is empty.
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|&byte| byte == 0).any(|word| word == file.as_os_str().as_encoded_bytes())
}

/// Whether all threads of a process are stopped, by their state in `/proc`.
fn is_stopped(pid: i32) -> bool {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    tasks.into_iter().all(|task| {
        let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        // A thread that has ended meanwhile writes nothing any more.
        stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['T', 't', 'Z', 'X']))
    })
}

/// Sends a signal to one process; that it is gone already is no fault.
pub fn send(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}
