//! The report of a failed delivery: RFC 3464 in a multipart/report (RFC 6522) with the header of the original.

use std::fmt::Write as _;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;
use vocab::{Address, CommandId, Timestamp};

use crate::op::{Failure, QueueItem};

/// Header bytes of the original that are sent back at most.
pub const HEADER_RETURNED_BYTES_MAX: usize = 64 * 1024;
/// Recipients of one report (a reverse-path may be an alias).
pub const REPORT_RECIPIENTS_MAX: usize = 256;
/// Set in the recipient numbers of a report, whose ids are made from the item's: repeating it takes effect once, and
/// none of them is a command of the original message.
const REPORT_MARK: u32 = 0x8000_0000;
/// Recipient numbers of items fit in here, so that the mark above is not touched.
const ITEM_NUMBER_MASK: u32 = 0x003f_ffff;
/// Longest remote text that is quoted (bytes).
const DIAGNOSTIC_BYTES_MAX: usize = 900;

/// Id of the recipient with this index (below [`REPORT_RECIPIENTS_MAX`]) of the report about an item; that of index 0
/// is the accept id of the report.
#[must_use]
pub const fn report_id(item: CommandId, index: u32) -> CommandId {
    CommandId { recipient: REPORT_MARK | ((item.recipient & ITEM_NUMBER_MASK) << 8) | (index & 0xff), ..item }
}

/// The item a report is about.
pub(crate) fn item_of(report: CommandId) -> CommandId {
    CommandId { recipient: (report.recipient & !REPORT_MARK) >> 8, ..report }
}

/// The accept id of the message, or of the report, that an item is from.
#[must_use]
pub fn accept_of(item: CommandId) -> CommandId {
    let recipient = if item.recipient & REPORT_MARK == 0 { 0 } else { item.recipient & !0xff };
    CommandId { recipient, ..item }
}

/// Writes the report about `item`, given up at `at` because of `failure`, to `to` (its reverse-path). `host` is this
/// cluster's mail name; `original` is the message as accepted, of which only the header section goes back.
/// The bytes depend on the arguments alone, so a repeated bounce is the same message.
#[must_use]
pub fn write_bounce(
    item: &QueueItem,
    failure: &Failure,
    to: &Address,
    host: &str,
    original: &[u8],
    at: Timestamp,
) -> Vec<u8> {
    let header = header_of(original);
    let boundary = boundary_for(item, header);
    let mut text = String::new();
    write_top(&mut text, item, to, host, at);
    let _ =
        write!(text, "Content-Type: multipart/report; report-type=delivery-status;\r\n\tboundary=\"{boundary}\"\r\n");
    text.push_str("Content-Transfer-Encoding: 8bit\r\n\r\n");
    let _ = write!(text, "--{boundary}\r\n");
    write_words(&mut text, item, failure, host);
    let _ = write!(text, "\r\n--{boundary}\r\n");
    write_status(&mut text, item, failure, host, at);
    let _ = write!(text, "\r\n--{boundary}\r\nContent-Type: {}\r\n", header_type(header));
    let _ = write!(text, "Content-Transfer-Encoding: {}\r\n\r\n", if header.is_ascii() { "7bit" } else { "8bit" });
    let mut out = text.into_bytes();
    out.extend_from_slice(header);
    if !header.ends_with(b"\r\n") {
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    out
}

fn write_top(text: &mut String, item: &QueueItem, to: &Address, host: &str, at: Timestamp) {
    let _ = write!(text, "Date: {}\r\n", date(at));
    let _ = write!(text, "From: Mail Delivery System <MAILER-DAEMON@{host}>\r\n");
    let _ = write!(text, "To: <{to}>\r\n");
    text.push_str("Subject: Undelivered Mail Returned to Sender\r\n");
    let _ = write!(text, "Message-ID: <bounce.{}@{host}>\r\n", item.id);
    text.push_str("Auto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\n");
}

/// For people: what happened, to whom, and that nothing more will come.
fn write_words(text: &mut String, item: &QueueItem, failure: &Failure, host: &str) {
    text.push_str("Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n");
    let _ = write!(text, "This is the mail system at {host}.\r\n\r\n");
    text.push_str(
        "Your message could not be delivered to this recipient, and no further attempt will be made:\r\n\r\n",
    );
    let _ = write!(text, "  <{}>\r\n", item.original_recipient.as_ref().unwrap_or(&item.recipient));
    if let Some(remote) = &failure.remote {
        let _ = write!(text, "  The host {} said:\r\n", one_line(remote));
    }
    let _ = write!(text, "  {} {}\r\n", one_line(&failure.status), one_line(&failure.diagnostic));
}

/// message/delivery-status, or its global form when an address needs it (RFC 6533 §4).
fn write_status(text: &mut String, item: &QueueItem, failure: &Failure, host: &str, at: Timestamp) {
    let original = item.original_recipient.as_ref();
    let ascii = item.recipient.is_ascii() && original.is_none_or(Address::is_ascii);
    let (kind, address_type) =
        if ascii { ("message/delivery-status", "rfc822") } else { ("message/global-delivery-status", "utf-8") };
    let _ = write!(text, "Content-Type: {kind}\r\n");
    if !ascii || !failure.diagnostic.is_ascii() {
        text.push_str("Content-Transfer-Encoding: 8bit\r\n");
    }
    let _ = write!(text, "\r\nReporting-MTA: dns; {host}\r\n");
    let _ = write!(text, "Arrival-Date: {}\r\n\r\n", date(item.accepted_at));
    if let Some(original) = original {
        let _ = write!(text, "Original-Recipient: {address_type}; {original}\r\n");
    }
    let _ = write!(text, "Final-Recipient: {address_type}; {}\r\n", item.recipient);
    text.push_str("Action: failed\r\n");
    let _ = write!(text, "Status: {}\r\n", permanent(&failure.status));
    if let Some(remote) = &failure.remote {
        let _ = write!(text, "Remote-MTA: dns; {}\r\n", one_line(remote));
        let _ = write!(text, "Diagnostic-Code: smtp; {}\r\n", one_line(&failure.diagnostic));
    }
    let _ = write!(text, "Last-Attempt-Date: {}\r\n", date(at));
}

/// `Action: failed` goes with class 5: a temporary status whose time is up is reported as such a failure.
fn permanent(status: &str) -> String {
    match one_line(status) {
        s if s.starts_with("5.") => s,
        s if s.starts_with("4.") => format!("5{}", s.get(1..).unwrap_or(".0.0")),
        _ => "5.0.0".into(),
    }
}

/// Remote text is a stranger's: one line, without controls, of bounded length.
fn one_line(text: &str) -> String {
    let mut line = String::new();
    for c in text.chars().map(|c| if c.is_control() { ' ' } else { c }) {
        if line.len() + c.len_utf8() > DIAGNOSTIC_BYTES_MAX {
            break;
        }
        line.push(c);
    }
    line.trim().to_owned()
}

fn date(at: Timestamp) -> String {
    i64::try_from(at.seconds())
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .and_then(|time| time.format(&Rfc2822).ok())
        .unwrap_or_else(|| "Thu, 01 Jan 1970 00:00:00 +0000".into())
}

/// The header section with the CRLF of its last field, cut at a line end when it is very long.
fn header_of(message: &[u8]) -> &[u8] {
    let end = message.windows(4).position(|w| w == b"\r\n\r\n").map_or(message.len(), |at| at + 2);
    let header = message.get(..end).unwrap_or(message);
    match header.get(..HEADER_RETURNED_BYTES_MAX) {
        None => header,
        Some(cut) => match cut.windows(2).rposition(|w| w == b"\r\n") {
            Some(at) => cut.get(..at + 2).unwrap_or(cut),
            None => cut,
        },
    }
}

fn header_type(header: &[u8]) -> &'static str {
    if header.is_ascii() || std::str::from_utf8(header).is_err() {
        "text/rfc822-headers"
    } else {
        "message/global-headers"
    }
}

