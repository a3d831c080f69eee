//! Message data: DATA with its dots (RFC 5321 §4.5.2) and BDAT chunks (RFC 3030), into one collected body.
//!
//! Only CRLF "." CRLF ends data. A CR without LF or a LF without CR never ends a line and marks the body as
//! [`BodyFault::BareLineEnd`]: it is read to its true end and refused, so nothing can be smuggled past it.
//! Limits: octets of the body, [`BODY_LINE_BYTES_MAX`]; above them octets are read and thrown away.

use bytes::Bytes;

/// Longest line of a message (bytes). RFC 5321 §4.5.3.1.6 asks for 1000; newsletters exceed it and harm nobody.
pub const BODY_LINE_BYTES_MAX: usize = 1024 * 1024;

/// Why a body that was read to its end is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFault {
    /// More octets than allowed: 552 5.3.4.
    TooBig,
    /// A bare CR or LF: 550 5.6.0.
    BareLineEnd,
    /// A line above [`BODY_LINE_BYTES_MAX`]: 550 5.6.0.
    LineTooLong,
    /// Too many messages are in memory: 452 4.3.1.
    NoRoom,
}

/// Collects a body and watches its lines.
#[derive(Debug)]
pub struct Body {
    bytes: Vec<u8>,
    size_max: usize,
    line_bytes: usize,
    after_cr: bool,
    fault: Option<BodyFault>,
}

impl Body {
    /// An empty body of at most `size_max` octets.
    #[must_use]
    pub const fn new(size_max: usize) -> Self {
        Self { bytes: Vec::new(), size_max, line_bytes: 0, after_cr: false, fault: None }
    }

    /// Adds octets as they are.
    pub fn push(&mut self, octets: &[u8]) {
        if self.fault.is_some() {
            return;
        }
        if self.bytes.len().saturating_add(octets.len()) > self.size_max {
            self.fail(BodyFault::TooBig);
            return;
        }
        for &octet in octets {
            match (self.after_cr, octet) {
                (true, b'\n') => self.line_bytes = 0,
                (true, _) | (false, b'\n') => return self.fail(BodyFault::BareLineEnd),
                (false, _) => self.line_bytes += 1,
            }
            self.after_cr = octet == b'\r';
            if self.line_bytes > BODY_LINE_BYTES_MAX {
                return self.fail(BodyFault::LineTooLong);
            }
        }
        self.bytes.extend_from_slice(octets);
    }

    /// Octets kept so far.
    #[must_use]
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// The memory goes at once: a body that will be refused is not kept until its end.
    pub fn fail(&mut self, fault: BodyFault) {
        self.fault = Some(fault);
        self.bytes = Vec::new();
    }

