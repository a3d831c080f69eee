//! ENVELOPE and BODYSTRUCTURE as they go to the client (RFC 9051 §7.5.2, RFC 3501 §7.4.2): quoted strings where the
//! bytes allow it, literals elsewhere, so that they fit IMAP4rev1 too.

use crate::address::{Mailbox, parse_list};
use crate::header::{self, unfold};
use crate::params;
use crate::structure::{PartKind, Scanned};

/// Longer strings are sent as literals.
const QUOTED_BYTES_MAX: usize = 1000;

/// Writes an IMAP string.
pub fn string(out: &mut Vec<u8>, bytes: &[u8]) {
    let quotable = bytes.len() <= QUOTED_BYTES_MAX && bytes.iter().all(|b| (0x20..0x7f).contains(b));
    if quotable {
        out.push(b'"');
        for byte in bytes {
            if matches!(byte, b'"' | b'\\') {
                out.push(b'\\');
            }
            out.push(*byte);
        }
        out.push(b'"');
        return;
    }
    // A literal may hold anything but NUL.
    let clean: Vec<u8> = bytes.iter().copied().filter(|b| *b != 0).collect();
    out.extend(format!("{{{}}}\r\n", clean.len()).as_bytes());
    out.extend(clean);
}

/// Writes an IMAP string or NIL.
pub fn nstring(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => string(out, bytes),
        None => out.extend(b"NIL"),
    }
}

/// All fields of one name as one list: repeated To fields are taken together.
fn joined(header: &[u8], name: &str) -> Option<Vec<u8>> {
    let values: Vec<Vec<u8>> = header::header_fields(header).filter(|f| f.is(name)).map(|f| unfold(f.value)).collect();
    (!values.is_empty()).then(|| values.join(&b", "[..]))
}

fn addresses(out: &mut Vec<u8>, list: &[Mailbox]) {
    if list.is_empty() {
        out.extend(b"NIL");
        return;
    }
    out.push(b'(');
    for mailbox in list {
        out.push(b'(');
        nstring(out, mailbox.personal.as_deref());
        out.push(b' ');
        nstring(out, mailbox.route.as_deref());
        out.push(b' ');
        nstring(out, mailbox.local.as_deref());
        out.push(b' ');
        // A local part without host would read as the start of a group.
        let group = mailbox.personal.is_none() && mailbox.route.is_none();
        match (&mailbox.host, &mailbox.local) {
            (None, Some(_)) if !group => string(out, b""),
            (host, _) => nstring(out, host.as_deref()),
        }
        out.push(b')');
    }
    out.push(b')');
}

/// The ENVELOPE of a message from its header section, parentheses included.
pub(crate) fn envelope(header: &[u8]) -> Vec<u8> {
    let list = |name: &str| joined(header, name).map(|v| parse_list(&v)).filter(|l| !l.is_empty());
    let from = list("From").unwrap_or_default();
    let mut out = vec![b'('];
    nstring(&mut out, header::first_value(header, "Date").as_deref());
    out.push(b' ');
    nstring(&mut out, header::first_value(header, "Subject").as_deref());
    for (name, default) in [("From", None), ("Sender", Some(&from)), ("Reply-To", Some(&from))] {
        out.push(b' ');
        let own = list(name);
        addresses(&mut out, own.as_ref().or(default).map_or(&[], Vec::as_slice));
    }
    for name in ["To", "Cc", "Bcc"] {
        out.push(b' ');
        addresses(&mut out, &list(name).unwrap_or_default());
    }
    for name in ["In-Reply-To", "Message-ID"] {
        out.push(b' ');
        nstring(&mut out, header::first_value(header, name).as_deref());
    }
    out.push(b')');
    out
}

/// Whether the extension data of BODYSTRUCTURE is written, or BODY.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Body,
    BodyStructure,
}

fn parameters(out: &mut Vec<u8>, params: &[(Vec<u8>, Vec<u8>)]) {
    if params.is_empty() {
        out.extend(b"NIL");
        return;
    }
    for (index, (name, value)) in params.iter().enumerate() {
        out.push(if index == 0 { b'(' } else { b' ' });
        string(out, name);
        out.push(b' ');
        string(out, value);
    }
    out.push(b')');
}

