//! `twinpost cluster upgrade-check`: whether a node may be restarted now with the program that asks. Run with the new
//! program while the old one runs; nothing is changed. Facts are what the node's API says, and the judgement is pure.

use reqwest::Method;
use serde::Deserialize;
use serde_json::json;

use crate::admin::{Api, say};
use crate::checks::{self, Finding, Program, Verdict};
use crate::cli::ServerArgs;
use crate::examine;
use crate::exit::Exit;

/// What the node that runs says, as far as looked at. A program from before it was told leaves it out.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Seen {
    node: u32,
    home: u32,
    in_sync: Vec<u32>,
    nodes: Vec<Node>,
    sync: Option<Syncing>,
    settings_locked: Option<String>,
    rows_written: Option<u32>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Node {
    id: u32,
    name: String,
    role: String,
    reachable: bool,
    program: Option<String>,
    protocol: Option<(u32, u32)>,
    rows: Option<(u32, u32)>,
    refused: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Syncing {
    node: u32,
    accounts_left: u64,
}

impl Node {
    /// Whether its version is another one, as far as it says.
    fn runs_other(&self, version: &str) -> bool {
        self.program.as_deref() != Some(version)
    }
    fn version(&self) -> &str {
        self.program.as_deref().filter(|version| !version.is_empty()).unwrap_or("a program that does not say")
    }
    fn named(&self) -> String {
        format!("node {} ({})", self.id, self.name)
    }
}

impl Seen {
    fn others(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| node.id != self.node)
    }
    /// Other nodes that store mail, as far as they can be told from witnesses.
    fn with_mail(&self) -> impl Iterator<Item = &Node> {
        self.others().filter(|node| node.role != "witness")
    }
    /// A node with mail that can take this one's place.
    fn stands_in(&self) -> Option<&Node> {
        self.with_mail().find(|node| node.reachable && self.in_sync.contains(&node.id))
    }
}

/// Asks the node, judges, and says it.
///
/// # Errors
/// When the API cannot be found: there is no node here, it does not run, or it is a witness.
pub fn check(args: &ServerArgs) -> anyhow::Result<Exit> {
    let api = Api::open(args)?;
    let seen = match api.call(Method::GET, "cluster", None).done() {
        Ok(value) => value,
        Err(failure) => return Ok(api.end(&failure)),
    };
    let seen: Seen = serde_json::from_value(seen)?;
    let mut findings = judge(&examine::own_program(), &seen);
    if seen.home == seen.node && seen.stands_in().is_some() {
        findings.push(handover(&api));
    }
    let refused = checks::worst(&findings) == Verdict::Refuse;
    if api.json {
        say!("{}", serde_json::to_string_pretty(&json!({ "refused": refused, "checks": findings }))?);
    } else {
        findings.iter().for_each(|finding| say!("{}", finding.lines()));
        say!("{}", if refused { "not now" } else { "this node may be restarted with this program" });
    }
    Ok(if refused { Exit::Refused } else { Exit::Done })
}

/// Whether the node, which is the primary, could hand over now.
fn handover(api: &Api) -> Finding {
    let answer = api.call(Method::POST, "cluster/switchover", Some(&json!({ "dry_run": true })));
    match answer.done() {
        Ok(plan) => {
            let to = plan["to"].as_u64().map_or_else(|| "another node".to_owned(), |id| format!("node {id}"));
            Finding::ok("handover", format!("{to} would be the primary meanwhile"))
        }
        Err(failure) => Finding::refuse("handover", failure.text, "wait, then ask again"),
    }
}

fn judge(own: &Program, seen: &Seen) -> Vec<Finding> {
    vec![program(own, seen), protocol(own, seen), rows(own, seen), others(seen), in_sync(seen)]
}

/// One step at a time: two versions at most.
fn program(own: &Program, seen: &Seen) -> Finding {
    let runs = |node: &Node| format!("node {}: {}", node.id, node.version());
    let all: Vec<String> = seen.nodes.iter().map(runs).collect();
    let found = format!("this is {}; {}", own.version, all.join(", "));
    let mut versions: Vec<&str> =
        seen.nodes.iter().filter(|node| node.runs_other(&own.version)).map(Node::version).collect();
    versions.sort_unstable();
    versions.dedup();
    match versions.len() {
        0 => Finding::ok("program", format!("{found}: nothing is left to upgrade")),
        1 => Finding::ok("program", found),
        _ => Finding::warn("program", found, "bring all nodes to one version before the next upgrade begins"),
    }
}

