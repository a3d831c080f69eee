//! The server's side of one SMTP connection as a sealed machine.
//!
//! `Mx` takes mail from strangers for our domains; `Submission` takes it from our own users, after AUTH, for anyone.
//! The order of replies is the order of commands, so clients may pipeline (RFC 2920); STARTTLS ends a group.
//! Trust: every byte comes from strangers. Limits are named below and answered where they are met.

mod commands;
pub mod query;
mod replies;
pub mod trace;
mod transaction;

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use vocab::Instant;
use vocab::session::{Output, Peer, Session};

pub use query::{Answer, Class, Envelope, EnvelopeRecipient, Identity, Incoming, Query, Target};

use crate::codec::data::{Body, DataReader};
use crate::codec::reply::Reply;
use transaction::Transaction;

/// Longest command line with its CRLF (RFC 5321 §4.5.3.1.4 says 512, extensions add to it); 500 5.5.2.
pub const COMMAND_LINE_BYTES_MAX: usize = 4096;
/// Longest line inside AUTH with its CRLF, and the `AUTH` command itself (RFC 4954 §4); 500 5.5.2.
pub const AUTH_LINE_BYTES_MAX: usize = sasl::LINE_BYTES_MAX + 64;
/// Failed commands of one connection; then 421 4.7.0.
pub const ERRORS_MAX: u32 = 20;
/// Refused logins of one connection; then 421 4.7.0.
pub const LOGINS_REFUSED_MAX: u32 = 4;
/// Waiting for a command (ms), RFC 5321 §4.5.3.2.7; 421 4.4.2.
pub const COMMAND_WAIT_MS: u64 = 5 * 60 * 1000;
/// Waiting for more data (ms), RFC 5321 §4.5.3.2.5; 421 4.4.2.
pub const DATA_WAIT_MS: u64 = 3 * 60 * 1000;
/// One message may take this long to come in (ms), so that a trickle does not hold memory for ever; 421 4.4.2.
pub const DATA_TOTAL_MS: u64 = 60 * 60 * 1000;
/// A message of unknown size begins with this much memory and doubles (bytes).
pub const HOLD_FIRST_BYTES: usize = 64 * 1024;

/// Which door this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Port 25: mail from strangers, no AUTH.
    Mx,
    /// Ports 587 and 465: mail of our users, AUTH before MAIL.
    Submission,
}

/// What a session is told at its start; shared by all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Which door.
    pub role: Role,
    /// Name in greeting and EHLO.
    pub host: String,
    /// STARTTLS can be offered.
    pub tls_offered: bool,
    /// AUTH without TLS (loopback test set-ups only).
    pub allow_plaintext: bool,
    /// Largest message (bytes), announced as SIZE.
    pub message_size_max: usize,
    /// Recipients of one transaction; 452 4.5.3.
    pub recipients_max: usize,
}

/// What a connection is told that cannot be served now (no session is made for it).
#[must_use]
pub fn not_serving(host: &str) -> Bytes {
    format!("421 4.3.2 {host} service not available, try again\r\n").into()
}

#[derive(Debug)]
struct Hello {
    name: String,
    extended: bool,
}

/// What the outstanding question is about.
#[derive(Debug)]
enum Asked {
    MaySend(Box<Transaction>),
    Recipient(vocab::ForwardPath),
    Login,
    /// May DATA begin?
    DataHold,
    /// May the body grow?
    Grow(Box<Phase>),
    Accept,
}

#[derive(Debug)]
enum Phase {
    Command,
    Auth(sasl::Exchange),
    Data(DataReader),
    /// Octets of a BDAT chunk still to come. A chunk that is refused is read all the same (RFC 3030 §2).
    Chunk {
        left: u64,
        last: bool,
        refused: Option<Reply>,
    },
    Asked(Asked),
    Tls,
    Closed,
}

/// One connection.
#[derive(Debug)]
pub struct SmtpSession {
    config: Arc<Config>,
    peer: Peer,
    outputs: VecDeque<Output<Query>>,
    phase: Phase,
    hello: Option<Hello>,
    identity: Option<Identity>,
    transaction: Option<Transaction>,
    /// Bytes of message this session may hold.
    held: usize,
    /// Body collected by BDAT.
    chunks: Option<Body>,
    errors: u32,
    logins_refused: u32,
    /// The rest of an overlong line is being thrown away.
    skipping: bool,
    stopping: bool,
    last_event: Instant,
    data_since: Instant,
}

impl SmtpSession {
    /// Greets. `peer.tls` is true on the port with implicit TLS.
    #[must_use]
    pub fn new(config: Arc<Config>, peer: Peer, now: Instant) -> Self {
        let greeting = format!("220 {} ESMTP Twinpost\r\n", config.host);
        Self {
            config,
            peer,
            outputs: VecDeque::from([Output::Write(greeting.into())]),
            phase: Phase::Command,
            hello: None,
            identity: None,
            transaction: None,
            held: 0,
            chunks: None,
            errors: 0,
            logins_refused: 0,
            skipping: false,
            stopping: false,
            last_event: now,
            data_since: now,
        }
    }

    fn write(&mut self, bytes: Bytes) {
        self.outputs.push_back(Output::Write(bytes));
    }