/// A boundary that does not occur in the header that is quoted.
fn boundary_for(item: &QueueItem, header: &[u8]) -> String {
    let mut boundary = format!("=_{}_bounce", item.id);
    while header.windows(boundary.len()).any(|w| w == boundary.as_bytes()) {
        boundary.push('_');
    }
    boundary
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::tests::item;

    fn bounce(original: &[u8], failure: &Failure) -> String {
        let to = Address::parse("anna@example.org").expect("valid");
        let bytes = write_bounce(&item(1), failure, &to, "mail.example.org", original, Timestamp(1_700_000_060_000));
        String::from_utf8(bytes).expect("text")
    }

    fn failure() -> Failure {
        Failure {
            status: "5.1.1".into(),
            diagnostic: "550 5.1.1 no\r\nsuch: user".into(),
            remote: Some("mx.elsewhere.example".into()),
        }
    }

    #[test]
    fn a_bounce_has_three_parts_and_no_body_of_the_original() {
        let text = bounce(b"Subject: hello\r\nFrom: anna@example.org\r\n\r\nsecret body\r\n", &failure());
        for part in [
            "Date: Tue, 14 Nov 2023 22:14:20 +0000\r\n",
            "To: <anna@example.org>\r\n",
            "Auto-Submitted: auto-replied\r\n",
            "report-type=delivery-status",
            "\r\nContent-Type: message/delivery-status\r\n",
            "\r\nFinal-Recipient: rfc822; bob@elsewhere.example\r\nAction: failed\r\nStatus: 5.1.1\r\n",
            "\r\nDiagnostic-Code: smtp; 550 5.1.1 no  such: user\r\n",
            "\r\nContent-Type: text/rfc822-headers\r\n",
            "\r\nSubject: hello\r\nFrom: anna@example.org\r\n\r\n--=_1-2-3-1_bounce--\r\n",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(!text.contains("secret"));
        assert!(text.replace("\r\n", "").bytes().all(|b| b != b'\r' && b != b'\n'));
    }

    #[test]
    fn the_boundary_does_not_occur_in_the_header() {
        let text = bounce(b"Subject: =_1-2-3-1_bounce\r\n\r\n", &failure());
        assert!(text.contains("boundary=\"=_1-2-3-1_bounce_\""));
    }

    #[test]
    fn time_out_is_reported_as_permanent_and_long_headers_are_cut() {
        let header = "X-Long: abcdefgh\r\n".repeat(HEADER_RETURNED_BYTES_MAX / 10);
        let late = Failure { status: "4.4.1".into(), ..failure() };
        let text = bounce(header.as_bytes(), &late);
        assert!(text.contains("Status: 5.4.1\r\n"));
        assert!(text.len() < HEADER_RETURNED_BYTES_MAX + 4096);
        assert!(text.contains("abcdefgh\r\n\r\n--="));
    }

    proptest::proptest! {
        #[test]
        fn any_original_is_survived(original: Vec<u8>, diagnostic: String) {
            let to = Address::parse("anna@example.org").expect("valid");
            let failure = Failure { diagnostic, ..failure() };
            let _ = write_bounce(&item(1), &failure, &to, "h", &original, Timestamp(u64::MAX));
        }
    }
}
