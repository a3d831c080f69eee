//! Characters: charsets, encoded words (RFC 2047) and transfer encodings (RFC 2045 §6).

use encoding_rs::Encoding;

/// The bytes as text: in the named charset, else UTF-8, else Windows-1252 (which takes everything).
#[must_use]
pub fn decode_charset(bytes: &[u8], charset: Option<&str>) -> String {
    let named = charset.and_then(|label| Encoding::for_label(label.as_bytes()));
    let named = named.filter(|encoding| *encoding != encoding_rs::UTF_8);
    match (named, std::str::from_utf8(bytes)) {
        (Some(encoding), _) => encoding.decode_without_bom_handling(bytes).0.into_owned(),
        (None, Ok(text)) => text.to_owned(),
        (None, Err(_)) if charset.is_some_and(|c| c.eq_ignore_ascii_case("utf-8")) => {
            String::from_utf8_lossy(bytes).into_owned()
        }
        (None, Err(_)) => encoding_rs::WINDOWS_1252.decode_without_bom_handling(bytes).0.into_owned(),
    }
}

/// Base64 that skips what does not belong (RFC 2045 §6.8) and ends at padding or the end.
#[must_use]
pub fn decode_base64(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() / 4 * 3);
    let (mut bits, mut count) = (0_u32, 0_u32);
    for byte in bytes {
        let six = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            b'=' => {
                // Padding ends a quantum; some writers join several padded texts.
                (bits, count) = (0, 0);
                continue;
            }
            _ => continue,
        };
        bits = (bits << 6) | u32::from(six);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    out
}

fn hex_pair(high: Option<&u8>, low: Option<&u8>) -> Option<u8> {
    let digit = |b: &u8| char::from(*b).to_digit(16);
    u8::try_from(digit(high?)? * 16 + digit(low?)?).ok()
}

/// Quoted-printable (RFC 2045 §6.7); what is not well-formed stays as it is.
#[must_use]
pub fn decode_quoted_printable(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        at += 1;
        if *byte != b'=' {
            out.push(*byte);
        } else if let Some(value) = hex_pair(bytes.get(at), bytes.get(at + 1)) {
            out.push(value);
            at += 2;
        } else {
            let end = crate::header::line_end(bytes, at);
            let rest = bytes.get(at..end).unwrap_or_default();
            if rest.trim_ascii().is_empty() {
                at = end;
            } else {
                out.push(b'=');
            }
        }
    }
    out
}

struct Word {
    text: String,
    length: usize,
}

/// An encoded word at the start of `bytes`.
fn encoded_word(bytes: &[u8]) -> Option<Word> {
    let rest = bytes.strip_prefix(b"=?")?;
    let charset_end = rest.iter().position(|b| *b == b'?')?;
    let (charset, rest) = rest.split_at_checked(charset_end)?;
    let kind = rest.get(1)?.to_ascii_uppercase();
    let rest = rest.get(2..)?.strip_prefix(b"?")?;
    let end = rest.windows(2).position(|pair| pair == b"?=")?;
    let encoded = rest.get(..end)?;
    if encoded.iter().any(|b| matches!(b, b'\r' | b'\n')) || charset.iter().any(u8::is_ascii_whitespace) {
        return None;
    }
    let decoded = match kind {
        b'B' => decode_base64(encoded),
        b'Q' => {
            let spaced: Vec<u8> = encoded.iter().map(|b| if *b == b'_' { b' ' } else { *b }).collect();
            decode_quoted_printable(&spaced)
        }
        _ => return None,
    };
    let label = std::str::from_utf8(charset).ok()?;
    // RFC 2231 §5: a language may follow the charset.
    let label = label.split('*').next().unwrap_or(label);
    let length = 2 + charset_end + 3 + end + 2;
    Some(Word { text: decode_charset(&decoded, Some(label)), length })
}

/// A header value as people read it: unfolded, encoded words decoded, white space between two of them dropped.
#[must_use]
pub fn decode_words(value: &[u8]) -> String {
    let value = crate::header::unfold(value);
    let mut out = String::new();
    let mut plain = Vec::new();
    let mut after_word = false;
    let mut at = 0;
    while let Some(byte) = value.get(at) {
        let word = if *byte == b'=' { encoded_word(value.get(at..).unwrap_or_default()) } else { None };
        let Some(word) = word else {
            plain.push(*byte);
            at += 1;
            continue;
        };
        if !(after_word && plain.iter().all(u8::is_ascii_whitespace)) {
            out.push_str(&decode_charset(&plain, None));
        }
        plain.clear();
        out.push_str(&word.text);
        at += word.length;
        after_word = true;
    }
    out.push_str(&decode_charset(&plain, None));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoded_words_are_decoded() {
        assert_eq!(decode_words(b"=?utf-8?q?Caf=C3=A9?= =?ISO-8859-1?Q?_cr=E8me?="), "Café crème");
        assert_eq!(decode_words(b"a =?utf-8?B?w6k=?= b"), "a é b");
        assert_eq!(decode_words(b"=?utf-8*en?B?w6k=?="), "é");
        assert_eq!(decode_words(b"=?broken"), "=?broken");
        assert_eq!(decode_words(b"=?x?y?z?="), "=?x?y?z?=");
        assert_eq!(decode_words(b"caf\xe9"), "café");
        assert_eq!(decode_words("naïve".as_bytes()), "naïve");
    }

    #[test]
    fn transfer_encodings_take_broken_input() {
        assert_eq!(decode_base64(b"aGVs\r\nbG8="), b"hello");
        assert_eq!(decode_base64(b"aGVsbG8"), b"hello");
        assert_eq!(decode_base64(b"!!"), b"");
        assert_eq!(decode_quoted_printable(b"a=3Db=\r\nc=\nd=zz="), b"a=bcd=zz");
    }
}
