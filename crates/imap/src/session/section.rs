//! Where a section of a message is, in the message as the client sees it: prefix of the recipient, then the body.

use mailbox::rows::Placement;
use mime::{Facts, SectionText, Selection, select_fields};

use crate::codec::fetch::{Piece, Section};

/// A range of the message as shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) from: u64,
    pub(super) to: u64,
}

impl Span {
    pub(super) const fn len(self) -> u64 {
        self.to.saturating_sub(self.from)
    }
    /// RFC 3501 §6.4.5: first octet and count, cut at the end.
    pub(super) fn partial(self, partial: Option<(u32, u32)>) -> Self {
        let Some((first, count)) = partial else { return self };
        let from = self.from.saturating_add(u64::from(first)).min(self.to);
        Self { from, to: from.saturating_add(u64::from(count)).min(self.to) }
    }
}

/// The bytes a section is cut from; `None` when the message has no such part. For header fields it is the header.
pub(super) fn span_of(placement: &Placement, facts: &Facts, section: &Section) -> Option<Span> {
    let text = match section.piece {
        Piece::All => SectionText::Whole,
        Piece::Header | Piece::Fields { .. } => SectionText::Header,
        Piece::Text => SectionText::Text,
        Piece::Mime => SectionText::Mime,
    };
    let prefix = placement.prefix.len() as u64;
    let range = facts.section(&section.part, text)?;
    let starts_message = section.part.is_empty() && text != SectionText::Text;
    let from = if starts_message { 0 } else { prefix.saturating_add(range.start) };
    let to = prefix.saturating_add(range.end).min(placement.size());
    Some(Span { from: from.min(to), to })
}

/// The named fields of a header.
pub(super) fn fields_of(header: &[u8], piece: &Piece) -> Vec<u8> {
    let Piece::Fields { names, not } = piece else { return header.to_vec() };
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    select_fields(header, &names, if *not { Selection::AllBut } else { Selection::Only })
}

/// Bytes of one body that are at hand, and the question for more.
#[derive(Default)]
pub(super) struct Cache {
    from: u64,
    bytes: bytes::Bytes,
    /// The range asked for last, to notice an answer that brings nothing.
    asked: Option<(u64, u64)>,
}

/// Most bytes asked for at once.
pub(super) const ASK_BYTES_MAX: u64 = 1024 * 1024;

/// Whether bytes are at hand.
pub(super) enum Have {
    /// These, at least one unless the span is empty.
    Bytes(Vec<u8>),
    /// Ask for this range of the body first.
    Ask(u64, u64),
    /// Asked already, and nothing came.
    Missing,
}

impl Cache {
    pub(super) fn put(&mut self, bytes: bytes::Bytes) {
        if let Some((from, _)) = self.asked {
            self.from = from;
            self.bytes = bytes;
        }
    }
    fn slice(&self, from: u64, to: u64) -> &[u8] {
        let start = from.checked_sub(self.from).and_then(|at| usize::try_from(at).ok());
        let end = to.checked_sub(self.from).and_then(|at| usize::try_from(at).ok());
        let (Some(start), Some(end)) = (start, end) else { return &[] };
        self.bytes.get(start..end.min(self.bytes.len()).max(start)).unwrap_or_default()
    }
    /// The start of a span as far as it is at hand; `ahead`: how far to read when it is not.
    pub(super) fn read(&mut self, placement: &Placement, span: Span, ahead: Span) -> Have {
        let prefix = placement.prefix.len() as u64;
        if span.len() == 0 {
            return Have::Bytes(Vec::new());
        }
        if span.from < prefix {
            let from = usize::try_from(span.from).unwrap_or(usize::MAX);
            let to = usize::try_from(span.to.min(prefix)).unwrap_or(usize::MAX);
            return Have::Bytes(placement.prefix.get(from..to).unwrap_or_default().to_vec());
        }
        let (from, to) = (span.from - prefix, span.to - prefix);
        let at_hand = self.slice(from, to);
        if !at_hand.is_empty() {
            return Have::Bytes(at_hand.to_vec());
        }
        let last = ahead.to.max(span.to).saturating_sub(prefix);
        let first = ahead.from.saturating_sub(prefix).min(from);
        let (first, last) = if last - first <= ASK_BYTES_MAX { (first, last) } else { (from, last) };
        let ask = (first, last.min(first + ASK_BYTES_MAX));
        if self.asked == Some(ask) {
            return Have::Missing;
        }
        self.asked = Some(ask);
        Have::Ask(ask.0, ask.1)
    }
}
