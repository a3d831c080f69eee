//! The PROXY protocol, version 2 (HAProxy's `proxy-protocol.txt`): whose connection this is, said before its first byte.
//! Between nodes a field of our own names the service.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// What every header begins with.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family, length of the rest.
const PREFIX_BYTES: usize = 16;
/// Longest rest taken (bytes): addresses and what balancers add, certificates' names included.
pub const REST_BYTES_MAX: usize = 4096;
/// Version 2, the connection of a client.
const PROXY: u8 = 0x21;
/// Version 2, a connection of the proxy's own, to see whether somebody is there.
const LOCAL: u8 = 0x20;
/// TCP over IPv4, over IPv6, and "not said".
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;
const UNSPECIFIED: u8 = 0x00;
/// Field of our own, from the range for applications: the service, as in the table of endpoints.
const FIELD_SERVICE: u8 = 0xE0;

/// Whose connection it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxyHeader {
    /// The client, and the address it called; `None` = the connection is the proxy's own.
    pub ends: Option<(SocketAddr, SocketAddr)>,
    /// The service it wants; said between nodes only.
    pub service: Option<String>,
}

/// Why bytes are no header; the connection is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProxyFault {
    /// Something else.
    #[error("no PROXY header of version 2")]
    NoHeader,
    /// Above [`REST_BYTES_MAX`].
    #[error("PROXY header too long")]
    TooLong,
    /// Ends too early, or lies about a length.
    #[error("PROXY header cut short")]
    CutShort,
    /// A command or an address family that is not TCP over IP.
    #[error("PROXY header of an unknown kind")]
    UnknownKind,
}

impl ProxyHeader {
    /// As bytes. A mixed pair of addresses is written as IPv6. A service name above 255 bytes is cut.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut rest = Vec::new();
        let (command, family) = match self.ends {
            None => (LOCAL, UNSPECIFIED),
            Some((client, called)) => {
                let family = match (client.ip(), called.ip()) {
                    (IpAddr::V4(client), IpAddr::V4(called)) => {
                        rest.extend(client.octets());
                        rest.extend(called.octets());
                        TCP4
                    }
                    (client, called) => {
                        rest.extend(as_ipv6(client).octets());
                        rest.extend(as_ipv6(called).octets());
                        TCP6
                    }
                };
                rest.extend(client.port().to_be_bytes());
                rest.extend(called.port().to_be_bytes());
                (PROXY, family)
            }
        };
        if let (Some(service), true) = (&self.service, command == PROXY) {
            let length = u8::try_from(service.len()).unwrap_or(u8::MAX);
            rest.extend([FIELD_SERVICE, 0, length]);
            rest.extend(service.as_bytes().iter().take(length.into()));
        }
        let length = u16::try_from(rest.len()).unwrap_or(u16::MAX);
        [&SIGNATURE[..], &[command, family], &length.to_be_bytes(), &rest].concat()
    }

    /// Understands a whole header. What follows it is left alone; unknown fields are skipped.
    ///
    /// # Errors
    /// [`ProxyFault`].
    pub fn parse(bytes: &[u8]) -> Result<Self, ProxyFault> {
        let (prefix, rest) = bytes.split_first_chunk::<PREFIX_BYTES>().ok_or(ProxyFault::CutShort)?;
        let rest = rest.get(..rest_length(prefix)?).ok_or(ProxyFault::CutShort)?;
        let [.., command, family, _, _] = *prefix;
        match (command, family) {
            (LOCAL, _) | (PROXY, UNSPECIFIED) => Ok(Self::default()),
            (PROXY, TCP4) => {
                let (from, rest) = take::<4>(rest)?;
                let (to, rest) = take::<4>(rest)?;
                Self::with_ports(Ipv4Addr::from(from).into(), Ipv4Addr::from(to).into(), rest)
            }
            (PROXY, TCP6) => {
                let (from, rest) = take::<16>(rest)?;
                let (to, rest) = take::<16>(rest)?;
                let of = |octets| IpAddr::from(Ipv6Addr::from(octets)).to_canonical();
                Self::with_ports(of(from), of(to), rest)
            }
            _ => Err(ProxyFault::UnknownKind),
        }
    }

    fn with_ports(client: IpAddr, called: IpAddr, rest: &[u8]) -> Result<Self, ProxyFault> {
        let (from, rest) = take::<2>(rest)?;
        let (to, mut rest) = take::<2>(rest)?;
        let port = u16::from_be_bytes;
        let ends = Some((SocketAddr::new(client, port(from)), SocketAddr::new(called, port(to))));
        let mut service = None;
        while !rest.is_empty() {
            let ([kind, high, low], after) = take::<3>(rest)?;
            let (value, after) =
                after.split_at_checked(u16::from_be_bytes([high, low]).into()).ok_or(ProxyFault::CutShort)?;
            if kind == FIELD_SERVICE {
                service = Some(String::from_utf8_lossy(value).into_owned());
            }
            rest = after;
        }
        Ok(Self { ends, service })
    }

    /// Reads a header and not a byte more.
    ///
    /// # Errors
    /// The stream ended or broke, or what came is a [`ProxyFault`].
    pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Self> {
        let mut bytes = vec![0; PREFIX_BYTES];
        stream.read_exact(&mut bytes).await?;
        let prefix = bytes.first_chunk().ok_or(std::io::ErrorKind::UnexpectedEof)?;
        let length = rest_length(prefix).map_err(std::io::Error::other)?;
        let mut rest = vec![0; length];
        stream.read_exact(&mut rest).await?;
        bytes.extend(rest);
        Self::parse(&bytes).map_err(std::io::Error::other)
    }
}

