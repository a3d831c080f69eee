//! The log against what clients know: what was acknowledged has its record of acceptance on the primary, exactly once.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use node::demo::clients::api::Api;
use serde::Deserialize;

use crate::cluster::{Cluster, LIMIT};
use crate::model::{Message, Model};

/// Records asked for at once.
const PAGE: usize = 1_000;
/// Pause between two looks at a log that lacks something.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Records of acceptance by accept id.
type Accepts = BTreeMap<String, usize>;

#[derive(Deserialize)]
struct Record {
    #[serde(default)]
    accept: String,
}

#[derive(Deserialize)]
struct Page {
    records: Vec<Record>,
    next: Option<String>,
    warning: Option<String>,
}

/// Reads the log of the primary until it has everything, or should have.
///
/// # Errors
/// It cannot be read: nothing is known then.
pub async fn check(cluster: &Cluster, model: &Model) -> anyhow::Result<Vec<String>> {
    let (api, messages, begin) = (cluster.cluster_api()?, model.messages(), Instant::now());
    loop {
        let faults = match read(&api).await? {
            Ok(accepts) => judge(&messages, &accepts),
            Err(warning) => vec![format!("log not read: {warning}")],
        };
        // What is there twice stays so.
        if faults.iter().all(|fault| fault.starts_with("log twice")) || begin.elapsed() > LIMIT {
            eprintln!("the log was read in {:.1} s", begin.elapsed().as_secs_f64());
            return Ok(faults);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// The outer error: no answer; the inner one: not from the primary.
async fn read(api: &Api) -> anyhow::Result<Result<Accepts, String>> {
    let mut accepts = Accepts::new();
    let mut next = String::new();
    loop {
        let path = format!("/api/v1/logs?kind=mail&outcome=accept&limit={PAGE}{next}");
        let page: Page = serde_json::from_str(&api.get(&path).await?)?;
        if let Some(warning) = page.warning {
            return Ok(Err(warning));
        }
        for record in page.records {
            *accepts.entry(record.accept).or_default() += 1;
        }
        match page.next {
            Some(page) => next = format!("&page={page}"),
            None => return Ok(Ok(accepts)),
        }
    }
}

fn judge(messages: &BTreeMap<u64, Message>, accepts: &Accepts) -> Vec<String> {
    let mut faults = Vec::new();
    for (id, message) in messages {
        // Each 250 names one, or the log could not be searched for it.
        if message.accepts.len() != message.ok {
            faults.push(format!(
                "log unnamed: message {id}: {} of {} 250s named an id",
                message.accepts.len(),
                message.ok
            ));
        }
        for accept in message.accepts.iter().filter(|accept| !accepts.contains_key(*accept)) {
            faults.push(format!("log lacks: accept {accept} of message {id}"));
        }
    }
    let twice = accepts.iter().filter(|(_, count)| **count > 1);
    faults.extend(twice.map(|(accept, count)| format!("log twice: accept {accept}: {count} records")));
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(message: Message, accepts: &[(&str, usize)]) -> Vec<String> {
        let accepts = accepts.iter().map(|(accept, count)| ((*accept).to_owned(), *count)).collect();
        let faults = judge(&BTreeMap::from([(1, message)]), &accepts);
        faults.iter().map(|fault| fault.split(':').next().unwrap_or_default().to_owned()).collect()
    }

    #[test]
    fn ha_04_each_kind_of_violation_is_found() {
        let ok = Message { ok: 1, accepts: ["1-2-3".to_owned()].into(), ..Message::default() };
        assert!(kinds(ok.clone(), &[("1-2-3", 1)]).is_empty());
        assert_eq!(kinds(ok.clone(), &[]), ["log lacks"]);
        assert_eq!(kinds(ok.clone(), &[("1-2-3", 2)]), ["log twice"]);
        assert_eq!(kinds(Message { ok: 2, ..ok.clone() }, &[("1-2-3", 1)]), ["log unnamed"]);
        // One without an answer may be in the log.
        let unknown = Message { unknown: 1, ..ok };
        assert!(kinds(unknown, &[("1-2-3", 1), ("1-2-4", 1)]).is_empty());
        assert_eq!(kinds(Message::default(), &[("1-2-4", 2)]), ["log twice"]);
    }
}