    /// The whole body.
    ///
    /// # Errors
    /// [`BodyFault`]: refuse the message.
    pub fn finish(self) -> Result<Bytes, BodyFault> {
        match self.fault {
            Some(fault) => Err(fault),
            None if self.after_cr => Err(BodyFault::BareLineEnd),
            None => Ok(self.bytes.into()),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// After CRLF, or at the very start.
    LineStart,
    /// After a dot at the start of a line.
    Dot,
    /// After that dot and a CR.
    DotCr,
    Line,
    /// After a CR inside a line.
    LineCr,
}

/// Reads DATA up to its final dot.
#[derive(Debug)]
pub struct DataReader {
    body: Body,
    at: At,
}

impl DataReader {
    /// At the start of data of at most `size_max` octets.
    #[must_use]
    pub const fn new(size_max: usize) -> Self {
        Self { body: Body::new(size_max), at: At::LineStart }
    }

    /// Reads octets; returns how many, and whether the last of them ended the data.
    pub fn read(&mut self, input: &[u8]) -> (usize, bool) {
        let mut kept = 0;
        for (index, &octet) in input.iter().enumerate() {
            let next = step(self.at, octet);
            // A dot at the start of a line is never part of the body; a CR after it only when no LF follows.
            match (self.at, next) {
                (At::LineStart, At::Dot) => {
                    self.push(input, kept, index);
                    kept = index + 1;
                }
                (At::Dot, At::DotCr) => kept = index + 1,
                (At::DotCr, At::LineStart) => return (index + 1, true),
                (At::DotCr, _) => self.body.push(b"\r"),
                _ => {}
            }
            self.at = next;
        }
        self.push(input, kept, input.len());
        (input.len(), false)
    }

    fn push(&mut self, input: &[u8], from: usize, to: usize) {
        if let Some(octets) = input.get(from..to).filter(|o| !o.is_empty()) {
            self.body.push(octets);
        }
    }

    /// Octets kept so far.
    #[must_use]
    pub fn size(&self) -> usize {
        self.body.size()
    }

    /// Gives the body up; it is still read to its end.
    pub fn fail(&mut self, fault: BodyFault) {
        self.body.fail(fault);
    }

    /// The body, when [`DataReader::read`] said it has ended.
    ///
    /// # Errors
    /// As [`Body::finish`].
    pub fn finish(self) -> Result<Bytes, BodyFault> {
        self.body.finish()
    }
}

fn step(at: At, octet: u8) -> At {
    match (at, octet) {
        (At::LineStart, b'.') => At::Dot,
        (At::Dot, b'\r') => At::DotCr,
        (At::LineCr | At::DotCr, b'\n') => At::LineStart,
        (_, b'\r') => At::LineCr,
        _ => At::Line,
    }
}

/// The body as DATA sends it: dots doubled, ended by CRLF "." CRLF.
#[must_use]
pub fn stuff(body: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(body.len() + body.len() / 64 + 5);
    for line in body.split_inclusive(|&b| b == b'\n') {
        if line.starts_with(b".") {
            out.push(b'.');
        }
        out.extend_from_slice(line);
    }
    if !out.is_empty() && !out.ends_with(b"\r\n") {
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b".\r\n");
    out.into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(input: &[u8]) -> (Option<usize>, Result<Bytes, BodyFault>) {
        let mut reader = DataReader::new(1000);
        let (used, ended) = reader.read(input);
        (ended.then_some(used), reader.finish())
    }

    #[test]
    fn dots_are_taken_away_and_end_the_data() {
        for (input, body) in [
            (&b".\r\n"[..], &b""[..]),
            (b"a\r\n.\r\n", b"a\r\n"),
            (b"..\r\n.\r\n", b".\r\n"),
            (b".a\r\n..b\r\n.\r\n", b"a\r\n.b\r\n"),
            (b"a.\r\n.\r\n", b"a.\r\n"),
        ] {
            assert_eq!(read(input), (Some(input.len()), Ok(Bytes::copy_from_slice(body))), "{input:?}");
        }
        assert_eq!(read(b"a\r\n.\r\nQUIT\r\n").0, Some(6));
    }

    #[test]
    fn bare_line_ends_never_end_data_and_are_refused() {
        for input in [&b"a\n.\n"[..], b"a\n.\r\n", b"a\r.\r", b"a\r\n.\n", b"a\r\n.\r", b"a\r.\r\n", b"\n.\r\n"] {
            assert_eq!(read(input).0, None, "{input:?}");
            let whole = [input, b"\r\n.\r\n"].concat();
            let (end, body) = read(&whole);
            assert_eq!((end, body), (Some(whole.len()), Err(BodyFault::BareLineEnd)), "{whole:?}");
        }
    }

    #[test]
    fn limits() {
        let mut reader = DataReader::new(5);
        assert_eq!(reader.read(b"abcd\r\n.\r\n"), (9, true));
        assert_eq!(reader.finish(), Err(BodyFault::TooBig));
        let mut body = Body::new(usize::MAX);
        body.push(&vec![b'a'; BODY_LINE_BYTES_MAX + 1]);
        assert_eq!(body.finish(), Err(BodyFault::LineTooLong));
    }

    proptest! {
        #[test]
        fn stuffed_bodies_come_back_in_any_pieces(
            lines in proptest::collection::vec("[.a]{0,4}", 0..6), cut in 1usize..7,
        ) {
            let body: Vec<u8> = lines.iter().flat_map(|l| [l.as_bytes(), b"\r\n"].concat()).collect();
            let wire = stuff(&body);
            let mut reader = DataReader::new(1000);
            let mut ended = false;
            for piece in wire.chunks(cut) {
                prop_assert!(!ended);
                ended = reader.read(piece).1;
            }
            prop_assert!(ended);
            prop_assert_eq!(reader.finish(), Ok(Bytes::from(body)));
        }

        #[test]
        fn pieces_do_not_matter(input in proptest::collection::vec(prop::sample::select(b".\r\na".to_vec()), 0..40)) {
            let mut whole = DataReader::new(1000);
            let (used, ended) = whole.read(&input);
            let mut single = DataReader::new(1000);
            let mut at = 0;
            let mut single_ended = false;
            for piece in input.chunks(1) {
                at += 1;
                single_ended = single.read(piece).1;
                if single_ended {
                    break;
                }
            }
            prop_assert_eq!((used, ended), (at, single_ended));
            prop_assert_eq!(whole.finish(), single.finish());
        }
    }
}
