//! `twinpost cluster certificates`.

use clap::Subcommand;
use reqwest::Method;
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::office::short;
use crate::admin::{Api, line, say};
use crate::cli::ServerArgs;
use crate::exit::Exit;
use crate::members;

const DAY_S: i64 = 24 * 60 * 60;
/// What ends later has no end.
const NO_END_DAYS: i64 = 100 * 365;

/// `twinpost cluster certificates ...`
#[derive(Debug, Subcommand)]
pub enum CertificatesCommand {
    /// Make new certificates now. Nodes renew theirs by themselves when a third of their life is left.
    Renew {
        /// Id or name of the node; all nodes without it.
        node: Option<String>,
    },
    /// Exchange the cluster's CA, after its key may have come into other hands (a machine that stored mail was lost or
    /// removed), or before its end. Without downtime; each step waits for every node.
    RotateCa {
        /// Stop after the first step, in which both are trusted, until `--go-on`: clients must learn the new CA first.
        #[arg(long, conflicts_with_all = ["go_on", "call_off"])]
        hold: bool,
        /// An exchange that is held may go on.
        #[arg(long, conflicts_with = "call_off")]
        go_on: bool,
        /// Call it off; only in its first step.
        #[arg(long)]
        call_off: bool,
        /// Only say what would happen.
        #[arg(long)]
        dry_run: bool,
    },
}

/// Shows all certificates, or does what is ordered.
///
/// # Errors
/// When the API cannot be found.
pub fn run(args: &ServerArgs, command: Option<&CertificatesCommand>) -> anyhow::Result<Exit> {
    let api = Api::open(args)?;
    Ok(match command {
        None => api.run(Method::GET, "cluster/certificates", None, show),
        Some(CertificatesCommand::Renew { node }) => {
            let node = match node.as_deref().map(|wanted| members::node_named(&api, wanted)).transpose() {
                Ok(node) => node,
                Err(exit) => return Ok(exit),
            };
            api.run(Method::POST, "cluster/certificates/renew", Some(&json!({ "node": node })), show)
        }
        Some(CertificatesCommand::RotateCa { hold, go_on, call_off, dry_run }) => {
            let order = match (go_on, call_off) {
                (true, _) => "go_on",
                (_, true) => "call_off",
                _ => "begin",
            };
            let body = json!({ "order": order, "hold": hold, "dry_run": dry_run });
            api.run(Method::POST, "cluster/certificates/rotate-ca", Some(&body), show_rotated)
        }
    })
}

fn show_rotated(answer: &Value) {
    answer["then"].as_array().into_iter().flatten().for_each(|text| say!("{}", line(text)));
    if answer["dry_run"] == true {
        say!("nothing was changed");
    }
}

fn show(answer: &Value) {
    lines(answer).iter().for_each(|text| say!("{text}"));
}

fn lines(answer: &Value) -> Vec<String> {
    let now = answer["now"].as_i64().unwrap_or(0);
    let hash = |value: &Value| short(value.as_str().unwrap_or_default());
    let mut lines = Vec::new();
    for node in answer["nodes"].as_array().into_iter().flatten() {
        let head = format!("node {} ({})", node["id"], line(&node["name"]));
        if node["unreachable"].is_string() {
            lines.push(format!("{head}: not known, it does not answer: {}", line(&node["unreachable"])));
            continue;
        }
        let own = &node["certificate"];
        lines.push(format!("{head}: {}, of CA {}", until(now, &own["ends"]), hash(&own["ca"])));
        if node["clients"].is_object() {
            let whose = if node["clients"]["own"] == true { ", by its [tls] files" } else { "" };
            lines.push(format!("  for clients: {}{whose}", until(now, &node["clients"]["ends"])));
        }
        for ca in node["trusts"].as_array().into_iter().flatten() {
            lines.push(format!("  trusts CA {}: {}", hash(&ca["hash"]), until(now, &ca["ends"])));
        }
        if node["fault"].is_string() {
            lines.push(format!("  it could not do what it must: {}", line(&node["fault"])));
        }
    }
    let rotation = &answer["rotation"];
    if rotation.is_object() {
        let (old, new) = (hash(&rotation["old"]), hash(&rotation["new"]));
        lines.push(format!("the CA {old} is exchanged for {new}: step {}", line(&rotation["step"])));
        let waits = rotation["waits_for"].as_array();
        for wait in waits.into_iter().flatten() {
            lines.push(format!("  waits for node {}: {}", wait["node"], line(&wait["why"])));
        }
        if waits.is_some_and(|waits| !waits.is_empty()) {
            lines.push(
                "  a node that is lost: `twinpost cluster remove NODE`; the exchange goes on without it, and it must join \
                 anew"
                    .to_owned(),
            );
        }
        if rotation["held"] == true {
            lines.push("  then it waits for `twinpost cluster certificates rotate-ca --go-on`".to_owned());
        }
    }
    lines
}

fn until(now: i64, ends: &Value) -> String {
    let ends = ends.as_i64().unwrap_or(0);
    let left = ends - now;
    let date = OffsetDateTime::from_unix_timestamp(ends).map(|at| at.date().to_string()).unwrap_or_default();
    match left.div_euclid(DAY_S) {
        days if days > NO_END_DAYS => "without an end".to_owned(),
        days @ 1.. => format!("until {date} ({days} days)"),
        0 => format!("until {date} ({left} s)"),
        _ => format!("ended {date}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_what_until_when_is_said_and_what_an_exchange_waits_for() {
        let ca = json!({ "hash": "0123456789abcdef", "ends": 400 * DAY_S });
        let answer = json!({
            "now": 0,
            "nodes": [
                {
                    "id": 1, "name": "n1", "fault": null, "trusts": [ca],
                    "certificate": { "ends": 30 * DAY_S + 5, "ca": "0123456789abcdef" },
                    "clients": { "ends": 500, "own": true },
                },
                { "id": 2, "name": "n2", "unreachable": "peer not reachable" },
            ],
            "rotation": {
                "step": "trust", "old": "aa", "new": "bb", "held": true,
                "waits_for": [{ "node": 2, "why": "it does not answer" }],
            },
        });
        let said = lines(&answer).join("\n");
        for part in [
            "node 1 (n1): until 1970-01-31 (30 days), of CA 0123456789ab",
            "for clients: until 1970-01-01 (500 s), by its [tls] files",
            "trusts CA 0123456789ab: until 1971-02-05 (400 days)",
            "node 2 (n2): not known",
            "the CA aa is exchanged for bb: step trust",
            "waits for node 2: it does not answer",
            "cluster remove",
            "--go-on",
        ] {
            assert!(said.contains(part), "{part}:\n{said}");
        }
        assert_eq!(until(100, &json!(10)), "ended 1970-01-01");
        assert_eq!(until(0, &json!(67_090_377_600_i64)), "without an end");
    }
}
