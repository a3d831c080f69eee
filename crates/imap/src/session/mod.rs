//! One IMAP connection as a sealed machine.
//!
//! A command is collected, asks for a snapshot of the account, runs on it, may submit one operation, and ends with its
//! tagged answer; only then the next command is read, so pipelined commands are answered in order and never overtake
//! each other. FETCH and SEARCH run piece by piece as their output is drained ([`Work`]).
//! Limits: [`COMMAND_BYTES_MAX`], [`BAD_COMMANDS_MAX`], [`LOGIN_FAILURES_MAX`], [`LOGIN_TIME_MS`], [`AUTOLOGOUT_MS`].

mod append;
mod auth;
mod copy;
mod dispatch;
mod expunge;
mod fetch;
mod hierarchy;
mod idle;
mod list;
mod refusal;
mod search;
mod section;
mod select;
mod store;
pub mod view;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use mailbox::op::{AccountOp, Outcome};
use sasl::{Credentials, Exchange};
use vocab::session::{Output, Session};
use vocab::{AccountId, BlobHash, Damaged, Flags, Instant, MailboxId, Rows, Timestamp, UidValidity};

use crate::capability::{Standing, offer_capabilities};
use crate::codec::assemble::{Assembled, Assembler, Limits};
use crate::codec::command::Command;
use crate::codec::fetch::FetchCommand;

use self::copy::CopyRun;
use self::fetch::FetchRun;
use self::search::SearchRun;
use self::store::StoreRun;
use self::view::View;

/// Bytes of one command without the message of APPEND (RFC 7162 asks for 8,192 at least).
pub const COMMAND_BYTES_MAX: usize = 128 * 1024;
/// The same while nobody is logged in.
pub const COMMAND_BYTES_BEFORE_LOGIN_MAX: usize = 16 * 1024;
/// Malformed or misplaced commands until BYE.
pub const BAD_COMMANDS_MAX: u32 = 20;
/// Wrong logins until BYE.
pub const LOGIN_FAILURES_MAX: u32 = 5;
/// Time to log in (ms).
pub const LOGIN_TIME_MS: u64 = 60_000;
/// Silence until the connection is closed (ms; RFC 3501 §5.4 asks for 30 minutes at least).
pub const AUTOLOGOUT_MS: u64 = 30 * 60_000 + 10_000;
/// Output is handed out in pieces of about this size (bytes).
pub const OUTPUT_PIECE_BYTES: usize = 64 * 1024;

const CONSENT: &str = "+ go on\r\n";

/// What the operator decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Name in the greeting.
    pub hostname: String,
    /// Passwords without TLS (test set-ups on loopback).
    pub allow_plaintext: bool,
    /// Largest message of APPEND (bytes).
    pub message_size_max: usize,
}

/// What the session needs from outside.
#[derive(Debug)]
pub enum Query {
    /// Check a password; a wrong one is answered late. Answered by [`Answer::Login`].
    Login(Credentials),
    /// The account as it is now. Answered by [`Answer::Snapshot`].
    Snapshot(AccountId),
    /// Memory for a message that is about to come, until [`Query::Append`] or the next of these is answered. Answered by
    /// [`Answer::Held`] or [`Answer::NoRoom`].
    Hold(usize),
    /// Bytes of a body, 1 MiB at most. Answered by [`Answer::Body`], shorter only at the end of the body.
    Body {
        /// Which body.
        blob: BlobHash,
        /// First byte.
        from: u64,
        /// After the last byte.
        to: u64,
    },
    /// A change. Answered by [`Answer::Outcome`] after its commit.
    Submit {
        /// Of whom.
        account: AccountId,
        /// What.
        op: AccountOp,
    },
    /// A message to be kept. Answered by [`Answer::Outcome`] (or [`Answer::NoRoom`]) after its commit.
    Append {
        /// Of whom.
        account: AccountId,
        /// Where.
        mailbox: MailboxId,
        /// Flags at birth.
        flags: Flags,
        /// INTERNALDATE; now when absent.
        internal_date: Option<Timestamp>,
        /// The message.
        message: Bytes,
    },
}

