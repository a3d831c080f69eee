//! Frames of our own making on an interface (needs CAP_NET_RAW).

use std::io;
use std::os::fd::AsRawFd as _;

use nix::sys::socket::{LinkAddr, MsgFlags, sendto};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;

use crate::packet::Mac;

/// All kinds of frames, in the byte order the kernel wants.
const EVERY_KIND: u16 = 0x0003_u16.to_be();
/// Longest frame that is looked at (bytes); what is longer claims no address.
const FRAME_BYTES: usize = 256;

/// An interface as the kernel names it now.
pub(crate) struct Interface {
    pub(crate) mac: Mac,
    pub(crate) index: u32,
    link: LinkAddr,
}

impl Interface {
    /// # Errors
    /// There is none, or it has no hardware address.
    pub(crate) fn find(name: &str) -> Result<Self, String> {
        let all = nix::ifaddrs::getifaddrs().map_err(|error| format!("list interfaces: {error}"))?;
        let link = all
            .filter(|interface| interface.interface_name == name)
            .find_map(|interface| interface.address?.as_link_addr().copied())
            .ok_or_else(|| format!("there is no interface {name}"))?;
        let mac = link.addr().filter(|_| link.halen() == 6).ok_or_else(|| format!("{name} is no Ethernet"))?;
        let index = u32::try_from(link.ifindex()).map_err(|_| format!("{name} has no index"))?;
        Ok(Self { mac, index, link })
    }

    /// Sends frames out of this interface.
    ///
    /// # Errors
    /// No permission, or the interface is down.
    pub(crate) fn send(&self, frame: &[u8]) -> io::Result<()> {
        // Protocol 0: nothing is received.
        let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
        sendto(socket.as_raw_fd(), frame, &self.link, MsgFlags::empty())?;
        Ok(())
    }
}

/// Hears the frames of all interfaces until dropped.
pub(crate) struct Ear(UdpSocket);

impl Ear {
    /// # Errors
    /// No permission.
    pub(crate) fn open() -> io::Result<Self> {
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(i32::from(EVERY_KIND))))?;
        socket.set_nonblocking(true)?;
        // Any socket of datagrams receives like this one.
        Ok(Self(UdpSocket::from_std(socket.into())?))
    }

    /// The beginning of the next frame. Cancel-safe.
    ///
    /// # Errors
    /// The interface went down.
    pub(crate) async fn hear(&self) -> io::Result<Vec<u8>> {
        let mut frame = vec![0; FRAME_BYTES];
        let length = self.0.recv(&mut frame).await?;
        frame.truncate(length);
        Ok(frame)
    }
}
