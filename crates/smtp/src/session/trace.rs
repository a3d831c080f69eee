//! Fields a message gets on its way in: Received, Return-Path, Delivered-To, and what submission adds.

use std::fmt::Write as _;
use std::net::IpAddr;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;
use vocab::{CommandId, ForwardPath, ReversePath, Timestamp};

use crate::session::query::Envelope;

/// The Received field with the accept id (RFC 5321 §4.4). `for` only with one recipient: more would tell each about
/// the others.
#[must_use]
pub fn received(envelope: &Envelope, host: &str, accept: CommandId, at: Timestamp) -> String {
    let mut field = String::new();
    let _ = write!(field, "Received: from {} ({})\r\n", envelope.helo, literal(envelope.peer));
    let _ = write!(field, "\tby {host} with {} id {accept}", with_protocol(envelope));
    if let [only] = envelope.recipients.as_slice() {
        let _ = write!(field, "\r\n\tfor {}", only.path);
    }
    let _ = write!(field, ";\r\n\t{}\r\n", date(at));
    field
}

/// RFC 3848 and RFC 6531 §4.3.
fn with_protocol(envelope: &Envelope) -> String {
    let base = match (envelope.smtputf8, envelope.extended) {
        (true, _) => "UTF8SMTP",
        (false, true) => "ESMTP",
        // Without EHLO there is no registered word for TLS or AUTH.
        (false, false) => return "SMTP".to_owned(),
    };
    let tls = if envelope.tls { "S" } else { "" };
    let auth = if envelope.identity.is_some() { "A" } else { "" };
    format!("{base}{tls}{auth}")
}

fn literal(peer: IpAddr) -> String {
    match peer {
        IpAddr::V4(ip) => format!("[{ip}]"),
        IpAddr::V6(ip) => format!("[IPv6:{ip}]"),
    }
}

/// Return-Path and Delivered-To of one recipient: the prefix of its placement, before the shared body.
#[must_use]
pub fn recipient_prefix(reverse_path: &ReversePath, recipient: &ForwardPath) -> String {
    let delivered = match recipient {
        ForwardPath::Postmaster => "postmaster".to_owned(),
        ForwardPath::Address(address) => address.to_string(),
    };
    format!("Return-Path: {reverse_path}\r\nDelivered-To: {delivered}\r\n")
}

/// A Date field for a submitted message that has none (RFC 6409 §8.2).
#[must_use]
pub fn date_field(at: Timestamp) -> String {
    format!("Date: {}\r\n", date(at))
}

/// A Message-ID field for a submitted message that has none (RFC 6409 §8.3).
#[must_use]
pub fn message_id_field(accept: CommandId, host: &str) -> String {
    format!("Message-ID: <{accept}@{host}>\r\n")
}

fn date(at: Timestamp) -> String {
    i64::try_from(at.seconds())
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .and_then(|time| time.format(&Rfc2822).ok())
        .unwrap_or_else(|| "Thu, 01 Jan 1970 00:00:00 +0000".into())
}

#[cfg(test)]
mod tests {
    use vocab::{AccountId, Address, Boot, NodeId};

    use super::*;
    use crate::session::query::{EnvelopeRecipient, Identity};

    fn envelope() -> Envelope {
        let address = Address::parse("bob@example.org").expect("valid");
        Envelope {
            peer: IpAddr::from([192, 0, 2, 7]),
            helo: "client.example".into(),
            extended: true,
            tls: false,
            identity: None,
            reverse_path: ReversePath::Null,
            smtputf8: false,
            recipients: vec![EnvelopeRecipient { path: ForwardPath::Address(address), targets: vec![] }],
        }
    }

    #[test]
    fn received_names_the_accept_id() {
        let accept = CommandId { origin: NodeId(1), boot: Boot(2), counter: 0x1a, recipient: 0 };
        let at = Timestamp(1_700_000_060_000);
        let field = "Received: from client.example ([192.0.2.7])\r\n\tby mail.example.org with ESMTP id 1-2-1a\r\n\
                     \tfor <bob@example.org>;\r\n\tTue, 14 Nov 2023 22:14:20 +0000\r\n";
        assert_eq!(received(&envelope(), "mail.example.org", accept, at), field);
        let mut two = envelope();
        two.recipients.push(two.recipients[0].clone());
        assert!(!received(&two, "h", accept, at).contains("for"));
    }

    #[test]
    fn with_says_what_was_used() {
        let mut e = envelope();
        e.tls = true;
        assert_eq!(with_protocol(&e), "ESMTPS");
        let address = Address::parse("a@example.org").expect("valid");
        e.identity = Some(Identity { account: AccountId(16), address });
        assert_eq!(with_protocol(&e), "ESMTPSA");
        e.smtputf8 = true;
        assert_eq!(with_protocol(&e), "UTF8SMTPSA");
        assert_eq!(with_protocol(&Envelope { extended: false, ..envelope() }), "SMTP");
    }

    #[test]
    fn prefix_of_a_recipient() {
        assert_eq!(
            recipient_prefix(&ReversePath::Null, &ForwardPath::Postmaster),
            "Return-Path: <>\r\nDelivered-To: postmaster\r\n"
        );
    }
}
