//! What the front-end is told when it starts, and the limits it keeps.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use vocab::common_bits;

use crate::tls::TlsFiles;

/// Ports of the services; the same on the cluster address and on the node's own. 0 takes any free one (tests).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServicePorts {
    /// Mail from strangers (25).
    pub smtp: u16,
    /// Submission with STARTTLS (587).
    pub submission: u16,
    /// Submission with implicit TLS (465).
    pub submissions: u16,
    /// IMAP with STARTTLS (143).
    pub imap: u16,
    /// IMAP with implicit TLS (993).
    pub imaps: u16,
    /// POP3 with STLS (110).
    pub pop3: u16,
    /// POP3 with implicit TLS (995).
    pub pop3s: u16,
    /// API, metrics and health (443).
    pub https: u16,
}

/// Limits of connections and memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections of one service; above it: 421, BYE, -ERR.
    pub connections_max: usize,
    /// Connections of one service from one client address (IPv6: one /64).
    pub connections_per_address_max: usize,
    /// The same for port 25, where strangers come from.
    pub smtp_connections_per_address_max: usize,
    /// Bytes of messages held in memory at once, of all connections together; above it 452 4.3.1 / NO [LIMIT].
    pub message_memory_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 10_000,
            connections_per_address_max: 2_000,
            smtp_connections_per_address_max: 200,
            message_memory_bytes: 512 * 1024 * 1024,
        }
    }
}

/// When the ports of the cluster address are bound.
#[derive(Clone, Debug, Default)]
pub enum ClusterPorts {
    /// While this node holds the address: binding is what makes it answer there.
    #[default]
    WhileHeld,
    /// Always, whether the address is here or not: somebody else moves it, and a takeover binds nothing. Whoever moves it
    /// says here which addresses it keeps beside those of the configuration: one that was changed until the new one is here.
    Always(watch::Receiver<BTreeSet<IpAddr>>),
}

/// Everything the front-end is told.
#[derive(Clone, Debug)]
pub struct FrontendConfig {
    /// Name in greetings and Received fields.
    pub hostname: String,
    /// The node's own address, always bound.
    pub address: IpAddr,
    /// When those of the cluster address are.
    pub cluster_ports: ClusterPorts,
    /// Ports.
    pub ports: ServicePorts,
    /// Certificate for clients.
    pub tls: TlsFiles,
    /// Password logins without TLS (loopback test set-ups only).
    pub allow_plaintext: bool,
    /// Largest message taken (bytes).
    pub message_size_max: usize,
    /// Limits.
    pub limits: Limits,
    /// Networks of balancers: whoever connects to a mail port from there says first whose connection it is (PROXY
    /// protocol, version 2). From everywhere else such a header is no more than a wrong command.
    pub proxy_networks: Vec<Network>,
}

/// A network: an address and how many of its bits count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    /// Whether this address belongs to it; IPv4 inside IPv6 counts as IPv4.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        common_bits(self.address, address.to_canonical()).is_some_and(|common| common >= self.bits.into())
    }
}

impl FromStr for Network {
    type Err = &'static str;
    /// `10.0.0.0/24`, `2001:db8::/32`, or one address.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().map_err(|_| "not an IP address")?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(most), str::parse).map_err(|_| "not a number of bits")?;
        if bits > most { Err("more bits than the address has") } else { Ok(Self { address, bits }) }
    }
}

/// Budget of bytes for messages in memory. Permits give their bytes back when dropped.
#[derive(Clone, Debug)]
pub struct BodyBudget {
    kib: Arc<Semaphore>,
}

/// Bytes taken from the budget.
#[derive(Debug)]
pub struct BodyPermit {
    _permit: OwnedSemaphorePermit,
}

impl BodyBudget {
    /// A budget of so many bytes.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        Self { kib: Arc::new(Semaphore::new((bytes / 1024).min(Semaphore::MAX_PERMITS))) }
    }
    /// Takes bytes now, or `None` when too many are in use: refuse for now (452 4.3.1).
    #[must_use]
    pub fn take(&self, bytes: usize) -> Option<BodyPermit> {
        let kib = u32::try_from(bytes.div_ceil(1024)).ok()?;
        let permit = self.kib.clone().try_acquire_many_owned(kib).ok()?;
        Some(BodyPermit { _permit: permit })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_knows_its_addresses() {
        let network = |text: &str| text.parse::<Network>().expect(text);
        let holds = |text: &str, address: &str| network(text).contains(address.parse().expect("address"));
        assert!(holds("10.1.0.0/16", "10.1.255.7") && !holds("10.1.0.0/16", "10.2.0.1"));
        assert!(holds("10.1.0.0/16", "::ffff:10.1.2.3") && !holds("10.1.0.0/16", "2001:db8::1"));
        assert!(holds("0.0.0.0/0", "192.0.2.1") && !holds("0.0.0.0/0", "::1"));
        assert!(holds("192.0.2.1", "192.0.2.1") && !holds("192.0.2.1", "192.0.2.2"));
        assert!(holds("2001:db8::/33", "2001:db8:7fff::1") && !holds("2001:db8::/33", "2001:db8:8000::1"));
        for wrong in ["", "10.0.0.0/33", "2001:db8::/129", "10.0.0.0/-1", "10.0.0.0/", "balancer/24", "10.0.0.0/24/8"] {
            assert!(wrong.parse::<Network>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_budget_is_given_back() {
        let budget = BodyBudget::new(10 * 1024);
        let first = budget.take(9 * 1024).expect("room");
        assert!(budget.take(2 * 1024).is_none());
        drop(first);
        assert!(budget.take(10 * 1024).is_some());
    }
}
