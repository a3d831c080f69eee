//! The node file: `/etc/twinpost/twinpost.toml`. Read once at start, in two steps: what was written ([`RawConfig`],
//! unknown keys refused) and what it means ([`NodeConfig`]); all faults are reported with their keys.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use failover::Provider;
use failover::targets::Wanted;
use frontend::config::Network;
use serde::Deserialize;

use crate::address::RawAddress;
use crate::certificates::{LIFE_RANGE_S, LIFE_S};

/// Where the node file is looked for.
pub const DEFAULT_CONFIG: &str = "/etc/twinpost/twinpost.toml";
/// Where mail is kept unless the node file says otherwise.
pub const DEFAULT_DATA: &str = "/var/lib/twinpost";

/// What is logged unless the node file says otherwise: Raft's own chatter is not.
pub const DEFAULT_LOG: &str = "info,openraft=off";

/// What `[queue] grace_ms` may be at most: a day, after which senders must hear of what did not go.
const QUEUE_GRACE_MS_MAX: u64 = 24 * 60 * 60 * 1000;
/// What `[queue] first_retry_ms` may be: no hammering, and nothing above the usual minute.
const FIRST_RETRY_MS: std::ops::RangeInclusive<u64> = 100..=60_000;

/// Ports of all services; the same on the cluster address and on the node's own.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ports {
    /// Mail from strangers.
    pub smtp: u16,
    /// Submission with STARTTLS.
    pub submission: u16,
    /// Submission with implicit TLS.
    pub submissions: u16,
    /// IMAP with STARTTLS.
    pub imap: u16,
    /// IMAP with implicit TLS.
    pub imaps: u16,
    /// POP3 with STLS.
    pub pop3: u16,
    /// POP3 with implicit TLS.
    pub pop3s: u16,
    /// API, metrics and health.
    pub https: u16,
    /// Between nodes; on the node's own address only.
    pub peer: u16,
}

impl Ports {
    /// Those that are served unless the node file says otherwise.
    pub const USUAL: Self = Self {
        smtp: 25,
        submission: 587,
        submissions: 465,
        imap: 143,
        imaps: 993,
        pop3: 110,
        pop3s: 995,
        https: 443,
        peer: 6420,
    };

    /// The ports clients use, each with its name.
    #[must_use]
    pub const fn of_clients(&self) -> [(&'static str, u16); 8] {
        [
            ("smtp", self.smtp),
            ("submission", self.submission),
            ("submissions", self.submissions),
            ("imap", self.imap),
            ("imaps", self.imaps),
            ("pop3", self.pop3),
            ("pop3s", self.pop3s),
            ("https", self.https),
        ]
    }

    /// Every port with its name: those of clients, then the one between nodes.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, u16)> {
        self.of_clients().into_iter().chain([("peer", self.peer)])
    }

    /// Those of clients, as `25 (smtp), ...`.
    #[must_use]
    pub fn services(&self) -> String {
        self.of_clients().map(|(name, port)| format!("{port} ({name})")).join(", ")
    }
}

impl Default for Ports {
    fn default() -> Self {
        Self::USUAL
    }
}

/// PEM files of a certificate for clients, instead of the one issued by the cluster's CA.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// Certificate chain.
    pub certificate: PathBuf,
    /// Private key.
    pub key: PathBuf,
}

/// DNS for the relay; empty = the system's resolver.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Dns {
    /// Servers as `address:port`.
    pub servers: Vec<std::net::SocketAddr>,
}

/// Hosts that tell an isolated node from a dead peer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Probe {
    /// `gateway`, `dns`, an address (echo request) or `address:port` (a refusal counts as an answer, too).
    pub targets: Option<Vec<String>>,
    /// Whether a node that is not heard is looked for on its mail port before this one goes on alone; yes unless the nodes
    /// cannot reach each other's mail ports, or something else answers there.
    pub peer: Option<bool>,
}

/// The outbound queue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Queue {
    /// Wait after the first failed attempt; later ones grow from it, none beyond the usual schedule.
    pub first_retry_ms: Option<u64>,
    /// How long a node alone on mere silence leaves the other node's items to it.
    pub grace_ms: Option<u64>,
}

