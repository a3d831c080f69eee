//! Provider `exec`: an operator's programs move the address, for clouds and for what is there already.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use crate::device::{Bits, Lease};

/// Output of a hook that is kept for log and status (bytes).
const OUTPUT_BYTES_MAX: usize = 2_000;

/// The programs, each run without arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hooks {
    /// Makes the address arrive at this machine.
    pub acquire: PathBuf,
    /// Ends that; also run by the guard when the daemon ended. That it is not here is no fault.
    pub release: PathBuf,
    /// Tells the network again, after `acquire` and a few times later.
    pub announce: Option<PathBuf>,
    /// Exits with 0 when nobody else has the address; run once at start.
    pub check: Option<PathBuf>,
    /// For TWINPOST_INTERFACE.
    pub interface: Option<String>,
    /// For TWINPOST_PREFIX.
    pub prefix: Bits,
    /// How long one may run; then it is killed and has failed.
    pub time_limit: Duration,
}

/// Which one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hook {
    Acquire,
    Release,
    Announce,
    Check,
}

impl Hook {
    const fn name(self) -> &'static str {
        match self {
            Self::Acquire => "acquire",
            Self::Release => "release",
            Self::Announce => "announce",
            Self::Check => "check",
        }
    }
    const fn program(self, hooks: &Hooks) -> Option<&PathBuf> {
        match self {
            Self::Acquire => Some(&hooks.acquire),
            Self::Release => Some(&hooks.release),
            Self::Announce => hooks.announce.as_ref(),
            Self::Check => hooks.check.as_ref(),
        }
    }
}

/// What a hook finds in its environment, beside what the daemon has.
fn environment(hooks: &Hooks, hook: Hook, lease: &Lease) -> Vec<(&'static str, String)> {
    vec![
        ("TWINPOST_HOOK", hook.name().to_owned()),
        ("TWINPOST_ADDRESS", lease.address.to_string()),
        ("TWINPOST_PREFIX", hooks.prefix.of(lease).to_string()),
        ("TWINPOST_INTERFACE", hooks.interface.clone().unwrap_or_default()),
        ("TWINPOST_REASON", lease.reason.to_owned()),
        ("TWINPOST_EPOCH", lease.epoch.clone()),
    ]
}

/// Runs a hook to its end; one that is not configured has done its work.
pub(crate) async fn run(hooks: &Hooks, hook: Hook, lease: &Lease) -> Result<(), String> {
    let Some(program) = hook.program(hooks) else { return Ok(()) };
    let name = hook.name();
    let child = tokio::process::Command::new(program)
        .envs(environment(hooks, hook, lease))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("hook {name}: {}: {error}", program.display()))?;
    let limit = hooks.time_limit;
    let ended = tokio::time::timeout(limit, child.wait_with_output()).await;
    let output = match ended {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => return Err(format!("hook {name}: {error}")),
        Err(_) => return Err(format!("hook {name} took longer than {} ms and was killed", limit.as_millis())),
    };
    let said = said(&output.stdout, &output.stderr);
    tracing::info!(hook = name, reason = lease.reason, status = %output.status, output = said, "hook of the cluster address");
    if output.status.success() { Ok(()) } else { Err(format!("hook {name} failed ({}): {said}", output.status)) }
}

fn said(stdout: &[u8], stderr: &[u8]) -> String {
    let text = [stdout, stderr].map(|bytes| String::from_utf8_lossy(bytes).trim().to_owned());
    let all: String = text.join(" ").trim().to_owned();
    all.chars().take(OUTPUT_BYTES_MAX).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;

    use super::*;

    fn script(folder: &Path, name: &str, body: &str) -> PathBuf {
        let path = folder.join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{body}\n")).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).expect("executable");
        path
    }

    fn hooks(folder: &Path, acquire: &str, limit: Duration) -> Hooks {
        Hooks {
            acquire: script(folder, "acquire", acquire),
            release: script(folder, "release", "exit 0"),
            announce: None,
            check: None,
            interface: Some("eth0".into()),
            prefix: Bits::both(Some(24)),
            time_limit: limit,
        }
    }

    fn lease() -> Lease {
        Lease { epoch: "7.1".into(), ..Lease::of("192.0.2.10".parse().expect("address"), "takeover") }
    }

    #[tokio::test]
    async fn a_hook_finds_what_it_needs_in_its_environment() {
        let folder = tempfile::tempdir().expect("folder");
        let out = folder.path().join("out");
        let hooks =
            hooks(folder.path(), &format!("env | grep ^TWINPOST_ | sort > {}", out.display()), Duration::from_secs(20));
        run(&hooks, Hook::Acquire, &lease()).await.expect("done");
        let text = std::fs::read_to_string(out).expect("written");
        assert_eq!(
            text,
            "TWINPOST_ADDRESS=192.0.2.10\nTWINPOST_EPOCH=7.1\nTWINPOST_HOOK=acquire\nTWINPOST_INTERFACE=eth0\n\
             TWINPOST_PREFIX=24\nTWINPOST_REASON=takeover\n"
        );
        run(&hooks, Hook::Announce, &lease()).await.expect("a hook that is not there has nothing to do");
    }

    #[tokio::test]
    async fn a_failing_hook_says_why() {
        let folder = tempfile::tempdir().expect("folder");
        let hooks = hooks(folder.path(), "echo no such subnet >&2; exit 3", Duration::from_secs(20));
        let fault = run(&hooks, Hook::Acquire, &lease()).await.expect_err("failed");
        assert!(fault.contains("acquire") && fault.contains("no such subnet") && fault.contains('3'), "{fault}");
    }

    #[tokio::test]
    async fn a_hook_that_hangs_is_killed() {
        let folder = tempfile::tempdir().expect("folder");
        let hooks = hooks(folder.path(), "exec sleep 600", Duration::from_millis(50));
        let fault = run(&hooks, Hook::Acquire, &lease()).await.expect_err("killed");
        assert!(fault.contains("longer than 50 ms"), "{fault}");
    }
}
