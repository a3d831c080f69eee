//! Every fixed reply of the server, with its enhanced status (RFC 3463, RFC 5248). Words for strangers: no insides.

use vocab::address::AddressFault;

use crate::codec::command::Malformed;
use crate::codec::data::BodyFault;
use crate::codec::params::ParamFault;
use crate::codec::reply::Reply;

pub(crate) const OK: Reply = Reply::new(250, "2.0.0", "ok");
pub(crate) const SENDER_OK: Reply = Reply::new(250, "2.1.0", "reverse-path ok");
pub(crate) const RECIPIENT_OK: Reply = Reply::new(250, "2.1.5", "recipient ok");
pub(crate) const CHUNK_OK: Reply = Reply::new(250, "2.0.0", "chunk ok");
pub(crate) const BYE: Reply = Reply::new(221, "2.0.0", "bye");
pub(crate) const START_TLS: Reply = Reply::new(220, "2.0.0", "go ahead");
pub(crate) const LOGGED_IN: Reply = Reply::new(235, "2.7.0", "authenticated");
pub(crate) const HELP: Reply = Reply::new(214, "2.0.0", "see RFC 5321");
pub(crate) const VERIFY: Reply = Reply::new(252, "2.5.2", "send the mail to find out");
pub(crate) const SEND_DATA: Reply = Reply::new(354, "", "end data with <CRLF>.<CRLF>");

pub(crate) const STOPPING: Reply = Reply::new(421, "4.3.2", "service not available, try again");
pub(crate) const IDLE: Reply = Reply::new(421, "4.4.2", "timeout, closing");
pub(crate) const TOO_MANY_ERRORS: Reply = Reply::new(421, "4.7.0", "too many errors, closing");
pub(crate) const UNAVAILABLE: Reply = Reply::new(451, "4.3.2", "not now, try again");
pub(crate) const LOGIN_UNAVAILABLE: Reply = Reply::new(454, "4.7.0", "cannot check the login now, try again");
pub(crate) const NO_SPACE: Reply = Reply::new(452, "4.3.1", "no room now, try again");
pub(crate) const TOO_MANY_RECIPIENTS: Reply = Reply::new(452, "4.5.3", "too many recipients");

pub(crate) const LINE_TOO_LONG: Reply = Reply::new(500, "5.5.2", "line too long");
pub(crate) const BARE_LINE_END: Reply = Reply::new(500, "5.5.2", "lines end with <CRLF>");
pub(crate) const NO_EXPN: Reply = Reply::new(502, "5.5.1", "not implemented");
pub(crate) const SEQUENCE: Reply = Reply::new(503, "5.5.1", "bad sequence of commands");
pub(crate) const HELLO_FIRST: Reply = Reply::new(503, "5.5.1", "say EHLO first");
pub(crate) const NO_RECIPIENTS: Reply = Reply::new(554, "5.5.1", "no valid recipients");
pub(crate) const NO_AUTH_HERE: Reply = Reply::new(503, "5.5.1", "no authentication here, use submission");
pub(crate) const MECHANISM: Reply = Reply::new(504, "5.5.4", "mechanism not offered");
pub(crate) const AUTH_CANCELLED: Reply = Reply::new(501, "5.7.0", "authentication cancelled");
pub(crate) const AUTH_MALFORMED: Reply = Reply::new(501, "5.5.2", "cannot read the response");
pub(crate) const LOGIN_REFUSED: Reply = Reply::new(535, "5.7.8", "authentication credentials invalid");
pub(crate) const AUTH_REQUIRED: Reply = Reply::new(530, "5.7.0", "authentication required");
pub(crate) const TLS_REQUIRED: Reply = Reply::new(538, "5.7.11", "encryption required for authentication");
pub(crate) const TLS_NOT_HERE: Reply = Reply::new(502, "5.5.1", "STARTTLS not available");

pub(crate) const NO_SUCH_USER: Reply = Reply::new(550, "5.1.1", "no such user here");
pub(crate) const DISABLED: Reply = Reply::new(550, "5.2.1", "mailbox disabled");
pub(crate) const NO_RELAY: Reply = Reply::new(550, "5.7.1", "relaying denied");
pub(crate) const NOT_YOURS: Reply = Reply::new(553, "5.7.1", "not your address");
pub(crate) const NEEDS_SMTPUTF8: Reply = Reply::new(553, "5.6.7", "this address needs SMTPUTF8");
pub(crate) const TOO_BIG: Reply = Reply::new(552, "5.3.4", "message too big");
pub(crate) const HEADER_TOO_BIG: Reply = Reply::new(552, "5.3.4", "message header too big");
pub(crate) const LOOP: Reply = Reply::new(554, "5.4.6", "too many hops, this message loops");

/// The reply to a line that is no command.
pub(crate) const fn malformed(fault: Malformed) -> Reply {
    match fault {
        Malformed::Unknown => Reply::new(500, "5.5.1", "unknown command"),
        Malformed::Octets => Reply::new(500, "5.5.2", "bad characters"),
        Malformed::Syntax => Reply::new(501, "5.5.4", "syntax error in arguments"),
        Malformed::ReversePath(AddressFault::Domain) => Reply::new(501, "5.1.8", "bad domain in reverse-path"),
        Malformed::ReversePath(_) => Reply::new(501, "5.1.7", "bad reverse-path"),
        Malformed::ForwardPath(_) => Reply::new(501, "5.1.3", "bad forward-path"),
        Malformed::Parameter(ParamFault::Unknown) => Reply::new(555, "5.5.4", "parameter not recognised"),
        Malformed::Parameter(ParamFault::Value) => Reply::new(501, "5.5.4", "bad parameter value"),
    }
}

/// The reply to a body that was read and is not taken.
pub(crate) const fn body(fault: BodyFault) -> Reply {
    match fault {
        BodyFault::TooBig => TOO_BIG,
        BodyFault::BareLineEnd => Reply::new(550, "5.6.0", "bare CR or LF in message, lines end with <CRLF>"),
        BodyFault::LineTooLong => Reply::new(550, "5.6.0", "line too long in message"),
        BodyFault::NoRoom => NO_SPACE,
    }
}
