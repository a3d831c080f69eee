//! Modified UTF-7 of mailbox names (RFC 3501 §5.1.3).

use base64::Engine as _;
use base64::alphabet::IMAP_MUTF7;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

const ENGINE: GeneralPurpose = GeneralPurpose::new(
    &IMAP_MUTF7,
    GeneralPurposeConfig::new().with_encode_padding(false).with_decode_padding_mode(DecodePaddingMode::RequireNone),
);

/// A mailbox name from the wire. What is no modified UTF-7 is taken as UTF-8 where it is that (clients that enabled
/// nothing send raw UTF-8 and bare `&`); `None` when it is neither.
#[must_use]
pub fn decode(name: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(name).ok()?;
    Some(decode_strictly(text).unwrap_or_else(|| text.to_owned()))
}

fn decode_strictly(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('&') {
        out.push_str(before);
        let (code, tail) = after.split_once('-')?;
        if code.is_empty() {
            out.push('&');
        } else {
            let bytes = ENGINE.decode(code).ok().filter(|b| b.len() % 2 == 0)?;
            let units: Vec<u16> =
                bytes.chunks_exact(2).map(|c| c.iter().fold(0, |n, b| n << 8 | u16::from(*b))).collect();
            out.push_str(&String::from_utf16(&units).ok()?);
        }
        rest = tail;
    }
    Some(out + rest)
}

/// A mailbox name for the wire.
#[must_use]
pub fn encode(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let mut coded: Vec<u8> = Vec::new();
    let flush = |coded: &mut Vec<u8>, out: &mut String| {
        if !coded.is_empty() {
            *out += &format!("&{}-", ENGINE.encode(&coded));
            coded.clear();
        }
    };
    for c in name.chars() {
        if (' '..='~').contains(&c) {
            flush(&mut coded, &mut out);
            out.push(c);
            if c == '&' {
                out.push('-');
            }
        } else {
            coded.extend(c.encode_utf16(&mut [0; 2]).iter().flat_map(|unit| unit.to_be_bytes()));
        }
    }
    flush(&mut coded, &mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_both_ways() {
        for (plain, wire) in [
            ("INBOX", "INBOX"),
            ("A&B", "A&-B"),
            ("~peter/mail/台北/日本語", "~peter/mail/&U,BTFw-/&ZeVnLIqe-"),
            ("Entwürfe", "Entw&APw-rfe"),
            ("📬 x", "&2D3c7A- x"),
        ] {
            assert_eq!(encode(plain), wire);
            assert_eq!(decode(wire.as_bytes()).as_deref(), Some(plain));
        }
    }

    #[test]
    fn what_clients_send_otherwise() {
        assert_eq!(decode("Entwürfe & Co".as_bytes()).as_deref(), Some("Entwürfe & Co"));
        assert_eq!(decode(b"&AA-").as_deref(), Some("&AA-"));
        assert_eq!(decode(b"\xff"), None);
    }

    proptest::proptest! {
        #[test]
        fn every_name_survives(name: String) {
            proptest::prop_assert_eq!(decode(encode(&name).as_bytes()), Some(name));
        }
        #[test]
        fn any_bytes_are_survived(name: Vec<u8>) {
            let _ = decode(&name);
        }
    }
}
