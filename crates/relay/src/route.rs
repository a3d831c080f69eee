//! Where an item goes: the hosts of its domain by preference, or the relay host of the setting.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use ports::resolver::ResolveError;
use queue::op::QueueItem;
use serde::Deserialize;
use smtp::client::{Job, TlsUse};

use crate::attempt::Sent;
use crate::dialogue::{self, Security};
use crate::noted::Noted;
use crate::worker::Relay;

/// Name of the setting.
pub const SETTING: &str = "relay";
/// Addresses tried in one attempt, of all hosts together.
const ADDRESSES_MAX: usize = 8;

/// How mail to the relay host is protected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RelayTls {
    /// STARTTLS if offered, any certificate.
    #[default]
    Opportunistic,
    /// STARTTLS with a certificate for the host's name.
    Required,
    /// TLS from the first byte, with a certificate for the host's name.
    Implicit,
    /// None (a host on the same machine).
    Never,
}

/// Body of the setting `relay`: all mail for elsewhere goes to this host.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RelaySetting {
    /// Name or address.
    pub host: String,
    /// Port; 25 unless given.
    #[serde(default = "smtp_port")]
    pub port: u16,
    /// TLS.
    #[serde(default)]
    pub tls: RelayTls,
}

const fn smtp_port() -> u16 {
    25
}

/// One place to try.
struct Route {
    hosts: Vec<String>,
    port: u16,
    tls: RelayTls,
    /// The hosts come from the recipient's domain, so a missing name is the recipient's fault.
    direct: bool,
}

/// Sends the item to the first host that takes it.
pub(crate) async fn send(relay: &Relay, item: &QueueItem) -> Sent {
    let route = match route(relay, item).await {
        Ok(route) => route,
        Err(sent) => return sent,
    };
    let body = match relay.ports.blobs.get(item.blob, 0, item.size).await {
        Ok(body) if body.len() as u64 == item.size => body,
        Ok(_) => return Sent::temporary("4.3.0", "message not complete on this node"),
        Err(error) => return Sent::temporary("4.3.0", format!("message not readable now: {error}")),
    };
    try_hosts(relay, item, &route, &body).await
}

async fn route(relay: &Relay, item: &QueueItem) -> Result<Route, Sent> {
    // The newest setting at each attempt, so that a change needs no restart.
    let state = relay.ports.config.current();
    if let Some(setting) = state.setting(SETTING) {
        return match RelaySetting::deserialize(setting) {
            Ok(RelaySetting { host, port, tls }) => Ok(Route { hosts: vec![host], port, tls, direct: false }),
            Err(error) => {
                tracing::error!(%error, "setting `relay` cannot be read: mail for elsewhere waits");
                Err(Sent::temporary("4.3.5", "relay host not configured properly"))
            }
        };
    }
    let domain = &item.recipient.domain;
    let mut hosts = match relay.ports.resolver.mail_hosts(domain).await {
        Ok(hosts) => hosts,
        Err(ResolveError::NoSuchName) => {
            return Err(Sent::permanent("5.1.2", format!("domain {domain} does not exist")));
        }
        Err(ResolveError::NullMx) => return Err(Sent::permanent("5.1.10", format!("domain {domain} takes no mail"))),
        Err(error) => return Err(Sent::temporary("4.4.3", error.to_string())),
    };
    // From ourselves on the list is no way forward (RFC 5321 §5.1).
    if let Some(own) = hosts.iter().position(|host| host.eq_ignore_ascii_case(&relay.config.hostname)) {
        hosts.truncate(own);
        if hosts.is_empty() {
            return Err(Sent::permanent("5.4.6", format!("mail for {domain} loops back to us")));
        }
    }
    Ok(Route { hosts, port: relay.config.port, tls: RelayTls::Opportunistic, direct: true })
}

async fn try_hosts(relay: &Relay, item: &QueueItem, route: &Route, body: &Bytes) -> Sent {
    let mut last = Sent::temporary("4.4.4", "no host to send to");
    let mut tried = 0;
    for host in &route.hosts {
        let addresses = match relay.ports.resolver.addresses(host).await {
            Ok(addresses) => addresses,
            Err(ResolveError::NoSuchName) if route.direct && *host == item.recipient.domain.as_str() => {
                return Sent::permanent("5.1.2", format!("domain {host} has no mail host"));
            }
            Err(error) => {
                last = Sent::temporary("4.4.3", format!("{host}: {error}"));
                continue;
            }
        };
        for address in addresses {
            if tried >= ADDRESSES_MAX {
                return last;
            }
            tried += 1;
            match try_address(relay, item, (route, host.as_str(), address), body).await {
                (sent, false) => return sent,
                (sent, true) => last = sent,
            }
        }
    }
    last
}

/// One dialogue, twice if the handshake of opportunistic TLS fails; true = another host may do better.
async fn try_address(
    relay: &Relay,
    item: &QueueItem,
    (route, host, address): (&Route, &str, IpAddr),
    body: &Bytes,
) -> (Sent, bool) {
    let socket = SocketAddr::new(address, route.port);
    let shown = format!("{host} [{address}]");
    let mut job = Job {
        name: relay.config.hostname.clone(),
        tls: match route.tls {
            RelayTls::Opportunistic => TlsUse::Opportunistic,
            RelayTls::Required => TlsUse::Required,
            RelayTls::Implicit | RelayTls::Never => TlsUse::Never,
        },
        reverse_path: item.reverse_path.clone(),
        recipients: vec![item.recipient.clone()],
        body: body.clone(),
        smtputf8: item.smtputf8,
    };
    let security = match route.tls {
        RelayTls::Opportunistic | RelayTls::Never => Security::Any,
        RelayTls::Required => Security::Verified,
        RelayTls::Implicit => Security::ImplicitVerified,
    };
    loop {
        let noted = Noted::begin(&relay.ports.log, item.id, socket);
        let result = dialogue::run(&relay.connectors, socket, (host, security), job.clone(), noted).await;
        match result {
            Ok(()) => return (Sent::Taken(shown), false),
            Err(refusal) if refusal.status == "4.7.5" && job.tls == TlsUse::Opportunistic => {
                tracing::info!(accept = %item.id, host = shown, "TLS failed, sending without it");
                job.tls = TlsUse::Never;
            }
            Err(refusal) => {
                let elsewhere = refusal.elsewhere;
                return (Sent::refused(refusal, &shown), elsewhere);
            }
        }
    }
}
