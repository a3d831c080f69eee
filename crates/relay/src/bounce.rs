//! The report of a failure on its way to the reverse-path.

use bytes::Bytes;
use ports::directory::{AddressClass, Target};
use ports::intake::{Delivery, Recipient};
use queue::bounce::{HEADER_RETURNED_BYTES_MAX, REPORT_RECIPIENTS_MAX, report_id, write_bounce};
use queue::op::{Failure, QueueItem};
use smtp::session::trace::recipient_prefix;
use vocab::log::{self, Direction, Mail, MailEvent, Record};
use vocab::{Address, CommandId, ForwardPath, LogRecord, ReversePath, SubmitError, Timestamp};

use crate::worker::Relay;

/// Makes the report durable. Nothing to do for a null reverse-path or one that does not exist.
///
/// # Errors
/// Unavailable or unknown: repeat later, it takes effect once.
pub(crate) async fn report(
    relay: &Relay,
    item: &QueueItem,
    failure: &Failure,
    at: Timestamp,
) -> Result<(), SubmitError> {
    let ReversePath::Address(to) = &item.reverse_path else {
        tracing::warn!(accept = %item.id, "failed mail without reverse-path is dropped, nobody can be told");
        return Ok(());
    };
    let path = ForwardPath::Address(to.clone());
    let targets = match relay.ports.directory.classify(&path).await? {
        AddressClass::Own(targets) => targets,
        AddressClass::NotOurs => vec![Target::Remote(to.clone())],
        AddressClass::NoSuchUser | AddressClass::Disabled => {
            tracing::warn!(accept = %item.id, %to, "reverse-path does not exist, nobody can be told");
            return Ok(());
        }
    };
    let end = item.size.min(HEADER_RETURNED_BYTES_MAX as u64);
    let original = relay.ports.blobs.get(item.blob, 0, end).await?;
    let accept = report_id(item.id, 0);
    let body = Bytes::from(write_bounce(item, failure, to, &relay.config.hostname, &original, at));
    let facts = mime::facts_of(&body);
    let leaves = targets.iter().any(|target| matches!(target, Target::Remote(_)));
    let delivery = Delivery {
        accept,
        reverse_path: ReversePath::Null,
        recipients: recipients(item, to, targets),
        facts: facts.encode(),
        records: vec![record(accept, to, leaves, &facts, at)],
        smtputf8: !to.is_ascii(),
        body,
        at,
    };
    // The item ends with it.
    relay.ports.intake.accept_here(delivery).await?;
    metrics::counter!("twinpost_bounces_total").increment(1);
    tracing::info!(accept = %item.id, bounce = %accept, %to, "bounce accepted");
    Ok(())
}

fn record(accept: CommandId, to: &Address, leaves: bool, facts: &mime::Facts, at: Timestamp) -> LogRecord {
    let direction = if leaves { Direction::Out } else { Direction::Within };
    let mail = Mail {
        event: MailEvent::Accept.into(),
        accept: accept.to_string(),
        message_id: log::text(&facts.message_id_text()),
        recipient: to.to_string(),
        subject: log::text(&facts.subject),
        size: facts.size,
        direction: direction.into(),
        outcome: "accepted".to_owned(),
        status: "2.0.0".to_owned(),
        system: true,
        ..Mail::default()
    };
    Record::of_command(at.0, accept, mail)
}

fn recipients(item: &QueueItem, to: &Address, targets: Vec<Target>) -> Vec<Recipient> {
    let prefix = recipient_prefix(&ReversePath::Null, &ForwardPath::Address(to.clone()));
    let numbered = (0..).zip(targets).take(REPORT_RECIPIENTS_MAX);
    let recipient = |(index, target)| {
        let number = report_id(item.id, index).recipient;
        match target {
            Target::Local(account) => Recipient::Local { number, account, prefix: prefix.clone().into() },
            Target::Remote(address) => {
                let original = (address != *to).then(|| to.clone());
                Recipient::Remote { number, address, original }
            }
        }
    };
    numbered.map(recipient).collect()
}
