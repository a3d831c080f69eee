//! What the demo sends: the messages of `tests/corpus` and larger ones made here, each under a header of ours that
//! names it, so that a copy can be recognised and compared byte for byte wherever it lies.

use std::fmt::Write as _;

include!(concat!(env!("OUT_DIR"), "/corpus.rs"));

/// The header that names a message; it is the first line we send.
pub const NAME_HEADER: &str = "X-Twinpost-Demo";
/// Generated messages with attachments (bytes of the attachment before base64).
const ATTACHMENTS: [usize; 7] = [100_000, 250_000, 500_000, 1_000_000, 3_000_000, 8_000_000, 14_500_000];
/// Generated plain messages.
const PLAIN_COUNT: usize = 40;
/// From this size on a source is sent once (bytes).
pub const LARGE_BYTES: usize = 300_000;

/// One source of messages.
pub struct Source {
    /// File name, or what was generated.
    pub name: String,
    /// Bytes with CRLF line ends, ending in CRLF.
    pub bytes: Vec<u8>,
}

/// Everything that is sent, in a fixed order.
#[must_use]
pub fn sources() -> Vec<Source> {
    let mut all: Vec<Source> =
        FILES.iter().map(|(name, bytes)| Source { name: (*name).to_owned(), bytes: with_crlf(bytes) }).collect();
    all.extend((0..PLAIN_COUNT).map(plain));
    all.extend(ATTACHMENTS.iter().map(|&bytes| attachment(bytes)));
    all
}

/// The bytes sent for message `id`: our header, then the source.
#[must_use]
pub fn message(id: u64, run: &str, source: &Source) -> Vec<u8> {
    let mut out = format!("{NAME_HEADER}: {run}-{id}\r\n").into_bytes();
    out.extend_from_slice(&source.bytes);
    out
}

/// Finds our header in a stored message: the message's id, and where what we sent begins.
#[must_use]
pub fn recognise(stored: &[u8], run: &str) -> Option<(u64, usize)> {
    let mark = format!("{NAME_HEADER}: {run}-").into_bytes();
    let at = stored.windows(mark.len()).position(|window| window == mark)?;
    let digits: String = stored
        .get(at + mark.len()..)?
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .map(|&byte| char::from(byte))
        .collect();
    Some((digits.parse().ok()?, at))
}

/// Every line end as CRLF: a bare CR or LF is refused by servers that do not guess (RFC 5321 §2.3.8).
fn with_crlf(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + bytes.len() / 32);
    let mut rest = bytes.iter().copied().peekable();
    while let Some(byte) = rest.next() {
        match byte {
            b'\r' => {
                if rest.peek() == Some(&b'\n') {
                    rest.next();
                }
                out.extend_from_slice(b"\r\n");
            }
            b'\n' => out.extend_from_slice(b"\r\n"),
            byte => out.push(byte),
        }
    }
    if !out.ends_with(b"\r\n") {
        out.extend_from_slice(b"\r\n");
    }
    out
}

fn plain(number: usize) -> Source {
    let mut text = format!(
        "From: \"Writer {number}\" <writer{number}@example.org>\r\nTo: everybody@demo.test\r\n\
         Subject: Generated message {number}\r\nMessage-ID: <plain-{number}@example.org>\r\n\
         Date: Mon, 02 Mar 2026 10:00:{:02} +0100\r\nMIME-Version: 1.0\r\n\
         Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n",
        number % 60
    );
    for line in 0..number * 3 + 1 {
        let _ = write!(text, "Line {line} of message {number}: größer, länger, žluťoučký, 日本語.\r\n.\r\n..dots\r\n");
    }
    Source { name: format!("generated plain {number}"), bytes: text.into_bytes() }
}

fn attachment(bytes: usize) -> Source {
    use base64::Engine as _;
    let mut state = bytes as u32 | 1;
    let data: Vec<u8> = std::iter::repeat_with(|| {
        // xorshift: bytes no compression shrinks, the same in every run.
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state & 0xff) as u8
    })
    .take(bytes)
    .collect();
    let mut text = format!(
        "From: files@example.org\r\nTo: everybody@demo.test\r\nSubject: {bytes} bytes attached\r\n\
         Message-ID: <attached-{bytes}@example.org>\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/mixed; boundary=\"=_b\"\r\n\r\n--=_b\r\nContent-Type: text/plain\r\n\r\nSee below.\r\n\
         --=_b\r\nContent-Type: application/octet-stream; name=\"data.bin\"\r\n\
         Content-Disposition: attachment; filename=\"data.bin\"\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    );
    for line in data.chunks(57) {
        text.push_str(&base64::engine::general_purpose::STANDARD.encode(line));
        text.push_str("\r\n");
    }
    text.push_str("--=_b--\r\n");
    Source { name: format!("generated attachment {bytes}"), bytes: text.into_bytes() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_copy_is_recognised_after_added_fields() {
        let source = plain(1);
        let sent = message(42, "r1", &source);
        let mut stored = b"Return-Path: <a@b>\r\nReceived: from x\r\n".to_vec();
        stored.extend_from_slice(&sent);
        let (id, at) = recognise(&stored, "r1").expect("ours");
        assert_eq!((id, &stored[at..]), (42, &sent[..]));
        assert_eq!(recognise(&stored, "r2"), None);
    }

    #[test]
    fn line_ends_become_crlf() {
        assert_eq!(with_crlf(b"a\nb\rc\r\nd"), b"a\r\nb\r\nc\r\nd\r\n");
    }

    #[test]
    fn the_largest_source_has_twenty_megabytes() {
        let largest = sources().iter().map(|source| source.bytes.len()).max().expect("some");
        assert!((19_000_000..21_000_000).contains(&largest), "{largest}");
    }
}
