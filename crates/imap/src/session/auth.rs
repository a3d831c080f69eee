//! LOGIN and AUTHENTICATE (RFC 3501 §6.2.2, §6.2.3, RFC 4959).

use sasl::{Credentials, Exchange, Mechanism, Step};

use super::{ImapSession, Pending, Phase, Query};
use crate::codec::assemble::Assembled;

impl ImapSession {
    pub(super) fn login(&mut self, tag: String, credentials: Credentials) {
        if !self.standing().may_login {
            return self.finish(&tag, "NO [PRIVACYREQUIRED] use STARTTLS first");
        }
        if credentials.login.len() > sasl::FIELD_BYTES_MAX || credentials.password.len() > sasl::FIELD_BYTES_MAX {
            return self.bad(&tag, "name or password too long");
        }
        self.ask(Query::Login(credentials), Pending::Login { tag });
    }

    pub(super) fn authenticate(&mut self, tag: String, mechanism: &str, initial: Option<&[u8]>) {
        if !self.standing().may_login {
            return self.finish(&tag, "NO [PRIVACYREQUIRED] use STARTTLS first");
        }
        let Some(mechanism) = Mechanism::parse(mechanism.as_bytes()) else {
            return self.finish(&tag, "NO [CANNOT] mechanism is not offered");
        };
        let (exchange, step) = Exchange::begin(mechanism, initial);
        self.on_step(tag, exchange, step);
    }

    pub(super) fn on_authentication_line(&mut self, event: Assembled) {
        let line = match event {
            Assembled::Command(line) => line,
            Assembled::Incomplete => return,
            _ => bytes::Bytes::from_static(b"="),
        };
        let Phase::Authenticating { tag, mut exchange } = std::mem::replace(&mut self.phase, Phase::Commands) else {
            return;
        };
        let step = exchange.on_line(&line);
        self.on_step(tag, exchange, step);
    }

    fn on_step(&mut self, tag: String, exchange: Exchange, step: Step) {
        match step {
            Step::Challenge(challenge) => {
                self.say(&format!("+ {challenge}\r\n"));
                self.phase = Phase::Authenticating { tag, exchange };
            }
            Step::Credentials(credentials) => self.login(tag, credentials),
            Step::Refused => {
                self.finish(&tag, "NO [AUTHORIZATIONFAILED] nobody may act as somebody else");
            }
            Step::Cancelled => self.bad(&tag, "AUTHENTICATE cancelled"),
            Step::Malformed => self.bad(&tag, "malformed response"),
        }
    }
}
