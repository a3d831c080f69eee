//! What the log costs: mail at the secondary without collection, with it, and with every line of SMTP and a copy besides;
//! and how many records a second arrive in the log of the primary meanwhile.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use node::demo::pair::{Pair, PairOptions};

use crate::loads::{self, ACCOUNTS};
use crate::table::Table;

/// Connections of the load.
const CONNECTIONS: usize = 10;
/// How often the log is looked at, and how long nothing may come until it has come to rest.
const LOOK_EVERY: Duration = Duration::from_millis(100);
const RESTS: Duration = Duration::from_secs(3);
/// How long a setting may take to be followed.
const FOLLOWED: Duration = Duration::from_secs(2);

/// What is compared.
const VARIANTS: [(&str, Option<&str>); 3] = [
    ("nothing collected", None),
    ("collected", Some(r#"{}"#)),
    ("collected, with protocol and copy", Some(r#"{"protocol": true, "copy": true}"#)),
];

/// Runs `binary` with a part of it switched off.
fn without(part: &str, binary: &Path, folder: &Path) -> anyhow::Result<PathBuf> {
    let script = folder.join("without-log.sh");
    let text = format!("#!/bin/sh\nTWINPOST_LAB_WITHOUT={part} exec {} \"$@\"\n", binary.display());
    std::fs::write(&script, text)?;
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755))?;
    Ok(script)
}

/// Measures all three in turn, `rounds` times.
///
/// # Errors
/// A pair did not come up, a message was refused, or the binary cannot go without collection.
pub async fn measure(
    folder: &Path,
    binary: &Path,
    rounds: usize,
    messages: usize,
    table: &mut Table,
) -> anyhow::Result<()> {
    let quiet = without("log-collection", binary, folder)?;
    for _ in 0..rounds {
        for (name, setting) in VARIANTS {
            let dir = folder.join("log");
            let mut options = PairOptions::new(&dir, if setting.is_some() { binary } else { &quiet }, ACCOUNTS + 1);
            options.allow_plaintext = true;
            let mut pair = Pair::start(options).await?;
            let run = one(&pair, name, setting, messages, table).await;
            pair.stop().await;
            std::fs::remove_dir_all(&dir)?;
            run?;
        }
    }
    Ok(())
}

async fn one(pair: &Pair, name: &str, setting: Option<&str>, messages: usize, table: &mut Table) -> anyhow::Result<()> {
    match setting {
        Some(body) => {
            pair.command(0, &["setting", "set"], &["log"], Some(body)).await?;
            tokio::time::sleep(FOLLOWED).await;
        }
        None if arrivals(pair).await.is_ok() => {
            bail!("--bin needs a build with the feature `lab`: cargo build --release -p lab --features lab/controls")
        }
        None => {}
    }
    let primary = pair.primary().await.context("no primary")?;
    let secondary = pair.node(1 - primary)?.address;
    let mut target = crate::twinpost(pair, pair.options.accounts.clone())?;
    (target.smtp, target.imap) = ((secondary, pair.ports.smtp).into(), (secondary, pair.ports.imap).into());
    let before = if setting.is_some() { arrivals(pair).await? } else { 0 };
    let begun = Instant::now();
    let rested = async {
        let mut seen = vec![(0, Duration::ZERO)];
        let mut moved = begun;
        while setting.is_some() && (seen.len() == 1 || moved.elapsed() < RESTS) {
            let now = arrivals(pair).await? - before;
            if seen.last().is_none_or(|(count, _)| *count != now) {
                moved = Instant::now();
                seen.push((now, moved - begun));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let all = seen.last().map_or(0, |(count, _)| *count);
        // The nodes note things of their own now and then: the last record need not be the load's.
        let most = seen.into_iter().find(|(count, _)| count * 100 >= all * 99);
        anyhow::Ok((all, most.map_or(Duration::ZERO, |(_, time)| time)))
    };
    let (run, rested) = tokio::join!(loads::deliver(&target, CONNECTIONS, messages), rested);
    let (run, (records, time)) = (run?, rested?);
    let row = |what: &str| format!("log, {name}: {what}");
    table.add(&row("accepted at the secondary, 10 connections"), "/s", 0, run.accepted);
    table.add(&row("250 after the dot, p50"), "ms", 0, run.ack_ms);
    table.add(&row("250 after the dot, p99"), "ms", 0, run.ack_p99_ms);
    table.add(&row("CPU per message, all nodes"), "ms", 0, run.cpu_ms);
    if setting.is_some() {
        if records < messages as u64 {
            bail!("{records} records of {messages} messages");
        }
        table.add(&row("records in the primary's log"), "/s", 0, records as f64 * 0.99 / time.as_secs_f64());
        let behind = time.as_secs_f64() - messages as f64 / run.accepted;
        table.add(&row("99 of 100 records are there after the last 250"), "s", 0, behind);
        table.add(&row("records a message"), "", 0, records as f64 / messages as f64);
    }
    Ok(())
}

/// Records that ever came to the log of the primary.
async fn arrivals(pair: &Pair) -> anyhow::Result<u64> {
    let text = pair.cluster_api()?.get("/api/v1/logs?limit=1").await?;
    let page: serde_json::Value = serde_json::from_str(&text)?;
    if let Some(warning) = page["warning"].as_str() {
        bail!("not from the primary: {warning}");
    }
    page["arrival"].as_u64().context("no arrival")
}
