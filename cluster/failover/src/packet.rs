//! Frames on the wire, as bytes: ARP (RFC 826, RFC 5227) and neighbour discovery (RFC 4861, RFC 4862).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A hardware address.
pub type Mac = [u8; 6];

/// To everybody.
const BROADCAST: Mac = [0xff; 6];
/// To all nodes, as Ethernet spells ff02::1.
const ALL_NODES_MAC: Mac = [0x33, 0x33, 0, 0, 0, 1];
/// ff02::1.
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
/// Ethernet, IPv4, lengths of both addresses.
const ARP_OVER_ETHERNET: [u8; 6] = [0, 1, 0x08, 0, 6, 4];
const ARP_REQUEST: [u8; 2] = [0, 1];
const ETHERNET_BYTES: usize = 14;
const IPV6_BYTES: usize = 40;
const NEXT_ICMPV6: u8 = 58;
/// Neighbour discovery is only taken with this hop limit: nobody forwarded it.
const HOPS: u8 = 255;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
/// Replace what is cached; not solicited, no router.
const FLAG_OVERRIDE: u8 = 0x20;
/// Option type: link-layer address of the target, with its length in units of eight bytes.
const TARGET_LINK_ADDRESS: [u8; 2] = [2, 1];

/// "This address is here now": a gratuitous ARP request, or an unsolicited neighbour advertisement.
#[must_use]
pub fn announcement(own: Mac, address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => arp_request(own, v4, v4),
        IpAddr::V6(v6) => {
            let mut icmp = vec![NEIGHBOUR_ADVERTISEMENT, 0, 0, 0, FLAG_OVERRIDE, 0, 0, 0];
            icmp.extend(v6.octets());
            icmp.extend(TARGET_LINK_ADDRESS);
            icmp.extend(own);
            icmpv6((own, v6), (ALL_NODES_MAC, ALL_NODES), icmp)
        }
    }
}

/// "Who has this address?", asked without one of our own, so that nobody's cache is touched.
#[must_use]
pub fn question(own: Mac, address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => arp_request(own, Ipv4Addr::UNSPECIFIED, v4),
        IpAddr::V6(v6) => {
            let mut icmp = vec![NEIGHBOUR_SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
            icmp.extend(v6.octets());
            let [.., a, b, c] = v6.octets();
            let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]));
            icmpv6((own, Ipv6Addr::UNSPECIFIED), ([0x33, 0x33, 0xff, a, b, c], group), icmp)
        }
    }
}

/// Who says to have which address, if this frame says so.
#[must_use]
pub fn claim(frame: &[u8]) -> Option<(IpAddr, Mac)> {
    let kind = frame.get(12..ETHERNET_BYTES)?;
    let rest = frame.get(ETHERNET_BYTES..)?;
    if kind == ETHERTYPE_ARP {
        arp_claim(rest)
    } else if kind == ETHERTYPE_IPV6 {
        advertised(rest)
    } else {
        None
    }
}

/// A request or reply whose sender has an address; a question has none.
fn arp_claim(arp: &[u8]) -> Option<(IpAddr, Mac)> {
    let sender: Mac = arp.get(8..14)?.try_into().ok()?;
    let address: [u8; 4] = arp.get(14..18)?.try_into().ok()?;
    let address = Ipv4Addr::from(address);
    let sound = arp.get(..6)? == ARP_OVER_ETHERNET && !address.is_unspecified();
    sound.then_some((address.into(), sender))
}

fn advertised(ip: &[u8]) -> Option<(IpAddr, Mac)> {
    let (next, hops, icmp) = (*ip.get(6)?, *ip.get(7)?, ip.get(IPV6_BYTES..)?);
    if next != NEXT_ICMPV6 || hops != HOPS || *icmp.first()? != NEIGHBOUR_ADVERTISEMENT {
        return None;
    }
    let target: [u8; 16] = icmp.get(8..24)?.try_into().ok()?;
    let mut options = icmp.get(24..)?;
    while let Some(&[kind, units]) = options.get(..2) {
        let bytes = usize::from(units) * 8;
        if bytes == 0 {
            return None;
        }
        if [kind, units] == TARGET_LINK_ADDRESS {
            let mac: Mac = options.get(2..8)?.try_into().ok()?;
            return Some((Ipv6Addr::from(target).into(), mac));
        }
        options = options.get(bytes..)?;
    }
    None
}

fn ethernet(from: Mac, to: Mac, kind: [u8; 2]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(ETHERNET_BYTES + IPV6_BYTES + 32);
    frame.extend(to);
    frame.extend(from);
    frame.extend(kind);
    frame
}