fn protocol(own: &Program, seen: &Seen) -> Finding {
    let (mut unfit, mut silent, mut fit) = (Vec::new(), Vec::new(), Vec::new());
    for node in seen.others() {
        match node.protocol {
            Some(theirs) if theirs.0 <= own.protocol.1 && own.protocol.0 <= theirs.1 => fit.push(node.named()),
            Some(theirs) => unfit.push(format!("{} speaks {}-{}", node.named(), theirs.0, theirs.1)),
            None => silent.push(node.named()),
        }
    }
    let here = format!("{}-{} here", own.protocol.0, own.protocol.1);
    if !unfit.is_empty() {
        let advice = "go by a version that speaks both: upgrade every node to that first";
        return Finding::refuse(
            "protocol",
            format!("{here}, {}: they would refuse each other", unfit.join(", ")),
            advice,
        );
    }
    if !silent.is_empty() {
        let advice = "see that both versions stand beside each other in the list of changes";
        return Finding::warn("protocol", format!("{here}; unknown of {}", silent.join(", ")), advice);
    }
    Finding::ok("protocol", if fit.is_empty() { here } else { format!("{here}, in common with {}", fit.join(", ")) })
}

fn rows(own: &Program, seen: &Seen) -> Finding {
    let name = "row-format";
    let here = format!("{}-{} here", own.rows.0, own.rows.1);
    let Some(written) = seen.rows_written else {
        let advice = "a program that cannot read what is on its disk does not start, and says so";
        return Finding::warn(name, format!("{here}; the program that runs does not say what it has written"), advice);
    };
    if written > own.rows.1 {
        let found = format!("{here}, and rows of format {written} may have been written: it would not start");
        return Finding::refuse(name, found, "install a program that is not older than the one that runs");
    }
    let unfit = |node: &&Node| node.rows.is_some_and(|theirs| theirs.1 < own.rows.0 || own.rows.1 < theirs.0);
    if let Some(node) = seen.others().find(unfit) {
        let advice = "go by a version that reads both: upgrade every node to that first";
        return Finding::refuse(name, format!("{here}, none in common with {}", node.named()), advice);
    }
    // What all nodes with mail read once this one runs it; who does not say holds it down.
    let common = seen.with_mail().map(|node| node.rows.map_or(0, |rows| rows.1)).fold(own.rows.1, u32::min);
    if common > written.max(1) {
        let found =
            format!("{here}: format {common} is written for good once this node runs it, there is no way back then");
        return Finding::warn(
            name,
            found,
            "keep the old programs on their nodes until you are content with the new one",
        );
    }
    Finding::ok(name, format!("{here}, up to {written} written"))
}

fn others(seen: &Seen) -> Finding {
    let why = |node: &Node| match &node.refused {
        Some(reason) => format!("{} is refused: {reason}", node.named()),
        None => format!("{} is not heard", node.named()),
    };
    let mut away: Vec<String> =
        seen.others().filter(|node| !node.reachable || node.refused.is_some()).map(why).collect();
    away.extend(seen.settings_locked.clone().map(|reason| format!("settings are locked: {reason}")));
    if away.is_empty() {
        return Finding::ok("nodes", "all are heard");
    }
    Finding::warn("nodes", away.join("; "), "bring the cluster to rest before you go on")
}

