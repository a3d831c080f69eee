//! Multi-line data on the wire (RFC 1939 §3): dot-stuffing, and the cut of TOP.

/// Makes the wire form of a message that comes in pieces. A bare LF is written as CRLF: clients that end lines at any
/// LF would otherwise see a lone dot in the content as the end of the message.
#[derive(Debug)]
pub struct DotStuffer {
    line_start: bool,
    last: u8,
}

impl Default for DotStuffer {
    fn default() -> Self {
        Self { line_start: true, last: b'\n' }
    }
}

impl DotStuffer {
    /// Appends the wire form of the next piece to `out`.
    pub fn push(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        out.reserve(piece.len() + piece.len() / 32 + 8);
        for line in piece.split_inclusive(|b| *b == b'\n') {
            if self.line_start && line.first() == Some(&b'.') {
                out.push(b'.');
            }
            match line.strip_suffix(b"\n") {
                Some(content) => {
                    out.extend_from_slice(content);
                    if content.last().copied().unwrap_or(self.last) != b'\r' {
                        out.push(b'\r');
                    }
                    out.push(b'\n');
                    self.line_start = true;
                }
                None => {
                    out.extend_from_slice(line);
                    self.line_start = false;
                }
            }
            self.last = line.last().copied().unwrap_or(self.last);
        }
    }

    /// Ends the last line if need be and writes the lone dot.
    pub fn finish(self, out: &mut Vec<u8>) {
        out.extend_from_slice(if self.line_start { b".\r\n" } else { b"\r\n.\r\n" });
    }
}

/// Where TOP ends: after the blank line that ends the header and so many lines of the body.
#[derive(Debug)]
pub struct Top {
    header: bool,
    blank: bool,
    left: u64,
    done: bool,
}

impl Top {
    /// The header and `lines` lines.
    #[must_use]
    pub const fn new(lines: u64) -> Self {
        Self { header: true, blank: true, left: lines, done: false }
    }
    /// How much of the next piece belongs to the answer.
    pub fn take(&mut self, piece: &[u8]) -> usize {
        for (at, byte) in piece.iter().enumerate() {
            if self.done {
                return at;
            }
            match byte {
                b'\n' if self.header && self.blank => {
                    self.header = false;
                    self.done = self.left == 0;
                }
                b'\n' if self.header => self.blank = true,
                b'\n' => {
                    self.left -= 1;
                    self.done = self.left == 0;
                }
                b'\r' => {}
                _ => self.blank = false,
            }
        }
        piece.len()
    }
    /// Whether nothing more is wanted.
    #[must_use]
    pub const fn is_done(&self) -> bool {
        self.done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(message: &[u8], cut: usize) -> Vec<u8> {
        let (mut stuffer, mut out) = (DotStuffer::default(), Vec::new());
        message.chunks(cut.max(1)).for_each(|piece| stuffer.push(piece, &mut out));
        stuffer.finish(&mut out);
        out
    }

    #[test]
    fn dots_and_ends() {
        for cut in 1..20 {
            assert_eq!(wire(b"a\r\n.\r\n..b\r\nc.d", cut), b"a\r\n..\r\n...b\r\nc.d\r\n.\r\n");
            assert_eq!(wire(b"a\n.\r\nb\n", cut), b"a\r\n..\r\nb\r\n.\r\n");
            assert_eq!(wire(b"", cut), b".\r\n");
            assert_eq!(wire(b"\n", cut), b"\r\n.\r\n");
        }
    }

    #[test]
    fn top_cuts_after_the_lines() {
        let message = b"A: b\r\nC: d\r\n\r\n1\r\n2\r\n\r\n4";
        let cut = |lines, piece: usize| {
            let mut top = Top::new(lines);
            message.chunks(piece).map(|p| top.take(p)).sum::<usize>()
        };
        for piece in 1..9 {
            assert_eq!(cut(0, piece), 14);
            assert_eq!(cut(1, piece), 17);
            assert_eq!(cut(3, piece), 22);
            assert_eq!(cut(99, piece), message.len());
        }
    }

    proptest::proptest! {
        #[test]
        fn unstuffing_gives_the_message_back(lines in proptest::collection::vec("[.a-c\r]{0,4}", 0..8), cut in 1usize..9) {
            let message: Vec<u8> = lines.iter().flat_map(|l| format!("{}\r\n", l.trim_end_matches('\r')).into_bytes()).collect();
            let wire = wire(&message, cut);
            let body = wire.strip_suffix(b".\r\n").expect("ends");
            let mut back = Vec::new();
            for line in body.split_inclusive(|b| *b == b'\n') {
                back.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
            }
            proptest::prop_assert_eq!(back, message);
        }
    }
}
