//! Takes due queue items and sends them: to the hosts of their domain, or to one relay host when a setting names it.
//!
//! Each item is one recipient. The start of an attempt is committed before the dialogue and its end after it, so a
//! node that dies in between loses time and never mail; the next hop may then see a message twice, as SMTP allows.

mod attempt;
mod bounce;
mod dialogue;
mod noted;
pub mod route;
mod tls;
mod worker;

pub use worker::{Relay, RelayConfig, RelayPorts};

#[cfg(test)]
mod tests;
