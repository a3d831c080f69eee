//! What `cargo metadata` says, as far as the rules need it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// The resolved workspace with everything it depends on.
#[derive(Deserialize)]
pub struct Metadata {
    /// Every package, ours and others'.
    pub packages: Vec<Package>,
    /// Ids of our own.
    pub workspace_members: Vec<String>,
}

/// One package.
#[derive(Deserialize)]
pub struct Package {
    /// Opaque id.
    pub id: String,
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
    /// SPDX expression.
    pub license: Option<String>,
    /// File with terms that have no SPDX expression.
    pub license_file: Option<String>,
    /// Its Cargo.toml.
    pub manifest_path: PathBuf,
    /// What it names, of every kind.
    pub dependencies: Vec<Dependency>,
}

/// One line of a dependency section.
#[derive(Deserialize)]
pub struct Dependency {
    /// Name of the package.
    pub name: String,
    /// `None` = normal, else `dev` or `build`.
    pub kind: Option<String>,
}

impl Metadata {
    /// Our own packages.
    pub fn members(&self) -> impl Iterator<Item = &Package> {
        self.packages.iter().filter(|package| self.workspace_members.contains(&package.id))
    }
}

impl Package {
    /// Names of normal dependencies.
    pub fn imports(&self) -> impl Iterator<Item = &str> {
        self.dependencies.iter().filter(|dependency| dependency.kind.is_none()).map(|d| d.name.as_str())
    }
    /// Folder of the package.
    pub fn folder(&self) -> &Path {
        self.manifest_path.parent().unwrap_or(Path::new("."))
    }
    /// Folder above the package: `crates`, `cluster`, `tests`.
    pub fn room(&self) -> &str {
        self.folder().parent().and_then(Path::file_name).and_then(|name| name.to_str()).unwrap_or_default()
    }
}

/// Asks cargo.
///
/// # Errors
/// When cargo fails; its own words are on standard error.
pub fn read(root: &Path) -> Result<Metadata> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--locked"])
        .current_dir(root)
        .stderr(std::process::Stdio::inherit())
        .output()
        .context("run cargo metadata")?;
    ensure!(output.status.success(), "cargo metadata failed");
    serde_json::from_slice(&output.stdout).context("read the answer of cargo metadata")
}
