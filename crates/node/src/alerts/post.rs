//! Telling of alerts: by mail through this node itself, and by webhook. What cannot be told now is tried again for an hour.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ports::directory::{AddressClass, Directory, Target};
use ports::intake::{Delivery, Intake, Recipient};
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;
use tokio::sync::mpsc;
use topology::AlertsBody;
use vocab::log::{Direction, Mail, MailEvent, Record};
use vocab::{Address, CommandId, ForwardPath, ReversePath, Timestamp};

use super::Sources;
use crate::clock::wall_ms;

/// Alerts that wait to be told; beyond it the oldest way of knowing remains: the log and the board.
const WAITING_MAX: usize = 200;
/// Pause between two tries, and how many.
const PAUSE: Duration = Duration::from_secs(20);
const TRIES: u32 = 180;
/// How long a webhook may take.
const WEBHOOK_TIME: Duration = Duration::from_secs(10);

/// Takes what is to be told.
pub(super) struct Post {
    waiting: mpsc::Sender<(Value, AlertsBody)>,
}

#[derive(Clone)]
struct Ways {
    intake: Arc<dyn Intake>,
    directory: Arc<dyn Directory>,
    accounts: Arc<dyn ports::accounts::Accounts>,
    hostname: String,
    client: Option<reqwest::Client>,
}

impl Post {
    pub(super) fn start(sources: &Sources) -> Self {
        let (waiting, mut told) = mpsc::channel::<(Value, AlertsBody)>(WAITING_MAX);
        let ways = Ways {
            intake: Arc::clone(&sources.intake),
            directory: Arc::clone(&sources.directory),
            accounts: Arc::clone(&sources.accounts),
            hostname: sources.hostname.clone(),
            client: client(),
        };
        tokio::spawn(async move {
            while let Some((document, setting)) = told.recv().await {
                // A receiver that is away must not hold up the next one.
                tokio::spawn(deliver(ways.clone(), document, setting));
            }
        });
        Self { waiting }
    }

    pub(super) fn tell(&self, document: Value, setting: AlertsBody) {
        if self.waiting.try_send((document, setting)).is_err() {
            metrics::counter!("twinpost_alerts_untold_total").increment(1);
            tracing::error!("too many alerts wait to be told");
        }
    }
}

/// Trusts what the machine trusts; without one there are no webhooks, which is said.
fn client() -> Option<reqwest::Client> {
    let built = reqwest::Client::builder().timeout(WEBHOOK_TIME).build();
    built.inspect_err(|error| tracing::error!(%error, "alerts cannot be posted to webhooks")).ok()
}

