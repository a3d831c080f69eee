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

    /// Who else has the address. Takes about half a second with netlink.
    ///
    /// # Errors
    /// Nobody could be asked, or a hook says that somebody has it; for status.
    pub async fn check(&self, lease: &Lease) -> Result<Found, String> {
        match &self.provider {
            Provider::Netlink(link) => look(link, lease).await,
            Provider::Exec(hooks) => exec::run(hooks, exec::Hook::Check, lease).await.map(|()| Found::default()),
        }
    }
}

/// Who else has the lease's address on this link. Needs CAP_NET_RAW; takes about half a second.
///
/// # Errors
/// Nobody could be asked, in words for the operator.
pub async fn look(link: &Link, lease: &Lease) -> Result<Found, String> {
    netlink::look(link, lease).await
}

/// Who else has the cluster address on a link, told apart by hardware addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Whether a node has it that was heard on the link under its own address, too.
    pub node: bool,
    /// Other machines that have it.
    pub others: Vec<Mac>,
    /// Nodes' own addresses that were heard.
    heard: Vec<IpAddr>,
}

impl Found {
    /// `own`: this machine; `claims`: pairs of address and claimant as heard.
    #[must_use]
    pub fn among(lease: &Lease, own: Mac, claims: &[(IpAddr, Mac)]) -> Self {
        let by_nodes = || claims.iter().filter(|(ip, _)| lease.others.contains(ip));
        let claimants = claims.iter().filter(|(ip, mac)| *ip == lease.address && *mac != own).map(|(_, mac)| *mac);
        let (nodes, mut others): (Vec<Mac>, Vec<Mac>) =
            claimants.partition(|mac| by_nodes().any(|(_, node)| node == mac));
        others.sort_unstable();
        others.dedup();
        Self { node: !nodes.is_empty(), others, heard: by_nodes().map(|(ip, _)| *ip).collect() }
    }

    /// Hardware addresses of machines that have the address and are no nodes, as text. `holder`: own address of another
    /// node that has it by right. When that does not answer on this link, the holder cannot be told from a stranger: one
    /// machine alone is taken for it, and of several all are named.
    #[must_use]
    pub fn strangers(&self, holder: Option<IpAddr>) -> Vec<String> {
        let unheard = holder.is_some_and(|own| !self.node && !self.heard.contains(&own));
        match self.others.len() > usize::from(unheard) {
            true => self.others.iter().map(spelled).collect(),
            false => Vec::new(),
        }
    }
}

/// As people write it.
fn spelled(mac: &Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ha_09_another_node_is_no_stranger() {
        let (own, node, stranger) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 3]);
        let ip = |text: &str| text.parse::<IpAddr>().expect("address");
        let (cluster, theirs) = (ip("192.0.2.10"), ip("192.0.2.2"));
        let lease = Lease { others: vec![theirs], ..Lease::of("192.0.2.10".parse().expect("address"), "check") };
        let found = |claims: &[(IpAddr, Mac)]| Found::among(&lease, own, claims);
        let held = found(&[(cluster, node), (theirs, node), (cluster, own)]);
        assert!(held.node && held.strangers(Some(theirs)).is_empty() && held.strangers(None).is_empty());
        // Somebody else has it, beside the holder or while the holder is silent.
        let both = found(&[(cluster, node), (cluster, stranger), (cluster, stranger), (theirs, node)]);
        assert_eq!(both.strangers(Some(theirs)), ["02:00:00:00:00:03"]);
        let alone = found(&[(cluster, stranger), (theirs, node)]);
        assert_eq!((alone.node, alone.strangers(Some(theirs))), (false, vec!["02:00:00:00:00:03".to_owned()]));
        // Who was not heard under its own address cannot vouch for itself: one may be the holder, not two, and nobody
        // when nobody holds it.
        let unheard = found(&[(cluster, node)]);
        assert!(unheard.strangers(Some(theirs)).is_empty() && !unheard.others.is_empty());
        assert_eq!(unheard.strangers(None), ["02:00:00:00:00:02"]);
        assert_eq!(found(&[(cluster, node), (cluster, stranger)]).strangers(Some(theirs)).len(), 2);
        assert_eq!(found(&[]), Found::default());
    }
}
