//! `twinpost demo --stop`: ends what a detached demo left running, found by the node files its processes name.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::process::Signal;

use super::TEMPORARY_MARK;
use super::node_process::{names_file, send};
use super::pair::LOOK_INTERVAL;

/// How long processes may take to end when asked.
const ASK_LIMIT: Duration = Duration::from_secs(10);

/// Ends all processes of the pair in `dir` and returns when they are gone. A folder that does not exist, or a pair that
/// is stopped already, is done.
///
/// # Errors
/// The folder or the list of processes cannot be read.
pub async fn stop(dir: &Path) -> anyhow::Result<()> {
    let Ok(dir) = dir.canonicalize() else { return Ok(()) };
    let files: Vec<PathBuf> = ["n1", "n2"].iter().map(|node| dir.join(node).join("twinpost.toml")).collect();
    let start = Instant::now();
    let mut asked = Vec::new();
    loop {
        let running = running(&files)?;
        if running.is_empty() {
            break;
        }
        for &pid in &running {
            if start.elapsed() > ASK_LIMIT {
                send(pid, Signal::KILL);
            } else if !asked.contains(&pid) {
                send(pid, Signal::TERM);
                asked.push(pid);
            }
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    if dir.join(TEMPORARY_MARK).exists() {
        std::fs::remove_dir_all(&dir).with_context(|| dir.display().to_string())?;
    }
    Ok(())
}

fn running(files: &[PathBuf]) -> anyhow::Result<Vec<i32>> {
    let mut pids = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|text| text.parse().ok()) else { continue };
        if files.iter().any(|file| names_file(pid, file)) {
            pids.push(pid);
        }
    }
    Ok(pids)
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[tokio::test]
    async fn stopping_twice_and_stopping_nothing_are_done() {
        let dir = tempfile::tempdir().expect("folder");
        std::fs::create_dir(dir.path().join("n1")).expect("folder");
        let file = dir.path().canonicalize().expect("path").join("n1/twinpost.toml");
        // Any process that names the node file is one of the pair's.
        let mut child = Command::new("tail")
            .args(["-f", "/dev/null", "--"])
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a process");
        // A process may be there a moment before its arguments are: the kernel lets the parent go on before it has
        // written them.
        let files = [file];
        while running(&files).expect("processes").is_empty() {
            assert!(child.try_wait().expect("asked").is_none(), "it ended before it was stopped");
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        let reaper = std::thread::spawn(move || child.wait());
        stop(dir.path()).await.expect("stopped");
        assert!(!reaper.join().expect("joined").expect("waited").success());
        stop(dir.path()).await.expect("stopped again");
        stop(&dir.path().join("nothing")).await.expect("nothing to stop");
    }
}
