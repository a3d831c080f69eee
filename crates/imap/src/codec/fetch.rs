//! FETCH items and STORE (RFC 3501 §6.4.5, §6.4.6, RFC 7162 §3.1, RFC 8474 §5).

use vocab::{Flags, ModSeq};

use crate::codec::append::parse_store_flags;
use crate::codec::parser::{Malformed, Parsed, Parser, text_of};
use crate::codec::sequence::SequenceSet;
use mailbox::op::FlagMode;

/// Items one FETCH may name.
pub const ITEMS_MAX: usize = 100;
/// Fields one HEADER.FIELDS may name.
pub const FIELDS_MAX: usize = 200;
/// Deepest part number that is read.
pub const PART_DEPTH_MAX: usize = vocab::limits::MIME_DEPTH_MAX;

/// Which piece of a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// All of it: `BODY[]`, `BODY[1.2]`
    All,
    /// HEADER
    Header,
    /// HEADER.FIELDS and HEADER.FIELDS.NOT
    Fields {
        /// As asked.
        names: Vec<String>,
        /// Everything but these.
        not: bool,
    },
    /// TEXT
    Text,
    /// MIME header of a part
    Mime,
}

/// `BODY[...]<...>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// Part number; empty for the message itself.
    pub part: Vec<u32>,
    /// Which piece.
    pub piece: Piece,
    /// First octet and count.
    pub partial: Option<(u32, u32)>,
}

/// One item of FETCH.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// UID
    Uid,
    /// FLAGS
    Flags,
    /// INTERNALDATE
    InternalDate,
    /// RFC822.SIZE
    Size,
    /// ENVELOPE
    Envelope,
    /// BODY without brackets
    Body,
    /// BODYSTRUCTURE
    BodyStructure,
    /// MODSEQ
    ModSeq,
    /// EMAILID
    EmailId,
    /// THREADID
    ThreadId,
    /// `BODY[...]`, or an RFC822 form under its own name
    Section {
        /// What.
        section: Section,
        /// Without setting `\Seen`.
        peek: bool,
        /// Name in the response: RFC822, RFC822.HEADER, RFC822.TEXT; `None` for BODY[...].
        name: Option<&'static str>,
    },
}

/// FETCH.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchCommand {
    /// Which messages.
    pub set: SequenceSet,
    /// UID FETCH.
    pub by_uid: bool,
    /// What.
    pub items: Vec<Item>,
    /// Only those changed since.
    pub changed_since: Option<ModSeq>,
}

/// Reads what follows `FETCH `.
///
/// # Errors
/// When it is malformed.
pub fn parse_fetch(parser: &mut Parser<'_>, by_uid: bool) -> Parsed<FetchCommand> {
    let set = SequenceSet::parse(parser)?;
    parser.space()?;
    let mut items = Vec::new();
    if parser.peek() == Some(b'(') {
        parser.list(|p| {
            push(&mut items, parse_item(p)?);
            if items.len() > ITEMS_MAX { Err(Malformed("too many items")) } else { Ok(()) }
        })?;
    } else if let Some(all) = parse_macro(parser) {
        items = all;
    } else {
        push(&mut items, parse_item(parser)?);
    }
    let mut changed_since = None;
    if parser.take_word(" (CHANGEDSINCE ") {
        changed_since = Some(ModSeq(parser.number()?));
        parser.expect(b')', ") expected")?;
        push(&mut items, Item::ModSeq);
    }
    if by_uid && !items.contains(&Item::Uid) {
        items.insert(0, Item::Uid);
    }
    if items.is_empty() {
        return Err(Malformed("nothing to fetch"));
    }
    Ok(FetchCommand { set, by_uid, items, changed_since })
}

fn push(items: &mut Vec<Item>, item: Item) {
    if !items.contains(&item) {
        items.push(item);
    }
}

fn parse_macro(parser: &mut Parser<'_>) -> Option<Vec<Item>> {
    let rest = parser.rest().to_ascii_uppercase();
    let word = rest.split(|b| *b == b' ').next().unwrap_or_default();
    let fast = vec![Item::Flags, Item::InternalDate, Item::Size];
    let items = match word {
        b"FAST" => fast,
        b"ALL" => [fast, vec![Item::Envelope]].concat(),
        b"FULL" => [fast, vec![Item::Envelope, Item::Body]].concat(),
        _ => return None,
    };
    parser.take_while(|b| b != b' ');
    Some(items)
}