fn arp_request(own: Mac, sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut frame = ethernet(own, BROADCAST, ETHERTYPE_ARP);
    frame.extend(ARP_OVER_ETHERNET);
    frame.extend(ARP_REQUEST);
    frame.extend(own);
    frame.extend(sender.octets());
    frame.extend([0; 6]);
    frame.extend(target.octets());
    frame
}

fn icmpv6((from_mac, from): (Mac, Ipv6Addr), (to_mac, to): (Mac, Ipv6Addr), mut icmp: Vec<u8>) -> Vec<u8> {
    let length = u16::try_from(icmp.len()).unwrap_or(u16::MAX);
    let sum = checksum(from, to, length, &icmp).to_be_bytes();
    if let Some(place) = icmp.get_mut(2..4) {
        place.copy_from_slice(&sum);
    }
    let mut frame = ethernet(from_mac, to_mac, ETHERTYPE_IPV6);
    frame.extend([0x60, 0, 0, 0]);
    frame.extend(length.to_be_bytes());
    frame.extend([NEXT_ICMPV6, HOPS]);
    frame.extend(from.octets());
    frame.extend(to.octets());
    frame.extend(icmp);
    frame
}

/// RFC 4443 section 2.3: over the pseudo-header and the message, whose own field is zero. The message has an even length.
fn checksum(from: Ipv6Addr, to: Ipv6Addr, length: u16, icmp: &[u8]) -> u16 {
    let words = |bytes: &[u8]| -> u32 {
        bytes
            .chunks(2)
            .map(|pair| {
                u32::from(pair.first().copied().unwrap_or(0)) << 8 | u32::from(pair.get(1).copied().unwrap_or(0))
            })
            .sum()
    };
    let mut sum =
        words(&from.octets()) + words(&to.octets()) + u32::from(length) + u32::from(NEXT_ICMPV6) + words(icmp);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Mac = [2, 0, 0, 0, 0, 0x0a];

    fn hex(frame: &[u8]) -> String {
        frame.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn a_gratuitous_arp_is_broadcast_and_names_the_address_twice() {
        let frame = announcement(OWN, "192.0.2.10".parse().expect("address"));
        assert_eq!(
            hex(&frame),
            "ffffffffffff02000000000a0806\
             0001080006040001\
             02000000000ac000020a\
             000000000000c000020a"
        );
        assert_eq!(claim(&frame), Some(("192.0.2.10".parse().expect("address"), OWN)));
    }

    #[test]
    fn a_question_claims_nothing() {
        for address in ["192.0.2.10", "2001:db8::10"] {
            let frame = question(OWN, address.parse().expect("address"));
            assert_eq!(claim(&frame), None, "{address}");
        }
        let frame = question(OWN, "192.0.2.10".parse().expect("address"));
        assert_eq!(&frame[28..32], [0; 4], "asked without an address (RFC 5227 2.1.1)");
    }

    #[test]
    fn a_solicitation_goes_to_the_group_of_its_target() {
        let frame = question(OWN, "2001:db8::12:3456".parse().expect("address"));
        assert_eq!(&frame[..6], [0x33, 0x33, 0xff, 0x12, 0x34, 0x56]);
        let to: [u8; 16] = frame[38..54].try_into().expect("16 bytes");
        assert_eq!(Ipv6Addr::from(to), "ff02::1:ff12:3456".parse::<Ipv6Addr>().expect("address"));
        assert_eq!(frame.len(), ETHERNET_BYTES + IPV6_BYTES + 24);
    }

    #[test]
    fn an_advertisement_overrides_and_its_checksum_is_right() {
        let address: Ipv6Addr = "2001:db8::10".parse().expect("address");
        let frame = announcement(OWN, address.into());
        assert_eq!(&frame[..6], ALL_NODES_MAC);
        assert_eq!((frame[20], frame[21]), (NEXT_ICMPV6, 255));
        let icmp = &frame[54..];
        assert_eq!((icmp[0], icmp[4]), (136, 0x20));
        // Over a message with its checksum in place the sum is all ones.
        assert_eq!(checksum(address, ALL_NODES, 32, icmp), 0);
        assert_eq!(claim(&frame), Some((address.into(), OWN)));
    }

    #[test]
    fn what_is_cut_or_forwarded_claims_nothing() {
        let address: IpAddr = "2001:db8::10".parse().expect("address");
        let whole = announcement(OWN, address);
        for end in 0..whole.len() {
            assert_eq!(claim(&whole[..end]), None, "{end} bytes");
        }
        let mut forwarded = whole.clone();
        forwarded[21] = 254;
        assert_eq!(claim(&forwarded), None);
        let mut endless = whole;
        endless[79] = 0;
        assert_eq!(claim(&endless), None, "an option without length");
        let arp = announcement(OWN, "192.0.2.10".parse().expect("address"));
        for end in 0..32 {
            assert_eq!(claim(&arp[..end]), None, "{end} bytes");
        }
    }
}
