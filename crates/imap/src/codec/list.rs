//! LIST, LSUB and STATUS (RFC 3501 §6.3.8-10, RFC 5258, RFC 5819, RFC 6154, RFC 7162 §3.1.7).

use crate::codec::parser::{Malformed, Parsed, Parser};
use crate::codec::utf7;

/// Patterns one LIST may have.
pub const PATTERNS_MAX: usize = 100;

/// LIST in either form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListCommand {
    /// Prefix of the patterns.
    pub reference: String,
    /// Patterns with `*` and `%`.
    pub patterns: Vec<String>,
    /// Only subscribed names, also those without mailbox.
    pub select_subscribed: bool,
    /// Only mailboxes with a special use.
    pub select_special_use: bool,
    /// Also parents of matches (CHILDINFO).
    pub recursive_match: bool,
    /// Show `\Subscribed`.
    pub return_subscribed: bool,
    /// STATUS of each mailbox.
    pub return_status: Vec<StatusItem>,
}

/// What STATUS tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusItem {
    /// MESSAGES
    Messages,
    /// RECENT: always 0
    Recent,
    /// UIDNEXT
    UidNext,
    /// UIDVALIDITY
    UidValidity,
    /// UNSEEN
    Unseen,
    /// DELETED (RFC 9051)
    Deleted,
    /// SIZE (RFC 8438)
    Size,
    /// HIGHESTMODSEQ: enables CONDSTORE
    HighestModSeq,
    /// MAILBOXID (RFC 8474)
    MailboxId,
}

impl StatusItem {
    /// Reads `(MESSAGES UNSEEN)`.
    ///
    /// # Errors
    /// When an item is unknown.
    pub fn parse_list(parser: &mut Parser<'_>) -> Parsed<Vec<Self>> {
        parser.list(|p| {
            Ok(match p.name()?.as_str() {
                "MESSAGES" => Self::Messages,
                "RECENT" => Self::Recent,
                "UIDNEXT" => Self::UidNext,
                "UIDVALIDITY" => Self::UidValidity,
                "UNSEEN" => Self::Unseen,
                "DELETED" => Self::Deleted,
                "SIZE" => Self::Size,
                "HIGHESTMODSEQ" => Self::HighestModSeq,
                "MAILBOXID" => Self::MailboxId,
                _ => return Err(Malformed("unknown STATUS item")),
            })
        })
    }
}

/// mailbox, decoded from modified UTF-7.
///
/// # Errors
/// When there is none or it is no text.
pub fn mailbox_name(parser: &mut Parser<'_>) -> Parsed<String> {
    utf7::decode(&parser.astring()?).ok_or(Malformed("mailbox name is no text"))
}

/// list-mailbox: an astring that may hold wildcards.
fn pattern(parser: &mut Parser<'_>) -> Parsed<String> {
    let raw = match parser.peek() {
        Some(b'"' | b'{') => parser.string()?,
        _ => {
            let word = parser.take_while(|b| b > 0x20 && b != 0x7f && !b"(){\"\\".contains(&b));
            if word.is_empty() {
                return Err(Malformed("mailbox pattern expected"));
            }
            bytes::Bytes::copy_from_slice(word)
        }
    };
    utf7::decode(&raw).ok_or(Malformed("mailbox pattern is no text"))
}

