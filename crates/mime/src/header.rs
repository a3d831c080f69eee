//! Header sections as bytes: where they end, which fields they have, which of them to show.

use std::ops::Range;

/// One field of a header section, folded as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    /// Left of the colon, as written.
    pub name: &'a [u8],
    /// Right of the colon up to the last line end, which is not in it; still folded.
    pub value: &'a [u8],
    /// The whole field with its line end, as a range of the bytes given to [`header_fields`].
    pub range: Range<usize>,
}

impl Field<'_> {
    /// Whether the field has this name (ASCII case does not matter, RFC 5322 §1.2.2).
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }
}

/// End of the line that starts at `from`: after its LF, or the end of the bytes.
pub(crate) fn line_end(bytes: &[u8], from: usize) -> usize {
    let rest = bytes.get(from..).unwrap_or_default();
    rest.iter().position(|b| *b == b'\n').map_or(bytes.len(), |at| from + at + 1)
}

/// The line without its CRLF or LF.
pub(crate) fn without_line_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// Bytes of the header section with the empty line that ends it; everything when there is no empty line.
#[must_use]
pub fn header_length(message: &[u8]) -> usize {
    let mut at = 0;
    while at < message.len() {
        let end = line_end(message, at);
        if message.get(at..end).is_some_and(|line| without_line_end(line).is_empty()) {
            return end;
        }
        at = end;
    }
    message.len()
}

/// The fields of a header section, in order, up to its empty line. Lines that are no field are skipped.
pub fn header_fields(message: &[u8]) -> impl Iterator<Item = Field<'_>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            let start = at;
            let first = message.get(start..line_end(message, start)).filter(|line| !line.is_empty())?;
            if without_line_end(first).is_empty() {
                return None;
            }
            at = start + first.len();
            while message.get(at).is_some_and(|b| *b == b' ' || *b == b'\t') {
                at = line_end(message, at);
            }
            let field = message.get(start..at)?;
            if let Some(found) = split_field(field, start) {
                return Some(found);
            }
        }
    })
}

fn split_field(field: &[u8], start: usize) -> Option<Field<'_>> {
    let colon = field.iter().position(|b| *b == b':')?;
    let name = field.get(..colon)?.trim_ascii_end();
    if name.is_empty() || !name.iter().all(|b| (0x21..0x7f).contains(b)) {
        return None;
    }
    let value = without_line_end(field.get(colon + 1..)?);
    Some(Field { name, value, range: start..start + field.len() })
}

/// First field of this name, unfolded and trimmed.
#[must_use]
pub fn first_value(message: &[u8], name: &str) -> Option<Vec<u8>> {
    header_fields(message).find(|field| field.is(name)).map(|field| unfold(field.value))
}

/// Whether the header section has a field of this name.
#[must_use]
pub fn has_field(message: &[u8], name: &str) -> bool {
    header_fields(message).any(|field| field.is(name))
}

/// Received fields, for the hop limit (RFC 5321 §6.3).
#[must_use]
pub fn count_received(message: &[u8]) -> usize {
    header_fields(message).filter(|field| field.is("Received")).count()
}

/// The value without line ends (RFC 5322 §2.2.3) and without white space around it.
#[must_use]
pub fn unfold(value: &[u8]) -> Vec<u8> {
    let flat: Vec<u8> = value.iter().copied().filter(|b| !matches!(b, b'\r' | b'\n' | 0)).collect();
    flat.trim_ascii().to_vec()
}

/// Which fields a [`select_fields`] keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selection {
    /// `HEADER.FIELDS`
    Only,
    /// `HEADER.FIELDS.NOT`
    AllBut,
}

/// `BODY[HEADER.FIELDS (..)]` and its NOT form: the fields as they came, and the empty line (RFC 9051 §6.4.5.1).
#[must_use]
pub fn select_fields(header: &[u8], names: &[&str], selection: Selection) -> Vec<u8> {
    let mut out = Vec::new();
    for field in header_fields(header) {
        let named = names.iter().any(|name| field.is(name));
        if named == (selection == Selection::Only) {
            out.extend(header.get(field.range).unwrap_or_default());
        }
    }
    if !out.is_empty() && !out.ends_with(b"\n") {
        out.extend(b"\r\n");
    }
    out.extend(b"\r\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: &[u8] =
        b"Received: a\r\n by b\r\nreceived: c\r\nSubject : x\r\n\ty\r\njunk\r\nTo: z\r\n\r\nTo: body\r\n";

    #[test]
    fn fields_come_in_order_with_their_ranges() {
        let names: Vec<_> = header_fields(MESSAGE).map(|f| String::from_utf8_lossy(f.name).into_owned()).collect();
        assert_eq!(names, ["Received", "received", "Subject", "To"]);
        let subject = header_fields(MESSAGE).find(|f| f.is("subject")).expect("is there");
        assert_eq!(MESSAGE[subject.range.clone()], b"Subject : x\r\n\ty\r\n"[..]);
        assert_eq!(unfold(subject.value), b"x\ty");
    }

    #[test]
    fn hops_and_lengths_are_counted() {
        assert_eq!(count_received(MESSAGE), 2);
        assert_eq!(header_length(MESSAGE), MESSAGE.len() - 10);
        assert_eq!(header_length(b"a: b\r\n"), 6);
        assert_eq!(header_length(b"\r\nx"), 2);
        assert_eq!(header_length(b"a: b\n\nx"), 6);
        assert_eq!(header_length(b""), 0);
        assert!(has_field(MESSAGE, "to") && !has_field(MESSAGE, "cc"));
    }

    #[test]
    fn selected_fields_end_with_an_empty_line() {
        assert_eq!(select_fields(MESSAGE, &["TO"], Selection::Only), b"To: z\r\n\r\n");
        assert_eq!(select_fields(MESSAGE, &["received", "subject"], Selection::AllBut), b"To: z\r\n\r\n");
        assert_eq!(select_fields(MESSAGE, &["x"], Selection::Only), b"\r\n");
        assert_eq!(select_fields(b"a: b", &["a"], Selection::Only), b"a: b\r\n\r\n");
    }
}