/// What came of a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginAnswer {
    /// This account.
    Accepted(AccountId),
    /// Wrong, unknown or switched off.
    Refused,
}

/// Answers to a [`Query`].
pub enum Answer {
    /// To [`Query::Login`].
    Login(LoginAnswer),
    /// To [`Query::Snapshot`].
    Snapshot(Arc<dyn Rows>),
    /// To [`Query::Hold`].
    Held,
    /// To [`Query::Body`].
    Body(Bytes),
    /// To [`Query::Submit`] and [`Query::Append`].
    Outcome(Outcome),
    /// Too much in memory or on disk now: `NO [LIMIT]`.
    NoRoom,
    /// It cannot be done or known now: `NO [UNAVAILABLE]`.
    Unavailable,
}

/// The selected mailbox.
struct Selected {
    mailbox: MailboxId,
    uid_validity: UidValidity,
    read_only: bool,
    view: View,
}

/// What the bytes that come next are.
enum Phase {
    Commands,
    Authenticating { tag: String, exchange: Exchange },
    Idling { tag: String, heartbeat: Instant },
}

/// What to do with the answer to the question that is out.
enum Pending {
    Login {
        tag: String,
    },
    /// Memory for a literal.
    Room {
        tag: String,
        synchronizing: bool,
    },
    /// Run the command on the snapshot.
    Command {
        tag: String,
        command: Box<Command>,
    },
    /// `\Seen` is being set; then fetch.
    Seen {
        tag: String,
        fetch: Box<FetchCommand>,
    },
    /// The snapshot after `\Seen` was set on these UIDs.
    FetchAfterSeen {
        tag: String,
        fetch: Box<FetchCommand>,
        seen: BTreeSet<u32>,
    },
    Stored(Box<StoreRun>),
    Copied(Box<CopyRun>),
    Expunged {
        tag: String,
        closing: bool,
    },
    Appended {
        tag: String,
        mailbox: MailboxId,
    },
    /// CREATE and its like: just the outcome.
    Changed {
        tag: String,
        name: &'static str,
    },
    /// Show what changed, then say this.
    Finish {
        tag: String,
        text: String,
    },
    /// News for IDLE.
    News,
    /// Bytes for the work under way.
    Body,
}

/// A command that produces output piece by piece.
enum Work {
    Fetch(FetchRun),
    Search(SearchRun),
}

/// What a piece of work says next.
enum Step {
    /// Output is there; call again when it is drained.
    Piece,
    /// Answer this first.
    Ask(Query),
    /// Done; the tagged answer without its tag.
    Done(String),
    /// Output was cut in the middle of a literal: only closing helps.
    Broken,
}

/// One connection.
pub struct ImapSession {
    settings: Settings,
    tls: bool,
    now: Instant,
    begun: Instant,
    orders: VecDeque<Output<Query>>,
    said: Vec<u8>,
    assembler: Assembler,
    phase: Phase,
    pending: Option<Pending>,
    work: Option<Box<Work>>,
    account: Option<AccountId>,
    selected: Option<Box<Selected>>,
    condstore: bool,
    bad_commands: u32,
    login_failures: u32,
    changed_meanwhile: bool,
    stopping: bool,
    closed: bool,
}

impl ImapSession {
    /// A new connection; the greeting is the first output.
    #[must_use]
    pub fn new(settings: Settings, tls: bool, now: Instant) -> Self {
        let mut session = Self {
            settings,
            tls,
            now,
            begun: now,
            orders: VecDeque::new(),
            said: Vec::new(),
            assembler: Assembler::default(),
            phase: Phase::Commands,
            pending: None,
            work: None,
            account: None,
            selected: None,
            condstore: false,
            bad_commands: 0,
            login_failures: 0,
            changed_meanwhile: false,
            stopping: false,
            closed: false,
        };
        let greeting = format!(
            "* OK [CAPABILITY {}] {} ready\r\n",
            offer_capabilities(session.standing()),
            session.settings.hostname
        );
        session.say(&greeting);
        session
    }

