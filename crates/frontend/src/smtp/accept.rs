//! From an incoming message to a delivery: trace fields, facts, recipients each once, and the commit behind 250.

use std::collections::BTreeSet;

use bytes::Bytes;
use ports::intake::{Delivery, Recipient};
use smtp::session::trace;
use smtp::session::{Envelope, Incoming, Target};
use vocab::{CommandId, ForwardPath, SubmitError, Timestamp};

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
    let delivery = Delivery {
        accept,
        recipients: recipients(&envelope),
        reverse_path: envelope.reverse_path,
        body,
        facts,
        smtputf8: envelope.smtputf8,
        at,
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

async fn facts_of(body: Bytes) -> Result<Bytes, SubmitError> {
    if body.len() <= INLINE_FACTS_BYTES_MAX {
        return Ok(mime::facts_of(&body).encode());
    }
    let found = tokio::task::spawn_blocking(move || mime::facts_of(&body).encode()).await;
    found.map_err(|_| SubmitError::Unavailable("message could not be read"))
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
