//! The session machine: AUTHORIZATION, TRANSACTION, UPDATE (RFC 1939 §3).

use std::collections::VecDeque;
use std::fmt::Write as _;

use bytes::Bytes;
use sasl::{Credentials, Exchange, Mechanism, Step};
use vocab::session::{Output, Session as Machine};
use vocab::{BlobHash, Instant, PlacementId};

use crate::command::{Command, Malformed, Number};
use crate::stuff::{DotStuffer, Top};

/// Longest line of a client without its line end: an AUTH command with the longest response (bytes). Above it: -ERR.
pub const LINE_BYTES_MAX: usize = sasl::LINE_BYTES_MAX + 64;
/// Silence before login after which the connection is closed (ms).
pub const LOGIN_TIMEOUT_MS: u64 = 2 * 60 * 1000;
/// Silence after login after which the connection is closed without UPDATE (RFC 1939 §3: at least ten minutes; ms).
pub const IDLE_TIMEOUT_MS: u64 = 10 * 60 * 1000;
/// Bad commands in a session before it is closed.
pub const ERRORS_MAX: u32 = 20;
/// Wrong logins in a session before it is closed.
pub const LOGINS_MAX: u32 = 3;
/// Bytes of a body asked for at once.
pub const READ_BYTES: u64 = 256 * 1024;

/// How sessions are set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Name in the greeting.
    pub hostname: String,
    /// Password logins without TLS.
    pub allow_plaintext: bool,
}

/// One message of the INBOX at login, ascending by UID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// UIDL.
    pub id: PlacementId,
    /// Bytes of prefix and body.
    pub size: u64,
}

/// What is needed to read a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Shown before the body.
    pub prefix: Bytes,
    /// The body.
    pub blob: BlobHash,
    /// Bytes of the body.
    pub blob_size: u64,
}

/// Questions of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Query {
    /// Check the login and take the snapshot: [`Answer::LoggedIn`], [`Answer::Refused`] or [`Answer::Unavailable`].
    Login(Credentials),
    /// Where the message is: [`Answer::Opened`] or [`Answer::Unavailable`].
    Open(PlacementId),
    /// Bytes `from..to` of a body: [`Answer::Bytes`] or [`Answer::Unavailable`].
    Read {
        /// The body.
        blob: BlobHash,
        /// First byte.
        from: u64,
        /// End, not past the body.
        to: u64,
    },
    /// Remove these: [`Answer::Done`] or [`Answer::Unavailable`] (also when only some went, or nobody knows).
    Expunge(Vec<PlacementId>),
}

/// Answers to them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The INBOX, ascending by UID.
    LoggedIn(Vec<Listed>),
    /// Wrong name or password.
    Refused,
    /// Try again later.
    Unavailable,
    /// Prefix and place of the body.
    Opened(Opened),
    /// Bytes of a body.
    Bytes(Bytes),
    /// Done.
    Done,
}

enum State {
    /// Before login; the name of USER.
    Authorization(Option<String>),
    /// After it.
    Transaction,
}

/// A message on its way out.
struct Transfer {
    stuffer: DotStuffer,
    top: Option<Top>,
    opened: Option<Opened>,
    at: u64,
}

/// What the outstanding question is about.
enum Waiting {
    Login,
    Transfer(Transfer),
    Quit,
}

/// One POP3 connection.
pub struct Session {
    settings: Settings,
    tls: bool,
    state: State,
    exchange: Option<Exchange>,
    messages: Vec<Listed>,
    deleted: Vec<bool>,
    waiting: Option<Waiting>,
    outputs: VecDeque<Output<Query>>,
    /// The rest of an oversized line is thrown away.
    skipping: bool,
    closing: bool,
    leaving: bool,
    errors: u32,
    refused: u32,
    last_heard: Instant,
}

impl Session {
    /// A session that greets; `tls`: the connection is encrypted already.
    #[must_use]
    pub fn new(settings: Settings, tls: bool, now: Instant) -> Self {
        let mut session = Self {
            settings,
            tls,
            state: State::Authorization(None),
            exchange: None,
            messages: Vec::new(),
            deleted: Vec::new(),
            waiting: None,
            outputs: VecDeque::new(),
            skipping: false,
            closing: false,
            leaving: false,
            errors: 0,
            refused: 0,
            last_heard: now,
        };
        let greeting = format!("+OK {} Twinpost POP3 ready", session.settings.hostname);
        session.say(&greeting);
        session
    }

