//! Commands: tag, name, arguments (RFC 3501 §6).

use bytes::Bytes;
use mailbox::op::Role;

use crate::codec::append::{AppendCommand, parse_append};
use crate::codec::fetch::{FetchCommand, StoreCommand, parse_fetch, parse_store};
use crate::codec::list::{ListCommand, StatusItem, mailbox_name, parse_list, parse_lsub};
use crate::codec::parser::{Malformed, Parsed, Parser, is_atom_byte, text_of};
use crate::codec::search::{SearchCommand, SearchFault, parse_search};
use crate::codec::sequence::SequenceSet;

/// Longest tag.
pub const TAG_BYTES_MAX: usize = 64;
/// Pairs of ID (RFC 2971 §3.3).
pub const ID_PAIRS_MAX: usize = 30;

/// COPY or MOVE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyCommand {
    /// Which messages.
    pub set: SequenceSet,
    /// UID form.
    pub by_uid: bool,
    /// Where to.
    pub mailbox: String,
}

/// A command without its tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// CAPABILITY
    Capability,
    /// NOOP and CHECK
    Noop(&'static str),
    /// LOGOUT
    Logout,
    /// STARTTLS
    StartTls,
    /// LOGIN
    Login {
        /// Name.
        login: String,
        /// Password.
        password: String,
    },
    /// AUTHENTICATE (RFC 4959 initial response)
    Authenticate {
        /// Mechanism in capitals.
        mechanism: String,
        /// Initial response.
        initial: Option<Bytes>,
    },
    /// ENABLE
    Enable(Vec<String>),
    /// ID
    Id,
    /// NAMESPACE
    Namespace,
    /// SELECT and EXAMINE
    Select {
        /// Name.
        mailbox: String,
        /// EXAMINE.
        read_only: bool,
        /// CONDSTORE parameter.
        condstore: bool,
    },
    /// CREATE
    Create {
        /// Name.
        mailbox: String,
        /// USE (RFC 6154 §3).
        role: Option<Role>,
    },
    /// DELETE
    Delete(String),
    /// RENAME
    Rename(String, String),
    /// SUBSCRIBE and UNSUBSCRIBE
    Subscribe(String, bool),
    /// LIST
    List(ListCommand),
    /// LSUB
    Lsub(ListCommand),
    /// STATUS
    Status(String, Vec<StatusItem>),
    /// APPEND
    Append(AppendCommand),
    /// IDLE
    Idle,
    /// CLOSE
    Close,
    /// UNSELECT
    Unselect,
    /// EXPUNGE, UID EXPUNGE
    Expunge(Option<SequenceSet>),
    /// SEARCH
    Search(SearchCommand),
    /// SEARCH in a charset that is not known
    SearchCharset,
    /// FETCH
    Fetch(FetchCommand),
    /// STORE
    Store(StoreCommand),
    /// COPY
    Copy(CopyCommand),
    /// MOVE
    Move(CopyCommand),
}

/// Takes the tag off a collected command; `None` when there is none.
#[must_use]
pub fn split_tag(input: &Bytes) -> Option<(String, Bytes)> {
    let end = input.iter().position(|b| *b == b' ').unwrap_or(input.len());
    let tag = input.get(..end)?;
    let good = !tag.is_empty() && tag.len() <= TAG_BYTES_MAX && tag.iter().all(|b| is_atom_byte(*b) && *b != b'+');
    good.then(|| (String::from_utf8_lossy(tag).into_owned(), input.slice((end + 1).min(input.len())..)))
}

/// Reads a command after its tag.
///
/// # Errors
/// When it is unknown or malformed.
pub fn parse_command(input: &Bytes) -> Parsed<Command> {
    let mut parser = Parser::new(input);
    while parser.take(b' ') {}
    let mut name = parser.name()?;
    let by_uid = name == "UID";
    if by_uid {
        parser.space()?;
        name = parser.name()?;
    }
    let command = match parse_bare(&name).filter(|_| !by_uid) {
        Some(command) => command,
        None if name == "EXPUNGE" && by_uid => {
            parser.space()?;
            Command::Expunge(Some(SequenceSet::parse(&mut parser)?))
        }
        None if ["FETCH", "STORE", "SEARCH", "COPY", "MOVE"].contains(&name.as_str()) => {
            parser.space()?;
            match parse_message_command(&mut parser, &name, by_uid)? {
                Command::SearchCharset => return Ok(Command::SearchCharset),
                command => command,
            }
        }
        None if by_uid => return Err(Malformed("unknown command")),
        None => parse_with_arguments(&mut parser, &name)?,
    };
    parser.end()?;
    Ok(command)
}

