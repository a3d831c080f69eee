//! Tables `[cluster_address]` and `[probe]` of the node file, and what is made of them.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use control::Control;
use failover::{Bits, Device, Hooks, Keeper, KeeperConfig, Lease, Link, Provider, targets};
use frontend::config::ClusterPorts;
use ports::journal::Journal;
use serde::Deserialize;
use shards::Engine;
use tokio::sync::watch;
use topology::ClusterAddress;
use vocab::NodeId;

use crate::config::NodeConfig;

/// How long a hook may run unless the node file says otherwise (ms), and what it may say.
const HOOK_LIMIT_MS: u64 = 5_000;
const HOOK_LIMITS_MS: std::ops::RangeInclusive<u64> = 100..=60_000;
/// Longest name of an interface (bytes), as the kernel has it.
const INTERFACE_BYTES_MAX: usize = 15;

/// Who moves the cluster address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ProviderName {
    /// Nobody: its ports are bound while this node is primary.
    #[default]
    Listen,
    /// The daemon, in the kernel.
    Netlink,
    /// The operator's programs.
    Exec,
}

/// Bits of the network: of whichever address there is, or of IPv4 and IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
enum RawBits {
    /// `prefix = 24`
    One(u8),
    /// `prefix = [24, 64]`
    Both(u8, u8),
}

impl RawBits {
    /// `None`: they cannot be.
    fn check(self) -> Option<Bits> {
        match self {
            Self::One(bits @ 1..=128) => Some(Bits::both(Some(bits))),
            Self::Both(v4 @ 1..=32, v6 @ 1..=128) => Some(Bits { v4: Some(v4), v6: Some(v6) }),
            _ => None,
        }
    }
}

/// `[cluster_address]` as written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawAddress {
    provider: ProviderName,
    interface: Option<String>,
    prefix: Option<RawBits>,
    acquire: Option<PathBuf>,
    release: Option<PathBuf>,
    announce: Option<PathBuf>,
    check: Option<PathBuf>,
    hook_limit_ms: Option<u64>,
}

impl RawAddress {
    /// The provider; `None` is `listen`. Faults are added with their keys.
    pub(crate) fn check(self, faults: &mut Vec<String>) -> Option<Provider> {
        let before = faults.len();
        let mut must = |good: bool, text: &str| {
            if !good {
                faults.push(format!("cluster_address.{text}"));
            }
        };
        let named = self.interface.as_ref().is_none_or(|name| (1..=INTERFACE_BYTES_MAX).contains(&name.len()));
        must(named, "interface: 1 to 15 bytes");
        let prefix = self.prefix.map_or(Some(Bits::default()), RawBits::check);
        must(prefix.is_some(), "prefix: 1 to 128, or for both families [1 to 32, 1 to 128]");
        let prefix = prefix.unwrap_or_default();
        let limit = self.hook_limit_ms.unwrap_or(HOOK_LIMIT_MS);
        must(HOOK_LIMITS_MS.contains(&limit), "hook_limit_ms: 100 to 60000");
        let hooks = [&self.acquire, &self.release, &self.announce, &self.check];
        if self.provider == ProviderName::Exec {
            must(self.acquire.is_some(), "acquire: missing; provider exec needs it");
            must(self.release.is_some(), "release: missing; provider exec needs it");
            must(
                hooks.into_iter().flatten().all(|path| path.is_absolute()),
                "acquire, release, announce, check: absolute paths",
            );
        } else {
            must(hooks.into_iter().all(Option::is_none), "acquire, release, announce, check: only with provider exec");
        }
        if self.provider == ProviderName::Netlink {
            must(self.interface.is_some(), "interface: missing; provider netlink needs it");
        }
        if faults.len() > before {
            return None;
        }
        match (self.provider, self.interface, self.acquire, self.release) {
            (ProviderName::Netlink, Some(interface), ..) => Some(Provider::Netlink(Link { interface, prefix })),
            (ProviderName::Exec, interface, Some(acquire), Some(release)) => Some(Provider::Exec(Hooks {
                acquire,
                release,
                announce: self.announce,
                check: self.check,
                interface,
                prefix,
                time_limit: Duration::from_millis(limit),
            })),
            _ => None,
        }
    }
}

/// Addresses that a keeper keeps.
pub(crate) type Kept = watch::Sender<BTreeSet<IpAddr>>;