    fn say(&mut self, line: &str) {
        self.outputs.push_back(Output::Write(Bytes::from(format!("{line}\r\n"))));
    }

    fn close(&mut self) {
        self.closing = true;
        self.outputs.push_back(Output::Close);
    }

    fn ask(&mut self, query: Query, waiting: Waiting) {
        self.waiting = Some(waiting);
        self.outputs.push_back(Output::Ask(query));
    }

    fn fault(&mut self, text: &str) {
        self.errors += 1;
        self.say(&format!("-ERR {text}"));
        if self.errors >= ERRORS_MAX {
            self.say("-ERR too many errors");
            self.close();
        }
    }

    fn on_line(&mut self, line: &[u8]) {
        if let Some(mut exchange) = self.exchange.take() {
            let step = exchange.on_line(line);
            return self.on_step(exchange, step);
        }
        let command = match Command::parse(line) {
            Ok(command) => command,
            Err(Malformed::Unknown) => return self.fault("no such command"),
            Err(Malformed::Arguments) => return self.fault("wrong arguments"),
        };
        match (&mut self.state, command) {
            (_, Command::Capa) => self.capabilities(),
            (_, Command::Quit) => self.quit(),
            (State::Authorization(_), Command::Stls) if !self.tls => {
                self.say("+OK begin TLS");
                self.outputs.push_back(Output::StartTls);
            }
            (State::Authorization(name), Command::User(login)) if self.tls || self.settings.allow_plaintext => {
                *name = Some(login.to_owned());
                self.say("+OK now the password");
            }
            (State::Authorization(name), Command::Pass(password)) => match name.take() {
                Some(login) => self.login(Credentials { login, password: password.to_owned() }),
                None => self.fault("USER first"),
            },
            (State::Authorization(_), Command::AuthList) => self.say("+OK mechanisms\r\nPLAIN\r\n."),
            (State::Authorization(_), Command::Auth(mechanism, initial)) => self.auth(mechanism, initial),
            (State::Authorization(_), Command::User(_)) => self.fault("STLS first: no passwords without encryption"),
            (State::Authorization(_), _) => self.fault("log in first"),
            (State::Transaction, command) => self.transaction(&command),
        }
    }

    fn capabilities(&mut self) {
        let mut text =
            "+OK capabilities\r\nTOP\r\nUIDL\r\nRESP-CODES\r\nAUTH-RESP-CODE\r\nPIPELINING\r\nEXPIRE NEVER\r\n"
                .to_owned();
        if matches!(self.state, State::Authorization(_)) {
            if !self.tls {
                text.push_str("STLS\r\n");
            }
            if self.tls || self.settings.allow_plaintext {
                text.push_str("USER\r\nSASL PLAIN\r\n");
            }
        }
        text.push_str("IMPLEMENTATION Twinpost\r\n.");
        self.say(&text);
    }

    fn auth(&mut self, mechanism: &[u8], initial: Option<&[u8]>) {
        if !self.tls && !self.settings.allow_plaintext {
            return self.fault("STLS first: no passwords without encryption");
        }
        if Mechanism::parse(mechanism) != Some(Mechanism::Plain) {
            return self.fault("no such mechanism");
        }
        let (exchange, step) = Exchange::begin(Mechanism::Plain, initial);
        self.on_step(exchange, step);
    }

    fn on_step(&mut self, exchange: Exchange, step: Step) {
        match step {
            Step::Challenge(text) => {
                self.exchange = Some(exchange);
                self.say(&format!("+ {text}"));
            }
            Step::Credentials(credentials) => self.login(credentials),
            Step::Refused => self.refuse(),
            Step::Cancelled => self.say("-ERR cancelled"),
            Step::Malformed => self.fault("malformed response"),
        }
    }

    fn login(&mut self, credentials: Credentials) {
        self.ask(Query::Login(credentials), Waiting::Login);
    }

