//! Records as operators see them, and which of them a question is about. Pure.

use ports::log::{Filter, Line, SearchError};
use serde_json::Value;
use vocab::log::{Direction, Entry, Mail, MailEvent, Record, SecurityType};

use crate::book::Kept;
use crate::keys::Class;

/// Names of the kinds, as in a question.
pub const KINDS: [&str; 6] = ["mail", "security", "access", "admin", "cluster", "protocol"];

fn event_name(event: i32) -> &'static str {
    match MailEvent::try_from(event).unwrap_or(MailEvent::Unknown) {
        MailEvent::Unknown => "unknown",
        MailEvent::Accept => "accept",
        MailEvent::Filter => "filter",
        MailEvent::Deliver => "deliver",
        MailEvent::Defer => "defer",
        MailEvent::Bounce => "bounce",
    }
}

fn direction_name(direction: i32) -> &'static str {
    match Direction::try_from(direction).unwrap_or(Direction::Unknown) {
        Direction::Unknown => "unknown",
        Direction::In => "in",
        Direction::Out => "out",
        Direction::Within => "within",
        Direction::Through => "through",
    }
}

fn security_name(kind: i32) -> &'static str {
    match SecurityType::try_from(kind).unwrap_or(SecurityType::Unknown) {
        SecurityType::Unknown => "unknown",
        SecurityType::Rejected => "rejected",
        SecurityType::Spam => "spam",
        SecurityType::Virus => "virus",
        SecurityType::Dnsbl => "dnsbl",
        SecurityType::MaliciousContent => "malicious-content",
        SecurityType::AttachmentFilter => "attachment-filter",
        SecurityType::Blacklist => "blacklist",
        SecurityType::Spf => "spf",
        SecurityType::Dkim => "dkim",
        SecurityType::Dmarc => "dmarc",
        SecurityType::DataProtection => "data-protection",
    }
}

/// Received, Sent or Failed of the mail log (LOG-01 to LOG-04); none for what is neither.
fn status_name(mail: &Mail) -> Option<&'static str> {
    let local = [Direction::In, Direction::Within].map(i32::from).contains(&mail.direction);
    match MailEvent::try_from(mail.event).unwrap_or(MailEvent::Unknown) {
        MailEvent::Accept if local => Some("received"),
        MailEvent::Deliver => Some("sent"),
        MailEvent::Bounce => Some("failed"),
        _ => None,
    }
}

/// Kind, texts, and what is no text.
type Parts<'r> = (&'static str, Vec<(&'static str, &'r str)>, Vec<(&'static str, Value)>);

fn mail_parts(mail: &Mail) -> Parts<'_> {
    let texts = vec![
        ("event", event_name(mail.event)),
        ("status", status_name(mail).unwrap_or_default()),
        ("direction", direction_name(mail.direction)),
        ("accept", &mail.accept),
        ("message_id", &mail.message_id),
        ("sender", &mail.sender),
        ("recipient", &mail.recipient),
        ("original", &mail.original),
        ("subject", &mail.subject),
        ("outcome", &mail.outcome),
        ("code", &mail.status),
        ("host", &mail.host),
        ("user", &mail.user),
    ];
    let others = vec![("size", mail.size.into()), ("system", mail.system.into()), ("attempt", mail.attempt.into())];
    ("mail", texts, others)
}

fn parts(entry: Option<&Entry>) -> Parts<'_> {
    match entry {
        Some(Entry::Mail(mail)) => mail_parts(mail),
        Some(Entry::Security(found)) => {
            let texts = vec![
                ("type", security_name(found.kind)),
                ("host", &found.source),
                ("sender", &found.sender),
                ("recipient", &found.recipient),
                ("subject", &found.subject),
                ("event", &found.event),
            ];
            ("security", texts, Vec::new())
        }
        Some(Entry::Access(access)) => {
            let texts = vec![
                ("protocol", access.protocol.as_str()),
                ("user", &access.user),
                ("host", &access.host),
                ("reason", &access.reason),
            ];
            ("access", texts, vec![("success", access.success.into())])
        }
        Some(Entry::Admin(admin)) => {
            let texts = vec![
                ("event", admin.event.as_str()),
                ("type", &admin.kind),
                ("user", &admin.user),
                ("host", &admin.host),
            ];
            ("admin", texts, Vec::new())
        }
        Some(Entry::Cluster(cluster)) => {
            ("cluster", vec![("type", &cluster.kind), ("event", &cluster.text)], Vec::new())
        }
        Some(Entry::Protocol(protocol)) => {
            let texts =
                vec![("session", protocol.session.as_str()), ("host", &protocol.host), ("line", &protocol.line)];
            ("protocol", texts, vec![("received", protocol.received.into())])
        }
        None => ("unknown", Vec::new(), Vec::new()),
    }
}

