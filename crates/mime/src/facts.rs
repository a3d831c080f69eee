//! What is computed once per message at accept and stored beside it, so that FETCH reparses nothing.

use std::ops::Range;

use bytes::Bytes;
use prost::Message;
use vocab::Damaged;

use crate::date::{Day, parse_day};
use crate::header;
use crate::render::{self, Form};
use crate::structure::{self, Encoding, Part, PartKind};
use crate::thread::{self, ThreadId};
use crate::word::decode_words;

/// Row version written as first byte of encoded facts.
pub const FACTS_ROW_VERSION: u8 = 1;

/// Facts of one message body as accepted (without the prefix of a recipient).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Conversation.
    pub thread: ThreadId,
    /// Bytes of the body.
    pub size: u64,
    /// Bytes of its header section with the empty line.
    pub header_length: u64,
    /// Rendered ENVELOPE, parentheses included.
    pub envelope: Bytes,
    /// Rendered BODY.
    pub body: Bytes,
    /// Rendered BODYSTRUCTURE.
    pub body_structure: Bytes,
    /// Ranges of all parts.
    pub root: Part,
    /// Message-ID as written, if any.
    pub message_id: Option<Vec<u8>>,
    /// Ids of the References field, at most `thread::REFERENCES_MAX`, oldest first.
    pub references: Vec<Vec<u8>>,
    /// Subject, decoded.
    pub subject: String,
    /// From, decoded, for SEARCH.
    pub from: String,
    /// To, decoded, for SEARCH.
    pub to: String,
    /// Cc, decoded, for SEARCH.
    pub cc: String,
    /// Day of the Date field.
    pub sent: Option<Day>,
}

/// What is asked of a part by a section specification (RFC 9051 §6.4.5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SectionText {
    /// `BODY[]`, `BODY[1.2]`
    Whole,
    /// `HEADER`, also the base of `HEADER.FIELDS`
    Header,
    /// `TEXT`
    Text,
    /// `MIME`
    Mime,
}

/// The bytes of a range; empty where the message is shorter.
#[must_use]
pub fn slice<'a>(message: &'a [u8], range: &Range<u64>) -> &'a [u8] {
    let index = |at: u64| usize::try_from(at).ok();
    match (index(range.start), index(range.end)) {
        (Some(start), Some(end)) => message.get(start..end).unwrap_or_default(),
        _ => &[],
    }
}

/// Facts of any bytes; broken mail is one opaque part.
#[must_use]
pub fn facts_of(message: &[u8]) -> Facts {
    let scanned = structure::scan(message);
    let header_bytes = slice(message, &scanned.part.header);
    let rendered = |form| {
        let mut out = Vec::new();
        render::body(&mut out, message, &scanned, form);
        Bytes::from(out)
    };
    let decoded = |name: &str| {
        let values = header::header_fields(header_bytes).filter(|f| f.is(name)).map(|f| decode_words(f.value));
        values.collect::<Vec<_>>().join(", ")
    };
    let envelope = render::envelope(header_bytes);
    let links = thread::links_of(header_bytes);
    Facts {
        thread: thread::thread_id(&links, &envelope),
        size: message.len() as u64,
        header_length: scanned.part.header.end,
        body: rendered(Form::Body),
        body_structure: rendered(Form::BodyStructure),
        envelope: Bytes::from(envelope),
        message_id: links.message_id,
        references: links.references,
        subject: header::first_value(header_bytes, "Subject").map(|v| decode_words(&v)).unwrap_or_default(),
        from: decoded("From"),
        to: decoded("To"),
        cc: decoded("Cc"),
        sent: header::first_value(header_bytes, "Date").and_then(|v| parse_day(&v)),
        root: scanned.part,
    }
}

impl Facts {
    /// Message-ID for people and for searching, empty without one; what is no UTF-8 in it is replaced.
    #[must_use]
    pub fn message_id_text(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(self.message_id.as_deref().unwrap_or_default())
    }

