//! SASL mechanism exchanges as pure machines: PLAIN (RFC 4616) and LOGIN (an old habit of Outlook, never standardised).
//!
//! The exchange knows base64 and the order of messages, nothing of SMTP, IMAP or POP3: the session frames a
//! [`Step::Challenge`] as `334 `, `+ ` and feeds lines back. Checking the password is the caller's business.
//! Limits: [`LINE_BYTES_MAX`] per line, [`FIELD_BYTES_MAX`] per login name or password; above them the step is
//! [`Step::Malformed`].

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};

/// Longest base64 line of a client (RFC 4954 §4 asks for 12,288 octets to be taken).
pub const LINE_BYTES_MAX: usize = 12_288;
/// Longest login name or password in bytes (RFC 4616 §2 asks for 255 at least).
pub const FIELD_BYTES_MAX: usize = 1024;

const ENGINE: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(base64::engine::DecodePaddingMode::Indifferent),
);

/// A mechanism that is offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// RFC 4616.
    Plain,
    /// User name and password in two lines.
    Login,
}

impl Mechanism {
    /// All, in the order they are announced.
    pub const ALL: [Self; 2] = [Self::Plain, Self::Login];

    /// By name, without regard to case; `None` for mechanisms that are not offered (SMTP 504 5.5.4).
    #[must_use]
    pub fn parse(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|m| m.name().as_bytes().eq_ignore_ascii_case(name))
    }
    /// As announced.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::Login => "LOGIN",
        }
    }
}

/// What a client said it is; the password is never shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Login name.
    pub login: String,
    /// Password as typed.
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("login", &self.login).finish_non_exhaustive()
    }
}

/// What comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Send this base64 text (it may be empty) as the challenge, then feed the client's next line.
    Challenge(&'static str),
    /// Complete: check these.
    Credentials(Credentials),
    /// Complete, but it asks to act as somebody else, which nobody may: answer as for a wrong password.
    Refused,
    /// The client sent `*` (SMTP 501 5.0.0, IMAP BAD, POP3 -ERR). The exchange is over.
    Cancelled,
    /// No base64, no UTF-8, the wrong shape or too long (SMTP 501 5.5.2, IMAP BAD). The exchange is over.
    Malformed,
}

/// One exchange from `AUTH` to its end.
#[derive(Debug)]
pub struct Exchange {
    mechanism: Mechanism,
    login: Option<String>,
}

/// `Username:` in base64.
const ASK_LOGIN: &str = "VXNlcm5hbWU6";
/// `Password:` in base64.
const ASK_PASSWORD: &str = "UGFzc3dvcmQ6";

impl Exchange {
    /// Begins, with the initial response if the command carried one (`=` stands for an empty one, RFC 4954 §4).
    #[must_use]
    pub fn begin(mechanism: Mechanism, initial: Option<&[u8]>) -> (Self, Step) {
        let mut exchange = Self { mechanism, login: None };
        let step = match (initial, mechanism) {
            (Some(b"="), _) => exchange.on_response(Vec::new()),
            (Some(response), _) => exchange.on_line(response),
            (None, Mechanism::Plain) => Step::Challenge(""),
            (None, Mechanism::Login) => Step::Challenge(ASK_LOGIN),
        };
        (exchange, step)
    }

    /// The client's next line, without its CRLF.
    #[must_use]
    pub fn on_line(&mut self, line: &[u8]) -> Step {
        if line == b"*" {
            return Step::Cancelled;
        }
        if line.len() > LINE_BYTES_MAX {
            return Step::Malformed;
        }
        match ENGINE.decode(line) {
            Ok(response) => self.on_response(response),
            Err(_) => Step::Malformed,
        }
    }

    fn on_response(&mut self, response: Vec<u8>) -> Step {
        let Ok(text) = String::from_utf8(response) else { return Step::Malformed };
        match self.mechanism {
            Mechanism::Plain => plain(&text),
            Mechanism::Login => self.login_step(text),
        }
    }

