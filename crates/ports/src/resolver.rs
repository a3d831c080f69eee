//! DNS for the relay.

use std::net::IpAddr;

use vocab::Domain;

use crate::Answer;

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// The name does not exist, or has no such record (permanent: 5.1.2; null MX RFC 7505: 5.1.10).
    #[error("no such name")]
    NoSuchName,
    /// The domain says it takes no mail (RFC 7505).
    #[error("null MX")]
    NullMx,
    /// Ask again later (4.4.3).
    #[error("resolver failed: {0}")]
    Temporary(String),
}

/// DNS questions of a mail server.
pub trait Resolver: Send + Sync {
    /// Hosts by ascending preference, equal ones shuffled; the domain itself when there is no MX (RFC 5321 §5.1).
    fn mail_hosts<'a>(&'a self, domain: &'a Domain) -> Answer<'a, Result<Vec<String>, ResolveError>>;
    /// Addresses of a host.
    fn addresses<'a>(&'a self, host: &'a str) -> Answer<'a, Result<Vec<IpAddr>, ResolveError>>;
}