    /// Sends a reply, counts failures, and ends the connection when there were too many.
    fn reply(&mut self, reply: &Reply) {
        self.write(reply.encode());
        if reply.code >= 500 {
            self.errors += 1;
            if self.errors >= ERRORS_MAX {
                self.close(&replies::TOO_MANY_ERRORS);
            }
        }
    }

    fn close(&mut self, reply: &Reply) {
        self.write(reply.encode());
        self.outputs.push_back(Output::Close);
        self.phase = Phase::Closed;
        self.transaction = None;
        self.chunks = None;
    }

    fn ask(&mut self, query: Query, asked: Asked) {
        self.outputs.push_back(Output::Ask(query));
        self.phase = Phase::Asked(asked);
    }

    /// Back to commands, or goodbye when this node stops. A transaction that is open may end first: what it would be
    /// told is a failure to its client, between two of them it is none.
    fn next_command(&mut self, now: Instant) {
        if matches!(self.phase, Phase::Closed | Phase::Tls | Phase::Asked(_)) {
            return;
        }
        if self.stopping && self.transaction.is_none() && matches!(self.phase, Phase::Command) {
            self.close(&replies::STOPPING);
        }
        self.last_event = now;
    }

    /// One line at most: how many octets it used.
    fn read_line(&mut self, input: &[u8], now: Instant) -> usize {
        let in_auth =
            matches!(self.phase, Phase::Auth(_)) || input.get(..4).is_some_and(|v| v.eq_ignore_ascii_case(b"AUTH"));
        let line_max = if in_auth { AUTH_LINE_BYTES_MAX } else { COMMAND_LINE_BYTES_MAX };
        let Some(end) = input.iter().position(|&b| b == b'\n') else {
            if self.skipping || input.len() >= line_max {
                self.skipping = true;
                return input.len();
            }
            return 0;
        };
        let line = input.get(..end).unwrap_or_default();
        if std::mem::take(&mut self.skipping) || end >= line_max {
            self.phase = Phase::Command;
            self.reply(&replies::LINE_TOO_LONG);
        } else {
            match line.strip_suffix(b"\r") {
                Some(line) if !line.contains(&b'\r') => self.on_line(line, now),
                _ => {
                    self.phase = Phase::Command;
                    self.reply(&replies::BARE_LINE_END);
                }
            }
        }
        self.next_command(now);
        end + 1
    }

    fn on_line(&mut self, line: &[u8], now: Instant) {
        match &mut self.phase {
            Phase::Auth(exchange) => {
                let step = exchange.on_line(line);
                self.on_auth_step(step);
            }
            _ => self.on_command(line, now),
        }
    }
}

impl Session for SmtpSession {
    type Query = Query;
    type Answer = Answer;

    fn on_bytes(&mut self, input: &[u8], now: Instant) -> usize {
        let mut used = 0;
        loop {
            let rest = input.get(used..).unwrap_or_default();
            if rest.is_empty() {
                return used;
            }
            let step = match self.phase {
                Phase::Command | Phase::Auth(_) => self.read_line(rest, now),
                Phase::Data(_) => self.read_data(rest, now),
                Phase::Chunk { .. } => self.read_chunk(rest, now),
                Phase::Asked(_) | Phase::Tls | Phase::Closed => return used,
            };
            if step == 0 {
                return used;
            }
            used += step;
        }
    }

    fn on_end(&mut self, _now: Instant) {
        self.phase = Phase::Closed;
        self.transaction = None;
        self.outputs.push_back(Output::Close);
    }

    fn on_answer(&mut self, answer: Answer, now: Instant) {
        if !matches!(self.phase, Phase::Asked(_)) {
            return;
        }
        if let Phase::Asked(asked) = std::mem::replace(&mut self.phase, Phase::Command) {
            self.on_answered(asked, answer, now);
        }
        self.next_command(now);
    }

    fn on_tls(&mut self, now: Instant) {
        if !matches!(self.phase, Phase::Tls) {
            return;
        }
        // Nothing said before TLS counts (RFC 3207 §4.2).
        self.peer.tls = true;
        self.hello = None;
        self.identity = None;
        self.transaction = None;
        self.chunks = None;
        self.phase = Phase::Command;
        self.next_command(now);
    }

    fn on_deadline(&mut self, now: Instant) {
        if self.deadline().is_some_and(|deadline| deadline <= now) {
            self.close(&replies::IDLE);
        }
    }

    fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Command | Phase::Auth(_) => Some(self.last_event.plus_ms(COMMAND_WAIT_MS)),
            Phase::Data(_) | Phase::Chunk { .. } => {
                Some(self.last_event.plus_ms(DATA_WAIT_MS).min(self.data_since.plus_ms(DATA_TOTAL_MS)))
            }
            Phase::Tls => Some(self.last_event.plus_ms(COMMAND_WAIT_MS)),
            Phase::Asked(_) | Phase::Closed => None,
        }
    }

    fn on_shutdown(&mut self, now: Instant) {
        self.stopping = true;
        self.next_command(now);
    }

    fn next_output(&mut self) -> Option<Output<Query>> {
        self.outputs.pop_front()
    }
}

#[cfg(test)]
mod tests;
