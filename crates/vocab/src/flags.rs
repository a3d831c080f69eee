//! Message flags (RFC 9051 §2.3.2): five system flags and keywords. `\Recent` is a session's business.

use std::collections::BTreeSet;

use crate::limits;

/// A system flag as a bit of [`Flags::system`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum SystemFlag {
    /// `\Seen`
    Seen = 1,
    /// `\Answered`
    Answered = 2,
    /// `\Flagged`
    Flagged = 4,
    /// `\Deleted`
    Deleted = 8,
    /// `\Draft`
    Draft = 16,
}

impl SystemFlag {
    /// All, in the order they are written to clients.
    pub const ALL: [Self; 5] = [Self::Answered, Self::Flagged, Self::Deleted, Self::Seen, Self::Draft];

    /// The protocol name with its backslash.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Seen => "\\Seen",
            Self::Answered => "\\Answered",
            Self::Flagged => "\\Flagged",
            Self::Deleted => "\\Deleted",
            Self::Draft => "\\Draft",
        }
    }
    /// By protocol name, without regard to case.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|flag| flag.name().eq_ignore_ascii_case(name))
    }
}

/// A keyword: an IMAP atom, compared without regard to ASCII case, kept as first written.
#[derive(Clone, Debug, Eq)]
pub struct Keyword(String);

impl Keyword {
    /// `None` unless an atom (RFC 9051 §9) of at most `KEYWORD_BYTES_MAX` bytes.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let atom = |b: u8| b > 0x20 && b < 0x7f && !b"(){%*\"\\]".contains(&b);
        (!text.is_empty() && text.len() <= limits::KEYWORD_BYTES_MAX && text.bytes().all(atom))
            .then(|| Self(text.to_owned()))
    }
    /// As written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
impl PartialEq for Keyword {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }
}
impl PartialOrd for Keyword {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Keyword {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let lower = |b: u8| b.to_ascii_lowercase();
        self.0.bytes().map(lower).cmp(other.0.bytes().map(lower))
    }
}

/// The flags of one placement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// Bits of [`SystemFlag`].
    pub system: u8,
    /// Keywords, at most `KEYWORDS_MAX`.
    pub keywords: BTreeSet<Keyword>,
}

impl Flags {
    /// Just these system flags.
    #[must_use]
    pub fn of(flags: &[SystemFlag]) -> Self {
        Self { system: flags.iter().fold(0, |bits, flag| bits | *flag as u8), keywords: BTreeSet::new() }
    }
    /// Whether the system flag is set.
    #[must_use]
    pub const fn has(&self, flag: SystemFlag) -> bool {
        self.system & flag as u8 != 0
    }
    /// With all of `other` added.
    #[must_use]
    pub fn with(&self, other: &Self) -> Self {
        Self { system: self.system | other.system, keywords: self.keywords.union(&other.keywords).cloned().collect() }
    }
    /// With all of `other` removed.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        Self {
            system: self.system & !other.system,
            keywords: self.keywords.difference(&other.keywords).cloned().collect(),
        }
    }
    /// Protocol names, system flags first.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        SystemFlag::ALL
            .into_iter()
            .filter(|flag| self.has(*flag))
            .map(|flag| flag.name() as &str)
            .chain(self.keywords.iter().map(Keyword::as_str))
    }
}