    /// Where the section is in the body as accepted; `None` when there is no such part. With an empty path `Whole` and
    /// `Header` begin at 0, so the prefix of the recipient goes before them.
    #[must_use]
    pub fn section(&self, path: &[u32], text: SectionText) -> Option<Range<u64>> {
        if path.is_empty() {
            return match text {
                SectionText::Whole => Some(0..self.size),
                SectionText::Header => Some(self.root.header.clone()),
                SectionText::Text => Some(self.root.body.clone()),
                SectionText::Mime => None,
            };
        }
        let part = self.part(path)?;
        let nested = || part.children.first().filter(|_| part.kind == PartKind::Message);
        match text {
            SectionText::Whole => Some(part.body.clone()),
            SectionText::Mime => Some(part.header.clone()),
            SectionText::Header => nested().map(|message| message.header.clone()),
            SectionText::Text => nested().map(|message| message.body.clone()),
        }
    }

    /// The part with this number. A message that is no multipart has one part, number 1: its own body.
    #[must_use]
    pub fn part(&self, path: &[u32]) -> Option<&Part> {
        let mut part = &self.root;
        // Whether `part` is the top of a message, whose body is part 1 when it is no multipart.
        let mut top = true;
        for number in path {
            let inside = match part.kind {
                PartKind::Message if !top => {
                    part = part.children.first()?;
                    true
                }
                _ => top,
            };
            let index = usize::try_from(number.checked_sub(1)?).ok()?;
            if part.kind == PartKind::Multipart {
                part = part.children.get(index)?;
            } else if !inside || index != 0 {
                return None;
            }
            top = false;
        }
        Some(part)
    }
}

#[derive(Clone, PartialEq, Message)]
struct PartV1 {
    #[prost(uint64, tag = "1")]
    header_start: u64,
    #[prost(uint64, tag = "2")]
    header_end: u64,
    #[prost(uint64, tag = "3")]
    body_start: u64,
    #[prost(uint64, tag = "4")]
    body_end: u64,
    #[prost(uint32, tag = "5")]
    kind: u32,
    #[prost(uint32, tag = "6")]
    encoding: u32,
    #[prost(string, tag = "7")]
    content_type: String,
    #[prost(string, optional, tag = "8")]
    charset: Option<String>,
    #[prost(message, repeated, tag = "9")]
    children: Vec<Self>,
}

#[derive(Clone, PartialEq, Message)]
struct FactsV1 {
    #[prost(bytes = "vec", tag = "1")]
    thread: Vec<u8>,
    #[prost(uint64, tag = "2")]
    size: u64,
    #[prost(uint64, tag = "3")]
    header_length: u64,
    #[prost(bytes = "bytes", tag = "4")]
    envelope: Bytes,
    #[prost(bytes = "bytes", tag = "5")]
    body: Bytes,
    #[prost(bytes = "bytes", tag = "6")]
    body_structure: Bytes,
    #[prost(message, optional, tag = "7")]
    root: Option<PartV1>,
    #[prost(bytes = "vec", optional, tag = "8")]
    message_id: Option<Vec<u8>>,
    #[prost(bytes = "vec", repeated, tag = "9")]
    references: Vec<Vec<u8>>,
    #[prost(string, tag = "10")]
    subject: String,
    #[prost(string, tag = "11")]
    from: String,
    #[prost(string, tag = "12")]
    to: String,
    #[prost(string, tag = "13")]
    cc: String,
    /// year * 10000 + month * 100 + day; 0 is none.
    #[prost(uint32, tag = "14")]
    sent: u32,
}

/// Only the thread; the decoder skips the rest.
#[derive(Clone, PartialEq, Message)]
struct ThreadOfFactsV1 {
    #[prost(bytes = "vec", tag = "1")]
    thread: Vec<u8>,
}

fn bad(what: &str) -> Damaged {
    Damaged(format!("message facts: {what}"))
}

