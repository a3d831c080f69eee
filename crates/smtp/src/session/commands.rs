//! What each command does.

use vocab::{ForwardPath, Instant, ReversePath};

use sasl::{Exchange, Mechanism, Step};
use vocab::session::Output;

use super::query::{Answer, Class, Query, Target};
use super::transaction::Transaction;
use super::{Asked, Hello, LOGINS_REFUSED_MAX, Phase, Role, SmtpSession, replies};
use crate::codec::command::{Command, is_bdat, parse};
use crate::codec::params::MailParams;
use crate::codec::reply::{Reply, encode_lines};

impl SmtpSession {
    pub(super) fn on_command(&mut self, line: &[u8], now: Instant) {
        match parse(line) {
            Ok(command) => self.obey(command, now),
            // The size of the chunk is unknown: what follows cannot be told from commands.
            Err(fault) if is_bdat(line) => self.close(&replies::malformed(fault)),
            Err(fault) => self.reply(&replies::malformed(fault)),
        }
    }

    fn obey(&mut self, command: Command, now: Instant) {
        match command {
            Command::Ehlo(name) => self.hello(name, true),
            Command::Helo(name) => self.hello(name, false),
            Command::StartTls => self.start_tls(),
            Command::Auth { mechanism, initial } => self.auth(&mechanism, initial.as_deref()),
            Command::Mail(path, params) => self.mail(path, params),
            Command::Rcpt(path) => self.rcpt(path),
            Command::Data => self.data(now),
            Command::Bdat { size, last } => self.bdat(size, last, now),
            Command::Rset => {
                self.forget_transaction();
                self.reply(&replies::OK);
            }
            Command::Noop => self.reply(&replies::OK),
            Command::Vrfy => self.reply(&replies::VERIFY),
            Command::Expn => self.reply(&replies::NO_EXPN),
            Command::Help => self.reply(&replies::HELP),
            Command::Quit => self.close(&replies::BYE),
        }
    }

    pub(super) fn forget_transaction(&mut self) {
        self.transaction = None;
        self.chunks = None;
    }

    fn hello(&mut self, name: String, extended: bool) {
        self.forget_transaction();
        self.hello = Some(Hello { name, extended });
        if !extended {
            let reply = Reply { code: 250, status: "", text: self.config.host.clone().into() };
            self.write(reply.encode());
            return;
        }
        let mut lines = vec![self.config.host.clone(), "PIPELINING".into()];
        lines.push(format!("SIZE {}", self.config.message_size_max));
        lines.extend(["8BITMIME", "SMTPUTF8", "CHUNKING", "ENHANCEDSTATUSCODES"].map(String::from));
        if self.config.tls_offered && !self.peer.tls {
            lines.push("STARTTLS".into());
        }
        if self.may_authenticate() {
            lines.push("AUTH PLAIN LOGIN".into());
        }
        self.write(encode_lines(250, &lines));
    }

    fn may_authenticate(&self) -> bool {
        self.config.role == Role::Submission
            && self.identity.is_none()
            && (self.peer.tls || self.config.allow_plaintext)
    }

    fn start_tls(&mut self) {
        if self.peer.tls || !self.config.tls_offered {
            return self.reply(&replies::TLS_NOT_HERE);
        }
        self.write(replies::START_TLS.encode());
        self.outputs.push_back(Output::StartTls);
        self.phase = Phase::Tls;
    }

    fn auth(&mut self, mechanism: &str, initial: Option<&str>) {
        if self.config.role == Role::Mx {
            return self.reply(&replies::NO_AUTH_HERE);
        }
        if !self.hello.as_ref().is_some_and(|hello| hello.extended) {
            return self.reply(&replies::HELLO_FIRST);
        }
        if self.identity.is_some() || self.transaction.is_some() {
            return self.reply(&replies::SEQUENCE);
        }
        if !self.may_authenticate() {
            return self.reply(&replies::TLS_REQUIRED);
        }
        let Some(mechanism) = Mechanism::parse(mechanism.as_bytes()) else {
            return self.reply(&replies::MECHANISM);
        };
        let (exchange, step) = Exchange::begin(mechanism, initial.map(str::as_bytes));
        self.phase = Phase::Auth(exchange);
        self.on_auth_step(step);
    }

    pub(super) fn on_auth_step(&mut self, step: Step) {
        match step {
            Step::Challenge(text) => self.write(format!("334 {text}\r\n").into()),
            Step::Credentials(credentials) => self.ask(Query::Authenticate(credentials), Asked::Login),
            Step::Refused => self.end_auth(&replies::LOGIN_REFUSED),
            Step::Cancelled => self.end_auth(&replies::AUTH_CANCELLED),
            Step::Malformed => self.end_auth(&replies::AUTH_MALFORMED),
        }
    }

