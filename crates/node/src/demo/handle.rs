//! The JSON by which test tools find a running pair: addresses, ports, logins, processes.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::json;

use super::pair::{CLUSTER_ADDRESS, Pair};

/// Where a copy always lies, in the folder of the pair.
pub fn own_file(dir: &Path) -> PathBuf {
    dir.join("demo.json")
}

/// Writes the document to the pair's folder and to `asked`, each by rename and readable by the owner only.
///
/// # Errors
/// A file cannot be written, or a node does not run.
pub fn write(pair: &Pair, asked: Option<&Path>) -> anyhow::Result<()> {
    let mut nodes = Vec::new();
    for node in &pair.nodes {
        nodes.push(json!({
            "id": node.id,
            "name": node.name,
            "address": node.address,
            "pid": node.live_pid().with_context(|| format!("{} does not run", node.name))?,
            "data_dir": node.data_dir(),
        }));
    }
    let document = json!({
        "cluster": {"address": CLUSTER_ADDRESS},
        "nodes": nodes,
        "ports": BTreeMap::from(pair.ports.of_clients()),
        "domain": pair.options.domain,
        "accounts": pair.options.accounts,
        "ca_file": pair.ca_file(),
        "admin_token": pair.admin_token(),
    });
    let text = serde_json::to_string_pretty(&document)?;
    for file in [Some(own_file(&pair.options.dir)).as_deref(), asked].into_iter().flatten() {
        replace(file, &text).with_context(|| file.display().to_string())?;
    }
    Ok(())
}

fn replace(file: &Path, text: &str) -> std::io::Result<()> {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", std::process::id()));
    let neighbour = file.with_file_name(name);
    let mut options = std::fs::OpenOptions::new();
    let mut out = options.write(true).create(true).truncate(true).mode(0o600).open(&neighbour)?;
    out.write_all(text.as_bytes())?;
    out.write_all(b"\n")?;
    out.sync_all()?;
    std::fs::rename(&neighbour, file)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_file_is_the_owners_alone_and_replaced_whole() {
        let dir = tempfile::tempdir().expect("folder");
        let file = dir.path().join("out.json");
        std::fs::write(&file, "something much longer than what follows").expect("write");
        replace(&file, "{}").expect("replace");
        assert_eq!(std::fs::read_to_string(&file).expect("read"), "{}\n");
        assert_eq!(std::fs::metadata(&file).expect("there").permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(dir.path()).expect("list").count(), 1);
    }
}
