//! Records of the log, as they are made, shipped to the primary and kept. Encoded as protobuf; fields are only ever added.

use bytes::Bytes;
use prost::Message as _;

use crate::batch::LogRecord;
use crate::ids::CommandId;
use crate::rows::Damaged;

/// One record.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Record {
    /// Unix milliseconds, by the clock of the node that made it.
    #[prost(uint64, tag = "1")]
    pub at: u64,
    /// What it says; none: written by a newer program.
    #[prost(oneof = "Entry", tags = "2, 3, 4, 5, 6, 7")]
    pub entry: Option<Entry>,
}

/// What a record says, by log.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Entry {
    /// What became of a message for one recipient (LOG-01 to LOG-04).
    #[prost(message, tag = "2")]
    Mail(Mail),
    /// What was refused or found (LOG-05).
    #[prost(message, tag = "3")]
    Security(Security),
    /// A login, or one that failed.
    #[prost(message, tag = "4")]
    Access(Access),
    /// A change of settings (LOG-06).
    #[prost(message, tag = "5")]
    Admin(Admin),
    /// What a node decided and why.
    #[prost(message, tag = "6")]
    Cluster(Cluster),
    /// A line of SMTP in either direction; never a body, never a credential.
    #[prost(message, tag = "7")]
    Protocol(Protocol),
}

/// What became of a message for a recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum MailEvent {
    /// Not known to this program.
    Unknown = 0,
    /// Acknowledged: on every node in sync.
    Accept = 1,
    /// A filter decided something.
    Filter = 2,
    /// Another server took it.
    Deliver = 3,
    /// Not taken now; it is tried again.
    Defer = 4,
    /// Not deliverable: its sender was told, or nobody could be.
    Bounce = 5,
}

/// From where to where a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum Direction {
    /// Not known to this program.
    Unknown = 0,
    /// From outside to an account here.
    In = 1,
    /// From an account here to the outside.
    Out = 2,
    /// Between accounts here.
    Within = 3,
    /// From outside to the outside: an alias leads out again.
    Through = 4,
}

/// The mail log.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Mail {
    /// What happened.
    #[prost(enumeration = "MailEvent", tag = "1")]
    pub event: i32,
    /// Accept id as in the reply to DATA and in Received.
    #[prost(string, tag = "2")]
    pub accept: String,
    /// Message-ID as written.
    #[prost(string, tag = "3")]
    pub message_id: String,
    /// Reverse-path; empty for a report.
    #[prost(string, tag = "4")]
    pub sender: String,
    /// Final recipient.
    #[prost(string, tag = "5")]
    pub recipient: String,
    /// Recipient as the sender named it, when that is another.
    #[prost(string, tag = "6")]
    pub original: String,
    /// Subject, decoded.
    #[prost(string, tag = "7")]
    pub subject: String,
    /// Bytes of the message.
    #[prost(uint64, tag = "8")]
    pub size: u64,
    /// From where to where.
    #[prost(enumeration = "Direction", tag = "9")]
    pub direction: i32,
    /// In words, or as the other server said it.
    #[prost(string, tag = "10")]
    pub outcome: String,
    /// Enhanced status code (RFC 3463), when there is one.
    #[prost(string, tag = "11")]
    pub status: String,
    /// Made by this system: a report, an alert.
    #[prost(bool, tag = "12")]
    pub system: bool,
    /// Address of the client, or name of the server that was asked.
    #[prost(string, tag = "13")]
    pub host: String,
    /// Who was logged in.
    #[prost(string, tag = "14")]
    pub user: String,
    /// Which attempt, from 1; 0 for an acceptance.
    #[prost(uint32, tag = "15")]
    pub attempt: u32,
}

/// The types of the security log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum SecurityType {
    /// Not known to this program.
    Unknown = 0,
    /// Refused by a rule of the server.
    Rejected = 1,
    /// Spam.
    Spam = 2,
    /// Virus.
    Virus = 3,
    /// The client is on a block list in the DNS.
    Dnsbl = 4,
    /// Content that does harm.
    MaliciousContent = 5,
    /// An attachment that is not allowed.
    AttachmentFilter = 6,
    /// On a block list of the administrator.
    Blacklist = 7,
    /// SPF.
    Spf = 8,
    /// DKIM.
    Dkim = 9,
    /// DMARC.
    Dmarc = 10,
    /// Content that may not leave.
    DataProtection = 11,
}

/// The security log.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Security {
    /// Its type.
    #[prost(enumeration = "SecurityType", tag = "1")]
    pub kind: i32,
    /// Address the connection came from.
    #[prost(string, tag = "2")]
    pub source: String,
    /// Reverse-path.
    #[prost(string, tag = "3")]
    pub sender: String,
    /// Recipient as named.
    #[prost(string, tag = "4")]
    pub recipient: String,
    /// Subject, if it was read.
    #[prost(string, tag = "5")]
    pub subject: String,
    /// In words.
    #[prost(string, tag = "6")]
    pub event: String,
}

