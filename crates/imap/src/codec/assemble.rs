//! Collects one command: its lines and the literals between them (RFC 3501 §4.3, RFC 7888).
//!
//! The collected bytes keep their wire form (`{n}CRLF` and the literal), so that the parser reads one slice and a
//! literal is cut out of it without a copy.
//! Limits: [`Limits`] per command; a synchronizing literal above them is refused before it is sent, a
//! non-synchronizing one ends the connection.

use bytes::{Bytes, BytesMut};

/// What one command may weigh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all lines and literals but those of APPEND.
    pub command_bytes: usize,
    /// Bytes of the literal of APPEND; 0 while nobody is logged in.
    pub append_bytes: usize,
}

/// What came out of a piece of input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Assembled {
    /// More is needed.
    Incomplete,
    /// The client waits for consent to send its literal: say `+`.
    ConsentWanted,
    /// A large message is announced: find room for it, then consent if the client waits.
    RoomWanted {
        /// Bytes.
        size: usize,
        /// Whether the client waits for consent.
        synchronizing: bool,
        /// Beginning of the command, for its tag.
        piece: Bytes,
    },
    /// One command without its last CRLF.
    Command(Bytes),
    /// Above the limit; the rest of the line was or will be skipped. Say BAD (with the tag, if any).
    LineTooLong(Bytes),
    /// A synchronizing literal above the limit; it will not come. Say NO [TOOBIG] with the tag.
    LiteralTooLarge(Bytes),
    /// A non-synchronizing literal above the limit: say BAD and BYE and close.
    FloodAhead(Bytes),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Line,
    Literal { left: usize },
    Skipping,
}

/// Messages up to this size are taken without asking for room (bytes).
pub const ROOM_FREE_BYTES: usize = 64 * 1024;
/// Longest piece of a broken command that is kept to find its tag.
const TAG_PIECE_BYTES: usize = 256;

/// The command that is being collected.
#[derive(Debug)]
pub struct Assembler {
    buffer: BytesMut,
    state: State,
    line_start: usize,
    append_literal_bytes: usize,
}

impl Default for Assembler {
    fn default() -> Self {
        Self { buffer: BytesMut::new(), state: State::Line, line_start: 0, append_literal_bytes: 0 }
    }
}

impl Assembler {
    /// Takes input up to the next event and returns the bytes used; call again while input is left.
    pub fn take(&mut self, input: &[u8], limits: Limits) -> (usize, Assembled) {
        match self.state {
            State::Literal { left } => {
                let used = left.min(input.len());
                self.buffer.extend_from_slice(input.get(..used).unwrap_or_default());
                self.state = State::Literal { left: left - used };
                if left == used {
                    self.state = State::Line;
                    self.line_start = self.buffer.len();
                }
                (used, Assembled::Incomplete)
            }
            State::Line => self.take_line(input, limits),
            State::Skipping => match input.iter().position(|b| *b == b'\n') {
                Some(end) => {
                    *self = Self::default();
                    (end + 1, Assembled::Incomplete)
                }
                None => (input.len(), Assembled::Incomplete),
            },
        }
    }

    /// Takes one line as it is, without looking for literals (answers to `+`, DONE).
    pub fn take_plain_line(&mut self, input: &[u8], line_bytes_max: usize) -> (usize, Assembled) {
        let end = input.iter().position(|b| *b == b'\n');
        let used = end.map_or(input.len(), |end| end + 1);
        if self.buffer.len() + used > line_bytes_max {
            let event = Assembled::LineTooLong(Bytes::new());
            *self = Self::default();
            self.state = if end.is_some() { State::Line } else { State::Skipping };
            return (used, event);
        }
        self.buffer.extend_from_slice(input.get(..used).unwrap_or_default());
        (used, if end.is_some() { self.finish() } else { Assembled::Incomplete })
    }

    /// Whether part of a command has come.
    #[must_use]
    pub fn is_within_command(&self) -> bool {
        !self.buffer.is_empty() || self.state != State::Line
    }

    fn take_line(&mut self, input: &[u8], limits: Limits) -> (usize, Assembled) {
        let end = input.iter().position(|b| *b == b'\n');
        let used = end.map_or(input.len(), |end| end + 1);
        if self.buffer.len() - self.append_literal_bytes + used > limits.command_bytes {
            let room = limits.command_bytes.saturating_sub(self.buffer.len()).min(used).min(TAG_PIECE_BYTES);
            self.buffer.extend_from_slice(input.get(..room).unwrap_or_default());
            let event = Assembled::LineTooLong(self.tag_piece());
            *self = Self::default();
            self.state = if end.is_some() { State::Line } else { State::Skipping };
            return (used, event);
        }
        self.buffer.extend_from_slice(input.get(..used).unwrap_or_default());
        if end.is_none() {
            return (used, Assembled::Incomplete);
        }
        let line = self.buffer.get(self.line_start..).unwrap_or_default();
        let event = match announced_literal(line) {
            Some((size, synchronizing)) => self.begin_literal(size, synchronizing, limits),
            None => self.finish(),
        };
        (used, event)
    }