fn parse_item(parser: &mut Parser<'_>) -> Parsed<Item> {
    let name = parser.take_while(|b| b.is_ascii_alphanumeric() || b == b'.').to_ascii_uppercase();
    let whole = |piece, peek, name| Item::Section {
        section: Section { part: Vec::new(), piece, partial: None },
        peek,
        name: Some(name),
    };
    Ok(match name.as_slice() {
        b"UID" => Item::Uid,
        b"FLAGS" => Item::Flags,
        b"INTERNALDATE" => Item::InternalDate,
        b"RFC822.SIZE" => Item::Size,
        b"ENVELOPE" => Item::Envelope,
        b"BODYSTRUCTURE" => Item::BodyStructure,
        b"MODSEQ" => Item::ModSeq,
        b"EMAILID" => Item::EmailId,
        b"THREADID" => Item::ThreadId,
        b"RFC822" => whole(Piece::All, false, "RFC822"),
        b"RFC822.HEADER" => whole(Piece::Header, true, "RFC822.HEADER"),
        b"RFC822.TEXT" => whole(Piece::Text, false, "RFC822.TEXT"),
        b"BODY" if parser.peek() != Some(b'[') => Item::Body,
        b"BODY" => Item::Section { section: parse_section(parser)?, peek: false, name: None },
        b"BODY.PEEK" => Item::Section { section: parse_section(parser)?, peek: true, name: None },
        _ => return Err(Malformed("unknown FETCH item")),
    })
}

fn parse_section(parser: &mut Parser<'_>) -> Parsed<Section> {
    parser.expect(b'[', "[ expected")?;
    let mut part = Vec::new();
    while parser.peek().is_some_and(|b| b.is_ascii_digit()) {
        let number = u32::try_from(parser.number()?).map_err(|_| Malformed("part number too large"))?;
        part.push(number);
        if number == 0 || part.len() > PART_DEPTH_MAX {
            return Err(Malformed("no such part number"));
        }
        if !parser.take(b'.') {
            break;
        }
    }
    let name = parser.take_while(|b| b.is_ascii_alphabetic() || b == b'.').to_ascii_uppercase();
    let piece = match name.as_slice() {
        b"" => Piece::All,
        b"HEADER" => Piece::Header,
        b"TEXT" => Piece::Text,
        b"MIME" if !part.is_empty() => Piece::Mime,
        b"HEADER.FIELDS" => Piece::Fields { names: parse_fields(parser)?, not: false },
        b"HEADER.FIELDS.NOT" => Piece::Fields { names: parse_fields(parser)?, not: true },
        _ => return Err(Malformed("unknown section")),
    };
    parser.expect(b']', "] expected")?;
    let mut partial = None;
    if parser.take(b'<') {
        let first = u32::try_from(parser.number()?).map_err(|_| Malformed("number too large"))?;
        parser.expect(b'.', ". expected")?;
        let count = u32::try_from(parser.number()?).map_err(|_| Malformed("number too large"))?;
        if count == 0 {
            return Err(Malformed("a partial needs octets"));
        }
        parser.expect(b'>', "> expected")?;
        partial = Some((first, count));
    }
    Ok(Section { part, piece, partial })
}

fn parse_fields(parser: &mut Parser<'_>) -> Parsed<Vec<String>> {
    parser.space()?;
    let names = parser.list(|p| Ok(text_of(&p.astring()?)))?;
    let plain = |name: &String| !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic() && b != b':');
    if names.is_empty() || names.len() > FIELDS_MAX || !names.iter().all(plain) {
        return Err(Malformed("bad list of header fields"));
    }
    Ok(names)
}

/// Writes the section as it stands in the response: `BODY[1.HEADER]<0>`.
#[must_use]
pub fn write_section(section: &Section) -> String {
    let mut out = section.part.iter().map(u32::to_string).collect::<Vec<_>>().join(".");
    let piece = match &section.piece {
        Piece::All => String::new(),
        Piece::Header => "HEADER".to_owned(),
        Piece::Text => "TEXT".to_owned(),
        Piece::Mime => "MIME".to_owned(),
        Piece::Fields { names, not } => {
            let names: Vec<String> = names.iter().map(|n| crate::codec::response::astring(n)).collect();
            format!("HEADER.FIELDS{} ({})", if *not { ".NOT" } else { "" }, names.join(" "))
        }
    };
    if !out.is_empty() && !piece.is_empty() {
        out.push('.');
    }
    let origin = section.partial.map_or_else(String::new, |(first, _)| format!("<{first}>"));
    format!("BODY[{out}{piece}]{origin}")
}

