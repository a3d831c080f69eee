//! What the client reads from EHLO and writes into MAIL and RCPT.

use vocab::{Address, ReversePath};

use super::Job;
use crate::codec::reply::RemoteReply;

/// What the host offers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Extensions {
    pub starttls: bool,
    pub eight_bit: bool,
    pub smtputf8: bool,
    /// SIZE is offered; 0 = no limit named.
    pub size_max: Option<u64>,
}

impl Extensions {
    pub(super) fn read(reply: &RemoteReply) -> Self {
        let mut extensions = Self::default();
        for line in reply.lines.iter().skip(1) {
            let mut words = line.split_ascii_whitespace();
            match words.next().unwrap_or("").to_ascii_uppercase().as_str() {
                "STARTTLS" => extensions.starttls = true,
                "8BITMIME" => extensions.eight_bit = true,
                "SMTPUTF8" => extensions.smtputf8 = true,
                "SIZE" => extensions.size_max = Some(words.next().and_then(|n| n.parse().ok()).unwrap_or(0)),
                _ => {}
            }
        }
        extensions
    }
}

/// RFC 6531: an address or a header field beyond ASCII. A message that only came in with the word needs it no more.
pub(super) fn needs_smtputf8(job: &Job) -> bool {
    let header = job.body.get(..mime::header_length(&job.body)).unwrap_or_default();
    job.reverse_path.address().is_some_and(|a| !a.is_ascii())
        || job.recipients.iter().any(|a| !a.is_ascii())
        || (job.smtputf8 && !header.is_ascii())
}

pub(super) fn reverse_path(path: &ReversePath) -> String {
    path.address().map_or_else(|| "<>".to_owned(), forward_path)
}

/// In angle brackets; address literals of IPv6 carry their tag on the wire (RFC 5321 §4.1.3).
pub(super) fn forward_path(address: &Address) -> String {
    match address.domain.as_str().strip_prefix('[') {
        Some(literal) if literal.contains(':') => format!("<{}@[IPv6:{literal}>", address.local),
        _ => format!("<{address}>"),
    }
}