fn disposition(out: &mut Vec<u8>, header: &[u8]) {
    let parsed = header::first_value(header, "Content-Disposition").map(|v| params::parse(&v));
    let Some(parsed) = parsed.filter(|p| !p.value.is_empty()) else {
        out.extend(b"NIL");
        return;
    };
    out.push(b'(');
    string(out, parsed.value.as_bytes());
    out.push(b' ');
    parameters(out, &parsed.params);
    out.push(b')');
}

/// Content-Language: one tag or a list of tags (RFC 3282).
fn language(out: &mut Vec<u8>, header: &[u8]) {
    let value = header::first_value(header, "Content-Language").unwrap_or_default();
    let tags: Vec<&[u8]> = value.split(|b| *b == b',').map(<[u8]>::trim_ascii).filter(|t| !t.is_empty()).collect();
    if tags.is_empty() {
        out.extend(b"NIL");
        return;
    }
    for (index, tag) in tags.iter().enumerate() {
        out.push(if index == 0 { b'(' } else { b' ' });
        string(out, tag);
    }
    out.push(b')');
}

fn extension_tail(out: &mut Vec<u8>, header: &[u8]) {
    out.push(b' ');
    disposition(out, header);
    out.push(b' ');
    language(out, header);
    out.push(b' ');
    nstring(out, header::first_value(header, "Content-Location").as_deref());
}

fn type_pair(content_type: &str) -> (&str, &str) {
    content_type.split_once('/').unwrap_or(("application", "octet-stream"))
}

/// BODY or BODYSTRUCTURE of a part.
pub(crate) fn body(out: &mut Vec<u8>, message: &[u8], scanned: &Scanned, form: Form) {
    let part = &scanned.part;
    let header = crate::facts::slice(message, &part.header);
    let (main, sub) = type_pair(&scanned.content_type.value);
    out.push(b'(');
    if part.kind == PartKind::Multipart {
        for child in &scanned.children {
            body(out, message, child, form);
        }
        out.push(b' ');
        string(out, sub.as_bytes());
        if form == Form::BodyStructure {
            out.push(b' ');
            parameters(out, &scanned.content_type.params);
            extension_tail(out, header);
        }
        out.push(b')');
        return;
    }
    string(out, main.as_bytes());
    out.push(b' ');
    string(out, sub.as_bytes());
    out.push(b' ');
    leaf_fields(out, header, scanned);
    if part.kind == PartKind::Message {
        for child in &scanned.children {
            out.push(b' ');
            out.extend(envelope(crate::facts::slice(message, &child.part.header)));
            out.push(b' ');
            body(out, message, child, form);
        }
    }
    if part.kind == PartKind::Message || main == "text" {
        out.extend(format!(" {}", scanned.lines).as_bytes());
    }
    if form == Form::BodyStructure {
        out.push(b' ');
        nstring(out, header::first_value(header, "Content-MD5").as_deref());
        extension_tail(out, header);
    }
    out.push(b')');
}

/// Parameters, id, description, encoding and size.
fn leaf_fields(out: &mut Vec<u8>, header: &[u8], scanned: &Scanned) {
    let part = &scanned.part;
    let params = &scanned.content_type.params;
    if params.is_empty() && scanned.content_type.value == "text/plain" {
        // RFC 2045 §5.2: the default type has this charset.
        parameters(out, &[(b"charset".to_vec(), b"us-ascii".to_vec())]);
    } else {
        parameters(out, params);
    }
    for name in ["Content-ID", "Content-Description"] {
        out.push(b' ');
        nstring(out, header::first_value(header, name).as_deref());
    }
    out.push(b' ');
    let encoding = header::first_value(header, "Content-Transfer-Encoding").map(|v| params::parse(&v).value);
    string(out, encoding.filter(|e| !e.is_empty()).as_deref().unwrap_or("7bit").as_bytes());
    out.extend(format!(" {}", part.body.end - part.body.start).as_bytes());
}
