//! One mail transaction: its envelope, its data, and the question that makes it durable.

use bytes::Bytes;
use vocab::{ForwardPath, Instant, ReversePath, limits};

use super::query::{Answer, Envelope, EnvelopeRecipient, Incoming, Query, Target};
use super::{Asked, HOLD_FIRST_BYTES, Phase, SmtpSession, replies};
use crate::codec::data::{Body, BodyFault, DataReader};
use crate::codec::params::MailParams;
use crate::codec::reply::Reply;

/// What MAIL and RCPT have said so far.
#[derive(Debug)]
pub(crate) struct Transaction {
    pub(super) reverse_path: ReversePath,
    pub(super) params: MailParams,
    /// Name and whether it was EHLO.
    hello: (String, bool),
    pub(super) recipients: Vec<EnvelopeRecipient>,
}

impl Transaction {
    pub(super) const fn new(reverse_path: ReversePath, params: MailParams, hello: (String, bool)) -> Self {
        Self { reverse_path, params, hello, recipients: Vec::new() }
    }
    /// A path named twice counts once.
    pub(super) fn add(&mut self, path: ForwardPath, targets: Vec<Target>) {
        if !self.recipients.iter().any(|r| r.path == path) {
            self.recipients.push(EnvelopeRecipient { path, targets });
        }
    }
}

impl SmtpSession {
    /// Why message data cannot begin now.
    fn not_ready_for_data(&self) -> Option<Reply> {
        match &self.transaction {
            None => Some(replies::SEQUENCE),
            Some(transaction) if transaction.recipients.is_empty() => Some(replies::NO_RECIPIENTS),
            Some(_) => None,
        }
    }

    fn first_hold(&self) -> usize {
        let declared = self.transaction.as_ref().and_then(|t| t.params.size).unwrap_or(0);
        usize::try_from(declared).unwrap_or(usize::MAX).clamp(HOLD_FIRST_BYTES, self.size_max().max(HOLD_FIRST_BYTES))
    }

    fn size_max(&self) -> usize {
        self.config.message_size_max
    }

    pub(super) fn data(&mut self, now: Instant) {
        if self.chunks.is_some() {
            return self.reply(&replies::SEQUENCE);
        }
        if let Some(reply) = self.not_ready_for_data() {
            return self.reply(&reply);
        }
        self.data_since = now;
        let hold = self.first_hold();
        self.held = hold;
        self.ask(Query::Hold(hold), Asked::DataHold);
    }

    pub(super) fn on_data_hold(&mut self, answer: &Answer, now: Instant) {
        if *answer != Answer::Allowed(true) {
            return self.reply(&replies::NO_SPACE);
        }
        self.write(replies::SEND_DATA.encode());
        self.phase = Phase::Data(DataReader::new(self.size_max()));
        self.last_event = now;
    }

    pub(super) fn read_data(&mut self, input: &[u8], now: Instant) -> usize {
        let Phase::Data(reader) = &mut self.phase else { return 0 };
        let (used, ended) = reader.read(input);
        let size = reader.size();
        self.last_event = now;
        if ended {
            if let Phase::Data(reader) = std::mem::replace(&mut self.phase, Phase::Command) {
                self.complete(reader.finish());
            }
            self.next_command(now);
        } else if size > self.held {
            self.grow(size);
        }
        used
    }

    /// Asks for more memory, twice as much each time, so that there are few questions.
    fn grow(&mut self, size: usize) {
        self.held = size.saturating_mul(2).min(self.size_max()).max(size);
        let phase = std::mem::replace(&mut self.phase, Phase::Command);
        self.ask(Query::Hold(self.held), Asked::Grow(Box::new(phase)));
    }

    pub(super) fn on_grown(&mut self, phase: Phase, answer: &Answer, now: Instant) {
        self.phase = phase;
        if *answer != Answer::Allowed(true) {
            match &mut self.phase {
                Phase::Data(reader) => reader.fail(BodyFault::NoRoom),
                _ => {
                    if let Some(body) = &mut self.chunks {
                        body.fail(BodyFault::NoRoom);
                    }
                }
            }
        }
        self.last_event = now;
        if matches!(self.phase, Phase::Chunk { left: 0, .. }) {
            self.end_chunk();
        }
    }

    pub(super) fn bdat(&mut self, size: u64, last: bool, now: Instant) {
        let refused = self.not_ready_for_data();
        if refused.is_none() && self.chunks.is_none() {
            self.chunks = Some(Body::new(self.size_max()));
            self.held = 0;
            self.data_since = now;
        }
        self.phase = Phase::Chunk { left: size, last, refused };
        self.last_event = now;
        if size == 0 {
            self.end_chunk();
        }
    }

    pub(super) fn read_chunk(&mut self, input: &[u8], now: Instant) -> usize {
        let Phase::Chunk { left, refused, .. } = &mut self.phase else { return 0 };
        let used = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
        *left -= used as u64;
        let ended = *left == 0;
        let mut size = 0;
        if let (None, Some(body), Some(octets)) = (refused, &mut self.chunks, input.get(..used)) {
            body.push(octets);
            size = body.size();
        }
        self.last_event = now;
        if size > self.held {
            self.grow(size.max(HOLD_FIRST_BYTES / 2));
        } else if ended {
            self.end_chunk();
            self.next_command(now);
        }
        used
    }

    fn end_chunk(&mut self) {
        let Phase::Chunk { last, refused, .. } = std::mem::replace(&mut self.phase, Phase::Command) else { return };
        if let Some(reply) = refused {
            return self.reply(&reply);
        }
        if !last {
            return self.reply(&replies::CHUNK_OK);
        }
        let Some(body) = self.chunks.take() else { return self.reply(&replies::SEQUENCE) };
        self.complete(body.finish());
    }

    /// The message is here: refuse it, or ask for it to be made durable.
    fn complete(&mut self, body: Result<Bytes, BodyFault>) {
        let Some(transaction) = self.transaction.take() else { return self.reply(&replies::SEQUENCE) };
        let body = match body {
            Ok(body) => body,
            Err(fault) => return self.reply(&replies::body(fault)),
        };
        if let Some(reply) = header_fault(&body) {
            return self.reply(&reply);
        }
        let (helo, extended) = transaction.hello;
        let envelope = Envelope {
            peer: self.peer.address,
            helo,
            extended,
            tls: self.peer.tls,
            identity: self.identity.clone(),
            reverse_path: transaction.reverse_path,
            smtputf8: transaction.params.smtputf8,
            recipients: transaction.recipients,
        };
        self.ask(Query::Accept(Box::new(Incoming { envelope, body })), Asked::Accept);
    }

    pub(super) fn on_accepted(&mut self, answer: &Answer) {
        match answer {
            Answer::Accepted(accept) => {
                let text = format!("accepted as {accept}").into();
                self.reply(&Reply { code: 250, status: "2.0.0", text });
            }
            Answer::NoSpace => self.reply(&replies::NO_SPACE),
            _ => self.reply(&replies::UNAVAILABLE),
        }
    }
}

/// Header section too long, or so many Received fields that the message must be going round (RFC 5321 §6.3).
fn header_fault(body: &[u8]) -> Option<Reply> {
    if mime::header_length(body) > limits::HEADER_BYTES_MAX {
        return Some(replies::HEADER_TOO_BIG);
    }
    (mime::count_received(body) > limits::HOPS_MAX).then_some(replies::LOOP)
}
