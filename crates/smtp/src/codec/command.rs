//! One command line to a [`Command`] (RFC 5321 §4.1.1 and extensions).

use vocab::address::AddressFault;
use vocab::{ForwardPath, ReversePath};

use crate::codec::params::{MailParams, ParamFault, mail_params, rcpt_params};
use crate::codec::path::{forward_path, reverse_path};

/// A command of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// `EHLO`, with the name as given.
    Ehlo(String),
    /// `HELO`, with the name as given.
    Helo(String),
    /// `STARTTLS` (RFC 3207).
    StartTls,
    /// `AUTH mechanism [initial-response]` (RFC 4954).
    Auth {
        /// As written.
        mechanism: String,
        /// Still base64.
        initial: Option<String>,
    },
    /// `MAIL FROM:`.
    Mail(ReversePath, MailParams),
    /// `RCPT TO:`.
    Rcpt(ForwardPath),
    /// `DATA`.
    Data,
    /// `BDAT size [LAST]` (RFC 3030): that many octets follow, whatever the answer will be.
    Bdat {
        /// Octets of the chunk.
        size: u64,
        /// The message ends with it.
        last: bool,
    },
    /// `RSET`.
    Rset,
    /// `NOOP`.
    Noop,
    /// `VRFY`.
    Vrfy,
    /// `EXPN`.
    Expn,
    /// `HELP`.
    Help,
    /// `QUIT`.
    Quit,
}

/// Why a line is no command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// No such verb: 500 5.5.1.
    #[error("unknown command")]
    Unknown,
    /// Known verb, bad arguments: 501 5.5.4.
    #[error("syntax error in arguments")]
    Syntax,
    /// Not UTF-8, or a control character: 500 5.5.2.
    #[error("bad octets")]
    Octets,
    /// The reverse-path is none: 501 5.1.7.
    #[error("bad reverse-path: {0}")]
    ReversePath(AddressFault),
    /// The forward-path is none: 501 5.1.3.
    #[error("bad forward-path: {0}")]
    ForwardPath(AddressFault),
    /// Parameters of MAIL or RCPT.
    #[error("parameter: {0:?}")]
    Parameter(ParamFault),
}

/// Reads a line without its CRLF.
///
/// # Errors
/// [`Malformed`], each with the reply it causes.
pub fn parse(line: &[u8]) -> Result<Command, Malformed> {
    let text = std::str::from_utf8(line).map_err(|_| Malformed::Octets)?;
    if text.chars().any(|c| c.is_control() && c != '\t') {
        return Err(Malformed::Octets);
    }
    let text = text.trim_end_matches([' ', '\t']);
    let (verb, rest) = text.split_once([' ', '\t']).unwrap_or((text, ""));
    let rest = rest.trim_start_matches([' ', '\t']);
    let bare = |command| if rest.is_empty() { Ok(command) } else { Err(Malformed::Syntax) };
    match verb.to_ascii_uppercase().as_str() {
        "EHLO" => name(rest).map(Command::Ehlo),
        "HELO" => name(rest).map(Command::Helo),
        "STARTTLS" => bare(Command::StartTls),
        "AUTH" => auth(rest),
        "MAIL" => mail(rest),
        "RCPT" => rcpt(rest),
        "DATA" => bare(Command::Data),
        "BDAT" => bdat(rest),
        "RSET" => bare(Command::Rset),
        "NOOP" => Ok(Command::Noop),
        "VRFY" if rest.is_empty() => Err(Malformed::Syntax),
        "VRFY" => Ok(Command::Vrfy),
        "EXPN" => Ok(Command::Expn),
        "HELP" => Ok(Command::Help),
        "QUIT" => bare(Command::Quit),
        _ => Err(Malformed::Unknown),
    }
}

/// Whether the line asks for [`Command::Bdat`] though it is malformed: what follows cannot be told from commands.
#[must_use]
pub fn is_bdat(line: &[u8]) -> bool {
    line.get(..4).is_some_and(|verb| verb.eq_ignore_ascii_case(b"BDAT"))
}

/// Longest name in EHLO that is kept (RFC 5321 §4.5.3.1.2).
const NAME_BYTES_MAX: usize = 255;

/// Domain or address literal; what clients on laptops really send is any word, and nothing depends on it.
fn name(rest: &str) -> Result<String, Malformed> {
    let word = rest.split([' ', '\t']).next().unwrap_or("");
    let fits = |b: u8| b.is_ascii_graphic() && !b"()<>\"\\;@,".contains(&b);
    if word.is_empty() || word.len() > NAME_BYTES_MAX || !word.bytes().all(fits) {
        return Err(Malformed::Syntax);
    }
    Ok(word.to_owned())
}