/// The access log.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Access {
    /// Protocol.
    #[prost(string, tag = "1")]
    pub protocol: String,
    /// As given by the client.
    #[prost(string, tag = "2")]
    pub user: String,
    /// Address of the client.
    #[prost(string, tag = "3")]
    pub host: String,
    /// Let in.
    #[prost(bool, tag = "4")]
    pub success: bool,
    /// Why not.
    #[prost(string, tag = "5")]
    pub reason: String,
}

/// The admin log.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Admin {
    /// What was done.
    #[prost(string, tag = "1")]
    pub event: String,
    /// To what kind of thing.
    #[prost(string, tag = "2")]
    pub kind: String,
    /// Who.
    #[prost(string, tag = "3")]
    pub user: String,
    /// From where.
    #[prost(string, tag = "4")]
    pub host: String,
}

/// The cluster log.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Cluster {
    /// What it is about.
    #[prost(string, tag = "1")]
    pub kind: String,
    /// In words.
    #[prost(string, tag = "2")]
    pub text: String,
}

/// The protocol log.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Protocol {
    /// Tells sessions apart.
    #[prost(string, tag = "1")]
    pub session: String,
    /// The other side.
    #[prost(string, tag = "2")]
    pub host: String,
    /// From the other side; else from this one.
    #[prost(bool, tag = "3")]
    pub received: bool,
    /// Without its line end, without credentials.
    #[prost(string, tag = "4")]
    pub line: String,
}

/// Characters of a text from outside that are kept in a record (subject, diagnosis, name).
pub const TEXT_CHARS_MAX: usize = 500;

/// A text from outside, cut to [`TEXT_CHARS_MAX`] characters.
#[must_use]
pub fn text(from: &str) -> String {
    from.chars().take(TEXT_CHARS_MAX).collect()
}

impl Record {
    /// The record of an event of this command, to be written with its commit: what it is known by follows from command,
    /// recipient, event and attempt, so it is one record however often it is made.
    #[must_use]
    pub fn of_command(at: u64, id: CommandId, mail: Mail) -> LogRecord {
        let event = u8::try_from(mail.event).unwrap_or_default();
        let name = [&id.to_bytes()[..], &[event], &mail.attempt.to_be_bytes()].concat();
        let record = Self { at, entry: Some(Entry::Mail(mail)) };
        LogRecord { id: name.into(), bytes: record.encode_to_vec().into() }
    }

    /// Its bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        self.encode_to_vec().into()
    }

    /// A record from its bytes.
    ///
    /// # Errors
    /// They are none.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Damaged> {
        Self::decode(bytes).map_err(|error| Damaged(format!("a log record: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Boot, NodeId};

    #[test]
    fn one_event_of_one_command_is_one_record_however_often_it_is_made() {
        let id = CommandId { origin: NodeId(1), boot: Boot(2), counter: 3, recipient: 4 };
        let mail = |event: MailEvent, attempt| Mail { event: event.into(), attempt, ..Mail::default() };
        let made = |event, attempt| Record::of_command(7, id, mail(event, attempt));
        assert_eq!(made(MailEvent::Accept, 0).id, made(MailEvent::Accept, 0).id);
        assert_ne!(made(MailEvent::Accept, 0).id, made(MailEvent::Deliver, 0).id);
        assert_ne!(made(MailEvent::Defer, 1).id, made(MailEvent::Defer, 2).id);
        let other = Record::of_command(7, id.for_recipient(5), mail(MailEvent::Accept, 0));
        assert_ne!(made(MailEvent::Accept, 0).id, other.id);
        let read = Record::from_bytes(&made(MailEvent::Defer, 2).bytes).expect("a record");
        assert_eq!(read, Record { at: 7, entry: Some(Entry::Mail(mail(MailEvent::Defer, 2))) });
    }

    #[test]
    fn a_record_of_a_newer_program_is_read_without_what_is_not_known() {
        let bytes = [&Record { at: 9, entry: None }.to_bytes()[..], &[0xfa, 0x01, 0x01, b'x']].concat();
        assert_eq!(Record::from_bytes(&bytes), Ok(Record { at: 9, entry: None }));
        assert!(Record::from_bytes(b"\x08").is_err());
    }

    #[test]
    fn the_bytes_of_a_record_stay_what_they_are() {
        let record = Record {
            at: 1,
            entry: Some(Entry::Access(Access { protocol: "imap".into(), success: true, ..Access::default() })),
        };
        assert_eq!(&record.to_bytes()[..], b"\x08\x01\x22\x08\x0a\x04imap\x20\x01");
    }
}
