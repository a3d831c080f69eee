//! Grammar of commands, replies and message data. Everything here meets strangers' bytes and never panics on them.

pub mod command;
pub mod data;
pub mod params;
pub mod path;
pub mod reply;
