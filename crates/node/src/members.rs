//! Commands about which node does what.

use reqwest::Method;
use serde_json::{Value, json};

use crate::admin::{Api, Reply, say};
use crate::cli::ServerArgs;
use crate::exit::Exit;

/// Makes another node the primary, or says what would happen.
///
/// # Errors
/// When the API cannot be found.
pub fn switch_over(args: &ServerArgs, node: Option<&str>, dry_run: bool) -> anyhow::Result<Exit> {
    let api = Api::open(args)?;
    let mut body = json!({ "dry_run": dry_run });
    if let Some(wanted) = node {
        let status = match api.call(Method::GET, "cluster", None) {
            Reply::Done(value) => value,
            Reply::Refused(text) => return Ok(api.fail(&text, Exit::Refused)),
            Reply::Unavailable(text) => return Ok(api.fail(&text, Exit::Unavailable)),
        };
        let Some(id) = id_of(&status, wanted) else {
            return Ok(api.fail(&format!("no node of this cluster has the id or name {wanted}"), Exit::Refused));
        };
        body["to"] = json!(id);
    }
    let show = if dry_run { show_plan } else { show_switched };
    Ok(api.run(Method::POST, "cluster/switchover", Some(&body), show))
}

/// The node with this id or name.
fn id_of(status: &Value, wanted: &str) -> Option<u64> {
    let nodes = status["nodes"].as_array().into_iter().flatten();
    let number = wanted.parse::<u64>().ok();
    let fits = |node: &&Value| (number.is_some() && node["id"].as_u64() == number) || node["name"] == wanted;
    nodes.clone().find(fits).and_then(|node| node["id"].as_u64())
}

fn show_switched(done: &Value) {
    match done["from"] == done["to"] {
        true => say!("node {} is the primary already", done["to"]),
        false => say!("node {} is the primary now; it was node {}", done["to"], done["from"]),
    }
}

fn show_plan(plan: &Value) {
    match plan["from"] == plan["to"] {
        true => say!("node {} is the primary already: nothing would happen", plan["to"]),
        false => say!(
            "node {} would become the primary instead of node {}: changes in flight are finished, the cluster address \
             moves, and clients on it reconnect",
            plan["to"],
            plan["from"]
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_found_by_id_or_name() {
        let status = json!({ "nodes": [{ "id": 1, "name": "one" }, { "id": 2, "name": "two" }] });
        assert_eq!((id_of(&status, "2"), id_of(&status, "two"), id_of(&status, "3")), (Some(2), Some(2), None));
    }
}
