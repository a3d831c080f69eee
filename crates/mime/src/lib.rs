//! Message text to structure: header fields, ENVELOPE and BODYSTRUCTURE facts.
//!
//! Sealed and total: any bytes are a message, broken ones are described as one opaque part.

pub mod thread;

pub use thread::ThreadId;
