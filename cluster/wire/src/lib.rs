//! Messages between nodes, generated from `proto/`. Numbers are never reused, unknown fields are kept out of meaning.
#![allow(missing_docs, clippy::all)]

/// Frames of the replication link and forwarded calls.
pub mod link {
    include!(concat!(env!("OUT_DIR"), "/twinpost.link.rs"));
}
/// Calls between engines: forwarded operations, bodies, transfers.
pub mod forward {
    include!(concat!(env!("OUT_DIR"), "/twinpost.forward.rs"));
}
/// Shipping the log to the primary.
pub mod log {
    include!(concat!(env!("OUT_DIR"), "/twinpost.log.rs"));
}
