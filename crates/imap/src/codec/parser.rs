//! Reads the words of RFC 3501 §9 from one collected command.

use bytes::Bytes;

/// Why a command is malformed; the text goes to the client after BAD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

/// Result of reading a production.
pub type Parsed<T> = Result<T, Malformed>;

/// A place in a collected command.
#[derive(Debug)]
pub struct Parser<'a> {
    input: &'a Bytes,
    at: usize,
}

/// ATOM-CHAR (RFC 3501 §9), with `]` allowed as clients send it.
#[must_use]
pub fn is_atom_byte(b: u8) -> bool {
    b > 0x20 && b < 0x7f && !b"(){%*\"\\".contains(&b)
}

impl<'a> Parser<'a> {
    /// At the start.
    #[must_use]
    pub fn new(input: &'a Bytes) -> Self {
        Self { input, at: 0 }
    }
    /// What is left.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.input.get(self.at..).unwrap_or_default()
    }
    /// The next byte.
    #[must_use]
    pub fn peek(&self) -> Option<u8> {
        self.input.get(self.at).copied()
    }
    /// Takes the byte if it is next.
    pub fn take(&mut self, byte: u8) -> bool {
        let hit = self.peek() == Some(byte);
        self.at += usize::from(hit);
        hit
    }
    /// Takes the word if it is next, without regard to case.
    pub fn take_word(&mut self, word: &str) -> bool {
        let hit = self.rest().get(..word.len()).is_some_and(|next| next.eq_ignore_ascii_case(word.as_bytes()));
        self.at += if hit { word.len() } else { 0 };
        hit
    }
    /// One blank (quirk: clients send several).
    ///
    /// # Errors
    /// When there is none.
    pub fn space(&mut self) -> Parsed<()> {
        if !self.take(b' ') {
            return Err(Malformed("space expected"));
        }
        while self.take(b' ') {}
        Ok(())
    }
    /// The byte must come.
    ///
    /// # Errors
    /// When another does.
    pub fn expect(&mut self, byte: u8, what: &'static str) -> Parsed<()> {
        if self.take(byte) { Ok(()) } else { Err(Malformed(what)) }
    }
    /// The end must come; blanks before it are forgiven.
    ///
    /// # Errors
    /// When there is more.
    pub fn end(&mut self) -> Parsed<()> {
        while self.take(b' ') {}
        if self.at >= self.input.len() { Ok(()) } else { Err(Malformed("unexpected text at the end of the command")) }
    }
    /// Bytes while `accept` says so; may be empty.
    pub fn take_while(&mut self, accept: impl Fn(u8) -> bool) -> &'a [u8] {
        let rest = self.rest();
        let end = rest.iter().position(|b| !accept(*b)).unwrap_or(rest.len());
        self.at += end;
        rest.get(..end).unwrap_or_default()
    }
    /// atom, as text (all atoms are ASCII).
    ///
    /// # Errors
    /// When there is none.
    pub fn atom(&mut self) -> Parsed<&'a str> {
        let word = self.take_while(is_atom_byte);
        if word.is_empty() {
            Err(Malformed("word expected"))
        } else {
            Ok(std::str::from_utf8(word).unwrap_or_default())
        }
    }
    /// Letters, digits, `-`, `.` and `=`: names of commands, items and keys.
    ///
    /// # Errors
    /// When there is none.
    pub fn name(&mut self) -> Parsed<String> {
        let word = self.take_while(|b| b.is_ascii_alphanumeric() || b"-.=_".contains(&b));
        if word.is_empty() {
            return Err(Malformed("name expected"));
        }
        Ok(String::from_utf8_lossy(word).to_ascii_uppercase())
    }
    /// number of at most 63 bits.
    ///
    /// # Errors
    /// When there is none or it is too large.
    pub fn number(&mut self) -> Parsed<u64> {
        let digits = self.take_while(|b| b.is_ascii_digit());
        let value = std::str::from_utf8(digits).ok().and_then(|d| d.parse::<u64>().ok());
        value.filter(|v| *v <= u64::MAX / 2).ok_or(Malformed("number expected"))
    }
    /// astring: atom with `]`, quoted or literal.
    ///
    /// # Errors
    /// When there is none.
    pub fn astring(&mut self) -> Parsed<Bytes> {
        match self.peek() {
            Some(b'"' | b'{') => self.string(),
            // Quirk: UTF-8 in an unquoted word is taken as it is.
            _ => {
                let from = self.at;
                let word = self.take_while(|b| is_atom_byte(b) || b >= 0x80);
                if word.is_empty() { Err(Malformed("string expected")) } else { Ok(self.cut(from, self.at)) }
            }
        }
    }
    /// string: quoted or literal.
    ///
    /// # Errors
    /// When there is none.
    pub fn string(&mut self) -> Parsed<Bytes> {
        match self.peek() {
            Some(b'"') => self.quoted(),
            Some(b'{') => self.literal(),
            _ => Err(Malformed("string expected")),
        }
    }
    /// nstring: `None` for NIL.
    ///
    /// # Errors
    /// When there is neither.
    pub fn nstring(&mut self) -> Parsed<Option<Bytes>> {
        if matches!(self.peek(), Some(b'"' | b'{')) { self.string().map(Some) } else { self.nil().map(|()| None) }
    }
    /// literal: zero-copy.
    ///
    /// # Errors
    /// When there is none.
    pub fn literal(&mut self) -> Parsed<Bytes> {
        self.expect(b'{', "literal expected")?;
        let size = usize::try_from(self.number()?).map_err(|_| Malformed("literal too large"))?;
        self.take(b'+');
        self.expect(b'}', "malformed literal")?;
        self.take(b'\r');
        self.expect(b'\n', "malformed literal")?;
        let end = self.at.checked_add(size).filter(|end| *end <= self.input.len());
        let end = end.ok_or(Malformed("literal cut short"))?;
        let bytes = self.cut(self.at, end);
        self.at = end;
        Ok(bytes)
    }
    fn nil(&mut self) -> Parsed<()> {
        if self.take_word("NIL") { Ok(()) } else { Err(Malformed("string or NIL expected")) }
    }
    fn quoted(&mut self) -> Parsed<Bytes> {
        self.expect(b'"', "quoted string expected")?;
        let from = self.at;
        let plain = self.take_while(|b| b != b'"' && b != b'\\' && b != b'\r' && b != b'\n' && b != 0);
        if self.take(b'"') {
            return Ok(self.cut(from, self.at - 1));
        }
        let mut text = plain.to_vec();
        loop {
            match self.peek() {
                Some(b'\\') => {
                    self.at += 1;
                    match self.peek() {
                        Some(b @ (b'"' | b'\\')) => text.push(b),
                        _ => return Err(Malformed("bad escape in quoted string")),
                    }
                }
                Some(b'"') => {
                    self.at += 1;
                    return Ok(text.into());
                }
                Some(b'\r' | b'\n' | 0) | None => return Err(Malformed("quoted string without end")),
                Some(b) => text.push(b),
            }
            self.at += 1;
        }
    }
    /// Parenthesised, blank-separated list; may be empty.
    ///
    /// # Errors
    /// Those of `item`, or a missing parenthesis.
    pub fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> Parsed<T>) -> Parsed<Vec<T>> {
        self.expect(b'(', "( expected")?;
        let mut items = Vec::new();
        loop {
            while self.take(b' ') {}
            if self.take(b')') {
                return Ok(items);
            }
            items.push(item(self)?);
            if !matches!(self.peek(), Some(b' ' | b')')) {
                return Err(Malformed(") expected"));
            }
        }
    }
    fn cut(&self, from: usize, to: usize) -> Bytes {
        self.input.slice(from.min(to)..to.min(self.input.len()))
    }
}

