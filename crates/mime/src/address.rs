//! Address lists as ENVELOPE wants them (RFC 9051 §7.5.2): encoded words stay as they are.

use crate::params::Cursor;

/// One address structure; a group begins with `host` none and ends with all none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mailbox {
    pub personal: Option<Vec<u8>>,
    pub route: Option<Vec<u8>>,
    pub local: Option<Vec<u8>>,
    pub host: Option<Vec<u8>>,
}

const STOPS: &[u8] = b"<>@,;:()\"";

/// Every address of a From, To, ... value, groups with their marks. Never fails: what is no address becomes the
/// local part of one without host name.
pub(crate) fn parse_list(value: &[u8]) -> Vec<Mailbox> {
    let mut cursor = Cursor::new(value);
    let mut found = Vec::new();
    let mut in_group = false;
    loop {
        let comment = cursor.skip_space();
        match cursor.peek() {
            None => break,
            Some(b',') => cursor.bump(),
            Some(b';') => {
                cursor.bump();
                if in_group {
                    found.push(Mailbox::default());
                }
                in_group = false;
            }
            Some(_) => match address(&mut cursor, comment, in_group) {
                Entry::Address(mailbox) => found.push(mailbox),
                Entry::Group(name) => {
                    in_group = true;
                    found.push(Mailbox { local: Some(name), ..Mailbox::default() });
                }
                Entry::Nothing => {}
            },
        }
    }
    if in_group {
        found.push(Mailbox::default());
    }
    found
}

enum Entry {
    Address(Mailbox),
    Group(Vec<u8>),
    Nothing,
}

fn address(cursor: &mut Cursor<'_>, comment: Option<Vec<u8>>, in_group: bool) -> Entry {
    let mut words: Vec<Vec<u8>> = Vec::new();
    let mut comment = comment;
    loop {
        comment = cursor.skip_space().or(comment);
        match cursor.peek() {
            Some(b'<') => {
                cursor.bump();
                let mut mailbox = angle(cursor);
                let after = cursor.skip_space().or(comment);
                let phrase = words.join(&b' ');
                mailbox.personal = if phrase.is_empty() { after } else { Some(phrase) };
                return Entry::Address(mailbox);
            }
            Some(b':') if !in_group => {
                cursor.bump();
                return Entry::Group(words.join(&b' '));
            }
            Some(b'@') => {
                cursor.bump();
                // `a . b @ c`: obsolete, spaces around dots do not count.
                let local = words.concat();
                let host = domain(cursor);
                let personal = cursor.skip_space().or(comment);
                return Entry::Address(Mailbox { personal, route: None, local: Some(local), host });
            }
            None | Some(b',' | b';') => {
                if words.is_empty() {
                    return Entry::Nothing;
                }
                let local = Some(words.join(&b' '));
                return Entry::Address(Mailbox { personal: comment, route: None, local, host: None });
            }
            Some(b'"') => words.push(cursor.quoted()),
            Some(b'>' | b')' | b':') => cursor.bump(),
            Some(_) => words.push(cursor.until(STOPS).to_vec()),
        }
    }
}

/// The inside of `<...>` with the bracket that closes it.
fn angle(cursor: &mut Cursor<'_>) -> Mailbox {
    let mut mailbox = Mailbox::default();
    let mut local = Vec::new();
    cursor.skip_space();
    if cursor.peek() == Some(b'@') {
        mailbox.route = Some(cursor.until(b":>").to_vec());
        cursor.take(b':');
    }
    loop {
        cursor.skip_space();
        match cursor.peek() {
            None => break,
            Some(b'>') => {
                cursor.bump();
                break;
            }
            Some(b'@') => {
                cursor.bump();
                mailbox.host = domain(cursor);
            }
            Some(b'"') => local.extend(cursor.quoted()),
            Some(b'<' | b',' | b';' | b':' | b'(' | b')') => cursor.bump(),
            Some(_) => local.extend(cursor.until(STOPS)),
        }
    }
    mailbox.local = Some(local);
    mailbox
}

fn domain(cursor: &mut Cursor<'_>) -> Option<Vec<u8>> {
    cursor.skip_space();
    let mut host = Vec::new();
    if cursor.peek() == Some(b'[') {
        host.extend(cursor.until(b"]>,;()\""));
        if cursor.take(b']') {
            host.push(b']');
        }
    } else {
        loop {
            let word = cursor.until(STOPS);
            host.extend(word);
            if word.is_empty() || !host.ends_with(b".") {
                break;
            }
            cursor.skip_space();
        }
    }
    (!host.is_empty()).then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(value: &str) -> Vec<String> {
        let text =
            |part: &Option<Vec<u8>>| part.as_ref().map_or("-".to_owned(), |p| String::from_utf8_lossy(p).into_owned());
        let one = |m: &Mailbox| [&m.personal, &m.route, &m.local, &m.host].map(text).join("|");
        parse_list(value.as_bytes()).iter().map(one).collect()
    }

    #[test]
    fn usual_forms() {
        assert_eq!(shown("a@b.c"), ["-|-|a|b.c"]);
        assert_eq!(shown("Joe Q. Public <joe@x.org>, <b@y>"), ["Joe Q. Public|-|joe|x.org", "-|-|b|y"]);
        assert_eq!(shown("\"a, b\" <c@d>"), ["a, b|-|c|d"]);
        assert_eq!(shown("=?utf-8?q?J=C3=B6?= <c@d>"), ["=?utf-8?q?J=C3=B6?=|-|c|d"]);
        assert_eq!(shown("c@d (Some One)"), ["Some One|-|c|d"]);
        assert_eq!(shown("\"a b\"@[127.0.0.1]"), ["-|-|a b|[127.0.0.1]"]);
        assert_eq!(shown("<@r1,@r2:a@b>"), ["-|@r1,@r2|a|b"]);
    }

    #[test]
    fn groups_and_broken_forms() {
        assert_eq!(shown("undisclosed-recipients:;"), ["-|-|undisclosed-recipients|-", "-|-|-|-"]);
        assert_eq!(shown("G: a@b, c@d; e@f"), ["-|-|G|-", "-|-|a|b", "-|-|c|d", "-|-|-|-", "-|-|e|f"]);
        assert_eq!(shown("nobody"), ["-|-|nobody|-"]);
        assert_eq!(shown(", ,"), Vec::<String>::new());
        assert_eq!(shown("<a@b"), ["-|-|a|b"]);
        assert_eq!(shown("a@@b").len(), 2);
        assert_eq!(shown("<>"), ["-|-||-"]);
    }
}