/// How long the rest of the header is.
fn rest_length(prefix: &[u8; PREFIX_BYTES]) -> Result<usize, ProxyFault> {
    if !prefix.starts_with(&SIGNATURE) {
        return Err(ProxyFault::NoHeader);
    }
    let [.., high, low] = *prefix;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > REST_BYTES_MAX { Err(ProxyFault::TooLong) } else { Ok(length) }
}

fn take<const N: usize>(bytes: &[u8]) -> Result<([u8; N], &[u8]), ProxyFault> {
    bytes.split_first_chunk::<N>().map(|(first, rest)| (*first, rest)).ok_or(ProxyFault::CutShort)
}

fn as_ipv6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(client: &str, called: &str, service: Option<&str>) -> ProxyHeader {
        let at = |text: &str| text.parse().expect("address");
        ProxyHeader { ends: Some((at(client), at(called))), service: service.map(str::to_owned) }
    }

    fn samples() -> Vec<ProxyHeader> {
        vec![
            header("192.0.2.7:40000", "198.51.100.1:25", None),
            header("192.0.2.7:40000", "198.51.100.1:993", Some("imaps")),
            header("[2001:db8::7]:1", "[2001:db8::1]:65535", Some("submission")),
            header("192.0.2.7:40000", "[2001:db8::1]:25", Some("smtp")),
            ProxyHeader::default(),
        ]
    }

    #[test]
    fn what_is_written_is_read() {
        for header in samples() {
            let bytes = header.encode();
            assert_eq!(ProxyHeader::parse(&bytes), Ok(header.clone()));
            assert_eq!(ProxyHeader::parse(&[&bytes[..], b"EHLO x\r\n"].concat()), Ok(header));
        }
    }

    /// Bytes written out by hand from the specification.
    #[test]
    fn a_header_as_balancers_write_it() {
        // Behind the ports: a field that fills up (0x04) and one that nobody asked for (0x20).
        let bytes = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x13\xc0\x00\x02\x07\xc6\x33\x64\x01\x9c\x40\x00\x19\
                      \x04\x00\x01\x00\x20\x00\x00EHLO";
        assert_eq!(ProxyHeader::parse(&bytes[..]), Ok(header("192.0.2.7:40000", "198.51.100.1:25", None)));
        // The last field says that it is longer than the header.
        let bytes = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x13\xc0\x00\x02\x07\xc6\x33\x64\x01\x9c\x40\x00\x19\
                      \x04\x00\x01\x00\x20\x00\x01EHLO";
        assert_eq!(ProxyHeader::parse(&bytes[..]), Err(ProxyFault::CutShort));
        let local = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00";
        assert_eq!(ProxyHeader::parse(&local[..]), Ok(ProxyHeader::default()));
        let first_version = b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 25\r\n";
        assert_eq!(ProxyHeader::parse(&first_version[..]), Err(ProxyFault::NoHeader));
    }

    #[test]
    fn strangers_bytes_are_refused_and_never_panic() {
        for header in samples() {
            let bytes = header.encode();
            for end in 0..bytes.len() {
                assert_eq!(ProxyHeader::parse(&bytes[..end]), Err(ProxyFault::CutShort), "{header:?} cut at {end}");
            }
            for at in 0..bytes.len() {
                for value in 0..=u8::MAX {
                    let mut bytes = bytes.clone();
                    bytes[at] = value;
                    let parsed = ProxyHeader::parse(&bytes);
                    assert!(at >= SIGNATURE.len() || value == SIGNATURE[at] || parsed == Err(ProxyFault::NoHeader));
                }
            }
        }
        let mut garbage = blake3::Hasher::new().finalize_xof();
        for length in 0..2000 {
            let mut noise = vec![0; length % 97];
            garbage.fill(&mut noise);
            assert!(ProxyHeader::parse(&noise).is_err(), "{noise:?}");
            // Behind a right beginning anything may follow.
            let long = [&SIGNATURE[..], &[PROXY, if length % 2 == 0 { TCP4 } else { TCP6 }, 0, 90], &noise].concat();
            if let Ok(read) = ProxyHeader::parse(&long) {
                assert!(read.ends.is_some());
            }
        }
        let long = [&SIGNATURE[..], &[PROXY, TCP4, 0xFF, 0xFF], &[0; 70_000]].concat();
        assert_eq!(ProxyHeader::parse(&long), Err(ProxyFault::TooLong));
        for kind in [[0x22, TCP4], [0x11, TCP4], [PROXY, 0x12], [PROXY, 0x31], [PROXY, 0xFF]] {
            let bytes = [&SIGNATURE[..], &kind, &[0, 12], &[0; 12]].concat();
            assert_eq!(ProxyHeader::parse(&bytes), Err(ProxyFault::UnknownKind), "{kind:?}");
        }
    }

    #[tokio::test]
    async fn a_header_is_read_and_not_a_byte_more() {
        for header in samples() {
            let bytes = [&header.encode()[..], b"EHLO"].concat();
            let mut stream = &bytes[..];
            assert_eq!(ProxyHeader::read(&mut stream).await.expect("header"), header);
            assert_eq!(stream, b"EHLO");
            for end in 0..bytes.len() - 4 {
                assert!(ProxyHeader::read(&mut &bytes[..end]).await.is_err());
            }
        }
        assert!(ProxyHeader::read(&mut &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..]).await.is_err());
    }
}
