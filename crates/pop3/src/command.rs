//! Commands of a client (RFC 1939 §5-7, RFC 2449 §5, RFC 2595 §4, RFC 5034 §4): one line each.

/// A message number; the first one is 1.
pub type Number = usize;

/// One command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command<'a> {
    /// `USER name`
    User(&'a str),
    /// `PASS string`; blanks belong to the password.
    Pass(&'a str),
    /// `AUTH mechanism [initial-response]`
    Auth(&'a [u8], Option<&'a [u8]>),
    /// `AUTH` alone, the probe of Outlook: names the mechanisms.
    AuthList,
    /// `STLS`
    Stls,
    /// `CAPA`
    Capa,
    /// `STAT`
    Stat,
    /// `LIST [msg]`
    List(Option<Number>),
    /// `UIDL [msg]`
    Uidl(Option<Number>),
    /// `RETR msg`
    Retr(Number),
    /// `TOP msg n`
    Top(Number, u64),
    /// `DELE msg`
    Dele(Number),
    /// `NOOP`
    Noop,
    /// `RSET`
    Rset,
    /// `QUIT`
    Quit,
}

/// Why a line is no command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// No such command.
    Unknown,
    /// The arguments are wrong.
    Arguments,
}

impl<'a> Command<'a> {
    /// Parses a line without its line end.
    ///
    /// # Errors
    /// [`Malformed`]: answer -ERR.
    pub fn parse(line: &'a [u8]) -> Result<Self, Malformed> {
        let end = line.iter().position(|b| *b == b' ').unwrap_or(line.len());
        let (keyword, rest) = line.split_at(end);
        let argument = rest.strip_prefix(b" ").unwrap_or_default();
        // The password may hold blanks, also at its ends.
        if keyword.eq_ignore_ascii_case(b"PASS") {
            return text(argument).map(Self::Pass);
        }
        let words: Vec<&[u8]> = argument.split(|b| *b == b' ').filter(|word| !word.is_empty()).collect();
        match (keyword.to_ascii_uppercase().as_slice(), words.as_slice()) {
            (b"USER", [_, ..]) => text(argument.trim_ascii()).map(Self::User),
            (b"AUTH", []) => Ok(Self::AuthList),
            (b"AUTH", [mechanism]) => Ok(Self::Auth(mechanism, None)),
            (b"AUTH", [mechanism, initial]) => Ok(Self::Auth(mechanism, Some(initial))),
            (b"STLS", []) => Ok(Self::Stls),
            (b"CAPA", []) => Ok(Self::Capa),
            (b"STAT", []) => Ok(Self::Stat),
            (b"LIST", []) => Ok(Self::List(None)),
            (b"LIST", [message]) => number(message).map(|n| Self::List(Some(n))),
            (b"UIDL", []) => Ok(Self::Uidl(None)),
            (b"UIDL", [message]) => number(message).map(|n| Self::Uidl(Some(n))),
            (b"RETR", [message]) => number(message).map(Self::Retr),
            (b"TOP", [message, lines]) => Ok(Self::Top(number(message)?, count(lines)?)),
            (b"DELE", [message]) => number(message).map(Self::Dele),
            (b"NOOP", []) => Ok(Self::Noop),
            (b"RSET", []) => Ok(Self::Rset),
            (b"QUIT", []) => Ok(Self::Quit),
            (known, _) if KEYWORDS.contains(&known) => Err(Malformed::Arguments),
            _ => Err(Malformed::Unknown),
        }
    }
}

const KEYWORDS: [&[u8]; 13] = [
    b"USER", b"AUTH", b"STLS", b"CAPA", b"STAT", b"LIST", b"UIDL", b"RETR", b"TOP", b"DELE", b"NOOP", b"RSET", b"QUIT",
];

fn text(bytes: &[u8]) -> Result<&str, Malformed> {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.is_empty() && !text.contains('\0') => Ok(text),
        _ => Err(Malformed::Arguments),
    }
}

fn count(bytes: &[u8]) -> Result<u64, Malformed> {
    let digits = bytes.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(bytes).ok().filter(|_| digits);
    text.and_then(|t| t.parse().ok()).ok_or(Malformed::Arguments)
}

fn number(bytes: &[u8]) -> Result<Number, Malformed> {
    match usize::try_from(count(bytes)?) {
        Ok(n) if n > 0 => Ok(n),
        _ => Err(Malformed::Arguments),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read() {
        let parse = |line: &'static str| Command::parse(line.as_bytes());
        assert_eq!(parse("user bob@example.org"), Ok(Command::User("bob@example.org")));
        assert_eq!(parse("PASS two words "), Ok(Command::Pass("two words ")));
        assert_eq!(parse("AUTH "), Ok(Command::AuthList));
        assert_eq!(parse("AUTH PLAIN"), Ok(Command::Auth(b"PLAIN", None)));
        assert_eq!(parse("Top 3 0"), Ok(Command::Top(3, 0)));
        assert_eq!(parse("STAT "), Ok(Command::Stat));
        for bad in ["RETR", "RETR 0", "RETR -1", "RETR +1", "RETR 1 2", "LIST x", "TOP 1", "PASS ", "USER", "QUIT now"]
        {
            assert_eq!(
                Command::parse(bad.as_bytes()).err().map(|e| e != Malformed::Unknown || bad == "PASS "),
                Some(true)
            );
        }
        assert_eq!(parse("XTND XMIT"), Err(Malformed::Unknown));
        assert_eq!(parse(""), Err(Malformed::Unknown));
        assert_eq!(parse("RETR 99999999999999999999999"), Err(Malformed::Arguments));
    }
}