/// Certificates that this program makes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Certificates {
    /// How long they last; short lives are for tests.
    pub life_s: Option<u64>,
}

/// Durations of the takeover rules in milliseconds; the defaults are those of DESIGN 6.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Timing {
    /// Silence after which the holder of the cluster address goes on alone.
    pub t1_ms: Option<u64>,
    /// Silence after which the other node does.
    pub t2_ms: Option<u64>,
    /// Delay of the next takeover on silence after a heal that followed one.
    pub hold_down_ms: Option<u64>,
}

/// The node file as written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawConfig {
    name: Option<String>,
    hostname: Option<String>,
    data_dir: Option<PathBuf>,
    address: Option<String>,
    private_address: Option<String>,
    #[serde(default)]
    peer_advertise: Vec<String>,
    #[serde(default)]
    allow_plaintext: bool,
    message_size_max: Option<u64>,
    log: Option<String>,
    #[serde(default)]
    discovery: bool,
    #[serde(default)]
    proxy_networks: Vec<String>,
    #[serde(default)]
    ports: Ports,
    tls: Option<TlsFiles>,
    #[serde(default)]
    dns: Dns,
    #[serde(default)]
    probe: Probe,
    #[serde(default)]
    timing: Timing,
    #[serde(default)]
    queue: Queue,
    #[serde(default)]
    certificates: Certificates,
    #[serde(default)]
    cluster_address: RawAddress,
}

/// The node file, checked.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Name of this node, shown to people.
    pub name: String,
    /// Name in greetings and Received fields.
    pub hostname: String,
    /// Everything this node keeps.
    pub data_dir: PathBuf,
    /// The node's own address; its services and the node-to-node port are bound here.
    pub address: IpAddr,
    /// Its address on a link between the nodes alone; the node-to-node port is bound there too, and used while it works.
    pub private_address: Option<IpAddr>,
    /// `host:port` under which the others find the node-to-node port, when that is not where it is bound (containers,
    /// address translation); the one to be used while it works first.
    pub peer_advertise: Vec<String>,
    /// Password logins without TLS; only taken on loopback.
    pub allow_plaintext: bool,
    /// Largest message taken (bytes).
    pub message_size_max: usize,
    /// Log filter.
    pub log: String,
    /// Whether it announces itself by mDNS on the network of its address.
    pub discovery: bool,
    /// Networks of balancers that speak the PROXY protocol to the mail ports.
    pub proxy_networks: Vec<Network>,
    /// Ports.
    pub ports: Ports,
    /// Own certificate for clients.
    pub tls: Option<TlsFiles>,
    /// DNS servers.
    pub dns: Dns,
    /// Probe targets; `None`: gateway and DNS.
    pub probe_targets: Option<Vec<Wanted>>,
    /// Whether a node that is not heard is looked for over the client network.
    pub looks: bool,
    /// Who moves the cluster address; `None`: nobody (`listen`).
    pub provider: Option<Provider>,
    /// Takeover timing.
    pub timing: Timing,
    /// Outbound queue.
    pub queue: Queue,
    /// How long certificates last that this program makes (s).
    pub certificate_life_s: u64,
}

impl NodeConfig {
    /// The node file as it may be shown to strangers: what a hook of the address is given stays here.
    #[must_use]
    pub fn for_strangers(&self) -> String {
        let provider = if self.provider.is_some() { "set" } else { "listen" };
        format!("cluster address provider: {provider}\n{:#?}\n", Self { provider: None, ..self.clone() })
    }
}

/// Why a node file cannot be used; every fault with its key.
#[derive(Debug, thiserror::Error)]
pub enum ConfigFault {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is no TOML, or has unknown keys; the text names line and key.
    #[error("{}: {source}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and what.
        source: Box<toml::de::Error>,
    },
    /// Values that cannot be.
    #[error("{}: {}", path.display(), faults.join("; "))]
    Values {
        /// The file.
        path: PathBuf,
        /// Each `key: what is wrong`.
        faults: Vec<String>,
    },
}

