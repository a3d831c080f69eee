//! The addresses of this machine as the kernel has them: where they live, in which network, and whether they stay.

use std::collections::BTreeMap;
use std::net::IpAddr;

use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};

use vocab::common_bits;

use crate::netlink::Connection;

/// One address of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnAddress {
    /// Name of the interface.
    pub interface: String,
    /// The address.
    pub address: IpAddr,
    /// Bits of its network.
    pub prefix: u8,
    /// It has no lifetime: neither DHCP nor router advertisements gave it.
    pub lasting: bool,
    /// The other end of a point-to-point link (PPPoE), if it is on one.
    pub far_end: Option<IpAddr>,
}

impl OwnAddress {
    /// Whether `other` is in the network of this address.
    #[must_use]
    pub fn reaches(&self, other: IpAddr) -> bool {
        in_network(self.address, self.prefix, other)
    }
}

/// Whether both addresses have these first bits in common; never for one of each family.
#[must_use]
pub fn in_network(one: IpAddr, bits: u8, other: IpAddr) -> bool {
    let width = if one.is_ipv4() { 32 } else { 128 };
    common_bits(one, other).is_some_and(|common| common >= u32::from(bits.min(width)))
}

/// All addresses of this machine. Must be called inside a tokio runtime.
///
/// # Errors
/// The kernel does not tell, in words for the operator.
pub async fn own_addresses() -> Result<Vec<OwnAddress>, String> {
    let names = interface_names()?;
    let messages = Connection::open()?.addresses().await?;
    Ok(messages.iter().filter_map(|message| understood(message, &names)).collect())
}

fn interface_names() -> Result<BTreeMap<u32, String>, String> {
    let all = nix::ifaddrs::getifaddrs().map_err(|error| format!("list interfaces: {error}"))?;
    let indexed = all.filter_map(|interface| {
        let index = interface.address?.as_link_addr()?.ifindex();
        Some((u32::try_from(index).ok()?, interface.interface_name))
    });
    Ok(indexed.collect())
}

fn understood(message: &AddressMessage, names: &BTreeMap<u32, String>) -> Option<OwnAddress> {
    let of = |pick: fn(&AddressAttribute) -> Option<IpAddr>| message.attributes.iter().find_map(pick);
    let local = of(|attribute| if let AddressAttribute::Local(ip) = attribute { Some(*ip) } else { None });
    // On a point-to-point link this is the other end.
    let address = of(|attribute| if let AddressAttribute::Address(ip) = attribute { Some(*ip) } else { None });
    let own = local.or(address)?;
    Some(OwnAddress {
        interface: names.get(&message.header.index).cloned().unwrap_or_else(|| message.header.index.to_string()),
        address: own,
        prefix: message.header.prefix_len,
        lasting: message.header.flags.contains(AddressHeaderFlags::Permanent),
        far_end: address.filter(|far| *far != own),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect(text)
    }

    #[test]
    fn networks_are_compared_by_their_bits() {
        assert!(in_network(ip("192.0.2.1"), 24, ip("192.0.2.200")));
        assert!(!in_network(ip("192.0.2.1"), 25, ip("192.0.2.200")));
        assert!(in_network(ip("192.0.2.1"), 0, ip("10.0.0.1")));
        assert!(!in_network(ip("192.0.2.1"), 32, ip("192.0.2.2")));
        assert!(in_network(ip("2001:db8::1"), 64, ip("2001:db8::ffff:1")));
        assert!(!in_network(ip("2001:db8::1"), 64, ip("2001:db8:0:1::1")));
        assert!(in_network(ip("2001:db8::1"), 0, ip("::1")));
        assert!(!in_network(ip("0.0.0.1"), 0, ip("::1")));
    }

    #[test]
    fn lifetimes_and_far_ends_are_seen() {
        let names = BTreeMap::from([(2, "eth0".to_owned())]);
        let mut message = AddressMessage::default();
        (message.header.index, message.header.prefix_len) = (2, 24);
        message.header.flags = AddressHeaderFlags::Permanent;
        message.attributes = vec![AddressAttribute::Address(ip("192.0.2.1")), AddressAttribute::Local(ip("192.0.2.1"))];
        let plain = understood(&message, &names).expect("an address");
        assert_eq!((plain.interface.as_str(), plain.lasting, plain.far_end), ("eth0", true, None));
        message.header.flags = AddressHeaderFlags::empty();
        message.attributes[0] = AddressAttribute::Address(ip("198.51.100.1"));
        let ppp = understood(&message, &names).expect("an address");
        assert_eq!((ppp.address, ppp.lasting, ppp.far_end), (ip("192.0.2.1"), false, Some(ip("198.51.100.1"))));
    }

    #[tokio::test]
    async fn this_machine_has_its_loopback() {
        let all = own_addresses().await.expect("told");
        let own = all.iter().find(|own| own.address == ip("127.0.0.1")).expect("loopback");
        assert!(own.lasting && own.reaches(ip("127.0.0.12")), "{own:?}");
    }
}