    fn standing(&self) -> Standing {
        Standing {
            tls: self.tls,
            may_login: self.tls || self.settings.allow_plaintext,
            logged_in: self.account.is_some(),
        }
    }

    fn say(&mut self, text: &str) {
        self.said.extend_from_slice(text.as_bytes());
    }

    fn order(&mut self, order: Output<Query>) {
        if !self.said.is_empty() {
            self.orders.push_back(Output::Write(std::mem::take(&mut self.said).into()));
        }
        self.orders.push_back(order);
    }

    fn ask(&mut self, query: Query, pending: Pending) {
        self.pending = Some(pending);
        self.order(Output::Ask(query));
    }

    /// The tagged answer that ends a command.
    fn finish(&mut self, tag: &str, text: &str) {
        self.say(&format!("{tag} {text}\r\n"));
        if self.stopping {
            self.goodbye("server is shutting down, come again");
        }
    }

    /// BAD, counted.
    fn bad(&mut self, tag: &str, text: &str) {
        self.say(&format!("{tag} BAD {text}\r\n"));
        self.bad_commands += 1;
        if self.bad_commands >= BAD_COMMANDS_MAX {
            self.goodbye("too many bad commands");
        } else if self.stopping {
            self.goodbye("server is shutting down, come again");
        }
    }

    fn goodbye(&mut self, text: &str) {
        if self.closed {
            return;
        }
        self.say(&format!("* BYE {text}\r\n"));
        self.close();
    }

    fn close(&mut self) {
        self.closed = true;
        self.work = None;
        self.order(Output::Close);
    }

    fn is_busy(&self) -> bool {
        self.closed || self.pending.is_some() || self.work.is_some()
    }

    fn limits(&self) -> Limits {
        if self.account.is_some() {
            Limits { command_bytes: COMMAND_BYTES_MAX, append_bytes: self.settings.message_size_max }
        } else {
            Limits { command_bytes: COMMAND_BYTES_BEFORE_LOGIN_MAX, append_bytes: 0 }
        }
    }

    fn on_assembled(&mut self, event: Assembled) {
        match event {
            Assembled::Incomplete => {}
            Assembled::ConsentWanted => self.say(CONSENT),
            Assembled::RoomWanted { size, synchronizing, piece } => {
                let tag = dispatch::tag_of(&piece);
                self.ask(Query::Hold(size), Pending::Room { tag, synchronizing });
            }
            Assembled::Command(input) => self.on_command(&input),
            Assembled::LineTooLong(piece) => {
                let tag = dispatch::tag_of(&piece);
                self.bad(&tag, "command too long");
            }
            Assembled::LiteralTooLarge(piece) => {
                let tag = dispatch::tag_of(&piece);
                self.finish(&tag, "NO [TOOBIG] literal too large");
            }
            Assembled::FloodAhead(piece) => {
                let tag = dispatch::tag_of(&piece);
                self.say(&format!("{tag} BAD [TOOBIG] literal too large\r\n"));
                self.goodbye("cannot skip a literal of that size");
            }
        }
    }

    fn on_damaged(&mut self, tag: &str, _: &Damaged) {
        self.finish(tag, refusal::UNAVAILABLE);
    }

    /// Steps the work under way until it has output or a question.
    fn go_on(&mut self) {
        while self.pending.is_none() && self.orders.is_empty() && self.said.len() < OUTPUT_PIECE_BYTES {
            let Some(mut work) = self.work.take() else { return };
            let step = match (&mut *work, self.selected.as_deref()) {
                (Work::Fetch(run), Some(selected)) => run.step(&selected.view, &mut self.said),
                (Work::Search(run), Some(selected)) => run.step(&selected.view, &mut self.said),
                (_, None) => Step::Broken,
            };
            match step {
                Step::Piece => self.work = Some(work),
                Step::Ask(query) => {
                    self.work = Some(work);
                    // What was said stays back, so that a body that is missing can be answered cleanly.
                    self.pending = Some(Pending::Body);
                    self.orders.push_back(Output::Ask(query));
                }
                Step::Done(text) => {
                    let tag = work.tag().to_owned();
                    self.finish(&tag, &text);
                }
                Step::Broken => self.close(),
            }
        }
    }
}