fn unversioned<M: Message + Default>(bytes: &[u8]) -> Result<M, Damaged> {
    match bytes.split_first() {
        Some((&FACTS_ROW_VERSION, rest)) => M::decode(rest).map_err(|e| bad(&e.to_string())),
        Some((other, _)) => Err(bad(&format!("unknown row version {other}"))),
        None => Err(bad("empty")),
    }
}

/// THREADID of encoded facts, without decoding the rest.
///
/// # Errors
/// [`Damaged`].
pub fn thread_of(encoded: &[u8]) -> Result<ThreadId, Damaged> {
    let row: ThreadOfFactsV1 = unversioned(encoded)?;
    ThreadId::from_bytes(&row.thread).ok_or_else(|| bad("thread id"))
}

fn part_to_row(part: &Part) -> PartV1 {
    PartV1 {
        header_start: part.header.start,
        header_end: part.header.end,
        body_start: part.body.start,
        body_end: part.body.end,
        kind: match part.kind {
            PartKind::Leaf => 0,
            PartKind::Multipart => 1,
            PartKind::Message => 2,
        },
        encoding: match part.encoding {
            Encoding::Identity => 0,
            Encoding::Base64 => 1,
            Encoding::QuotedPrintable => 2,
        },
        content_type: part.content_type.clone(),
        charset: part.charset.clone(),
        children: part.children.iter().map(part_to_row).collect(),
    }
}

fn part_from_row(row: PartV1) -> Result<Part, Damaged> {
    Ok(Part {
        header: row.header_start..row.header_end,
        body: row.body_start..row.body_end,
        kind: match row.kind {
            0 => PartKind::Leaf,
            1 => PartKind::Multipart,
            2 => PartKind::Message,
            _ => return Err(bad("part kind")),
        },
        encoding: match row.encoding {
            0 => Encoding::Identity,
            1 => Encoding::Base64,
            2 => Encoding::QuotedPrintable,
            _ => return Err(bad("part encoding")),
        },
        content_type: row.content_type,
        charset: row.charset,
        children: row.children.into_iter().map(part_from_row).collect::<Result<_, _>>()?,
    })
}

impl Facts {
    /// Row version byte, then protobuf.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let row = FactsV1 {
            thread: self.thread.0.to_vec(),
            size: self.size,
            header_length: self.header_length,
            envelope: self.envelope.clone(),
            body: self.body.clone(),
            body_structure: self.body_structure.clone(),
            root: Some(part_to_row(&self.root)),
            message_id: self.message_id.clone(),
            references: self.references.clone(),
            subject: self.subject.clone(),
            from: self.from.clone(),
            to: self.to.clone(),
            cc: self.cc.clone(),
            sent: self.sent.map_or(0, |d| u32::from(d.year) * 10_000 + u32::from(d.month) * 100 + u32::from(d.day)),
        };
        let mut out = Vec::with_capacity(row.encoded_len() + 1);
        out.push(FACTS_ROW_VERSION);
        out.extend(row.encode_to_vec());
        Bytes::from(out)
    }

    /// The facts in these bytes.
    ///
    /// # Errors
    /// [`Damaged`] for an unknown row version or broken bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, Damaged> {
        let row: FactsV1 = unversioned(bytes)?;
        let number = |n: u32| u8::try_from(n % 100).unwrap_or_default();
        let year = u16::try_from(row.sent / 10_000).map_err(|_| bad("sent day"))?;
        Ok(Self {
            thread: ThreadId::from_bytes(&row.thread).ok_or_else(|| bad("thread id"))?,
            size: row.size,
            header_length: row.header_length,
            envelope: row.envelope,
            body: row.body,
            body_structure: row.body_structure,
            root: part_from_row(row.root.ok_or_else(|| bad("no parts"))?)?,
            message_id: row.message_id,
            references: row.references,
            subject: row.subject,
            from: row.from,
            to: row.to,
            cc: row.cc,
            sent: (row.sent != 0).then(|| Day { year, month: number(row.sent / 100), day: number(row.sent) }),
        })
    }
}