fn parse_bare(name: &str) -> Option<Command> {
    Some(match name {
        "CAPABILITY" => Command::Capability,
        "NOOP" => Command::Noop("NOOP"),
        "CHECK" => Command::Noop("CHECK"),
        "LOGOUT" => Command::Logout,
        "STARTTLS" => Command::StartTls,
        "NAMESPACE" => Command::Namespace,
        "IDLE" => Command::Idle,
        "CLOSE" => Command::Close,
        "UNSELECT" => Command::Unselect,
        "EXPUNGE" => Command::Expunge(None),
        _ => return None,
    })
}

fn parse_message_command(parser: &mut Parser<'_>, name: &str, by_uid: bool) -> Parsed<Command> {
    let copy = |parser: &mut Parser<'_>| {
        let set = SequenceSet::parse(parser)?;
        parser.space()?;
        Ok(CopyCommand { set, by_uid, mailbox: mailbox_name(parser)? })
    };
    Ok(match name {
        "FETCH" => Command::Fetch(parse_fetch(parser, by_uid)?),
        "STORE" => Command::Store(parse_store(parser, by_uid)?),
        "COPY" => Command::Copy(copy(parser)?),
        "MOVE" => Command::Move(copy(parser)?),
        _ => match parse_search(parser, by_uid) {
            Ok(search) => Command::Search(search),
            Err(SearchFault::Charset) => Command::SearchCharset,
            Err(SearchFault::Malformed(malformed)) => return Err(malformed),
        },
    })
}

fn parse_with_arguments(parser: &mut Parser<'_>, name: &str) -> Parsed<Command> {
    const KNOWN: [&str; 16] = [
        "LOGIN",
        "AUTHENTICATE",
        "ENABLE",
        "ID",
        "SELECT",
        "EXAMINE",
        "CREATE",
        "DELETE",
        "RENAME",
        "SUBSCRIBE",
        "UNSUBSCRIBE",
        "LIST",
        "LSUB",
        "STATUS",
        "APPEND",
        "XLIST",
    ];
    if !KNOWN.contains(&name) {
        return Err(Malformed("unknown command"));
    }
    parser.space()?;
    Ok(match name {
        "LOGIN" => {
            let login = text_of(&parser.astring()?);
            parser.space()?;
            Command::Login { login, password: text_of(&parser.astring()?) }
        }
        "AUTHENTICATE" => {
            let mechanism = parser.name()?;
            let initial =
                if parser.take(b' ') { Some(Bytes::copy_from_slice(parser.take_while(|b| b > b' '))) } else { None };
            Command::Authenticate { mechanism, initial }
        }
        "ENABLE" => {
            let mut names = vec![parser.name()?];
            while parser.take(b' ') {
                names.push(parser.name()?);
            }
            Command::Enable(names)
        }
        "ID" => parse_id(parser)?,
        "SELECT" | "EXAMINE" => parse_select(parser, name == "EXAMINE")?,
        "CREATE" => parse_create(parser)?,
        "DELETE" => Command::Delete(mailbox_name(parser)?),
        "RENAME" => {
            let from = mailbox_name(parser)?;
            parser.space()?;
            Command::Rename(from, mailbox_name(parser)?)
        }
        "SUBSCRIBE" | "UNSUBSCRIBE" => Command::Subscribe(mailbox_name(parser)?, name == "SUBSCRIBE"),
        "LIST" => Command::List(parse_list(parser)?),
        "LSUB" => Command::Lsub(parse_lsub(parser)?),
        "STATUS" => {
            let mailbox = mailbox_name(parser)?;
            parser.space()?;
            Command::Status(mailbox, StatusItem::parse_list(parser)?)
        }
        "APPEND" => Command::Append(parse_append(parser)?),
        _ => return Err(Malformed("unknown command")),
    })
}

