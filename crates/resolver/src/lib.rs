//! DNS behind the resolver port: MX with its rules (RFC 5321 §5.1, RFC 7505), addresses, and names made of addresses.

use std::net::{IpAddr, SocketAddr};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::RData;
use ports::Answer;
use ports::resolver::{ResolveError, Resolver};
use rand::seq::SliceRandom as _;
use vocab::Domain;

/// Hosts of one domain that are tried at most; the rest of a longer list would never be reached in time.
pub const MAIL_HOSTS_MAX: usize = 10;

/// Answers from the servers of the system, or from given ones. Caches within their time to live.
pub struct DnsResolver {
    resolver: Result<TokioResolver, String>,
}

impl DnsResolver {
    /// Asks `servers`, or those of the system when there are none. Without any every answer is "temporary": a machine
    /// without DNS still keeps its own mail.
    #[must_use]
    pub fn new(servers: &[SocketAddr]) -> Self {
        let builder = if servers.is_empty() {
            TokioResolver::builder_tokio()
        } else {
            let config = ResolverConfig::from_name_servers(servers.iter().copied().map(name_server).collect());
            Ok(TokioResolver::builder_with_config(config, TokioRuntimeProvider::default()))
        };
        let resolver = builder.and_then(hickory_resolver::ResolverBuilder::build).map_err(|e| e.to_string());
        Self { resolver }
    }

    fn resolver(&self) -> Result<&TokioResolver, ResolveError> {
        self.resolver.as_ref().map_err(|error| ResolveError::Temporary(error.clone()))
    }

    async fn mx(&self, domain: &Domain) -> Result<Vec<String>, ResolveError> {
        if let Some(address) = literal(domain.as_str()) {
            return Ok(vec![address.to_string()]);
        }
        let lookup = match self.resolver()?.mx_lookup(absolute(domain.as_str())).await {
            Ok(lookup) => lookup,
            // No MX: the domain itself is the host (RFC 5321 §5.1).
            Err(NetError::Dns(DnsError::NoRecordsFound(none))) if none.response_code == ResponseCode::NoError => {
                return Ok(vec![domain.to_string()]);
            }
            Err(error) => return Err(resolve_error(&error)),
        };
        let hosts = lookup.answers().iter().filter_map(|record| match &record.data {
            RData::MX(mx) => Some((mx.preference, mx.exchange.to_ascii())),
            _ => None,
        });
        by_preference(hosts.collect())
    }

    async fn ip(&self, host: &str) -> Result<Vec<IpAddr>, ResolveError> {
        if let Some(address) = literal(host) {
            return Ok(vec![address]);
        }
        let found = self.resolver()?.lookup_ip(absolute(host)).await.map_err(|error| resolve_error(&error))?;
        Ok(found.iter().collect())
    }
}

impl Resolver for DnsResolver {
    fn mail_hosts<'a>(&'a self, domain: &'a Domain) -> Answer<'a, Result<Vec<String>, ResolveError>> {
        Box::pin(self.mx(domain))
    }
    fn addresses<'a>(&'a self, host: &'a str) -> Answer<'a, Result<Vec<IpAddr>, ResolveError>> {
        Box::pin(self.ip(host))
    }
}

fn name_server(address: SocketAddr) -> NameServerConfig {
    let with_port = |mut connection: ConnectionConfig| {
        connection.port = address.port();
        connection
    };
    let connections = vec![with_port(ConnectionConfig::udp()), with_port(ConnectionConfig::tcp())];
    NameServerConfig::new(address.ip(), true, connections)
}

/// With its root dot, so that no search list is tried.
fn absolute(name: &str) -> String {
    format!("{}.", name.trim_end_matches('.'))
}

/// `[192.0.2.1]`, `[IPv6:...]` or a bare address.
fn literal(name: &str) -> Option<IpAddr> {
    let inner = name.strip_prefix('[').and_then(|n| n.strip_suffix(']')).unwrap_or(name);
    inner.strip_prefix("IPv6:").unwrap_or(inner).parse().ok()
}

/// Ascending, equal ones shuffled (RFC 5321 §5.1 spreads load that way). A single "." is the null MX.
fn by_preference(mut hosts: Vec<(u16, String)>) -> Result<Vec<String>, ResolveError> {
    if !hosts.is_empty() && hosts.iter().all(|(_, host)| host == ".") {
        return Err(ResolveError::NullMx);
    }
    hosts.shuffle(&mut rand::rng());
    hosts.sort_by_key(|(preference, _)| *preference);
    let names = hosts.into_iter().map(|(_, host)| host.trim_end_matches('.').to_owned()).filter(|h| !h.is_empty());
    Ok(names.take(MAIL_HOSTS_MAX).collect())
}

fn resolve_error(error: &NetError) -> ResolveError {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none))
            if matches!(none.response_code, ResponseCode::NXDomain | ResponseCode::NoError) =>
        {
            ResolveError::NoSuchName
        }
        NetError::Dns(DnsError::ResponseCode(ResponseCode::NXDomain)) => ResolveError::NoSuchName,
        other => ResolveError::Temporary(other.to_string()),
    }
}

#[cfg(test)]
mod tests;