/// A string as text; bytes that are no UTF-8 are replaced.
#[must_use]
pub fn text_of(bytes: &Bytes) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse<T>(text: &'static str, read: impl FnOnce(&mut Parser<'_>) -> Parsed<T>) -> Parsed<T> {
        let bytes = Bytes::from_static(text.as_bytes());
        let mut parser = Parser::new(&bytes);
        let value = read(&mut parser)?;
        parser.end()?;
        Ok(value)
    }

    #[test]
    fn strings() {
        for (text, value) in [
            ("abc", "abc"),
            ("\"a b\"", "a b"),
            ("\"a\\\"\\\\b\"", "a\"\\b"),
            ("{3}\r\na\"b", "a\"b"),
            ("{2+}\r\n\r\n", "\r\n"),
            ("\"\"", ""),
            ("a]", "a]"),
        ] {
            assert_eq!(parse(text, |p| p.astring()).as_deref(), Ok(value.as_bytes()), "{text}");
        }
        for bad in ["", "\"a", "\"a\\n\"", "{3}\r\nab", "{3}ab", "{}\r\n", "(", "{99999999999999999999}\r\n"] {
            assert!(parse(bad, |p| p.astring()).is_err(), "{bad}");
        }
        assert_eq!(parse("nil", |p| p.nstring()), Ok(None));
    }

    #[test]
    fn lists() {
        let atoms = |p: &mut Parser<'_>| p.list(|p| p.atom().map(str::to_owned));
        assert_eq!(parse("(a b)", atoms), Ok(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(parse("()", atoms), Ok(vec![]));
        for bad in ["(a", "a)", "(a\"b\")", "(a (b))"] {
            assert!(parse(bad, atoms).is_err(), "{bad}");
        }
    }
}
