//! The client's side of one SMTP dialogue as a sealed machine: one message to one host, then QUIT.
//!
//! Standards: RFC 5321 §3.3, §4.5.3.2 (timeouts), §4.5.4; RFC 3207; RFC 7504 (521, 556). Commands are sent one by one.
//! Trust: the server is a stranger; its replies are bounded and cleaned before anybody sees them.

mod wire;

use std::collections::VecDeque;

use bytes::Bytes;
use vocab::{Address, Instant, ReversePath};

use crate::codec::data::stuff;
use crate::codec::reply::{RemoteReply, ReplyReader};
use wire::{Extensions, forward_path, needs_smtputf8, reverse_path};

/// Waiting for greeting, EHLO, MAIL, RCPT (ms), RFC 5321 §4.5.3.2.1 to §4.5.3.2.3.
pub const REPLY_WAIT_MS: u64 = 5 * 60 * 1000;
/// Waiting for 354 (ms), RFC 5321 §4.5.3.2.4.
pub const DATA_WAIT_MS: u64 = 2 * 60 * 1000;
/// Waiting for the reply to the final dot (ms), RFC 5321 §4.5.3.2.6.
pub const END_WAIT_MS: u64 = 10 * 60 * 1000;

/// What to do about TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsUse {
    /// STARTTLS when it is offered, plain text else.
    Opportunistic,
    /// No mail without it.
    Required,
    /// Not at all (the handshake failed before, or TLS is on already).
    Never,
}

/// One message for one host.
#[derive(Clone, Debug)]
pub struct Job {
    /// Our name for EHLO.
    pub name: String,
    /// TLS.
    pub tls: TlsUse,
    /// Reverse-path.
    pub reverse_path: ReversePath,
    /// At least one.
    pub recipients: Vec<Address>,
    /// CRLF lines.
    pub body: Bytes,
    /// It came with SMTPUTF8.
    pub smtputf8: bool,
}

/// Why a recipient did not get the message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The recipient will never get it this way; else try again later.
    pub permanent: bool,
    /// The message was certainly not taken and another host of the domain may do better.
    pub elsewhere: bool,
    /// Enhanced status.
    pub status: String,
    /// The reply, or our words.
    pub diagnostic: String,
}

/// Result for each recipient, in the order of the job.
pub type Outcome = Vec<Result<(), Refusal>>;

/// Orders to the driver, in order.
#[derive(Debug)]
pub enum ClientOutput {
    /// Write these bytes.
    Write(Bytes),
    /// Start the TLS handshake; bytes already read are thrown away. A failed one is [`Client::on_end`].
    StartTls,
    /// The end: flush what was written and close.
    Done(Outcome),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waiting {
    Greeting,
    Ehlo,
    Helo,
    StartTls,
    Handshake,
    Mail,
    /// Index of the recipient.
    Rcpt(usize),
    Data,
    End,
    Done,
}

/// One dialogue.
#[derive(Debug)]
pub struct Client {
    job: Job,
    reader: ReplyReader,
    waiting: Waiting,
    since: Instant,
    extensions: Extensions,
    secure: bool,
    results: Vec<Option<Refusal>>,
    outputs: VecDeque<ClientOutput>,
}

impl Client {
    /// Waits for the greeting.
    #[must_use]
    pub fn new(job: Job, now: Instant) -> Self {
        let results = vec![None; job.recipients.len()];
        Self {
            job,
            reader: ReplyReader::default(),
            waiting: Waiting::Greeting,
            since: now,
            extensions: Extensions::default(),
            secure: false,
            results,
            outputs: VecDeque::new(),
        }
    }

    /// Consumes input; the rest is offered again with what arrives later.
    pub fn on_bytes(&mut self, input: &[u8], now: Instant) -> usize {
        let mut used = 0;
        while !matches!(self.waiting, Waiting::Handshake | Waiting::Done) {
            match self.reader.read(input.get(used..).unwrap_or_default()) {
                Ok((0, _)) => break,
                Ok((step, reply)) => {
                    used += step;
                    if let Some(reply) = reply {
                        self.since = now;
                        self.on_reply(&reply);
                    }
                }
                Err(fault) => self.lost("5.5.0", &fault.to_string()),
            }
        }
        used
    }

