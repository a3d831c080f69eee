//! The log: structured records of mail, security, access, administration, cluster and protocol, numbered by the node that
//! makes them, kept in a database of their own and collected on the primary (HA-04).
//!
//! `book.rs`: the database; `notes.rs`: the thread that writes; `ship.rs`: to the primary and back as a copy; `keep.rs`: what
//! grows old; `search.rs`, `view.rs`: questions and answers; `syslog.rs`: forwarding; `collector.rs`: all of it together.

mod book;
mod collector;
mod keep;
mod keys;
mod lab;
mod notes;
mod search;
mod ship;
mod syslog;
mod view;

pub use book::{Book, Kept, LogError, Numbered};
pub use collector::{Collector, CollectorConfig, Standing};
pub use keys::Class;
pub use notes::{NOTES_WAITING_MAX, Notes};
pub use ship::{LogService, PrimaryLogs};
pub use syslog::message as syslog_message;
pub use view::{KINDS, text};
