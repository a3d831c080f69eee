//! The support bundle: one file with what a stranger needs to help. No mail, no addresses of people, no secrets.
//!
//! What goes in is listed, not filtered: a new setting or kind of record is out until somebody puts it here.

use std::collections::BTreeMap;
use std::io;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use ports::log::{Filter, Logs};
use serde_json::{Value, json};
use topology::ClusterState;

/// Newest events of a node at most.
pub(crate) const EVENTS_MAX: usize = 2_000;
/// Newest records of the log at most.
const RECORDS_MAX: usize = 5_000;
/// Kinds of records that name no correspondents and hold no text of mail.
const RECORD_KINDS: [&str; 2] = ["cluster", "admin"];
/// What it says of itself.
const README: &str = "\
A support bundle of Twinpost: one folder for each node, with its version and load (server.json), its view of the cluster
(status.json), what is the matter (alerts.json), what it decided and why (events.json), its metrics, its node file without
secrets, the shape of the configuration (cluster-state.json: numbers of accounts, no names), and from the node that leads an
extract of the log of the cluster and of administration (log.jsonl). It holds no mail, no account names, no passwords, tokens
or keys. Look through it before you give it away: host names and IP addresses are in it.
";

/// The configuration as far as it may leave the house: members, epochs and how much there is of everything.
pub(crate) fn redacted(state: &ClusterState) -> Value {
    let counts: BTreeMap<String, usize> =
        state.documents.iter().map(|(kind, all)| (format!("{kind:?}").to_lowercase(), all.len())).collect();
    json!({
        "cluster_id": state.cluster_id,
        "name": state.name,
        "revision": state.revision,
        "members": state.members.values().collect::<Vec<_>>(),
        "next_node": state.next_node,
        "epoch": state.epoch,
        "cluster_addresses": state.cluster_addresses.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "unused_tokens": state.tokens.len(),
        "documents": counts,
    })
}

/// The newest records of the log, one JSON line each; a line that says why when there are none to be had.
pub(crate) async fn log_extract(logs: &dyn Logs) -> String {
    let filter =
        Filter { kinds: RECORD_KINDS.map(str::to_owned).to_vec(), limit: Some(RECORDS_MAX), ..Filter::default() };
    match logs.search(filter).await {
        Ok(page) => page.records.iter().map(|line| format!("{}\n", json!(line))).collect(),
        Err(error) => format!("{}\n", json!({ "fault": error.to_string() })),
    }
}

/// `twinpost-support/node-N/FILE` as a gzipped tar. A node that gave no files is there with why.
///
/// # Errors
/// None in practice: it is written to memory.
pub(crate) fn pack(nodes: &[(u32, Value)], at_ms: u64) -> io::Result<Bytes> {
    let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
    let mut add = |name: String, text: &str| {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(at_ms / 1000);
        tar.append_data(&mut header, format!("twinpost-support/{name}"), text.as_bytes())
    };
    add("README".to_owned(), README)?;
    for (node, files) in nodes {
        match files.get("fault").and_then(Value::as_str) {
            Some(fault) => add(format!("node-{node}/unreachable.txt"), &format!("{fault}\n"))?,
            None => {
                for (name, text) in files.as_object().into_iter().flatten() {
                    add(format!("node-{node}/{}", plain(name)), text.as_str().unwrap_or_default())?;
                }
            }
        }
    }
    tar.into_inner()?.finish().map(Bytes::from)
}

/// Names come from another node: no way out of the folder.
fn plain(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_') { c } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn unpacked(bytes: &Bytes) -> BTreeMap<String, String> {
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(&bytes[..]));
        let read = |entry: io::Result<tar::Entry<'_, _>>| {
            let mut entry = entry.expect("entry");
            let mut text = String::new();
            entry.read_to_string(&mut text).expect("text");
            (entry.path().expect("path").display().to_string(), text)
        };
        archive.entries().expect("entries").map(read).collect()
    }

    #[test]
    fn a_bundle_has_a_folder_for_each_node_and_says_who_did_not_answer() {
        let nodes = [
            (1, json!({ "status.json": "{}", "../../etc/passwd": "x" })),
            (2, json!({ "reachable": false, "fault": "no answer within 15 s" })),
        ];
        let files = unpacked(&pack(&nodes, 1_700_000_000_000).expect("packed"));
        let names: Vec<&str> = files.keys().map(String::as_str).collect();
        assert_eq!(
            names,
            [
                "twinpost-support/README",
                "twinpost-support/node-1/.._.._etc_passwd",
                "twinpost-support/node-1/status.json",
                "twinpost-support/node-2/unreachable.txt"
            ]
        );
        assert_eq!(files["twinpost-support/node-2/unreachable.txt"], "no answer within 15 s\n");
    }

    #[test]
    fn the_configuration_in_a_bundle_counts_and_names_nobody() {
        let mut state = ClusterState { name: "c".into(), ..ClusterState::default() };
        state.tokens.insert("secret-hash".into(), 5);
        let account = topology::Document { schema: 1, body: json!({ "name": "Bob" }), revision: 3, created: 3 };
        let accounts = state.documents.entry(topology::DocumentKind::Account).or_default();
        accounts.insert("bob@example.org".into(), account);
        let text = redacted(&state).to_string();
        assert!(text.contains("\"account\":1") && text.contains("\"unused_tokens\":1"), "{text}");
        assert!(!text.contains("bob") && !text.contains("Bob") && !text.contains("secret"), "{text}");
    }
}
