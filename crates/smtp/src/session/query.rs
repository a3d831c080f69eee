//! What a session asks and what it is told. Answers come from ports; the session knows none of them.

use std::net::IpAddr;

use bytes::Bytes;
use sasl::Credentials;
use vocab::{AccountId, Address, CommandId, ForwardPath, ReversePath};

/// A verified login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The account.
    pub account: AccountId,
    /// Its address.
    pub address: Address,
}

/// One place a forward-path leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A local account.
    Local(AccountId),
    /// An address elsewhere.
    Remote(Address),
}

/// What is known of a forward-path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Class {
    /// Ours, with everything it leads to.
    Own(Vec<Target>),
    /// Our domain, nobody of that name: 550 5.1.1.
    NoSuchUser,
    /// Ours, but switched off: 550 5.2.1.
    Disabled,
    /// A domain of others: 550 5.7.1 unless authenticated.
    NotOurs,
}

/// One accepted RCPT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvelopeRecipient {
    /// As the client named it.
    pub path: ForwardPath,
    /// Where it leads, as it was when RCPT was answered.
    pub targets: Vec<Target>,
}

/// Everything about a transaction but the message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// Client's address.
    pub peer: IpAddr,
    /// Name given in EHLO or HELO.
    pub helo: String,
    /// EHLO was used.
    pub extended: bool,
    /// TLS is on.
    pub tls: bool,
    /// Who has logged in.
    pub identity: Option<Identity>,
    /// Where failures go.
    pub reverse_path: ReversePath,
    /// `SMTPUTF8` was said.
    pub smtputf8: bool,
    /// At least one.
    pub recipients: Vec<EnvelopeRecipient>,
}

/// A message with its envelope, as it came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incoming {
    /// Envelope.
    pub envelope: Envelope,
    /// CRLF lines, without Received of ours.
    pub body: Bytes,
}

/// Questions.
#[derive(Debug)]
pub enum Query {
    /// Where does it lead? Answered by [`Answer::Class`].
    Classify(ForwardPath),
    /// Is the password right? Answered by [`Answer::Login`]; a wrong one is delayed by whoever answers.
    Authenticate(Credentials),
    /// May this login use this reverse-path? Answered by [`Answer::Allowed`].
    MaySendAs(Identity, Address),
    /// May this session hold so many bytes of message in memory in total? Answered by [`Answer::Allowed`]. The bytes
    /// are given back with [`Query::Accept`], or when less is asked for.
    Hold(usize),
    /// Make it durable. Answered by [`Answer::Accepted`].
    Accept(Box<Incoming>),
}

/// Answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To [`Query::Classify`].
    Class(Class),
    /// To [`Query::Authenticate`]; `None` = refused.
    Login(Option<Identity>),
    /// To [`Query::MaySendAs`] and [`Query::Hold`].
    Allowed(bool),
    /// To [`Query::Accept`]: durable for every recipient.
    Accepted(CommandId),
    /// To any: cannot be answered now (451 4.3.2, for a login 454 4.7.0).
    Unavailable,
    /// To [`Query::Accept`]: no room on the disk (452 4.3.1).
    NoSpace,
}