/// Reads what follows `LIST `.
///
/// # Errors
/// When it is malformed.
pub fn parse_list(parser: &mut Parser<'_>) -> Parsed<ListCommand> {
    let mut list = ListCommand::default();
    if parser.peek() == Some(b'(') {
        for option in parser.list(Parser::name)? {
            match option.as_str() {
                "SUBSCRIBED" => list.select_subscribed = true,
                "SPECIAL-USE" => list.select_special_use = true,
                "RECURSIVEMATCH" => list.recursive_match = true,
                "REMOTE" => {}
                _ => return Err(Malformed("unknown LIST selection option")),
            }
        }
        if list.recursive_match && !list.select_subscribed {
            return Err(Malformed("RECURSIVEMATCH needs another selection option"));
        }
        parser.space()?;
    }
    list.reference = mailbox_name(parser)?;
    parser.space()?;
    list.patterns = if parser.peek() == Some(b'(') { parser.list(pattern)? } else { vec![pattern(parser)?] };
    if list.patterns.len() > PATTERNS_MAX {
        return Err(Malformed("too many patterns"));
    }
    list.return_subscribed = list.select_subscribed;
    if parser.take_word(" RETURN ") {
        let mut status = Vec::new();
        let mut subscribed = false;
        parser.list(|p| {
            match p.name()?.as_str() {
                "SUBSCRIBED" => subscribed = true,
                "CHILDREN" | "SPECIAL-USE" => {}
                "STATUS" => {
                    p.space()?;
                    status = StatusItem::parse_list(p)?;
                }
                _ => return Err(Malformed("unknown LIST return option")),
            }
            Ok(())
        })?;
        list.return_subscribed |= subscribed;
        list.return_status = status;
    }
    Ok(list)
}

/// Reads what follows `LSUB `.
///
/// # Errors
/// When it is malformed.
pub fn parse_lsub(parser: &mut Parser<'_>) -> Parsed<ListCommand> {
    let reference = mailbox_name(parser)?;
    parser.space()?;
    Ok(ListCommand { reference, patterns: vec![pattern(parser)?], select_subscribed: true, ..ListCommand::default() })
}

/// Whether a name matches a pattern: `*` stands for anything, `%` for anything without separator. Runs in
/// (name length x pattern length) however many wildcards there are.
#[must_use]
pub fn matches_pattern(pattern: &str, name: &str) -> bool {
    let name: Vec<char> = name.chars().collect();
    // reached[i]: the pattern so far can end before name[i].
    let mut reached = vec![false; name.len() + 1];
    if let Some(first) = reached.first_mut() {
        *first = true;
    }
    for p in pattern.chars() {
        let mut next = vec![false; name.len() + 1];
        for (i, hit) in reached.iter().enumerate() {
            let c = name.get(i);
            match p {
                '*' | '%' => {
                    let from_left = i > 0
                        && next.get(i - 1) == Some(&true)
                        && (p == '*' || name.get(i - 1) != Some(&mailbox::names::SEPARATOR));
                    if let Some(place) = next.get_mut(i) {
                        *place = *hit || from_left;
                    }
                }
                p => {
                    if *hit
                        && c == Some(&p)
                        && let Some(place) = next.get_mut(i + 1)
                    {
                        *place = true;
                    }
                }
            }
        }
        reached = next;
    }
    reached.last() == Some(&true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn patterns() {
        for (pattern, name, hit) in [
            ("*", "a/b", true),
            ("%", "a/b", false),
            ("%", "a", true),
            ("a/%", "a/b", true),
            ("a/%", "a/b/c", false),
            ("a*c", "a/b/c", true),
            ("%/%", "a/b", true),
            ("*%*%*%*%*%*%x", &"a".repeat(500), false),
            ("", "", true),
            ("a", "A", false),
        ] {
            assert_eq!(matches_pattern(pattern, name), hit, "{pattern} {name}");
        }
    }

    #[test]
    fn forms_of_list() {
        let parse = |text: &'static str| {
            let bytes = Bytes::from_static(text.as_bytes());
            let mut parser = Parser::new(&bytes);
            let list = parse_list(&mut parser)?;
            parser.end().map(|()| list)
        };
        assert_eq!(parse("\"\" %").map(|l| l.patterns), Ok(vec!["%".to_owned()]));
        let full = "(SUBSCRIBED RECURSIVEMATCH) \"\" (\"a*\" %) RETURN (CHILDREN STATUS (MESSAGES UNSEEN))";
        let list = parse(full).expect("valid");
        assert!(list.select_subscribed && list.recursive_match && list.patterns.len() == 2);
        assert_eq!(list.return_status, [StatusItem::Messages, StatusItem::Unseen]);
        for bad in ["", "\"\"", "(FOO) \"\" *", "\"\" * RETURN (FOO)", "(RECURSIVEMATCH) \"\" *"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
