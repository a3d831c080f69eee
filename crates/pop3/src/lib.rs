//! Everything of POP3 that needs no socket: RFC 1939 with CAPA (RFC 2449), STLS (RFC 2595), SASL (RFC 5034) and
//! response codes (RFC 2449 §8, RFC 3206).
//!
//! No lock: a session shows the INBOX as it was at login, and removes messages by placement id at QUIT. UIDL is the
//! placement id in hexadecimal. Retrieving changes no flags.

pub mod command;
pub mod session;
pub mod stuff;

pub use session::{Answer, Listed, Opened, Query, Session, Settings};