    fn login_step(&mut self, text: String) -> Step {
        if text.len() > FIELD_BYTES_MAX || text.contains('\0') {
            return Step::Malformed;
        }
        match self.login.take() {
            None if text.is_empty() => Step::Malformed,
            None => {
                self.login = Some(text);
                Step::Challenge(ASK_PASSWORD)
            }
            Some(login) => Step::Credentials(Credentials { login, password: text }),
        }
    }
}

/// message = [authzid] NUL authcid NUL passwd (RFC 4616 §2).
fn plain(text: &str) -> Step {
    let mut fields = text.split('\0');
    let (Some(authorize_as), Some(login), Some(password), None) =
        (fields.next(), fields.next(), fields.next(), fields.next())
    else {
        return Step::Malformed;
    };
    if login.is_empty() || [authorize_as, login, password].iter().any(|f| f.len() > FIELD_BYTES_MAX) {
        return Step::Malformed;
    }
    if !authorize_as.is_empty() && authorize_as != login {
        return Step::Refused;
    }
    Step::Credentials(Credentials { login: login.to_owned(), password: password.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(login: &str, password: &str) -> Step {
        Step::Credentials(Credentials { login: login.into(), password: password.into() })
    }

    #[test]
    fn plain_with_and_without_initial_response() {
        let line = ENGINE.encode("\0anna\0geheim");
        assert_eq!(Exchange::begin(Mechanism::Plain, Some(line.as_bytes())).1, credentials("anna", "geheim"));
        let (mut exchange, step) = Exchange::begin(Mechanism::Plain, None);
        assert_eq!(step, Step::Challenge(""));
        assert_eq!(exchange.on_line(line.as_bytes()), credentials("anna", "geheim"));
        let same = ENGINE.encode("anna\0anna\0p");
        assert_eq!(Exchange::begin(Mechanism::Plain, Some(same.as_bytes())).1, credentials("anna", "p"));
    }

    #[test]
    fn plain_refuses_acting_as_somebody_else() {
        let line = ENGINE.encode("boss\0anna\0geheim");
        assert_eq!(Exchange::begin(Mechanism::Plain, Some(line.as_bytes())).1, Step::Refused);
    }

    #[test]
    fn login_asks_for_name_and_password() {
        let (mut exchange, step) = Exchange::begin(Mechanism::Login, None);
        assert_eq!(step, Step::Challenge(ASK_LOGIN));
        assert_eq!(exchange.on_line(ENGINE.encode("anna").as_bytes()), Step::Challenge(ASK_PASSWORD));
        assert_eq!(exchange.on_line(ENGINE.encode("geheim").as_bytes()), credentials("anna", "geheim"));
        // Outlook for Mac sends the name with the command.
        let (_, step) = Exchange::begin(Mechanism::Login, Some(ENGINE.encode("anna").as_bytes()));
        assert_eq!(step, Step::Challenge(ASK_PASSWORD));
    }

    #[test]
    fn cancel_and_rubbish() {
        let (mut exchange, _) = Exchange::begin(Mechanism::Login, None);
        assert_eq!(exchange.on_line(b"*"), Step::Cancelled);
        for bad in [&b"!"[..], b"AA", b"////", b"", &[b'A'; LINE_BYTES_MAX + 4]] {
            assert_eq!(Exchange::begin(Mechanism::Plain, Some(bad)).1, Step::Malformed, "{bad:?}");
        }
        assert_eq!(Exchange::begin(Mechanism::Plain, Some(b"=")).1, Step::Malformed);
        let long = ENGINE.encode(format!("\0{}\0p", "a".repeat(FIELD_BYTES_MAX + 1)));
        assert_eq!(Exchange::begin(Mechanism::Plain, Some(long.as_bytes())).1, Step::Malformed);
    }

    #[test]
    fn debug_hides_the_password() {
        assert!(!format!("{:?}", credentials("anna", "geheim")).contains("geheim"));
    }

    proptest::proptest! {
        #[test]
        fn any_lines_are_survived(lines: Vec<Vec<u8>>, login: bool) {
            let mechanism = if login { Mechanism::Login } else { Mechanism::Plain };
            let (mut exchange, _) = Exchange::begin(mechanism, None);
            for line in lines {
                let _ = exchange.on_line(&line);
            }
        }
    }
}
