//! The program of the commit before this one, for tests of an upgrade.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};

/// What the program says of itself, where it says so.
const VERSION: &str = "0.0.0-previous";

/// The binary `TWINPOST_PREVIOUS_BIN`, or one that is built from the commit `TWINPOST_PREVIOUS`: unless said the one before
/// this, or this one when files of the working tree differ from it. Source and target lie beside this test's own target and
/// are kept. `None`: there is no repository, or it does not reach back so far.
///
/// # Errors
/// The source cannot be taken out, or does not build.
pub fn previous() -> anyhow::Result<Option<PathBuf>> {
    if let Some(path) = std::env::var_os("TWINPOST_PREVIOUS_BIN") {
        return Ok(Some(PathBuf::from(path)));
    }
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let changed = git(here, &["status", "--porcelain", "--untracked-files=no"]).unwrap_or_default();
    let commit = std::env::var("TWINPOST_PREVIOUS");
    let commit = commit.unwrap_or_else(|_| if changed.is_empty() { "HEAD~1" } else { "HEAD" }.to_owned());
    let Ok(commit) = git(here, &["rev-parse", "--verify", "--quiet", &format!("{commit}^{{commit}}")]) else {
        return Ok(None);
    };
    // This test lies in target/PROFILE/deps.
    let test = std::env::current_exe()?;
    let folder = test.ancestors().nth(3).context("a target folder")?.join("previous");
    let source = folder.join("source");
    // A repository of its own: clones that share a target folder take turns with it.
    if !source.join(".git").is_dir() {
        if source.exists() {
            std::fs::remove_dir_all(&source)?;
        }
        std::fs::create_dir_all(&source)?;
        git(&source, &["init", "--quiet"])?;
    }
    let repository = git(here, &["rev-parse", "--show-toplevel"])?;
    git(&source, &["fetch", "--quiet", "--no-tags", &repository, &commit])?;
    git(&source, &["checkout", "--quiet", "--force", "--detach", &commit])?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args(["build", "--quiet", "--locked", "-p", "node", "--bin", "twinpost"])
        .current_dir(&source)
        .env("CARGO_TARGET_DIR", folder.join("target"))
        // It is run, not looked into.
        .env("CARGO_PROFILE_DEV_DEBUG", "0")
        .env("TWINPOST_VERSION", VERSION)
        .status()?;
    ensure!(built.success(), "the program of {commit} does not build");
    Ok(Some(folder.join("target/debug/twinpost")))
}

/// What git says, without the line's end.
fn git(folder: &Path, words: &[&str]) -> anyhow::Result<String> {
    let said = Command::new("git").arg("-C").arg(folder).args(words).output().context("git")?;
    ensure!(said.status.success(), "git {}: {}", words.join(" "), String::from_utf8_lossy(&said.stderr));
    Ok(String::from_utf8_lossy(&said.stdout).trim_end().to_owned())
}
