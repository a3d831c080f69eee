//! `twinpost logs`: the log on a terminal or in a file.

use std::time::Duration;

use clap::Args;
use reqwest::Method;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::admin::{Api, Reply, say};
use crate::cli::ServerArgs;
use crate::exit::Exit;

/// Pause between two looks of `--follow`.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Records asked for at once.
const PAGE: usize = 1_000;

/// Which records.
#[derive(Debug, Args)]
pub struct LogsArgs {
    /// mail, security, access, admin, cluster, protocol; separated by commas. All but protocol unless said.
    #[arg(long)]
    kind: Option<String>,
    /// Not before (RFC 3339, or Unix milliseconds).
    #[arg(long)]
    from: Option<String>,
    /// Before.
    #[arg(long)]
    to: Option<String>,
    /// Address of the sender.
    #[arg(long)]
    sender: Option<String>,
    /// Address of the recipient.
    #[arg(long)]
    recipient: Option<String>,
    /// Accept id (from the 250 reply or Received), or Message-ID.
    #[arg(long)]
    id: Option<String>,
    /// A part of the name or address of the client or the other server.
    #[arg(long)]
    host: Option<String>,
    /// Event or outcome: accept, deliver, defer, bounce, received, sent, failed, ok, a type of the security log.
    #[arg(long)]
    outcome: Option<String>,
    /// Who was logged in.
    #[arg(long)]
    user: Option<String>,
    /// A part of any text of the record.
    #[arg(long)]
    text: Option<String>,
    /// Only mail between accounts of this cluster.
    #[arg(long)]
    within: bool,
    /// At most so many, the newest.
    #[arg(long, default_value_t = 100, conflicts_with = "all")]
    limit: usize,
    /// All of them, from the newest to the oldest: an export.
    #[arg(long)]
    all: bool,
    /// Show what comes from now on, until interrupted.
    #[arg(long, conflicts_with_all = ["all", "from", "to"])]
    follow: bool,
}

impl LogsArgs {
    fn query(&self) -> Vec<(&'static str, String)> {
        let texts = [
            ("kind", &self.kind),
            ("from", &self.from),
            ("to", &self.to),
            ("sender", &self.sender),
            ("recipient", &self.recipient),
            ("id", &self.id),
            ("host", &self.host),
            ("outcome", &self.outcome),
            ("user", &self.user),
            ("text", &self.text),
        ];
        let mut query: Vec<_> = texts.into_iter().filter_map(|(name, text)| Some((name, text.clone()?))).collect();
        if self.within {
            query.push(("within", "true".to_owned()));
        }
        query
    }
}

fn path(query: &[(&'static str, String)], more: &[(&str, String)]) -> String {
    let Ok(mut url) = reqwest::Url::parse("https://node/logs") else { return "logs".to_owned() };
    let pairs = query.iter().map(|(name, value)| (*name, value)).chain(more.iter().map(|(name, value)| (*name, value)));
    url.query_pairs_mut().extend_pairs(pairs);
    format!("logs?{}", url.query().unwrap_or_default())
}

/// Shows them.
///
/// # Errors
/// When the API cannot be found.
pub fn run(server: &ServerArgs, args: &LogsArgs) -> anyhow::Result<Exit> {
    let api = Api::open(server)?;
    let query = args.query();
    if args.follow {
        return follow(&api, &query);
    }
    let mut left = if args.all { usize::MAX } else { args.limit };
    let mut page: Option<String> = None;
    loop {
        let mut more = vec![("limit", left.min(PAGE).to_string())];
        more.extend(page.take().map(|page| ("page", page)));
        let value = match api.call(Method::GET, &path(&query, &more), None) {
            Reply::Done(value) => value,
            Reply::Refused(text) => return Ok(api.fail(&text, Exit::Refused)),
            Reply::Unavailable(text) => return Ok(api.fail(&text, Exit::Unavailable)),
        };
        warn(&value);
        let shown = show(&api, &value);
        left = left.saturating_sub(shown);
        page = value["next"].as_str().map(ToOwned::to_owned);
        if page.is_none() || left == 0 {
            return Ok(Exit::Done);
        }
    }
}

fn follow(api: &Api, query: &[(&'static str, String)]) -> anyhow::Result<Exit> {
    let (mut since, mut node): (Option<u64>, Option<u64>) = (None, None);
    loop {
        // The first question only asks where the log is now.
        let more = match since {
            Some(since) => vec![("since", since.to_string()), ("limit", PAGE.to_string())],
            None => vec![("limit", "1".to_owned())],
        };
        match api.call(Method::GET, &path(query, &more), None) {
            Reply::Done(value) => {
                // Arrivals are numbered by each log for itself.
                let other = node.is_some_and(|node| value["node"].as_u64() != Some(node));
                if since.is_some() && !other {
                    show(api, &value);
                }
                node = value["node"].as_u64();
                since = if other { None } else { value["arrival"].as_u64() };
                if other {
                    eprintln!("twinpost: another node is primary now");
                    continue;
                }
            }
            Reply::Refused(text) => return Ok(api.fail(&text, Exit::Refused)),
            Reply::Unavailable(text) => eprintln!("twinpost: {text}"),
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

fn warn(value: &Value) {
    if let Some(warning) = value["warning"].as_str() {
        eprintln!("twinpost: {warning}");
    }
}

fn show(api: &Api, value: &Value) -> usize {
    let records = value["records"].as_array().map(Vec::as_slice).unwrap_or_default();
    for record in records {
        let Some(line) = record.as_object() else { continue };
        if api.json { say!("{record}") } else { say!("{}", audit::text(line, &time_of(line))) }
    }
    records.len()
}

fn time_of(line: &serde_json::Map<String, Value>) -> String {
    let at = i128::from(line.get("at_ms").and_then(Value::as_i64).unwrap_or(0)) * 1_000_000;
    let at = OffsetDateTime::from_unix_timestamp_nanos(at).ok().and_then(|at| at.format(&Rfc3339).ok());
    at.unwrap_or_default()
}