fn parse_id(parser: &mut Parser<'_>) -> Parsed<Command> {
    if parser.take_word("NIL") {
        return Ok(Command::Id);
    }
    let words = parser.list(Parser::nstring)?;
    if words.len() > 2 * ID_PAIRS_MAX { Err(Malformed("too many ID pairs")) } else { Ok(Command::Id) }
}

fn parse_select(parser: &mut Parser<'_>, read_only: bool) -> Parsed<Command> {
    let mailbox = mailbox_name(parser)?;
    let mut condstore = false;
    if parser.take(b' ') {
        for parameter in parser.list(Parser::name)? {
            match parameter.as_str() {
                "CONDSTORE" => condstore = true,
                _ => return Err(Malformed("unknown SELECT parameter")),
            }
        }
    }
    Ok(Command::Select { mailbox, read_only, condstore })
}

fn parse_create(parser: &mut Parser<'_>) -> Parsed<Command> {
    let mailbox = mailbox_name(parser)?;
    let mut role = None;
    if parser.take_word(" (USE ") {
        let mut uses = parser.list(|p| {
            p.expect(b'\\', "special use expected")?;
            role_of(&p.name()?).ok_or(Malformed("special use is not known"))
        })?;
        parser.expect(b')', ") expected")?;
        role = uses.pop();
        if !uses.is_empty() {
            return Err(Malformed("one special use at a time"));
        }
    }
    Ok(Command::Create { mailbox, role })
}

fn role_of(name: &str) -> Option<Role> {
    Some(match name {
        "DRAFTS" => Role::Drafts,
        "SENT" => Role::Sent,
        "JUNK" => Role::Junk,
        "TRASH" => Role::Trash,
        "ARCHIVE" => Role::Archive,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Parsed<Command> {
        parse_command(&Bytes::from(text.to_owned()))
    }

    #[test]
    fn commands() {
        assert_eq!(parse("noop"), Ok(Command::Noop("NOOP")));
        assert_eq!(parse("LOGIN a \"b c\""), Ok(Command::Login { login: "a".into(), password: "b c".into() }));
        assert!(matches!(parse("UID expunge 1:*"), Ok(Command::Expunge(Some(_)))));
        assert!(matches!(parse("ID (\"name\" \"x\" \"os\" NIL)"), Ok(Command::Id)));
        assert!(matches!(parse("SELECT inbox (CONDSTORE)"), Ok(Command::Select { condstore: true, .. })));
        assert!(matches!(parse("CREATE x (USE (\\Sent))"), Ok(Command::Create { role: Some(Role::Sent), .. })));
        assert!(matches!(parse("UID MOVE 1 \"a b\""), Ok(Command::Move(_))));
        let append = parse("APPEND x (\\Seen) \" 1-Feb-2003 04:05:06 +0000\" {2}\r\nhi");
        assert!(matches!(append, Ok(Command::Append(a)) if a.message == "hi" && a.internal_date.is_some()));
        assert_eq!(parse("SEARCH CHARSET X ALL"), Ok(Command::SearchCharset));
    }

    #[test]
    fn bad_commands() {
        for bad in
            ["", "FOO", "UID NOOP", "NOOP x", "LOGIN a", "SELECT", "SELECT x (FOO)", "UID", "APPEND x hi", "ID (\"a\""]
        {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert_eq!(split_tag(&Bytes::from_static(b"a1 NOOP")), Some(("a1".to_owned(), Bytes::from_static(b"NOOP"))));
        assert_eq!(split_tag(&Bytes::from_static(b"a1")), Some(("a1".to_owned(), Bytes::new())));
        assert_eq!(split_tag(&Bytes::from_static(b" NOOP")), None);
        assert_eq!(split_tag(&Bytes::from_static(b"+ NOOP")), None);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_survived(input: Vec<u8>) {
            let _ = parse_command(&Bytes::from(input));
        }
        #[test]
        fn near_commands_are_survived(
            name in "(FETCH|UID FETCH|SEARCH|LIST|STORE|APPEND|STATUS|CREATE|LOGIN) ",
            rest in "[0-9:*, ()\\[\\]<>.{}+\"\\\\A-Za-z\r\n%-]{0,60}",
        ) {
            let _ = parse_command(&Bytes::from(name + &rest));
        }
    }
}
