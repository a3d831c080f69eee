//! `twinpost cluster branches`: what a heal put aside on a node, through the HTTP API.

use reqwest::Method;
use serde_json::Value;

use crate::admin::{Api, line, say, segment, show_done};
use crate::cli::ServerArgs;
use crate::exit::Exit;

/// Lists the branches, or deletes one before its time.
///
/// # Errors
/// When the API cannot be found.
pub fn run(args: &ServerArgs, delete: Option<&str>) -> anyhow::Result<Exit> {
    let api = Api::open(args)?;
    Ok(match delete {
        Some(id) => api.run(Method::DELETE, &format!("branches/{}", segment(id)), None, show_done),
        None => api.run(Method::GET, "branches", None, show),
    })
}

fn show(value: &Value) {
    let branches = value["branches"].as_array().map(Vec::as_slice).unwrap_or_default();
    if branches.is_empty() {
        say!("no archived branches on this node");
        return;
    }
    say!("{:<50}{:<32}{:>12}{:>10}  {:<22}{}", "id", "account", "bytes", "bodies", "archived", "expires");
    for branch in branches {
        let cell = |key: &str| line(&branch[key]);
        let whose = match (branch["address"].as_str(), branch["account"].as_u64()) {
            (Some(address), _) => address.to_owned(),
            (None, Some(1)) => "the outbound queue".to_owned(),
            // It was removed meanwhile.
            _ => format!("account {}", cell("account")),
        };
        let (bytes, bodies, archived) = (cell("bytes"), cell("bodies"), cell("archived"));
        say!("{:<50}{whose:<32}{bytes:>12}{bodies:>10}  {archived:<22}{}", cell("id"), cell("expires"));
    }
}
