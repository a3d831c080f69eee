//! From an incoming message to a delivery: trace fields, facts, recipients each once, and the commit behind 250.

use std::collections::BTreeSet;

use bytes::Bytes;
use mime::Facts;
use ports::intake::{Delivery, Recipient};
use smtp::session::trace;
use smtp::session::{Envelope, EnvelopeRecipient, Incoming, Target};
use vocab::log::{self, Direction, Mail, MailEvent, Record};
use vocab::{CommandId, ForwardPath, LogRecord, SubmitError, Timestamp};

use crate::context::Ports;

/// Facts of messages above this size are found on a thread of their own, so that other sessions go on.
const INLINE_FACTS_BYTES_MAX: usize = 256 * 1024;

/// Makes the message durable for every recipient and returns the accept id.
///
/// # Errors
/// As [`ports::intake::Intake::accept`].
pub(crate) async fn accept_message(
    ports: &Ports,
    host: &str,
    incoming: Incoming,
    at: Timestamp,
) -> Result<CommandId, SubmitError> {
    let accept = ports.accounts.command_id();
    let body = with_trace(&incoming, host, accept, at);
    let facts = facts_of(body.clone()).await?;
    let envelope = incoming.envelope;
    let records = records(&envelope, accept, &facts, at);
    let delivery = Delivery {
        accept,
        recipients: recipients(&envelope),
        reverse_path: envelope.reverse_path,
        body,
        facts: facts.encode(),
        smtputf8: envelope.smtputf8,
        at,
        records,
    };
    let (count, size) = (delivery.recipients.len(), delivery.body.len());
    let reverse_path = delivery.reverse_path.clone();
    let result = ports.intake.accept(delivery).await;
    match &result {
        Ok(()) => tracing::info!(%accept, %reverse_path, recipients = count, size, peer = %envelope.peer, "accepted"),
        Err(error) => {
            tracing::warn!(%accept, %reverse_path, recipients = count, size, %error, "not accepted, client told 4xx");
        }
    }
    result.map(|()| accept)
}

/// Our Received field first; a submitted message also gets the Date and Message-ID it lacks (RFC 6409 §8).
fn with_trace(incoming: &Incoming, host: &str, accept: CommandId, at: Timestamp) -> Bytes {
    let mut head = trace::received(&incoming.envelope, host, accept, at);
    if incoming.envelope.identity.is_some() {
        if !mime::has_field(&incoming.body, "Date") {
            head.push_str(&trace::date_field(at));
        }
        if !mime::has_field(&incoming.body, "Message-ID") {
            head.push_str(&trace::message_id_field(accept, host));
        }
    }
    let mut body = Vec::with_capacity(head.len() + incoming.body.len());
    body.extend_from_slice(head.as_bytes());
    body.extend_from_slice(&incoming.body);
    body.into()
}

async fn facts_of(body: Bytes) -> Result<Facts, SubmitError> {
    if body.len() <= INLINE_FACTS_BYTES_MAX {
        return Ok(mime::facts_of(&body));
    }
    let found = tokio::task::spawn_blocking(move || mime::facts_of(&body)).await;
    found.map_err(|_| SubmitError::Unavailable("message could not be read"))
}

/// One record for each recipient as the sender named it, whatever an alias leads to (LOG-02); numbered as they were named.
fn records(envelope: &Envelope, accept: CommandId, facts: &Facts, at: Timestamp) -> Vec<LogRecord> {
    let common = Mail {
        event: MailEvent::Accept.into(),
        accept: accept.to_string(),
        message_id: log::text(&facts.message_id_text()),
        sender: envelope.reverse_path.address().map(ToString::to_string).unwrap_or_default(),
        subject: log::text(&facts.subject),
        size: facts.size,
        outcome: "accepted".to_owned(),
        status: "2.0.0".to_owned(),
        host: envelope.peer.to_string(),
        user: envelope.identity.as_ref().map(|identity| identity.address.to_string()).unwrap_or_default(),
        ..Mail::default()
    };
    let record = |(number, recipient): (u32, &EnvelopeRecipient)| {
        let leaves = recipient.targets.iter().any(|target| matches!(target, Target::Remote(_)));
        let direction = match (envelope.identity.is_some(), leaves) {
            (true, true) => Direction::Out,
            (true, false) => Direction::Within,
            (false, true) => Direction::Through,
            (false, false) => Direction::In,
        };
        let mail = Mail { recipient: named(&recipient.path), direction: direction.into(), ..common.clone() };
        Record::of_command(at.0, accept.for_recipient(number), mail)
    };
    (1..).zip(&envelope.recipients).map(record).collect()
}

fn named(path: &ForwardPath) -> String {
    match path {
        ForwardPath::Postmaster => "postmaster".to_owned(),
        ForwardPath::Address(address) => address.to_string(),
    }
}

/// Every place the recipients lead to, each once, numbered from 1 in the order they were named.
fn recipients(envelope: &Envelope) -> Vec<Recipient> {
    let mut accounts = BTreeSet::new();
    let mut addresses = BTreeSet::new();
    let mut recipients = Vec::new();
    for (path, target) in envelope.recipients.iter().flat_map(|r| r.targets.iter().map(move |t| (&r.path, t))) {
        let number = u32::try_from(recipients.len() + 1).unwrap_or(u32::MAX);
        match target {
            Target::Local(account) if accounts.insert(*account) => recipients.push(Recipient::Local {
                number,
                account: *account,
                prefix: trace::recipient_prefix(&envelope.reverse_path, path).into(),
            }),
            Target::Remote(address) if addresses.insert(address.clone()) => {
                let original = match path {
                    ForwardPath::Address(named) if named != address => Some(named.clone()),
                    _ => None,
                };
                recipients.push(Recipient::Remote { number, address: address.clone(), original });
            }
            Target::Local(_) | Target::Remote(_) => {}
        }
    }
    recipients
}
