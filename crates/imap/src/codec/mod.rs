//! Bytes to commands and responses to bytes: the grammar of RFC 3501 §9 with the extensions that are offered.
//!
//! Trust: everything comes from strangers; nothing here panics, recurses without bound or allocates by what a client
//! merely announces.

pub mod append;
pub mod assemble;
pub mod command;
pub mod date;
pub mod fetch;
pub mod list;
pub mod parser;
pub mod response;
pub mod search;
pub mod sequence;
pub mod utf7;