/// When the front-end binds the ports of the cluster addresses.
pub(crate) fn ports(config: &NodeConfig, kept: &Kept) -> ClusterPorts {
    if config.provider.is_some() { ClusterPorts::Always(kept.subscribe()) } else { ClusterPorts::WhileHeld }
}

/// Starts to keep the cluster address, and to ask the probe targets.
///
/// # Errors
/// What the provider needs is not there, in words for the operator.
pub(crate) fn start(
    config: &NodeConfig,
    (node, control, engine): (NodeId, &Arc<Control>, &Arc<Engine>),
    (kept, journal): (Kept, Arc<dyn Journal>),
) -> anyhow::Result<Option<Keeper>> {
    let found = targets::resolve(&wanted_targets(config), &[config.address], &config.dns.servers);
    if !found.is_empty() {
        tracing::info!(targets = ?found, "asking probe targets");
        tokio::spawn(targets::watch(found, engine.senses()));
    }
    let Some(provider) = config.provider.clone() else { return Ok(None) };
    let device = Device::open(provider).map_err(|text| anyhow::anyhow!("cluster address: {text}"))?;
    let keeper = KeeperConfig {
        node,
        cluster: engine.cluster(),
        config: control.clone(),
        senses: engine.senses(),
        journal: Some(journal),
        kept,
    };
    Ok(Some(Keeper::start(keeper, device)))
}

/// Those of the node file; else gateway and DNS, but for nodes on loopback, whose links are not the machine's.
fn wanted_targets(config: &NodeConfig) -> Vec<targets::Wanted> {
    match &config.probe_targets {
        Some(targets) => targets.clone(),
        None if config.address.is_loopback() => Vec::new(),
        None => vec![targets::Wanted::Gateway, targets::Wanted::Dns],
    }
}

/// Takes a cluster address away from this machine after the daemon has ended.
pub(crate) async fn remove(provider: &Provider, address: ClusterAddress) {
    let lease = Lease::of(address, "process ended");
    let removed = match Device::open(provider.clone()) {
        Ok(device) => device.release(&lease).await,
        Err(fault) => Err(fault),
    };
    if let Err(fault) = removed {
        eprintln!("twinpost guard: {fault}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<Option<Provider>, Vec<String>> {
        let mut faults = Vec::new();
        let provider = toml::from_str::<RawAddress>(text).expect("parses").check(&mut faults);
        if faults.is_empty() { Ok(provider) } else { Err(faults) }
    }

    #[test]
    fn providers_are_understood() {
        assert_eq!(check(""), Ok(None));
        assert_eq!(check("provider = \"listen\""), Ok(None));
        let link = Link { interface: "eth0".into(), prefix: Bits::both(Some(24)) };
        assert_eq!(
            check("provider = \"netlink\"\ninterface = \"eth0\"\nprefix = 24"),
            Ok(Some(Provider::Netlink(link)))
        );
        let both = Link { interface: "eth0".into(), prefix: Bits { v4: Some(24), v6: Some(64) } };
        assert_eq!(
            check("provider = \"netlink\"\ninterface = \"eth0\"\nprefix = [24, 64]"),
            Ok(Some(Provider::Netlink(both)))
        );
        let exec = check("provider = \"exec\"\nacquire = \"/a\"\nrelease = \"/r\"").expect("good");
        assert!(
            matches!(exec, Some(Provider::Exec(hooks)) if hooks.time_limit.as_millis() == 5_000 && hooks.check.is_none())
        );
    }

    #[test]
    fn what_a_provider_needs_is_named() {
        let all = |text: &str| check(text).expect_err("bad").join("\n");
        assert!(all("provider = \"netlink\"").contains("interface: missing"));
        let exec = all("provider = \"exec\"\nacquire = \"a\"\nhook_limit_ms = 1");
        assert!(
            exec.contains("release: missing") && exec.contains("absolute") && exec.contains("hook_limit_ms"),
            "{exec}"
        );
        assert!(
            all("provider = \"netlink\"\ninterface = \"eth0\"\nacquire = \"/a\"").contains("only with provider exec")
        );
        assert!(all("prefix = 0\ninterface = \"0123456789abcdef\"").contains("prefix: 1 to 128"));
        assert!(all("prefix = [64, 64]").contains("[1 to 32, 1 to 128]"));
        assert!(toml::from_str::<RawAddress>("prefix = [24]").is_err());
        assert!(toml::from_str::<RawAddress>("provider = \"vrrp\"").is_err());
    }
}