impl NodeConfig {
    /// Reads and checks a node file.
    ///
    /// # Errors
    /// [`ConfigFault`]: show it and exit 64.
    pub fn load(path: &Path) -> Result<Self, ConfigFault> {
        let text =
            std::fs::read_to_string(path).map_err(|source| ConfigFault::Read { path: path.to_owned(), source })?;
        let raw: RawConfig = toml::from_str(&text)
            .map_err(|source| ConfigFault::Parse { path: path.to_owned(), source: Box::new(source) })?;
        raw.check().map_err(|faults| ConfigFault::Values { path: path.to_owned(), faults })
    }
}

impl RawConfig {
    /// The node's own address and the one on a private link.
    fn check_addresses(&self, faults: &mut Vec<String>) -> (Option<IpAddr>, Option<IpAddr>) {
        let address = match self.address.as_deref().map(str::parse::<IpAddr>) {
            Some(Ok(address)) if !address.is_unspecified() => Some(address),
            Some(Ok(_)) => fault(faults, "address: must name one address, not all of them"),
            Some(Err(_)) => fault(faults, "address: not an IP address"),
            None => fault(faults, "address: missing; the IP address of this node"),
        };
        let private = match self.private_address.as_deref().map(str::parse::<IpAddr>) {
            None => None,
            Some(Ok(private)) if !private.is_unspecified() && Some(private) != address => Some(private),
            Some(_) => fault(faults, "private_address: must be one IP address, another than address"),
        };
        (address, private)
    }

    fn check(self) -> Result<NodeConfig, Vec<String>> {
        let mut faults = Vec::new();
        let (address, private_address) = self.check_addresses(&mut faults);
        if self.allow_plaintext && !address.is_some_and(|a| a.is_loopback()) {
            faults.push("allow_plaintext: only taken when address is a loopback address".into());
        }
        let ports = &self.ports;
        let all = || ports.named().map(|(_, port)| port);
        let distinct: std::collections::BTreeSet<_> = all().collect();
        if distinct.len() != all().count() || distinct.contains(&0) {
            faults.push("ports: every port must be named once and not be 0".into());
        }
        let size = self.message_size_max.unwrap_or(vocab::limits::MESSAGE_SIZE_MAX as u64);
        if size < 64 * 1024 || size > vocab::limits::MESSAGE_SIZE_MAX as u64 {
            faults.push(format!("message_size_max: 65536 to {}", vocab::limits::MESSAGE_SIZE_MAX));
        }
        if self.queue.first_retry_ms.is_some_and(|wait| !FIRST_RETRY_MS.contains(&wait)) {
            let (least, most) = (FIRST_RETRY_MS.start(), FIRST_RETRY_MS.end());
            faults.push(format!("queue.first_retry_ms: {least} to {most}"));
        }
        if self.queue.grace_ms.is_some_and(|grace| grace > QUEUE_GRACE_MS_MAX) {
            faults.push(format!("queue.grace_ms: 0 to {QUEUE_GRACE_MS_MAX}"));
        }
        let certificate_life_s = self.certificates.life_s.unwrap_or(LIFE_S);
        if !LIFE_RANGE_S.contains(&certificate_life_s) {
            let (least, most) = (LIFE_RANGE_S.start(), LIFE_RANGE_S.end());
            faults.push(format!("certificates.life_s: {least} to {most}"));
        }
        let mut proxy_networks = Vec::new();
        for text in &self.proxy_networks {
            match text.parse::<Network>() {
                Ok(network) => proxy_networks.push(network),
                Err(what) => faults.push(format!("proxy_networks: {text}: {what}")),
            }
        }
        let looks = self.probe.peer.unwrap_or(true);
        let probe_targets = self.probe.targets.map(|texts| check_targets(&texts, &mut faults));
        let provider = self.cluster_address.check(&mut faults);
        let name = self.name.unwrap_or_else(host_name);
        match address {
            Some(address) if faults.is_empty() => Ok(NodeConfig {
                hostname: self.hostname.unwrap_or_else(|| name.clone()),
                name,
                data_dir: self.data_dir.unwrap_or_else(|| PathBuf::from(DEFAULT_DATA)),
                address,
                private_address,
                peer_advertise: self.peer_advertise,
                allow_plaintext: self.allow_plaintext,
                message_size_max: usize::try_from(size).unwrap_or(vocab::limits::MESSAGE_SIZE_MAX),
                log: self.log.unwrap_or_else(|| DEFAULT_LOG.into()),
                discovery: self.discovery,
                proxy_networks,
                ports: self.ports,
                tls: self.tls,
                dns: self.dns,
                probe_targets,
                looks,
                provider,
                timing: self.timing,
                queue: self.queue,
                certificate_life_s,
            }),
            _ => Err(faults),
        }
    }
}