/// STORE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreCommand {
    /// Which messages.
    pub set: SequenceSet,
    /// UID STORE.
    pub by_uid: bool,
    /// UNCHANGEDSINCE.
    pub unchanged_since: Option<ModSeq>,
    /// How.
    pub mode: FlagMode,
    /// `.SILENT`
    pub silent: bool,
    /// With what.
    pub flags: Flags,
}

/// Reads what follows `STORE `.
///
/// # Errors
/// When it is malformed.
pub fn parse_store(parser: &mut Parser<'_>, by_uid: bool) -> Parsed<StoreCommand> {
    let set = SequenceSet::parse(parser)?;
    parser.space()?;
    let mut unchanged_since = None;
    if parser.take_word("(UNCHANGEDSINCE ") {
        unchanged_since = Some(ModSeq(parser.number()?));
        parser.expect(b')', ") expected")?;
        parser.space()?;
    }
    let mode = match parser.peek() {
        Some(b'+') => FlagMode::Add,
        Some(b'-') => FlagMode::Remove,
        _ => FlagMode::Replace,
    };
    if mode != FlagMode::Replace {
        parser.take_while(|b| b == b'+' || b == b'-');
    }
    let silent = match parser.name()?.as_str() {
        "FLAGS" => false,
        "FLAGS.SILENT" => true,
        _ => return Err(Malformed("FLAGS expected")),
    };
    parser.space()?;
    Ok(StoreCommand { set, by_uid, unchanged_since, mode, silent, flags: parse_store_flags(parser)? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn fetch(text: &str) -> Parsed<FetchCommand> {
        let bytes = Bytes::from(text.to_owned());
        let mut parser = Parser::new(&bytes);
        let fetch = parse_fetch(&mut parser, false)?;
        parser.end().map(|()| fetch)
    }

    #[test]
    fn sections_are_written_as_read() {
        for section in [
            "BODY[]",
            "BODY[TEXT]",
            "BODY[1.2.MIME]",
            "BODY[1.HEADER]",
            "BODY[HEADER.FIELDS (From To)]",
            "BODY[2.HEADER.FIELDS.NOT (Received)]",
            "BODY[3]<5>",
        ] {
            let asked = section.replace("<5>", "<5.10>");
            let command = fetch(&format!("1 {asked}")).expect(section);
            let [Item::Section { section: read, .. }] = command.items.as_slice() else { panic!("{command:?}") };
            assert_eq!(write_section(read), section);
        }
    }

    #[test]
    fn macros_lists_and_modifiers() {
        assert_eq!(fetch("1:* all").map(|f| f.items.len()), Ok(4));
        assert_eq!(fetch("1 (FLAGS flags UID)").map(|f| f.items), Ok(vec![Item::Flags, Item::Uid]));
        let since = fetch("1:* (FLAGS) (CHANGEDSINCE 0)").expect("valid");
        assert_eq!(since.changed_since, Some(ModSeq(0)));
        assert!(since.items.contains(&Item::ModSeq));
    }

    #[test]
    fn bad_ones() {
        for bad in [
            "",
            "1",
            "1 ",
            "1 FOO",
            "1 (FLAGS",
            "1 BODY[",
            "1 BODY[0]",
            "1 BODY[MIME]",
            "1 BODY[]<1>",
            "1 BODY[]<1.0>",
            "1 BODY[HEADER.FIELDS ()]",
            "1 ()",
            "1 BODY[1",
            "1 ALL FAST",
            "1 BODY[1.2.3.FOO]",
        ] {
            assert!(fetch(bad).is_err(), "{bad}");
        }
        assert!(fetch(&format!("1 BODY[{}]", vec!["1"; 60].join("."))).is_err());
    }

    #[test]
    fn stores() {
        let store = |text: &'static str| {
            let bytes = Bytes::from_static(text.as_bytes());
            let mut parser = Parser::new(&bytes);
            let store = parse_store(&mut parser, true)?;
            parser.end().map(|()| store)
        };
        let one = store("1 (UNCHANGEDSINCE 7) -flags.silent \\Seen $Junk").expect("valid");
        assert_eq!((one.mode, one.silent, one.unchanged_since), (FlagMode::Remove, true, Some(ModSeq(7))));
        assert_eq!(store("1 FLAGS ()").map(|s| s.flags), Ok(Flags::default()));
        for bad in ["1 FLAGS", "1 FLAG (a)", "1 +FLAGS (\\Foo)", "1 +FLAGS (a"] {
            assert!(store(bad).is_err(), "{bad}");
        }
    }
}
