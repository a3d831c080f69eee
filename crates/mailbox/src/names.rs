//! Names of mailboxes: UTF-8 NFC, separator "/", INBOX without regard to case as first component (RFC 9051 §5.1).

use unicode_normalization::UnicodeNormalization as _;
use vocab::limits::{MAILBOX_DEPTH_MAX, MAILBOX_NAME_BYTES_MAX};

/// The name every account has.
pub const INBOX: &str = "INBOX";
/// Hierarchy separator; clients freeze it.
pub const SEPARATOR: char = '/';

/// The name as stored, or `None` when it cannot be kept: empty components, control characters, the LIST wildcards
/// `*` and `%`, too long or too deep. One trailing separator is dropped (RFC 9051 §6.3.4).
#[must_use]
pub fn normal_name(name: &str) -> Option<String> {
    let name: String = name.nfc().collect();
    let name = name.strip_suffix(SEPARATOR).unwrap_or(&name);
    let bad = |c: char| c.is_control() || matches!(c, '*' | '%' | '\u{2028}' | '\u{2029}' | '\u{feff}');
    if name.is_empty() || name.len() > MAILBOX_NAME_BYTES_MAX || name.contains(bad) {
        return None;
    }
    if name.split(SEPARATOR).count() > MAILBOX_DEPTH_MAX || name.split(SEPARATOR).any(str::is_empty) {
        return None;
    }
    let (first, rest) = name.split_once(SEPARATOR).map_or((name, None), |(first, rest)| (first, Some(rest)));
    if !first.eq_ignore_ascii_case(INBOX) {
        return Some(name.to_owned());
    }
    Some(rest.map_or_else(|| INBOX.to_owned(), |rest| format!("{INBOX}{SEPARATOR}{rest}")))
}

/// The superior names of a normal name, outermost first.
pub(crate) fn superiors(name: &str) -> impl Iterator<Item = &str> {
    name.match_indices(SEPARATOR).filter_map(|(at, _)| name.get(..at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_normalised() {
        assert_eq!(normal_name("inbox").as_deref(), Some("INBOX"));
        assert_eq!(normal_name("inBox/a/").as_deref(), Some("INBOX/a"));
        assert_eq!(normal_name("Inboxes").as_deref(), Some("Inboxes"));
        assert_eq!(normal_name("e\u{301}").as_deref(), Some("\u{e9}"));
    }

    #[test]
    fn names_we_cannot_keep() {
        for bad in ["", "/", "/a", "a//b", "a\u{0}", "a*", "a%b", "a\r\nb", &"x".repeat(1001), &"a/".repeat(40)] {
            assert_eq!(normal_name(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn superiors_come_outermost_first() {
        assert_eq!(superiors("a/b/c").collect::<Vec<_>>(), ["a", "a/b"]);
        assert_eq!(superiors("a").count(), 0);
    }
}
