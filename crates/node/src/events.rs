//! `twinpost cluster events`.

use std::time::Duration;

use reqwest::Method;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::admin::{Api, Reply, line, say};
use crate::cli::ServerArgs;
use crate::exit::Exit;

/// Pause between two looks of `--follow`.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Shows the newest events, and with `follow` those that come; a node that does not answer is asked again.
///
/// # Errors
/// When the API cannot be found.
pub fn run(args: &ServerArgs, limit: usize, follow: bool) -> anyhow::Result<Exit> {
    let api = Api::open(args)?;
    let path = format!("cluster/events?limit={limit}");
    if !follow {
        return Ok(api.run(Method::GET, &path, None, |value| show(value).for_each(|text| say!("{text}"))));
    }
    let mut path = path;
    loop {
        match api.call(Method::GET, &path, None) {
            Reply::Done(value) => {
                for event in value["events"].as_array().into_iter().flatten() {
                    if api.json { say!("{event}") } else { say!("{}", one(event)) }
                }
                if let Some(last) = value["events"].as_array().and_then(|events| events.last()) {
                    path = format!("cluster/events?limit=2000&after={}", last["at_ms"]);
                }
            }
            Reply::Refused(text) => return Ok(api.fail(&text, Exit::Refused)),
            Reply::Unavailable(text) => eprintln!("twinpost: {text}"),
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

fn show(value: &Value) -> impl Iterator<Item = String> {
    value["events"].as_array().into_iter().flatten().map(one)
}

fn one(event: &Value) -> String {
    let at = i128::from(event["at_ms"].as_i64().unwrap_or(0)) * 1_000_000;
    let at = OffsetDateTime::from_unix_timestamp_nanos(at).ok().and_then(|at| at.format(&Rfc3339).ok());
    let (kind, text) = (line(&event["kind"]), line(&event["text"]));
    format!("{:<24} node {} {kind:<9} {text}", at.unwrap_or_default(), event["node"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_with_its_time() {
        let event =
            serde_json::json!({ "at_ms": 1_700_000_000_123_i64, "node": 2, "kind": "alert", "text": "going on alone" });
        assert_eq!(one(&event), "2023-11-14T22:13:20.123Z node 2 alert     going on alone");
    }
}
