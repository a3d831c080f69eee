//! Content-Type, Content-Disposition and their parameters (RFC 2045 §5.1, RFC 2183), as written; RFC 2231 forms are
//! passed on as they are, clients join them.

/// A value with parameters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Parameterised {
    /// Before the first semicolon, lower case.
    pub value: String,
    /// Names as written, values unquoted.
    pub params: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Parameterised {
    /// First parameter of this name.
    pub(crate) fn param(&self, name: &str) -> Option<&[u8]> {
        self.params.iter().find(|(n, _)| n.eq_ignore_ascii_case(name.as_bytes())).map(|(_, v)| v.as_slice())
    }
}

/// Walks over structured header text: white space, comments, quoted strings.
pub(crate) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }
    pub(crate) fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }
    pub(crate) fn bump(&mut self) {
        self.at += 1;
    }
    pub(crate) fn take(&mut self, byte: u8) -> bool {
        let hit = self.peek() == Some(byte);
        self.at += usize::from(hit);
        hit
    }
    /// Skips white space and comments; the text of the last comment, if any.
    pub(crate) fn skip_space(&mut self) -> Option<Vec<u8>> {
        let mut comment = None;
        loop {
            match self.peek() {
                Some(b' ' | b'\t' | b'\r' | b'\n') => self.bump(),
                Some(b'(') => comment = Some(self.comment()),
                _ => return comment,
            }
        }
    }
    fn comment(&mut self) -> Vec<u8> {
        let mut text = Vec::new();
        let mut depth = 0_usize;
        while let Some(byte) = self.peek() {
            self.bump();
            match byte {
                b'(' => {
                    depth += 1;
                    if depth == 1 {
                        continue;
                    }
                }
                b')' => {
                    depth -= 1;
                    if depth == 0 {
                        break;
                    }
                }
                b'\\' => {
                    text.extend(self.peek());
                    self.bump();
                    continue;
                }
                _ => {}
            }
            text.push(byte);
        }
        text
    }
    /// The inside of a quoted string whose opening quote is next.
    pub(crate) fn quoted(&mut self) -> Vec<u8> {
        self.bump();
        let mut text = Vec::new();
        while let Some(byte) = self.peek() {
            self.bump();
            match byte {
                b'"' => break,
                b'\\' => {
                    text.extend(self.peek());
                    self.bump();
                }
                b'\r' | b'\n' => {}
                _ => text.push(byte),
            }
        }
        text
    }
    /// Bytes up to white space or one of `stops`.
    pub(crate) fn until(&mut self, stops: &[u8]) -> &'a [u8] {
        let start = self.at;
        while self.peek().is_some_and(|b| !stops.contains(&b) && !b.is_ascii_whitespace()) {
            self.bump();
        }
        self.bytes.get(start..self.at).unwrap_or_default()
    }
}

/// Parses `value; name=value; ...`; whatever is not well-formed is left out.
pub(crate) fn parse(value: &[u8]) -> Parameterised {
    let mut cursor = Cursor::new(value);
    let mut out = Parameterised::default();
    let mut main = Vec::new();
    loop {
        cursor.skip_space();
        let word = cursor.until(b";(");
        if word.is_empty() {
            break;
        }
        main.extend(word);
    }
    out.value = String::from_utf8_lossy(&main).to_ascii_lowercase();
    while skip_to_semicolon(&mut cursor) {
        cursor.skip_space();
        let name = cursor.until(b"=;(").to_vec();
        cursor.skip_space();
        if name.is_empty() || !cursor.take(b'=') {
            continue;
        }
        cursor.skip_space();
        let value = if cursor.peek() == Some(b'"') { cursor.quoted() } else { cursor.until(b";(").to_vec() };
        out.params.push((name, value));
    }
    out
}

fn skip_to_semicolon(cursor: &mut Cursor<'_>) -> bool {
    loop {
        cursor.skip_space();
        match cursor.peek() {
            None => return false,
            Some(b';') => {
                cursor.bump();
                return true;
            }
            Some(b'"') => {
                cursor.quoted();
            }
            Some(_) => cursor.bump(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_unquoted() {
        let parsed = parse(b"Text/Plain; charset=\"utf\\\"8\" (x);\r\n name=a b; ; format = flowed ;x");
        assert_eq!(parsed.value, "text/plain");
        assert_eq!(parsed.param("CHARSET"), Some(&b"utf\"8"[..]));
        assert_eq!(parsed.param("format"), Some(&b"flowed"[..]));
        assert_eq!(parsed.param("name"), Some(&b"a"[..]));
    }

    #[test]
    fn unclosed_things_end_at_the_end() {
        assert_eq!(parse(b"a/b; x=\"y").param("x"), Some(&b"y"[..]));
        assert_eq!(parse(b"(((").value, "");
        assert_eq!(parse(b"a/b; x=\"\\").param("x"), Some(&b""[..]));
    }
}
