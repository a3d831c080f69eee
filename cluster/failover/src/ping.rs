//! Echo requests (RFC 792, RFC 4443), through a ping socket where the system allows them, else through a raw one.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;

const ECHO_REQUEST_V4: u8 = 8;
const ECHO_REPLY_V4: u8 = 0;
const ECHO_REQUEST_V6: u8 = 128;
const ECHO_REPLY_V6: u8 = 129;
/// A raw socket hears all replies that come to this machine; ours has our number and these bytes.
const PAYLOAD: &[u8; 8] = b"twinpost";

/// Whether this address answers. Waits for ever when it does not.
///
/// # Errors
/// No permission, or no route.
pub(crate) async fn ping(address: IpAddr) -> io::Result<bool> {
    static NEXT: AtomicU16 = AtomicU16::new(1);
    let sequence = NEXT.fetch_add(1, Ordering::Relaxed);
    let (domain, protocol) = match address {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
    };
    let socket = match Socket::new(domain, Type::DGRAM, Some(protocol)) {
        Ok(socket) => socket,
        Err(_) => Socket::new(domain, Type::RAW, Some(protocol))?,
    };
    socket.set_nonblocking(true)?;
    socket.connect(&SocketAddr::new(address, 0).into())?;
    // Any socket of datagrams sends and receives like this one.
    let socket = UdpSocket::from_std(socket.into())?;
    socket.send(&request(address.is_ipv4(), sequence)).await?;
    loop {
        let mut reply = [0; 128];
        let length = socket.recv(&mut reply).await?;
        if is_reply(reply.get(..length).unwrap_or_default(), address.is_ipv4(), sequence) {
            return Ok(true);
        }
    }
}

fn request(v4: bool, sequence: u16) -> Vec<u8> {
    let kind = if v4 { ECHO_REQUEST_V4 } else { ECHO_REQUEST_V6 };
    let mut message = vec![kind, 0, 0, 0, 0, 0];
    message.extend(sequence.to_be_bytes());
    message.extend(PAYLOAD);
    if v4 {
        // For IPv6 the kernel does it, since it knows the addresses.
        let sum = checksum(&message).to_be_bytes();
        if let Some(place) = message.get_mut(2..4) {
            place.copy_from_slice(&sum);
        }
    }
    message
}

fn checksum(message: &[u8]) -> u16 {
    let words = message.chunks(2).map(|pair| {
        u32::from(u16::from_be_bytes([pair.first().copied().unwrap_or(0), pair.get(1).copied().unwrap_or(0)]))
    });
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

/// A raw IPv4 socket hands over the IP header, too.
fn is_reply(bytes: &[u8], v4: bool, sequence: u16) -> bool {
    let header = match bytes.first() {
        Some(first) if v4 && first >> 4 == 4 => usize::from(first & 0x0f) * 4,
        _ => 0,
    };
    let Some(message) = bytes.get(header..) else { return false };
    let kind = if v4 { ECHO_REPLY_V4 } else { ECHO_REPLY_V6 };
    message.first() == Some(&kind)
        && message.get(6..8) == Some(sequence.to_be_bytes().as_slice())
        && message.get(8..16) == Some(PAYLOAD.as_slice())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_told_from_a_request_and_from_somebody_elses() {
        let mut reply = request(true, 7);
        assert_eq!(checksum(&reply), 0, "right with the sum in place");
        assert!(!is_reply(&reply, true, 7), "our own request");
        reply[0] = ECHO_REPLY_V4;
        assert!(is_reply(&reply, true, 7));
        assert!(!is_reply(&reply, true, 8));
        let mut raw = vec![0x45];
        raw.extend([0; 19]);
        raw.extend(&reply);
        assert!(is_reply(&raw, true, 7), "behind an IP header");
        let mut six = request(false, 7);
        six[0] = ECHO_REPLY_V6;
        assert!(is_reply(&six, false, 7) && !is_reply(&six[..15], false, 7));
    }
}
