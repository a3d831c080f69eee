//! A session whose lines are noted in the protocol log.

use std::sync::Arc;

use ports::log::Log;
use smtp::session::{Answer, Query, SmtpSession};
use smtp::tap::Tap;
use vocab::Instant;
use vocab::log::{Entry, Protocol};
use vocab::session::{Output, Session};

/// An SMTP session, and where its lines go when they are wanted.
pub struct LoggedSession {
    session: SmtpSession,
    /// Only while the protocol log is on; decided when the session begins.
    noted: Option<Box<Noted>>,
}

struct Noted {
    log: Arc<dyn Log>,
    tap: Tap,
    name: String,
    host: String,
}

impl Noted {
    fn note(&self, received: bool, lines: Vec<String>) {
        for line in lines {
            let (session, host) = (self.name.clone(), self.host.clone());
            self.log.note(Entry::Protocol(Protocol { session, host, received, line }));
        }
    }
}

impl LoggedSession {
    /// `name` tells sessions apart; `host` is the other side.
    pub(crate) fn new(session: SmtpSession, log: &Arc<dyn Log>, name: impl FnOnce() -> String, host: &str) -> Self {
        let noted = log.wants_protocol().then(|| {
            Box::new(Noted { log: Arc::clone(log), tap: Tap::default(), name: name(), host: host.to_owned() })
        });
        Self { session, noted }
    }
}

impl Session for LoggedSession {
    type Query = Query;
    type Answer = Answer;

    fn on_bytes(&mut self, input: &[u8], now: Instant) -> usize {
        let used = self.session.on_bytes(input, now);
        if let Some(noted) = &mut self.noted {
            let lines = noted.tap.client(input.get(..used).unwrap_or_default());
            noted.note(true, lines);
        }
        used
    }
    fn on_end(&mut self, now: Instant) {
        self.session.on_end(now);
    }
    fn on_answer(&mut self, answer: Answer, now: Instant) {
        self.session.on_answer(answer, now);
    }
    fn on_tls(&mut self, now: Instant) {
        self.session.on_tls(now);
    }
    fn on_deadline(&mut self, now: Instant) {
        self.session.on_deadline(now);
    }
    fn deadline(&self) -> Option<Instant> {
        self.session.deadline()
    }
    fn on_change(&mut self, now: Instant) {
        self.session.on_change(now);
    }
    fn on_shutdown(&mut self, now: Instant) {
        self.session.on_shutdown(now);
    }
    fn next_output(&mut self) -> Option<Output<Query>> {
        let output = self.session.next_output();
        if let Some(noted) = &mut self.noted {
            match &output {
                Some(Output::Write(bytes)) => {
                    let lines = noted.tap.server(bytes);
                    noted.note(false, lines);
                }
                Some(Output::StartTls) => noted.tap.starts_tls(),
                Some(Output::Ask(_) | Output::Close) | None => {}
            }
        }
        output
    }
}
