//! Operations as calls between engines: words of `proto/forward.proto` to values and back.

use bytes::Bytes;
use ports::intake::Recipient;
use prost::Message as _;
use vocab::{AccountId, Address, BlobHash, CommandId, LogRecord, ReversePath, SubmitError, Timestamp};
use wire::forward::{self as w, call, reply};

use crate::work::DeliveryWork;

/// A call as bytes.
pub(crate) fn call(kind: call::Kind) -> Bytes {
    w::Call { kind: Some(kind) }.encode_to_vec().into()
}

/// A reply as bytes.
pub(crate) fn reply(kind: reply::Kind) -> Bytes {
    w::Reply { kind: Some(kind) }.encode_to_vec().into()
}

/// A failure as a reply; the caller gets the same error.
pub(crate) fn failure(error: &SubmitError) -> reply::Kind {
    let (unknown, reason) = match error {
        SubmitError::Unavailable(reason) => (false, *reason),
        SubmitError::Unknown(reason) => (true, *reason),
    };
    reply::Kind::Failure(w::Failure { unknown, reason: reason.to_owned() })
}

/// The reply in these bytes; a failure of the other side becomes ours.
pub(crate) fn understand(bytes: Bytes) -> Result<reply::Kind, SubmitError> {
    match w::Reply::decode(bytes).ok().and_then(|r| r.kind) {
        Some(reply::Kind::Failure(f)) if f.unknown => Err(SubmitError::Unknown("the home could not tell")),
        Some(reply::Kind::Failure(f)) => {
            tracing::debug!(reason = f.reason, "the home refused");
            Err(SubmitError::Unavailable(known_reason(&f.reason)))
        }
        Some(kind) => Ok(kind),
        None => Err(SubmitError::Unknown("the home's answer was not understood")),
    }
}

/// Reasons travel as text and arrive as one of ours, so that nothing a peer says reaches a client unseen.
fn known_reason(text: &str) -> &'static str {
    const REASONS: [&str; 7] = [
        crate::NO_SPACE,
        crate::NOT_SERVING,
        crate::DAMAGED,
        crate::NO_BODY,
        crate::TOO_LARGE,
        crate::REFUSED,
        crate::TOO_LATE,
    ];
    let all = REASONS.into_iter().chain(replica::HANDOVER_REASONS).chain(replica::REMOVAL_REASONS);
    all.into_iter().find(|r| *r == text).unwrap_or("the home is not available")
}

pub(crate) fn records_to(records: &[LogRecord]) -> Vec<w::LogRecord> {
    records.iter().map(|r| w::LogRecord { id: r.id.clone(), bytes: r.bytes.clone() }).collect()
}

pub(crate) fn records_from(records: Vec<w::LogRecord>) -> Vec<LogRecord> {
    records.into_iter().map(|r| LogRecord { id: r.id, bytes: r.bytes }).collect()
}

/// A delivery as a call; the body goes along when it is small. With `record` the receiver keeps an accept record.
pub(crate) fn accept_call(work: &DeliveryWork, record: bool) -> call::Kind {
    let recipient = |r: &Recipient| match r {
        Recipient::Local { number, account, prefix } => {
            w::Recipient { number: *number, account: account.0, prefix: prefix.clone(), ..Default::default() }
        }
        Recipient::Remote { number, address, original } => w::Recipient {
            number: *number,
            address: address.to_string(),
            original: original.as_ref().map(ToString::to_string).unwrap_or_default(),
            ..Default::default()
        },
    };
    call::Kind::Accept(w::Accept {
        accept: work.accept.to_bytes().to_vec().into(),
        reverse_path: work.reverse_path.address().map(ToString::to_string).unwrap_or_default(),
        recipients: work.recipients.iter().map(recipient).collect(),
        hash: work.hash.0.to_vec().into(),
        size: work.size,
        body: work.body.clone().unwrap_or_default(),
        facts: work.facts.clone(),
        smtputf8: work.smtputf8,
        eight_bit: work.eight_bit,
        at: work.at.0,
        record,
        settled: work.settled,
        records: records_to(&work.records),
    })
}

/// The delivery in a call; `None` when it makes no sense.
pub(crate) fn accept_work(call: w::Accept) -> Option<DeliveryWork> {
    let address = |text: &str| if text.is_empty() { Some(None) } else { Address::parse(text).ok().map(Some) };
    let recipient = |r: w::Recipient| match address(&r.address)? {
        None => Some(Recipient::Local { number: r.number, account: AccountId(r.account), prefix: r.prefix }),
        Some(to) => Some(Recipient::Remote { number: r.number, address: to, original: address(&r.original)? }),
    };
    let body = (!call.body.is_empty()).then_some(call.body);
    let hash = BlobHash::from_bytes(&call.hash)?;
    if body.as_ref().is_some_and(|b| BlobHash::of(b) != hash) {
        return None;
    }
    Some(DeliveryWork {
        accept: CommandId::from_bytes(&call.accept)?,
        settled: call.settled,
        reverse_path: address(&call.reverse_path)?.map_or(ReversePath::Null, ReversePath::Address),
        recipients: call.recipients.into_iter().map(recipient).collect::<Option<_>>()?,
        hash,
        size: call.size,
        body,
        facts: call.facts,
        smtputf8: call.smtputf8,
        eight_bit: call.eight_bit,
        at: Timestamp(call.at),
        records: records_from(call.records),
    })
}