impl Work {
    fn tag(&self) -> &str {
        match self {
            Self::Fetch(run) => run.tag(),
            Self::Search(run) => run.tag(),
        }
    }
    fn on_body(&mut self, bytes: Option<Bytes>) {
        match self {
            Self::Fetch(run) => run.on_body(bytes),
            Self::Search(run) => run.on_body(bytes),
        }
    }
}

impl Session for ImapSession {
    type Query = Query;
    type Answer = Answer;

    fn on_bytes(&mut self, input: &[u8], now: Instant) -> usize {
        if self.is_busy() || input.is_empty() {
            return 0;
        }
        self.now = now;
        match &self.phase {
            Phase::Commands => {
                let limits = self.limits();
                let (used, event) = self.assembler.take(input, limits);
                self.on_assembled(event);
                used
            }
            Phase::Authenticating { .. } => {
                let (used, event) = self.assembler.take_plain_line(input, sasl::LINE_BYTES_MAX);
                self.on_authentication_line(event);
                used
            }
            Phase::Idling { .. } => {
                let (used, event) = self.assembler.take_plain_line(input, COMMAND_BYTES_BEFORE_LOGIN_MAX);
                self.on_idle_line(event);
                used
            }
        }
    }

    fn on_end(&mut self, now: Instant) {
        self.now = now;
        if !self.closed {
            self.close();
        }
    }

    fn on_answer(&mut self, answer: Answer, now: Instant) {
        self.now = now;
        let Some(pending) = self.pending.take() else { return };
        if self.closed {
            return;
        }
        self.on_pending(pending, answer);
    }

    fn on_tls(&mut self, now: Instant) {
        self.now = now;
        self.tls = true;
        self.assembler = Assembler::default();
    }

    fn on_deadline(&mut self, now: Instant) {
        // Silence is measured from the client's last word, so `self.now` stays.
        if self.is_busy() || self.deadline().is_some_and(|at| at > now) {
            return;
        }
        if let Phase::Idling { heartbeat, .. } = &mut self.phase {
            *heartbeat = now.plus_ms(crate::quirks::IDLE_HEARTBEAT_MS);
            self.say("* OK Still here\r\n");
            return;
        }
        let why = if self.account.is_some() { "logged out for inactivity" } else { "too slow to log in" };
        self.goodbye(why);
    }

    fn deadline(&self) -> Option<Instant> {
        if self.is_busy() {
            return None;
        }
        Some(match &self.phase {
            _ if self.account.is_none() => self.begun.plus_ms(LOGIN_TIME_MS),
            Phase::Idling { heartbeat, .. } => *heartbeat,
            _ => self.now.plus_ms(AUTOLOGOUT_MS),
        })
    }

    fn on_change(&mut self, now: Instant) {
        if !matches!(self.phase, Phase::Idling { .. }) || self.closed {
            return;
        }
        if self.pending.is_some() {
            self.changed_meanwhile = true;
            return;
        }
        let _ = now;
        self.ask_news();
    }

    fn on_shutdown(&mut self, now: Instant) {
        let _ = now;
        self.stopping = true;
        if !self.is_busy() {
            self.goodbye("server is shutting down, come again");
        }
    }

    fn next_output(&mut self) -> Option<Output<Query>> {
        self.go_on();
        if let Some(order) = self.orders.pop_front() {
            return Some(order);
        }
        if self.said.is_empty() || (self.work.is_some() && self.pending.is_some()) {
            return None;
        }
        Some(Output::Write(std::mem::take(&mut self.said).into()))
    }
}