/// Whether somebody serves while this node restarts.
fn in_sync(seen: &Seen) -> Finding {
    let name = "in-sync";
    if seen.with_mail().next().is_none() {
        let advice = "restart it when a pause of some seconds is in nobody's way";
        return Finding::warn(name, "this is the only node with mail: clients wait while it restarts", advice);
    }
    if let Some(sync) = &seen.sync {
        let found = format!("node {} is brought up to date, {} accounts left", sync.node, sync.accounts_left);
        return Finding::refuse(name, found, "wait until it is in sync (`twinpost status`)");
    }
    match seen.stands_in() {
        Some(node) => Finding::ok(name, format!("{} is in sync and serves meanwhile", node.named())),
        None => Finding::refuse(
            name,
            "no other node is in sync: nobody would serve while this one restarts",
            "bring another node back and wait until it is in sync; or restart this one when clients may wait",
        ),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn own() -> Program {
        Program { version: "0.2.0".into(), protocol: (1, 2), rows: (1, 3) }
    }

    fn node(id: u32, role: &str) -> Value {
        json!({ "id": id, "name": format!("n{id}"), "role": role, "reachable": true, "program": "0.1.0",
                "protocol": [1, 1], "rows": [1, 3], "refused": null })
    }

    fn pair() -> Value {
        json!({ "node": 1, "home": 1, "in_sync": [1, 2], "sync": null, "settings_locked": null, "rows_written": 3,
                "nodes": [node(1, "primary"), node(2, "secondary"), node(3, "witness")] })
    }

    fn verdicts(seen: &Value) -> Vec<(&'static str, Verdict)> {
        let findings = judge(&own(), &serde_json::from_value(seen.clone()).expect("understood"));
        findings.iter().filter(|f| f.verdict != Verdict::Ok).map(|f| (f.name, f.verdict)).collect()
    }

    fn with(change: impl FnOnce(&mut Value)) -> Vec<(&'static str, Verdict)> {
        let mut seen = pair();
        change(&mut seen);
        verdicts(&seen)
    }

    use Verdict::{Refuse, Warn};

    #[test]
    fn a_whole_pair_may_be_upgraded_node_by_node() {
        assert_eq!(verdicts(&pair()), []);
        assert_eq!(with(|seen| seen["nodes"][1]["program"] = json!("0.2.0")), [], "the other one was first");
        let third = with(|seen| seen["nodes"][1]["program"] = json!("0.1.9"));
        assert_eq!(third, [("program", Warn)]);
    }

    #[test]
    fn programs_that_would_not_understand_each_other_are_refused() {
        assert_eq!(with(|seen| seen["nodes"][1]["protocol"] = json!([3, 4])), [("protocol", Refuse)]);
        assert_eq!(with(|seen| seen["nodes"][2]["protocol"] = json!([3, 4])), [("protocol", Refuse)], "a witness");
        assert_eq!(with(|seen| seen["nodes"][1]["rows"] = json!([4, 5])), [("row-format", Refuse)]);
        assert_eq!(with(|seen| seen["rows_written"] = json!(4)), [("row-format", Refuse)], "it would not start");
    }

    #[test]
    fn the_step_after_which_there_is_no_way_back_is_named() {
        let last = |seen: &mut Value| seen["rows_written"] = json!(2);
        assert_eq!(with(last), [("row-format", Warn)]);
        let first = with(|seen| {
            last(seen);
            seen["nodes"][1]["rows"] = json!([1, 2]);
        });
        assert_eq!(first, [], "the other node still reads the older one only");
        // A fresh cluster writes format 1 and says 0.
        let fresh = with(|seen| {
            seen["rows_written"] = json!(0);
            seen["nodes"][1]["rows"] = json!([1, 1]);
        });
        assert_eq!(fresh, []);
    }

    #[test]
    fn nobody_is_restarted_while_no_other_node_can_serve() {
        assert_eq!(with(|seen| seen["in_sync"] = json!([1])), [("in-sync", Refuse)]);
        let gone = with(|seen| seen["nodes"][1]["reachable"] = json!(false));
        assert_eq!(gone, [("nodes", Warn), ("in-sync", Refuse)]);
        let syncing = with(|seen| seen["sync"] = json!({ "node": 2, "accounts_left": 5 }));
        assert_eq!(syncing, [("in-sync", Refuse)]);
        let witness = with(|seen| seen["nodes"][2]["reachable"] = json!(false));
        assert_eq!(witness, [("nodes", Warn)], "mail goes on without it");
        let alone = with(|seen| {
            seen["nodes"] = json!([node(1, "primary")]);
            seen["in_sync"] = json!([1]);
        });
        assert_eq!(alone, [("in-sync", Warn)], "one node has nobody to wait for");
        let refused = with(|seen| seen["nodes"][1]["refused"] = json!("no common protocol"));
        assert_eq!(refused, [("nodes", Warn)]);
    }

    #[test]
    fn a_program_that_does_not_say_what_it_runs_is_warned_of() {
        let silent = with(|seen| {
            for at in 0..3 {
                for key in ["program", "protocol", "rows", "refused"] {
                    seen["nodes"][at].as_object_mut().expect("node").remove(key);
                }
            }
            seen.as_object_mut().expect("status").remove("rows_written");
        });
        assert_eq!(silent, [("protocol", Warn), ("row-format", Warn)]);
    }
}
