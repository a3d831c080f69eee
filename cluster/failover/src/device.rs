//! What adds, announces and removes the address.

use std::net::IpAddr;

use topology::ClusterAddress;

use crate::exec::{self, Hooks};
use crate::netlink::{self, Link};
use crate::packet::Mac;

/// Who moves the address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Provider {
    /// This process, through netlink, on this interface.
    Netlink(Link),
    /// An operator's programs.
    Exec(Hooks),
}

/// The address and why it moves, for hooks and logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The cluster address.
    pub address: IpAddr,
    /// Bits of its network; `None`: as the provider's settings say.
    pub prefix: Option<u8>,
    /// The other nodes' own addresses: who answers from there is no stranger.
    pub others: Vec<IpAddr>,
    /// `takeover`, `renewal`, `handover`, `stop`, `process ended`, `check`.
    pub reason: &'static str,
    /// Epoch as `number.author`, empty when not known.
    pub epoch: String,
}

impl Lease {
    /// For this reason, with nothing known about the others and the epoch.
    #[must_use]
    pub fn of(address: ClusterAddress, reason: &'static str) -> Self {
        let ClusterAddress { address, prefix } = address;
        Self { address, prefix, others: Vec::new(), reason, epoch: String::new() }
    }
}

/// Bits of a network for each family, where none is said with the address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bits {
    /// Of an IPv4 network; `None`: the address alone.
    pub v4: Option<u8>,
    /// Of an IPv6 network; `None`: the address alone.
    pub v6: Option<u8>,
}

impl Bits {
    /// The same for both families.
    #[must_use]
    pub const fn both(bits: Option<u8>) -> Self {
        Self { v4: bits, v6: bits }
    }

    /// Of the network of this lease.
    #[must_use]
    pub fn of(self, lease: &Lease) -> u8 {
        let (usual, alone) = if lease.address.is_ipv4() { (self.v4, 32) } else { (self.v6, 128) };
        lease.prefix.or(usual).unwrap_or(alone)
    }
}

/// A provider at work.
pub struct Device {
    provider: Provider,
    netlink: Option<netlink::Connection>,
}

impl Device {
    /// Opens what the provider needs. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// What is missing, in words for the operator.
    pub fn open(provider: Provider) -> Result<Self, String> {
        let netlink = match &provider {
            Provider::Netlink(_) => Some(netlink::Connection::open()?),
            Provider::Exec(_) => None,
        };
        Ok(Self { provider, netlink })
    }

    /// Whether the address runs out unless it is renewed.
    #[must_use]
    pub const fn is_leased(&self) -> bool {
        matches!(self.provider, Provider::Netlink(_))
    }

    /// Adds the address, or renews it.
    ///
    /// # Errors
    /// Why it is not there, for status.
    pub async fn acquire(&self, lease: &Lease) -> Result<(), String> {
        match (&self.provider, &self.netlink) {
            (Provider::Netlink(link), Some(connection)) => connection.add(link, lease).await,
            (Provider::Exec(hooks), _) => exec::run(hooks, exec::Hook::Acquire, lease).await,
            (Provider::Netlink(_), None) => Err(netlink::CLOSED.to_owned()),
        }
    }

    /// Removes the address; that it is not there is no fault.
    ///
    /// # Errors
    /// Why it may still be there, for status.
    pub async fn release(&self, lease: &Lease) -> Result<(), String> {
        match (&self.provider, &self.netlink) {
            (Provider::Netlink(link), Some(connection)) => connection.remove(link, lease).await,
            (Provider::Exec(hooks), _) => exec::run(hooks, exec::Hook::Release, lease).await,
            (Provider::Netlink(_), None) => Err(netlink::CLOSED.to_owned()),
        }
    }

    /// Tells the network where the address is now.
    ///
    /// # Errors
    /// Why nobody was told.
    pub async fn announce(&self, lease: &Lease) -> Result<(), String> {
        match &self.provider {
            Provider::Netlink(link) => netlink::announce(link, lease.address),
            Provider::Exec(hooks) => exec::run(hooks, exec::Hook::Announce, lease).await,
        }
    }

    /// Whether nobody else has the address. Takes about half a second with netlink.
    ///
    /// # Errors
    /// Somebody has it, or nobody can say; for status.
    pub async fn check(&self, lease: &Lease) -> Result<(), String> {
        match &self.provider {
            Provider::Netlink(link) => netlink::check(link, lease).await,
            Provider::Exec(hooks) => exec::run(hooks, exec::Hook::Check, lease).await,
        }
    }
}

/// Hardware addresses of machines on this link that have the lease's address and are no nodes of the cluster. Needs
/// CAP_NET_RAW; takes about half a second.
///
/// # Errors
/// Nobody could be asked, in words for the operator.
pub async fn strangers_on(link: &Link, lease: &Lease) -> Result<Vec<String>, String> {
    netlink::find_strangers(link, lease).await
}

/// Strangers among those who claim the address: neither this machine nor another node. `claims` are pairs of address
/// and claimant as heard.
#[must_use]
pub fn strangers(lease: &Lease, own: Mac, claims: &[(IpAddr, Mac)]) -> Vec<Mac> {
    let nodes: Vec<Mac> = claims.iter().filter(|(ip, _)| lease.others.contains(ip)).map(|(_, mac)| *mac).collect();
    let claimants = claims.iter().filter(|(ip, _)| *ip == lease.address).map(|(_, mac)| *mac);
    let mut strangers: Vec<Mac> = claimants.filter(|mac| *mac != own && !nodes.contains(mac)).collect();
    strangers.sort_unstable();
    strangers.dedup();
    strangers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_node_is_no_stranger() {
        let (own, node, stranger) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 3]);
        let ip = |text: &str| text.parse::<IpAddr>().expect("address");
        let lease =
            Lease { others: vec![ip("192.0.2.2")], ..Lease::of("192.0.2.10".parse().expect("address"), "check") };
        let claims = [(ip("192.0.2.10"), node), (ip("192.0.2.2"), node), (ip("192.0.2.10"), own)];
        assert!(strangers(&lease, own, &claims).is_empty());
        let claims = [(ip("192.0.2.10"), stranger), (ip("192.0.2.10"), stranger), (ip("192.0.2.2"), node)];
        assert_eq!(strangers(&lease, own, &claims), [stranger]);
        // A node that was not heard cannot vouch for itself.
        assert_eq!(strangers(&lease, own, &[(ip("192.0.2.10"), node)]), [node]);
    }
}