    fn refuse(&mut self) {
        self.refused += 1;
        self.say("-ERR [AUTH] wrong name or password");
        if self.refused >= LOGINS_MAX {
            self.close();
        }
    }

    fn transaction(&mut self, command: &Command<'_>) {
        match *command {
            Command::Stat => {
                let (count, size) = self.present().fold((0u64, 0u64), |(c, s), (_, m)| (c + 1, s + m.size));
                self.say(&format!("+OK {count} {size}"));
            }
            Command::List(number) => self.list(number, |m| m.size.to_string()),
            Command::Uidl(number) => self.list(number, |m| m.id.to_string()),
            Command::Retr(number) => self.transfer(number, None),
            Command::Top(number, lines) => self.transfer(number, Some(Top::new(lines))),
            Command::Dele(number) => match self.message(number) {
                Some(_) => {
                    if let Some(deleted) = self.deleted.get_mut(number - 1) {
                        *deleted = true;
                    }
                    self.say(&format!("+OK message {number} deleted"));
                }
                None => self.fault("no such message"),
            },
            Command::Noop => self.say("+OK"),
            Command::Rset => {
                self.deleted.fill(false);
                self.say("+OK nothing is deleted");
            }
            _ => self.fault("not after login"),
        }
    }

    fn present(&self) -> impl Iterator<Item = (Number, &Listed)> {
        let pairs = self.messages.iter().zip(&self.deleted).enumerate();
        pairs.filter(|(_, (_, deleted))| !**deleted).map(|(at, (message, _))| (at + 1, message))
    }

    fn message(&self, number: Number) -> Option<Listed> {
        let at = number.checked_sub(1)?;
        let deleted = self.deleted.get(at).copied().unwrap_or(true);
        self.messages.get(at).copied().filter(|_| !deleted)
    }

    fn list(&mut self, number: Option<Number>, show: impl Fn(&Listed) -> String) {
        match number {
            Some(number) => match self.message(number) {
                Some(message) => self.say(&format!("+OK {number} {}", show(&message))),
                None => self.fault("no such message"),
            },
            None => {
                let mut text = "+OK\r\n".to_owned();
                for (number, message) in self.present() {
                    // Writing to a string does not fail.
                    let _ = write!(text, "{number} {}\r\n", show(message));
                }
                text.push('.');
                self.say(&text);
            }
        }
    }

    fn transfer(&mut self, number: Number, top: Option<Top>) {
        match self.message(number) {
            Some(message) => {
                let transfer = Transfer { stuffer: DotStuffer::default(), top, opened: None, at: 0 };
                self.ask(Query::Open(message.id), Waiting::Transfer(transfer));
            }
            None => self.fault("no such message"),
        }
    }

    fn on_transfer(&mut self, mut transfer: Transfer, answer: Answer) {
        match (answer, &transfer.opened) {
            (Answer::Opened(opened), None) => {
                let size = opened.blob_size + opened.prefix.len() as u64;
                match transfer.top {
                    None => self.say(&format!("+OK {size} octets")),
                    Some(_) => self.say("+OK top of message"),
                }
                let prefix = opened.prefix.clone();
                transfer.opened = Some(opened);
                self.send_piece(&mut transfer, &prefix);
                self.go_on(transfer);
            }
            (Answer::Bytes(piece), Some(_)) if !piece.is_empty() => {
                transfer.at += piece.len() as u64;
                self.send_piece(&mut transfer, &piece);
                self.go_on(transfer);
            }
            (_, None) => self.say("-ERR [SYS/TEMP] message not available now"),
            // In the middle of a message there is no way to say so: what was sent must not look complete.
            (_, Some(_)) => self.close(),
        }
    }

    fn send_piece(&mut self, transfer: &mut Transfer, piece: &[u8]) {
        let wanted = transfer.top.as_mut().map_or(piece.len(), |top| top.take(piece));
        let mut out = Vec::new();
        transfer.stuffer.push(piece.get(..wanted).unwrap_or(piece), &mut out);
        self.outputs.push_back(Output::Write(out.into()));
    }

