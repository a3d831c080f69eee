//! Provider `netlink`: the address is a lease in the kernel (needs CAP_NET_ADMIN, and CAP_NET_RAW to announce it).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use futures_util::TryStreamExt as _;
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage, CacheInfo};
use rtnetlink::{AddressMessageBuilder, Handle};

use crate::device::{Bits, Found, Lease};
use crate::packet;
use crate::raw::{Ear, Interface};
use crate::schedule::LIFETIME_S;

/// Said when the connection to the kernel was not opened.
pub(crate) const CLOSED: &str = "no connection to the kernel";
/// How long the kernel may take to answer; it does at once.
const ANSWER_WAIT: Duration = Duration::from_millis(500);
/// Questions of one check, and how long answers are waited for after each.
const QUESTIONS: usize = 3;
const QUESTION_WAIT: Duration = Duration::from_millis(150);

/// Where the address lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Name of the interface.
    pub interface: String,
    /// Bits of the network; none: the address alone, the network is that of the node's own address.
    pub prefix: Bits,
}

impl Link {
    fn message(&self, lease: &Lease) -> Result<AddressMessage, String> {
        let interface = Interface::find(&self.interface)?;
        let (address, bits) = (lease.address, self.prefix.of(lease));
        let (index, lifetime) = (interface.index, LIFETIME_S);
        let mut message = match address {
            IpAddr::V4(v4) => AddressMessageBuilder::<Ipv4Addr>::new().index(index).address(v4, bits).build(),
            IpAddr::V6(v6) => AddressMessageBuilder::<Ipv6Addr>::new().index(index).address(v6, bits).build(),
        };
        let mut life = CacheInfo::default();
        life.ifa_valid = lifetime;
        // "Deprecated" from the first moment: taken for what comes in, never chosen for what goes out.
        life.ifa_preferred = 0;
        message.attributes.push(AddressAttribute::CacheInfo(life));
        if address.is_ipv6() {
            message.header.flags = AddressHeaderFlags::Nodad;
        }
        Ok(message)
    }
}

/// A connection to the kernel.
pub(crate) struct Connection {
    handle: Handle,
    task: tokio::task::JoinHandle<()>,
}

impl Connection {
    /// # Errors
    /// No netlink socket.
    pub(crate) fn open() -> Result<Self, String> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(|error| format!("netlink: {error}"))?;
        Ok(Self { handle, task: tokio::spawn(connection) })
    }

    /// What the kernel has, on all interfaces.
    pub(crate) async fn addresses(&self) -> Result<Vec<AddressMessage>, String> {
        let told = self.handle.address().get().execute().try_collect::<Vec<_>>();
        let told = tokio::time::timeout(ANSWER_WAIT, told).await.map_err(|_| "the kernel did not answer".to_owned())?;
        told.map_err(|error| format!("list addresses: {error}"))
    }

    /// Adds or renews.
    pub(crate) async fn add(&self, link: &Link, lease: &Lease) -> Result<(), String> {
        let (address, message) = (lease.address, link.message(lease)?);
        let mut request = self.handle.address().add(0, address, 0).replace();
        *request.message_mut() = message;
        within(request.execute())
            .await
            .map_err(|error| format!("{address} was not added to {}: {error}", link.interface))
    }

    /// Removes; that it is not there is no fault.
    pub(crate) async fn remove(&self, link: &Link, lease: &Lease) -> Result<(), String> {
        let (address, message) = (lease.address, link.message(lease)?);
        match within(self.handle.address().del(message).execute()).await {
            Ok(()) => Ok(()),
            Err(error) if error.is_absent => Ok(()),
            Err(error) => Err(format!("{address} was not removed from {}: {error}", link.interface)),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Why the kernel did not do it.
struct Fault {
    text: String,
    is_absent: bool,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

async fn within(work: impl Future<Output = Result<(), rtnetlink::Error>>) -> Result<(), Fault> {
    match tokio::time::timeout(ANSWER_WAIT, work).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(rtnetlink::Error::NetlinkError(message))) => {
            let error = message.to_io();
            let is_absent = error.kind() == std::io::ErrorKind::AddrNotAvailable;
            Err(Fault { text: error.to_string(), is_absent })
        }
        Ok(Err(error)) => Err(Fault { text: error.to_string(), is_absent: false }),
        Err(_) => Err(Fault { text: "the kernel did not answer".to_owned(), is_absent: false }),
    }
}

/// Tells the network.
pub(crate) fn announce(link: &Link, address: IpAddr) -> Result<(), String> {
    let interface = Interface::find(&link.interface)?;
    let sent = interface.send(&packet::announcement(interface.mac, address));
    sent.map_err(|error| format!("{address} was not announced on {}: {error}", link.interface))
}

/// Asks who has the address, and who has the nodes' own: by that nodes are told from strangers.
pub(crate) async fn look(link: &Link, lease: &Lease) -> Result<Found, String> {
    let interface = Interface::find(&link.interface)?;
    let failed =
        |error: std::io::Error| format!("nobody was asked on {} for {}: {error}", link.interface, lease.address);
    let ear = Ear::open().map_err(failed)?;
    let mut claims = Vec::new();
    for _ in 0..QUESTIONS {
        for address in lease.others.iter().chain([&lease.address]) {
            interface.send(&packet::question(interface.mac, *address)).map_err(failed)?;
        }
        let until = tokio::time::Instant::now() + QUESTION_WAIT;
        while let Ok(frame) = tokio::time::timeout_at(until, ear.hear()).await {
            claims.extend(packet::claim(&frame.map_err(failed)?));
        }
    }
    Ok(Found::among(lease, interface.mac, &claims))
}
