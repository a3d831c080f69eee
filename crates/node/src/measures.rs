//! Every metric of a node with its meaning: what `/metrics` says beside the numbers, and what the dashboard may ask for.
//! Names and units follow Prometheus: base units, `_total` for what only grows.

use metrics::{describe_counter, describe_gauge, describe_histogram};

/// How a metric behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows while the process runs.
    Counter,
    /// What is now.
    Gauge,
    /// A distribution: quantiles, sum and count.
    Summary,
}

use Kind::{Counter, Gauge, Summary};

/// All of them by name.
pub const MEASURES: &[(&str, Kind, &str)] = &[
    ("twinpost_accepts_oldest_seconds", Gauge, "Age of the oldest accept record that waits for its fan-out."),
    ("twinpost_accepts_waiting", Gauge, "Accept records that wait for their fan-out."),
    ("twinpost_accounts_merged_total", Counter, "Accounts whose two branches were merged."),
    ("twinpost_accounts_transferred_total", Counter, "Accounts brought up to date on another node, by how."),
    ("twinpost_alerts_raised", Gauge, "Alerts raised now, by severity."),
    ("twinpost_alerts_total", Counter, "Alerts of replication since the start."),
    ("twinpost_alerts_untold_total", Counter, "Alerts that mail or webhook did not take, by way."),
    ("twinpost_api_refused_total", Counter, "Requests to the API without the right token."),
    ("twinpost_archived_branches", Gauge, "Branches of accounts archived on this node."),
    ("twinpost_batches_in_flight", Gauge, "Batches that are not durable on every node in sync yet."),
    ("twinpost_bounces_total", Counter, "Reports of failed delivery that were written."),
    ("twinpost_branches_archived_total", Counter, "Branches of accounts that were archived."),
    ("twinpost_certificate_expiry_timestamp_seconds", Gauge, "When a certificate of this node ends (Unix time)."),
    ("twinpost_check_accounts_total", Counter, "Accounts whose rows were checked against their digest."),
    ("twinpost_check_bodies_total", Counter, "Bodies that were checked against their hash."),
    ("twinpost_check_broken", Gauge, "Damaged accounts and bodies of which no sound copy was found yet."),
    ("twinpost_check_damaged_total", Counter, "Accounts and bodies that were found damaged."),
    (
        "twinpost_check_differing_total",
        Counter,
        "Accounts that differed from the home's though their versions were equal.",
    ),
    (
        "twinpost_check_last_pass_timestamp_seconds",
        Gauge,
        "When the last whole check of the stored data ended (Unix time).",
    ),
    ("twinpost_check_repaired_total", Counter, "Damaged accounts and bodies that were repaired from another node."),
    ("twinpost_cluster_address_added", Gauge, "1 while a cluster address is on an interface of this node."),
    ("twinpost_cluster_address_faults_total", Counter, "Faults in adding, renewing or removing a cluster address."),
    ("twinpost_cluster_address_held", Gauge, "1 while this node serves on the cluster address."),
    ("twinpost_commands_waiting", Gauge, "Commands that wait to become part of a batch."),
    ("twinpost_connections_open", Gauge, "Connections of clients that are open, by service."),
    ("twinpost_connections_proxied_open", Gauge, "Connections of clients that another node serves for this one."),
    ("twinpost_connections_proxied_total", Counter, "Connections of clients that were passed on to another node."),
    ("twinpost_connections_proxy_failed_total", Counter, "Connections that could not be passed on."),
    ("twinpost_connections_refused_total", Counter, "Connections refused at a limit, by service."),
    ("twinpost_connections_total", Counter, "Connections of clients, by service."),
    ("twinpost_imap_unanswered_total", Counter, "IMAP commands whose outcome could not be told, by kind."),
    ("twinpost_in_sync_nodes", Gauge, "Nodes that hold everything that was acknowledged."),
    ("twinpost_log_bytes", Gauge, "Bytes of the collected log on this node."),
    ("twinpost_log_forward_failures_total", Counter, "Failed attempts to forward the log by syslog."),
    ("twinpost_log_notes_dropped_total", Counter, "Notes of the log that were dropped because its disk was too slow."),
    ("twinpost_log_records", Gauge, "Records of the collected log on this node."),
    ("twinpost_log_records_dropped_total", Counter, "Records of mail that were not kept because too many waited."),
    ("twinpost_log_records_total", Counter, "Records taken into the collected log."),
    ("twinpost_log_records_waiting", Gauge, "Records that wait on this node until the primary has them."),
    ("twinpost_log_ship_failures_total", Counter, "Failed attempts to bring records to the primary."),
    ("twinpost_log_shipped_total", Counter, "Records brought to the primary."),
    ("twinpost_log_write_failures_total", Counter, "Failed writes of the collected log."),
    ("twinpost_logins_total", Counter, "Logins, by protocol and result."),
    ("twinpost_machine_cpu_ratio", Gauge, "Share of all processors of the machine that is used."),
    ("twinpost_machine_memory_available_bytes", Gauge, "Memory of the machine that programs can still have."),
    ("twinpost_machine_memory_bytes", Gauge, "Memory of the machine."),
    ("twinpost_mail_disk_bytes", Gauge, "Size of the file system with the mail."),
    ("twinpost_mail_disk_free_bytes", Gauge, "Room on the file system with the mail."),
    (
        "twinpost_merge_documents_kept_twice_total",
        Counter,
        "Documents kept twice by merges, one under a conflict name.",
    ),
    (
        "twinpost_merge_messages_recovered_total",
        Counter,
        "Messages that one side of a split expunged and the other changed; restorable for a time.",
    ),
    ("twinpost_merge_messages_renumbered_total", Counter, "Messages that merges gave another UID than one side had."),
    ("twinpost_message_memory_refusals_total", Counter, "Messages refused because all memory for messages was in use."),
    ("twinpost_messages_accepted_total", Counter, "Messages answered with 250, by door."),
    ("twinpost_oldest_batch_seconds", Gauge, "Age of the oldest batch in flight."),
    ("twinpost_process_cpu_ratio", Gauge, "Share of all processors of the machine that this process uses."),
    ("twinpost_process_memory_bytes", Gauge, "Resident memory of this process."),
    ("twinpost_proxy_headers_refused_total", Counter, "Connections from balancers without a good PROXY header."),
    ("twinpost_queue_held", Gauge, "Queue items left to the other node while it may be alive."),
    ("twinpost_relay_attempts_total", Counter, "Attempts to send a queue item, by result."),
    ("twinpost_seeded_rows_total", Counter, "Rows kept from a copied data folder when this node joined."),
    ("twinpost_store_group_writes", Summary, "Writes that one synced write carried."),
    ("twinpost_store_swept_bodies_total", Counter, "Bodies deleted because nothing names them any more."),
    ("twinpost_store_synced_writes_total", Counter, "Synced writes to the disk."),
    ("twinpost_store_write_seconds", Summary, "Duration of a synced write."),
    ("twinpost_store_written_bytes_total", Counter, "Bytes given to synced writes."),
    ("twinpost_sync_accounts_left", Gauge, "Accounts still to be transferred to a node that is brought up to date."),
    ("twinpost_sync_left_bytes", Gauge, "Bytes still to be transferred to it, as far as known."),
    ("twinpost_sync_left_seconds", Gauge, "Time that will take, by what was done so far."),
    ("twinpost_tls_failures_total", Counter, "TLS handshakes that failed, by service."),
    ("twinpost_transferred_bytes_total", Counter, "Bytes of accounts and bodies transferred."),
];

