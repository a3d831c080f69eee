//! Commands about which node does what.

use reqwest::Method;
use serde_json::{Value, json};

use crate::admin::{self, Api, say};
use crate::cli::ServerArgs;
use crate::exit::Exit;

/// Prints a join token alone on a line, or says what one would allow.
///
/// # Errors
/// When the API cannot be found.
pub fn token(args: &ServerArgs, dry_run: bool) -> anyhow::Result<Exit> {
    let api = Api::open(args)?;
    let show = if dry_run { show_token_plan } else { show_token };
    Ok(api.run(Method::POST, "cluster/tokens", Some(&json!({ "dry_run": dry_run })), show))
}

fn show_token(made: &Value) {
    say!("{}", made["token"].as_str().unwrap_or_default());
}

fn show_token_plan(plan: &Value) {
    let minutes = plan["valid_seconds"].as_u64().unwrap_or(0) / 60;
    say!("a token would let one machine join once, within {minutes} minutes, as node {}", plan["next_node"]);
    say!("the machine asks the cluster at {} (TCP, open it there)", admin::line(&plan["addresses"]));
    say!("room for {} more nodes that store mail and {} witness", plan["room_mail"], plan["room_witness"]);
    say!("who joins to store mail gets the CA's key and the administrator's token: give a token to trusted hands only");
    if let Some(reason) = plan["settings_locked"].as_str() {
        say!("not now: settings are locked: {reason}");
    }
    say!("tokens that are unused now: {}; nothing was changed", plan["unused"]);
}

/// Makes another node the primary, or says what would happen.
///
/// # Errors
/// When the API cannot be found.
pub fn switch_over(args: &ServerArgs, node: Option<&str>, dry_run: bool) -> anyhow::Result<Exit> {
    let api = Api::open(args)?;
    let mut body = json!({ "dry_run": dry_run });
    if let Some(wanted) = node {
        match node_named(&api, wanted) {
            Ok(id) => body["to"] = json!(id),
            Err(exit) => return Ok(exit),
        }
    }
    let show = if dry_run { show_plan } else { show_switched };
    Ok(api.run(Method::POST, "cluster/switchover", Some(&body), show))
}

/// Whether the preferred node gets the primary's place back by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Failback {
    /// Only by order.
    Manual,
    /// By itself.
    Auto,
}

/// Shows which node is preferred as the primary, or says it.
///
/// # Errors
/// When the API cannot be found.
pub fn primary(
    args: &ServerArgs,
    node: Option<&str>,
    (failback, settle): (Option<Failback>, Option<u64>),
    dry_run: bool,
) -> anyhow::Result<Exit> {
    let api = Api::open(args)?;
    if node.is_none() && failback.is_none() && settle.is_none() {
        return Ok(api.run(Method::GET, "cluster/primary", None, show_primary));
    }
    let mut body = json!({ "dry_run": dry_run });
    match node {
        None => {}
        Some("none") => body["node"] = Value::Null,
        Some(wanted) => match node_named(&api, wanted) {
            Ok(id) => body["node"] = json!(id),
            Err(exit) => return Ok(exit),
        },
    }
    if let Some(failback) = failback {
        body["failback"] = json!(if failback == Failback::Auto { "auto" } else { "manual" });
    }
    if let Some(settle) = settle {
        body["settle_s"] = json!(settle);
    }
    Ok(api.run(Method::PUT, "cluster/primary", Some(&body), show_primary))
}

fn show_primary(answer: &Value) {
    let preferred = answer["node"].as_u64().map_or_else(|| "none".to_owned(), |id| format!("node {id}"));
    let (failback, settle) = (admin::line(&answer["failback"]), &answer["settle_s"]);
    say!("preferred: {preferred}, failback {failback} after {settle} s; primary now: node {}", answer["primary"]);
    say!("{}", admin::line(&answer["then"]));
    if answer["dry_run"] == true {
        say!("nothing was changed");
    }
}

pub(crate) fn show_look_at(answer: &Value) {
    let all = answer["look_at"].as_array().into_iter().flatten();
    for (number, look) in all.enumerate() {
        if number == 0 {
            say!("outside the cluster, look at:");
        }
        say!("  {:<11} {}: {}", admin::line(&look["kind"]), admin::line(&look["what"]), admin::line(&look["why"]));
    }
}

/// `ID=WEIGHT`.
///
/// # Errors
/// Says what it should look like.
pub fn weight(text: &str) -> Result<(u32, u32), String> {
    let parts = text.split_once('=').and_then(|(node, weight)| Some((node.parse().ok()?, weight.parse().ok()?)));
    parts.ok_or_else(|| "must be ID=WEIGHT, for instance 2=50".to_owned())
}

/// Shows how connections are shared out, or says how; it counts for connections that begin from then on.
///
/// # Errors
/// When the API cannot be found.
pub fn load(args: &ServerArgs, how: Option<Homes>, weights: &[(u32, u32)]) -> anyhow::Result<Exit> {
    let api = Api::open(args)?;
    if how.is_none() && weights.is_empty() {
        return Ok(api.run(Method::GET, "cluster", None, show_load));
    }
    let weights: serde_json::Map<String, Value> =
        weights.iter().map(|(node, weight)| (node.to_string(), json!(weight))).collect();
    let body = json!({ "value": { "spread": how != Some(Homes::Together), "weights": weights } });
    let path = format!("settings/{}", topology::LOAD_SETTING);
    Ok(api.run(Method::PUT, &path, Some(&body), |setting| match setting["value"]["spread"].as_bool() {
        Some(true) => {
            say!("new connections on the cluster address are shared out: {}", admin::line(&setting["value"]["weights"]))
        }
        _ => say!("the primary serves new connections on the cluster address itself"),
    }))
}

