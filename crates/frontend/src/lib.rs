//! Listeners, TLS and drivers for the protocols.
//!
//! A connection: [`listener`] accepts and counts it, [`drive`](drive::drive) runs its sealed session, the protocol's
//! `Answerer` answers the session's questions from the ports. While this node may not serve, [`proxy`] carries connections
//! to one that may. A new protocol is one `listener::Protocol` and one row in
//! `frontend::endpoints`.

pub mod clock;
pub mod cluster_address;
pub mod config;
pub mod context;
pub mod drive;
pub mod frontend;
pub mod http;
pub mod imap;
pub mod listener;
pub mod pop3;
pub mod proxy;
pub mod proxy_header;
pub mod share;
mod smtp;
mod submit;
pub mod tls;
pub mod transport;

pub use config::FrontendConfig;
pub use context::Ports;
pub use frontend::{Frontend, FrontendHandle};
pub use http::{
    AddressCheck, AddressChecks, Administration, CertificateOffice, Checkpoints, JoinTokens, Reports, RotationOrder,
    TokenPlan,
};
