//! Listeners, TLS and drivers for the protocols.
//!
//! A connection: [`listener`] accepts and counts it, [`drive`](drive::drive) runs its sealed session, the protocol's
//! `Answerer` answers the session's questions from the ports. A new protocol is one `listener::Protocol`.

pub mod clock;
pub mod cluster_address;
pub mod config;
pub mod context;
pub mod drive;
pub mod listener;
pub mod pop3;
pub mod smtp;
pub mod tls;
pub mod transport;
