//! The tree of MIME parts with exact byte ranges (RFC 2046 §5.1), found in one pass over the lines.

use std::ops::Range;

use vocab::limits::{MIME_DEPTH_MAX, MIME_PARTS_MAX};

use crate::header::{self, line_end, without_line_end};
use crate::params::{self, Parameterised};

/// Longest boundary looked for; RFC 2046 allows 70 characters.
const BOUNDARY_BYTES_MAX: usize = 200;

/// Content-Transfer-Encoding of a part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    /// 7bit, 8bit, binary, and whatever is unknown: bytes are taken as they are.
    #[default]
    Identity,
    /// base64
    Base64,
    /// quoted-printable
    QuotedPrintable,
}

/// What a part holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PartKind {
    /// Bytes.
    #[default]
    Leaf,
    /// Parts: `children` in order, at least one.
    Multipart,
    /// A message: `children` is its top part alone.
    Message,
}

/// One MIME part. Ranges count from the first byte of the message body as accepted (without prefix).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// Header section with its empty line: the message's own header for the top part.
    pub header: Range<u64>,
    /// Body, still transfer-encoded.
    pub body: Range<u64>,
    /// What it holds.
    pub kind: PartKind,
    /// How `body` is encoded.
    pub encoding: Encoding,
    /// `type/subtype` in lower case.
    pub content_type: String,
    /// The charset parameter, if any.
    pub charset: Option<String>,
    /// Parts inside.
    pub children: Vec<Self>,
}

impl Part {
    /// Whether it is text to be searched and decoded.
    #[must_use]
    pub fn is_text(&self) -> bool {
        self.kind == PartKind::Leaf && self.content_type.starts_with("text/")
    }
}

/// A part with what only the rendering of BODYSTRUCTURE needs.
pub(crate) struct Scanned {
    pub part: Part,
    pub content_type: Parameterised,
    pub lines: u64,
    pub children: Vec<Self>,
}

/// Where a body ended.
#[derive(Clone, Copy)]
struct Stop {
    /// End of the body: before the line end that belongs to the delimiter.
    body_end: usize,
    /// Lines seen before `body_end`, an unfinished last one included.
    lines: u64,
    /// Index into the open boundaries and whether it closes; `None` at the end of the message.
    delimiter: Option<(usize, bool)>,
}

struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
    /// LFs before `at`.
    lines: u64,
    boundaries: Vec<Vec<u8>>,
    parts: usize,
}

/// The tree of a message. Never fails: what is not understood is one opaque part.
pub(crate) fn scan(message: &[u8]) -> Scanned {
    let mut scanner = Scanner { bytes: message, at: 0, lines: 0, boundaries: Vec::new(), parts: 0 };
    scanner.entity("text/plain", 0).0
}

