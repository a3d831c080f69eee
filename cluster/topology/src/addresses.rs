//! The cluster's addresses: one IPv4 and one IPv6 address at most, changed while the nodes run (HA-19).

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::apply::Faults;
use crate::state::{ClusterState, Rejection};

/// An address that clients use and the primary holds; as text `ADDRESS[/PREFIX]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ClusterAddress {
    /// The address.
    pub address: IpAddr,
    /// Bits of its network; `None`: as the node file says.
    pub prefix: Option<u8>,
}

impl From<IpAddr> for ClusterAddress {
    fn from(address: IpAddr) -> Self {
        Self { address, prefix: None }
    }
}

impl fmt::Display for ClusterAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.prefix {
            Some(bits) => write!(f, "{}/{bits}", self.address),
            None => self.address.fmt(f),
        }
    }
}

impl FromStr for ClusterAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| format!("{address} is no IP address"))?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let wrong = || format!("the bits of its network must be 1 to {most}");
        let prefix =
            prefix.map(|bits| bits.parse::<u8>().ok().filter(|bits| (1..=most).contains(bits)).ok_or_else(wrong));
        Ok(Self { address, prefix: prefix.transpose()? })
    }
}

impl TryFrom<String> for ClusterAddress {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<ClusterAddress> for String {
    fn from(address: ClusterAddress) -> Self {
        address.to_string()
    }
}

/// Several as one text.
#[must_use]
pub fn listed(addresses: &[ClusterAddress]) -> String {
    match addresses {
        [] => "none".to_owned(),
        all => all.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and "),
    }
}

/// The stored form: nothing, or one address without a network, is written as it was before there could be more.
pub mod stored {
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    use super::ClusterAddress;

    #[derive(serde::Deserialize)]
    #[serde(untagged)]
    enum Form {
        One(ClusterAddress),
        All(Vec<ClusterAddress>),
    }

    /// # Errors
    /// Those of the format.
    pub fn serialize<S: Serializer>(all: &[ClusterAddress], to: S) -> Result<S::Ok, S::Error> {
        match all {
            [] => to.serialize_none(),
            [one @ ClusterAddress { prefix: None, .. }] => one.serialize(to),
            all => all.serialize(to),
        }
    }

    /// # Errors
    /// Those of the format, and what is no address.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<ClusterAddress>, D::Error> {
        Ok(match Option::<Form>::deserialize(from)? {
            None => Vec::new(),
            Some(Form::One(one)) => vec![one],
            Some(Form::All(all)) => all,
        })
    }
}

/// The cluster gets these addresses and no others.
pub(crate) fn set(next: &mut ClusterState, addresses: &[ClusterAddress]) -> Result<(), Rejection> {
    let mut faults = Faults::default();
    for (number, one) in addresses.iter().enumerate() {
        let (place, ip) = (format!("addresses/{number}"), one.address);
        let usable = !ip.is_unspecified() && !ip.is_multicast();
        faults.require(usable, &place, format!("{ip} is no address that one machine can have"));
        let own = next.members.values().find(|member| member.address.parse() == Ok(ip));
        if let Some(own) = own {
            faults.add(&place, format!("{ip} is the own address of node {}", own.id.0));
        }
        let alike = addresses.iter().take(number).any(|other| other.address.is_ipv4() == ip.is_ipv4());
        faults.require(!alike, &place, "one IPv4 and one IPv6 address at most");
    }
    faults.check()?;
    next.cluster_addresses = addresses.to_vec();
    next.cluster_addresses.sort_unstable();
    Ok(())
}
