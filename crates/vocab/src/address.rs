//! Addresses and paths (RFC 5321 §4.1.2, RFC 6531): local part at domain, domains as A-labels in lower case.

use std::fmt;

use unicode_normalization::UnicodeNormalization as _;

/// Longest local part taken (RFC 5321 §4.5.3.1.1 says 64 octets; UTF-8 counts as octets).
pub const LOCAL_PART_BYTES_MAX: usize = 64;
/// Longest domain (RFC 5321 §4.5.3.1.2).
pub const DOMAIN_BYTES_MAX: usize = 255;

/// Why a text is no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressFault {
    /// No `@`, or nothing on one side of it.
    #[error("no local part at domain")]
    Shape,
    /// The local part is neither a dot-string nor a quoted string, or too long.
    #[error("bad local part")]
    LocalPart,
    /// The domain is no domain name and no address literal, or too long.
    #[error("bad domain")]
    Domain,
}

/// A domain name as A-labels in lower case without trailing dot, or an address literal `[...]`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Domain(String);

impl Domain {
    /// From user or wire text (U-labels are converted).
    ///
    /// # Errors
    /// [`AddressFault::Domain`] when it is none.
    pub fn parse(text: &str) -> Result<Self, AddressFault> {
        let text = text.strip_suffix('.').unwrap_or(text);
        if text.starts_with('[') && text.ends_with(']') && text.len() > 2 && text.len() <= DOMAIN_BYTES_MAX {
            let inner = &text[1..text.len() - 1];
            let plain = inner.strip_prefix("IPv6:").unwrap_or(inner);
            return match plain.parse::<std::net::IpAddr>() {
                Ok(ip) => Ok(Self(format!("[{ip}]"))),
                Err(_) => Err(AddressFault::Domain),
            };
        }
        let ascii = idna::domain_to_ascii_strict(text).map_err(|_| AddressFault::Domain)?;
        let label = |l: &str| {
            !l.is_empty()
                && l.len() <= 63
                && !l.starts_with('-')
                && !l.ends_with('-')
                && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        if ascii.is_empty() || ascii.len() > DOMAIN_BYTES_MAX || !ascii.split('.').all(label) {
            return Err(AddressFault::Domain);
        }
        Ok(Self(ascii.to_ascii_lowercase()))
    }
    /// A-labels.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
    /// Whether it is an address literal.
    #[must_use]
    pub fn is_literal(&self) -> bool {
        self.0.starts_with('[')
    }
}
impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A local part, unquoted, NFC; compared for own domains without regard to case through [`LocalPart::folded`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LocalPart(String);

impl LocalPart {
    /// From wire text: a dot-string or a quoted string, UTF-8 allowed.
    ///
    /// # Errors
    /// [`AddressFault::LocalPart`] when it is none or too long.
    pub fn parse(text: &str) -> Result<Self, AddressFault> {
        let bad = Err(AddressFault::LocalPart);
        // Quotes and backslashes do not count towards the length.
        if text.is_empty() || text.len() > 2 * LOCAL_PART_BYTES_MAX + 2 {
            return bad;
        }
        let plain = match text.strip_prefix('"') {
            Some(rest) => match unquote(rest) {
                Some(plain) => plain,
                None => return bad,
            },
            None if is_dot_string(text) => text.to_owned(),
            None => return bad,
        };
        let plain: String = plain.nfc().collect();
        if plain.is_empty() || plain.len() > LOCAL_PART_BYTES_MAX {
            return bad;
        }
        Ok(Self(plain))
    }
    /// Unquoted text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
    /// Lower case, without "+detail": the key for own accounts and aliases.
    #[must_use]
    pub fn folded(&self) -> String {
        let lower = self.0.to_lowercase();
        match lower.split_once('+') {
            Some((base, _)) if !base.is_empty() => base.to_owned(),
            _ => lower,
        }
    }
}

fn is_atext(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c) || (!c.is_ascii() && !c.is_control())
}

fn is_dot_string(text: &str) -> bool {
    text.split('.').all(|atom| !atom.is_empty() && atom.chars().all(is_atext))
}

fn unquote(rest: &str) -> Option<String> {
    let mut out = String::new();
    let mut chars = rest.chars();
    loop {
        match chars.next()? {
            '"' => return chars.next().is_none().then_some(out),
            '\\' => out.push(chars.next().filter(|c| (' '..='~').contains(c))?),
            c if c == '\t' || c.is_control() => return None,
            c => out.push(c),
        }
    }
}

/// Writes the dot-string, or a quoted string where it must be one.
impl fmt::Display for LocalPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if is_dot_string(&self.0) {
            return f.write_str(&self.0);
        }
        f.write_str("\"")?;
        for c in self.0.chars() {
            if c == '"' || c == '\\' {
                f.write_str("\\")?;
            }
            write!(f, "{c}")?;
        }
        f.write_str("\"")
    }
}

/// Local part at domain (RFC 5321 calls it Mailbox).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// Left of the `@`.
    pub local: LocalPart,
    /// Right of the `@`.
    pub domain: Domain,
}

impl Address {
    /// From wire or user text.
    ///
    /// # Errors
    /// Says which part is bad.
    pub fn parse(text: &str) -> Result<Self, AddressFault> {
        let (local, domain) = text.rsplit_once('@').ok_or(AddressFault::Shape)?;
        Ok(Self { local: LocalPart::parse(local)?, domain: Domain::parse(domain)? })
    }
    /// Whether it can be written without SMTPUTF8.
    #[must_use]
    pub fn is_ascii(&self) -> bool {
        self.local.as_str().is_ascii()
    }
}
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.local, self.domain)
    }
}

/// RFC 5321 reverse-path: where failures are reported; null for reports themselves.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReversePath {
    /// `<>`: never answered with a bounce.
    Null,
    /// An address.
    Address(Address),
}
impl ReversePath {
    /// The address, unless null.
    #[must_use]
    pub const fn address(&self) -> Option<&Address> {
        match self {
            Self::Null => None,
            Self::Address(address) => Some(address),
        }
    }
}
/// With angle brackets, as in `MAIL FROM:` and Return-Path.
impl fmt::Display for ReversePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("<>"),
            Self::Address(address) => write!(f, "<{address}>"),
        }
    }
}

/// RFC 5321 forward-path: one recipient. `Postmaster` without domain is always taken (§4.5.1).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ForwardPath {
    /// `<postmaster>` without a domain.
    Postmaster,
    /// An address.
    Address(Address),
}
impl fmt::Display for ForwardPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Postmaster => f.write_str("<postmaster>"),
            Self::Address(address) => write!(f, "<{address}>"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_good_and_bad() {
        for good in ["a@b.example", "\"a b\"@b.example", "a+x@B.Example.", "é@exämple.org", "x@[127.0.0.1]"] {
            assert!(Address::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "a", "@b", "a@", ".a@b", "a..b@c", "a b@c", "a@-b.c", "a@b..c", "\"a@b", "a@[nope]"] {
            assert!(Address::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn folding_drops_case_and_detail() {
        assert_eq!(LocalPart::parse("Bob+News").map(|l| l.folded()).as_deref(), Ok("bob"));
        assert_eq!(LocalPart::parse("+x").map(|l| l.folded()).as_deref(), Ok("+x"));
    }

    #[test]
    fn quoting_is_written_where_needed() {
        let address = Address::parse("\"a\\\"b c\"@x.org").expect("valid");
        assert_eq!(address.to_string(), "\"a\\\"b c\"@x.org");
    }
}