    fn begin_literal(&mut self, size: u64, synchronizing: bool, limits: Limits) -> Assembled {
        let for_append = limits.append_bytes > 0 && is_append(&self.buffer);
        let room = if for_append {
            limits.append_bytes.saturating_sub(self.append_literal_bytes)
        } else {
            limits.command_bytes.saturating_sub(self.buffer.len())
        };
        match usize::try_from(size) {
            Ok(size) if size <= room => {
                if for_append {
                    self.append_literal_bytes += size;
                }
                self.state = State::Literal { left: size };
                if size == 0 {
                    self.state = State::Line;
                    self.line_start = self.buffer.len();
                }
                if for_append && size > ROOM_FREE_BYTES {
                    return Assembled::RoomWanted { size, synchronizing, piece: self.tag_piece() };
                }
                if synchronizing { Assembled::ConsentWanted } else { Assembled::Incomplete }
            }
            _ => {
                let piece = self.tag_piece();
                *self = Self::default();
                if synchronizing { Assembled::LiteralTooLarge(piece) } else { Assembled::FloodAhead(piece) }
            }
        }
    }

    fn tag_piece(&self) -> Bytes {
        Bytes::copy_from_slice(self.buffer.get(..self.buffer.len().min(TAG_PIECE_BYTES)).unwrap_or_default())
    }

    fn finish(&mut self) -> Assembled {
        let mut buffer = std::mem::take(self).buffer;
        if buffer.last() == Some(&b'\n') {
            buffer.truncate(buffer.len() - 1);
        }
        if buffer.last() == Some(&b'\r') {
            buffer.truncate(buffer.len() - 1);
        }
        Assembled::Command(buffer.freeze())
    }
}

/// `{n}` or `{n+}` at the end of a line: the size, and whether the client waits.
fn announced_literal(line: &[u8]) -> Option<(u64, bool)> {
    let line = line.strip_suffix(b"\n")?;
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let inner = line.strip_suffix(b"}")?;
    let open = inner.iter().rposition(|b| *b == b'{')?;
    let digits = inner.get(open + 1..)?;
    let (digits, synchronizing) = match digits.strip_suffix(b"+") {
        Some(digits) => (digits, false),
        None => (digits, true),
    };
    if digits.is_empty() || digits.len() > 19 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some((std::str::from_utf8(digits).ok()?.parse().ok()?, synchronizing))
}

/// Whether the command is APPEND and this literal can be the message: the mailbox name is there already.
fn is_append(buffer: &[u8]) -> bool {
    let mut words = buffer.splitn(4, |b| *b == b' ');
    let (Some(_), Some(name), Some(mailbox)) = (words.next(), words.next(), words.next()) else { return false };
    // A mailbox name that is a literal itself is small: the first literal then begins the third word.
    let first_is_name = mailbox.first() == Some(&b'{') && words.next().is_none();
    name.eq_ignore_ascii_case(b"APPEND") && !first_is_name
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { command_bytes: 100, append_bytes: 1000 };

    fn feed(input: &[u8], limits: Limits) -> Vec<Assembled> {
        let mut assembler = Assembler::default();
        let mut events = Vec::new();
        let mut rest = input;
        while !rest.is_empty() {
            let (used, event) = assembler.take(rest, limits);
            assert!(used > 0);
            rest = &rest[used..];
            if event != Assembled::Incomplete {
                events.push(event);
            }
        }
        events
    }

    #[test]
    fn lines_and_literals() {
        assert_eq!(feed(b"a NOOP\r\nb", LIMITS), [Assembled::Command("a NOOP".into())]);
        assert_eq!(
            feed(b"a LOGIN {1}\r\nx {2+}\r\n\r\n y\n", LIMITS),
            [Assembled::ConsentWanted, Assembled::Command("a LOGIN {1}\r\nx {2+}\r\n\r\n y".into())]
        );
        assert_eq!(
            feed(b"a APPEND {0}\r\n\r\n", LIMITS),
            [Assembled::ConsentWanted, Assembled::Command("a APPEND {0}\r\n".into())]
        );
    }

    #[test]
    fn limits_hold() {
        let line = [b"a ", [b'x'; 200].as_slice(), b"\r\nb NOOP\r\n"].concat();
        let events = feed(&line, LIMITS);
        assert!(matches!(&events[..], [Assembled::LineTooLong(p), Assembled::Command(_)] if p.starts_with(b"a ")));
        assert_eq!(feed(b"a LOGIN {101}\r\n", LIMITS), [Assembled::LiteralTooLarge("a LOGIN {101}\r\n".into())]);
        assert_eq!(feed(b"a LOGIN {101+}\r\n", LIMITS), [Assembled::FloodAhead("a LOGIN {101+}\r\n".into())]);
        assert_eq!(feed(b"a APPEND x {1000}\r\n", LIMITS), [Assembled::ConsentWanted]);
        assert!(matches!(feed(b"a APPEND x {1001}\r\n", LIMITS)[..], [Assembled::LiteralTooLarge(_)]));
        assert!(matches!(feed(b"a APPEND {1000}\r\n", LIMITS)[..], [Assembled::LiteralTooLarge(_)]));
        let nobody = Limits { append_bytes: 0, ..LIMITS };
        assert!(matches!(feed(b"a APPEND x {1000}\r\n", nobody)[..], [Assembled::LiteralTooLarge(_)]));
    }

    proptest::proptest! {
        #[test]
        fn any_input_is_consumed(input: Vec<u8>, cut in 1usize..7) {
            let mut assembler = Assembler::default();
            for piece in input.chunks(cut) {
                let mut rest = piece;
                while !rest.is_empty() {
                    let (used, _) = assembler.take(rest, LIMITS);
                    proptest::prop_assert!(used > 0 && used <= rest.len());
                    rest = &rest[used..];
                }
            }
            proptest::prop_assert!(assembler.buffer.len() <= 1200);
        }
    }
}