async fn deliver(ways: Ways, document: Value, setting: AlertsBody) {
    let mut left: Vec<Address> = setting.mail.iter().filter_map(|text| Address::parse(text).ok()).collect();
    let mut webhook = setting.webhook;
    // One id for every try, so that a try whose answer was lost takes effect once.
    let ids: Vec<(Address, CommandId)> = left.drain(..).map(|address| (address, ways.accounts.command_id())).collect();
    let mut ids = ids;
    for _ in 0..TRIES {
        let mut again = Vec::new();
        for (to, id) in ids {
            if let Err(error) = mail(&ways, &document, &to, id).await {
                tracing::debug!(%to, %error, "an alert could not be mailed yet");
                again.push((to, id));
            }
        }
        ids = again;
        if let Some(url) = &webhook
            && hook(&ways, url, &document).await
        {
            webhook = None;
        }
        if ids.is_empty() && webhook.is_none() {
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
    metrics::counter!("twinpost_alerts_untold_total").increment(1);
    tracing::error!(left = ids.len(), webhook = webhook.is_some(), "an alert could not be told for an hour");
}

async fn hook(ways: &Ways, url: &str, document: &Value) -> bool {
    let Some(client) = &ways.client else { return false };
    match client.post(url).json(document).send().await {
        Ok(answer) if answer.status().is_success() => true,
        Ok(answer) => {
            tracing::debug!(status = answer.status().as_u16(), "the webhook did not take an alert");
            false
        }
        Err(error) => {
            tracing::debug!(%error, "the webhook cannot be reached");
            false
        }
    }
}

/// The message about an alert: plain text in UTF-8, marked as made by a machine (RFC 3834).
pub(super) fn message(document: &Value, to: &Address, id: CommandId, host: &str, at_ms: u64) -> Bytes {
    let text = |name: &str| document[name].as_str().unwrap_or_default().replace(['\r', '\n'], " ");
    let date = OffsetDateTime::from_unix_timestamp_nanos(i128::from(at_ms) * 1_000_000);
    let date = date.ok().and_then(|date| date.format(&Rfc2822).ok()).unwrap_or_default();
    let word = if document["event"] == "cleared" { "over" } else { document["severity"].as_str().unwrap_or("alert") };
    let subject: String = format!("[{}] {word}: {}", text("cluster"), text("text"))
        .chars()
        .filter(|c| !c.is_control())
        .take(150)
        .collect();
    let subject: String = subject.chars().map(|c| if c.is_ascii() { c } else { '?' }).collect();
    let mut body = format!("{}\r\n\r\n", text("text"));
    if document["event"] != "cleared" {
        body.push_str(&format!("What to do: {}\r\n\r\n", text("advice")));
    }
    body.push_str(&format!(
        "Cluster {}, told by node {}.\r\n`twinpost status` and `twinpost cluster events` say more.\r\n",
        text("cluster"),
        document["node"]
    ));
    let head = format!(
        "Date: {date}\r\nFrom: Twinpost <postmaster@{host}>\r\nTo: <{to}>\r\nSubject: {subject}\r\n\
         Message-ID: <{id}@{host}>\r\nAuto-Submitted: auto-generated\r\nMIME-Version: 1.0\r\n\
         Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
    );
    Bytes::from(head + &body)
}

async fn mail(ways: &Ways, document: &Value, to: &Address, id: CommandId) -> Result<(), String> {
    let path = ForwardPath::Address(to.clone());
    let targets = match ways.directory.classify(&path).await.map_err(|error| error.to_string())? {
        AddressClass::Own(targets) => targets,
        AddressClass::NotOurs => vec![Target::Remote(to.clone())],
        AddressClass::NoSuchUser | AddressClass::Disabled => {
            tracing::warn!(%to, "alerts are to be mailed to an address that does not exist");
            return Ok(());
        }
    };
    let at = document["at_ms"].as_u64().unwrap_or_else(wall_ms);
    let body = message(document, to, id, &ways.hostname, at);
    let facts = mime::facts_of(&body);
    let leaves = targets.iter().any(|target| matches!(target, Target::Remote(_)));
    let note = Mail {
        event: MailEvent::Accept.into(),
        accept: id.to_string(),
        recipient: to.to_string(),
        subject: facts.subject.clone(),
        size: facts.size,
        direction: if leaves { Direction::Out } else { Direction::Within }.into(),
        outcome: "accepted".to_owned(),
        status: "2.0.0".to_owned(),
        system: true,
        ..Mail::default()
    };
    let prefix = Bytes::from(format!("Return-Path: <>\r\nDelivered-To: {to}\r\n"));
    let recipient = |(number, target): (u32, Target)| match target {
        Target::Local(account) => Recipient::Local { number, account, prefix: prefix.clone() },
        Target::Remote(address) => {
            let original = (address != *to).then(|| to.clone());
            Recipient::Remote { number, address, original }
        }
    };
    let delivery = Delivery {
        accept: id,
        reverse_path: ReversePath::Null,
        recipients: (1..).zip(targets).map(recipient).collect(),
        facts: facts.encode(),
        smtputf8: !to.is_ascii(),
        body,
        at: Timestamp(at),
        records: vec![Record::of_command(at, id, note)],
    };
    ways.intake.accept(delivery).await.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use vocab::{Boot, NodeId};

    use super::*;

    #[test]
    fn the_message_says_what_and_what_to_do_and_no_text_breaks_its_header() {
        let document = json!({
            "event": "raised", "cluster": "büro", "node": 2, "severity": "critical",
            "text": "node 1 is not heard\r\nBcc: x@example.org", "advice": "look at its power",
        });
        let to = Address::parse("admin@example.org").expect("valid");
        let id = CommandId { origin: NodeId(2), boot: Boot(1), counter: 3, recipient: 0 };
        let text = String::from_utf8(message(&document, &to, id, "mail.example.org", 0).to_vec()).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").expect("a header");
        assert!(head.contains("\r\nSubject: [b?ro] critical: node 1 is not heard  Bcc: x@example.org\r\n"), "{head}");
        assert!(!head.contains("\r\nBcc:") && head.contains("\r\nAuto-Submitted: auto-generated\r\n"), "{head}");
        assert!(head.starts_with("Date: Thu, 01 Jan 1970 00:00:00 +0000\r\n"), "{head}");
        assert!(body.contains("What to do: look at its power\r\n") && body.contains("told by node 2"), "{body}");
    }
}