    /// The connection is gone, or the handshake failed.
    pub fn on_end(&mut self) {
        match self.waiting {
            Waiting::Handshake => self.lost("4.7.5", "TLS handshake failed"),
            _ => self.lost("4.4.2", "connection lost"),
        }
    }

    /// TLS is on.
    pub fn on_tls(&mut self, now: Instant) {
        if self.waiting == Waiting::Handshake {
            self.since = now;
            self.secure = true;
            self.reader = ReplyReader::default();
            self.extensions = Extensions::default();
            self.say_ehlo();
        }
    }

    /// The time of [`Client::deadline`] has come.
    pub fn on_deadline(&mut self, now: Instant) {
        if self.deadline().is_some_and(|deadline| deadline <= now) {
            self.lost("4.4.2", "timeout waiting for a reply");
        }
    }

    /// When to call [`Client::on_deadline`].
    #[must_use]
    pub const fn deadline(&self) -> Option<Instant> {
        let wait = match self.waiting {
            Waiting::Done => return None,
            Waiting::Data => DATA_WAIT_MS,
            Waiting::End => END_WAIT_MS,
            _ => REPLY_WAIT_MS,
        };
        Some(self.since.plus_ms(wait))
    }

    /// The next order.
    pub fn next_output(&mut self) -> Option<ClientOutput> {
        self.outputs.pop_front()
    }

    /// Whether TLS is on.
    #[must_use]
    pub const fn is_secure(&self) -> bool {
        self.secure
    }

    fn say(&mut self, line: &str, waiting: Waiting) {
        self.outputs.push_back(ClientOutput::Write(format!("{line}\r\n").into()));
        self.waiting = waiting;
    }

    fn say_ehlo(&mut self) {
        let line = format!("EHLO {}", self.job.name);
        self.say(&line, Waiting::Ehlo);
    }

    fn on_reply(&mut self, reply: &RemoteReply) {
        let good = (200..300).contains(&reply.code);
        match self.waiting {
            Waiting::Greeting if good => self.say_ehlo(),
            Waiting::Greeting => self.turned_away(reply),
            Waiting::Ehlo if good => {
                self.extensions = Extensions::read(reply);
                self.greeted();
            }
            Waiting::Ehlo if reply.code >= 500 && !self.secure => {
                let line = format!("HELO {}", self.job.name);
                self.say(&line, Waiting::Helo);
            }
            Waiting::Helo if good => self.greeted(),
            Waiting::Ehlo | Waiting::Helo => self.turned_away(reply),
            Waiting::StartTls if good => {
                self.outputs.push_back(ClientOutput::StartTls);
                self.waiting = Waiting::Handshake;
            }
            Waiting::StartTls if self.job.tls == TlsUse::Required => self.turned_away(reply),
            Waiting::StartTls => self.begin_mail(),
            Waiting::Mail if good => self.next_recipient(0),
            Waiting::Mail => self.refuse_rest(&refusal(reply), true),
            Waiting::Rcpt(index) => {
                if let Some(result) = self.results.get_mut(index).filter(|_| !good) {
                    *result = Some(refusal(reply));
                }
                self.next_recipient(index + 1);
            }
            Waiting::Data if reply.code == 354 => {
                self.outputs.push_back(ClientOutput::Write(stuff(&self.job.body)));
                self.waiting = Waiting::End;
            }
            Waiting::Data => self.refuse_rest(&refusal(reply), true),
            Waiting::End if good => self.finish(true),
            Waiting::End => self.refuse_rest(&refusal(reply), true),
            Waiting::Handshake | Waiting::Done => {}
        }
    }

