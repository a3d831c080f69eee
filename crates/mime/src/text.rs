//! Text of messages for SEARCH: parts decoded from transfer encoding and charset.

use crate::facts::{Facts, slice};
use crate::structure::{Encoding, Part, PartKind};
use crate::word::{decode_base64, decode_charset, decode_quoted_printable, decode_words};

/// The body of a part without its transfer encoding.
#[must_use]
pub fn decode_part(message: &[u8], part: &Part) -> Vec<u8> {
    let body = slice(message, &part.body);
    match part.encoding {
        Encoding::Identity => body.to_vec(),
        Encoding::Base64 => decode_base64(body),
        Encoding::QuotedPrintable => decode_quoted_printable(body),
    }
}

/// Visits the decoded text of every text part and the header of every nested message, in order, until `visit` says
/// `true`; whether it did.
fn any_text(message: &[u8], part: &Part, visit: &mut dyn FnMut(&str) -> bool) -> bool {
    if part.is_text() {
        return visit(&decode_charset(&decode_part(message, part), part.charset.as_deref()));
    }
    part.children.iter().any(|child| {
        let nested = part.kind == PartKind::Message;
        (nested && visit(&decode_header(slice(message, &child.header)))) || any_text(message, child, visit)
    })
}

/// All fields as `Name: value` lines, values decoded.
#[must_use]
pub fn decode_header(header: &[u8]) -> String {
    let mut out = String::new();
    for field in crate::header::header_fields(header) {
        out.push_str(&String::from_utf8_lossy(field.name));
        out.push_str(": ");
        out.push_str(&decode_words(field.value));
        out.push('\n');
    }
    out
}

/// The decoded text of all text parts and the decoded headers of nested messages, joined by line ends.
#[must_use]
pub fn decode_text_parts(message: &[u8], facts: &Facts) -> String {
    let mut out = String::new();
    any_text(message, &facts.root, &mut |text| {
        out.push_str(text);
        out.push('\n');
        false
    });
    out
}

/// Whether `text` contains `needle` without regard to case. `needle` must come from [`fold`].
#[must_use]
pub fn contains_folded(text: &str, needle: &str) -> bool {
    needle.is_empty() || fold(text).contains(needle)
}

/// Text in the form in which it is compared: lower case, white space runs as one space.
#[must_use]
pub fn fold(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut space = false;
    for c in text.chars() {
        if c.is_whitespace() {
            space = true;
            continue;
        }
        if space {
            out.push(' ');
            space = false;
        }
        out.extend(c.to_lowercase());
    }
    if space {
        out.push(' ');
    }
    out
}

/// SEARCH BODY: whether a text part contains `needle` (any case).
#[must_use]
pub fn body_contains(message: &[u8], facts: &Facts, needle: &str) -> bool {
    let needle = fold(needle);
    needle.is_empty() || any_text(message, &facts.root, &mut |text| contains_folded(text, &needle))
}

/// SEARCH TEXT: header or body contains `needle` (any case).
#[must_use]
pub fn text_contains(message: &[u8], facts: &Facts, needle: &str) -> bool {
    contains_folded(&decode_header(slice(message, &facts.root.header)), &fold(needle))
        || body_contains(message, facts, needle)
}

/// SEARCH HEADER: whether a field of this name contains `needle` (any case); an empty needle asks for the field.
#[must_use]
pub fn header_contains(header: &[u8], name: &str, needle: &str) -> bool {
    let needle = fold(needle);
    crate::header::header_fields(header)
        .any(|field| field.is(name) && (needle.is_empty() || contains_folded(&decode_words(field.value), &needle)))
}