fn check_targets(texts: &[String], faults: &mut Vec<String>) -> Vec<Wanted> {
    let understood = texts.iter().filter_map(|text| match text.parse() {
        Ok(target) => Some(target),
        Err(what) => fault(faults, &format!("probe.targets: {text}: {what}")),
    });
    understood.collect()
}

fn fault<T>(faults: &mut Vec<String>, text: &str) -> Option<T> {
    faults.push(text.into());
    None
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<NodeConfig, Vec<String>> {
        toml::from_str::<RawConfig>(text).expect("parses").check()
    }

    #[test]
    fn every_fault_is_named_at_once() {
        let faults = check("address = \"0.0.0.0\"\nallow_plaintext = true\nmessage_size_max = 1\n[ports]\nsmtp = 587")
            .expect_err("bad");
        assert_eq!(faults.len(), 4, "{faults:?}");
        assert!(faults[0].starts_with("address:"));
    }

    #[test]
    fn a_small_file_is_enough() {
        let config = check("address = \"127.0.0.11\"\nname = \"n1\"").expect("good");
        assert_eq!(config.ports.smtp, 25);
        assert_eq!(config.hostname, "n1");
        assert_eq!(config.queue.first_retry_ms, None);
    }

    #[test]
    fn a_private_address_is_another_one() {
        let text = |private: &str| format!("address = \"127.0.0.11\"\nprivate_address = \"{private}\"");
        assert_eq!(check(&text("127.0.1.11")).expect("good").private_address, "127.0.1.11".parse().ok());
        for wrong in ["127.0.0.11", "0.0.0.0", "here"] {
            assert!(check(&text(wrong)).expect_err("bad")[0].starts_with("private_address:"), "{wrong}");
        }
    }

    #[test]
    fn the_first_retry_is_bounded() {
        let text = |wait: u64| format!("address = \"127.0.0.11\"\n[queue]\nfirst_retry_ms = {wait}");
        assert_eq!(check(&text(500)).expect("good").queue.first_retry_ms, Some(500));
        for wait in [0, 99, 60_001] {
            assert!(check(&text(wait)).expect_err("bad")[0].starts_with("queue.first_retry_ms:"));
        }
    }

    #[test]
    fn the_life_of_certificates_is_bounded() {
        let text = |life: u64| format!("address = \"127.0.0.11\"\n[certificates]\nlife_s = {life}");
        assert_eq!(check("address = \"127.0.0.11\"").expect("good").certificate_life_s, LIFE_S);
        assert_eq!(check(&text(60)).expect("good").certificate_life_s, 60);
        for wrong in [0, 19, u64::MAX / 2] {
            assert!(check(&text(wrong)).expect_err("bad")[0].starts_with("certificates.life_s:"));
        }
    }

    #[test]
    fn networks_of_balancers_are_checked() {
        let text = |list: &str| format!("address = \"127.0.0.11\"\nproxy_networks = {list}");
        assert_eq!(check(&text("[\"10.0.0.0/24\", \"2001:db8::1\"]")).expect("good").proxy_networks.len(), 2);
        let faults = check(&text("[\"10.0.0.0/24\", \"10.0.0.0/40\", \"x\"]")).expect_err("bad");
        assert_eq!(faults.len(), 2, "{faults:?}");
        assert!(faults[0].starts_with("proxy_networks: 10.0.0.0/40:"));
    }

    #[test]
    fn unknown_keys_are_refused() {
        assert!(toml::from_str::<RawConfig>("adress = \"127.0.0.1\"").is_err());
    }
}
