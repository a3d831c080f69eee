//! APPEND (RFC 3501 §6.3.11) and flag lists (§9).

use bytes::Bytes;
use vocab::limits::KEYWORDS_MAX;
use vocab::{Flags, Keyword, SystemFlag, Timestamp};

use crate::codec::date::parse_date_time;
use crate::codec::list::mailbox_name;
use crate::codec::parser::{Malformed, Parsed, Parser};

/// One message to be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppendCommand {
    /// Where.
    pub mailbox: String,
    /// Flags at birth.
    pub flags: Flags,
    /// INTERNALDATE; now when absent.
    pub internal_date: Option<Timestamp>,
    /// The message.
    pub message: Bytes,
}

/// Reads what follows `APPEND `.
///
/// # Errors
/// When it is malformed.
pub fn parse_append(parser: &mut Parser<'_>) -> Parsed<AppendCommand> {
    let mailbox = mailbox_name(parser)?;
    parser.space()?;
    let mut flags = Flags::default();
    if parser.peek() == Some(b'(') {
        flags = parse_flag_list(parser)?;
        parser.space()?;
    }
    let mut internal_date = None;
    if parser.peek() == Some(b'"') {
        internal_date = Some(parse_date_time(parser)?);
        parser.space()?;
    }
    let message = parser.literal()?;
    if parser.peek() == Some(b' ') && parser.rest().trim_ascii().starts_with(b"{") {
        return Err(Malformed("one message at a time"));
    }
    Ok(AppendCommand { mailbox, flags, internal_date, message })
}

/// flag-list in parentheses. `\Recent` is dropped: only the server gives it.
///
/// # Errors
/// When a flag is unknown or there are too many keywords.
pub fn parse_flag_list(parser: &mut Parser<'_>) -> Parsed<Flags> {
    let mut flags = Flags::default();
    parser.list(|p| add_flag(p, &mut flags))?;
    Ok(flags)
}

/// The flags of STORE: a list, or flags without parentheses.
///
/// # Errors
/// As [`parse_flag_list`].
pub fn parse_store_flags(parser: &mut Parser<'_>) -> Parsed<Flags> {
    if parser.peek() == Some(b'(') {
        return parse_flag_list(parser);
    }
    let mut flags = Flags::default();
    add_flag(parser, &mut flags)?;
    while parser.take(b' ') {
        add_flag(parser, &mut flags)?;
    }
    Ok(flags)
}

fn add_flag(parser: &mut Parser<'_>, flags: &mut Flags) -> Parsed<()> {
    if parser.take(b'\\') {
        let name = format!("\\{}", parser.atom()?);
        if let Some(flag) = SystemFlag::parse(&name) {
            flags.system |= flag as u8;
        } else if !name.eq_ignore_ascii_case("\\Recent") {
            return Err(Malformed("unknown system flag"));
        }
        return Ok(());
    }
    flags.keywords.insert(Keyword::new(parser.atom()?).ok_or(Malformed("bad keyword"))?);
    if flags.keywords.len() > KEYWORDS_MAX { Err(Malformed("too many keywords")) } else { Ok(()) }
}
