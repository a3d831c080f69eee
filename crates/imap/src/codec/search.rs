//! SEARCH keys (RFC 3501 §6.4.4, RFC 7162 §3.1.5).

use vocab::{Keyword, ModSeq, SystemFlag};

use crate::codec::date::Day;
use crate::codec::parser::{Malformed, Parsed, Parser, text_of};
use crate::codec::sequence::SequenceSet;

/// Nesting of NOT, OR and parentheses (iOS sends OR chains some dozens deep).
pub const DEPTH_MAX: usize = 100;
/// Keys of one SEARCH.
pub const KEYS_MAX: usize = 2_000;

/// How a number or day is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    /// BEFORE, SMALLER
    Below,
    /// ON
    Equal,
    /// SINCE (equal counts)
    From,
    /// LARGER
    Above,
}

/// One search key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// ALL
    All,
    /// Nothing matches: NEW, RECENT (no session is given `\Recent`).
    Nothing,
    /// All must match.
    And(Vec<Key>),
    /// OR
    Or(Box<(Key, Key)>),
    /// NOT
    Not(Box<Key>),
    /// A system flag.
    Flag(SystemFlag),
    /// KEYWORD
    Keyword(Keyword),
    /// A sequence set.
    Sequence(SequenceSet),
    /// UID set.
    Uid(SequenceSet),
    /// BEFORE, ON, SINCE
    Internal(Compare, Day),
    /// SENTBEFORE, SENTON, SENTSINCE
    Sent(Compare, Day),
    /// LARGER, SMALLER
    Size(Compare, u64),
    /// BCC, CC, FROM, TO, SUBJECT, HEADER: a field contains the text (lower case); empty text: the field exists.
    Header(String, String),
    /// BODY: text of the parts.
    Body(String),
    /// TEXT: header or text.
    Text(String),
    /// MODSEQ
    ModSeq(ModSeq),
    /// EMAILID
    EmailId(String),
    /// THREADID
    ThreadId(String),
}

/// SEARCH.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SearchCommand {
    /// UID SEARCH.
    pub by_uid: bool,
    /// What.
    pub key: Key,
}

