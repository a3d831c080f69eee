//! Message text to structure: header fields, ENVELOPE and BODYSTRUCTURE facts.
//!
//! Sealed and total: any bytes are a message, broken ones are described as one opaque part. [`facts_of`] is run once
//! at accept; FETCH then cuts sections out of the raw bytes by [`Facts::section`].

mod address;
pub mod date;
pub mod facts;
pub mod header;
mod params;
pub mod render;
pub mod structure;
pub mod text;
pub mod thread;
pub mod word;

pub use date::{Day, parse_day};
pub use facts::{Facts, SectionText, facts_of, slice, thread_of};
pub use header::{Field, Selection, count_received, has_field, header_fields, header_length, select_fields};
pub use structure::{Encoding, Part, PartKind};
pub use text::{body_contains, decode_text_parts, header_contains, text_contains};
pub use thread::ThreadId;
pub use word::decode_words;