    fn end_auth(&mut self, reply: &Reply) {
        self.phase = Phase::Command;
        self.reply(reply);
    }

    fn mail(&mut self, path: ReversePath, params: MailParams) {
        let Some(hello) = &self.hello else { return self.reply(&replies::HELLO_FIRST) };
        if self.transaction.is_some() {
            return self.reply(&replies::SEQUENCE);
        }
        let submission = self.config.role == Role::Submission;
        if submission && self.identity.is_none() {
            return self.reply(&replies::AUTH_REQUIRED);
        }
        if path.address().is_some_and(|address| !address.is_ascii()) && !params.smtputf8 {
            return self.reply(&replies::NEEDS_SMTPUTF8);
        }
        if params.size.is_some_and(|size| size > self.config.message_size_max as u64) {
            return self.reply(&replies::TOO_BIG);
        }
        let transaction = Transaction::new(path, params, (hello.name.clone(), hello.extended));
        match (&self.identity, transaction.reverse_path.address()) {
            (Some(identity), Some(address)) if submission => {
                let query = Query::MaySendAs(identity.clone(), address.clone());
                self.ask(query, Asked::MaySend(Box::new(transaction)));
            }
            // Nobody submits reports under nobody's name.
            (Some(_), None) if submission => self.reply(&replies::NOT_YOURS),
            _ => self.begin(transaction),
        }
    }

    fn begin(&mut self, transaction: Transaction) {
        self.transaction = Some(transaction);
        self.reply(&replies::SENDER_OK);
    }

    fn rcpt(&mut self, path: ForwardPath) {
        let Some(transaction) = &self.transaction else { return self.reply(&replies::SEQUENCE) };
        if self.chunks.is_some() {
            return self.reply(&replies::SEQUENCE);
        }
        if transaction.recipients.len() >= self.config.recipients_max {
            return self.reply(&replies::TOO_MANY_RECIPIENTS);
        }
        if let ForwardPath::Address(address) = &path
            && !address.is_ascii()
            && !transaction.params.smtputf8
        {
            return self.reply(&replies::NEEDS_SMTPUTF8);
        }
        self.ask(Query::Classify(path.clone()), Asked::Recipient(path));
    }

    pub(super) fn on_answered(&mut self, asked: Asked, answer: Answer, now: Instant) {
        match asked {
            Asked::MaySend(transaction) => match answer {
                Answer::Allowed(true) => self.begin(*transaction),
                Answer::Allowed(false) => self.reply(&replies::NOT_YOURS),
                _ => self.reply(&replies::UNAVAILABLE),
            },
            Asked::Recipient(path) => self.on_class(path, answer),
            Asked::Login => self.on_login(answer),
            Asked::DataHold => self.on_data_hold(&answer, now),
            Asked::Grow(phase) => self.on_grown(*phase, &answer, now),
            Asked::Accept => self.on_accepted(&answer),
        }
    }

    fn on_class(&mut self, path: ForwardPath, answer: Answer) {
        let relays = self.config.role == Role::Submission && self.identity.is_some();
        let targets = match (answer, &path) {
            (Answer::Class(Class::Own(targets)), _) => targets,
            (Answer::Class(Class::NotOurs), ForwardPath::Address(address)) if relays => {
                vec![Target::Remote(address.clone())]
            }
            (Answer::Class(Class::NotOurs), _) => return self.reply(&replies::NO_RELAY),
            (Answer::Class(Class::NoSuchUser), _) => return self.reply(&replies::NO_SUCH_USER),
            (Answer::Class(Class::Disabled), _) => return self.reply(&replies::DISABLED),
            _ => return self.reply(&replies::UNAVAILABLE),
        };
        if let Some(transaction) = &mut self.transaction {
            transaction.add(path, targets);
            self.reply(&replies::RECIPIENT_OK);
        }
    }

    fn on_login(&mut self, answer: Answer) {
        match answer {
            Answer::Login(Some(identity)) => {
                self.identity = Some(identity);
                self.reply(&replies::LOGGED_IN);
            }
            Answer::Login(None) => {
                self.logins_refused += 1;
                if self.logins_refused >= LOGINS_REFUSED_MAX {
                    self.write(replies::LOGIN_REFUSED.encode());
                    return self.close(&replies::TOO_MANY_ERRORS);
                }
                self.reply(&replies::LOGIN_REFUSED);
            }
            _ => self.reply(&replies::LOGIN_UNAVAILABLE),
        }
    }
}