impl Scanner<'_> {
    fn line(&self) -> &[u8] {
        self.bytes.get(self.at..line_end(self.bytes, self.at)).unwrap_or_default()
    }

    fn next_line(&mut self) {
        let end = line_end(self.bytes, self.at);
        self.lines += u64::from(end > self.at && self.bytes.get(end - 1) == Some(&b'\n'));
        self.at = end;
    }

    /// The open boundary this line is a delimiter of, innermost first.
    fn delimiter(&self) -> Option<(usize, bool)> {
        if !self.bytes.get(self.at..).is_some_and(|rest| rest.starts_with(b"--")) {
            return None;
        }
        let text = without_line_end(self.line()).get(2..)?.trim_ascii_end();
        self.boundaries.iter().enumerate().rev().find_map(|(index, boundary)| {
            let rest = text.strip_prefix(boundary.as_slice())?;
            (rest.is_empty() || rest == b"--").then_some((index, !rest.is_empty()))
        })
    }

    /// Reads the header section; `false` when a delimiter or the end came before its empty line.
    fn header(&mut self) -> bool {
        while self.at < self.bytes.len() {
            if self.delimiter().is_some() {
                return false;
            }
            let empty = without_line_end(self.line()).is_empty();
            self.next_line();
            if empty {
                return true;
            }
        }
        false
    }

    /// Reads lines until a delimiter or the end.
    fn skip_to_delimiter(&mut self, body_start: usize) -> Stop {
        while self.at < self.bytes.len() {
            if let Some(hit) = self.delimiter() {
                return self.stop_at(body_start, Some(hit));
            }
            self.next_line();
        }
        self.stop_at(body_start, None)
    }

    fn stop_at(&self, body_start: usize, delimiter: Option<(usize, bool)>) -> Stop {
        let before = self.bytes.get(body_start..self.at).unwrap_or_default();
        let body = if delimiter.is_some() { without_line_end(before) } else { before };
        let cut_line = u64::from(body.len() != before.len());
        let unfinished = u64::from(body.last().is_some_and(|b| *b != b'\n'));
        Stop { body_end: body_start + body.len(), lines: self.lines - cut_line + unfinished, delimiter }
    }

    /// One part from here; on return the scanner stands on the line of the stop's delimiter, or at the end.
    fn entity(&mut self, default_type: &str, depth: usize) -> (Scanned, Stop) {
        self.parts += 1;
        let start = self.at;
        self.header();
        let body_start = self.at;
        let lines_before = self.lines;
        let header_bytes = self.bytes.get(start..body_start).unwrap_or_default();
        let mut scanned = described(header_bytes, default_type);
        scanned.part.header = start as u64..body_start as u64;
        let deeper = depth < MIME_DEPTH_MAX && self.parts < MIME_PARTS_MAX;
        let stop = match scanned.part.kind {
            PartKind::Multipart if deeper => self.multipart(&mut scanned, body_start, depth),
            PartKind::Message if deeper && scanned.part.encoding == Encoding::Identity => {
                let (child, stop) = self.entity("text/plain", depth + 1);
                scanned.children.push(child);
                Stop { body_end: stop.body_end.max(body_start), ..stop }
            }
            _ => self.skip_to_delimiter(body_start),
        };
        if scanned.children.is_empty() && scanned.part.kind != PartKind::Leaf {
            make_opaque(&mut scanned);
        }
        scanned.lines = stop.lines.saturating_sub(lines_before);
        scanned.part.body = body_start as u64..stop.body_end as u64;
        scanned.part.children = scanned.children.iter().map(|c| c.part.clone()).collect();
        (scanned, stop)
    }

    fn multipart(&mut self, scanned: &mut Scanned, body_start: usize, depth: usize) -> Stop {
        let boundary = scanned.content_type.param("boundary").map(<[u8]>::trim_ascii_end).unwrap_or_default();
        if boundary.is_empty() || boundary.len() > BOUNDARY_BYTES_MAX {
            return self.skip_to_delimiter(body_start);
        }
        self.boundaries.push(boundary.to_vec());
        let own = self.boundaries.len() - 1;
        let default_type =
            if scanned.part.content_type == "multipart/digest" { "message/rfc822" } else { "text/plain" };
        let mut stop = self.skip_to_delimiter(body_start);
        while let Some((index, closing)) = stop.delimiter {
            if index != own || closing {
                break;
            }
            self.next_line();
            if self.parts >= MIME_PARTS_MAX {
                // Further parts are not described.
                stop = self.skip_to_delimiter(self.at);
                continue;
            }
            let (child, child_stop) = self.entity(default_type, depth + 1);
            scanned.children.push(child);
            stop = child_stop;
        }
        self.boundaries.truncate(own);
        match stop.delimiter {
            // After the closing delimiter only an outer delimiter counts: the epilogue belongs to this body.
            Some((index, true)) if index == own => {
                self.next_line();
                self.skip_to_delimiter(body_start)
            }
            _ => stop,
        }
    }
}

/// A part that cannot be opened is bytes.
fn make_opaque(scanned: &mut Scanned) {
    let was_multipart = scanned.part.kind == PartKind::Multipart;
    scanned.part.kind = PartKind::Leaf;
    let plain = was_multipart && scanned.part.encoding == Encoding::Identity;
    scanned.part.content_type = if plain { "text/plain" } else { "application/octet-stream" }.to_owned();
    scanned.content_type = Parameterised { value: scanned.part.content_type.clone(), params: Vec::new() };
}

/// Type and encoding from the header of a part.
fn described(header: &[u8], default_type: &str) -> Scanned {
    let mut content_type = header::first_value(header, "Content-Type").map(|v| params::parse(&v)).unwrap_or_default();
    let shaped = content_type.value.split_once('/').is_some_and(|(t, s)| !t.is_empty() && !s.is_empty());
    if !shaped {
        content_type = Parameterised { value: default_type.to_owned(), params: Vec::new() };
    }
    let encoding = header::first_value(header, "Content-Transfer-Encoding").map(|v| params::parse(&v).value);
    let encoding = match encoding.as_deref() {
        Some("base64") => Encoding::Base64,
        Some("quoted-printable") => Encoding::QuotedPrintable,
        _ => Encoding::Identity,
    };
    let kind = match content_type.value.as_str() {
        "message/rfc822" | "message/global" => PartKind::Message,
        value if value.starts_with("multipart/") => PartKind::Multipart,
        _ => PartKind::Leaf,
    };
    let charset = content_type.param("charset").map(|c| String::from_utf8_lossy(c).into_owned());
    let part = Part { kind, encoding, content_type: content_type.value.clone(), charset, ..Part::default() };
    Scanned { part, content_type, lines: 0, children: Vec::new() }
}
