//! Everything of IMAP that needs no socket: the grammar and one session as a sealed machine.
//!
//! Standards: RFC 3501; extensions in [`capability`]. Trust: every byte of a client is a stranger's.

pub mod capability;
pub mod codec;
pub mod quirks;
pub mod session;

pub use session::{Answer, ImapSession, LoginAnswer, Query, Settings};