    fn go_on(&mut self, transfer: Transfer) {
        let cut = transfer.top.as_ref().is_some_and(Top::is_done);
        let rest = transfer.opened.as_ref().filter(|opened| !cut && transfer.at < opened.blob_size);
        match rest {
            Some(opened) => {
                let to = (transfer.at + READ_BYTES).min(opened.blob_size);
                let query = Query::Read { blob: opened.blob, from: transfer.at, to };
                self.ask(query, Waiting::Transfer(transfer));
            }
            None => {
                let mut end = Vec::new();
                transfer.stuffer.finish(&mut end);
                self.outputs.push_back(Output::Write(end.into()));
            }
        }
    }

    fn quit(&mut self) {
        let pairs = self.messages.iter().zip(&self.deleted);
        let gone: Vec<PlacementId> = pairs.filter(|(_, deleted)| **deleted).map(|(message, _)| message.id).collect();
        if gone.is_empty() {
            self.say("+OK goodbye");
            self.close();
        } else {
            self.ask(Query::Expunge(gone), Waiting::Quit);
        }
    }

    /// Says goodbye when nothing is under way.
    fn leave(&mut self) {
        if self.leaving && !self.closing && self.waiting.is_none() {
            self.say("-ERR [SYS/TEMP] server is going away, come again");
            self.close();
        }
    }
}

impl Machine for Session {
    type Query = Query;
    type Answer = Answer;

    fn on_bytes(&mut self, input: &[u8], now: Instant) -> usize {
        let mut used = 0;
        while self.waiting.is_none() && !self.closing {
            // After STLS nothing is taken until TLS is on.
            if matches!(self.outputs.back(), Some(Output::StartTls)) {
                break;
            }
            let rest = input.get(used..).unwrap_or_default();
            let Some(end) = rest.iter().position(|b| *b == b'\n') else {
                if self.skipping || rest.len() > LINE_BYTES_MAX {
                    self.skipping = true;
                    used += rest.len();
                }
                break;
            };
            used += end + 1;
            self.last_heard = now;
            let line = rest.get(..end).unwrap_or_default();
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if std::mem::take(&mut self.skipping) || line.len() > LINE_BYTES_MAX {
                self.exchange = None;
                self.fault("line too long");
            } else {
                self.on_line(line);
            }
        }
        if self.closing { input.len() } else { used }
    }

    fn on_end(&mut self, _: Instant) {
        if !self.closing {
            self.close();
        }
    }

    fn on_answer(&mut self, answer: Answer, now: Instant) {
        self.last_heard = now;
        match (self.waiting.take(), answer) {
            (Some(Waiting::Login), Answer::LoggedIn(messages)) => {
                self.deleted = vec![false; messages.len()];
                self.say(&format!("+OK {} messages", messages.len()));
                self.messages = messages;
                self.state = State::Transaction;
            }
            (Some(Waiting::Login), Answer::Refused) => self.refuse(),
            (Some(Waiting::Login), _) => self.say("-ERR [SYS/TEMP] login not possible now, try again later"),
            (Some(Waiting::Transfer(transfer)), answer) => self.on_transfer(transfer, answer),
            (Some(Waiting::Quit), answer) => {
                self.say(match answer {
                    Answer::Done => "+OK goodbye",
                    _ => "-ERR [SYS/TEMP] some deleted messages not removed",
                });
                self.close();
            }
            (None, _) => {}
        }
        self.leave();
    }

    fn on_tls(&mut self, now: Instant) {
        self.tls = true;
        self.last_heard = now;
        self.state = State::Authorization(None);
        self.exchange = None;
    }

    fn on_deadline(&mut self, now: Instant) {
        if self.deadline().is_some_and(|at| at <= now) && !self.closing && self.waiting.is_none() {
            // No UPDATE and no answer (RFC 1939 §3).
            self.close();
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let timeout = match self.state {
            State::Authorization(_) => LOGIN_TIMEOUT_MS,
            State::Transaction => IDLE_TIMEOUT_MS,
        };
        (!self.closing && self.waiting.is_none()).then(|| self.last_heard.plus_ms(timeout))
    }

    fn on_shutdown(&mut self, _: Instant) {
        self.leaving = true;
        self.leave();
    }

    fn next_output(&mut self) -> Option<Output<Query>> {
        self.outputs.pop_front()
    }
}