    fn greeted(&mut self) {
        let wanted = self.job.tls != TlsUse::Never && !self.secure;
        if wanted && self.extensions.starttls {
            self.say("STARTTLS", Waiting::StartTls);
        } else if wanted && self.job.tls == TlsUse::Required {
            self.refuse_rest(&ours(false, "4.7.4", "the host offers no TLS"), true);
        } else {
            self.begin_mail();
        }
    }

    fn begin_mail(&mut self) {
        let size = self.job.body.len();
        if self.extensions.size_max.is_some_and(|max| max > 0 && size as u64 > max) {
            return self.refuse_rest(&ours(true, "5.3.4", "message too big for the host"), true);
        }
        let utf8 = needs_smtputf8(&self.job);
        if utf8 && !self.extensions.smtputf8 {
            return self.refuse_rest(&ours(true, "5.6.7", "the host does not take SMTPUTF8"), true);
        }
        let mut line = format!("MAIL FROM:{}", reverse_path(&self.job.reverse_path));
        if self.extensions.size_max.is_some() {
            line.push_str(&format!(" SIZE={size}"));
        }
        // A host without 8BITMIME gets the octets all the same: everybody takes them, nobody converts any more.
        if self.extensions.eight_bit && !self.job.body.is_ascii() {
            line.push_str(" BODY=8BITMIME");
        }
        if utf8 {
            line.push_str(" SMTPUTF8");
        }
        self.say(&line, Waiting::Mail);
    }

    fn next_recipient(&mut self, index: usize) {
        match self.job.recipients.get(index) {
            Some(recipient) => {
                let line = format!("RCPT TO:{}", forward_path(recipient));
                self.say(&line, Waiting::Rcpt(index));
            }
            None if self.results.iter().all(Option::is_some) => self.finish(true),
            None => self.say("DATA", Waiting::Data),
        }
    }

    /// Refused before anything was said about mail: another host may do better, unless it says nobody will (RFC 7504).
    fn turned_away(&mut self, reply: &RemoteReply) {
        let permanent = matches!(reply.code, 521 | 556);
        let status = if permanent { "5.3.2" } else { "4.3.2" };
        let refusal = Refusal { elsewhere: true, ..ours(permanent, status, &reply.one_line()) };
        self.refuse_rest(&refusal, true);
    }

    /// The dialogue broke. After the final dot nobody knows whether the message was taken: not elsewhere, but later.
    fn lost(&mut self, status: &str, why: &str) {
        if self.waiting == Waiting::Done {
            return;
        }
        let elsewhere = self.waiting != Waiting::End;
        let status = format!("4{}", status.get(1..).unwrap_or(".0.0"));
        self.refuse_rest(&Refusal { elsewhere, ..ours(false, &status, why) }, false);
    }

    fn refuse_rest(&mut self, refusal: &Refusal, goodbye: bool) {
        for result in self.results.iter_mut().filter(|r| r.is_none()) {
            *result = Some(refusal.clone());
        }
        self.finish(goodbye);
    }

    fn finish(&mut self, goodbye: bool) {
        if goodbye {
            self.outputs.push_back(ClientOutput::Write(Bytes::from_static(b"QUIT\r\n")));
        }
        let results = std::mem::take(&mut self.results);
        let outcome = results.into_iter().map(|refusal| refusal.map_or(Ok(()), Err)).collect();
        self.outputs.push_back(ClientOutput::Done(outcome));
        self.waiting = Waiting::Done;
    }
}

fn ours(permanent: bool, status: &str, why: &str) -> Refusal {
    Refusal { permanent, elsewhere: false, status: status.to_owned(), diagnostic: why.to_owned() }
}

/// 5yz is permanent, everything else is worth another try. 421 says the whole host has no time.
fn refusal(reply: &RemoteReply) -> Refusal {
    let permanent = reply.code >= 500;
    let status = reply.status().unwrap_or_else(|| if permanent { "5.0.0" } else { "4.0.0" }.to_owned());
    Refusal { permanent, elsewhere: reply.code == 421, status, diagnostic: reply.one_line() }
}

#[cfg(test)]
mod tests;