/// The record as it is shown; texts that are empty are left out.
pub(crate) fn line(kept: &Kept) -> Line {
    let record = Record::from_bytes(&kept.bytes).unwrap_or_default();
    let (kind, texts, others) = parts(record.entry.as_ref());
    let whose = [("at_ms", record.at.into()), ("node", kept.key.node.0.into()), ("number", kept.key.number.into())];
    let mut line = Line::new();
    line.insert("kind".to_owned(), kind.into());
    for (name, value) in whose.into_iter().chain(others) {
        line.insert(name.to_owned(), value);
    }
    for (name, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
        line.insert(name.to_owned(), text.into());
    }
    line
}

/// One line of text for people: time, node, kind, and what belongs to it.
#[must_use]
pub fn text(line: &Line, time: &str) -> String {
    let show = |value: &Value| match value {
        Value::String(text) if text.chars().any(|c| c.is_whitespace() || c == '"') => format!("{text:?}"),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let get = |name: &str| line.get(name).map(show).unwrap_or_default();
    let mut text = format!("{time} node{} {}", get("node"), get("kind"));
    let first = ["event", "status", "type", "sender", "recipient"];
    let hidden = ["at_ms", "node", "number", "kind"];
    let rest = line.keys().map(String::as_str).filter(|name| !first.contains(name) && !hidden.contains(name));
    for name in first.into_iter().filter(|name| line.contains_key(*name)).chain(rest) {
        text.push_str(&format!(" {name}={}", get(name)));
    }
    text
}

/// A question, checked.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    filter: Filter,
    /// Classes it is about.
    pub(crate) classes: Vec<Class>,
}

impl Question {
    pub(crate) fn new(filter: Filter) -> Result<Self, SearchError> {
        if let Some(kind) = filter.kinds.iter().find(|kind| !KINDS.contains(&kind.as_str())) {
            return Err(SearchError::Bad(format!("no kind {kind:?}; there are {}", KINDS.join(", "))));
        }
        let protocol = filter.kinds.iter().any(|kind| kind == "protocol");
        let main = filter.kinds.is_empty() || filter.kinds.iter().any(|kind| kind != "protocol");
        let classes = [(main, Class::Main), (protocol, Class::Protocol)];
        let classes = classes.into_iter().filter(|(wanted, _)| *wanted).map(|(_, class)| class).collect();
        Ok(Self { filter, classes })
    }

    /// What the index can be asked for, when it can.
    pub(crate) fn term(&self) -> Option<&str> {
        let filter = &self.filter;
        let found = [&filter.id, &filter.recipient, &filter.sender, &filter.user];
        found.into_iter().flatten().map(String::as_str).find(|text| !text.is_empty())
    }

    pub(crate) const fn times(&self) -> (u64, u64) {
        let from = match self.filter.from_ms {
            Some(from) => from,
            None => 0,
        };
        let to = match self.filter.to_ms {
            Some(to) => to,
            None => u64::MAX,
        };
        (from, to)
    }

    /// Whether a record is one that is asked for.
    pub(crate) fn wants(&self, line: &Line) -> bool {
        let filter = &self.filter;
        let get = |name: &str| line.get(name).and_then(Value::as_str).unwrap_or_default();
        let lower = |text: &str| text.to_lowercase();
        let is_one = |names: &[&str], wanted: &Option<String>| {
            let equal = |wanted: &String| names.iter().any(|name| lower(get(name)) == lower(wanted.trim()));
            wanted.as_ref().is_none_or(equal)
        };
        let contains = |name: &str, wanted: &Option<String>| {
            wanted.as_ref().is_none_or(|wanted| lower(get(name)).contains(&lower(wanted.trim())))
        };
        let outcome = |wanted: &String| {
            let success = line.get("success").and_then(Value::as_bool);
            let access = success.map_or("", |success| if success { "ok" } else { "failed" });
            [get("event"), get("status"), get("type"), access].iter().any(|is| lower(is) == lower(wanted.trim()))
        };
        let text = |wanted: &String| {
            let wanted = lower(wanted.trim());
            line.values().filter_map(Value::as_str).any(|text| lower(text).contains(&wanted))
        };
        let at = line.get("at_ms").and_then(Value::as_u64).unwrap_or_default();
        let (from, to) = self.times();
        (filter.kinds.is_empty() && get("kind") != "protocol" || filter.kinds.iter().any(|kind| kind == get("kind")))
            && (from..to).contains(&at)
            && is_one(&["sender"], &filter.sender)
            && is_one(&["recipient", "original"], &filter.recipient)
            && is_one(&["accept", "message_id"], &filter.id)
            && is_one(&["user"], &filter.user)
            && contains("host", &filter.host)
            && filter.outcome.as_ref().is_none_or(outcome)
            && filter.text.as_ref().is_none_or(text)
            && (!filter.within || get("direction") == "within")
    }
}