fn show_load(status: &Value) {
    let proxied = &status["proxied"];
    say!("accepted here and served by another node: {} now, {} so far", proxied["open"], proxied["total"]);
    say!("accepted by another node and served here: {} now, {} so far", proxied["taken_open"], proxied["taken_total"]);
}

/// Where the homes of shards are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Homes {
    /// Over all nodes that are in sync.
    Spread,
    /// All at the primary.
    Together,
}

/// Shows where homes are, or says where they are to be; moving takes some seconds.
///
/// # Errors
/// When the API cannot be found.
pub fn homes(args: &ServerArgs, how: Option<Homes>) -> anyhow::Result<Exit> {
    let api = Api::open(args)?;
    let Some(how) = how else { return Ok(api.run(Method::GET, "cluster", None, show_homes)) };
    let body = json!({ "value": { "spread": how == Homes::Spread } });
    let path = format!("settings/{}", topology::HOMES_SETTING);
    Ok(api.run(Method::PUT, &path, Some(&body), |setting| match setting["value"]["spread"].as_bool() {
        Some(true) => say!("homes are being spread over the nodes in sync"),
        _ => say!("homes come back to the primary"),
    }))
}

fn show_homes(status: &Value) {
    for node in status["nodes"].as_array().into_iter().flatten() {
        say!("node {} ({}): home of {} shards", node["id"], admin::line(&node["name"]), node["homes"]);
    }
}

/// How an operator means it.
#[derive(Debug, clap::Args)]
pub struct Word {
    /// Only say what would happen.
    #[arg(long)]
    dry_run: bool,
    /// Say the cluster's name instead of being asked for it.
    #[arg(long)]
    confirm: Option<String>,
}

/// This node goes for good.
///
/// # Errors
/// When the API cannot be found or nobody can be asked.
pub fn leave(args: &ServerArgs, word: Word) -> anyhow::Result<Exit> {
    let asked = "This node will leave the cluster for good: the others go on without it, and its service ends. Its data\n\
                 stay on its disk, but a new join needs an empty folder.";
    let plan: fn(&Value) = |plan| {
        say!("node {} would leave; node {} would be the primary", plan["node"], plan["home"]);
        show_look_at(plan);
    };
    let done: fn(&Value) = |done| {
        say!("node {} has left and may be switched off; node {} is the primary", done["node"], done["home"]);
        show_look_at(done);
    };
    by_word(args, "cluster/leave", json!({}), (word, asked), (plan, done))
}

/// A lost node goes for good.
///
/// # Errors
/// As [`leave`].
pub fn remove(args: &ServerArgs, node: &str, word: Word) -> anyhow::Result<Exit> {
    let api = Api::open(args)?;
    let id = match node_named(&api, node) {
        Ok(id) => id,
        Err(exit) => return Ok(exit),
    };
    let asked = "That node will be no member any more, and can only come back as a new one with an empty disk. If it took\n\
                 mail while it was cut off, that mail is lost: bring it back first when you can.";
    let plan: fn(&Value) = |plan| {
        say!("node {} would be removed", plan["node"]);
        show_look_at(plan);
    };
    let done: fn(&Value) = |done| {
        say!("node {} is no member of the cluster any more", done["node"]);
        show_look_at(done);
    };
    by_word(args, "cluster/remove", json!({ "node": id }), (word, asked), (plan, done))
}

/// This node votes alone.
///
/// # Errors
/// As [`leave`].
pub fn rescue(args: &ServerArgs, others_are_down: bool, word: Word) -> anyhow::Result<Exit> {
    let asked = "This node will be the only one that votes on settings. What the others hold of settings is void from then\n\
                 on; when they return they take over the settings of this node, and their mail is brought together.";
    let body = json!({ "others_are_down": others_are_down });
    let plan: fn(&Value) = |plan| say!("node {} would vote alone, without the nodes {}", plan["node"], plan["without"]);
    let done: fn(&Value) = |done| {
        say!("node {} votes alone now, without the nodes {}: settings can be changed", done["node"], done["without"]);
    };
    by_word(args, "cluster/rescue", body, (word, asked), (plan, done))
}

/// Sends what an operator has confirmed by the cluster's name; `plan` and `done` show the answer.
fn by_word(
    args: &ServerArgs,
    path: &str,
    mut body: Value,
    (word, asked): (Word, &str),
    (plan, done): (fn(&Value), fn(&Value)),
) -> anyhow::Result<Exit> {
    let api = Api::open(args)?;
    if word.dry_run {
        body["dry_run"] = json!(true);
        return Ok(api.run(Method::POST, path, Some(&body), plan));
    }
    match admin::confirm(&api, word.confirm, asked)? {
        Ok(name) => body["confirm"] = json!(name),
        Err(exit) => return Ok(exit),
    }
    Ok(api.run(Method::POST, path, Some(&body), done))
}

/// The node of this id or name, as the cluster says; or how the command ends instead.
pub(crate) fn node_named(api: &Api, wanted: &str) -> Result<u64, Exit> {
    let status = api.call(Method::GET, "cluster", None).done().map_err(|failure| api.end(&failure))?;
    id_of(&status, wanted)
        .ok_or_else(|| api.fail(&format!("no node of this cluster has the id or name {wanted}"), Exit::Refused))
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