/// Tells the recorder what each means.
pub(crate) fn describe() {
    for (name, kind, help) in MEASURES {
        match kind {
            Counter => describe_counter!(*name, *help),
            Gauge => describe_gauge!(*name, *help),
            Summary => describe_histogram!(*name, *help),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::path::Path;

    use super::*;

    fn root() -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
    }

    /// Names in quotes in the sources, with the macros they stand in.
    fn used(folder: &Path, found: &mut BTreeMap<String, BTreeSet<String>>) {
        for entry in std::fs::read_dir(folder).expect("folder").map(|entry| entry.expect("entry").path()) {
            if entry.is_dir() {
                used(&entry, found);
            } else if entry.extension().is_some_and(|ending| ending == "rs") {
                let text = std::fs::read_to_string(&entry).expect("text");
                for (macro_name, kind) in [("counter!(", "counter"), ("gauge!(", "gauge"), ("histogram!(", "summary")] {
                    for rest in text.split(macro_name).skip(1) {
                        let name = rest.trim_start().strip_prefix('"').and_then(|rest| rest.split('"').next());
                        if let Some(name) = name.filter(|name| name.starts_with("twinpost_")) {
                            found.entry(name.to_owned()).or_default().insert(kind.to_owned());
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn every_metric_in_the_sources_is_described_and_every_described_one_is_there() {
        let mut found = BTreeMap::new();
        for area in ["crates", "cluster"] {
            for part in std::fs::read_dir(root().join(area)).expect("area").map(|entry| entry.expect("entry").path()) {
                used(&part.join("src"), &mut found);
            }
        }
        let kinds: BTreeMap<String, BTreeSet<String>> = MEASURES
            .iter()
            .map(|(name, kind, _)| ((*name).to_owned(), BTreeSet::from([format!("{kind:?}").to_lowercase()])))
            .collect();
        assert_eq!(found, kinds);
    }

    #[test]
    fn names_and_units_follow_prometheus() {
        let mut last = "";
        for (name, kind, help) in MEASURES {
            assert!(*name > last, "{name}: in order, each once");
            last = name;
            assert_eq!(*kind == Counter, name.ends_with("_total"), "{name}");
            assert!(help.ends_with('.') && help.len() > 20, "{name}");
            let strange = ["millisecond", "_ms", "kilo", "mega", "percent", "minutes", "hours"];
            assert!(!strange.iter().any(|unit| name.contains(unit)), "{name}: base units");
        }
    }

    /// Names in the expressions of the dashboard file.
    fn asked(value: &serde_json::Value, names: &mut BTreeSet<String>) {
        match value {
            serde_json::Value::Object(map) => {
                if let Some(expression) = map.get("expr").and_then(serde_json::Value::as_str) {
                    let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
                    names.extend(words.filter(|word| word.starts_with("twinpost_")).map(str::to_owned));
                }
                map.values().for_each(|inner| asked(inner, names));
            }
            serde_json::Value::Array(all) => all.iter().for_each(|inner| asked(inner, names)),
            _ => {}
        }
    }

    #[test]
    fn the_dashboard_asks_for_series_that_exist() {
        let text = std::fs::read_to_string(root().join("deploy/grafana/twinpost.json")).expect("the dashboard");
        let mut names = BTreeSet::new();
        asked(&serde_json::from_str(&text).expect("JSON"), &mut names);
        assert!(names.len() > 25, "{names:?}");
        for name in names {
            let summary = ["_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(&name);
            let is = |(known, kind, _): &&(&str, Kind, &str)| *known == name || (*kind == Summary && *known == summary);
            assert!(MEASURES.iter().any(|measure| is(&measure)), "{name}");
        }
    }
}