fn auth(rest: &str) -> Result<Command, Malformed> {
    let mut words = rest.split_ascii_whitespace();
    let mechanism = words.next().ok_or(Malformed::Syntax)?.to_owned();
    let initial = words.next().map(ToOwned::to_owned);
    if words.next().is_some() {
        return Err(Malformed::Syntax);
    }
    Ok(Command::Auth { mechanism, initial })
}

/// `FROM:` or `TO:`; a space after the colon is tolerated (Outlook sends it).
fn after_keyword<'a>(rest: &'a str, keyword: &str) -> Result<&'a str, Malformed> {
    let (head, tail) = rest.split_once(':').ok_or(Malformed::Syntax)?;
    if !head.trim_end().eq_ignore_ascii_case(keyword) {
        return Err(Malformed::Syntax);
    }
    Ok(tail.trim_start())
}

fn mail(rest: &str) -> Result<Command, Malformed> {
    let (path, rest) = reverse_path(after_keyword(rest, "FROM")?).map_err(Malformed::ReversePath)?;
    let params = mail_params(rest).map_err(Malformed::Parameter)?;
    Ok(Command::Mail(path, params))
}

fn rcpt(rest: &str) -> Result<Command, Malformed> {
    let (path, rest) = forward_path(after_keyword(rest, "TO")?).map_err(Malformed::ForwardPath)?;
    rcpt_params(rest).map_err(Malformed::Parameter)?;
    Ok(Command::Rcpt(path))
}

fn bdat(rest: &str) -> Result<Command, Malformed> {
    let mut words = rest.split_ascii_whitespace();
    let size = words.next().filter(|w| w.bytes().all(|b| b.is_ascii_digit()) && w.len() <= 19);
    let size = size.and_then(|w| w.parse().ok()).ok_or(Malformed::Syntax)?;
    let last = match words.next() {
        None => false,
        Some(word) if word.eq_ignore_ascii_case("LAST") => true,
        Some(_) => return Err(Malformed::Syntax),
    };
    if words.next().is_some() {
        return Err(Malformed::Syntax);
    }
    Ok(Command::Bdat { size, last })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbs_without_regard_to_case() {
        for (line, command) in [
            ("ehlo a.example", Command::Ehlo("a.example".into())),
            ("HELO [127.0.0.1]", Command::Helo("[127.0.0.1]".into())),
            ("Quit ", Command::Quit),
            ("NOOP anything", Command::Noop),
            ("BDAT 12 last", Command::Bdat { size: 12, last: true }),
            ("AUTH PLAIN AGEAYg==", Command::Auth { mechanism: "PLAIN".into(), initial: Some("AGEAYg==".into()) }),
        ] {
            assert_eq!(parse(line.as_bytes()), Ok(command), "{line}");
        }
    }

    #[test]
    fn mail_and_rcpt_with_the_space_outlook_sends() {
        assert!(matches!(parse(b"MAIL FROM: <a@b.example> SIZE=10"), Ok(Command::Mail(_, p)) if p.size == Some(10)));
        assert!(matches!(parse(b"mail from:<>"), Ok(Command::Mail(ReversePath::Null, _))));
        assert!(matches!(parse(b"RCPT TO:<Postmaster>"), Ok(Command::Rcpt(ForwardPath::Postmaster))));
    }

    #[test]
    fn bad_lines() {
        for (line, fault) in [
            (&b""[..], Malformed::Unknown),
            (b"GET / HTTP/1.1", Malformed::Unknown),
            (b"EHLO", Malformed::Syntax),
            (b"EHLO <script>", Malformed::Syntax),
            (b"DATA now", Malformed::Syntax),
            (b"MAIL TO:<a@b.c>", Malformed::Syntax),
            (b"MAIL FROM:a@b.c", Malformed::ReversePath(AddressFault::Shape)),
            (b"RCPT TO:<>", Malformed::ForwardPath(AddressFault::Shape)),
            (b"RCPT TO:<nobody>", Malformed::ForwardPath(AddressFault::Shape)),
            (b"NOOP \xff", Malformed::Octets),
            (b"NOOP \x00", Malformed::Octets),
            (b"BDAT -1", Malformed::Syntax),
            (b"BDAT 99999999999999999999", Malformed::Syntax),
        ] {
            assert_eq!(parse(line), Err(fault), "{line:?}");
        }
    }
}
