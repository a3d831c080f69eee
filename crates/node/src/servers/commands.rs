//! `twinpost servers` and `twinpost support bundle`.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use reqwest::Method;
use serde_json::Value;
use time::OffsetDateTime;

use crate::admin::{Api, line, say};
use crate::cli::ServerArgs;
use crate::exit::Exit;

/// Bytes of a gibibyte.
const GIB: f64 = 1024.0 * 1024.0 * 1024.0;

/// Every node with its load and functions.
///
/// # Errors
/// When the API cannot be found.
pub fn run(args: &ServerArgs) -> anyhow::Result<Exit> {
    let api = Api::open(args)?;
    Ok(api.run(Method::GET, "servers", None, |value| {
        show(value);
        for server in value["servers"].as_array().into_iter().flatten() {
            for function in server["functions"].as_array().into_iter().flatten() {
                let cell = |key: &str| function[key].as_str().unwrap_or_default();
                say!("node {} {:<16}{:<15}{}", line(&server["node"]), cell("name"), cell("state"), cell("text"));
            }
        }
    }))
}

/// A line for each node, and one for each function that does not run.
pub(crate) fn show(value: &Value) {
    for server in value["servers"].as_array().into_iter().flatten() {
        let node = line(&server["node"]);
        if server["reachable"].as_bool() != Some(true) {
            say!("node {node}: does not answer: {}", line(&server["fault"]));
            continue;
        }
        say!("node {node}: {}", used(server));
        for function in server["functions"].as_array().into_iter().flatten() {
            let cell = |key: &str| function[key].as_str().unwrap_or_default();
            if !matches!(cell("state"), "running" | "stopped") {
                say!("node {node}: {} {}: {}", cell("name"), cell("state"), cell("text"));
            }
        }
    }
}

fn used(server: &Value) -> String {
    let load = &server["load"];
    let number = |value: &Value| value.as_f64().unwrap_or(0.0);
    let memory = &load["memory"];
    let (total, left) = (number(&memory["total_bytes"]), number(&memory["available_bytes"]));
    let sum = |key: &str| load["network"].as_array().into_iter().flatten().map(|one| number(&one[key])).sum::<f64>();
    let disk = &load["disk"];
    format!(
        "version {}, CPU {:.0} %, memory {:.1} of {:.1} GiB, network {:.0} KiB/s in {:.0} out, disk {:.1} of {:.1} GiB free",
        line(&server["version"]),
        number(&load["cpu"]["percent"]),
        (total - left) / GIB,
        total / GIB,
        sum("in_bytes_per_s") / 1024.0,
        sum("out_bytes_per_s") / 1024.0,
        number(&disk["free_bytes"]) / GIB,
        number(&disk["total_bytes"]) / GIB,
    )
}

/// Fetches the bundle and writes it to a new file that only its owner reads.
///
/// # Errors
/// When the API cannot be found or the file cannot be written.
pub fn save_bundle(args: &ServerArgs, output: Option<PathBuf>) -> anyhow::Result<Exit> {
    let api = Api::open(args)?;
    let path = output.unwrap_or_else(|| PathBuf::from(name(OffsetDateTime::now_utc())));
    eprintln!("asking the nodes ...");
    let bytes = match api.download("support/bundle") {
        Ok(bytes) => bytes,
        Err(failure) => return Ok(api.end(&failure)),
    };
    write_new(&path, &bytes).with_context(|| format!("write {}", path.display()))?;
    if api.json {
        say!("{}", serde_json::json!({ "file": path, "bytes": bytes.len() }));
    } else {
        say!("{}: {} bytes. Look through it before you give it away.", path.display(), bytes.len());
    }
    Ok(Exit::Done)
}

fn name(now: OffsetDateTime) -> String {
    let (date, time) = (now.date(), now.time());
    format!("twinpost-support-{date}-{:02}{:02}{:02}.tar.gz", time.hour(), time.minute(), time.second())
}

fn write_new(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
