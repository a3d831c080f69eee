//! Pieces of responses (RFC 3501 §9).

use vocab::Flags;

use crate::codec::parser::is_atom_byte;
use crate::codec::utf7;

/// An astring: bare where it may be, quoted or a literal elsewhere.
#[must_use]
pub fn astring(text: &str) -> String {
    let bare = !text.is_empty() && text.bytes().all(|b| is_atom_byte(b) && b != b']');
    if bare { text.to_owned() } else { string(text) }
}

/// A quoted string, or a literal where quoting cannot say it.
#[must_use]
pub fn string(text: &str) -> String {
    let mut out = Vec::new();
    mime::render::string(&mut out, text.as_bytes());
    String::from_utf8_lossy(&out).into_owned()
}

/// A mailbox name in modified UTF-7, always quoted: some clients take a bare name apart at its separators.
#[must_use]
pub fn mailbox(name: &str) -> String {
    string(&utf7::encode(name))
}

/// `(\Seen $Junk)`
#[must_use]
pub fn flags(flags: &Flags) -> String {
    let names: Vec<&str> = flags.names().collect();
    format!("({})", names.join(" "))
}
