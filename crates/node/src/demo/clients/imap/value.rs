//! The values of an IMAP response: atoms, strings, lists, NIL (RFC 9051 §4).

/// Nesting that is followed; deeper lists are dropped.
const DEPTH_MAX: usize = 100;

/// One value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Atom, number or section name (`BODY[HEADER.FIELDS (A)]` is one atom).
    Atom(String),
    /// Quoted string or literal.
    Bytes(Vec<u8>),
    /// Parenthesised list.
    List(Vec<Value>),
    /// NIL.
    Nil,
}

impl Value {
    /// All values of a response; what cannot be read ends the list.
    #[must_use]
    pub fn parse_all(bytes: &[u8]) -> Vec<Self> {
        let mut reader = Reader { bytes, at: 0 };
        reader.values(0)
    }

    /// Atom or string as text.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        match self {
            Self::Atom(text) => Some(text.clone()),
            Self::Bytes(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
            Self::List(_) | Self::Nil => None,
        }
    }

    /// The bytes of an atom or string.
    #[must_use]
    pub fn bytes(&self) -> Option<Vec<u8>> {
        match self {
            Self::Atom(text) => Some(text.clone().into_bytes()),
            Self::Bytes(bytes) => Some(bytes.clone()),
            Self::List(_) | Self::Nil => None,
        }
    }

    /// An atom as number.
    #[must_use]
    pub fn number(&self) -> Option<u64> {
        match self {
            Self::Atom(text) => text.parse().ok(),
            _ => None,
        }
    }

    /// The members of a list.
    #[must_use]
    pub fn list(&self) -> Option<&[Self]> {
        match self {
            Self::List(values) => Some(values),
            _ => None,
        }
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn values(&mut self, depth: usize) -> Vec<Value> {
        let mut out = Vec::new();
        while let Some(byte) = self.peek() {
            match byte {
                b' ' | b'\r' | b'\n' => self.at += 1,
                b')' => {
                    self.at += 1;
                    return out;
                }
                b'(' if depth < DEPTH_MAX => {
                    self.at += 1;
                    let inner = self.values(depth + 1);
                    out.push(Value::List(inner));
                }
                b'(' => return out,
                b'"' => out.push(self.quoted()),
                b'{' => match self.literal() {
                    Some(value) => out.push(value),
                    None => return out,
                },
                _ => out.push(self.atom()),
            }
        }
        out
    }

    fn quoted(&mut self) -> Value {
        self.at += 1;
        let mut out = Vec::new();
        while let Some(byte) = self.peek() {
            self.at += 1;
            match byte {
                b'"' => break,
                b'\\' => {
                    out.extend(self.peek());
                    self.at += 1;
                }
                _ => out.push(byte),
            }
        }
        Value::Bytes(out)
    }

    fn literal(&mut self) -> Option<Value> {
        let rest = self.bytes.get(self.at + 1..)?;
        let close = rest.iter().position(|&byte| byte == b'}')?;
        let count: usize = std::str::from_utf8(rest.get(..close)?).ok()?.parse().ok()?;
        let body = rest.get(close + 3..)?.get(..count)?;
        self.at += 1 + close + 3 + count;
        Some(Value::Bytes(body.to_vec()))
    }

    fn atom(&mut self) -> Value {
        let start = self.at;
        let mut brackets = 0_usize;
        while let Some(byte) = self.peek() {
            match byte {
                b'[' => brackets += 1,
                b']' => brackets = brackets.saturating_sub(1),
                b' ' | b'(' | b')' if brackets == 0 => break,
                _ => {}
            }
            self.at += 1;
        }
        let text = String::from_utf8_lossy(self.bytes.get(start..self.at).unwrap_or_default()).into_owned();
        if text.eq_ignore_ascii_case("NIL") { Value::Nil } else { Value::Atom(text) }
    }
}