/// Why a search cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SearchFault {
    /// BAD.
    Malformed(Malformed),
    /// `NO [BADCHARSET (US-ASCII UTF-8)]`.
    Charset,
}
impl From<Malformed> for SearchFault {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

/// Reads what follows `SEARCH `.
///
/// # Errors
/// When it is malformed or in a charset that is not known.
pub fn parse_search(parser: &mut Parser<'_>, by_uid: bool) -> Result<SearchCommand, SearchFault> {
    if parser.take_word("CHARSET ") {
        let charset = text_of(&parser.astring()?).to_ascii_uppercase();
        if !["US-ASCII", "UTF-8", "ASCII", "UTF8"].contains(&charset.as_str()) {
            return Err(SearchFault::Charset);
        }
        parser.space()?;
    }
    let mut left = KEYS_MAX;
    let mut keys = vec![parse_key(parser, DEPTH_MAX, &mut left)?];
    while parser.peek() == Some(b' ') {
        parser.space()?;
        if parser.rest().is_empty() {
            break;
        }
        keys.push(parse_key(parser, DEPTH_MAX, &mut left)?);
    }
    Ok(SearchCommand { by_uid, key: Key::And(keys) })
}

fn not(key: Key) -> Key {
    Key::Not(Box::new(key))
}

fn parse_key(parser: &mut Parser<'_>, depth: usize, left: &mut usize) -> Parsed<Key> {
    if depth == 0 || *left == 0 {
        return Err(Malformed("search too complex"));
    }
    *left -= 1;
    match parser.peek() {
        Some(b'(') => return parser.list(|p| parse_key(p, depth - 1, left)).map(Key::And),
        Some(b) if b.is_ascii_digit() || b == b'*' => return SequenceSet::parse(parser).map(Key::Sequence),
        _ => {}
    }
    let name = parser.name()?;
    Ok(match name.as_str() {
        "NOT" => {
            parser.space()?;
            not(parse_key(parser, depth - 1, left)?)
        }
        "OR" => {
            parser.space()?;
            let first = parse_key(parser, depth - 1, left)?;
            parser.space()?;
            Key::Or(Box::new((first, parse_key(parser, depth - 1, left)?)))
        }
        "UID" => {
            parser.space()?;
            Key::Uid(SequenceSet::parse(parser)?)
        }
        _ => match parse_flag_key(&name) {
            Some(key) => key,
            None => parse_key_with_value(parser, &name)?,
        },
    })
}

fn parse_flag_key(name: &str) -> Option<Key> {
    Some(match name {
        "ALL" | "OLD" => Key::All,
        "NEW" | "RECENT" => Key::Nothing,
        "ANSWERED" => Key::Flag(SystemFlag::Answered),
        "DELETED" => Key::Flag(SystemFlag::Deleted),
        "DRAFT" => Key::Flag(SystemFlag::Draft),
        "FLAGGED" => Key::Flag(SystemFlag::Flagged),
        "SEEN" => Key::Flag(SystemFlag::Seen),
        "UNANSWERED" => not(Key::Flag(SystemFlag::Answered)),
        "UNDELETED" => not(Key::Flag(SystemFlag::Deleted)),
        "UNDRAFT" => not(Key::Flag(SystemFlag::Draft)),
        "UNFLAGGED" => not(Key::Flag(SystemFlag::Flagged)),
        "UNSEEN" => not(Key::Flag(SystemFlag::Seen)),
        _ => return None,
    })
}

fn parse_key_with_value(parser: &mut Parser<'_>, name: &str) -> Parsed<Key> {
    parser.space()?;
    let text = |p: &mut Parser<'_>| p.astring().map(|t| text_of(&t).to_lowercase());
    Ok(match name {
        "KEYWORD" => Key::Keyword(keyword(parser)?),
        "UNKEYWORD" => not(Key::Keyword(keyword(parser)?)),
        "BEFORE" => Key::Internal(Compare::Below, Day::parse(parser)?),
        "ON" => Key::Internal(Compare::Equal, Day::parse(parser)?),
        "SINCE" => Key::Internal(Compare::From, Day::parse(parser)?),
        "SENTBEFORE" => Key::Sent(Compare::Below, Day::parse(parser)?),
        "SENTON" => Key::Sent(Compare::Equal, Day::parse(parser)?),
        "SENTSINCE" => Key::Sent(Compare::From, Day::parse(parser)?),
        "LARGER" => Key::Size(Compare::Above, parser.number()?),
        "SMALLER" => Key::Size(Compare::Below, parser.number()?),
        "BCC" | "CC" | "FROM" | "TO" | "SUBJECT" => Key::Header(name.to_ascii_lowercase(), text(parser)?),
        "HEADER" => {
            let field = text(parser)?;
            parser.space()?;
            Key::Header(field, text(parser)?)
        }
        "BODY" => Key::Body(text(parser)?),
        "TEXT" => Key::Text(text(parser)?),
        "EMAILID" => Key::EmailId(text(parser)?),
        "THREADID" => Key::ThreadId(text_of(&parser.astring()?)),
        "MODSEQ" => {
            // entry-name and entry-type are for annotations nobody has; the number is what counts.
            if parser.peek() == Some(b'"') {
                parser.string()?;
                parser.space()?;
                parser.name()?;
                parser.space()?;
            }
            Key::ModSeq(ModSeq(parser.number()?))
        }
        _ => return Err(Malformed("unknown search key")),
    })
}

fn keyword(parser: &mut Parser<'_>) -> Parsed<Keyword> {
    Keyword::new(parser.atom()?).ok_or(Malformed("bad keyword"))
}

impl Key {
    /// Whether `test` holds for this key or one inside.
    #[must_use]
    pub fn any(&self, test: &dyn Fn(&Self) -> bool) -> bool {
        let inside = match self {
            Self::And(keys) => keys.iter().any(|key| key.any(test)),
            Self::Or(pair) => pair.0.any(test) || pair.1.any(test),
            Self::Not(key) => key.any(test),
            _ => false,
        };
        inside || test(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn search(text: &str) -> Result<Key, SearchFault> {
        let bytes = Bytes::from(text.to_owned());
        let mut parser = Parser::new(&bytes);
        let search = parse_search(&mut parser, false)?;
        parser.end()?;
        Ok(search.key)
    }

    #[test]
    fn good_ones() {
        assert_eq!(search("ALL"), Ok(Key::And(vec![Key::All])));
        assert!(search("CHARSET utf-8 unseen FROM {2}\r\nÉa").is_err());
        assert_eq!(search("CHARSET UTF-8 FROM {3}\r\nÉa"), Ok(Key::And(vec![Key::Header("from".into(), "éa".into())])));
        let nested = search("OR (SEEN 1:3) NOT UID 5 SINCE 1-Jan-1970 MODSEQ \"/flags/\\\\draft\" all 7").expect("ok");
        assert!(nested.any(&|key| *key == Key::ModSeq(ModSeq(7))));
        assert!(search(&format!("{}ALL", "OR SEEN ".repeat(60))).is_ok());
    }

    #[test]
    fn bad_ones() {
        for bad in ["", "FOO", "OR SEEN", "NOT", "BEFORE x", "(SEEN", "SEEN)", "HEADER a", "KEYWORD \\x", "UID a"] {
            assert!(search(bad).is_err(), "{bad}");
        }
        assert_eq!(search("CHARSET KOI8-R ALL"), Err(SearchFault::Charset));
        assert!(search(&format!("{}ALL", "NOT ".repeat(100_000))).is_err());
        assert!(search(&format!("{}ALL", "(".repeat(100_000))).is_err());
    }
}
