//! The cluster address on this machine (DESIGN 8), and what asks around whether this machine is cut off (DESIGN 6).
//!
//! [`schedule`] decides when, a [`device::Device`] does it: through netlink, or through an operator's hooks. Provider
//! `listen` has nothing to do here: its front-ends bind and unbind the address themselves.

pub mod addresses;
pub mod device;
mod exec;
mod keeper;
mod lane;
mod netlink;
pub mod packet;
mod ping;
mod raw;
pub mod schedule;
pub mod targets;

pub use addresses::{OwnAddress, own_addresses};
pub use device::{Bits, Device, Found, Lease, Provider, look};
pub use exec::Hooks;
pub use keeper::{Keeper, KeeperConfig};
pub use netlink::Link;
