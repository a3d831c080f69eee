//! One attempt of one item: committed start, dialogue, what to do about a failure, committed end.

use std::sync::Arc;
use std::time::Duration;

use queue::bounce::accept_of;
use queue::op::{AttemptResult, Failure, QueueItem, QueueOp, QueueOutcome};
use queue::schedule::{is_fresh, next_attempt};
use smtp::client::Refusal;
use vocab::log::{self, Direction, Mail, MailEvent, Record};
use vocab::{CommandId, LogRecord, NodeId, ReversePath, SubmitError, Timestamp};

use crate::bounce;
use crate::route;
use crate::worker::{Relay, wall};

/// A whole attempt, all hosts together, ends by then: well before [`queue::apply::ATTEMPT_LOST_AFTER_MS`].
const ATTEMPT_TIME_MAX: Duration = Duration::from_secs(12 * 60);
/// Pause before a commit that failed is tried again.
const COMMIT_PAUSE: Duration = Duration::from_secs(2);
/// The end of an attempt is offered this often; then the item is tried again when the attempt counts as lost.
const COMMIT_TRIES: u32 = 60;
/// When a bounce could not be made durable, the item waits this long (ms).
const BOUNCE_PAUSE_MS: u64 = 60 * 1000;

/// An item of the other node that failed for good while that node may be alive is tried again after this time (ms).
const FOREIGN_PAUSE_MS: u64 = 60 * 60 * 1000;

/// Bytes of a body in which its header is looked for, for the log.
const HEADER_LOOKED_AT_BYTES_MAX: u64 = 64 * 1024;

/// What came of the dialogues.
pub(crate) enum Sent {
    /// Taken over by this host.
    Taken(String),
    /// Not taken; whether for good, and why.
    NotTaken { permanent: bool, failure: Failure },
}

impl Sent {
    pub(crate) fn permanent(status: &str, why: impl Into<String>) -> Self {
        Self::NotTaken { permanent: true, failure: failure(status, why) }
    }
    pub(crate) fn temporary(status: &str, why: impl Into<String>) -> Self {
        Self::NotTaken { permanent: false, failure: failure(status, why) }
    }
    pub(crate) fn refused(refusal: Refusal, host: &str) -> Self {
        let failure = Failure { status: refusal.status, diagnostic: refusal.diagnostic, remote: Some(host.to_owned()) };
        Self::NotTaken { permanent: refusal.permanent, failure }
    }
}

fn failure(status: &str, why: impl Into<String>) -> Failure {
    Failure { status: status.to_owned(), diagnostic: why.into(), remote: None }
}

/// Runs the attempt to its end; returns the item's id.
pub(crate) async fn run(relay: Arc<Relay>, item: QueueItem) -> CommandId {
    let id = item.id;
    let (node, at) = (relay.config.node, wall());
    if !start(&relay, &item, at).await {
        return id;
    }
    let attempts = item.attempts.saturating_add(1);
    let sent = match tokio::time::timeout(ATTEMPT_TIME_MAX, route::send(&relay, &item)).await {
        Ok(sent) => sent,
        Err(_) => Sent::temporary("4.4.7", "no host took the message in time"),
    };
    let (result, host) = match sent {
        Sent::Taken(host) => {
            metrics::counter!("twinpost_relay_attempts_total", "result" => "delivered").increment(1);
            tracing::info!(accept = %id, recipient = %item.recipient, host, attempts, "relayed");
            (AttemptResult::Delivered, host)
        }
        Sent::NotTaken { permanent, failure } => {
            let host = failure.remote.clone().unwrap_or_default();
            (judge(&relay, &item, permanent, failure).await, host)
        }
    };
    let records = vec![record(&relay, &item, &result, host).await];
    end(&relay, id, (node, at), result, records).await;
    id
}

/// Commits the start of an attempt; whether its dialogue may begin. A machine that slept meanwhile asks again.
async fn start(relay: &Relay, item: &QueueItem, at: Timestamp) -> bool {
    let (id, node) = (item.id, relay.config.node);
    loop {
        let start = QueueOp::AttemptStart { id, node, at, attempts: item.attempts };
        let asked = wall();
        match relay.ports.outbox.submit(start, Vec::new()).await {
            Ok(QueueOutcome::Done) if is_fresh(asked, wall()) => return true,
            Ok(QueueOutcome::Done) => {}
            Ok(QueueOutcome::Gone) => return false,
            Err(error) => {
                tracing::debug!(accept = %id, %error, "attempt not started");
                tokio::time::sleep(COMMIT_PAUSE).await;
                return false;
            }
        }
    }
}

/// Later, or never: then the report is durable before the item goes.
async fn judge(relay: &Relay, item: &QueueItem, permanent: bool, failure: Failure) -> AttemptResult {
    let now = wall();
    let attempts = item.attempts.saturating_add(1);
    let first_ms = relay.config.first_retry_ms;
    let next = if permanent { None } else { next_attempt(item.accepted_at, attempts, now, first_ms) };
    let Failure { status, diagnostic, remote } = &failure;
    let remote = remote.as_deref().unwrap_or("-");
    if let Some(due) = next {
        metrics::counter!("twinpost_relay_attempts_total", "result" => "deferred").increment(1);
        let wait_s = due.seconds().saturating_sub(now.seconds());
        tracing::info!(accept = %item.id, recipient = %item.recipient, remote, status, diagnostic, attempts, wait_s, "relay deferred");
        return AttemptResult::Deferred(failure, due);
    }
    if relay.ports.outbox.hold().is_some_and(|hold| hold.is_foreign(item)) {
        metrics::counter!("twinpost_relay_attempts_total", "result" => "deferred").increment(1);
        tracing::warn!(accept = %item.id, recipient = %item.recipient, remote, status, diagnostic, attempts, "relay failed; no bounce while the other node may have delivered it");
        return AttemptResult::Deferred(failure, now.plus_ms(FOREIGN_PAUSE_MS));
    }
    tracing::warn!(accept = %item.id, recipient = %item.recipient, remote, status, diagnostic, attempts, "relay failed");
    match bounce::report(relay, item, &failure, now).await {
        Ok(()) => {
            metrics::counter!("twinpost_relay_attempts_total", "result" => "failed").increment(1);
            AttemptResult::Failed(failure)
        }
        Err(error) => deferred_for_bounce(item, failure, now, &error),
    }
}

/// The failure must not vanish silently: the item stays until its report is durable.
fn deferred_for_bounce(item: &QueueItem, failure: Failure, now: Timestamp, error: &SubmitError) -> AttemptResult {
    tracing::warn!(accept = %item.id, %error, "bounce not durable yet, tried again later");
    AttemptResult::Deferred(failure, now.plus_ms(BOUNCE_PAUSE_MS))
}

/// What the log is to know of the end of an attempt.
async fn record(relay: &Relay, item: &QueueItem, result: &AttemptResult, host: String) -> LogRecord {
    let (event, outcome, status) = match result {
        AttemptResult::Delivered => (MailEvent::Deliver, "taken".to_owned(), "2.0.0".to_owned()),
        AttemptResult::Deferred(failure, _) => (MailEvent::Defer, failure.diagnostic.clone(), failure.status.clone()),
        AttemptResult::Failed(failure) => (MailEvent::Bounce, failure.diagnostic.clone(), failure.status.clone()),
    };
    // Without its header, when the body cannot be read now: the acceptance has a record of its own.
    let head = relay.ports.blobs.get(item.blob, 0, item.size.min(HEADER_LOOKED_AT_BYTES_MAX)).await.unwrap_or_default();
    let facts = mime::facts_of(&head);
    let mail = Mail {
        event: event.into(),
        accept: accept_of(item.id).to_string(),
        message_id: log::text(&facts.message_id_text()),
        sender: item.reverse_path.address().map(ToString::to_string).unwrap_or_default(),
        recipient: item.recipient.to_string(),
        original: item.original_recipient.as_ref().map(ToString::to_string).unwrap_or_default(),
        subject: log::text(&facts.subject),
        size: item.size,
        direction: Direction::Out.into(),
        outcome: log::text(&outcome),
        status,
        system: item.reverse_path == ReversePath::Null,
        host,
        user: String::new(),
        attempt: item.attempts.saturating_add(1),
    };
    Record::of_command(wall().0, item.id, mail)
}

/// Repeating is harmless, so the end is offered until it is committed. A home that does not know the item may be one that is
/// just being healed and gets it with the branch of this node: what it says of a final end is no answer yet.
async fn end(
    relay: &Relay,
    id: CommandId,
    attempt: (NodeId, Timestamp),
    result: AttemptResult,
    records: Vec<LogRecord>,
) {
    let mut gone = false;
    for _ in 0..COMMIT_TRIES {
        let end = QueueOp::AttemptEnd { id, attempt, result: result.clone() };
        match relay.ports.outbox.submit(end, records.clone()).await {
            Ok(QueueOutcome::Done) => return,
            Ok(QueueOutcome::Gone) if matches!(result, AttemptResult::Deferred(..)) => return,
            Ok(QueueOutcome::Gone) => {
                gone = true;
                tokio::time::sleep(COMMIT_PAUSE).await;
            }
            Err(error) => {
                tracing::debug!(accept = %id, %error, "end of attempt not committed yet");
                tokio::time::sleep(COMMIT_PAUSE).await;
            }
        }
    }
    if gone {
        tracing::debug!(accept = %id, "another attempt had ended it");
        return;
    }
    tracing::error!(accept = %id, "end of attempt never committed: the recipient may get the message twice");
}
